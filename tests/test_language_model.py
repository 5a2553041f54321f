"""Language models: text in, text out, and a tokenizer that is saved with the model."""

import keras
import numpy as np
import pytest

import keras_genai
from keras_genai import language_model
from keras_genai.autoregressive import GREEDY, Sampler
from keras_genai.rnn import build_language_model
from keras_genai.text import CharacterTokenizer, GPT2Tokenizer

DIVERSE_TEXT = (
    "naïve 四時 \N{PILE OF POO}\N{WOMAN}\N{ZERO WIDTH JOINER}\N{ROCKET}\t\0\r\n e\u0301 \ufffd"
)


def small_model(tokenizer):
    return build_language_model(tokenizer.vocab_size, "gru", 8, 16, tokenizer=tokenizer)


@pytest.mark.slow
@pytest.mark.parametrize(
    "create",
    [lambda: CharacterTokenizer.from_text(DIVERSE_TEXT), GPT2Tokenizer.gpt2],
    ids=["characters", "gpt2"],
)
def test_tokenizer_is_saved_with_the_model(tmp_path, create):
    model = small_model(create())
    model.save(tmp_path / "model.keras")
    loaded = keras_genai.load_model(tmp_path / "model.keras")
    assert loaded.tokenizer.decode(loaded.tokenizer.encode(DIVERSE_TEXT)) == DIVERSE_TEXT
    assert loaded.generate(DIVERSE_TEXT, 20, seed=1) == model.generate(DIVERSE_TEXT, 20, seed=1)


def test_mapping_of_unknown_characters_is_saved_with_the_model(tmp_path):
    model = small_model(CharacterTokenizer("abc", unknown="map"))
    model.save(tmp_path / "model.keras")
    tokenizer = keras_genai.load_model(tmp_path / "model.keras").tokenizer
    assert tokenizer.decode(tokenizer.encode("axb")) == "a\ufffdb"


@pytest.mark.slow
def test_generated_text_has_the_format_of_the_prompt():
    model = small_model(CharacterTokenizer("abcd\n"))
    text = model.generate("ab", 12, seed=1)
    assert isinstance(text, str) and text.startswith("ab") and len(text) == 14
    assert model.generate(["ab"], 12, seed=1) == [text]
    texts = model.generate(["ab", "c\nd"], 5, sampler=GREEDY)
    assert [len(row) for row in texts] == [7, 8] and texts[1].startswith("c\nd")
    ids = model.generate(model.tokenizer.encode("ab")[None], 12, seed=1)
    assert model.tokenizer.decode(ids[0]) == text
    assert "".join(model.stream("ab", 12, seed=1)) == text[2:]
    assert model.generate("ab", 200, seed=1, stop_token="\n").count("\n") == 1


@pytest.mark.slow
def test_beam_search_returns_texts_ranked_by_their_log_likelihood():
    model = small_model(CharacterTokenizer("abcd\n"))
    texts, scores = model.beam_search("ab", 4, beam_width=3)
    assert len(texts) == 3 and all(text.startswith("ab") for text in texts)
    both, both_scores = model.beam_search(["ab", "cd"], 4, beam_width=3)
    assert both[0] == texts and both_scores[0] == pytest.approx(scores, abs=1e-5)
    assert len(both[1]) == 3 and all(text.startswith("cd") for text in both[1])
    stopped, _ = model.beam_search("a\nb", 20, beam_width=3, stop_token="\n")
    assert any(text.endswith("\n") for text in stopped)
    assert all(text.startswith("a\nb") and text[3:-1].count("\n") == 0 for text in stopped)
    log_prob, token_log_probs = model.log_prob(texts[0])
    assert token_log_probs.shape == (5,)
    assert log_prob == pytest.approx(token_log_probs.sum(), abs=1e-5)
    assert scores[0] == pytest.approx(token_log_probs[1:].sum(), abs=1e-4)


def test_stream_yields_a_character_of_several_tokens_once_it_is_complete(monkeypatch):
    gpt2 = GPT2Tokenizer.gpt2()
    model = small_model(gpt2)
    text = "a四\N{ROCKET}\ufffdb"
    ids = gpt2.encode(text)
    assert len(ids) > len(text)
    tokens = lambda *args, **kwargs: iter(ids[:, None])  # noqa: E731
    monkeypatch.setattr(language_model.autoregressive, "stream", tokens)
    assert list(model.stream("x")) == ["a", "四", "\N{ROCKET}", "\ufffdb"]
    ids = ids[:2]  # ends within a character
    assert list(model.stream("x")) == ["a", "\ufffd"]


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda model: model.generate(""),
            "^prompt: expected a string of at least one character",
        ),
        (lambda model: model.generate("axb"), "got 'x' at position 1"),
        (lambda model: next(model.stream(["a"])), "prompt: expected a text, got list"),
        (
            lambda model: model.generate("a", stop_token="x"),
            "^stop_token: expected characters of the vocabulary, got 'x'",
        ),
        (
            lambda model: model.generate("a", stop_token="ab"),
            "stop_token: expected a text of one token, got 'ab', 2 tokens",
        ),
        (
            lambda model: model.generate([[0, 4]]),
            "prompt: expected token ids from 0 to 3",
        ),
        (
            lambda model: build_language_model(4, "gru", 8, 16).generate("a"),
            "prompt: expected token ids, since the model has no tok",
        ),
        (
            lambda model: build_language_model(9, tokenizer=model.tokenizer),
            "tokenizer: expected 9 tokens, as the model has, got 4",
        ),
    ],
)
def test_invalid_prompts_raise(call, message):
    with pytest.raises(ValueError, match=message):
        call(small_model(CharacterTokenizer("abcd")))


VALID = np.zeros((4, 5), "int32")


@pytest.mark.parametrize("invalid_id", [-1, 4])
@pytest.mark.parametrize(
    "call, message",
    [
        (lambda model, x: model.fit(x, VALID), "x: expected token ids from 0 to 3"),
        (lambda model, x: model.fit(VALID, x), "y: expected token ids from 0 to 3"),
        (
            lambda model, x: model.fit(VALID, VALID, validation_data=(VALID, x)),
            "y: expected token ids from 0 to 3",
        ),
        (lambda model, x: model.evaluate(x, VALID), "x: expected token ids from 0 to 3"),
    ],
    ids=["x", "y", "validation_data", "evaluate"],
)
def test_ids_outside_the_vocabulary_are_rejected_before_training(call, message, invalid_id):
    model = small_model(CharacterTokenizer("abcd"))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match=message):
        call(model, np.full((4, 5), invalid_id))


def test_generation_does_not_change_the_random_state_or_the_weights():
    generator = keras.random.SeedGenerator(0)
    model = small_model(CharacterTokenizer("abcd"))
    state, weights = np.asarray(generator.state).copy(), model.get_weights()
    model.generate("ab", 10, sampler=Sampler(0.5))
    np.testing.assert_array_equal(state, generator.state)
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
