"""Sampling of one token from the logits of an autoregressive model."""

import typing

import numpy as np
import tensorflow as tf
from keras import ops

from keras_genai.validation import check_size, check_type, is_number


class Sampler(typing.NamedTuple):
    """Sampling options of the next token, applied in the order temperature, top-k, top-p.

    Attributes:
        temperature: Float above 0. Divisor of the logits; below 1, likely tokens become likelier.
            Defaults to `1.0`.
        top_k: Int or `None`. Number of likeliest tokens to sample from (Fan et al. 2018); 1 is
            greedy decoding. Another value compiles the loop again. Defaults to `None`.
        top_p: Float in (0, 1] or `None`. Nucleus sampling: the smallest set of likeliest tokens
            whose total probability is at least `top_p` (Holtzman et al. 2020). Defaults to `None`.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None


GREEDY = Sampler(top_k=1)


def sample(logits, uniform, sampler=Sampler()):
    """Sample one token per row by inverse transform sampling.

    Args:
        logits: Float tensor `(batch, vocab_size)`.
        uniform: Float tensor `(batch,)`. Uniform random numbers in [0, 1).
        sampler: `Sampler`. Sampling options. Defaults to `Sampler()`.

    Returns:
        Int32 tokens `(batch,)`.
    """
    if sampler.top_k == 1:
        return _first_true(logits == ops.max(logits, axis=-1, keepdims=True))
    logits = ops.cast(logits, "float32")
    # With the maximum at 0, no temperature overflows it.
    logits = (logits - ops.max(logits, axis=-1, keepdims=True)) / sampler.temperature
    if sampler.top_k is not None:
        logits = filter_top_k(logits, sampler.top_k)
    if sampler.top_p is not None:
        logits = filter_top_p(logits, sampler.top_p)
    probabilities = ops.softmax(logits, axis=-1)
    cumulative = ops.cumsum(probabilities, axis=-1)
    # XLA sums in a tree: rounding may raise the sum where the probability is 0.
    cumulative = ops.where(probabilities > 0, cumulative, 0.0)
    # u < 1, so some entry of the cumulative sum exceeds u * total.
    total = ops.max(cumulative, axis=-1, keepdims=True)
    return _first_true(cumulative > uniform[:, None] * total)


def _first_true(mask):
    """Return the index of the first True in each row; XLA compiles `argmax` to a slow loop."""
    size = mask.shape[-1]
    return ops.min(ops.where(mask, ops.arange(size, dtype="int32"), size), axis=-1)


def filter_top_k(logits, k: int):
    """Set all logits `(batch, vocab_size)` but the k largest per row to -inf; ties are kept."""
    kth = ops.top_k(logits, min(k, logits.shape[-1]))[0][:, -1:]
    return ops.where(logits >= kth, logits, -np.inf)


def filter_top_p(logits, p):
    """Set all logits `(batch, vocab_size)` outside the nucleus of probability p to -inf.

    The nucleus is the smallest set of likeliest tokens with a total probability of at least p. It
    has at least one token, and ties with its last token are kept.
    """
    descending = -ops.sort(-logits, axis=-1)
    probabilities = ops.softmax(descending, axis=-1)
    exclusive_sum = ops.cumsum(probabilities, axis=-1) - probabilities
    nucleus = ops.where(exclusive_sum < p, descending, descending[:, :1])
    threshold = ops.min(nucleus, axis=-1, keepdims=True)
    return ops.where(logits >= threshold, logits, -np.inf)


def num_tokens(model) -> int:
    """Return the number of tokens that a model may generate.

    It is that of the model's tokenizer, if the vocabulary is padded to a larger size. Ids beyond it
    have no text, and logits that no training has lowered.
    """
    tokenizer = getattr(model, "tokenizer", None)
    return model.vocab_size if tokenizer is None else min(tokenizer.vocab_size, model.vocab_size)


def check_sampler(sampler: Sampler) -> Sampler:
    """Return the sampler with temperature and top_p as tensors, so that others do not recompile.

    Raises:
        ValueError: for another type, or an option out of range.
    """
    check_type("sampler", sampler, Sampler, ", as Sampler(0.7)")
    temperature, top_k, top_p = sampler
    if not is_number(temperature) or not 0 < temperature < np.inf:
        raise ValueError(
            f"temperature: expected a number above 0, got {temperature!r}; GREEDY always takes "
            "the likeliest token."
        )
    if top_k is not None:
        top_k = check_size("top_k", top_k)
    if top_p is not None and not (is_number(top_p) and 0 < top_p <= 1):
        raise ValueError(f"top_p: expected a number above 0 and up to 1, got {top_p!r}.")
    return Sampler(
        # XLA flushes numbers below float32's smallest normal number to 0.
        tf.constant(max(temperature, np.finfo("float32").tiny), tf.float32),
        top_k,
        None if top_p is None else tf.constant(top_p, tf.float32),
    )
