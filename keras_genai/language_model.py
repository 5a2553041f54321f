"""Models of tokens: the loss, sample weights of tokens, and the base class of language models.

`TokenModelMixin` gives a model sample weights of single tokens, and `MaskedCrossentropy` is a loss
without padding; `pad_texts` makes padded data for it. `CausalLM` adds tokenization to the decoding
functions of `autoregressive` and `beam_search`: text in, text out.
"""

import typing

import keras
import numpy as np
from keras import ops

from keras_genai import autoregressive
from keras_genai.autoregressive import Sampler, truncate_at_stop_token
from keras_genai.beam_search import beam_search
from keras_genai.embeddings import PAD_TOKEN_ID
from keras_genai.models import ConfigMixin, ValidatedModel
from keras_genai.text import UNKNOWN_CHARACTER, encode_texts
from keras_genai.validation import (
    check_fraction,
    check_sample_weight,
    check_size,
    check_token_array,
    check_tokens,
)

IGNORED_LABEL = -100  # of padding in `pad_texts`; the convention of PyTorch and `transformers`


@keras.saving.register_keras_serializable(package="keras_genai")
class MaskedCrossentropy(keras.losses.Loss):
    """Cross-entropy of logits in nats, averaged over all tokens except padding.

    Labels are tokens `(batch, n)`, predictions are logits `(batch, n, vocab_size)` of any
    precision. A label outside the vocabulary, such as -1, gives NaN, unless it is `ignore_class`.
    Sample weights are `(batch,)` or `(batch, n)`; the sum of the weighted losses is divided by the
    sum of the weights. The loss of padding alone is 0.

    Args:
        label_smoothing: Float in [0, 1). Weight of the uniform distribution over the vocabulary in
            the target distribution (Vaswani et al. 2017, section 5.4). Defaults to `0.0`.
        reduction: Reduction of `keras.losses.Loss`. Defaults to `"mean_with_sample_weight"`, where
            padding has weight 0.
        name: String. Name of the loss. Defaults to `"loss"`.
        ignore_class: Int or `None`. Label of padding, which is not counted: -100 for a model whose
            token 0 is text, such as GPT-2; `None` if every label counts. Defaults to `0`.
    """

    def __init__(
        self,
        label_smoothing=0.0,
        reduction="mean_with_sample_weight",
        name="loss",
        ignore_class=PAD_TOKEN_ID,
        **kwargs,
    ):
        super().__init__(name=name, reduction=reduction, **kwargs)
        self.label_smoothing = check_fraction("label_smoothing", label_smoothing)
        if ignore_class is not None:
            ignore_class = check_size("ignore_class", ignore_class, -(2**31))
        self.ignore_class = ignore_class

    def __call__(self, y_true, y_pred, sample_weight=None):
        weights = ops.cast(self._counted(y_true), self.dtype)  # (batch, n)
        if sample_weight is not None:
            weights = weights * token_weights(sample_weight, y_pred, self.dtype)
        return super().__call__(y_true, y_pred, weights)

    def call(self, y_true, y_pred):
        log_probs = ops.log_softmax(ops.cast(y_pred, self.dtype), axis=-1)  # (batch, n, vocab_size)
        labels = ops.cast(y_true, "int32")
        vocab_size = log_probs.shape[-1]
        index = ops.clip(labels, 0, vocab_size - 1)[..., None]
        cross_entropy = -ops.take_along_axis(log_probs, index, axis=-1)[..., 0]  # (batch, n)
        valid = ops.logical_and(labels >= 0, labels < vocab_size)
        cross_entropy = ops.where(valid, cross_entropy, ops.cast(np.nan, self.dtype))
        uniform_cross_entropy = -ops.mean(log_probs, axis=-1)
        epsilon = self.label_smoothing
        loss = (1 - epsilon) * cross_entropy + epsilon * uniform_cross_entropy
        return ops.where(self._counted(y_true), loss, 0.0)  # the weight 0 of NaN would be NaN

    def _counted(self, labels):
        """Return a bool tensor `(batch, n)`, False at padding."""
        labels = ops.cast(labels, "int64")
        if self.ignore_class is None:
            return ops.ones_like(labels, "bool")
        return ops.not_equal(labels, self.ignore_class)

    def get_config(self):
        config = {"label_smoothing": self.label_smoothing, "ignore_class": self.ignore_class}
        return {**super().get_config(), **config}


