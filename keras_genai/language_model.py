"""Base class of the language models: text in, text out.

`CausalLM` adds tokenization to the decoding functions of `autoregressive` and `beam_search`.
"""

import typing

import keras

from keras_genai import autoregressive
from keras_genai.autoregressive import Sampler, truncate_at_stop_token
from keras_genai.beam_search import beam_search
from keras_genai.models import NestedConfigMixin, ValidatedModel
from keras_genai.text import UNKNOWN_CHARACTER
from keras_genai.validation import check_tokens


class CausalLM(NestedConfigMixin, ValidatedModel):
    """A model that predicts each token of a text from the tokens before it.

    It maps token ids `(batch, n)` to logits `(batch, n, vocab_size)`, `logits[:, i]` for the token
    at position i + 1. A subclass implements `autoregressive.AutoregressiveModel` and sets the
    attributes below. A model with a tokenizer takes and returns text; any model takes and returns
    token ids.

    Attributes:
        vocab_size: Int. Number of tokens in the vocabulary.
        context_length: Int or `None`. Maximum number of tokens, `None` if unlimited.
        tokenizer: Tokenizer of `text`, or `None`.
        config: Dict. Constructor arguments, except `name` and `tokenizer`.
    """

    vocab_size: int
    context_length: int | None = None
    tokenizer: typing.Any = None
    config: dict

    def generate(
        self, prompt, max_new_tokens=200, *, sampler=Sampler(), seed=None, stop_token=None
    ):
        """Continue texts or token sequences.

        Args:
            prompt: String or list of strings; or token ids, an array `(batch, n)` or a list of
                sequences of any lengths.
            max_new_tokens: Int. Number of tokens to generate. Defaults to `200`.
            sampler: `autoregressive.Sampler`, or `autoregressive.GREEDY`. Defaults to `Sampler()`.
            seed: Int or `None`. Seed of the random numbers; the state of training is unchanged.
            stop_token: String of one token, token id, or `None`. Token that ends a sequence; it
                remains in the result.

        Returns:
            Prompt and continuation in the format of the prompt; see `autoregressive.generate`.

        Raises:
            ValueError: for an empty prompt, for characters or ids outside the vocabulary, for more
                tokens than the context length, and for text if the model has no tokenizer.
        """
        tokens, decode = self._encode("prompt", prompt)
        return decode(
            autoregressive.generate(
                self,
                tokens,
                max_new_tokens,
                sampler=sampler,
                seed=seed,
                stop_token=self._stop_token_id(stop_token),
            )
        )

    def stream(
        self, prompt: str, max_new_tokens=200, *, sampler=Sampler(), seed=None, stop_token=None
    ):
        """Yield the continuation of a text in pieces, as soon as they are generated.

        Arguments are those of `generate`, except that the prompt is one string. A character that
        consists of several tokens is yielded once it is complete.
        """
        if not isinstance(prompt, str):
            raise ValueError(f"prompt: expected a text, got {type(prompt).__name__}.")
        tokens, _ = self._encode("prompt", prompt)
        new_tokens = autoregressive.stream(
            self,
            tokens,
            max_new_tokens,
            sampler=sampler,
            seed=seed,
            stop_token=self._stop_token_id(stop_token),
        )
        pending = []
        for token in new_tokens:
            pending.append(int(token[0]))
            piece = self.tokenizer.decode(pending)
            if not piece.endswith(UNKNOWN_CHARACTER):  # the decoding of an incomplete character
                pending = []
                yield piece
        if pending:
            yield self.tokenizer.decode(pending)

    def beam_search(
        self, prompt, max_new_tokens=200, *, beam_width=4, length_penalty=0.0, stop_token=None
    ):
        """Return the likeliest continuations found by beam search, best first.

        Args:
            prompt: As for `generate`; all prompts have the same number of tokens.
            max_new_tokens: Int. Number of tokens to generate. Defaults to `200`.
            beam_width: Int. Number of beams, all of which are returned. Defaults to `4`.
            length_penalty: Float. Exponent of the length normalization; see
                `beam_search.beam_search`. Defaults to `0.0`.
            stop_token: As for `generate`.

        Returns:
            `(texts, scores)`: two lists of length `beam_width` for a string, a list of such lists
            each for a list of strings; arrays as from `beam_search.beam_search` for token ids.

        Raises:
            ValueError: as `generate`, and for prompts of different lengths.
        """
        tokens, _ = self._encode("prompt", prompt)
        stop_token = self._stop_token_id(stop_token)
        sequences, scores = beam_search(
            self,
            tokens,
            max_new_tokens,
            beam_width=beam_width,
            length_penalty=length_penalty,
            stop_token=stop_token,
        )
        if tokens is prompt:
            return sequences, scores
        prompt_length = len(tokens[0])
        texts = [
            [
                self.tokenizer.decode(truncate_at_stop_token(beam, prompt_length, stop_token))
                for beam in beams
            ]
            for beams in sequences
        ]
        scores = scores.tolist()
        return (texts[0], scores[0]) if isinstance(prompt, str) else (texts, scores)

    def log_prob(self, tokens):
        """Return the log-likelihood of texts or token sequences, in nats.

        Args:
            tokens: Strings or token ids, as the prompt of `generate`; at least 2 tokens each.

        Returns:
            `(log_probs, token_log_probs)`: the log-likelihood of each sequence given its first
            token, and of each token from the second on; see `autoregressive.log_prob`. For one
            string, a float and an array `(n - 1,)`.
        """
        ids, _ = self._encode("tokens", tokens)
        log_probs, token_log_probs = autoregressive.log_prob(self, ids)
        if isinstance(tokens, str):
            return float(log_probs[0]), token_log_probs[0]
        return log_probs, token_log_probs

    def check_data(self, x, y):
        """Raise ValueError unless x and y are token ids of the vocabulary."""
        check_tokens("x", x, self.vocab_size, minimum=1)
        check_tokens("y", y, self.vocab_size, minimum=1)

    def get_config(self):
        tokenizer = keras.saving.serialize_keras_object(self.tokenizer)
        return {"name": self.name, **self.config, "tokenizer": tokenizer}

    def _encode(self, name, prompt):
        """Return the token ids of a prompt, and a function from ids to the prompt's format."""
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

    def _stop_token_id(self, stop_token):
        """Return the id of a stop token: a string of one token, an id, or `None`."""
        if not isinstance(stop_token, str):
            return stop_token
        ids = self._encode("stop_token", stop_token)[0][0]
        if len(ids) != 1:
            raise ValueError(
                f"stop_token: expected a text of one token, got {stop_token!r}, {len(ids)} tokens."
            )
        return int(ids[0])
