"""Tokenizers: every text comes back as it was."""

import sys

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_genai
from keras_genai import datasets, text
from keras_genai.autoregressive import GREEDY, Sampler
from keras_genai.rnn import build_language_model
from keras_genai.text import CharacterTokenizer, GPT2Tokenizer, TranslationTokenizer

SOME = "naïve 四時 \N{PILE OF POO}\N{WOMAN}\N{ZERO WIDTH JOINER}\N{ROCKET}\t\0\r\n e\u0301 \ufffd"


@pytest.fixture(scope="module")
def gpt2():
    return GPT2Tokenizer.gpt2()


@pytest.fixture(scope="module")
def trained():
    return GPT2Tokenizer.train(datasets.load_books()[0], 600)


@settings(deadline=None, derandomize=True)
@given(st.text(min_size=1))
def test_characters_come_back_whatever_the_text(written):
    tokenizer = CharacterTokenizer.from_text(written)
    ids = tokenizer.encode(written)
    assert ids.shape == (len(written),) and ids.dtype == "int32"
    assert tokenizer.decode(ids) == written
    assert tokenizer.vocab_size == len(set(written)) == ids.max() + 1


@settings(deadline=None, derandomize=True)
@given(written=st.text(min_size=1))
def test_byte_pairs_come_back_whatever_the_text(gpt2, trained, written):
    for tokenizer in (gpt2, trained):
        assert tokenizer.decode(tokenizer.encode(written)) == written


def test_gpt2s_own_tokens(gpt2):
    assert gpt2.encode("Once upon a time").tolist() == [7454, 2402, 257, 640]
    assert gpt2.vocab_size == 50257 and gpt2.end_token == 50256
    assert gpt2.encode("a<|endoftext|>").tolist() == [64, 50256]


def test_training_learns_what_is_frequent(trained):
    assert trained.vocab_size == 600 and trained.end_token == 599
    book = datasets.load_books()[0]
    assert len(trained.encode(" Alice")) == 1 and len(trained.encode("四")) == 3  # its bytes
    assert len(trained.encode(book)) < len(book) / 2


def test_a_translators_vocabulary_begins_with_padding_start_and_end():
    for texts in zip(*datasets.load_translations()[:300]):
        tokenizer = TranslationTokenizer.train("\n".join(texts), 400)
        assert tokenizer.vocab_size == 400
        assert [tokenizer.decode([i]) for i in range(3)] == ["<pad>", "<start>", "<end>"]
        for written in (*texts[:20], SOME, "<start>a<pad><end>"):
            ids = tokenizer.encode(written)
            assert ids.dtype == "int32" and ids.min() > 2 and ids.max() < 400
            assert tokenizer.decode(ids) == written
        assert sum(len(tokenizer.encode(t)) for t in texts) < 0.6 * len("".join(texts).encode())
        restored = TranslationTokenizer.from_config(tokenizer.get_config())
        assert restored.encode(texts[0]).tolist() == tokenizer.encode(texts[0]).tolist()


def test_unknown_characters_raise_or_map():
    tokenizer = CharacterTokenizer("abc")
    with pytest.raises(
        ValueError, match="expected characters of the vocabulary, got 'x' at posi.* 2"
    ):
        tokenizer.encode("abx!")
    tokenizer = CharacterTokenizer("abc", unknown="map")
    assert tokenizer.vocab_size == 4
    assert tokenizer.decode(tokenizer.encode("abx!c")) == "ab\ufffd\ufffdc"


@pytest.mark.parametrize("make", [lambda: CharacterTokenizer("ab"), GPT2Tokenizer.gpt2])
@pytest.mark.parametrize("bad", ["", None, 3, ["a"]])
def test_what_is_no_text_raises(make, bad):
    with pytest.raises(ValueError, match="text: expected a string of at least one character"):
        make().encode(bad)


def test_bad_tokenizers():
    with pytest.raises(ValueError, match="characters: expected different ones"):
        CharacterTokenizer("abca")
    with pytest.raises(ValueError, match="characters: expected single characters"):
        CharacterTokenizer([])
    with pytest.raises(ValueError, match="unknown: expected one of 'raise', 'map', got 'drop'"):
        CharacterTokenizer("ab", unknown="drop")
    with pytest.raises(ValueError, match="vocab_size: expected at least 257, 256 bytes and"):
        GPT2Tokenizer.train("abc", 100)
    with pytest.raises(ValueError, match="vocab_size: expected a whole number .* got 'x'"):
        GPT2Tokenizer.train("abc", "x")
    with pytest.raises(ValueError, match="at least 259, 256 bytes and <pad>, <start>, <end>, got"):
        TranslationTokenizer.train("abc", 258)
    with pytest.raises(ValueError, match="text: expected a string of at least one character"):
        TranslationTokenizer.train("", 300)


@pytest.mark.parametrize("make", [lambda: CharacterTokenizer("ab"), GPT2Tokenizer.gpt2])
def test_ids_of_no_token_are_not_decoded(make):
    tokenizer = make()
    assert tokenizer.decode([]) == ""
    for bad in (-1, tokenizer.vocab_size):
        with pytest.raises(ValueError, match="ids: expected token ids from 0 to .* got values fro"):
            tokenizer.decode([bad])


def test_without_its_extra_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r'pip install "keras_genai\[text\]"'):
        GPT2Tokenizer.gpt2()


# LanguageModel.


def language_model(tokenizer):
    return build_language_model(tokenizer.vocab_size, "gru", 8, 16, tokenizer=tokenizer)


