"""What a recipe does with its data: a class for each kind of it, a method for each need of `train`.

    load(source)                        data to train on and held out, the user's own if given
    batches(data, batch_size, seed, epoch)
                                        what `fit` trains on
    validation(data)                    what `fit` measures after each epoch, as its arguments
    callbacks(folder, model)            what is drawn after each epoch
    measure(model, data)                the recipe's figure, as "measured", and its parts
    draw(model, data, folder)           what is drawn in the end

Nothing here loads TensorFlow before it is used, so that recipes can be listed without it.
"""

import dataclasses
import pathlib
import typing

import numpy as np

SOUND_TEMPERATURE = 0.9  # at 1, noise is too bright: tests/benchmarks/sounds.py


@dataclasses.dataclass
class Data:
    """What `load` returns.

    Attributes:
        train, held_out: arrays, as the task lays them out.
        count: number of examples in an epoch.
        facts: what a model is built from, beside its settings, as JSON can hold it.
        judge: a trained classifier, if it takes one to measure the figure.
    """

    train: typing.Any
    held_out: typing.Any
    count: int
    facts: dict
    judge: typing.Any = None


class Images:
    """MNIST, or a folder of the user's images.

    Args:
        labelled: whether the model is trained with labels.
        flat: whether an image is a row of pixels.
    """

    data = "MNIST"
    names = {}  # of data that ships, beside the recipe's own
    unit = "images"
    needs_judge = False  # whether it takes a classifier of digits to measure the figure

    def __init__(self, labelled=False, flat=True):
        self.labelled, self.flat = labelled, flat

    def load(self, source=None) -> Data:
        from keras_genai import datasets

        if source is None:
            train, held_out = datasets.load_mnist()
        else:
            train, held_out = datasets.load_image_folder(source)
        if self.labelled and (train[1] is None or train[1].max() == 0):
            raise ValueError(
                f"{source}: expected a folder for each class, since labels are needed."
            )
        train, held_out = self.arrange(*train), self.arrange(*held_out)
        num_classes = None
        if self.labelled:
            num_classes = int(max(train[1].max(), held_out[1].max())) + 1
        facts = {"num_classes": num_classes}
        judge = _digit_classifier() if self.needs_judge and source is None else None
        return Data(train, held_out, len(train[0]), facts, judge)

    def arrange(self, images, labels):
        """Return what `fit` takes, (x, y): pixels in [0, 1], and labels if it learns from them.

        Args:
            images: uint8 (n, height, width).
            labels: integers (n,) or None.
        """
        x = images.astype("float32") / 255
        x = x.reshape(len(x), -1) if self.flat else x[..., None]
        return (x, np.asarray(labels, "int32")) if self.labelled else (x, None)

    def batches(self, data, batch_size, seed, epoch):
        from keras_genai import datasets

        x, y = data.train
        return datasets.batches(x if y is None else (x, y), batch_size, seed, epoch)

    def validation(self, data) -> dict:
        return {"validation_data": data.held_out, "validation_batch_size": 500}

    def callbacks(self, folder, model) -> list:
        from keras_genai.callbacks import ImageGrid

        labels = labels_in_turn(model, 64)
        return [ImageGrid(folder / "samples" / "epoch-{epoch:02d}.png", 64, labels)]

    def measure(self, model, data) -> dict:
        scores = model.evaluate(*data.held_out, batch_size=500, verbose=0, return_dict=True)
        return {"measured": scores["loss"], **scores}

    def draw(self, model, data, folder: pathlib.Path) -> None:
        from keras_genai.plotting import plot_images

        samples = model.generate(64, labels_in_turn(model, 64), seed=0)
        plot_images(samples).savefig(folder / "samples.png")


