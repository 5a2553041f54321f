"""Tokenizers: conversion of text to token ids and back.

A tokenizer has an attribute `vocab_size` and two methods: `encode(text)` returns int32 ids `(n,)`,
`decode(ids)` returns a string. It is saved inside the model that uses it.
"""

import contextlib
import json

import keras
import numpy as np

from keras_genai.datasets import data_path
from keras_genai.files import read_text
from keras_genai.validation import (
    as_array,
    check_bools,
    check_choice,
    check_methods,
    check_range,
    check_size,
    check_type,
)

UNKNOWN_ID = 0  # of a `CharacterTokenizer` that maps unknown characters
UNKNOWN_CHARACTER = "\N{REPLACEMENT CHARACTER}"


@keras.saving.register_keras_serializable(package="keras_genai")
class CharacterTokenizer:
    """Character-level tokenizer: one token per character.

    Args:
        characters: String or list of distinct characters. The vocabulary, in the order of the ids.
        unknown: String. Handling of a character outside the vocabulary: `"raise"` raises a
            ValueError; `"map"` maps it to id 0, which is decoded as U+FFFD. Defaults to `"raise"`.

    Raises:
        ValueError: for an empty vocabulary, for a repeated character, and for another `unknown`.
    """

    def __init__(self, characters, unknown="raise"):
        check_choice("unknown", unknown, ("raise", "map"))
        if not isinstance(characters, (str, list, tuple)):
            raise ValueError(f"characters: expected a string or a list, got {characters!r:.60}.")
        characters = list(characters)
        if not characters or any(not isinstance(c, str) or len(c) != 1 for c in characters):
            raise ValueError(f"characters: expected single characters, got {characters!r:.60}.")
        if len(set(characters)) < len(characters):
            raise ValueError("characters: expected different ones, got some more than once.")
        self.characters, self.unknown = characters, unknown
        self._id_to_char = characters if unknown == "raise" else [UNKNOWN_CHARACTER, *characters]
        first_id = len(self._id_to_char) - len(characters)
        self._char_to_id = {char: i for i, char in enumerate(characters, start=first_id)}

    @classmethod
    def from_text(cls, text: str, unknown="raise"):
        """Return a tokenizer of all characters of a text, in the order of their code points."""
        _check_text(text)
        return cls(sorted(set(text)), unknown)

    @property
    def vocab_size(self) -> int:
        return len(self._id_to_char)

    def encode(self, text: str) -> np.ndarray:
        """Return the token ids of a text.

        Args:
            text: String of n characters, at least 1.

        Returns:
            An int32 array `(n,)`.

        Raises:
            ValueError: for an empty text, and for a character outside the vocabulary if
                `unknown="raise"`.
        """
        _check_text(text)
        # One dictionary lookup per distinct character, not one per character of the text.
        code_points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        code_points, inverse = np.unique(code_points, return_inverse=True)
        characters = [chr(code_point) for code_point in code_points]
        unknown = [c for c in characters if c not in self._char_to_id]
        if unknown and self.unknown == "raise":
            position = min(text.index(c) for c in unknown)
            raise ValueError(
                f"text: expected characters of the vocabulary, got {text[position]!r} at position "
                f"{position}."
            )
        ids = np.array([self._char_to_id.get(c, UNKNOWN_ID) for c in characters], "int32")
        return ids[inverse]

    def decode(self, ids) -> str:
        """Return the text of token ids `(n,)`.

        Raises:
            ValueError: for an id outside the vocabulary.
        """
        return "".join(self._id_to_char[i] for i in _check_ids(ids, self.vocab_size))

    def get_config(self):
        return {"characters": "".join(self.characters), "unknown": self.unknown}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_genai")
class ABCTokenizer(CharacterTokenizer):
    """Character-level tokenizer of music in ABC notation. Its class marks a model of tunes.

    Args:
        characters, unknown: See `CharacterTokenizer`.
    """


