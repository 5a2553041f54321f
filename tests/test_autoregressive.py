"""Sampling and likelihood: comparison with uncached loops, closed forms and enumeration."""

import itertools
import logging
import math
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import (
    BigramModel,
    PositionalModel,
    cyclic_bigram_model,
    random_bigram_model,
    random_conditioning,
    recurrent_model,
    token_log_probs,
)

from keras_genai import autoregressive
from keras_genai.autoregressive import (
    GREEDY,
    Sampler,
    generate,
    log_prob,
    stream,
    truncate_at_stop_token,
)
from keras_genai.beam_search import _beam_search_loop, beam_search
from keras_genai.decoding import compiled_functions, pad_rows, repeat_rows
from keras_genai.gpt2 import GPT2
from keras_genai.rnn import CELLS
from keras_genai.seq2seq import Seq2SeqTransformer
from keras_genai.text import CharacterTokenizer
from keras_genai.wavenet import WaveNet

SAMPLERS = [GREEDY, Sampler(0.7), Sampler(1.3, 5, 0.8)]


def generate_uncached(model, prompts, max_new_tokens, sampler, seed):
    """Run the whole model on the whole sequences for each token, without a state."""
    lengths = [len(prompt) for prompt in prompts]
    num_steps = max(lengths) - min(lengths) + max_new_tokens
    uniform = np.random.default_rng(seed).random((num_steps, len(prompts)), "float32")
    rows = [list(prompt[: min(lengths)]) for prompt in prompts]
    for numbers in uniform:
        logits = np.asarray(model(np.array(rows)))[:, -1]
        tokens = np.asarray(autoregressive.sample(logits, numbers, sampler))
        for row, prompt, token in zip(rows, prompts, tokens, strict=True):
            row.append(int(prompt[len(row)] if len(row) < len(prompt) else token))
    return [row[: length + max_new_tokens] for row, length in zip(rows, lengths, strict=True)]


# generate.


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("cell", CELLS)
def test_generate_equals_uncached_sampling(cell, sampler):
    model = recurrent_model(cell)
    prompts = [[1, 2, 3], [4], [5, 6, 7, 8, 0, 1, 2]]
    rows = generate(model, prompts, 20, sampler=sampler, seed=1)
    expected = generate_uncached(model, prompts, 20, sampler, seed=1)
    assert [row.tolist() for row in rows] == expected


@pytest.mark.slow
def test_generate_with_a_long_prompt_equals_uncached_sampling():
    model = recurrent_model()
    prompt = np.random.default_rng(0).integers(9, size=(2, 150))
    tokens = generate(model, prompt, 5, seed=1)
    assert tokens.shape == (2, 155) and tokens.dtype == "int32"
    assert tokens.tolist() == generate_uncached(model, prompt.tolist(), 5, Sampler(), seed=1)


