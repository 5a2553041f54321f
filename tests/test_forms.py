"""Forms of texts: allowed tokens of a form, and generation from allowed tokens only."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import cyclic_bigram_model, random_bigram_model, recurrent_model

from keras_genai.autoregressive import GREEDY, Sampler, generate, sample, stream
from keras_genai.forms import (
    FIVE_CHARACTER_QUATRAIN,
    SEVEN_CHARACTER_QUATRAIN,
    form_tokens,
)
from keras_genai.gpt2 import GPT2
from keras_genai.rnn import build_language_model
from keras_genai.text import CharacterTokenizer, GPT2Tokenizer

TOKENIZER = CharacterTokenizer("\n，。山水a1")


def random_rows(num_rows, vocab_size, seed=0):
    """Return allowed tokens at random, at least one in each row."""
    allowed = np.random.default_rng(seed).random((num_rows, vocab_size)) < 0.3
    allowed[np.arange(num_rows), np.arange(num_rows) % vocab_size] = True
    return allowed


# Forms.


def test_a_star_is_any_letter_and_other_characters_are_themselves():
    allowed = form_tokens("*，*\n", TOKENIZER)
    letters = [False, False, False, True, True, True, False]  # 山, 水, a
    expected = [letters, np.eye(7)[1], letters, np.eye(7)[0]]
    np.testing.assert_array_equal(allowed, np.array(expected, bool))


def test_form_of_byte_pairs_allows_tokens_of_one_letter():
    tokenizer = GPT2Tokenizer.train("the cat the cat", 270)
    allowed = form_tokens("*", tokenizer)[0]
    texts = [tokenizer.decode([token]) for token in np.flatnonzero(allowed)]
    assert {"t", "h", "c"} <= set(texts) and all(len(t) == 1 and t.isalpha() for t in texts)


@pytest.mark.parametrize(
    "form, tokenizer, message",
    [
        ("", TOKENIZER, "form: expected at least one character, got an empty string"),
        (["*"], TOKENIZER, "form: expected a str"),
        ("*!", TOKENIZER, "form: expected characters that are tokens of the tokenizer, got '!'"),
        ("*", CharacterTokenizer("12"), r"form: expected characters .*, got '\*'"),
        ("*", None, "tokenizer: expected a tokenizer"),
    ],
)
def test_invalid_forms_raise(form, tokenizer, message):
    with pytest.raises(ValueError, match=message):
        form_tokens(form, tokenizer)


def test_an_untrained_model_writes_a_quatrain_under_its_form():
    model = build_language_model(7, "gru", 4, 6, tokenizer=TOKENIZER)
    for form, size in ((FIVE_CHARACTER_QUATRAIN, 5), (SEVEN_CHARACTER_QUATRAIN, 7)):
        allowed = form_tokens(form, TOKENIZER)
        (poem,) = model.generate(["\n"], len(allowed), seed=0, allowed_tokens=allowed)
        pieces = "".join(model.stream("\n", len(allowed), seed=0, allowed_tokens=allowed))
        assert poem == "\n" + pieces
        phrases = pieces.replace("，", "。").split("。")
        assert [len(phrase) for phrase in phrases] == [size] * 4 + [0]
        assert pieces[size] == "，" and all(c.isalpha() for c in "".join(phrases))
        beams, _ = model.beam_search("\n", len(allowed), beam_width=2, allowed_tokens=allowed)
        for beam in beams:
            rows = allowed[np.arange(len(allowed)), TOKENIZER.encode(beam)[1:]]
            assert len(beam) == len(allowed) + 1 and rows.all()


# Generation.


@pytest.mark.parametrize("sampler", [GREEDY, Sampler(0.7), Sampler(1.3, 3, 0.9)])
def test_generation_equals_an_uncached_loop_over_allowed_tokens(sampler):
    model, prompts, count = recurrent_model("gru"), [[1, 2, 3], [4], [5, 6, 7, 8, 0]], 7
    allowed = random_rows(count, model.vocab_size)
    rows = generate(model, prompts, count, sampler=sampler, seed=1, allowed_tokens=allowed)
    uniform = np.random.default_rng(1).random((count + 4, 3), "float32")
    for i, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        tokens = list(prompt)
        for k in range(count):
            logits = np.asarray(model(np.array([tokens])))[:, -1]
            logits = np.where(allowed[k], logits, -np.inf)
            # The random number of a position counts from the end of the shortest prompt.
            number = uniform[len(tokens) - 1, i : i + 1]
            tokens.append(int(sample(tf.constant(logits), tf.constant(number), sampler)[0]))
            assert allowed[k, tokens[-1]]
        assert row.tolist() == tokens


def test_frequencies_are_those_of_the_model_given_the_allowed_tokens():
    model = random_bigram_model(5)
    allowed = np.array([[True, False, True, False, True]])
    tokens = generate(model, np.full((20_000, 1), 3), 1, seed=0, allowed_tokens=allowed)[:, 1]
    logits, _ = model.step(tf.constant([[3]]), model.initial_state(1, 2), tf.constant(0))
    expected = np.where(allowed[0], np.exp(np.asarray(logits)[0, 0]), 0)
    frequencies = np.bincount(tokens, minlength=5) / 20_000
    np.testing.assert_allclose(frequencies, expected / expected.sum(), atol=0.015)


def test_rows_are_those_of_the_new_tokens_also_in_later_windows():
    model = GPT2(6, 8, 1, 1, 4)  # a context of 8 tokens
    allowed = np.eye(6, dtype=bool)[np.random.default_rng(0).integers(6, size=30)]
    prompts = [[1, 2, 3], [4], [0, 1, 2, 3, 4, 5, 0, 1, 2, 3]]
    rows = generate(model, prompts, 30, seed=0, sliding_window=True, allowed_tokens=allowed)
    for prompt, row in zip(prompts, rows, strict=True):
        assert row[len(prompt) :].tolist() == allowed.argmax(axis=1).tolist()


def test_stop_token_ends_a_sequence_where_it_is_allowed():
    model = cyclic_bigram_model(10)  # each token is followed by the next one
    allowed = np.ones((6, 10), bool)
    options = dict(sampler=GREEDY, stop_token=4)
    assert generate(model, [[2]], 6, **options, allowed_tokens=allowed)[0].tolist() == [2, 3, 4]
    allowed[:, 4] = False
    (row,) = generate(model, [[2]], 6, **options, allowed_tokens=allowed)
    assert len(row) == 7 and 4 not in row
    new = [int(tokens[0]) for tokens in stream(model, [[2]], 6, **options, allowed_tokens=allowed)]
    assert new == row[1:].tolist()


@pytest.mark.parametrize(
    "allowed, message",
    [
        (np.ones((3, 10), bool), r"expected a bool array \(4, 10\), .* got bool \(3, 10\)"),
        (np.ones((4, 9), bool), r"expected a bool array \(4, 10\), .* got bool \(4, 9\)"),
        (np.ones((4, 10)), "expected a bool array .* got float64"),
        (np.ones(10, bool), r"expected a bool array .* got bool \(10,\)"),
        ("*", "expected a bool array"),
        (np.arange(4)[:, None] != np.full(10, 2), "expected at least one, got none in row 2"),
    ],
)
def test_invalid_allowed_tokens_raise(allowed, message):
    with pytest.raises(ValueError, match=f"allowed_tokens: {message}"):
        generate(random_bigram_model(10), [[1]], 4, allowed_tokens=allowed)
