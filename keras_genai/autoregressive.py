"""Sampling and exact likelihood for every autoregressive model (article 3, section 5).

Language models, PixelCNN and WaveNet share one factorization, without latent variables:

    p(x) = p(x_1) p(x_2 | x_1) … p(x_n | x_1 … x_(n-1))

`AutoregressiveModel` is the interface that a model implements. A prompt is processed in one block
(prefill), new tokens one by one in a compiled loop (decoding). Lengths and the number of sequences
are rounded up, to powers of two and, above 64 sequences, to multiples of 64, so that most other
prompt lengths, numbers of new tokens and of sequences and all seeds reuse the compiled loop, as in
`log_prob` and `beam_search`; another `top_k` compiles it again. All random numbers are generated
before the loop, one per token.

A text longer than the context length is generated in windows, on request: a full window ends, and
the next one begins with the last half of its tokens (`sliding_window`).

Corrected from the article: section 5, second paragraph, maximizes "the posterior probability of
observed data and latent variables" (观测数据与潜在变量的后验概率). Autoregressive models have no
latent variable; they maximize the log-likelihood itself, which `log_prob` returns.
"""

import operator
import typing

import numpy as np
import tensorflow as tf

from keras_genai.decoding import (
    NAN_TOKEN,
    check_allowed_tokens,
    check_stop_token,
    compiled_functions,
    model_strategy,
    pad_rows,
    prompt_block,
    round_up,
    token_buffer,
)
from keras_genai.random_state import random_generator
from keras_genai.replicas import join_rows, map_replicas, run_on_replicas, split_rows, take_rows
from keras_genai.sampling import (
    GREEDY,
    Sampler,
    check_sampler,
    filter_top_k,
    filter_top_p,
    num_tokens,
    sample,
)
from keras_genai.validation import (
    check_autoregressive_model,
    check_bools,
    check_context_length,
    check_outputs,
    check_size,
    check_tokens,
)

__all__ = [
    "GREEDY",
    "AutoregressiveModel",
    "Sampler",
    "check_sampler",
    "filter_top_k",
    "filter_top_p",
    "generate",
    "log_prob",
    "sample",
    "stream",
    "truncate_at_stop_token",
]

MAX_SCORING_BLOCK = 512  # tokens per call of `log_prob`, which bounds the memory of the logits


