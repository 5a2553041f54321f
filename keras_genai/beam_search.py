"""Beam search: the likeliest continuations of a prompt under an autoregressive model."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_genai.decoding import (
    check_allowed_tokens,
    check_stop_token,
    compiled_functions,
    model_strategy,
    pad_rows,
    prompt_block,
    repeat_rows,
    round_up,
    token_buffer,
)
from keras_genai.replicas import run_on_replicas
from keras_genai.sampling import num_tokens
from keras_genai.validation import (
    check_autoregressive_model,
    check_context_length,
    check_number,
    check_outputs,
    check_size,
    check_tokens,
)


def beam_search(
    model,
    prompt,
    max_new_tokens,
    *,
    beam_width=4,
    length_penalty=0.0,
    conditioning=None,
    stop_token=None,
    allowed_tokens=None,
):
    """Search for the likeliest continuations, keeping the best `beam_width` prefixes.

    The score is that of Wu et al. 2016, equation 14, without the coverage penalty.

    Args:
        model: `AutoregressiveModel`.
        prompt: Int array `(batch, n)`, or a list of sequences of equal length.
        max_new_tokens: Int. Number of tokens to add to each sequence.
        beam_width: Int. Number of beams per prompt, all of which are returned. Defaults to `4`.
        length_penalty: Float, at least 0. Exponent alpha: beams are ranked by
            log p / ((5 + length) / 6)^alpha. 0 ranks by log p, which favors short sequences.
            Defaults to `0.0`.
        conditioning: Tensors `(batch, …)` that the model is conditioned on, or `None`.
        stop_token: Int or `None`. Token id that ends a sequence.
        allowed_tokens: Bool array `(max_new_tokens, num_tokens)` or `None`; see
            `autoregressive.generate`. The search is among the sequences of these tokens, which keep
            the probability that they have without the restriction. Defaults to `None`, all.

    Returns:
        Tuple of int32 tokens `(batch, beam_width, n + max_new_tokens)`, best beam first, filled
        with `stop_token` after its first occurrence, and normalized scores `(batch, beam_width)` in
        nats. Where there are fewer sequences than beams, the score is -inf, and the tokens of the
        row have no meaning.

    Raises:
        ValueError: as `autoregressive.generate`, for prompts of different lengths, and for a
            negative length penalty, NaN or infinity.
    """
    check_autoregressive_model(model)
    max_new_tokens = check_size("max_new_tokens", max_new_tokens)
    beam_width = check_size("beam_width", beam_width)
    length_penalty = check_length_penalty(length_penalty)
    prompts = check_tokens("prompt", prompt, model.vocab_size, minimum=1)
    lengths = {len(row) for row in prompts}
    if len(lengths) > 1:
        raise ValueError(f"prompt: expected sequences of one length, got {sorted(lengths)}.")
    length = lengths.pop()
    stop_id = check_stop_token(stop_token, num_tokens(model))
    check_context_length("max_new_tokens", model, length + max_new_tokens)
    allowed = check_allowed_tokens(allowed_tokens, max_new_tokens, model)

    max_length = round_up(length + max_new_tokens, 64, model.context_length)
    functions, start = compiled_functions(model), length - 1

    def search(prompts, conditioning):
        batch_size = len(prompts)
        tokens = token_buffer((batch_size * beam_width, max_length), stop_token)
        tokens[:, :length] = np.repeat(prompts, beam_width, axis=0)
        tokens = tf.constant(tokens)
        state = functions.prefill(
            prompt_block(tokens, start),
            tf.constant(start),
            max_length,
            repeat_rows(conditioning, beam_width),
        )
        # All beams start as the same prompt. Only the first has a finite score; otherwise the first
        # step would choose the same token `beam_width` times.
        log_probs = np.full((batch_size, beam_width), -np.inf, "float32")
        log_probs[:, 0] = 0.0
        _, tokens, log_probs, _, generated_lengths, _ = functions.get(_beam_search_loop)(
            (
                tf.constant(start),
                tokens,
                tf.constant(log_probs),
                tf.zeros((batch_size, beam_width), bool),
                tf.zeros((batch_size, beam_width), tf.int32),
                state,
            ),
            tf.constant(start),
            tf.constant(start + max_new_tokens),
            stop_id,
            tf.constant(length_penalty, tf.float32),
            allowed,
        )
        return tf.reshape(tokens, (batch_size, beam_width, -1)), log_probs, generated_lengths

    rows, conditioning = pad_rows(prompts, conditioning)
    results = run_on_replicas(model_strategy(model), search, np.stack(rows), conditioning)
    tokens, log_probs, generated_lengths = (result[: len(prompts)] for result in results)
    if np.any(np.isnan(log_probs)):
        check_outputs(model, np.nan)
    scores = log_probs / _length_normalization(generated_lengths, length_penalty)
    return tokens.numpy()[..., : length + max_new_tokens], scores.numpy()


def check_length_penalty(length_penalty):
    """Return the length penalty; raise ValueError unless it is finite and at least 0."""
    return check_number("length_penalty", length_penalty, 0)


def _beam_search_loop(model, loop_vars, start, stop, stop_token, length_penalty, allowed):
    """Extend the beams from position `start` to `stop`, or until all of them have ended.

    `allowed` is `None`, or the tokens that may be added `(m, num_tokens)`.
    """

    def cond(position, tokens, log_probs, finished, generated_lengths, state):
        return (position < stop) & ~ops.all(finished)

    def body(position, tokens, log_probs, finished, generated_lengths, state):
        batch_size, beam_width = log_probs.shape
        token = ops.slice(tokens, [0, position], [batch_size * beam_width, 1])
        logits, state = model.step(token, state, position)
        token_log_probs = ops.log_softmax(ops.cast(logits[:, 0], "float32"), axis=-1)
        vocab_size = num_tokens(model)
        token_log_probs = token_log_probs[:, :vocab_size]
        if allowed is not None:
            token_log_probs = ops.where(allowed[position - start], token_log_probs, -np.inf)
        token_log_probs = ops.reshape(token_log_probs, (batch_size, beam_width, vocab_size))
        # A finished beam may only emit the stop token, at log-probability 0.
        finished_log_probs = ops.where(ops.arange(vocab_size) == stop_token, 0.0, -np.inf)
        token_log_probs = ops.where(finished[..., None], finished_log_probs, token_log_probs)
        generated_lengths = generated_lengths + ops.cast(~finished, "int32")
        candidates = log_probs[..., None] + token_log_probs  # (batch, beam_width, vocab_size)
        normalization = _length_normalization(generated_lengths, length_penalty)
        normalized_scores = ops.reshape(candidates / normalization[..., None], (batch_size, -1))
        _, best = ops.top_k(normalized_scores, beam_width)

        beam_indices, token = best // vocab_size, best % vocab_size
        candidates = ops.reshape(candidates, (batch_size, beam_width * vocab_size))
        log_probs = ops.take_along_axis(candidates, best, axis=1)
        finished = ops.take_along_axis(finished, beam_indices, axis=1) | (token == stop_token)
        generated_lengths = ops.take_along_axis(generated_lengths, beam_indices, axis=1)
        rows = ops.reshape(beam_indices + beam_width * ops.arange(batch_size)[:, None], (-1,))
        tokens, state = keras.tree.map_structure(
            lambda tensor: ops.take(tensor, rows, axis=0), (tokens, state)
        )
        tokens = ops.slice_update(tokens, [0, position + 1], ops.reshape(token, (-1, 1)))
        return position + 1, tokens, log_probs, finished, generated_lengths, state

    return tf.while_loop(cond, body, loop_vars)


def _length_normalization(length, alpha):
    """Return ((5 + length) / 6)^alpha (Wu et al. 2016, equation 14)."""
    return ((5.0 + ops.cast(length, "float32")) / 6.0) ** alpha