@keras.saving.register_keras_serializable(package="keras_genai")
class GPT2Tokenizer:
    """Byte-level byte-pair encoding of GPT-2, with the `tokenizers` library (extra `text`).

    Every text can be encoded: a string that is not a token is split, down to single bytes if
    necessary (Radford et al. 2019, section 2.2).

    Args:
        tokenizer_json: String. Serialized tokenizer in the JSON format of the `tokenizers` library.
            `gpt2`, `from_files` and `train` create it. Its truncation and padding of texts are
            turned off.
        end_of_text: String. Token that ends a text. Defaults to `"<|endoftext|>"`.

    Raises:
        ValueError: for another string, such as the path of a file, and for ids that are not those
            from 0 on.
        ImportError: if `tokenizers` is not installed.
    """

    END_OF_TEXT = "<|endoftext|>"

    def __init__(self, tokenizer_json: str, end_of_text: str = END_OF_TEXT):
        check_type("end_of_text", end_of_text, str)
        self.tokenizer_json, self.end_of_text = tokenizer_json, end_of_text
        with _naming("tokenizer_json", "a serialized tokenizer; `from_files` reads files"):
            if not isinstance(tokenizer_json, str):
                raise TypeError(f"got {tokenizer_json!r:.60}")
            self._tokenizer = _import_tokenizers().Tokenizer.from_str(tokenizer_json)
        if self._tokenizer.truncation or self._tokenizer.padding:  # for batches; no text is cut
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            self.tokenizer_json = self._tokenizer.to_str()
        ids = sorted(self._tokenizer.get_vocab().values())
        if ids != list(range(len(ids))):
            raise ValueError(
                f"tokenizer_json: expected ids from 0 on, got {ids[-1]} of {len(ids)}."
            )

    @classmethod
    def gpt2(cls):
        """Return the published tokenizer of GPT-2, with 50,257 tokens, from the package's data."""
        return cls.from_files(data_path("gpt2/encoder.json"), data_path("gpt2/vocab.bpe"))

    @classmethod
    def from_files(cls, vocabulary, merges, end_of_text=END_OF_TEXT):
        """Load a tokenizer from the two files in which GPT-2's was published.

        Args:
            vocabulary: String or path. JSON file of ids by token (`vocab.json`, `encoder.json`).
            merges: String or path. Text file of merges (`merges.txt`, `vocab.bpe`).
            end_of_text: String. Token that ends a text, added to a vocabulary that lacks it.
                Defaults to `"<|endoftext|>"`.

        Returns:
            A `GPT2Tokenizer`.

        Raises:
            ValueError: for a missing or damaged file, and for merges of other tokens than those of
                the vocabulary; it names the files.
        """
        check_type("end_of_text", end_of_text, str)
        return cls._from_files(vocabulary, merges, [end_of_text], end_of_text)

    @classmethod
    def _from_files(cls, vocabulary, merges, special_tokens, end_of_text):
        """Load a tokenizer, and add those special tokens that its vocabulary lacks, in order."""
        texts = {}
        for name, path in (("vocabulary", vocabulary), ("merges", merges)):
            try:
                texts[name] = read_text(path)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        ids = _read_vocabulary(vocabulary, texts["vocabulary"])
        with _naming(f"merges: {merges}", f"merges of tokens of {vocabulary}"):
            lines = [line for line in texts["merges"].split("\n") if line]
            lines = lines[lines[0].startswith("#version") :] if lines else lines
            pairs = [tuple(line.split(" ")) for line in lines]
            for number, pair in enumerate(pairs, start=1):
                if len(pair) != 2 or not {*pair, "".join(pair)} <= ids.keys():
                    raise ValueError(f"merge {number}: {' '.join(pair)!r:.60}")
            tokenizer = _byte_level_tokenizer(_import_tokenizers().models.BPE(ids, pairs))
            tokenizer.add_special_tokens(special_tokens)
        return cls(tokenizer.to_str(), end_of_text)

    @classmethod
    def train(cls, text: str, vocab_size: int):
        """Train a tokenizer on a text. Its last token is <|endoftext|>.

        Args:
            text: String. Training text, not empty.
            vocab_size: Int, at least 257. Maximum number of tokens; a short text, which has fewer
                pairs to merge, gives fewer.

        Returns:
            A `GPT2Tokenizer`.

        Raises:
            ValueError: for an empty text, and for a vocabulary that cannot hold the 256 bytes.
        """
        return cls._train(text, vocab_size, last=(cls.END_OF_TEXT,))

    @classmethod
    def _train(cls, text, vocab_size, first=(), last=(), words_only=False):
        """Train a tokenizer with special tokens at the start and the end of the vocabulary."""
        _check_text(text)
        vocab_size = check_size("vocab_size", vocab_size)
        smallest = 256 + len(first) + len(last)
        if vocab_size < smallest:
            raise ValueError(
                f"vocab_size: expected at least {smallest}, 256 bytes and "
                f"{', '.join(first + last)}, got {vocab_size}."
            )
        tokenizers = _import_tokenizers()
        tokenizer = _byte_level_tokenizer(tokenizers.models.BPE())
        if words_only:
            tokenizer.normalizer = _word_normalizer(tokenizers)
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=vocab_size - len(last),
            special_tokens=list(first),
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator([text], trainer)
        tokenizer.add_special_tokens(list(last))
        return cls(tokenizer.to_str())

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.get_vocab_size()

    @property
    def end_token(self) -> int | None:
        """Id of `end_of_text`, the token that ends a text; `None` if the vocabulary lacks it."""
        return self._tokenizer.token_to_id(self.end_of_text)

    def encode(self, text: str) -> np.ndarray:
        """Return the token ids of a text, int32 `(n,)`.

        Raises:
            ValueError: for an empty text, and for one without tokens in the vocabulary.
        """
        _check_text(text)
        with _naming("text", "characters of the vocabulary"):  # of tokenizers without single bytes
            return np.asarray(self._tokenizer.encode(text).ids, "int32")

    def decode(self, ids) -> str:
        """Return the text of token ids `(n,)`, special tokens included.

        Raises:
            ValueError: for an id outside the vocabulary.
        """
        ids = _check_ids(ids, self.vocab_size).tolist()
        return self._tokenizer.decode(ids, skip_special_tokens=False)

    def get_config(self):
        return {"tokenizer_json": self.tokenizer_json, "end_of_text": self.end_of_text}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_genai")
