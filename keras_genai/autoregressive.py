"""Sampling and exact likelihood for every autoregressive model (article 3, section 5).

Language models, PixelCNN and WaveNet share one factorization, without latent variables:

    p(x) = p(x_1) p(x_2 | x_1) … p(x_n | x_1 … x_(n-1))

`AutoregressiveModel` is the interface that a model implements. A prompt is processed in one block
(prefill), new tokens one by one in a compiled loop (decoding). Lengths are rounded up to powers of
two, so that most other prompt lengths, numbers of new tokens and all seeds reuse the compiled loop;
another batch size or `top_k` compiles it again. All random numbers are generated before the loop,
one per token.

Corrected from the article: section 5, second paragraph, maximizes "the posterior probability of
observed data and latent variables" (观测数据与潜在变量的后验概率). Autoregressive models have no
latent variable; they maximize the log-likelihood itself, which `log_prob` returns.
"""

import functools
import operator
import typing

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_genai.random_state import random_generator
from keras_genai.validation import (
    as_array,
    check_autoregressive_model,
    check_context_length,
    check_outputs,
    check_size,
    check_tokens,
    check_type,
    is_number,
)

MAX_SCORING_BLOCK = 512  # tokens per call of `log_prob`, which bounds the memory of the logits
NAN_TOKEN = -2  # in the place of a token without a distribution


class AutoregressiveModel(typing.Protocol):
    """Interface of a model that predicts the next token.

    Attributes:
        vocab_size: Int. Number of tokens in the vocabulary.
        context_length: Int or `None`. Longest sequence, `None` if unlimited.
    """

    vocab_size: int
    context_length: int | None

    def initial_state(self, batch_size: int, max_length: int, conditioning=None):
        """Return the state before the first token.

        Args:
            batch_size: Int. Number of sequences.
            max_length: Int. Number of tokens the state has room for, at most `context_length`.
            conditioning: Tensors that the model is conditioned on, or `None`.

        Returns:
            A nested structure of tensors whose first axis is the batch.
        """

    def step(self, tokens, state, position, length=None):
        """Process tokens and return the logits of the tokens that follow.

        Args:
            tokens: Int tensor `(batch, n)`. Tokens at positions `position`, `position + 1`, …
            state: State after all tokens before `position`.
            position: Int or scalar tensor. Position of the first token.
            length: Scalar tensor or `None`. Number of valid tokens if the block is padded at the
                end; padding never exceeds the state's `max_length`.

        Returns:
            Tuple of logits `(batch, n, vocab_size)`, where `logits[:, i]` belongs to the token
            after `tokens[:, i]`, and the new state.
        """


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
        return ops.cast(ops.argmax(logits, axis=-1), "int32")
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
    return ops.cast(ops.argmax(cumulative > uniform[:, None] * total, axis=-1), "int32")


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


def generate(
    model,
    prompt,
    max_new_tokens,
    *,
    sampler=Sampler(),
    seed=None,
    conditioning=None,
    stop_token=None,
):
    """Continue token sequences.

    Args:
        model: `AutoregressiveModel`.
        prompt: Int array `(batch, n)`, or a list of sequences of any lengths, at least 1 each.
        max_new_tokens: Int. Number of tokens to add to each sequence.
        sampler: `Sampler`; `GREEDY` takes the likeliest token. Defaults to `Sampler()`.
        seed: Int or `None`. The same seed gives the same tokens; `None` is the seed of Keras.
        conditioning: Tensors `(batch, …)` that the model is conditioned on, or `None`.
        stop_token: Int or `None`. Token id that ends a sequence.

    Returns:
        For an array, an int32 array `(batch, n + max_new_tokens)`, filled with `stop_token` after
        its first occurrence. For a list, a list of int32 arrays, each of its prompt's length plus
        `max_new_tokens` or shorter, with the stop token last.

    Raises:
        ValueError: for an empty prompt, ids outside the vocabulary, more tokens than the context
            length, an invalid sampling option, and a model whose logits are NaN.
    """
    decoding = _Decoding(model, prompt, max_new_tokens, sampler, seed, conditioning, stop_token)
    decoding.run_until(decoding.stop)
    tokens = decoding.tokens.numpy()
    if not isinstance(prompt, (list, tuple)):
        return tokens[:, : decoding.stop + 1]
    return [
        truncate_at_stop_token(row[: length + max_new_tokens], length, stop_token)
        for row, length in zip(tokens, decoding.prompt_lengths, strict=True)
    ]


