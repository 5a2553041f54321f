"""The sampling engine: against naive loops, closed forms and enumeration."""

import itertools
import logging
import math
from functools import partial

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_genai import autoregressive
from keras_genai.autoregressive import GREEDY, Sampler, beam_search, generate, log_prob, stream
from keras_genai.rnn import CELLS, build_language_model

SAMPLERS = [GREEDY, Sampler(0.7), Sampler(1.3, 5, 0.8)]


class Bigrams:
    """A model of known probabilities: each token depends on the one before it alone."""

    context_length = None
    variables = ()

    def __init__(self, probabilities):
        self.vocab_size = len(probabilities)
        with np.errstate(divide="ignore"):
            self.logits = tf.constant(np.log(probabilities), tf.float32)

    def initial_state(self, batch_size, max_length, conditioning=None):
        return tf.zeros((batch_size, 0))

    def step(self, tokens, state, position, length=None):
        return tf.gather(self.logits, tokens), state


class Positional:
    """A model that depends on the place and the order of all tokens, and on what it is told.

    The logits at i are the sum over j <= i of embedding[token_j] * places[j], and `conditioning`.
    As a Transformer's, its table of places is finite, and it remembers a row for each token.
    """

    variables, vocab_size, context_length = (), 9, 600

    def __init__(self):
        rng = np.random.default_rng(0)
        self.embedding, self.places = (
            rng.normal(scale=scale, size=(size, 9)).astype("float32")
            for scale, size in ((1.0, 9), (0.2, 600))
        )

    def __call__(self, tokens, conditioning):
        rows = self.embedding[tokens] * self.places[: tokens.shape[1]]
        return np.cumsum(rows, axis=1, dtype="float64") + conditioning[:, None]

    def initial_state(self, batch_size, max_length, conditioning):
        assert max_length <= self.context_length
        return {"told": conditioning, "rows": tf.zeros((batch_size, max_length, 9))}

    def step(self, tokens, state, position, length=None):
        n = tokens.shape[1]
        rows = tf.gather(self.embedding, tokens) * tf.slice(self.places, [position, 0], [n, 9])
        rows = ops.slice_update(state["rows"], [0, position, 0], rows)
        seen = tf.range(rows.shape[1]) <= position + tf.range(n)[:, None]  # (n, max_length)
        logits = tf.einsum("nm,bmv->bnv", tf.cast(seen, "float32"), rows)
        return logits + state["told"][:, None], {**state, "rows": rows}


def told(batch_size):
    return np.random.default_rng(1).normal(scale=2, size=(batch_size, 9)).astype("float32")


def random_bigrams(vocab_size=4):
    return Bigrams(np.random.default_rng(0).dirichlet(np.ones(vocab_size), vocab_size))


def language_model(cell="lstm", num_layers=2):
    model = build_language_model(9, cell, embed_dim=6, units=8, num_layers=num_layers)
    model.head.set_weights([5 * w for w in model.head.get_weights()])  # some tokens are likelier
    return model


def naive(model, prompts, num_steps, sampler, seed):
    """Run the whole model again for each token, without a state."""
    lengths = [len(prompt) for prompt in prompts]
    drawn = max(lengths) - min(lengths) + num_steps
    uniform = np.random.default_rng(seed).random((drawn, len(prompts)), "float32")
    rows = [list(prompt[: min(lengths)]) for prompt in prompts]
    for numbers in uniform:
        logits = np.asarray(model(np.array(rows)))[:, -1]
        tokens = np.asarray(autoregressive.sample(logits, numbers, sampler))
        for row, prompt, token in zip(rows, prompts, tokens):
            row.append(int(prompt[len(row)] if len(row) < len(prompt) else token))
    return [row[: length + num_steps] for row, length in zip(rows, lengths)]


# generate.


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("cell", CELLS)
def test_cached_sampling_draws_what_naive_sampling_draws(cell, sampler):
    model = language_model(cell)
    prompts = [[1, 2, 3], [4], [5, 6, 7, 8, 0, 1, 2]]
    found = generate(model, prompts, 20, sampler, seed=1)
    assert [row.tolist() for row in found] == naive(model, prompts, 20, sampler, seed=1)