@pytest.mark.parametrize("cell", CELLS)
def test_step_on_a_padded_block_equals_single_steps(cell):
    model = recurrent_model(cell)
    tokens = np.random.default_rng(0).integers(9, size=(2, 7)).astype("int32")
    state, single_logits = model.initial_state(2, 16), []
    for position in range(7):
        logits, state = model.step(tokens[:, position : position + 1], state, position)
        single_logits.append(logits)
    padded = np.concatenate([tokens, np.full((2, 9), 8, "int32")], axis=1)
    logits, block_state = model.step(padded, model.initial_state(2, 16), 0, length=7)
    np.testing.assert_allclose(logits[:, :7], np.concatenate(single_logits, axis=1), atol=1e-5)
    np.testing.assert_allclose(np.asarray(model(tokens)), logits[:, :7], atol=1e-5)
    for one, other in zip(tf.nest.flatten(state), tf.nest.flatten(block_state), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        GPT2(4, 8, 1, 1, 4),
        recurrent_model("gru"),
        Seq2SeqTransformer(4, 4, 8, 1, 4, 1, 4),
        WaveNet(4, 1, 2, 2, 2),
    ],
    ids=lambda model: model.name,
)
def test_step_outside_a_compiled_function_takes_an_int_as_position(model):
    tokens = np.array([[1, 2, 3]])
    conditioning = tokens if isinstance(model, Seq2SeqTransformer) else None
    state = model.initial_state(1, 3, conditioning)
    expected, _ = model.step(tokens, state, tf.constant(0))
    for position in range(3):
        logits, state = model.step(tokens[:, position : position + 1], state, position)
        np.testing.assert_allclose(logits[:, 0], expected[:, position], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("lengths, max_new_tokens", [((3, 20), 30), ((590, 570), 10)])
def test_generate_passes_positions_and_conditioning_up_to_the_context_length(
    lengths, max_new_tokens
):
    model, conditioning = PositionalModel(), random_conditioning(2)
    rng = np.random.default_rng(2)
    prompts = [rng.integers(9, size=length).tolist() for length in lengths]
    rows = generate(model, prompts, max_new_tokens, seed=1, conditioning=conditioning)
    uncached = partial(model, conditioning=conditioning)
    expected = generate_uncached(uncached, prompts, max_new_tokens, Sampler(), seed=1)
    assert [row.tolist() for row in rows] == expected
    assert max(len(row) for row in rows) in (50, model.context_length)


def test_another_prompt_length_token_number_temperature_or_seed_does_not_retrace():
    model = recurrent_model()
    generate(model, [[1, 2, 3]], 10, sampler=Sampler(0.9, top_p=0.5), seed=0)
    functions = model.decoding_functions
    for prompt, max_new_tokens, sampler in (
        ([1, 2], 40, Sampler(0.9, top_p=0.5)),
        (range(9), 33, Sampler(0.5, top_p=0.9)),
        ([3] * 17, 47, Sampler(2.0, top_p=0.1)),
    ):
        generate(model, [list(prompt)], max_new_tokens, sampler=sampler, seed=max_new_tokens)
    assert model.decoding_functions is functions
    assert functions.prefill.experimental_get_tracing_count() == 1
    assert functions.decode.experimental_get_tracing_count() == 1
    generate(model, [[1]], 10, sampler=Sampler(0.9, top_p=0.5))  # an empty block before the loop
    assert functions.prefill.experimental_get_tracing_count() == 2
    assert functions.decode.experimental_get_tracing_count() == 1


def test_another_number_of_sequences_rarely_retraces():
    model = recurrent_model()
    prompts = [[1, 2], [3], [4, 5, 6], [7], [8, 1, 2]]
    for num_sequences in (5, 6, 7, 8):
        rows = generate(model, (prompts * 2)[:num_sequences], 10, seed=num_sequences)
        expected = generate_uncached(
            model, (prompts * 2)[:num_sequences], 10, Sampler(), seed=num_sequences
        )
        assert [row.tolist() for row in rows] == expected
    assert model.decoding_functions.decode.experimental_get_tracing_count() == 1
    block = np.ones((3, 2), "int32")
    streamed = np.stack(list(stream(model, block, 10, seed=1)), axis=1)
    np.testing.assert_array_equal(streamed, generate(model, block, 10, seed=1)[:, 2:])
    assert streamed.shape == (3, 10)


def test_another_number_of_scored_or_searched_sequences_rarely_retraces():
    model = recurrent_model()
    sequences = np.random.default_rng(0).integers(9, size=(8, 5))
    log_probs, token_log_probs = log_prob(model, sequences)
    beams, scores = beam_search(model, sequences, 6, beam_width=2)
    for num_sequences in (5, 6, 7):
        part = sequences[:num_sequences]
        found, of_tokens = log_prob(model, part)
        np.testing.assert_allclose(found, log_probs[:num_sequences], rtol=1e-6)
        np.testing.assert_allclose(of_tokens, token_log_probs[:num_sequences], rtol=1e-5)
        of_list, lists = log_prob(model, part.tolist())
        np.testing.assert_array_equal(of_list, found)
        assert len(lists) == num_sequences
        tokens, of_beams = beam_search(model, part, 6, beam_width=2)
        np.testing.assert_array_equal(tokens, beams[:num_sequences])
        np.testing.assert_allclose(of_beams, scores[:num_sequences], rtol=1e-5)
    functions = model.decoding_functions
    assert functions.score.experimental_get_tracing_count() == 1
    assert functions.get(_beam_search_loop).experimental_get_tracing_count() == 1


def test_rows_are_padded_with_copies_of_the_last_to_few_numbers():
    sizes = {number: len(pad_rows([*range(number)], None)[0]) for number in (1, 5, 64, 65, 300)}
    assert sizes == {1: 1, 5: 8, 64: 64, 65: 128, 300: 320}
    rows, conditioning = pad_rows([1, 2, 3], (np.array([[4.0], [5.0], [6.0]]),))
    assert rows == [1, 2, 3, 3]
    np.testing.assert_array_equal(conditioning[0], [[4.0], [5.0], [6.0], [6.0]])


@pytest.mark.slow
def test_many_models_in_one_program_cause_no_retracing_warning(monkeypatch):
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    monkeypatch.setattr(tf.get_logger(), "handlers", [handler])
    for _ in range(6):
        model = random_bigram_model()
        generate(model, [[1]], 3)
        log_prob(model, [[1, 2, 3]])
        beam_search(model, [[1]], 3)
    assert not [record.getMessage() for record in records]


@pytest.mark.slow
def test_generate_uses_new_weights_and_new_variables():
    model = recurrent_model()
    prompt = np.zeros((1, 3), "int32")
    before = generate(model, prompt, 12, seed=0).tolist()
    model.set_weights([2 * w for w in model.get_weights()])
    after = generate(model, prompt, 12, seed=0).tolist()
    assert after == generate_uncached(model, prompt.tolist(), 12, Sampler(), 0) != before
    # LoRA adds variables, which functions compiled before do not have.
    model.lm_head.enable_lora(2)
    model.lm_head.lora_kernel_b.assign(np.random.default_rng(0).normal(scale=9, size=(2, 9)))
    tuned = generate(model, prompt, 12, seed=0).tolist()
    assert tuned == generate_uncached(model, prompt.tolist(), 12, Sampler(), 0) != after


def test_same_seed_repeats_the_tokens_and_none_does_not():
    model, prompt = random_bigram_model(), np.zeros((1, 1), "int32")
    first, second, other = (generate(model, prompt, 60, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, second) and not np.array_equal(first, other)
    assert not np.array_equal(generate(model, prompt, 60), generate(model, prompt, 60))


@pytest.mark.slow
def test_random_seed_of_keras_governs_generation_without_a_seed():
    model, results = random_bigram_model(), []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        results.append(np.concatenate([generate(model, [[0]], 30)[0] for _ in range(2)]))
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])
    assert not np.array_equal(results[0][:31], results[0][31:])