class Reconstruction(Images):
    """A VAE: measured is the loss, or, told the digit, whether the samples are of it."""

    @property
    def needs_judge(self):
        return self.labelled

    def measure(self, model, data) -> dict:
        figures = super().measure(model, data)
        if not self.labelled:
            return figures
        labels = np.arange(10_000) % 10
        read = _read(model.generate(10_000, labels, seed=0), data.judge)
        return {**figures, "measured": 100 * float(np.mean(read == labels))}

    def draw(self, model, data, folder):
        from keras_genai.plotting import plot_images

        super().draw(model, data, folder)
        x, y = (None if part is None else part[:10] for part in data.held_out)
        pairs = np.concatenate([x, model.reconstruct(x, y)])
        plot_images(pairs, columns=10).savefig(folder / "reconstructions.png")


class Adversarial(Images):
    """A GAN: measured is how many digits it covers.

    A digit is covered if the classifier finds it in at least one in a hundred samples.
    """

    needs_judge = True

    def measure(self, model, data) -> dict:
        return _coverage(_read(model.generate(10_000, seed=0), data.judge))


class Classification(Images):
    """A classifier: measured is its accuracy."""

    def __init__(self):
        super().__init__(labelled=True, flat=False)

    def callbacks(self, folder, model):
        return []

    def measure(self, model, data) -> dict:
        return {"measured": 100 * super().measure(model, data)["accuracy"]}

    def draw(self, model, data, folder):
        from keras_genai.plotting import plot_images

        x, y = (part[:64] for part in data.held_out)
        guesses = model.predict(x, verbose=0).argmax(-1)
        titles = [f"{a}" if a == b else f"{a} for {b}" for a, b in zip(guesses, y)]
        plot_images(x, titles=titles).savefig(folder / "predictions.png")