def test_a_prompt_of_many_blocks_is_continued_as_naively():
    model = language_model()
    prompt = np.random.default_rng(0).integers(9, size=(2, 150))
    found = generate(model, prompt, 5, seed=1)
    assert found.shape == (2, 155) and found.dtype == "int32"
    assert found.tolist() == naive(model, prompt.tolist(), 5, Sampler(), seed=1)


@pytest.mark.parametrize("cell", CELLS)
def test_a_block_is_read_as_its_tokens_one_by_one(cell):
    model = language_model(cell)
    tokens = np.random.default_rng(0).integers(9, size=(2, 7)).astype("int32")
    state, single = model.initial_state(2, 16), []
    for position in range(7):
        logits, state = model.step(tokens[:, position : position + 1], state, position)
        single.append(logits)
    padded = np.concatenate([tokens, np.full((2, 9), 8, "int32")], axis=1)
    block, block_state = model.step(padded, model.initial_state(2, 16), 0, length=7)
    np.testing.assert_allclose(block[:, :7], np.concatenate(single, axis=1), atol=1e-5)
    np.testing.assert_allclose(np.asarray(model(tokens)), block[:, :7], atol=1e-5)
    for one, other in zip(tf.nest.flatten(state), tf.nest.flatten(block_state), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("lengths, num_steps", [((3, 20), 30), ((590, 570), 10)])
def test_places_and_conditioning_are_seen_as_naively_up_to_the_last_place(lengths, num_steps):
    model, conditioning = Positional(), told(2)
    rng = np.random.default_rng(2)
    prompts = [rng.integers(9, size=length).tolist() for length in lengths]
    found = generate(model, prompts, num_steps, seed=1, conditioning=conditioning)
    whole = partial(model, conditioning=conditioning)
    assert [row.tolist() for row in found] == naive(whole, prompts, num_steps, Sampler(), seed=1)
    assert max(len(row) for row in found) in (50, model.context_length)


def test_another_prompt_length_number_of_steps_or_seed_compiles_nothing_anew():
    model = language_model()
    generate(model, [[1, 2, 3]], 10, Sampler(0.9, top_p=0.5), seed=0)
    compiled = model._autoregressive
    for prompt, steps, sampler in (
        ([1, 2], 40, Sampler(0.9, top_p=0.5)),
        (range(9), 33, Sampler(0.5, top_p=0.9)),
        ([3] * 17, 47, Sampler(2.0, top_p=0.1)),
    ):
        generate(model, [list(prompt)], steps, sampler, seed=steps)
    assert model._autoregressive is compiled
    assert compiled.prime.experimental_get_tracing_count() == 1
    assert compiled.extend.experimental_get_tracing_count() == 1
    generate(model, [[1]], 10, Sampler(0.9, top_p=0.5))  # nothing to read before the loop
    assert compiled.prime.experimental_get_tracing_count() == 2
    assert compiled.extend.experimental_get_tracing_count() == 1


def test_many_models_in_one_program_are_no_reason_to_warn(monkeypatch):
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    monkeypatch.setattr(tf.get_logger(), "handlers", [handler])
    for _ in range(6):
        model = random_bigrams()
        generate(model, [[1]], 3)
        log_prob(model, [[1, 2, 3]])
        beam_search(model, [[1]], 3)
    assert not [record.getMessage() for record in records]


def test_trained_and_added_weights_are_seen():
    model = language_model()
    prompt = np.zeros((1, 3), "int32")
    before = generate(model, prompt, 12, seed=0)
    model.set_weights([2 * w for w in model.get_weights()])
    after = generate(model, prompt, 12, seed=0)
    assert after.tolist() == naive(model, prompt.tolist(), 12, Sampler(), 0) != before.tolist()
    # With variables that what was compiled before does not know.
    model.head.enable_lora(2)
    model.head.lora_kernel_b.assign(np.random.default_rng(0).normal(scale=9, size=(2, 9)))
    tuned = generate(model, prompt, 12, seed=0)
    assert tuned.tolist() == naive(model, prompt.tolist(), 12, Sampler(), 0) != after.tolist()


def test_a_seed_repeats_and_none_does_not():
    model, prompt = random_bigrams(), np.zeros((1, 1), "int32")
    first, second, other = (generate(model, prompt, 60, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, second) and not np.array_equal(first, other)
    assert not np.array_equal(generate(model, prompt, 60), generate(model, prompt, 60))


def test_a_sequence_ends_with_its_end_token():
    # 0 → 1 → 2 → 3 → 0 …, with certainty.
    model = Bigrams(np.roll(np.eye(4), 1, axis=1))
    rows = generate(model, [[0], [3, 1], [2]], 4, end_token=3)
    assert [row.tolist() for row in rows] == [[0, 1, 2, 3], [3, 1, 2, 3], [2, 3]]
    # What stands in the prompt ends nothing, even where another row is being continued.
    rows = generate(model, [[0], [1, 3, 0, 1]], 4, end_token=3)
    assert [row.tolist() for row in rows] == [[0, 1, 2, 3], [1, 3, 0, 1, 2, 3]]
    tokens, _ = beam_search(model, np.array([[3, 1]]), 9, beam_width=1, end_token=3)
    assert tokens.tolist() == [[[3, 1, 2, *[3] * 8]]]  # filled, though the loop stopped
    array = generate(model, np.array([[0], [1], [3]]), 4, end_token=3)
    assert array.tolist() == [[0, 1, 2, 3, 3], [1, 2, 3, 3, 3], [3, 0, 1, 2, 3]]
    assert generate(model, np.array([[0]]), 4).tolist() == [[0, 1, 2, 3, 0]]
    # All have ended: the loop stops before its last step.
    run = autoregressive._Run(model, [[0]], 50, Sampler(), None, None, 3)
    run.advance(run.stop)
    assert int(run.position) == 3


def test_stream_yields_what_generate_adds():
    model, prompt = language_model(), np.array([[1, 2], [3, 4]])
    pieces = list(stream(model, prompt, 12, Sampler(0.8), seed=3))
    whole = generate(model, prompt, 12, Sampler(0.8), seed=3)
    np.testing.assert_array_equal(np.stack(pieces, axis=1), whole[:, 2:])
    chain = Bigrams(np.roll(np.eye(4), 1, axis=1))
    assert [int(token[0]) for token in stream(chain, [[0]], 9, end_token=2)] == [1, 2]
    both = [token.tolist() for token in stream(chain, [[0], [1]], 9, end_token=2)]
    assert both == [[1, 2], [2, 2]]  # one has ended before the other


# Samplers.


def chi_square_bound(degrees: int) -> float:
    """A bound that chi-square with so many degrees passes once in a million times.

    P(X >= k + 2 sqrt(k t) + 2 t) <= exp(-t) (Laurent & Massart 2000, lemma 1).
    """
    t = math.log(1e6)
    return degrees + 2 * math.sqrt(degrees * t) + 2 * t


def softmax(logits):
    exponentials = np.exp(logits - np.max(logits))
    return exponentials / exponentials.sum()


def chi_square(counts, probabilities):
    expected = probabilities * counts.sum()
    return np.sum((counts - expected) ** 2 / expected)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_sampled_frequencies_are_the_softmax(temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=50).astype("float32")
    uniform = rng.random(100_000, "float32")
    rows = np.broadcast_to(logits, (len(uniform), 50))
    tokens = np.asarray(autoregressive.sample(rows, uniform, Sampler(temperature)))
    counts = np.bincount(tokens, minlength=50)
    assert chi_square(counts, softmax(logits / temperature)) < chi_square_bound(49)


def test_generated_frequencies_are_the_models():
    model = random_bigrams()
    tokens = generate(model, np.zeros((50, 1), "int32"), 400, seed=0)
    for token, probabilities in enumerate(softmax(row) for row in model.logits.numpy()):
        following = tokens[:, 1:][tokens[:, :-1] == token]
        counts = np.bincount(following, minlength=4)
        assert chi_square(counts, probabilities) < chi_square_bound(3)


def test_greedy_takes_the_likeliest():
    logits = np.random.default_rng(0).normal(size=(100, 30)).astype("float32")
    tokens = autoregressive.sample(logits, np.zeros(100, "float32"), GREEDY)
    np.testing.assert_array_equal(tokens, logits.argmax(axis=1))


def likeliest(logits, k=None, p=None) -> list[set]:
    """The sets that top-k or top-p may draw from, row by row in NumPy."""
    sets = []
    for row in logits.astype("float64"):
        order = np.argsort(-row)
        cumulative = np.cumsum(softmax(row)[order])
        count = k or 1 + np.count_nonzero(cumulative < p)
        sets.append(set(order[:count].tolist()))
    return sets


@pytest.mark.parametrize("k, p", [(1, None), (3, None), (30, None), (99, None)] + [
    (None, p) for p in (0.001, 0.3, 0.9, 1.0)
])  # fmt: skip
def test_top_k_and_top_p_never_leave_their_set_and_reach_all_of_it(k, p):
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2, size=(20, 30)).astype("float32")
    allowed = likeliest(logits, k, p)
    # The ends of the interval too: 0 and the largest float32 below 1.
    uniform = np.concatenate([[0, 1 - 2**-24], np.linspace(0, 1, 5000, endpoint=False)])
    for row, expected in zip(logits, allowed):
        rows = np.broadcast_to(row, (len(uniform), 30))
        drawn = autoregressive.sample(rows, uniform.astype("float32"), Sampler(1.0, k, p))
        drawn = set(np.asarray(drawn).tolist())
        assert drawn <= expected
        seen_often = {i for i in expected if softmax(row)[i] > 1e-3}
        assert drawn >= seen_often


@pytest.mark.parametrize("setting", [1e-30, 1e-38, 1e-45])
def test_a_tiny_temperature_or_top_p_takes_the_likeliest(setting):
    model = Bigrams(np.array([[0.2, 0.5, 0.3]] * 3))
    for sampler in (Sampler(setting), Sampler(top_p=setting)):
        assert generate(model, [[0]], 5, sampler, seed=0)[0].tolist() == [0, 1, 1, 1, 1, 1]


def test_samplers_compose_temperature_then_top_k_then_top_p():
    # At temperature 2, [4, 2, 0, -2] has 0.64, 0.24, 0.09, 0.03; of the first three, 0.66 and 0.24
    # make up 0.9 together.
    logits = np.broadcast_to(np.array([4, 2, 0, -2], "float32"), (1000, 4))
    uniform = np.linspace(0, 1, 1000, endpoint=False, dtype="float32")
    drawn = np.asarray(autoregressive.sample(logits, uniform, Sampler(2.0, 3, 0.9)))
    kept = softmax(np.array([2.0, 1.0]))
    np.testing.assert_allclose(np.bincount(drawn, minlength=4), [*(1000 * kept), 0, 0], atol=1)


@pytest.mark.parametrize("vocab_size", [2, 9, 300, 50_257])
def test_a_token_of_probability_zero_is_never_drawn(vocab_size):
    # Asked for the end of a sum that is not quite 1, and that may rise where nothing is added: of
    # 50,257 terms, XLA's does.
    logits = np.random.default_rng(0).normal(size=(8, vocab_size)).astype("float32")
    ends = -(-vocab_size * np.arange(1, 9) // 8)
    for row, end in zip(logits, ends):
        row[end:] = -np.inf
    uniform = np.full(8, 1 - 2**-24, "float32")
    for jit_compile in (False, True):
        sample = tf.function(autoregressive.sample, jit_compile=jit_compile)
        drawn = sample(logits, uniform, Sampler()).numpy()
        assert np.all(drawn < ends) and np.all(drawn >= ends - 1 - vocab_size // 1000)


def test_no_number_below_1_times_a_total_is_rounded_up_to_it():
    # Every total of one binade, which stands for all others: `sample` relies on it.
    total = np.arange(2**23, 2**24).astype("float32")
    assert np.all(total * np.float32(1 - 2**-24) < total)


# beam_search.


def enumerate_sequences(model, start, num_steps, end_token, alpha):
    """Every continuation with its score, the best first."""
    log_probs = model.logits.numpy().astype("float64")
    found = []

    def extend(sequence, score):
        added = len(sequence) - 1
        if added == num_steps or (added > 0 and sequence[-1] == end_token):
            found.append((score / ((5 + added) / 6) ** alpha, sequence))
            return
        for token in range(model.vocab_size):
            extend([*sequence, token], score + log_probs[sequence[-1], token])

    extend([start], 0.0)
    return sorted(found, reverse=True)


@pytest.mark.parametrize("end_token, alpha", [*itertools.product([None, 3], [0.0, 0.6, 2.0])])
def test_a_wide_beam_finds_what_enumeration_finds(end_token, alpha):
    model = random_bigrams()
    width = 4**4
    expected = enumerate_sequences(model, 0, 4, end_token, alpha)
    tokens, scores = beam_search(model, np.array([[0], [2]]), 4, width, alpha, end_token=end_token)
    # As sets, since a sequence may have the probability of another one.
    by_sequence = {(*row, *[end_token] * (5 - len(row))): score for score, row in expected}
    found = dict(zip(map(tuple, tokens[0, : len(expected)].tolist()), scores[0]))
    assert {row: found[row] for row in by_sequence} == pytest.approx(by_sequence, abs=1e-5)
    assert np.all(np.diff(scores[0, : len(expected)]) <= 0)
    assert np.all(scores[0, len(expected) :] == -np.inf)
    best = enumerate_sequences(model, 2, 4, end_token, alpha)[0]
    assert scores[1, 0] == pytest.approx(best[0], abs=1e-5)


def test_a_narrow_beam_keeps_the_state_of_its_sequences():
    model = language_model()
    prompt = np.array([[1, 2, 3], [4, 5, 6]])
    tokens, scores = beam_search(model, prompt, 10, beam_width=3)
    assert tokens.shape == (2, 3, 13) and np.all(np.diff(scores, axis=1) <= 0)
    for row in range(2):
        assert len({tuple(beam) for beam in tokens[row].tolist()}) == 3
        _, nats = log_prob(model, tokens[row])
        np.testing.assert_allclose(scores[row], nats[:, 2:].sum(axis=1), atol=1e-4)
    greedy = generate(model, prompt, 10, GREEDY)
    one, _ = beam_search(model, prompt, 10, beam_width=1)
    np.testing.assert_array_equal(one[:, 0], greedy)


@pytest.mark.parametrize("length", [5, 590])
def test_beams_keep_the_places_and_the_conditioning_of_their_prompt(length):
    model, conditioning = Positional(), told(2)
    prompt = np.random.default_rng(2).integers(9, size=(2, length))
    tokens, scores = beam_search(model, prompt, 10, beam_width=4, conditioning=conditioning)
    rows = tokens.reshape(8, length + 10)
    expected = log_probs(model(rows[:, :-1], np.repeat(conditioning, 4, axis=0)), rows)
    np.testing.assert_allclose(scores.ravel(), expected[:, length - 1 :].sum(axis=1), atol=1e-3)
    greedy = generate(model, prompt, 10, GREEDY, conditioning=conditioning)
    one, _ = beam_search(model, prompt, 10, beam_width=1, conditioning=conditioning)
    np.testing.assert_array_equal(one[:, 0], greedy)


# log_prob.


def log_probs(logits, tokens):
    """The part of each token from the second on, by the logits (batch, n - 1, vocab_size)."""
    logits = np.asarray(logits, "float64")
    normalized = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return np.take_along_axis(normalized, tokens[:, 1:, None], axis=-1)[..., 0]


@pytest.mark.parametrize("length", [40, 600])
def test_log_prob_sees_places_and_conditioning_in_every_block(length):
    model, conditioning = Positional(), told(2)
    tokens = np.random.default_rng(2).integers(9, size=(2, length))
    _, nats = log_prob(model, tokens, conditioning)
    np.testing.assert_allclose(
        nats, log_probs(model(tokens[:, :-1], conditioning), tokens), atol=1e-3
    )


def test_log_prob_against_numpy_and_in_blocks():
    model = language_model()
    tokens = np.random.default_rng(0).integers(9, size=(2, 1100))
    expected = log_probs(model(tokens[:, :-1]), tokens)
    sums, nats = log_prob(model, tokens)
    np.testing.assert_allclose(nats, expected, atol=1e-4)
    np.testing.assert_allclose(sums, expected.sum(axis=1), rtol=1e-5)
    sums, nats = log_prob(model, [tokens[0, :600], tokens[1, :3]])
    assert [len(row) for row in nats] == [599, 2]
    np.testing.assert_allclose(nats[0], expected[0, :599], atol=1e-4)
    np.testing.assert_allclose(sums[1], expected[1, :2].sum(), atol=1e-4)


def test_probabilities_of_all_sequences_sum_to_one():
    model = random_bigrams(3)
    tokens = np.array([[0, *rest] for rest in itertools.product(range(3), repeat=4)])
    assert np.exp(log_prob(model, tokens)[0]).sum() == pytest.approx(1, abs=1e-5)


# What is remembered, and bad input.


@pytest.mark.parametrize("cell, states", [("simple_rnn", 1), ("gru", 1), ("lstm", 2)])
def test_memory_of_the_state_does_not_grow_with_the_length(cell, states):
    model = language_model(cell, num_layers=3)
    for max_length in (10, 10_000):
        state = model.initial_state(5, max_length)
        numbers = sum(np.size(part) for part in tf.nest.flatten(state))
        assert numbers == states * 3 * 5 * 8


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(prompt=[]), "prompt: expected at least one sequence"),
        (dict(prompt=[[1], []]), r"prompt: expected sequences of at least 1 token ids, got .*\(0,"),
        (dict(prompt=np.zeros(3, int)), r"prompt: expected an array \(batch, n\) or a list"),
        (dict(prompt=[[0, 4]]), "prompt: expected token ids from 0 to 3, got values from 0 to 4"),
        (dict(prompt=[[-1]]), "prompt: expected token ids from 0 to 3, got values from -1"),
        (dict(prompt=[[0.5]]), "prompt: expected token ids, got an array of float64"),
        (dict(end_token=4), "end_token: expected token ids from 0 to 3, got values from 4 to 4"),
        (dict(num_steps=0), "num_steps: expected a whole number of at least 1, got 0"),
        (dict(num_steps=20), "num_steps: expected at most 16 tokens, prompt included.* got 21"),
        (dict(sampler=0.7), "sampler: expected a Sampler, as Sampler.* got 0.7"),
        (dict(sampler=Sampler(0)), "temperature: expected a number above 0, got 0; GREEDY"),
        (dict(sampler=Sampler(top_k=0)), "top_k: expected a whole number of at least 1"),
        (dict(sampler=Sampler(top_p=1.5)), "top_p: expected a number above 0 and up to 1"),
    ],
)
def test_bad_input(arguments, message):
    model = random_bigrams()
    model.context_length = 16
    with pytest.raises(ValueError, match=message):
        generate(model, **{"prompt": [[0]], "num_steps": 5, **arguments})