class TranslationTokenizer(GPT2Tokenizer):
    """Byte-pair encoding with the special tokens of a translator: padding 0, start 1, end 2.

    The text of a special token inside a sentence is encoded as ordinary text.

    Args:
        tokenizer_json: String. See `GPT2Tokenizer`.
        end_of_text: String. Token that ends a text. Defaults to `"<end>"`.
    """

    SPECIAL_TOKENS = ("<pad>", "<start>", "<end>")

    def __init__(self, tokenizer_json: str, end_of_text: str = SPECIAL_TOKENS[2]):
        super().__init__(tokenizer_json, end_of_text)
        self._tokenizer.encode_special_tokens = True  # as ordinary text

    @classmethod
    def train(cls, text: str, vocab_size: int, words_only: bool = False):
        """Train a tokenizer on a text. Its first three tokens are the special ones.

        Args:
            text: String. Training text, not empty.
            vocab_size: Int, at least 259. Maximum number of tokens.
            words_only: Bool. Whether every text is reduced to its words before it is encoded: lower
                case, one space before each word, no punctuation and no line ends. Apostrophes
                within a word are kept. Defaults to `False`.

        Returns:
            A `TranslationTokenizer`.

        Raises:
            ValueError: for an empty text, and for a vocabulary that cannot hold the 256 bytes.
        """
        check_bools(words_only=words_only)
        return cls._train(text, vocab_size, first=cls.SPECIAL_TOKENS, words_only=words_only)


