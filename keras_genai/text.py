"""Text to token ids and back, and the language model that speaks text.

A tokenizer has `vocab_size`, `encode(text)` → int32 ids (n,), `decode(ids)` → text, and is saved
inside the model that it belongs to, so that a loaded model takes and gives text.
"""

import keras
import numpy as np

from keras_genai import autoregressive
from keras_genai.autoregressive import Sampler
from keras_genai.inputs import CheckedModel, check_choice, check_range, check_size

UNKNOWN = "\N{REPLACEMENT CHARACTER}"


@keras.saving.register_keras_serializable(package="keras_genai")
class CharacterTokenizer:
    """One token for each character, through `keras.layers.StringLookup`.

    Args:
        characters: the vocabulary, a string or list of different characters.
        unknown: "raise" for a ValueError at a character outside it, or "map" to take all of them
            for one token, id 0, which is decoded as U+FFFD.
    """

    def __init__(self, characters, unknown="raise"):
        check_choice("unknown", unknown, ("raise", "map"))
        characters = list(characters)
        if not characters or any(len(c) != 1 for c in characters):
            raise ValueError(f"characters: expected single characters, got {characters!r:.60}.")
        if len(set(characters)) < len(characters):
            raise ValueError("characters: expected different ones, got some more than once.")
        self.characters, self.unknown = characters, unknown
        self._lookup = keras.layers.StringLookup(
            vocabulary=[_name(character) for character in characters],
            mask_token=None,
            num_oov_indices=int(unknown == "map"),
        )

    @classmethod
    def from_text(cls, text: str, unknown="raise"):
        """Return the tokenizer of all characters of a text, in the order of their code points."""
        return cls(sorted(set(text)), unknown)

    @property
    def vocab_size(self) -> int:
        return self._lookup.vocabulary_size()

    def encode(self, text: str) -> np.ndarray:
        """Return the ids (n,) of a text of n characters.

        Raises:
            ValueError: for an empty text, and for a character outside the vocabulary if unknown
                ones raise.
        """
        _check_text(text)
        if self.unknown == "raise" and (unknown := set(text) - set(self.characters)):
            position = min(text.index(character) for character in unknown)
            raise ValueError(
                f"text: expected characters of the vocabulary, got {text[position]!r} at position "
                f"{position}."
            )
        # Each different character is looked up once: TensorFlow is slow to take a list of strings.
        points = np.frombuffer(text.encode("utf-32-le"), "uint32")
        different, places = np.unique(points, return_inverse=True)
        ids = np.asarray(self._lookup([_name(chr(point)) for point in different]), "int32")
        return ids[places]

    def decode(self, ids) -> str:
        """Return the text of ids (n,).

        Raises:
            ValueError: for an id that is no token's.
        """
        ids = np.asarray(ids, None if len(ids) else "int32")
        check_range("ids", ids, self.vocab_size, "token ids")
        characters = self.characters if self.unknown == "raise" else [UNKNOWN, *self.characters]
        return "".join(characters[i] for i in ids)

    def get_config(self):
        return {"characters": "".join(self.characters), "unknown": self.unknown}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def _check_text(text) -> None:
    if not isinstance(text, str) or not text:
        raise ValueError(f"text: expected a string of at least one character, got {text!r:.60}.")


def _name(character: str) -> str:
    """Return the character, or a name for the one that NumPy strips from the end of a string."""
    return "NUL" if character == "\0" else character