def test_sequences_end_with_the_stop_token():
    model = cyclic_bigram_model()
    rows = generate(model, [[0], [3, 1], [2]], 4, stop_token=3)
    assert [row.tolist() for row in rows] == [[0, 1, 2, 3], [3, 1, 2, 3], [2, 3]]
    # A stop token within a prompt ends nothing, even while another row is being continued.
    rows = generate(model, [[0], [1, 3, 0, 1]], 4, stop_token=3)
    assert [row.tolist() for row in rows] == [[0, 1, 2, 3], [1, 3, 0, 1, 2, 3]]
    array = generate(model, np.array([[0], [1], [3]]), 4, stop_token=3)
    assert array.tolist() == [[0, 1, 2, 3, 3], [1, 2, 3, 3, 3], [3, 0, 1, 2, 3]]
    assert generate(model, np.array([[0]]), 4).tolist() == [[0, 1, 2, 3, 0]]


def test_generate_stops_computing_when_all_sequences_have_ended(monkeypatch):
    model, positions = cyclic_bigram_model(), []
    functions = compiled_functions(model)
    decode = functions.decode

    def recording_decode(*args):
        position, *rest = decode(*args)
        positions.append(int(position))
        return position, *rest

    monkeypatch.setattr(functions, "decode", recording_decode)
    generate(model, [[0]], 50, stop_token=3)
    assert positions == [3]


@pytest.mark.slow
def test_stream_yields_the_new_tokens_of_generate():
    model, prompt = recurrent_model(), np.array([[1, 2], [3, 4]])
    pieces = list(stream(model, prompt, 12, sampler=Sampler(0.8), seed=3))
    tokens = generate(model, prompt, 12, sampler=Sampler(0.8), seed=3)
    np.testing.assert_array_equal(np.stack(pieces, axis=1), tokens[:, 2:])


def test_stream_ends_when_all_sequences_have_ended():
    model = cyclic_bigram_model()
    assert [int(token[0]) for token in stream(model, [[0]], 9, stop_token=2)] == [1, 2]
    tokens = [token.tolist() for token in stream(model, [[0], [1]], 9, stop_token=2)]
    assert tokens == [[1, 2], [2, 2]]  # the second sequence ends before the first


