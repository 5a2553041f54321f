"""Sampling, beam search and likelihood for every autoregressive model (article 3, section 5).

All of them are one idea, an exact factorisation without latent variables:

    p(x) = p(x_1) p(x_2 | x_1) … p(x_n | x_1 … x_(n-1))

A model takes part by two attributes, `vocab_size` and `context_length` (the most tokens that it can
take, None for any number), and two methods:

    initial_state(batch_size, max_length, conditioning=None) → state
        What is remembered before the first token: a structure of tensors whose first axis is the
        batch. It has room for max_length tokens, which are never more than context_length.
    step(tokens, state, position, length=None) → (logits, state)
        Read tokens (batch, n), which stand at position, position + 1, … Of their logits (batch, n,
        vocab_size), logits[:, i] are those of the token after tokens[:, i]. If length is given, the
        block is padded, though not beyond max_length: only its first length tokens count.

A prompt is read in one block, what follows token by token, in a loop that is compiled once. Another
prompt length, number of steps or seed does not compile it again: shapes are rounded up to powers of
two, or to what the model can take. All random numbers are drawn before the loop, one a token.

Corrected from the article: it trains autoregressive models and diffusion alike by maximising "the
posterior of data and latent variables". These have no latent variable, and `log_prob` is what is
maximised: the likelihood itself.
"""

import functools
import typing

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_genai.inputs import check_range, check_size


