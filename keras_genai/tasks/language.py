"""Tasks on text: language modeling and fine-tuning."""

import typing

import numpy as np

from keras_genai import datasets, metrics, pretrained
from keras_genai.autoregressive import Sampler
from keras_genai.files import replace_file
from keras_genai.pipelines import count_windows, make_window_dataset
from keras_genai.tasks.base import Data, Task, split_train_test
from keras_genai.text import CharacterTokenizer, GPT2Tokenizer


class LanguageModelingTask(Task):
    """A text whose last tenth is held out. The metric is its NLL in nats per character.

    `Data.train` is an int array of tokens, `Data.test` a list of such arrays, whose first token is
    the last one before the held-out text and is not scored.

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

    def load(self, source=None) -> Data:
        source = source or self.name
        parts = self._load_parts(source)
        tokenizer, dataset_info = self._make_tokenizer(*map("".join, zip(*parts, strict=True)))
        train_tokens = [tokenizer.encode(train) for train, _ in parts]
        test = [
            np.append(train[-1:], tokenizer.encode(text))
            for train, (_, text) in zip(train_tokens, parts, strict=True)
        ]
        train = np.concatenate(train_tokens)
        if sum(map(len, test)) <= self.window:  # there are fewer byte pairs than characters
            raise ValueError(
                f"{source}: expected more than {self.window} tokens in the last tenth, "
                f"got {sum(map(len, test))}."
            )
        return Data(train, test, count_windows(len(train), self.window), dataset_info)

    def _load_parts(self, source) -> list[tuple[str, str]]:
        """Return (training text, test text) of each text of the source."""
        if source == "books":
            return [split_train_test(book) for book in datasets.load_books()]
        if source == "alice":
            return [split_train_test(datasets.load_books()[0])]
        if source == "tang":
            train, test = split_train_test(datasets.load_quatrains())
            return [("\n".join(train) + "\n", "\n".join(test))]
        text = datasets.load_text(source)
        if len(text) < 10 * self.window:
            raise ValueError(
                f"{source}: expected at least {10 * self.window} characters, the last tenth of "
                f"which is held out, got {len(text)}."
            )
        return [split_train_test(text)]

    def _make_tokenizer(self, train, test):
        """Return the tokenizer and the dataset_info that it can be built from."""
        if self.vocab_size is None:
            tokenizer = CharacterTokenizer.from_text(train + test)
            return tokenizer, {"characters": "".join(tokenizer.characters)}
        tokenizer = GPT2Tokenizer.train(train, self.vocab_size)
        return tokenizer, {"tokenizer": tokenizer.tokenizer_json}

    def train_dataset(self, data, batch_size, seed, epoch):
        return make_window_dataset(data.train, self.window, batch_size, seed, epoch)

    def validation_data(self, data):
        """Return windows of the test text, each without the text before it."""
        tokens = np.concatenate(data.test)
        tokens = tokens[: (len(tokens) - 1) // self.window * self.window + 1]
        windows = [tokens[:-1].reshape(-1, self.window), tokens[1:].reshape(-1, self.window)]
        return {"validation_data": windows, "validation_batch_size": 64}

    def evaluate(self, model, data):
        num_characters = sum(len(model.tokenizer.decode(tokens[1:])) for tokens in data.test)
        log_prob = metrics.sliding_window_log_prob(model, data.test)
        return {"value": -log_prob / num_characters, "num_characters": num_characters}

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