def test_truncate_at_stop_token_ignores_the_prompt():
    tokens = np.array([3, 1, 2, 3, 3])
    assert truncate_at_stop_token(tokens, 1, 3).tolist() == [3, 1, 2, 3]
    assert truncate_at_stop_token(tokens, 0, 3).tolist() == [3]
    assert truncate_at_stop_token(tokens, 1, None).tolist() == tokens.tolist()


# Samplers.


def chi_square_bound(degrees_of_freedom: int) -> float:
    """A bound that a chi-square variable exceeds once in a million times.

    P(X >= k + 2 sqrt(k t) + 2 t) <= exp(-t) (Laurent & Massart 2000, lemma 1).
    """
    t = math.log(1e6)
    return degrees_of_freedom + 2 * math.sqrt(degrees_of_freedom * t) + 2 * t


def softmax(logits):
    exponentials = np.exp(logits - np.max(logits))
    return exponentials / exponentials.sum()


def chi_square(counts, probabilities):
    expected = probabilities * counts.sum()
    return np.sum((counts - expected) ** 2 / expected)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_sampled_frequencies_match_the_softmax(temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=50).astype("float32")
    uniform = rng.random(100_000, "float32")
    rows = np.broadcast_to(logits, (len(uniform), 50))
    tokens = np.asarray(autoregressive.sample(rows, uniform, Sampler(temperature)))
    counts = np.bincount(tokens, minlength=50)
    assert chi_square(counts, softmax(logits / temperature)) < chi_square_bound(49)


def test_generated_frequencies_match_the_model():
    model = random_bigram_model()
    tokens = generate(model, np.zeros((50, 1), "int32"), 400, seed=0)
    for token, probabilities in enumerate(softmax(row) for row in model.logits.numpy()):
        next_tokens = tokens[:, 1:][tokens[:, :-1] == token]
        counts = np.bincount(next_tokens, minlength=4)
        assert chi_square(counts, probabilities) < chi_square_bound(3)


def test_greedy_takes_the_likeliest_token():
    logits = np.random.default_rng(0).normal(size=(100, 30)).astype("float32")
    tokens = autoregressive.sample(logits, np.zeros(100, "float32"), GREEDY)
    np.testing.assert_array_equal(tokens, logits.argmax(axis=1))


def filtered_sets(logits, k=None, p=None) -> list[set]:
    """Return the sets of tokens that top-k or top-p keeps, row by row in NumPy."""
    sets = []
    for row in logits.astype("float64"):
        order = np.argsort(-row)
        cumulative = np.cumsum(softmax(row)[order])
        size = k or 1 + np.count_nonzero(cumulative < p)
        sets.append(set(order[:size].tolist()))
    return sets


@pytest.mark.parametrize("k, p", [(1, None), (3, None), (30, None), (99, None)] + [
    (None, p) for p in (0.001, 0.3, 0.9, 1.0)
])  # fmt: skip
def test_top_k_and_top_p_sample_every_token_of_their_set_and_no_other(k, p):
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2, size=(20, 30)).astype("float32")
    # Both ends of the interval: 0 and the largest float32 below 1.
    uniform = np.concatenate([[0, 1 - 2**-24], np.linspace(0, 1, 5000, endpoint=False)])
    for row, allowed in zip(logits, filtered_sets(logits, k, p), strict=True):
        rows = np.broadcast_to(row, (len(uniform), 30))
        tokens = autoregressive.sample(rows, uniform.astype("float32"), Sampler(1.0, k, p))
        tokens = set(np.asarray(tokens).tolist())
        assert tokens <= allowed
        frequent = {i for i in allowed if softmax(row)[i] > 1e-3}
        assert tokens >= frequent


@pytest.mark.slow
@pytest.mark.parametrize("value", [1e-30, 1e-38, 1e-45])
def test_a_tiny_temperature_or_top_p_takes_the_likeliest_token(value):
    model = BigramModel(np.array([[0.2, 0.5, 0.3]] * 3))
    for sampler in (Sampler(value), Sampler(top_p=value)):
        tokens = generate(model, [[0]], 5, sampler=sampler, seed=0)
        assert tokens[0].tolist() == [0, 1, 1, 1, 1, 1]


