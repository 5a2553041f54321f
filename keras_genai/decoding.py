"""Compiled functions with which an autoregressive model generates tokens and scores them.

`autoregressive` and `beam_search` call them on each device of the model.
"""

import functools
import operator

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_genai.sampling import num_tokens, sample
from keras_genai.validation import as_array, check_tokens

NAN_TOKEN = -2  # in the place of a token without a distribution


class CompiledFunctions:
    """The compiled functions of one model, and the variables and tokens they were traced with."""

    def __init__(self, model):
        self.model, self.num_tokens = model, num_tokens(model)
        self.variables = list(model.variables)
        self.prefill, self.decode, self.score = map(self.compile, (_prefill, _decode, _score))
        self.extra = {}  # functions of other modules, by their function

    def compile(self, function):
        """Return `function(model, …)` compiled with XLA, with the model as a constant."""
        # A partial per model: TensorFlow counts traces by code and would warn after five models.
        # Without AutoGraph, which takes longer than the compilation: the loops are those of tf.
        return tf.function(
            functools.partial(function, self.model), autograph=False, jit_compile=True
        )

    def matches(self, variables) -> bool:
        """Return whether these are the variables that the functions were traced with."""
        same_count = len(variables) == len(self.variables)
        same_tokens = num_tokens(self.model) == self.num_tokens
        return same_count and same_tokens and all(map(operator.is_, variables, self.variables))

    def get(self, function):
        """Return the compiled version of `function(model, …)`, compiled at its first use."""
        if function not in self.extra:
            self.extra[function] = self.compile(function)
        return self.extra[function]


def model_strategy(model) -> tf.distribute.Strategy:
    """Return the strategy that a model was built under."""
    return getattr(model, "distribute_strategy", None) or tf.distribute.get_strategy()


def compiled_functions(model) -> CompiledFunctions:
    """Return the compiled functions of a model, compiled again after a change.

    The variables were replaced, or the tokenizer is one of another size.
    """
    compiled = getattr(model, "decoding_functions", None)
    if compiled is None or not compiled.matches(model.variables):
        compiled = model.decoding_functions = CompiledFunctions(model)
    return compiled


def _prefill(model, tokens, length, max_length, conditioning):
    """Return the state after a block of tokens `(batch, n)`, of which `length` are valid."""
    state = model.initial_state(tokens.shape[0], max_length, conditioning)
    if tokens.shape[1] > 0:
        _, state = model.step(tokens, state, tf.constant(0), length)
    return state


def _decode(
    model, loop_vars, stop, start, prompt_lengths, uniform, sampler, stop_token, allowed, offsets
):
    """Process prompts to their ends and sample from there, until `stop` or all have ended.

    `allowed` is `None`, or the tokens that may be generated `(m, num_tokens)`: row `offsets` is
    that of the first token after a prompt.
    """

    def cond(position, tokens, finished, state):
        return (position < stop) & ~ops.all(finished)

    def body(position, tokens, finished, state):
        token = ops.slice(tokens, [0, position], [tokens.shape[0], 1])
        logits, state = model.step(token, state, position)
        logits = logits[:, 0]
        random_numbers = ops.take(uniform, position - start, axis=0)
        scores = logits[:, : num_tokens(model)]
        if allowed is not None:
            row = ops.maximum(position + 1 - prompt_lengths, 0) + offsets
            row = ops.minimum(row, allowed.shape[0] - 1)  # tokens that are not returned
            scores = ops.where(ops.take(allowed, row, axis=0), scores, -np.inf)
        sampled = sample(scores, random_numbers, sampler)
        # Of NaN, the largest would be token 0.
        sampled = ops.where(ops.any(ops.isnan(logits), axis=-1), NAN_TOKEN, sampled)
        sampled = ops.where(finished, stop_token, sampled)
        prompt_token = ops.slice(tokens, [0, position + 1], [tokens.shape[0], 1])[:, 0]
        in_prompt = position + 1 < prompt_lengths
        token = ops.where(in_prompt, prompt_token, sampled)
        tokens = ops.slice_update(tokens, [0, position + 1], token[:, None])
        finished = finished | (~in_prompt & (token == stop_token))
        return position + 1, tokens, finished, state

    return tf.while_loop(cond, body, loop_vars)