@keras.saving.register_keras_serializable(package="keras_genai")
class GPT2Tokenizer:
    """Byte-level byte-pair encoding as in GPT-2, through the `tokenizers` library (extra `text`).

    Any text can be encoded: what is no token by itself is spelled in bytes. (Radford et al. 2019,
    section 2.2)

    Args:
        definition: JSON, as `tokenizers` writes it; see `from_files`, `train`.
    """

    END = "<|endoftext|>"

    def __init__(self, definition: str):
        self.definition = definition
        self._tokenizer = _tokenizers().Tokenizer.from_str(definition)

    @classmethod
    def gpt2(cls):
        """Return GPT-2's own tokenizer, of 50,257 tokens, which ships with the package."""
        from keras_genai import datasets

        names = "gpt2/encoder.json", "gpt2/vocab.bpe"
        return cls.from_files(*(datasets.shipped(name) for name in names))

    @classmethod
    def from_files(cls, vocabulary, merges):
        """Read a tokenizer as GPT-2's was published.

        Args:
            vocabulary: path of the JSON file, token to id ("vocab.json", "encoder.json").
            merges: path of the list of merges ("merges.txt", "vocab.bpe").
        """
        tokenizer = _byte_level(_tokenizers().models.BPE.from_file(str(vocabulary), str(merges)))
        tokenizer.add_special_tokens([cls.END])
        return cls(tokenizer.to_str())

    @classmethod
    def train(cls, text: str, vocab_size: int):
        """Learn the merges from a text: at most vocab_size tokens, the last of which ends a text.

        A short text has fewer pairs to merge.

        Raises:
            ValueError: for an empty text, or a vocabulary without room for the 256 bytes.
        """
        return cls._train(text, vocab_size, last=(cls.END,))

    @classmethod
    def _train(cls, text, vocab_size, first=(), last=()):
        """Learn a vocabulary from a text, with special tokens before and behind it."""
        _check_text(text)
        vocab_size = check_size("vocab_size", vocab_size)
        smallest = 256 + len(first) + len(last)
        if vocab_size < smallest:
            raise ValueError(
                f"vocab_size: expected at least {smallest}, 256 bytes and "
                f"{', '.join(first + last)}, got {vocab_size}."
            )
        tokenizers = _tokenizers()
        learned = _byte_level(tokenizers.models.BPE())
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=vocab_size - len(last),
            special_tokens=list(first),
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        learned.train_from_iterator([text], trainer)
        learned.add_special_tokens(list(last))
        return cls(learned.to_str())

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.get_vocab_size()

    @property
    def end_token(self) -> int:
        """The id that ends a text, <|endoftext|>."""
        return self._tokenizer.token_to_id(self.END)

    def encode(self, text: str) -> np.ndarray:
        """Return the ids (n,) of a text.

        Raises:
            ValueError: for an empty text.
        """
        _check_text(text)
        return np.asarray(self._tokenizer.encode(text).ids, "int32")

    def decode(self, ids) -> str:
        """Return the text of ids (n,).

        Raises:
            ValueError: for an id that is no token's.
        """
        ids = np.asarray(ids, None if len(ids) else "int32")
        check_range("ids", ids, self.vocab_size, "token ids")
        return self._tokenizer.decode(ids.tolist(), skip_special_tokens=False)

    def get_config(self):
        return {"definition": self.definition}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_genai")
class TranslationTokenizer(GPT2Tokenizer):
    """As `GPT2Tokenizer`, with the tokens that `transformer` needs: 0 pads, 1 starts, 2 ends."""

    SPECIAL = ("<pad>", "<start>", "<end>")

    def __init__(self, definition: str):
        super().__init__(definition)
        self._tokenizer.encode_special_tokens = True  # written in a text, they are text

    @classmethod
    def train(cls, text: str, vocab_size: int):
        """Learn the merges from a text: at most vocab_size tokens, the three special ones first.

        Raises:
            ValueError: for an empty text, or a vocabulary without room for the 256 bytes.
        """
        return cls._train(text, vocab_size, first=cls.SPECIAL)


def check_tokenizer(name: str, tokenizer, vocab_size: int) -> None:
    """Raise ValueError unless the tokenizer, if there is one, has vocab_size tokens."""
    if tokenizer is not None and tokenizer.vocab_size != vocab_size:
        raise ValueError(
            f"{name}: expected {vocab_size} tokens, as the model has, got {tokenizer.vocab_size}."
        )


def _byte_level(model):
    """Return a tokenizer of the `tokenizers` library that spells every text in bytes."""
    tokenizers = _tokenizers()
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return tokenizer


def _tokenizers():
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError(
            'GPT2Tokenizer needs an extra: pip install "keras_genai[text]".'
        ) from error
    return tokenizers