def test_samplers_compose_temperature_then_top_k_then_top_p():
    # At temperature 2, [4, 2, 0, -2] has probabilities 0.64, 0.24, 0.09, 0.03. Renormalized over
    # the first three, the first two have 0.66 and 0.24, together 0.9.
    logits = np.broadcast_to(np.array([4, 2, 0, -2], "float32"), (1000, 4))
    uniform = np.linspace(0, 1, 1000, endpoint=False, dtype="float32")
    tokens = np.asarray(autoregressive.sample(logits, uniform, Sampler(2.0, 3, 0.9)))
    expected = softmax(np.array([2.0, 1.0]))
    np.testing.assert_allclose(np.bincount(tokens, minlength=4), [*(1000 * expected), 0, 0], atol=1)


@pytest.mark.parametrize("vocab_size", [2, 9, 300, 50_257])
def test_a_token_of_probability_zero_is_never_sampled(vocab_size):
    # The largest uniform number falls at the end of a cumulative sum that is not exactly 1 and
    # that may rise where a probability is 0: XLA's sum of 50,257 terms does.
    logits = np.random.default_rng(0).normal(size=(8, vocab_size)).astype("float32")
    ends = -(-vocab_size * np.arange(1, 9) // 8)
    for row, end in zip(logits, ends, strict=True):
        row[end:] = -np.inf
    uniform = np.full(8, 1 - 2**-24, "float32")
    for jit_compile in (False, True):
        sample = tf.function(autoregressive.sample, jit_compile=jit_compile)
        tokens = sample(logits, uniform, Sampler()).numpy()
        assert np.all(tokens < ends) and np.all(tokens >= ends - 1 - vocab_size // 1000)


def test_a_total_times_a_number_below_1_is_never_rounded_up_to_the_total():
    # `sample` relies on it. Every float32 of one binade, which represents all others.
    total = np.arange(2**23, 2**24).astype("float32")
    assert np.all(total * np.float32(1 - 2**-24) < total)


# log_prob.


@pytest.mark.parametrize("length", [40, 600])
def test_log_prob_passes_positions_and_conditioning_to_every_block(length):
    model, conditioning = PositionalModel(), random_conditioning(2)
    tokens = np.random.default_rng(2).integers(9, size=(2, length))
    _, log_probs = log_prob(model, tokens, conditioning)
    expected = token_log_probs(model(tokens[:, :-1], conditioning), tokens)
    np.testing.assert_allclose(log_probs, expected, atol=1e-3)


@pytest.mark.slow
def test_log_prob_matches_numpy_for_arrays_and_lists():
    model = recurrent_model()
    tokens = np.random.default_rng(0).integers(9, size=(2, 1100))  # several blocks
    expected = token_log_probs(model(tokens[:, :-1]), tokens)
    totals, log_probs = log_prob(model, tokens)
    np.testing.assert_allclose(log_probs, expected, atol=1e-4)
    np.testing.assert_allclose(totals, expected.sum(axis=1), rtol=1e-5)
    totals, log_probs = log_prob(model, [tokens[0, :600], tokens[1, :3]])
    assert [len(row) for row in log_probs] == [599, 2]
    np.testing.assert_allclose(log_probs[0], expected[0, :599], atol=1e-4)
    np.testing.assert_allclose(totals[1], expected[1, :2].sum(), atol=1e-4)


def test_probabilities_of_all_sequences_sum_to_one():
    model = random_bigram_model(3)
    tokens = np.array([[0, *rest] for rest in itertools.product(range(3), repeat=4)])
    assert np.exp(log_prob(model, tokens)[0]).sum() == pytest.approx(1, abs=1e-5)


# State and invalid input.


@pytest.mark.parametrize("cell, num_states", [("simple_rnn", 1), ("gru", 1), ("lstm", 2)])
def test_recurrent_state_does_not_grow_with_the_length(cell, num_states):
    model = recurrent_model(cell, num_layers=3)
    for max_length in (10, 10_000):
        state = model.initial_state(5, max_length)
        size = sum(np.size(part) for part in tf.nest.flatten(state))
        assert size == num_states * 3 * 5 * 8


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(prompt=[]), "prompt: expected at least one sequence"),
        (dict(prompt=[[1], []]), r"prompt: expected sequences of at least 1 token ids, got .*\(0,"),
        (dict(prompt=np.zeros(3, int)), r"prompt: expected an array \(batch, n\) or a list"),
        (dict(prompt=[[0, 4]]), "prompt: expected token ids from 0 to 3, got values from 0 to 4"),
        (dict(prompt=[[-1]]), "prompt: expected token ids from 0 to 3, got values from -1"),
        (dict(prompt=[[0.5]]), "prompt: expected token ids, got an array of float64"),
        (dict(stop_token=4), "stop_token: expected token ids from 0 to 3, got values from 4 to 4"),
        (dict(max_new_tokens=0), "max_new_tokens: expected a whole number of at least 1, got 0"),
        (
            dict(max_new_tokens=20),
            "max_new_tokens: expected at most 16 tokens, prompt included.* got 21",
        ),
        (dict(sampler=0.7), "sampler: expected a Sampler, as Sampler.* got 0.7"),
        (dict(sampler=Sampler(0)), "temperature: expected a number above 0, got 0; GREEDY"),
        (dict(sampler=Sampler(top_k=0)), "top_k: expected a whole number of at least 1"),
        (dict(sampler=Sampler(top_p=1.5)), "top_p: expected a number above 0 and up to 1"),
    ],
)
def test_invalid_arguments_of_generate_raise(arguments, message):
    model = random_bigram_model()
    model.context_length = 16
    with pytest.raises(ValueError, match=message):
        generate(model, **{"prompt": [[0]], "max_new_tokens": 5, **arguments})