def _score(model, tokens, targets, state, position):
    """Return the log-likelihood of each target `(batch, n)` after its token, and the new state."""
    logits, state = model.step(tokens, state, position)
    log_probs = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    return ops.take_along_axis(log_probs, targets[..., None], axis=-1)[..., 0], state


# Inputs.


def prompt_block(tokens, length: int):
    """Return the first `length` tokens of `(batch, max_length)`, padded to a power of two."""
    return tokens[:, : round_up(length, 16) if length > 0 else 0]


def token_buffer(shape, stop_token) -> np.ndarray:
    """Return an int32 array filled with the stop token, or with 0 if there is none."""
    return np.full(shape, 0 if stop_token is None else stop_token, "int32")


def repeat_rows(conditioning, num_repeats=1):
    """Return the conditioning as tensors, each row repeated `num_repeats` times."""
    if conditioning is None:
        return None
    if any(as_array("conditioning", x).ndim == 0 for x in keras.tree.flatten(conditioning)):
        raise ValueError(f"conditioning: expected tensors (batch, …), got {conditioning!r:.200}.")
    return keras.tree.map_structure(lambda x: tf.repeat(x, num_repeats, axis=0), conditioning)


def pad_rows(rows, conditioning):
    """Return rows and their conditioning with copies of the last one, so that few numbers compile.

    Their number becomes a power of two, above 64 a multiple of 64. The caller drops the copies.
    """
    num_rows = round_up(len(rows), 1) if len(rows) <= 64 else -(-len(rows) // 64) * 64
    num_copies = num_rows - len(rows)
    conditioning = repeat_rows(conditioning)
    if conditioning is not None and num_copies > 0:
        conditioning = tf.nest.map_structure(
            lambda x: tf.concat([x, tf.repeat(x[-1:], num_copies, axis=0)], axis=0), conditioning
        )
    return [*rows, *[rows[-1]] * num_copies], conditioning


def round_up(length: int, smallest: int, largest: int | None = None) -> int:
    """Return the smallest power of two >= length, clipped to [smallest, largest]."""
    rounded = max(smallest, 1 << (length - 1).bit_length())
    return rounded if largest is None else min(rounded, largest)


def check_stop_token(stop_token, vocab_size: int):
    """Return the stop token as a tensor, -1 for `None`."""
    if stop_token is None:
        return tf.constant(-1)
    check_tokens("stop_token", [[stop_token]], vocab_size, minimum=1)
    return tf.constant(stop_token, tf.int32)


def check_allowed_tokens(allowed_tokens, max_new_tokens: int, model):
    """Return the allowed tokens as a tensor, with a length of a power of two; `None` for `None`.

    Raises:
        ValueError: for another shape or dtype, and for a row without a token.
    """
    if allowed_tokens is None:
        return None
    allowed, shape = as_array("allowed_tokens", allowed_tokens), (max_new_tokens, num_tokens(model))
    if allowed.shape != shape or allowed.dtype != bool:
        raise ValueError(
            f"allowed_tokens: expected a bool array {shape}, max_new_tokens and the vocabulary, "
            f"got {allowed.dtype} {allowed.shape}."
        )
    empty = np.flatnonzero(~allowed.any(axis=1))
    if len(empty):
        raise ValueError(f"allowed_tokens: expected at least one, got none in row {empty[0]}.")
    num_rows = round_up(max_new_tokens, 64)  # so that another number rarely compiles anew
    return tf.constant(np.pad(allowed, [[0, num_rows - max_new_tokens], [0, 0]], "edge"))
