"""Baselines without a network, on the data of article 3's recipes.

    python tests/benchmarks/baselines.py

Texts: interpolated character n-grams (Witten & Bell 1991), in nats per character of the held-out
last tenth. CO2: the value of the week before; and the value of the same week a year before plus the
mean yearly rise of the ten years before the last tenth; mean absolute error in ppm. Sounds: the
frequencies of the mu-law levels, in nats per sample of two held-out sounds of each class.
"""

import collections

import numpy as np

from keras_genai.audio import mu_law_encode
from keras_genai.tasks import AudioTask, ForecastingTask, LanguageModelingTask


def main():
    for name, orders in (("books", (4, 5, 6, 7, 8)), ("tang", (2, 3))):
        data = LanguageModelingTask(name).load()
        vocab_size = len(data.dataset_info["characters"])
        for order in orders:
            nats = witten_bell(data.train, data.test, vocab_size, order)
            counts = np.array([len(text) - 1 for text in data.test])
            values = {"": nats.sum() / counts.sum()}
            values |= dict(zip(data.test_names, nats / counts, strict=False))
            for text, value in values.items():
                title = " ".join(filter(None, [name, text]))
                print(f"{title}, {order}-grams: {value:.3f} nats per character", flush=True)
    series, start = ForecastingTask().load().test
    weeks, past = np.arange(start, len(series)), np.arange(start - 520, start)
    yearly_rise = np.mean(series[past] - series[past - 52])
    forecasts = {
        "1 week ahead, value of the week before": series[weeks - 1],
        "52 weeks ahead, value of the year before and rise": series[weeks - 52] + yearly_rise,
    }
    for name, forecast in forecasts.items():
        print(f"CO2, {name}: {np.abs(forecast - series[weeks]).mean():.3f} ppm")
    data = AudioTask().load()
    train_levels, test_levels = (
        mu_law_encode(np.concatenate(waveforms)) for waveforms, _ in (data.train, data.test)
    )
    counts = np.bincount(train_levels, minlength=256) + 1.0
    cross_entropy = -np.log(counts / counts.sum())[test_levels].mean()
    print(f"percussion, frequencies of the levels: {cross_entropy:.2f} nats per sample")


def witten_bell(train, test, vocab_size: int, order: int) -> np.ndarray:
    """Return the nats of each test text under an n-gram model with Witten-Bell smoothing.

    Each probability is interpolated with that of the next shorter context:

        p_n(x) = (count(x) + num_types * p_(n-1)(x)) / (total + num_types)

    num_types is the number of distinct tokens that followed the context: the more there are, the
    more likely is another new one. p_0 is uniform.

    Args:
        train: Int array `(n,)`.
        test: List of int arrays. The first token of each is not scored.
        vocab_size: Int. Number of tokens in the vocabulary.
        order: Int. Length of the n-grams.
    """
    train = train.tolist()
    followers = collections.defaultdict(collections.Counter)
    for i, token in enumerate(train):
        for n in range(min(order, i + 1)):
            followers[tuple(train[i - n : i])][token] += 1
    totals = {context: counter.total() for context, counter in followers.items()}
    nats = np.zeros(len(test))
    for index, text in enumerate(map(list, test)):
        for i in range(1, len(text)):
            p = 1 / vocab_size
            for n in range(min(order, i + 1)):
                context = tuple(text[i - n : i])
                if context not in totals:
                    break
                num_types = len(followers[context])
                count = followers[context][text[i]]
                p = (count + num_types * p) / (totals[context] + num_types)
            nats[index] -= np.log(p)
    return nats


if __name__ == "__main__":
    main()