def test_log_prob_of_one_token_raises():
    with pytest.raises(ValueError, match="tokens: expected sequences of at least 2 token ids"):
        log_prob(random_bigram_model(), [[1]])


def test_stream_of_prompts_of_different_lengths_raises():
    with pytest.raises(ValueError, match=r"prompt: expected sequences of one length, got \[1, 2\]"):
        next(stream(random_bigram_model(), [[0], [0, 1]], 3))


def test_conditioning_of_an_unconditional_model_raises():
    with pytest.raises(ValueError, match="conditioning: expected None"):
        generate(recurrent_model(), [[0]], 3, conditioning=np.zeros((1, 2)))


def test_log_prob_beyond_the_context_length_names_its_argument():
    with pytest.raises(ValueError, match="^tokens: expected at most 600 tokens, .* got 601"):
        log_prob(PositionalModel(), np.zeros((1, 601), int), random_conditioning(1))


@pytest.mark.slow
def test_numpy_integers_are_accepted_as_sizes():
    model, five = recurrent_model(), np.int64(5)
    assert generate(model, [[1]], five, sampler=Sampler(top_k=five))[0].shape == (6,)
    assert len(list(stream(model, [[1]], five))) == 5


@pytest.mark.parametrize("conditioning", [3, "x", np.array([None, {}])])
def test_conditioning_without_rows_raises(conditioning):
    with pytest.raises(ValueError, match="conditioning: expected"):
        repeat_rows(conditioning)


@pytest.mark.parametrize("model", [None, 3, object(), keras.Sequential()])
def test_a_model_without_the_interface_raises(model):
    for call in (lambda: generate(model, [[0]], 1), lambda: log_prob(model, [[0, 0]])):
        with pytest.raises(ValueError, match="model: expected an AutoregressiveModel, got"):
            call()


# Beyond the context length.