class Sampler(typing.NamedTuple):
    """How the next token is chosen: temperature, then top-k, then top-p, then one draw.

    Attributes:
        temperature: above 0; the logits are divided by it. Below 1 favours what is likely.
        top_k: draw from the k likeliest tokens only (Fan et al. 2018); 1 is greedy. Another k
            compiles the loop anew.
        top_p: draw from the likeliest tokens only, as few as have at least this probability
            together (Holtzman et al. 2020).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None


GREEDY = Sampler(top_k=1)


def sample(logits, uniform, sampler=Sampler()):
    """Draw one token for each row: a uniform number through the inverse of the cumulative sum.

    Args:
        logits: (batch, vocab_size).
        uniform: (batch,) in [0, 1).

    Returns:
        Tokens (batch,), int32.
    """
    if sampler.top_k == 1:
        return ops.cast(ops.argmax(logits, axis=-1), "int32")
    logits = ops.cast(logits, "float32")
    # The largest becomes 0, which no temperature divides to infinity.
    logits = (logits - ops.max(logits, axis=-1, keepdims=True)) / sampler.temperature
    if sampler.top_k is not None:
        logits = keep_top_k(logits, sampler.top_k)
    if sampler.top_p is not None:
        logits = keep_top_p(logits, sampler.top_p)
    probabilities = ops.softmax(logits, axis=-1)
    cumulative = ops.cumsum(probabilities, axis=-1)
    # XLA adds up in a tree: by rounding, the sum may rise where nothing is added.
    cumulative = ops.where(probabilities > 0, cumulative, 0.0)
    # At least one token is reached: no float32 below 1 times the total is rounded up to the total.
    total = ops.max(cumulative, axis=-1, keepdims=True)
    reached = cumulative > uniform[:, None] * total
    return ops.cast(ops.argmax(reached, axis=-1), "int32")


def keep_top_k(logits, k: int):
    """Return logits (batch, vocab_size), all but the k largest of each row at minus infinity.

    All that are equal to the k-th are kept.
    """
    kth = ops.top_k(logits, min(k, logits.shape[-1]))[0][:, -1:]
    return ops.where(logits >= kth, logits, -np.inf)


def keep_top_p(logits, p):
    """Return logits (batch, vocab_size), all but the likeliest of each row at minus infinity.

    Kept are as few as have a probability of at least p together, always one, and all that are equal
    to the last of them.
    """
    descending = -ops.sort(-logits, axis=-1)
    probabilities = ops.softmax(descending, axis=-1)
    before = ops.cumsum(probabilities, axis=-1) - probabilities
    kept = ops.where(before < p, descending, descending[:, :1])
    smallest = ops.min(kept, axis=-1, keepdims=True)
    return ops.where(logits >= smallest, logits, -np.inf)


def generate(
    model, prompt, num_steps, sampler=Sampler(), seed=None, conditioning=None, end_token=None
):
    """Continue sequences token by token.

    Args:
        model: with `initial_state` and `step`, as above.
        prompt: token ids: an array (batch, n), or a list of sequences of any lengths from 1.
        num_steps: how many tokens to add to each.
        sampler: how each is chosen; `GREEDY` always takes the likeliest.
        seed: the same seed draws the same tokens; None draws others each time.
        conditioning: what the model is conditioned on, handed to `initial_state`.
        end_token: a sequence ends with it.

    Returns:
        For an array, an int32 array (batch, n + num_steps), filled with end_token after the first
        one. For a list, a list of int32 arrays (n_i + num_steps,) or shorter, the end token last.

    Raises:
        ValueError: for an empty prompt, for ids outside the vocabulary, for more tokens than the
            model can take, and for a setting of the sampler that is out of range.
    """
    run = _Run(model, prompt, num_steps, sampler, seed, conditioning, end_token)
    run.advance(run.stop)
    tokens = run.tokens.numpy()
    if not isinstance(prompt, (list, tuple)):
        return tokens[:, : run.stop + 1]
    return [
        until_end(row[: length + num_steps], length, end_token)
        for row, length in zip(tokens, run.lengths)
    ]


def stream(
    model, prompt, num_steps, sampler=Sampler(), seed=None, conditioning=None, end_token=None
):
    """Yield the tokens (batch,) that `generate` adds, each as soon as it is drawn.

    Arguments and errors are those of `generate`; the prompts must have one length. Ends when every
    sequence has ended.
    """
    run = _Run(model, prompt, num_steps, sampler, seed, conditioning, end_token)
    if len(set(run.lengths)) > 1:
        raise ValueError(f"prompt: expected sequences of one length, got {list(run.lengths)}.")
    for position in range(run.start, run.stop):
        run.advance(position + 1)
        yield run.tokens[:, position + 1].numpy()
        if run.finished.numpy().all():
            return


class _Run:
    """Sequences that are being continued: how far they are, and what the model remembers."""

    def __init__(self, model, prompt, num_steps, sampler, seed, conditioning, end_token):
        num_steps = check_size("num_steps", num_steps)
        prompts = check_tokens("prompt", prompt, model.vocab_size, minimum=1)
        self.lengths = np.array([len(row) for row in prompts], "int32")
        # Row by row, num_steps after its prompt; the loop ends with the longest one.
        self.start, self.stop = int(self.lengths.min()) - 1, int(self.lengths.max()) + num_steps - 1
        _check_length("num_steps", model, self.stop + 1)
        self.sampler = _check_sampler(sampler)
        self.end_token = _check_end(end_token, model.vocab_size)

        capacity = _round_up(self.stop + 1, 64, model.context_length)
        tokens = _filled((len(prompts), capacity), end_token)
        for row, sequence in zip(tokens, prompts):
            row[: len(sequence)] = sequence
        uniform = np.zeros((capacity, len(prompts)), "float32")
        drawn = np.random.default_rng(seed).random(
            (self.stop - self.start, len(prompts)), "float32"
        )
        uniform[: len(drawn)] = drawn
        self.tokens, self.uniform = tf.constant(tokens), tf.constant(uniform)
        self.finished = tf.zeros(len(prompts), bool)

        self.compiled = _compile(model)
        self.position = tf.constant(self.start)
        block, conditioning = _block(self.tokens, self.start), _tensors(conditioning)
        self.state = self.compiled.prime(block, self.position, capacity, conditioning)

    def advance(self, stop: int) -> None:
        """Draw the tokens up to and with position `stop`."""
        self.position, self.tokens, self.finished, self.state = self.compiled.extend(
            (self.position, self.tokens, self.finished, self.state),
            tf.constant(stop),
            tf.constant(self.start),
            tf.constant(self.lengths),
            self.uniform,
            self.sampler,
            self.end_token,
        )


class _Compiled:
    """The compiled functions of one model, and the variables that they were made for."""

    def __init__(self, model):
        self.variables = [id(variable) for variable in model.variables]

        # A partial each: TensorFlow counts traces by code, and would warn after five models.
        self.prime, self.extend, self.score, self.search = (
            tf.function(functools.partial(function, model), jit_compile=True)
            for function in (_prime, _extend, _score, _search)
        )


def _prime(model, tokens, length, max_length, conditioning):
    """Return the state after a block of tokens (batch, n), padded from `length` on."""
    state = model.initial_state(tokens.shape[0], max_length, conditioning)
    if tokens.shape[1] > 0:
        _, state = model.step(tokens, state, tf.constant(0), length)
    return state


def _extend(model, loop, stop, start, lengths, uniform, sampler, end_token):
    """Read prompts to their ends, and draw from there on, until `stop` or until all have ended."""

    def goes_on(position, tokens, finished, state):
        return (position < stop) & ~ops.all(finished)

    def advance(position, tokens, finished, state):
        token = ops.slice(tokens, [0, position], [tokens.shape[0], 1])
        logits, state = model.step(token, state, position)
        drawn = sample(logits[:, 0], ops.take(uniform, position - start, axis=0), sampler)
        drawn = ops.where(finished, end_token, drawn)
        given = ops.slice(tokens, [0, position + 1], [tokens.shape[0], 1])[:, 0]
        in_prompt = position + 1 < lengths
        token = ops.where(in_prompt, given, drawn)
        tokens = ops.slice_update(tokens, [0, position + 1], token[:, None])
        finished = finished | (~in_prompt & (token == end_token))
        return position + 1, tokens, finished, state

    return tf.while_loop(goes_on, advance, loop)


def _score(model, tokens, targets, state, position):
    """Return the log-likelihood of each target (batch, n) after its token, and the new state."""
    logits, state = model.step(tokens, state, position)
    log_probs = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    return ops.take_along_axis(log_probs, targets[..., None], axis=-1)[..., 0], state


def _search(model, loop, stop, end_token, length_penalty):
    """Go on with the best beams, until `stop` or until all have ended."""

    def goes_on(position, tokens, scores, finished, added, state):
        return (position < stop) & ~ops.all(finished)

    def advance(position, tokens, scores, finished, added, state):
        batch, beams = scores.shape
        token = ops.slice(tokens, [0, position], [batch * beams, 1])
        logits, state = model.step(token, state, position)
        log_probs = ops.log_softmax(ops.cast(logits[:, 0], "float32"), axis=-1)
        vocab_size = log_probs.shape[-1]
        log_probs = ops.reshape(log_probs, (batch, beams, vocab_size))
        # A finished sequence goes on in one way only, which costs nothing.
        stays = ops.where(ops.arange(vocab_size) == end_token, 0.0, -np.inf)
        log_probs = ops.where(finished[..., None], stays, log_probs)
        added = added + ops.cast(~finished, "int32")
        candidates = scores[..., None] + log_probs
        ranks = candidates / _length_penalty(added, length_penalty)[..., None]
        _, best = ops.top_k(ops.reshape(ranks, (batch, beams * vocab_size)), beams)

        parents, token = best // vocab_size, best % vocab_size
        candidates = ops.reshape(candidates, (batch, beams * vocab_size))
        scores = ops.take_along_axis(candidates, best, axis=1)
        finished = ops.take_along_axis(finished, parents, axis=1) | (token == end_token)
        added = ops.take_along_axis(added, parents, axis=1)
        rows = ops.reshape(parents + beams * ops.arange(batch)[:, None], (-1,))
        tokens, state = keras.tree.map_structure(
            lambda tensor: ops.take(tensor, rows, axis=0), (tokens, state)
        )
        token = ops.reshape(token, (-1, 1))
        tokens = ops.slice_update(tokens, [0, position + 1], token)
        return position + 1, tokens, scores, finished, added, state

    return tf.while_loop(goes_on, advance, loop)


def _compile(model) -> _Compiled:
    """Return the compiled functions of the model, made anew if its variables are others now."""
    compiled = getattr(model, "_autoregressive", None)
    if compiled is None or compiled.variables != [id(variable) for variable in model.variables]:
        compiled = model._autoregressive = _Compiled(model)
    return compiled


def until_end(tokens, start: int, end_token) -> np.ndarray:
    """Return tokens (n,) up to and with the first end token from `start` on, or all of them."""
    ends = start + np.flatnonzero(tokens[start:] == end_token)
    return tokens[: ends[0] + 1] if len(ends) else tokens


def beam_search(
    model,
    prompt,
    num_steps,
    beam_width=4,
    length_penalty=0.0,
    conditioning=None,
    end_token=None,
):
    """Search for the likeliest continuations, the best `beam_width` prefixes at a time.

    Args:
        model, prompt, num_steps, conditioning, end_token: as `generate` takes them; all prompts
            have one length.
        beam_width: how many sequences are kept, and returned, for each prompt.
        length_penalty: alpha of Wu et al. 2016, equation 14: sequences are ranked by
            log p / ((5 + length) / 6)^alpha. 0 ranks by log p, which favours short ones.

    Returns:
        (tokens, scores): int32 (batch, beam_width, n + num_steps), the best first, filled with
        end_token after the first one; and what they are ranked by (batch, beam_width), in nats,
        minus infinity if there are fewer sequences than beam_width.

    Raises:
        ValueError: as `generate`, and for prompts of different lengths.
    """
    num_steps = check_size("num_steps", num_steps)
    beam_width = check_size("beam_width", beam_width)
    prompts = check_tokens("prompt", prompt, model.vocab_size, minimum=1)
    lengths = {len(row) for row in prompts}
    if len(lengths) > 1:
        raise ValueError(f"prompt: expected sequences of one length, got {sorted(lengths)}.")
    batch, length = len(prompts), lengths.pop()
    end = _check_end(end_token, model.vocab_size)
    _check_length("num_steps", model, length + num_steps)

    capacity = _round_up(length + num_steps, 64, model.context_length)
    tokens = _filled((batch * beam_width, capacity), end_token)
    tokens[:, :length] = np.repeat(np.stack(prompts), beam_width, axis=0)
    tokens = tf.constant(tokens)
    conditioning = _tensors(conditioning, beam_width)
    compiled, start = _compile(model), length - 1
    state = compiled.prime(_block(tokens, start), tf.constant(start), capacity, conditioning)
    # The beams begin alike: all but one of them are ruled out, so that they part at the first step.
    scores = np.full((batch, beam_width), -np.inf, "float32")
    scores[:, 0] = 0.0
    _, tokens, scores, _, added, _ = compiled.search(
        (
            tf.constant(start),
            tokens,
            tf.constant(scores),
            tf.zeros((batch, beam_width), bool),
            tf.zeros((batch, beam_width), tf.int32),
            state,
        ),
        tf.constant(start + num_steps),
        end,
        tf.constant(length_penalty, tf.float32),
    )
    tokens = tokens.numpy().reshape(batch, beam_width, capacity)[..., : length + num_steps]
    return tokens, (scores / _length_penalty(added, length_penalty)).numpy()


def _length_penalty(length, alpha):
    return ((5.0 + ops.cast(length, "float32")) / 6.0) ** alpha


def log_prob(model, tokens, conditioning=None):
    """Return the log-likelihood of whole sequences, each token given all before it.

    Args:
        model: with `initial_state` and `step`, as above.
        tokens: token ids: an array (batch, n), or a list of sequences of any lengths from 2.
        conditioning: what the model is conditioned on, handed to `initial_state`.

    Returns:
        (sequences, tokens), in nats: log p(x_2 … x_n | x_1) of each sequence (batch,), and the part
        of each token from the second on: (batch, n - 1) for an array, for a list a list of arrays.

    Raises:
        ValueError: for sequences of fewer than 2 tokens, for ids outside the vocabulary, and for
            more tokens than the model can take.
    """
    sequences = check_tokens("tokens", tokens, model.vocab_size, minimum=2)
    longest = max(len(row) for row in sequences)
    _check_length("tokens", model, longest)
    block = min(_round_up(longest - 1, 16), 512)
    capacity = _round_up(longest - 1, 64, model.context_length)
    padded = np.zeros((len(sequences), capacity + 1), "int32")
    for row, sequence in zip(padded, sequences):
        row[: len(sequence)] = sequence

    compiled, nats = _compile(model), []
    conditioning = _tensors(conditioning)
    empty = tf.zeros((len(sequences), 0), tf.int32)
    state = compiled.prime(empty, tf.constant(0), capacity, conditioning)
    for position in range(0, longest - 1, block):
        inputs, targets = (
            tf.constant(part[:, position : position + block])
            for part in (padded[:, :-1], padded[:, 1:])
        )
        scores, state = compiled.score(inputs, targets, state, tf.constant(position))
        nats.append(scores.numpy())
    nats = [row[: len(sequence) - 1] for row, sequence in zip(np.hstack(nats), sequences)]
    sums = np.array([row.sum(dtype="float64") for row in nats])
    return sums, nats if isinstance(tokens, (list, tuple)) else np.stack(nats)


def _block(tokens, length: int):
    """Return the beginning of tokens (batch, capacity) that is read at once, padded."""
    return tokens[:, : _round_up(length, 16) if length > 0 else 0]


def _filled(shape, end_token) -> np.ndarray:
    """Return room for tokens, filled with what ends a sequence: the loop stops when all have."""
    return np.full(shape, 0 if end_token is None else end_token, "int32")


def _tensors(conditioning, repeats=1):
    """Return the conditioning as tensors, each row of them as often as it is needed."""
    if conditioning is None:
        return None
    return keras.tree.map_structure(lambda x: tf.repeat(x, repeats, axis=0), conditioning)


def _round_up(length: int, smallest: int, largest: int | None = None) -> int:
    """Return the power of two from `smallest` on that is at least `length`, or else `largest`."""
    rounded = max(smallest, 1 << (length - 1).bit_length())
    return rounded if largest is None else min(rounded, largest)


def check_tokens(name: str, tokens, vocab_size: int, minimum: int) -> list[np.ndarray]:
    """Return a list of int32 arrays; raise ValueError unless they are tokens of the vocabulary."""
    if not isinstance(tokens, (list, tuple)):
        tokens = np.asarray(tokens)
        if tokens.ndim != 2:
            raise ValueError(
                f"{name}: expected an array (batch, n) or a list of sequences, "
                f"got shape {tokens.shape}."
            )
    sequences = [np.asarray(row) for row in tokens]
    if not sequences:
        raise ValueError(f"{name}: expected at least one sequence, got none.")
    for row in sequences:
        if row.ndim != 1 or len(row) < minimum:
            raise ValueError(
                f"{name}: expected sequences of at least {minimum} token ids, "
                f"got shape {row.shape}."
            )
    check_range(name, np.concatenate(sequences), vocab_size, "token ids")
    return [row.astype("int32") for row in sequences]


def _check_end(end_token, vocab_size: int):
    """Return the end token as a tensor, -1 for none."""
    if end_token is None:
        return tf.constant(-1)
    check_tokens("end_token", [[end_token]], vocab_size, minimum=1)
    return tf.constant(end_token, tf.int32)


def _check_length(name: str, model, length: int) -> None:
    if model.context_length is not None and length > model.context_length:
        raise ValueError(
            f"{name}: expected at most {model.context_length} tokens, prompt included, as many as "
            f"the model can take, got {length}."
        )


def _check_sampler(sampler: Sampler) -> Sampler:
    """Return the sampler with tensors for temperature and top_p: others compile nothing anew."""
    if not isinstance(sampler, Sampler):
        raise ValueError(f"sampler: expected a Sampler, as Sampler(0.7), got {sampler!r}.")
    temperature, top_k, top_p = sampler
    if not temperature > 0:
        raise ValueError(
            f"temperature: expected a number above 0, got {temperature!r}; GREEDY always takes "
            "the likeliest token."
        )
    if top_k is not None:
        top_k = check_size("top_k", top_k)
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p: expected a number above 0 and up to 1, got {top_p!r}.")
    return Sampler(
        # XLA takes what is closer to 0 than float32's smallest normal number for 0.
        tf.constant(max(temperature, np.finfo("float32").tiny), tf.float32),
        top_k,
        None if top_p is None else tf.constant(top_p, tf.float32),
    )