def test_bad_input_of_the_others():
    model = random_bigrams()
    with pytest.raises(ValueError, match="tokens: expected sequences of at least 2 token ids"):
        log_prob(model, [[1]])
    with pytest.raises(ValueError, match=r"prompt: expected sequences of one length, got \[1, 2\]"):
        beam_search(model, [[0], [0, 1]], 3)
    with pytest.raises(ValueError, match="beam_width: expected a whole number"):
        beam_search(model, [[0]], 3, beam_width=0)
    with pytest.raises(ValueError, match="prompt: expected sequences of one length"):
        next(stream(model, [[0], [0, 1]], 3))
    with pytest.raises(ValueError, match="conditioning: expected None"):
        generate(language_model(), [[0]], 3, conditioning=np.zeros((1, 2)))


def test_log_prob_of_more_than_the_model_can_take_names_its_tokens():
    with pytest.raises(ValueError, match="^tokens: expected at most 600 tokens, .* got 601"):
        log_prob(Positional(), np.zeros((1, 601), int), told(1))


def test_sizes_may_be_numpys():
    model, five = language_model(), np.int64(5)
    assert generate(model, [[1]], five, Sampler(top_k=five))[0].shape == (6,)
    assert len(list(stream(model, [[1]], five))) == 5
    assert beam_search(model, [[1]], five, five)[0].shape == (1, 5, 6)