def stream(
    model,
    prompt,
    max_new_tokens,
    *,
    sampler=Sampler(),
    seed=None,
    conditioning=None,
    stop_token=None,
):
    """Yield the new tokens of `generate` one position at a time.

    Arguments and errors are those of `generate`, except that all prompts have the same length;
    errors are raised at the first iteration. The iteration ends early once every sequence has
    ended.

    Yields:
        Int32 arrays `(batch,)`.
    """
    decoding = _Decoding(model, prompt, max_new_tokens, sampler, seed, conditioning, stop_token)
    if len(set(lengths := decoding.prompt_lengths.tolist())) > 1:
        raise ValueError(f"prompt: expected sequences of one length, got {lengths}.")
    for position in range(decoding.start, decoding.stop):
        decoding.run_until(position + 1)
        yield decoding.tokens[:, position + 1].numpy()
        if decoding.finished.numpy().all():
            return


def log_prob(model, tokens, conditioning=None):
    """Return the log-likelihood of token sequences, each token given all tokens before it.

    Args:
        model: `AutoregressiveModel`.
        tokens: Int array `(batch, n)`, or a list of sequences of any lengths, at least 2 each.
        conditioning: Tensors `(batch, …)` that the model is conditioned on, or `None`.

    Returns:
        Tuple of log-likelihoods in nats: `log p(x_2 … x_n | x_1)` of each sequence `(batch,)`, and
        of each token from the second on, `(batch, n - 1)` for an array, a list of arrays for a
        list.

    Raises:
        ValueError: for sequences of fewer than 2 tokens, for ids outside the vocabulary, and for
            more tokens than the context length.
    """
    check_autoregressive_model(model)
    sequences = check_tokens("tokens", tokens, model.vocab_size, minimum=2)
    longest = max(len(row) for row in sequences)
    check_context_length("tokens", model, longest)
    block = min(round_up(longest - 1, 16), MAX_SCORING_BLOCK)
    max_length = round_up(longest - 1, 64, model.context_length)
    padded = np.zeros((len(sequences), max_length + 1), "int32")
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = sequence

    functions, log_probs = compiled_functions(model), []
    empty_prompt = tf.zeros((len(sequences), 0), tf.int32)
    state = functions.prefill(empty_prompt, tf.constant(0), max_length, repeat_rows(conditioning))
    for position in range(0, longest - 1, block):
        inputs = tf.constant(padded[:, :-1][:, position : position + block])
        targets = tf.constant(padded[:, 1:][:, position : position + block])
        block_log_probs, state = functions.score(inputs, targets, state, tf.constant(position))
        log_probs.append(block_log_probs.numpy())
    token_log_probs = [
        row[: len(sequence) - 1]
        for row, sequence in zip(np.hstack(log_probs), sequences, strict=True)
    ]
    sequence_log_probs = np.array([row.sum(dtype="float64") for row in token_log_probs])
    if not isinstance(tokens, (list, tuple)):
        token_log_probs = np.stack(token_log_probs)
    return sequence_log_probs, token_log_probs


def truncate_at_stop_token(tokens, start: int, stop_token) -> np.ndarray:
    """Return tokens `(n,)` through the first stop token at or after `start`."""
    ends = start + np.flatnonzero(tokens[start:] == stop_token)
    return tokens[: ends[0] + 1] if len(ends) else tokens


