"""Beam search: comparison with enumeration, greedy decoding and the likelihood."""

import itertools

import numpy as np
import pytest
from helpers import (
    PositionalModel,
    cyclic_bigram_model,
    random_bigram_model,
    random_conditioning,
    recurrent_model,
    token_log_probs,
)

from keras_genai.autoregressive import GREEDY, generate, log_prob
from keras_genai.beam_search import beam_search

ALLOWED = np.array([[1, 0, 1, 1], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]], bool)


def enumerate_continuations(
    model, first_token, max_new_tokens, stop_token, length_penalty, allowed=None
):
    """Return (score, sequence) of every continuation of one token, best first."""
    log_probs = model.logits.numpy().astype("float64")
    continuations = []

    def extend(sequence, score):
        length = len(sequence) - 1
        if length == max_new_tokens or (length > 0 and sequence[-1] == stop_token):
            continuations.append((score / ((5 + length) / 6) ** length_penalty, sequence))
            return
        tokens = range(model.vocab_size) if allowed is None else np.flatnonzero(allowed[length])
        for token in map(int, tokens):
            extend([*sequence, token], score + log_probs[sequence[-1], token])

    extend([first_token], 0.0)
    return sorted(continuations, reverse=True)


@pytest.mark.parametrize("allowed", [None, ALLOWED])
@pytest.mark.parametrize(
    "stop_token, length_penalty", [*itertools.product([None, 3], [0.0, 0.6, 2.0])]
)
def test_a_wide_beam_finds_all_continuations_in_order(stop_token, length_penalty, allowed):
    model = random_bigram_model()
    expected = enumerate_continuations(model, 0, 4, stop_token, length_penalty, allowed)
    tokens, scores = beam_search(
        model,
        np.array([[0], [2]]),
        4,
        beam_width=4**4,
        length_penalty=length_penalty,
        stop_token=stop_token,
        allowed_tokens=allowed,
    )
    # Compared as dicts, since two sequences may have the same probability.
    expected_scores = {(*row, *[stop_token] * (5 - len(row))): score for score, row in expected}
    beams = map(tuple, tokens[0, : len(expected)].tolist())
    beam_scores = dict(zip(beams, scores[0, : len(expected)], strict=True))
    assert beam_scores == pytest.approx(expected_scores, abs=1e-5)
    assert np.all(np.diff(scores[0, : len(expected)]) <= 0)
    assert np.all(scores[0, len(expected) :] == -np.inf)
    best_score, _ = enumerate_continuations(model, 2, 4, stop_token, length_penalty, allowed)[0]
    assert scores[1, 0] == pytest.approx(best_score, abs=1e-5)


def test_finished_beams_are_filled_with_the_stop_token():
    tokens, _ = beam_search(
        cyclic_bigram_model(), np.array([[3, 1]]), 9, beam_width=1, stop_token=3
    )
    # The loop stops after the second token; the stop token in the prompt ends nothing.
    assert tokens.tolist() == [[[3, 1, 2, *[3] * 8]]]


@pytest.mark.slow
def test_each_beam_keeps_its_own_state():
    model = recurrent_model()
    prompt = np.array([[1, 2, 3], [4, 5, 6]])
    tokens, scores = beam_search(model, prompt, 10, beam_width=3)
    assert tokens.shape == (2, 3, 13) and np.all(np.diff(scores, axis=1) <= 0)
    for row in range(2):
        assert len({tuple(beam) for beam in tokens[row].tolist()}) == 3
        _, log_probs = log_prob(model, tokens[row])
        np.testing.assert_allclose(scores[row], log_probs[:, 2:].sum(axis=1), atol=1e-4)
    greedy = generate(model, prompt, 10, sampler=GREEDY)
    best, _ = beam_search(model, prompt, 10, beam_width=1)
    np.testing.assert_array_equal(best[:, 0], greedy)


@pytest.mark.slow
@pytest.mark.parametrize("length", [5, 590])
def test_beams_keep_the_positions_and_the_conditioning_of_their_prompt(length):
    model, conditioning = PositionalModel(), random_conditioning(2)
    prompt = np.random.default_rng(2).integers(9, size=(2, length))
    tokens, scores = beam_search(model, prompt, 10, beam_width=4, conditioning=conditioning)
    rows = tokens.reshape(8, length + 10)
    logits = model(rows[:, :-1], np.repeat(conditioning, 4, axis=0))
    expected = token_log_probs(logits, rows)[:, length - 1 :].sum(axis=1)
    np.testing.assert_allclose(scores.ravel(), expected, atol=1e-3)
    greedy = generate(model, prompt, 10, sampler=GREEDY, conditioning=conditioning)
    best, _ = beam_search(model, prompt, 10, beam_width=1, conditioning=conditioning)
    np.testing.assert_array_equal(best[:, 0], greedy)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(prompt=[[0], [0, 1]]), r"prompt: expected sequences of one length, got \[1, 2\]"),
        (dict(beam_width=0), "beam_width: expected a whole number of at least 1, got 0"),
        (dict(max_new_tokens=0), "max_new_tokens: expected a whole number of at least 1, got 0"),
        (dict(max_new_tokens=20), "max_new_tokens: expected at most 16 tokens, .* got 21"),
        (dict(allowed_tokens=ALLOWED), r"allowed_tokens: expected a bool array \(3, 4\)"),
        (dict(stop_token=4), "stop_token: expected token ids from 0 to 3"),
        (dict(length_penalty=-0.1), "length_penalty: expected a finite number of at least 0"),
        (dict(length_penalty=float("nan")), "length_penalty: expected a finite number"),
        (dict(length_penalty=float("inf")), "length_penalty: expected a finite number"),
    ],
)
def test_invalid_arguments_raise(arguments, message):
    model = random_bigram_model()
    model.context_length = 16
    with pytest.raises(ValueError, match=message):
        beam_search(model, **{"prompt": [[0]], "max_new_tokens": 3, **arguments})


def test_numpy_integers_are_accepted_as_sizes():
    five = np.int64(5)
    tokens, _ = beam_search(recurrent_model(), [[1]], five, beam_width=five)
    assert tokens.shape == (1, 5, 6)