class AutoregressiveModel(typing.Protocol):
    """Interface of a model that predicts the next token.

    Attributes:
        vocab_size: Int. Number of tokens in the vocabulary.
        context_length: Int or `None`. Longest sequence, `None` if unlimited.

    It may also have a `tokenizer` of fewer tokens, beyond which no id is generated.
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


def generate(
    model,
    prompt,
    max_new_tokens,
    *,
    sampler=Sampler(),
    seed=None,
    conditioning=None,
    stop_token=None,
    sliding_window=False,
    allowed_tokens=None,
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
        sliding_window: Bool. Whether prompt and new tokens may exceed the model's context length C.
            Then each new token depends on the last C // 2 to C - 1 tokens: whenever C tokens are
            in the context, or more in the prompt, it is reduced to the last C // 2. A text that
            fits is the same as without. Defaults to `False`.
        allowed_tokens: Bool array `(max_new_tokens, n)` or `None`, for the n tokens of the model's
            tokenizer, or of the model without one. Row i is `True` for the tokens that may be the
            new token i of a sequence, such as those of a poem's form (`forms.form_tokens`). The
            probabilities of the others become 0 before top-k and top-p. Defaults to `None`, all.

    Returns:
        For an array, an int32 array `(batch, n + max_new_tokens)`, filled with `stop_token` after
        its first occurrence. For a list, a list of int32 arrays, each of its prompt's length plus
        `max_new_tokens` or shorter, with the stop token last.

    Raises:
        ValueError: for an empty prompt, ids outside the vocabulary, more tokens than the context
            length, an invalid sampling option, `allowed_tokens` of another shape or dtype or with
            a row without any, and a model whose logits are NaN.
    """
    decoding = _Decoding(
        model,
        prompt,
        max_new_tokens,
        sampler,
        seed,
        conditioning,
        stop_token,
        sliding_window,
        allowed_tokens,
    )
    for window in decoding.windows():
        window.run_until(window.stop)
    rows = decoding.rows[: decoding.num_sequences]
    if not isinstance(prompt, (list, tuple)):
        tokens = token_buffer((len(rows), max(decoding.ends)), stop_token)
        for filled, row in zip(tokens, rows, strict=True):
            filled[: len(row)] = row
        return tokens
    return [
        truncate_at_stop_token(row[:end], end - max_new_tokens, stop_token)
        for row, end in zip(rows, decoding.ends[: len(rows)], strict=True)
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
    sliding_window=False,
    allowed_tokens=None,
):
    """Yield the new tokens of `generate` one position at a time.

    Arguments and errors are those of `generate`, except that all prompts have the same length;
    errors are raised at the first iteration. The iteration ends early once every sequence has
    ended.

    Yields:
        Int32 arrays `(batch,)`.
    """
    decoding = _Decoding(
        model,
        prompt,
        max_new_tokens,
        sampler,
        seed,
        conditioning,
        stop_token,
        sliding_window,
        allowed_tokens,
    )
    if len(set(lengths := [len(row) for row in decoding.rows])) > 1:
        raise ValueError(f"prompt: expected sequences of one length, got {lengths}.")
    for window in decoding.windows():
        for position in range(window.start, window.stop):
            window.run_until(position + 1)
            yield window.tokens[: decoding.num_sequences, position + 1].numpy()
            if window.finished.numpy().all():
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
    rows, conditioning = pad_rows(sequences, conditioning)
    padded = np.zeros((len(rows), max_length + 1), "int32")
    for row, sequence in zip(padded, rows, strict=True):
        row[: len(sequence)] = sequence

    functions = compiled_functions(model)

    def score(padded, conditioning):
        log_probs, empty_prompt = [], tf.zeros((len(padded), 0), tf.int32)
        state = functions.prefill(empty_prompt, tf.constant(0), max_length, conditioning)
        for position in range(0, longest - 1, block):
            inputs = tf.constant(padded[:, :-1][:, position : position + block])
            targets = tf.constant(padded[:, 1:][:, position : position + block])
            block_log_probs, state = functions.score(inputs, targets, state, tf.constant(position))
            log_probs.append(block_log_probs)
        return tf.concat(log_probs, axis=1)

    log_probs = run_on_replicas(model_strategy(model), score, padded, conditioning)
    token_log_probs = [
        row[: len(sequence) - 1]
        for row, sequence in zip(log_probs.numpy()[: len(sequences)], sequences, strict=True)
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
    """One generation: its options, random numbers and the sequences so far."""

    def __init__(
        self,
        model,
        prompt,
        max_new_tokens,
        sampler,
        seed,
        conditioning,
        stop_token,
        sliding_window,
        allowed_tokens,
    ):
        check_autoregressive_model(model)
        self.model, max_new_tokens = model, check_size("max_new_tokens", max_new_tokens)
        rows = check_tokens("prompt", prompt, model.vocab_size, minimum=1)
        self.num_sequences = len(rows)
        self.rows, self.conditioning = pad_rows(rows, conditioning)
        self.ends = [len(row) + max_new_tokens for row in self.rows]
        check_bools(sliding_window=sliding_window)
        if not sliding_window:
            check_context_length("max_new_tokens", model, max(self.ends))
        elif model.context_length == 1:
            raise ValueError("sliding_window: expected a context length of at least 2, got 1.")
        self.sampler = check_sampler(sampler)
        self.stop_token = check_stop_token(stop_token, num_tokens(model))
        self.fill_token = stop_token
        self.generator = random_generator(seed)
        self.prompt_lengths = [len(row) for row in self.rows]
        self.allowed = check_allowed_tokens(allowed_tokens, max_new_tokens, model)

    def windows(self):
        """Yield each window, which the caller runs, then add its tokens to the sequences."""
        limit = self.model.context_length or max(self.ends)
        finished = tf.zeros(len(self.rows), bool)
        while not all(
            is_finished or len(row) >= end
            for is_finished, row, end in zip(finished.numpy(), self.rows, self.ends, strict=True)
        ):
            contexts = [row if len(row) < limit else row[-(limit // 2) :] for row in self.rows]
            lengths = [len(context) for context in contexts]
            missing = (end - len(row) for row, end in zip(self.rows, self.ends, strict=True))
            longest = max(map(operator.add, lengths, missing))
            num_generated = map(operator.sub, map(len, self.rows), self.prompt_lengths)
            window = _Window(self, contexts, min(longest, limit), finished, list(num_generated))
            yield window
            tokens, finished = window.tokens.numpy()[:, : window.stop + 1], window.finished
            self.rows = [
                np.concatenate([row, new[length:]])
                for row, new, length in zip(self.rows, tokens, lengths, strict=True)
            ]


class _Window:
    """State of the generation of `length` tokens: token buffer, position and the model's state.

    A model on several devices generates a part of the sequences on each.
    """

    def __init__(self, decoding, prompts, length, finished, num_generated):
        self.model, self.sampler = decoding.model, decoding.sampler
        self.stop_token, self.strategy = decoding.stop_token, model_strategy(decoding.model)
        self.prompt_lengths = np.array([len(row) for row in prompts], "int32")
        self.allowed, self.num_generated = decoding.allowed, np.array(num_generated, "int32")
        # From the end of the shortest prompt on.
        self.start, self.stop = int(self.prompt_lengths.min()) - 1, length - 1

        max_length = round_up(length, 64, self.model.context_length)
        tokens = token_buffer((len(prompts), max_length), decoding.fill_token)
        for row, sequence in zip(tokens, prompts, strict=True):
            row[: len(sequence)] = sequence
        num_steps, num_sequences = self.stop - self.start, decoding.num_sequences
        uniform = decoding.generator.random((num_steps, num_sequences), "float32")
        padding = [[0, max_length - num_steps], [0, len(prompts) - num_sequences]]
        self.uniform = np.pad(uniform, padding, "edge")

        self.functions = compiled_functions(self.model)

        def prefill(rows):
            start, tokens_of_rows = tf.constant(self.start), tf.constant(tokens[rows])
            conditioning = take_rows(decoding.conditioning, rows)
            block = prompt_block(tokens_of_rows, self.start)
            state = self.functions.prefill(block, start, max_length, conditioning)
            return start, tokens_of_rows, tf.identity(finished[rows]), state

        self.rows = split_rows(self.strategy, len(prompts))
        self.loop_vars = map_replicas(self.strategy, prefill, self.rows)

    @property
    def tokens(self):
        return join_rows([tokens for _, tokens, _, _ in self.loop_vars])

    @property
    def finished(self):
        return join_rows([finished for _, _, finished, _ in self.loop_vars])

    def run_until(self, stop: int) -> None:
        """Generate the tokens through position `stop`."""

        def decode(rows, loop_vars):
            return self.functions.decode(
                loop_vars,
                tf.constant(stop),
                tf.constant(self.start),
                tf.constant(self.prompt_lengths[rows]),
                tf.constant(self.uniform[:, rows]),
                self.sampler,
                self.stop_token,
                self.allowed,
                tf.constant(self.num_generated[rows]),
            )

        self.loop_vars = map_replicas(self.strategy, decode, self.rows, self.loop_vars)
        if np.any(self.tokens == NAN_TOKEN):
            check_outputs(self.model, np.nan)