class _Decoding:
    """State of one generation: token buffer, position, finished rows and the model's state."""

    def __init__(self, model, prompt, max_new_tokens, sampler, seed, conditioning, stop_token):
        check_autoregressive_model(model)
        self.model, max_new_tokens = model, check_size("max_new_tokens", max_new_tokens)
        prompts = check_tokens("prompt", prompt, model.vocab_size, minimum=1)
        self.prompt_lengths = np.array([len(row) for row in prompts], "int32")
        # The loop starts at the end of the shortest prompt and ends max_new_tokens after the
        # longest.
        self.start = int(self.prompt_lengths.min()) - 1
        self.stop = int(self.prompt_lengths.max()) + max_new_tokens - 1
        check_context_length("max_new_tokens", model, self.stop + 1)
        self.sampler = check_sampler(sampler)
        self.stop_token = check_stop_token(stop_token, model.vocab_size)

        max_length = round_up(self.stop + 1, 64, model.context_length)
        tokens = token_buffer((len(prompts), max_length), stop_token)
        for row, sequence in zip(tokens, prompts, strict=True):
            row[: len(sequence)] = sequence
        uniform = np.zeros((max_length, len(prompts)), "float32")
        num_steps = self.stop - self.start
        uniform[:num_steps] = random_generator(seed).random((num_steps, len(prompts)), "float32")
        self.tokens, self.uniform = tf.constant(tokens), tf.constant(uniform)
        self.finished = tf.zeros(len(prompts), bool)

        self.functions = compiled_functions(model)
        self.position = tf.constant(self.start)
        block = prompt_block(self.tokens, self.start)
        rows = repeat_rows(conditioning)
        self.state = self.functions.prefill(block, self.position, max_length, rows)

    def run_until(self, stop: int) -> None:
        """Generate the tokens through position `stop`."""
        self.position, self.tokens, self.finished, self.state = self.functions.decode(
            (self.position, self.tokens, self.finished, self.state),
            tf.constant(stop),
            tf.constant(self.start),
            tf.constant(self.prompt_lengths),
            self.uniform,
            self.sampler,
            self.stop_token,
        )
        if np.any(self.tokens == NAN_TOKEN):
            check_outputs(self.model, np.nan)


class CompiledFunctions:
    """The compiled functions of one model and the variables they were traced with."""

    def __init__(self, model):
        self.model = model
        self.variables = list(model.variables)
        self.prefill, self.decode, self.score = map(self.compile, (_prefill, _decode, _score))
        self.extra = {}  # functions of other modules, by their function

    def compile(self, function):
        """Return `function(model, …)` compiled with XLA, with the model as a constant."""
        # A partial per model: TensorFlow counts traces by code and would warn after five models.
        return tf.function(functools.partial(function, self.model), jit_compile=True)

    def matches(self, variables) -> bool:
        """Return whether these are the variables that the functions were traced with."""
        same_count = len(variables) == len(self.variables)
        return same_count and all(map(operator.is_, variables, self.variables))

    def get(self, function):
        """Return the compiled version of `function(model, …)`, compiled at its first use."""
        if function not in self.extra:
            self.extra[function] = self.compile(function)
        return self.extra[function]


def compiled_functions(model) -> CompiledFunctions:
    """Return the compiled functions of a model, compiled again if its variables were replaced."""
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


def _decode(model, loop_vars, stop, start, prompt_lengths, uniform, sampler, stop_token):
    """Process prompts to their ends and sample from there, until `stop` or all have ended."""

    def cond(position, tokens, finished, state):
        return (position < stop) & ~ops.all(finished)

    def body(position, tokens, finished, state):
        token = ops.slice(tokens, [0, position], [tokens.shape[0], 1])
        logits, state = model.step(token, state, position)
        sampled = sample(logits[:, 0], ops.take(uniform, position - start, axis=0), sampler)
        # Of NaN, the largest would be token 0.
        sampled = ops.where(ops.any(ops.isnan(logits[:, 0]), axis=-1), NAN_TOKEN, sampled)
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


# Shared with `beam_search`.


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