@pytest.mark.parametrize("make", [lambda: CharacterTokenizer.from_text(SOME), GPT2Tokenizer.gpt2])
def test_the_vocabulary_travels_inside_the_saved_model(tmp_path, make):
    model = language_model(make())
    model.save(tmp_path / "model.keras")
    loaded = keras_genai.load_model(tmp_path / "model.keras")
    assert loaded.tokenizer.decode(loaded.tokenizer.encode(SOME)) == SOME
    assert loaded.generate(SOME, 20, seed=1) == model.generate(SOME, 20, seed=1)


def test_unknown_characters_are_mapped_after_saving_too(tmp_path):
    model = language_model(CharacterTokenizer("abc", unknown="map"))
    model.save(tmp_path / "model.keras")
    tokenizer = keras_genai.load_model(tmp_path / "model.keras").tokenizer
    assert tokenizer.decode(tokenizer.encode("axb")) == "a\ufffdb"


def test_text_in_text_out():
    model = language_model(CharacterTokenizer("abcd\n"))
    one = model.generate("ab", 12, seed=1)
    assert isinstance(one, str) and one.startswith("ab") and len(one) == 14
    assert model.generate(["ab"], 12, seed=1) == [one]
    several = model.generate(["ab", "c\nd"], 5, GREEDY)
    assert [len(row) for row in several] == [7, 8] and several[1].startswith("c\nd")
    ids = model.generate(model.tokenizer.encode("ab")[None], 12, seed=1)
    assert model.tokenizer.decode(ids[0]) == one
    assert "".join(model.stream("ab", 12, seed=1)) == one[2:]
    assert model.generate("ab", 200, seed=1, end="\n").count("\n") == 1
    found, scores = model.beam_search("ab", 4, beam_width=3)
    assert len(found) == 3 and all(row.startswith("ab") for row in found)
    both, both_scores = model.beam_search(["ab", "cd"], 4, beam_width=3)
    assert both[0] == found and both_scores[0] == pytest.approx(scores, abs=1e-5)
    assert len(both[1]) == 3 and all(row.startswith("cd") for row in both[1])
    ended, _ = model.beam_search("a\nb", 20, beam_width=3, end="\n")
    assert any(row.endswith("\n") for row in ended)
    assert all(row.startswith("a\nb") and row[3:-1].count("\n") == 0 for row in ended)
    sums, nats = model.log_prob(found[0])
    assert nats.shape == (5,) and sums == pytest.approx(nats.sum(), abs=1e-5)
    assert scores[0] == pytest.approx(nats[1:].sum(), abs=1e-4)


def test_a_character_of_several_tokens_is_streamed_when_it_is_whole(gpt2, monkeypatch):
    model = language_model(gpt2)
    written = "a四\N{ROCKET}\ufffdb"
    ids = gpt2.encode(written)
    assert len(ids) > len(written)
    tokens = lambda *arguments, **options: iter(ids[:, None])  # noqa: E731
    monkeypatch.setattr(text.autoregressive, "stream", tokens)
    assert list(model.stream("x")) == ["a", "四", "\N{ROCKET}", "\ufffdb"]
    ids = ids[:2]  # ends within a character
    assert list(model.stream("x")) == ["a", "\ufffd"]


def test_bad_prompts():
    model = language_model(CharacterTokenizer("abcd"))
    with pytest.raises(ValueError, match="^prompt: expected a string of at least one character"):
        model.generate("")
    with pytest.raises(ValueError, match="^end: expected characters of the vocabulary, got 'x'"):
        model.generate("a", end="x")
    with pytest.raises(ValueError, match="got 'x' at position 1"):
        model.generate("axb")
    with pytest.raises(ValueError, match="end: expected a text of one token, got 'ab', of 2"):
        model.generate("a", end="ab")
    with pytest.raises(ValueError, match="prompt: expected a text, got list"):
        next(model.stream(["a"]))
    without = build_language_model(4, "gru", 8, 16)
    with pytest.raises(ValueError, match="prompt: expected token ids, since the model has no tok"):
        without.generate("a")
    with pytest.raises(ValueError, match="tokenizer: expected 9 tokens, as the model has, got 4"):
        build_language_model(9, tokenizer=model.tokenizer)


def test_ids_outside_the_vocabulary_are_refused_before_training():
    model = language_model(CharacterTokenizer("abcd"))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = np.zeros((4, 5), "int32")
    for bad in (-1, 4):
        with pytest.raises(ValueError, match="expected token ids from 0 to 3"):
            model.fit(np.full((4, 5), bad), x)
        with pytest.raises(ValueError, match="y: expected token ids from 0 to 3"):
            model.fit(x, np.full((4, 5), bad))
        with pytest.raises(ValueError, match="y: expected token ids from 0 to 3"):
            model.fit(x, x, validation_data=(x, np.full((4, 5), bad)))
        with pytest.raises(ValueError, match="x: expected token ids from 0 to 3"):
            model.evaluate(np.full((4, 5), bad), x)
    with pytest.raises(ValueError, match="expected token ids from 0 to 3"):
        model.generate([[0, 4]])


def test_generating_does_not_touch_training():
    state = keras.random.SeedGenerator(0)
    model = language_model(CharacterTokenizer("abcd"))
    before = np.asarray(state.state).copy(), model.get_weights()
    model.generate("ab", 10, Sampler(0.5))
    np.testing.assert_array_equal(before[0], state.state)
    for one, other in zip(before[1], model.get_weights()):
        np.testing.assert_array_equal(one, other)