def pad_texts(sequences, ignore_class=IGNORED_LABEL):
    """Return training data of a language model from texts of different lengths.

    Each token is the input that predicts the next one. Padding is at the end, where causal models
    learn nothing of it if their loss ignores its labels.

    Args:
        sequences: List of sequences of token ids, at least 2 each.
        ignore_class: Int. Label of padding, as of the loss. Defaults to `-100`.

    Returns:
        `(x, y)`: int32 arrays `(batch, n)` of inputs and labels, for the longest text of n + 1
        tokens. Inputs are padded with 0, labels with `ignore_class`.

    Raises:
        ValueError: for a text of fewer than 2 tokens, and for ids that are not whole numbers of
            at least 0.

    Example:
        x, y = pad_texts([tokenizer.encode(text) for text in texts])
        model.compile("adam", MaskedCrossentropy(ignore_class=-100))
        model.fit(x, y)
    """
    rows = check_tokens("sequences", sequences, 2**31, minimum=2)
    ignore_class = check_size("ignore_class", ignore_class, -(2**31))
    shape = len(rows), max(map(len, rows)) - 1
    x, y = np.zeros(shape, "int32"), np.full(shape, ignore_class, "int32")
    for inputs, labels, row in zip(x, y, rows, strict=True):
        inputs[: len(row) - 1], labels[: len(row) - 1] = row[:-1], row[1:]
    return x, y


def token_weights(sample_weight, y_pred, dtype=None):
    """Return weights `(batch,)`, `(batch, 1)` or `(batch, n)` as `(batch, n)`, one per token.

    Keras would align weights `(batch,)` with the positions, not with the sequences.

    Args:
        sample_weight: Tensor of weights.
        y_pred: Tensor `(batch, n, vocab_size)`.
        dtype: Dtype of the result. Defaults to `keras.config.floatx()`.
    """
    weights = ops.cast(sample_weight, dtype or keras.config.floatx())
    weights = ops.reshape(weights, (ops.shape(y_pred)[0], -1))
    return ops.broadcast_to(weights, ops.shape(y_pred)[:2])


def mask_padding(labels, y_pred, ignore_class=PAD_TOKEN_ID):
    """Exclude padding from the losses and metrics of `compile` that are computed from y_pred.

    Keras reads the mask of y_pred, which a model with masking derives from its inputs only.

    Args:
        labels: Int tensor `(batch, n)`.
        y_pred: Tensor `(batch, n, vocab_size)`. Output of the model, whose mask is changed.
        ignore_class: Int. Label of padding. Defaults to `0`.

    Returns:
        The new mask, a bool tensor `(batch, n)`: False where the label or the input is padding.
    """
    mask = ops.not_equal(ops.cast(labels, "int64"), ignore_class)
    previous = getattr(y_pred, "_keras_mask", None)
    y_pred._keras_mask = mask if previous is None else ops.logical_and(previous, mask)
    return y_pred._keras_mask


def check_same_shape(x, y) -> None:
    """Raise ValueError unless there is one target for each input token."""
    if np.shape(x) != np.shape(y):
        raise ValueError(f"y: expected the shape of x, {np.shape(x)}, got {np.shape(y)}.")


class TokenModelMixin:
    """Mixin of a `ValidationMixin` whose sample weights belong to sequences or to tokens.

    Where the output is `(batch, n, vocab_size)`, weights may be `(batch,)` or `(batch, n)`. Labels
    of the loss's `ignore_class` are excluded from the loss and from the metrics of `compile`. Early
    versions of Keras, such as 3.8, exclude them from `weighted_metrics` only.
    """

    def fit(self, *args, class_weight=None, **kwargs):
        """Train the model; see `keras.Model.fit`.

        Raises:
            ValueError: for invalid data, see the class; and for class weights, which Keras would
                take to be those of one label per sequence.
        """
        if class_weight is not None:
            if len(self.output_shape) == 3:
                raise ValueError("class_weight: expected None; give each token a sample_weight.")
            kwargs["class_weight"] = class_weight
        return super().fit(*args, **kwargs)

    def check_sample_weight(self, sample_weight, x, y):
        shape = np.shape(y)
        check_sample_weight(sample_weight, shape[:1], shape[: len(self.output_shape) - 1])

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        if sample_weight is not None and len(y_pred.shape) == 3:
            sample_weight = token_weights(sample_weight, y_pred)
        if self._ignores_labels(y, y_pred):
            mask_padding(ops.reshape(y, ops.shape(y)[:2]), y_pred, self.ignored_label)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        if sample_weight is not None and len(y_pred.shape) == 3:
            sample_weight = token_weights(sample_weight, y_pred)
        if self._ignores_labels(y, y_pred):
            y = ops.reshape(y, ops.shape(y)[:2])
            counted = ops.not_equal(y, self.ignored_label)
            weights = ops.cast(counted, keras.config.floatx())
            sample_weight = weights if sample_weight is None else weights * sample_weight
            # A metric may be NaN for a label outside the vocabulary, even at weight 0.
            y = ops.where(counted, y, ops.zeros_like(y))
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _ignores_labels(self, y, y_pred) -> bool:
        """Return whether the loss may ignore some of the labels `(batch, n)` or `(batch, n, 1)`."""
        labels = len(y.shape) == 2 or (len(y.shape) == 3 and y.shape[-1] == 1)
        return self.ignored_label is not None and len(y_pred.shape) == 3 and labels

    @property
    def ignored_label(self) -> int | None:
        """The label that the loss of `compile` ignores, `None` if there is none."""
        return getattr(getattr(self, "loss", None), "ignore_class", None)