class LanguageModel(CheckedModel):
    """A model from token ids (batch, n) to logits (batch, n, vocab_size) that writes.

    Its families have `initial_state` and `step` (see `autoregressive`). With a tokenizer,
    `generate`, `stream`, `beam_search` and `log_prob` take text and return text.

    Attributes:
        vocab_size: number of tokens.
        context_length: the most tokens that it can take, None for any number.
        tokenizer: of its text, or None.
    """

    vocab_size: int
    context_length: int | None = None
    tokenizer = None

    def generate(self, prompt, num_steps=200, sampler=Sampler(), seed=None, end=None):
        """Continue text or token ids.

        Args:
            prompt: a text or a list of texts; or token ids, an array (batch, n) or a list of
                sequences of any lengths.
            num_steps: how many tokens to add.
            sampler: `autoregressive.Sampler(temperature, top_k, top_p)` or `autoregressive.GREEDY`.
            seed: the same seed gives the same tokens; training is not touched.
            end: a text of one token, or a token id, that ends a sequence.

        Returns:
            Prompt and continuation, in the form of the prompt; see `autoregressive.generate`. The
            end stays, to be seen.

        Raises:
            ValueError: for an empty prompt, for what is not in the vocabulary, for more tokens than
                the model can take, and for text if the model has no tokenizer.
        """
        tokens, decode = self._encode("prompt", prompt)
        end = self._end_token(end)
        return decode(
            autoregressive.generate(self, tokens, num_steps, sampler, seed, end_token=end)
        )

    def stream(self, prompt: str, num_steps=200, sampler=Sampler(), seed=None, end=None):
        """Yield what `generate` adds to a text, piece by piece, as it is written.

        A character that takes several tokens comes when it is whole.
        """
        if not isinstance(prompt, str):
            raise ValueError(f"prompt: expected a text, got {type(prompt).__name__}.")
        tokens, _ = self._encode("prompt", prompt)
        end, pending = self._end_token(end), []
        for token in autoregressive.stream(self, tokens, num_steps, sampler, seed, end_token=end):
            pending.append(int(token[0]))
            piece = self.tokenizer.decode(pending)
            if not piece.endswith(UNKNOWN):  # which stands for a character that has only begun
                pending = []
                yield piece
        if pending:
            yield self.tokenizer.decode(pending)

    def beam_search(self, prompt, num_steps=200, beam_width=4, length_penalty=0.0, end=None):
        """Return the likeliest continuations that a beam search finds, the best first.

        Arguments as `generate` and `autoregressive.beam_search` take them.

        Returns:
            (texts, scores): lists of beam_width for a text, a list of them for a list of texts;
            for token ids as `autoregressive.beam_search`.
        """
        tokens, _ = self._encode("prompt", prompt)
        end = self._end_token(end)
        found, scores = autoregressive.beam_search(
            self, tokens, num_steps, beam_width, length_penalty, end_token=end
        )
        if tokens is prompt:
            return found, scores
        length = len(tokens[0])
        texts = [
            [self.tokenizer.decode(autoregressive.until_end(row, length, end)) for row in beams]
            for beams in found
        ]
        scores = scores.tolist()
        return (texts[0], scores[0]) if isinstance(prompt, str) else (texts, scores)

    def log_prob(self, tokens):
        """Return the log-likelihood in nats of text or token ids, in all and by token.

        See `autoregressive.log_prob`. For one text, (float, array (n - 1,)).
        """
        ids, _ = self._encode("tokens", tokens)
        sums, nats = autoregressive.log_prob(self, ids)
        return (float(sums[0]), nats[0]) if isinstance(tokens, str) else (sums, nats)

    def check_data(self, x, y):
        """Raise ValueError unless x and y are tokens of the vocabulary."""
        for name, tokens in (("x", x), ("y", y)):
            autoregressive.check_tokens(name, tokens, self.vocab_size, minimum=1)

    def get_config(self):
        tokenizer = self.tokenizer and keras.saving.serialize_keras_object(self.tokenizer)
        return {"name": self.name, **self.settings, "tokenizer": tokenizer}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        tokenizer = keras.saving.deserialize_keras_object(config["tokenizer"], custom_objects)
        return cls(**{**config, "tokenizer": tokenizer})

    def _encode(self, name, prompt):
        """Return token ids for what a method was given, and what turns ids back into the like."""
        texts = [prompt] if isinstance(prompt, str) else prompt
        if not (isinstance(texts, (list, tuple)) and texts and isinstance(texts[0], str)):
            return prompt, lambda tokens: tokens
        if self.tokenizer is None:
            raise ValueError(f"{name}: expected token ids, since the model has no tokenizer.")
        try:
            tokens = [self.tokenizer.encode(text) for text in texts]
        except ValueError as error:
            raise ValueError(f"{name}{str(error).removeprefix('text')}") from error
        if isinstance(prompt, str):
            return tokens, lambda rows: self.tokenizer.decode(rows[0])
        return tokens, lambda rows: [self.tokenizer.decode(row) for row in rows]

    def _end_token(self, end):
        if not isinstance(end, str):
            return end
        ids = self._encode("end", end)[0][0]
        if len(ids) != 1:
            raise ValueError(f"end: expected a text of one token, got {end!r}, of {len(ids)}.")
        return int(ids[0])