def check_tokenizer(name: str, tokenizer, vocab_size: int, padded=False) -> None:
    """Raise ValueError unless a tokenizer has the vocabulary size of the model; `None` is valid.

    Args:
        name: String. Name of the argument for the error message.
        tokenizer: Tokenizer, or `None`.
        vocab_size: Int. Number of tokens in the vocabulary of the model.
        padded: Bool. Whether the vocabulary of the model may be larger: `num_tokens` of `sampling`
            excludes the ids that pad it. Defaults to `False`.
    """
    if tokenizer is None:
        return
    check_methods(name, tokenizer, "a tokenizer", "encode", "decode", "vocab_size")
    if padded and tokenizer.vocab_size > vocab_size:
        raise ValueError(
            f"{name}: expected at most {vocab_size} tokens, as the model has, got "
            f"{tokenizer.vocab_size}."
        )
    if not padded and tokenizer.vocab_size != vocab_size:
        raise ValueError(
            f"{name}: expected {vocab_size} tokens, as the model has, got {tokenizer.vocab_size}."
        )


def encode_texts(name: str, tokenizer, texts) -> list[np.ndarray]:
    """Return the token ids of texts. An error of the tokenizer names the argument."""
    try:
        return [tokenizer.encode(text) for text in texts]
    except ValueError as error:
        raise ValueError(f"{name}{str(error).removeprefix('text')}") from error


def _check_text(text) -> None:
    """Raise ValueError unless `text` is a string of at least one character."""
    if not isinstance(text, str) or not text:
        raise ValueError(f"text: expected a string of at least one character, got {text!r:.60}.")


def _check_ids(ids, vocab_size: int) -> np.ndarray:
    """Return token ids as an array; raise ValueError unless all are in the vocabulary."""
    ids = as_array("ids", ids)
    if ids.ndim != 1:
        raise ValueError(
            f"ids: expected token ids (n,) of one text, got shape {ids.shape}; decode each row."
        )
    if len(ids) == 0:
        return ids.astype("int32")  # NumPy makes an empty list float64
    check_range("ids", ids, vocab_size, "token ids")
    return ids


def _read_vocabulary(path, text: str) -> dict[str, int]:
    """Return the ids by token of the JSON file of a vocabulary: 0 to n - 1, each once."""
    try:
        ids = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"vocabulary: {path}: cannot be read as JSON ({error}).") from error
    valid = isinstance(ids, dict) and all(type(i) is int for i in ids.values())
    if not valid or sorted(ids.values()) != list(range(len(ids))):
        raise ValueError(
            f"vocabulary: {path}: expected a JSON object of tokens and their ids from 0 on, each "
            "once."
        )
    return ids


@contextlib.contextmanager
def _naming(name: str, expected: str):
    """Context in which every error of the `tokenizers` library names an argument or a file."""
    try:
        yield
    except ImportError:
        raise
    except BaseException as error:
        # A panic of its Rust code is no Exception, nor is an interruption by the user.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"{name}: expected {expected} ({error}).") from error


def _byte_level_tokenizer(model):
    """Return a tokenizer of the `tokenizers` library that encodes text as UTF-8 bytes."""
    tokenizers = _import_tokenizers()
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return tokenizer


def _word_normalizer(tokenizers):
    """Return the normalizer of a text to its words in lower case, each after a space."""
    normalizers = tokenizers.normalizers
    between_words = r"(?:[^\w']|_|(?<![^\W_])'|'(?![^\W_]))+"
    return normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Replace(tokenizers.Regex(between_words), " "),
            normalizers.Strip(),
            normalizers.Prepend(" "),
        ]
    )


def _import_tokenizers():
    """Return the `tokenizers` library, an optional dependency."""
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError(
            'GPT2Tokenizer needs an extra: pip install "keras_genai[text]".'
        ) from error
    return tokenizers