class CausalLM(TokenModelMixin, ConfigMixin, ValidatedModel):
    """A model that predicts each token of a text from the tokens before it.

    It maps token ids `(batch, n)` to logits `(batch, n, vocab_size)`, `logits[:, i]` for the token
    at position i + 1. A subclass implements `autoregressive.AutoregressiveModel` and sets the
    attributes below. A model with a tokenizer takes and returns text; any model takes and returns
    token ids.

    `fit(x, y, sample_weight=…)` takes two integer arrays `(batch, n)` and weights `(batch,)` or
    `(batch, n)`. It raises a ValueError for ids outside the vocabulary, except for labels of the
    loss's `ignore_class`, for more tokens than the context length, and for y of another shape.
    Texts of different lengths are padded by `pad_texts`.

    Attributes:
        vocab_size: Int. Number of tokens in the vocabulary.
        context_length: Int or `None`. Maximum number of tokens, `None` if unlimited.
        tokenizer: Tokenizer of `text`, or `None`. Ids that it lacks, in a padded vocabulary, are
            never generated; likelihoods remain those of the whole vocabulary.
        config: Dict. Constructor arguments, except `name` and `tokenizer`.
    """

    vocab_size: int
    context_length: int | None = None
    tokenizer: typing.Any = None
    config: dict

    def generate(
        self,
        prompt,
        max_new_tokens=200,
        *,
        sampler=Sampler(),
        seed=None,
        stop_token=None,
        sliding_window=False,
        allowed_tokens=None,
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
            sliding_window: Bool. Whether to continue beyond the context length, with the last
                tokens as the context; see `autoregressive.generate`. Defaults to `False`.
            allowed_tokens: Bool array `(max_new_tokens, n)` for the n tokens of the tokenizer, or
                `None`. Tokens that each new token is chosen from, such as those of
                `forms.form_tokens`. Defaults to `None`, all tokens.

        Returns:
            Prompt and continuation in the format of the prompt; see `autoregressive.generate`.

        Raises:
            ValueError: for an empty prompt, for characters or ids outside the vocabulary, for more
                tokens than the context length without `sliding_window`, for other
                `allowed_tokens`, and for text if the model has no tokenizer.
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
                sliding_window=sliding_window,
                allowed_tokens=allowed_tokens,
            )
        )

    def stream(
        self,
        prompt: str,
        max_new_tokens=200,
        *,
        sampler=Sampler(),
        seed=None,
        stop_token=None,
        sliding_window=False,
        allowed_tokens=None,
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
            sliding_window=sliding_window,
            allowed_tokens=allowed_tokens,
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
        self,
        prompt,
        max_new_tokens=200,
        *,
        beam_width=4,
        length_penalty=0.0,
        stop_token=None,
        allowed_tokens=None,
    ):
        """Return the likeliest continuations found by beam search, best first.

        Args:
            prompt: As for `generate`; all prompts have the same number of tokens.
            max_new_tokens: Int. Number of tokens to generate. Defaults to `200`.
            beam_width: Int. Number of beams, all of which are returned. Defaults to `4`.
            length_penalty: Float. Exponent of the length normalization; see
                `beam_search.beam_search`. Defaults to `0.0`.
            stop_token: As for `generate`.
            allowed_tokens: As for `generate`, but the scores are those without the restriction.

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
            allowed_tokens=allowed_tokens,
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
        """Raise ValueError unless x and y are token ids of the vocabulary, of equal shapes."""
        self.check_inputs(x)
        check_token_array("y", y, self.vocab_size, ignored=self.ignored_label)
        check_same_shape(x, y)

    def check_inputs(self, x):
        """Raise ValueError unless x is an array of token ids that the model can take."""
        check_token_array("x", x, self.vocab_size, maximum=self.context_length)

    def get_config(self):
        tokenizer = keras.saving.serialize_keras_object(self.tokenizer)
        return {**super().get_config(), **self.config, "tokenizer": tokenizer}

    def _encode(self, name, prompt):
        """Return the token ids of a prompt, and a function from ids to the prompt's format."""
        texts = [prompt] if isinstance(prompt, str) else prompt
        if not (isinstance(texts, (list, tuple)) and texts and isinstance(texts[0], str)):
            return prompt, lambda tokens: tokens
        if self.tokenizer is None:
            raise ValueError(f"{name}: expected token ids, since the model has no tokenizer.")
        tokens = encode_texts(name, self.tokenizer, texts)
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