def generate_in_windows(model, prompt, max_new_tokens, conditioning, sampler=GREEDY):
    """Run the whole model on the documented context for each token of one sequence."""
    rng, tokens, context = np.random.default_rng(0), list(prompt), list(prompt)
    for _ in range(max_new_tokens):
        if len(context) >= model.context_length:
            context = tokens[-(model.context_length // 2) :]
        logits = model(np.array([context]), conditioning)[:, -1].astype("float32")
        token = int(autoregressive.sample(logits, rng.random(1, "float32"), sampler)[0])
        tokens, context = [*tokens, token], [*context, token]
    return tokens


@pytest.fixture
def short_model():
    model = PositionalModel()
    model.context_length = 9
    return model


def test_windows_of_prompts_of_any_lengths_equal_uncached_steps(short_model):
    rng, conditioning = np.random.default_rng(3), random_conditioning(5)
    prompts = [rng.integers(9, size=length) for length in (3, 8, 9, 10, 25)]
    with pytest.raises(ValueError, match="max_new_tokens: expected at most 9 tokens"):
        generate(short_model, prompts, 30, conditioning=conditioning)
    rows = generate(
        short_model, prompts, 30, sampler=GREEDY, conditioning=conditioning, sliding_window=True
    )
    for row, prompt, vector in zip(rows, prompts, conditioning, strict=True):
        assert row.tolist() == generate_in_windows(short_model, prompt, 30, vector[None])


def test_windows_have_different_random_numbers_and_stream_has_them_too(short_model):
    conditioning, sampler = random_conditioning(1), Sampler(2.0)
    expected = generate_in_windows(short_model, [1, 2], 25, conditioning, sampler)
    options = dict(sampler=sampler, seed=0, conditioning=conditioning, sliding_window=True)
    tokens = generate(short_model, np.array([[1, 2]]), 25, **options)
    assert tokens.shape == (1, 27) and tokens[0].tolist() == expected
    assert np.hstack(list(stream(short_model, [[1, 2]], 25, **options))).tolist() == expected[2:]


def test_a_text_that_fits_is_the_same_with_a_sliding_window(short_model):
    prompts = [[1, 2, 3], [4]]
    options = dict(sampler=Sampler(2.0), seed=1, conditioning=random_conditioning(2))
    rows = generate(short_model, prompts, 6, **options)
    others = generate(short_model, prompts, 6, **options, sliding_window=True)
    assert [row.tolist() for row in rows] == [row.tolist() for row in others]


def test_a_sequence_that_ended_in_an_earlier_window_remains_ended():
    model = cyclic_bigram_model(12)
    model.context_length = 4
    options = dict(sampler=GREEDY, stop_token=9, sliding_window=True)
    tokens = generate(model, np.array([[0], [7]]), 13, **options)
    assert tokens.tolist() == [[*range(10), 9, 9, 9, 9], [7, 8] + 12 * [9]]
    rows = generate(model, [[5, 6, 7], [0]], 13, **options)
    assert [row.tolist() for row in rows] == [[5, 6, 7, 8, 9], list(range(10))]
    pieces = list(stream(model, [[0], [7]], 13, **options))
    assert np.stack(pieces, axis=1).tolist() == [list(range(1, 10)), [8] + 8 * [9]]


def test_invalid_sliding_windows_raise(short_model):
    options = dict(conditioning=random_conditioning(1))
    with pytest.raises(ValueError, match="sliding_window: expected True or False, got 4"):
        generate(short_model, [[0]], 5, sliding_window=4, **options)
    short_model.context_length = 1
    with pytest.raises(ValueError, match="sliding_window: expected a context length of at least 2"):
        generate(short_model, [[0]], 5, sliding_window=True, **options)


# A vocabulary that is padded beyond the tokenizer's.


def padded_bigram_model(num_tokens=3):
    """Tokens 3 and 4, which the tokenizer lacks, are by far the likeliest."""
    rng = np.random.default_rng(0)
    likely = np.hstack([0.01 * rng.dirichlet(np.ones(3), 5), np.full((5, 2), 0.495)])
    model = BigramModel(likely)
    model.tokenizer = CharacterTokenizer("abcde"[:num_tokens])
    return model, likely


def test_ids_that_the_tokenizer_lacks_are_never_sampled():
    model, likely = padded_bigram_model()
    expected = likely[:, :3] / likely[:, :3].sum(axis=1, keepdims=True)
    tokens = generate(model, np.full((20_000, 1), 4), 1, seed=0)[:, 1]
    np.testing.assert_allclose(np.bincount(tokens) / 20_000, expected[4], atol=0.015)
    assert generate(model, [[0]], 30, sampler=GREEDY)[0].max() < 3
    np.testing.assert_allclose(log_prob(model, [[0, 4]])[0], np.log(0.495), rtol=1e-5)
    with pytest.raises(ValueError, match="stop_token: expected token ids from 0 to 2"):
        generate(model, [[0]], 5, stop_token=3)
    model.tokenizer = None
    assert generate(model, [[0]], 1, sampler=GREEDY)[0][1] in (3, 4)


def test_beam_search_finds_the_likeliest_sequence_that_the_tokenizer_can_decode():
    model, likely = padded_bigram_model()
    scores = {
        (a, b): math.log(likely[0, a] * likely[a, b])
        for a, b in itertools.product(range(3), repeat=2)
    }
    best = sorted(scores, key=scores.get, reverse=True)[:5]
    tokens, log_probs = beam_search(model, [[0]], 2, beam_width=5)
    assert [tuple(row[1:]) for row in tokens[0].tolist()] == best
    np.testing.assert_allclose(log_probs[0], [scores[pair] for pair in best], rtol=1e-5)
    with pytest.raises(ValueError, match="stop_token: expected token ids from 0 to 2"):
        beam_search(model, [[0]], 2, stop_token=3)