class Likelihood(Images):
    """A PixelCNN of images in black and white: measured is minus log p(x) of an image."""

    def __init__(self, labelled=False):
        super().__init__(labelled, flat=False)

    def arrange(self, images, labels):
        from keras_genai import datasets

        x, y = super().arrange(images, labels)
        return datasets.binarize(x), y

    def draw(self, model, data, folder):
        """Draw samples; lower halves to eight images; and what each of their pixels costs."""
        from keras_genai.plotting import plot_images, plot_pixel_nats

        super().draw(model, data, folder)
        x, y = (None if part is None else part[:8] for part in data.held_out)
        half = x[:, : x.shape[1] // 2]
        hidden = np.pad(half, [(0, 0), (0, x.shape[1] - half.shape[1]), (0, 0), (0, 0)])
        completed = [model.generate(len(x), y, seed, given=half) for seed in range(4)]
        rows = np.concatenate([x, hidden, *completed])
        plot_images(rows, columns=len(x)).savefig(folder / "completions.png")
        _, log_probs = model.log_prob(x, y)
        plot_pixel_nats(x, -log_probs).savefig(folder / "likelihood.png")


class Denoising(Images):
    """A diffusion model: measured is whether the samples are of the digit that was asked for.

    Without labels, it is how many digits its samples cover, as of a GAN. They are drawn by DDPM's
    own sampler.
    """

    needs_judge = True
    num_samples = 1000

    def __init__(self, labelled=False):
        super().__init__(labelled, flat=False)

    def measure(self, model, data) -> dict:
        labels = labels_in_turn(model, self.num_samples)
        samples = model.generate(self.num_samples, labels, sampler="ddpm", seed=0)
        read = _read(samples, data.judge)
        loss = super().measure(model, data)["loss"]
        if self.labelled:
            return {"measured": 100 * float(np.mean(read == labels)), "loss": loss}
        return {**_coverage(read), "loss": loss}

    def draw(self, model, data, folder):
        """Draw samples; images on their way to noise; and samples on their way from it."""
        from keras_genai.plotting import plot_images

        super().draw(model, data, folder)
        times = np.round(np.linspace(0, model.schedule.num_steps - 1, 10)).astype(int)
        x = data.held_out[0][:4]
        noisy = np.stack([model.add_noise(x, t, seed=0) for t in times], axis=1)
        titles = [f"t = {t}" for t in times] + [""] * 10 * (len(x) - 1)
        noisy = noisy.reshape(-1, *x.shape[1:])
        plot_images(noisy, columns=10, titles=titles).savefig(folder / "noising.png")
        path = model.denoising_path(4, labels_in_turn(model, 4), frames=9, seed=0)
        path = path.swapaxes(0, 1).reshape(-1, *x.shape[1:])
        plot_images(path, columns=10).savefig(folder / "denoising.png")


def _digit_classifier():
    from keras_genai import pretrained

    return pretrained.load("article4-cnn")


def _read(images, classifier) -> np.ndarray:
    """Return the digits (n,) that the classifier reads in images (n, 784)."""
    logits = classifier.predict(images.reshape(-1, 28, 28, 1), batch_size=500, verbose=0)
    return np.argmax(logits, axis=-1)


def _coverage(digits) -> dict:
    shares = np.bincount(digits, minlength=10) / len(digits)
    return {"measured": int(np.sum(shares >= 0.01)), "digit_shares": shares.tolist()}


def labels_in_turn(model, count: int):
    """Return labels 0, 1, 2, … in turn for a conditional model, None for another."""
    if model.num_classes is None:
        return None
    return [i % model.num_classes for i in range(count)]


class Text:
    """A text: measured are nats per character of the last tenth.

    Args:
        name: "books", "tang" or "alice", which the user may name as well.
        window: tokens that are trained on at once.
        vocab_size: of byte pairs that are learned from the text; None for characters.
    """

    names = {
        "books": "three English books",
        "tang": "Tang quatrains",
        "alice": "Alice in Wonderland",
    }
    unit = "windows"
    needs_judge = False

    def __init__(self, name="books", window=128, vocab_size=None):
        self.name, self.window, self.vocab_size = name, window, vocab_size
        self.data = self.names[name]

    def load(self, source=None) -> Data:
        from keras_genai import datasets

        name = source or self.name
        if name == "books":
            parts = [split(book) for book in datasets.load_books()]
        elif name == "tang":
            known, rest = split(datasets.load_quatrains())
            parts = [("\n".join(known) + "\n", "\n".join(rest))]
        elif name == "alice":
            parts = [split(datasets.load_books()[0])]
        else:
            text = datasets.load_text(name)
            if len(text) < 10 * self.window:
                raise ValueError(
                    f"{name}: expected at least {10 * self.window} characters, the last tenth of "
                    f"which is held out, got {len(text)}."
                )
            parts = [split(text)]
        tokenizer, facts = self._tokenizer(*map("".join, zip(*parts)))
        known = [tokenizer.encode(before) for before, _ in parts]
        # The first token that is held out is predicted too, from the one before it.
        held_out = [
            np.append(before[-1:], tokenizer.encode(text))
            for before, (_, text) in zip(known, parts)
        ]
        train = np.concatenate(known)
        if sum(map(len, held_out)) <= self.window:  # byte pairs are fewer than characters
            raise ValueError(
                f"{name}: expected more than {self.window} tokens in the last tenth, "
                f"got {sum(map(len, held_out))}."
            )
        return Data(train, held_out, datasets.count_windows(len(train), self.window), facts)

    def _tokenizer(self, train, held_out):
        """Return the tokenizer, and what it is made from."""
        from keras_genai.text import CharacterTokenizer, GPT2Tokenizer

        if self.vocab_size is None:
            tokenizer = CharacterTokenizer.from_text(train + held_out)
            return tokenizer, {"characters": "".join(tokenizer.characters)}
        tokenizer = GPT2Tokenizer.train(train, self.vocab_size)
        return tokenizer, {"tokenizer": tokenizer.definition}

    def batches(self, data, batch_size, seed, epoch):
        from keras_genai import datasets

        return datasets.window_batches(data.train, self.window, batch_size, seed, epoch)

    def validation(self, data) -> dict:
        """Windows of the held-out text, each without what stands before it."""
        tokens = np.concatenate(data.held_out)
        tokens = tokens[: (len(tokens) - 1) // self.window * self.window + 1]
        windows = [tokens[:-1].reshape(-1, self.window), tokens[1:].reshape(-1, self.window)]
        return {"validation_data": windows, "validation_batch_size": 64}

    def callbacks(self, folder, model) -> list:
        return []

    def measure(self, model, data) -> dict:
        characters = sum(len(model.tokenizer.decode(text[1:])) for text in data.held_out)
        nats = -_log_prob(model, data.held_out)
        return {"measured": nats / characters, "characters": characters}

    def draw(self, model, data, folder):
        from keras_genai.autoregressive import Sampler

        length = 600 if model.context_length is None else min(600, model.context_length - 1)
        text = model.generate(data.held_out[0][:1][None], length, Sampler(temperature=0.8), seed=0)
        (folder / "sample.txt").write_text(model.tokenizer.decode(text[0]), encoding="utf-8")


class FineTuning(Text):
    """A text for a model that has learned from others: measured before its training as well.

    Args:
        base: recipe whose shipped weights it begins with, and whose tokenizer it keeps.
    """

    def __init__(self, name, base, window):
        super().__init__(name, window)
        self.base = base

    def _tokenizer(self, train, held_out):
        from keras_genai import pretrained
        from keras_genai.text import GPT2Tokenizer

        definition = pretrained.record(self.base)["facts"]["tokenizer"]
        return GPT2Tokenizer(definition), {"tokenizer": definition}

    def measure(self, model, data) -> dict:
        from keras_genai import pretrained

        before = super().measure(pretrained.load(self.base), data)["measured"]
        return {**super().measure(model, data), "before": before}


def _log_prob(model, texts) -> float:
    """Return the log-likelihood of texts that may be longer than the model can take.

    Such a one is cut into windows that overlap by half. A window scores its second half only, so
    that each token has half a context before it at least; the first window scores both.
    """
    if model.context_length is None:
        return float(model.log_prob(texts)[0].sum())
    total, half = 0.0, model.context_length // 2
    for text in texts:
        starts = range(0, max(1, len(text) - half), half)
        _, nats = model.log_prob([text[start : start + 2 * half] for start in starts])
        total += sum(float(row[half - 1 if i else 0 :].sum()) for i, row in enumerate(nats))
    return total


class Translation:
    """Pairs of sentences, of which the last 1,000 (or the last tenth) are held out.

    Measured is how much greedy translations of these have in common with the right ones: BLEU
    (Papineni et al. 2002) of Chinese characters, and chrF (Popović 2015).

    Args:
        vocab_size: of each language, of byte pairs that are learned from the sentences.
    """

    data = "English–Chinese help"
    names = {}
    unit = "pairs"
    needs_judge = False

    def __init__(self, vocab_size=4000):
        self.vocab_size = vocab_size

    def load(self, source=None) -> Data:
        from keras_genai import datasets
        from keras_genai.text import TranslationTokenizer

        pairs = datasets.load_translations() if source is None else datasets.load_pairs(source)
        if len(pairs) < 10:
            raise ValueError(f"{source}: expected at least 10 pairs, got {len(pairs)}.")
        cut = len(pairs) - min(1000, len(pairs) // 10)
        train, held_out = pairs[:cut], pairs[cut:]
        tokenizers = [
            TranslationTokenizer.train("\n".join(texts), self.vocab_size) for texts in zip(*train)
        ]
        train, tokens = (_encode_pairs(part, tokenizers) for part in (train, held_out))
        longest = max(part.shape[1] for part in (*train, *tokens))
        facts = {
            "input_tokenizer": tokenizers[0].definition,
            "target_tokenizer": tokenizers[1].definition,
            "max_seq_length": -(-longest // 16) * 16,
        }
        return Data(train, (held_out, tokens), cut, facts)

    def batches(self, data, batch_size, seed, epoch):
        from keras_genai import datasets

        return datasets.pair_batches(*data.train, batch_size, seed, epoch)

    def validation(self, data) -> dict:
        import tensorflow as tf

        from keras_genai import datasets

        always_the_same = tf.Variable(0, dtype=tf.int64)
        tokens = datasets.pair_batches(*data.held_out[1], 64, 0, always_the_same)
        return {"validation_data": tokens}

    def callbacks(self, folder, model) -> list:
        return []

    def measure(self, model, data) -> dict:
        sources, references = zip(*data.held_out[0])
        scores = score_translations(model.translate(sources), references)
        return {"measured": scores["BLEU"], **scores}

    def draw(self, model, data, folder):
        pairs = data.held_out[0][:50]
        translations = model.translate([source for source, _ in pairs], beam_width=4)
        lines = (
            f"{source}\n  {translation}\n  ({reference})\n"
            for (source, reference), translation in zip(pairs, translations)
        )
        (folder / "translations.txt").write_text("\n".join(lines), encoding="utf-8")


def _encode_pairs(pairs, tokenizers):
    """Return tokens of sources and targets, padded; a target from its start to its end."""
    from keras_genai.transformer import pad

    (sources, targets), (source_tokenizer, target_tokenizer) = zip(*pairs), tokenizers
    targets = [[1, *target_tokenizer.encode(text), 2] for text in targets]
    return pad([source_tokenizer.encode(text) for text in sources]), pad(targets)


def score_translations(translations, references) -> dict:
    """Return BLEU and chrF of Chinese sentences, each from 0 to 100."""
    try:
        import sacrebleu
    except ImportError as error:
        raise ImportError('Scores need an extra: pip install "keras_genai[text]".') from error
    references = [list(references)]
    bleu = sacrebleu.corpus_bleu(list(translations), references, tokenize="zh")
    return {
        "BLEU": bleu.score,
        "chrF": sacrebleu.corpus_chrf(list(translations), references).score,
    }


class Sounds:
    """Sounds of some kinds: measured are nats per sample of two held-out sounds of each kind.

    Of one's own sounds, two files of each kind are held out, each with all its seconds.
    """

    data = "percussion at 8 kHz"
    names = {}
    unit = "sounds"
    needs_judge = False

    def load(self, source=None) -> Data:
        from keras_genai import datasets

        if source is None:
            (waveforms, labels, kinds), sample_rate = datasets.load_drums(), 8000
            files = np.arange(len(labels))
        else:
            waveforms, labels, kinds, sample_rate, files = datasets.load_sound_folder(source)
        held_out = []
        for kind in range(len(kinds)):
            members = np.unique(files[labels == kind])
            last = members[len(members) - min(2, len(members) // 2) :]
            held_out.extend(np.flatnonzero(np.isin(files, last)))
        if not held_out:
            raise ValueError(f"{source}: expected at least two sounds of a kind, to hold one out.")
        train = np.setdiff1d(np.arange(len(labels)), held_out)
        facts = {"kinds": kinds, "sample_rate": sample_rate}
        parts = [([waveforms[i] for i in part], labels[part]) for part in (train, held_out)]
        return Data(*parts, len(train), facts)

    def batches(self, data, batch_size, seed, epoch):
        return self._batches(data, data.train, batch_size, seed, epoch, vary=True)

    def _batches(self, data, sounds, *settings, **options):
        from keras_genai import datasets

        waveforms, labels = sounds
        labels = labels if len(data.facts["kinds"]) > 1 else None
        return datasets.sound_batches(waveforms, labels, *settings, **options)

    def validation(self, data) -> dict:
        import tensorflow as tf

        always_the_same = tf.Variable(0, dtype=tf.int64)
        return {"validation_data": self._batches(data, data.held_out, 4, 0, always_the_same)}

    def callbacks(self, folder, model) -> list:
        return []

    def measure(self, model, data) -> dict:
        waveforms, labels = data.held_out
        sums, _ = model.log_prob(waveforms, labels if model.num_classes else None)
        samples = sum(len(waveform) for waveform in waveforms)
        return {"measured": -float(sums.sum()) / samples, "samples": samples}

    def draw(self, model, data, folder):
        from keras_genai.audio import save_wav
        from keras_genai.autoregressive import Sampler
        from keras_genai.plotting import COLORS, plot_sounds

        kinds = data.facts["kinds"]
        labels = labels_in_turn(model, len(kinds))
        sampler = Sampler(SOUND_TEMPERATURE)
        waveforms = model.generate(len(kinds), model.sample_rate, labels, 0, sampler)
        (folder / "samples").mkdir(exist_ok=True)
        for kind, waveform in zip(kinds, waveforms):
            save_wav(folder / "samples" / f"{kind or 'sound'}.wav", waveform, model.sample_rate)
        figure = plot_sounds(waveforms, model.sample_rate, kinds, COLORS["WaveNet"])
        figure.savefig(folder / "samples.png")


class Series:
    """A series of numbers: measured is the mean absolute error of the last tenth, one step ahead.

    Args:
        window: values that a forecast is made from.
        horizon: values ahead; the last of them is measured too.
    """

    data = "weekly CO2"
    names = {}
    unit = "windows"
    needs_judge = False

    def __init__(self, window=260, horizon=52):
        self.window, self.horizon = window, horizon

    def load(self, source=None) -> Data:
        from keras_genai import datasets

        series = datasets.load_co2() if source is None else datasets.load_series(source)
        known, rest = split(series)
        if len(known) < self.window + self.horizon or len(rest) < self.horizon:
            raise ValueError(
                f"{source}: expected at least {self.window + self.horizon} values to train on and "
                f"{self.horizon} held out, the last tenth, got {len(known)} and {len(rest)}."
            )
        train = datasets.series_windows(known, self.window, self.horizon)
        facts = {"window": self.window, "horizon": self.horizon}
        return Data(train, (series, len(known)), len(train[0]), facts)

    def batches(self, data, batch_size, seed, epoch):
        from keras_genai import datasets

        return datasets.batches(data.train, batch_size, seed, epoch)

    def validation(self, data) -> dict:
        from keras_genai import datasets

        series, first = data.held_out
        windows = datasets.series_windows(series, self.window, self.horizon, first)
        return {"validation_data": windows, "validation_batch_size": 500}

    def callbacks(self, folder, model) -> list:
        return []

    def forecasts(self, model, data, ahead: int) -> np.ndarray:
        """Return what is forecast of each held-out value, from all that is known `ahead` before."""
        from keras_genai import datasets

        series, first = data.held_out
        past, _ = datasets.series_windows(series, self.window, ahead, first + 1 - ahead)
        return model.predict(past, batch_size=500, verbose=0)[:, ahead - 1]

    def measure(self, model, data) -> dict:
        series, first = data.held_out
        errors = {
            ahead: float(np.abs(self.forecasts(model, data, ahead) - series[first:]).mean())
            for ahead in (1, self.horizon)
        }
        return {"measured": errors[1], f"{self.horizon} ahead": errors[self.horizon]}

    def draw(self, model, data, folder):
        from keras_genai.plotting import plot_forecasts

        series, first = data.held_out
        forecasts = {
            f"{ahead} ahead": self.forecasts(model, data, ahead) for ahead in (1, self.horizon)
        }
        plot_forecasts(series, first, forecasts).savefig(folder / "forecast.png")


def split(values):
    """Return the first nine tenths of a text, list or array, and the rest."""
    cut = int(0.9 * len(values))
    return values[:cut], values[cut:]
