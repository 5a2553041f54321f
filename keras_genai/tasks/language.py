"""Tasks on text: language modeling and fine-tuning."""

import typing

import numpy as np
import tensorflow as tf

from keras_genai import datasets, metrics, pretrained, streaming, text_files
from keras_genai.autoregressive import MAX_SCORING_BLOCK, Sampler
from keras_genai.decoding import compiled_functions
from keras_genai.files import replace_file, to_path
from keras_genai.pipelines import count_windows, make_dataset, make_window_dataset
from keras_genai.streamed_arrays import StreamedArray
from keras_genai.tasks.base import Data, Task, check_no_cache, split_train_test
from keras_genai.text import CharacterTokenizer, GPT2Tokenizer

MAX_TOKENIZER_TEXT = 2**26  # characters of a streamed text from which byte pairs are learned


class LanguageModelingTask(Task):
    """A text whose last tenth is held out. The metric is its NLL in nats per character.

    Of the three books, the last tenth of each is held out. `evaluate` returns the value of all
    three together, most of whose characters are the Bible's, and that of each as `"text_values"`.

    `Data.train` is an int array of tokens or a `StreamedArray`, `Data.test` a list of such arrays,
    whose first token is the last one before the held-out text and is not scored. The byte pairs of
    a streamed text are learned from its first 2^26 characters.

    Args:
        name: `"books"`, `"tang"` or `"alice"`. Dataset of the recipe. Defaults to `"books"`.
        window: Int. Number of tokens of a training example. Defaults to `128`.
        vocab_size: Int or `None`. Number of byte-pair tokens learned from the text; `None` for
            character tokens. Defaults to `None`.
    """

    named_sources: typing.ClassVar = {
        "books": "three English books",
        "tang": "Tang quatrains",
        "alice": "Alice in Wonderland",
    }
    example_unit = "windows"

    def __init__(self, name="books", window=128, vocab_size=None):
        self.name, self.window, self.vocab_size = name, window, vocab_size

    def load(self, source=None, cache=None) -> Data:
        source = source or self.name
        if source in self.named_sources:
            check_no_cache(cache, "included texts")
        elif cache is not None or _count_token_bytes(source) > streaming.STREAMING_BYTES:
            return self._stream(source, cache)
        return self._load_in_memory(source)

    def _load_in_memory(self, source) -> Data:
        parts = self._load_parts(source)
        tokenizer, dataset_info = self._make_tokenizer(*map("".join, zip(*parts, strict=True)))
        train_tokens = [tokenizer.encode(train) for train, _ in parts]
        test = [
            np.append(train[-1:], tokenizer.encode(text))
            for train, (_, text) in zip(train_tokens, parts, strict=True)
        ]
        data = self._make_data(source, np.concatenate(train_tokens), test, dataset_info)
        if source == "books":
            data.test_names = datasets.TRAINING_BOOKS
        return data

    def _stream(self, source, cache) -> Data:
        """Return the data of text files of any size, whose tokens are kept on disk."""
        paths = text_files.find_texts(source)
        length, characters = text_files.count_characters(paths)
        self._check_length(source, length)
        cut = int(0.9 * length)
        train_text = text_files.read_start(paths, min(cut, MAX_TOKENIZER_TEXT))
        tokenizer, dataset_info = self._make_tokenizer(train_text, "".join(characters))
        train, test = text_files.encode_texts(paths, tokenizer, cut, cache)
        return self._make_data(source, train, [test], dataset_info, length - cut)

    def _make_data(self, source, train, test, dataset_info, num_test_characters=None) -> Data:
        if sum(map(len, test)) <= self.window:  # there are fewer byte pairs than characters
            raise ValueError(
                f"{source}: expected more than {self.window} tokens in the last tenth, "
                f"got {sum(map(len, test))}."
            )
        num_windows = count_windows(len(train), self.window)
        return Data(train, test, num_windows, dataset_info, num_test_characters=num_test_characters)

    def _check_length(self, source, length: int) -> None:
        if length < 10 * self.window:
            raise ValueError(
                f"{source}: expected at least {10 * self.window} characters, the last tenth of "
                f"which is held out, got {length}."
            )

    def _load_parts(self, source) -> list[tuple[str, str]]:
        """Return (training text, test text) of each text of the source."""
        if source == "books":
            return [split_train_test(book) for book in datasets.load_books()]
        if source == "alice":
            return [split_train_test(datasets.load_book("alice_in_wonderland"))]
        if source == "tang":
            train, test = split_train_test(datasets.load_quatrains())
            return [("\n".join(train) + "\n", "\n".join(test))]
        text = _load_text(source)
        self._check_length(source, len(text))
        return [split_train_test(text)]

    def _make_tokenizer(self, train, test):
        """Return the tokenizer and the dataset_info that it can be built from."""
        if self.vocab_size is None:
            tokenizer = CharacterTokenizer.from_text(train + test)
            return tokenizer, {"characters": "".join(tokenizer.characters)}
        tokenizer = GPT2Tokenizer.train(train, self.vocab_size)
        return tokenizer, {"tokenizer": tokenizer.tokenizer_json}

    def train_dataset(self, data, batch_size, seed, epoch, input_context=None):
        return make_window_dataset(data.train, self.window, batch_size, seed, epoch, input_context)

    def validation_data(self, data):
        """Return windows of the test text, each without the text before it."""
        if isinstance(data.train, StreamedArray):
            windows = text_files.token_windows(data.test[0], self.window)
            epoch = tf.Variable(0, dtype=tf.int64)
            return {"validation_data": make_dataset(windows, 64, 0, epoch, shuffle=False)}
        tokens = np.concatenate(data.test)
        tokens = tokens[: (len(tokens) - 1) // self.window * self.window + 1]
        windows = [tokens[:-1].reshape(-1, self.window), tokens[1:].reshape(-1, self.window)]
        return {"validation_data": windows, "validation_batch_size": 64}

    def evaluate(self, model, data):
        if data.num_test_characters is not None:
            value = -_streamed_log_prob(model, data.test[0]) / data.num_test_characters
            return {"value": value, "num_characters": data.num_test_characters}
        counts = [len(model.tokenizer.decode(tokens[1:])) for tokens in data.test]
        nats = [-metrics.sliding_window_log_prob(model, [tokens]) for tokens in data.test]
        results = {"value": sum(nats) / sum(counts), "num_characters": sum(counts)}
        if data.test_names:
            texts = zip(data.test_names, nats, counts, strict=True)
            results["text_values"] = {name: value / count for name, value, count in texts}
        return results

    def save_samples(self, model, data, folder):
        length = 600 if model.context_length is None else min(600, model.context_length - 1)
        prompt = data.test[0][:1][None]
        tokens = model.generate(prompt, length, sampler=Sampler(temperature=0.8), seed=0)
        text = model.tokenizer.decode(tokens[0])
        with replace_file(folder / "sample.txt") as unfinished:
            unfinished.write_text(text, encoding="utf-8")


class FineTuningTask(LanguageModelingTask):
    """A text for a pretrained language model. `evaluate` also scores the model before training.

    Args:
        name: See `LanguageModelingTask`.
        base: String. Name of the pretrained model, whose tokenizer is kept.
        window: Int. Number of tokens of a training example.
    """

    def __init__(self, name, base, window):
        super().__init__(name, window)
        self.base = base

    def _make_tokenizer(self, train, test):
        tokenizer = pretrained.load(self.base).tokenizer
        return tokenizer, {"tokenizer": tokenizer.tokenizer_json}

    def evaluate(self, model, data):
        before = super().evaluate(pretrained.load(self.base), data)["value"]
        return {**super().evaluate(model, data), "before": before}


def _load_text(source) -> str:
    """Return the text of a file, or of the `.txt` files of a folder."""
    if to_path(source).is_dir():
        return "".join(text_files.read_texts(text_files.find_texts(source)))
    return datasets.load_text(source)


def _count_token_bytes(source) -> int:
    """Return the size of the tokens of texts as int32, at most one for each byte; 0 without any."""
    if not to_path(source).exists():
        return 0
    return sum(4 * path.stat().st_size for path in text_files.find_texts(source))


def _streamed_log_prob(model, tokens: StreamedArray) -> float:
    """Return `metrics.sliding_window_log_prob(model, [tokens])`, reading the tokens in parts."""
    if model.context_length is not None:
        return metrics.windows_log_prob(model, tokens)
    total, functions, size = 0.0, compiled_functions(model), MAX_SCORING_BLOCK
    state = functions.prefill(tf.zeros((1, 0), tf.int32), tf.constant(0), size, None)
    for position in range(0, len(tokens) - 1, size):
        block = tokens[position : position + size + 1]
        padded = tf.constant(np.pad(block, (0, size + 1 - len(block)))[None])
        log_probs, state = functions.score(
            padded[:, :-1], padded[:, 1:], state, tf.constant(position)
        )
        total += float(log_probs.numpy()[0, : len(block) - 1].sum(dtype="float64"))
    return total
