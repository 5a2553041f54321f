"""What a model without a network reaches on the data of article 3's recipes.

    python tests/benchmarks/baselines.py

Texts: interpolated n-grams of characters (Witten & Bell 1991), nats per character of the last
tenth. CO2: the last week repeated, and the same week of the year before plus the mean yearly rise
of the ten years before the last tenth, mean absolute error in ppm. Sounds: how often each level is,
nats per sample of two sounds of each kind.
"""

import collections

import numpy as np

from keras_genai import tasks
from keras_genai.audio import mu_law_encode


def main():
    for name, orders in (("books", (3, 4, 5, 6)), ("tang", (2, 3))):
        data = tasks.Text(name).load()
        for order in orders:
            nats = witten_bell(data.train, data.held_out, len(data.facts["characters"]), order)
            print(f"{name}, {order}-grams: {nats:.3f} nats per character", flush=True)
    series, first = tasks.Series().load().held_out
    weeks, past = np.arange(first, len(series)), np.arange(first - 520, first)
    rise = np.mean(series[past] - series[past - 52])
    for name, forecast in (
        ("1 week ahead, the week before", series[weeks - 1]),
        ("52 weeks ahead, the year before and its rise", series[weeks - 52] + rise),
    ):
        print(f"CO2, {name}: {np.abs(forecast - series[weeks]).mean():.3f} ppm")
    sounds = tasks.Sounds().load()
    train, held_out = (
        mu_law_encode(np.concatenate(waveforms)) for waveforms, _ in (sounds.train, sounds.held_out)
    )
    counts = np.bincount(train, minlength=256) + 1.0
    nats = -np.log(counts / counts.sum())[held_out].mean()
    print(f"percussion, frequencies of the levels: {nats:.2f} nats per sample")


def witten_bell(train, held_out, vocab_size: int, order: int) -> float:
    """Return nats per token; p(x | context) leans on that of a shorter context.

    p_n(x) = (count(x) + kinds * p_(n-1)(x)) / (total + kinds): the more kinds of token have
    followed a context, the more likely another new one is. p_0 is uniform.
    """
    train = train.tolist()
    following = collections.defaultdict(collections.Counter)
    for i, token in enumerate(train):
        for n in range(min(order, i + 1)):
            following[tuple(train[i - n : i])][token] += 1
    totals = {context: counter.total() for context, counter in following.items()}
    nats, count = 0.0, 0
    for text in map(list, held_out):
        for i in range(1, len(text)):
            p = 1 / vocab_size
            for n in range(min(order, i + 1)):
                context = tuple(text[i - n : i])
                if context not in totals:
                    break
                kinds = len(following[context])
                p = (following[context][text[i]] + kinds * p) / (totals[context] + kinds)
            nats, count = nats - np.log(p), count + 1
    return nats / count


if __name__ == "__main__":
    main()
