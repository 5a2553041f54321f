"""Tokenizers: encoding and decoding any text returns it unchanged."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_genai import datasets
from keras_genai.text import (
    CharacterTokenizer,
    GPT2Tokenizer,
    TranslationTokenizer,
    check_tokenizer,
)

DIVERSE_TEXT = (
    "naïve 四時 \N{PILE OF POO}\N{WOMAN}\N{ZERO WIDTH JOINER}\N{ROCKET}\t\0\r\n e\u0301 \ufffd"
)
TOKENIZERS = {"characters": lambda: CharacterTokenizer("ab"), "gpt2": GPT2Tokenizer.gpt2}


@pytest.fixture(scope="module")
def gpt2():
    return GPT2Tokenizer.gpt2()


@pytest.fixture(scope="module")
def trained():
    return GPT2Tokenizer.train(datasets.load_book("alice_in_wonderland"), 600)


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request):
    return TOKENIZERS[request.param]()


@settings(deadline=None, derandomize=True)
@given(st.text(min_size=1))
def test_character_encoding_round_trips_any_text(text):
    tokenizer = CharacterTokenizer.from_text(text)
    ids = tokenizer.encode(text)
    assert ids.shape == (len(text),) and ids.dtype == "int32"
    assert tokenizer.decode(ids) == text
    assert tokenizer.vocab_size == len(set(text)) == ids.max() + 1


@settings(deadline=None, derandomize=True)
@given(text=st.text(min_size=1))
def test_byte_pair_encoding_round_trips_any_text(gpt2, trained, text):
    for tokenizer in (gpt2, trained):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_character_ids_follow_the_order_of_the_vocabulary():
    assert CharacterTokenizer("cab").encode("abcb").tolist() == [1, 2, 0, 2]
    assert CharacterTokenizer("cab", unknown="map").encode("axbc").tolist() == [2, 0, 3, 1]
    assert CharacterTokenizer.from_text("cabbac").characters == ["a", "b", "c"]


def test_published_gpt2_tokens(gpt2):
    assert gpt2.encode("Once upon a time").tolist() == [7454, 2402, 257, 640]
    assert gpt2.vocab_size == 50257 and gpt2.end_token == 50256
    assert gpt2.encode("a<|endoftext|>").tolist() == [64, 50256]


def test_training_merges_frequent_pairs(trained):
    assert trained.vocab_size == 600 and trained.end_token == 599
    book = datasets.load_book("alice_in_wonderland")
    assert len(trained.encode(" Alice")) == 1 and len(trained.encode("四")) == 3  # its bytes
    assert len(trained.encode(book)) < len(book) / 2


@pytest.mark.parametrize("language", [0, 1], ids=["English", "Chinese"])
def test_translation_vocabulary_starts_with_padding_start_and_end(language):
    texts = [pair[language] for pair in datasets.load_translations()[:300]]
    tokenizer = TranslationTokenizer.train("\n".join(texts), 400)
    assert tokenizer.vocab_size == 400
    assert [tokenizer.decode([i]) for i in range(3)] == ["<pad>", "<start>", "<end>"]
    for text in (*texts[:20], DIVERSE_TEXT, "<start>a<pad><end>"):
        ids = tokenizer.encode(text)
        assert ids.dtype == "int32" and ids.min() > 2 and ids.max() < 400
        assert tokenizer.decode(ids) == text
    assert sum(len(tokenizer.encode(t)) for t in texts) < 0.6 * len("".join(texts).encode())
    restored = TranslationTokenizer.from_config(tokenizer.get_config())
    assert restored.encode(texts[0]).tolist() == tokenizer.encode(texts[0]).tolist()


def test_unknown_characters_raise_or_are_mapped():
    tokenizer = CharacterTokenizer("abc")
    with pytest.raises(
        ValueError, match="expected characters of the vocabulary, got 'x' at posi.* 2"
    ):
        tokenizer.encode("abx!")
    tokenizer = CharacterTokenizer("abc", unknown="map")
    assert tokenizer.vocab_size == 4
    assert tokenizer.decode(tokenizer.encode("abx!c")) == "ab\ufffd\ufffdc"


def test_an_unpaired_surrogate_is_an_unknown_character():
    with pytest.raises(ValueError, match="text: expected characters of the vocab.* at position 1"):
        CharacterTokenizer("abc").encode("a\ud800")
    assert CharacterTokenizer("abc", unknown="map").encode("a\ud800").tolist() == [1, 0]


@pytest.mark.parametrize("text", ["", None, 3, ["a"]])
def test_encoding_rejects_anything_but_a_text(tokenizer, text):
    with pytest.raises(ValueError, match="text: expected a string of at least one character"):
        tokenizer.encode(text)


@pytest.mark.parametrize(
    "create, message",
    [
        (lambda: CharacterTokenizer("abca"), "characters: expected different ones"),
        (lambda: CharacterTokenizer([]), "characters: expected single characters"),
        (
            lambda: CharacterTokenizer("ab", unknown="drop"),
            "unknown: expected one of 'raise', 'map', got 'drop'",
        ),
        (
            lambda: GPT2Tokenizer.train("abc", 100),
            "vocab_size: expected at least 257, 256 bytes and",
        ),
        (
            lambda: GPT2Tokenizer.train("abc", "x"),
            "vocab_size: expected a whole number .* got 'x'",
        ),
        (
            lambda: TranslationTokenizer.train("abc", 258),
            "at least 259, 256 bytes and <pad>, <start>, <end>, got",
        ),
        (
            lambda: TranslationTokenizer.train("", 300),
            "text: expected a string of at least one character",
        ),
    ],
)
def test_invalid_tokenizers_raise(create, message):
    with pytest.raises(ValueError, match=message):
        create()


def test_decoding_rejects_ids_outside_the_vocabulary(tokenizer):
    assert tokenizer.decode([]) == ""
    for invalid in (-1, tokenizer.vocab_size):
        with pytest.raises(ValueError, match="ids: expected token ids from 0 to .* got values fro"):
            tokenizer.decode([invalid])
    with pytest.raises(ValueError, match="ids: expected token ids, got an array of float64"):
        tokenizer.decode(np.zeros(1))


def test_a_missing_extra_is_named_in_the_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r'pip install "keras_genai\[text\]"'):
        GPT2Tokenizer.gpt2()


# Hostile files and arguments.


@pytest.mark.parametrize(
    "text", ["tokenizer.json", "", "{}", "[]", '{"model": {}}', None, 3, '{"version": "9"}']
)
def test_another_string_than_a_serialized_tokenizer_raises(text):
    with pytest.raises(ValueError, match="tokenizer_json: expected a serialized tokenizer"):
        GPT2Tokenizer(text)


def test_a_panic_of_the_library_is_an_error_of_the_argument(monkeypatch):
    # PyO3's PanicException is no Exception.
    class PanicException(BaseException):
        pass

    def panic(_):
        raise PanicException("called `Option::unwrap()` on a `None` value")

    monkeypatch.setattr("keras_genai.text._import_tokenizers", panic, raising=True)
    monkeypatch.setattr("keras_genai.text._import_tokenizers", lambda: panic(None))
    with pytest.raises(ValueError, match="tokenizer_json: .*Option::unwrap"):
        GPT2Tokenizer("{}")


@pytest.fixture
def vocabulary_and_merges(tmp_path):
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1, "ab": 2}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    return tmp_path / "vocab.json", tmp_path / "merges.txt"


def test_vocabulary_and_merges_are_read(vocabulary_and_merges):
    tokenizer = GPT2Tokenizer.from_files(*vocabulary_and_merges)
    assert tokenizer.encode("abba").tolist() == [2, 1, 0] and tokenizer.vocab_size == 4


@pytest.mark.parametrize(
    "index, text, message",
    [
        (0, "{", "vocabulary: .*vocab.json: cannot be read as JSON"),
        (0, "[1]", "vocabulary: .*vocab.json: expected a JSON object of tokens and their ids"),
        (0, '{"a": 0, "b": 5, "ab": 2}', "vocabulary: .*expected .* ids from 0 on, each once"),
        (0, '{"a": 0, "b": "1", "ab": 2}', "vocabulary: .*expected .* ids from 0 on, each once"),
        (1, "a b\na c\n", r"merges: .*merges.txt: expected merges .*\(merge 2: 'a c'\)"),
        (1, "a b b\n", r"merges: .*merges.txt: expected merges .*\(merge 1: 'a b b'\)"),
    ],
)
def test_damaged_vocabulary_or_merges_raise(vocabulary_and_merges, index, text, message):
    vocabulary_and_merges[index].write_text(text)
    with pytest.raises(ValueError, match=message):
        GPT2Tokenizer.from_files(*vocabulary_and_merges)


def test_missing_files_raise(vocabulary_and_merges):
    vocabulary, merges = vocabulary_and_merges
    with pytest.raises(ValueError, match="vocabulary: vocab: cannot be read"):
        GPT2Tokenizer.from_files("vocab", merges)
    with pytest.raises(ValueError, match="merges: merges: cannot be read"):
        GPT2Tokenizer.from_files(vocabulary, "merges")


def test_ids_of_several_texts_raise():
    with pytest.raises(ValueError, match=r"ids: expected token ids \(n,\) of one text, got shape"):
        CharacterTokenizer("abc").decode(np.array([[0, 1]]))


@pytest.mark.parametrize("tokenizer", ["abc", 3, CharacterTokenizer, object()])
def test_an_object_that_is_no_tokenizer_raises(tokenizer):
    with pytest.raises(ValueError, match="tokenizer: expected a tokenizer, got"):
        check_tokenizer("tokenizer", tokenizer, 3)
    check_tokenizer("tokenizer", None, 3)
