"""Tokenizers of checkpoints: the files of `transformers`, read, written and refused by name.

That `transformers` gives the same ids was checked with its versions 4 and 5; the tests compare with
the `tokenizers` library, which reads the same files.
"""

import json
import sys

import numpy as np
import pytest
import tokenizers

from keras_genai.gpt2 import build_gpt2
from keras_genai.gpt2_checkpoint import load_gpt2, save_gpt2
from keras_genai.text import CharacterTokenizer, GPT2Tokenizer, TranslationTokenizer

TEXT = " the cat,\n\n héllo 你好 <|endoftext|> </s> \u00a0x"


def trained_tokenizer(**changes):
    """A tokenizer of 268 tokens, with other values for some keys of its JSON."""
    content = json.loads(GPT2Tokenizer.train("the cat and the hat " * 3, 268).tokenizer_json)
    return json.dumps({**content, **changes})


def added_token(content, i):
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": i, "content": content, **flags, "special": True}


def small_gpt2(vocab_size, tokenizer=None):
    return build_gpt2(vocab_size, 8, 1, 1, 4, tokenizer=tokenizer)


@pytest.fixture
def folder(tmp_path):
    """A checkpoint of 280 tokens without a tokenizer."""
    save_gpt2(small_gpt2(280), tmp_path)
    return tmp_path


def write(folder, **files):
    for name, content in files.items():
        path = folder / {"merges": "merges.txt"}.get(name, f"{name}.json")
        path.write_text(content if isinstance(content, str) else json.dumps(content))


def write_vocabulary(folder, last="<|endoftext|>"):
    """Write the two files of a trained tokenizer, with its last token in the vocabulary."""
    model = json.loads(trained_tokenizer())["model"]
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    vocabulary = model["vocab"] if last is None else {**model["vocab"], last: 267}
    write(folder, vocab=vocabulary, merges=f"#version: 0.2\n{merges}\n")


# Reading.


def test_tokenizer_of_the_checkpoint_is_loaded_unless_another_is_given(folder):
    assert load_gpt2(folder).tokenizer is None
    write(folder, tokenizer=trained_tokenizer())
    tokenizer = load_gpt2(folder).tokenizer
    expected = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.encode(TEXT).tolist() == expected.encode(TEXT).ids
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT and tokenizer.end_token == 267
    other = CharacterTokenizer("abc")
    assert load_gpt2(folder, other).tokenizer is other
    assert load_gpt2(folder, tokenizer=None).tokenizer is None
    with pytest.raises(ValueError, match="tokenizer: expected 'auto', a tokenizer or None, got 'n"):
        load_gpt2(folder, "none")


def test_vocabulary_and_merges_give_the_ids_of_tokenizer_json(folder):
    write_vocabulary(folder)
    tokenizer = load_gpt2(folder).tokenizer
    expected = GPT2Tokenizer(trained_tokenizer())
    assert tokenizer.encode(TEXT).tolist() == expected.encode(TEXT).tolist()
    assert tokenizer.end_token == 267 and tokenizer.vocab_size == 268


def test_tokens_that_are_added_to_the_vocabulary_have_their_ids(folder):
    write_vocabulary(folder, last="</s>")
    write(folder, special_tokens_map={"eos_token": {"content": "</s>"}})
    write(folder, added_tokens={"<b>": 269, "<a>": 268})
    tokenizer = load_gpt2(folder).tokenizer
    assert tokenizer.encode("<b><a></s>").tolist() == [269, 268, 267]
    assert tokenizer.end_token == 267 and tokenizer.vocab_size == 270
    added = [added_token("<|endoftext|>", 267), added_token("<pad>", 268)]
    write(folder, tokenizer=trained_tokenizer(added_tokens=added), added_tokens={"<pad>": 268})
    write(folder, special_tokens_map={})
    tokenizer = load_gpt2(folder).tokenizer
    assert tokenizer.encode("a<pad>").tolist()[-1] == 268 and tokenizer.end_token == 267


def test_added_tokens_have_their_ids_where_the_end_token_is_one_of_them(folder):
    write_vocabulary(folder, last=None)
    write(folder, special_tokens_map={"eos_token": "<eos>"})
    write(folder, added_tokens={"<eos>": 268, "<pad>": 267})
    tokenizer = load_gpt2(folder).tokenizer
    assert tokenizer.encode("<pad><eos>").tolist() == [267, 268]
    assert tokenizer.end_token == 268 and tokenizer.vocab_size == 269


def test_config_names_the_end_token_of_vocabulary_and_merges(folder):
    write_vocabulary(folder, last="</s>")
    config = json.loads((folder / "config.json").read_text())
    write(folder, config={**config, "eos_token_id": 267})
    tokenizer = load_gpt2(folder).tokenizer
    assert tokenizer.end_token == 267 and tokenizer.vocab_size == 268
    assert tokenizer.encode("a</s>").tolist()[-1] == 267


def test_end_token_is_that_of_the_files_or_of_the_config(folder):
    content = trained_tokenizer(added_tokens=[added_token("</s>", 267)])
    write(folder, tokenizer=content)
    assert load_gpt2(folder).tokenizer.end_token is None
    config = json.loads((folder / "config.json").read_text())
    write(folder, config={**config, "eos_token_id": 267})
    assert load_gpt2(folder).tokenizer.end_token == 267
    write(folder, config=config, tokenizer_config={"eos_token": "</s>"})
    assert load_gpt2(folder).tokenizer.end_token == 267


def test_truncation_and_padding_of_the_files_are_turned_off(folder):
    truncation = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    padding = {
        "strategy": {"Fixed": 64},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "!",
    }
    write(folder, tokenizer=trained_tokenizer(truncation=truncation, padding=padding))
    tokenizer = load_gpt2(folder).tokenizer
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT


SEPARATOR = {
    "type": "TemplateProcessing",
    "single": [
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
    ],
    "pair": [],
    "special_tokens": {
        "<|endoftext|>": {"id": "<|endoftext|>", "ids": [267], "tokens": ["<|endoftext|>"]}
    },
}


@pytest.mark.parametrize(
    "files, message",
    [
        ({"tokenizer": "{"}, "tokenizer.json: cannot be read as JSON"),
        ({"tokenizer": "[]"}, "tokenizer.json: expected a JSON object, got list"),
        ({"tokenizer": {"model": 3}}, "tokenizer.json: expected a serialized tokenizer"),
        (
            {"tokenizer": trained_tokenizer(added_tokens=[added_token("<a>", 275)])},
            "tokenizer.json: expected '<a>' with the id 275, got 267",
        ),
        (
            {"tokenizer": trained_tokenizer(post_processor=SEPARATOR)},
            r"post_processor: expected no token before or after a text, got 'a<\|endoftext\|>'",
        ),
        (
            {"tokenizer": trained_tokenizer(), "tokenizer_config": {"eos_token": "</s>"}},
            "tokenizer.json: expected the end token '</s>', found none",
        ),
        (
            {"tokenizer": trained_tokenizer(), "tokenizer_config": {"eos_token": 3}},
            "tokenizer_config.json: eos_token: expected a string, got 3",
        ),
        (
            {"tokenizer": trained_tokenizer(), "tokenizer_config": {"add_prefix_space": True}},
            "add_prefix_space: expected True, as in tokenizer_config.json",
        ),
        (
            {
                "tokenizer": trained_tokenizer(),
                "tokenizer_config": {"added_tokens_decoder": {"268": {"content": "<pad>"}}},
            },
            "tokenizer.json: expected '<pad>' with the id 268, got None",
        ),
        (
            {"tokenizer_config": {"added_tokens_decoder": {"268": "<pad>"}}},
            "tokenizer_config.json: added_tokens_decoder: expected tokens by their ids",
        ),
        ({"added_tokens": {"<pad>": "3"}}, "added_tokens.json: <pad>: expected an id, got '3'"),
        ({"vocab": {"a": 0}}, "merges: .*merges.txt: cannot be read"),
        ({"merges": "a b"}, "vocab.json: cannot be read"),
        ({"vocab": "{", "merges": ""}, "vocab.json: cannot be read as JSON"),
    ],
)
def test_tokenizers_that_are_damaged_or_used_otherwise_raise(folder, files, message):
    write(folder, **files)
    with pytest.raises(ValueError, match=message):
        load_gpt2(folder)
    load_gpt2(folder, tokenizer=None)


def test_tokenizer_with_more_tokens_than_the_model_raises(tmp_path):
    save_gpt2(small_gpt2(267), tmp_path)
    write(tmp_path, tokenizer=trained_tokenizer())
    with pytest.raises(ValueError, match="tokenizer: expected at most 267 tokens, .* got 268"):
        load_gpt2(tmp_path)


def test_missing_library_is_named_only_if_the_checkpoint_has_a_tokenizer(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    load_gpt2(folder)
    write(folder, tokenizer="{}")
    with pytest.raises(ImportError, match=r'pip install "keras_genai\[gpt2\]"'):
        load_gpt2(folder)


# Writing.


@pytest.mark.parametrize(
    "tokenizer",
    [
        GPT2Tokenizer(trained_tokenizer()),
        GPT2Tokenizer(trained_tokenizer(added_tokens=[added_token("</s>", 267)]), "</s>"),
        GPT2Tokenizer(trained_tokenizer(normalizer={"type": "Lowercase"})),
    ],
    ids=["trained", "end token", "lowercase"],
)
def test_tokenizer_travels_with_its_checkpoint(tmp_path, tokenizer):
    save_gpt2(small_gpt2(280, tokenizer), tmp_path)
    loaded = load_gpt2(tmp_path).tokenizer
    assert loaded.get_config() == tokenizer.get_config()
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert library.encode(TEXT).ids == tokenizer.encode(TEXT).tolist()
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    published = tokenizer.end_of_text == "<|endoftext|>"
    assert config["eos_token"] == tokenizer.end_of_text
    assert config.get("bos_token") == (tokenizer.end_of_text if published else None)
    model_config = json.loads((tmp_path / "config.json").read_text())
    assert model_config["eos_token_id"] == tokenizer.end_token
    assert model_config["bos_token_id"] == (tokenizer.end_token if published else None)
    assert config["model_max_length"] == 8
    # `GPT2Tokenizer` of `transformers` would drop the normalizer.
    standard = json.loads(tokenizer.tokenizer_json)["normalizer"] is None
    expected = "GPT2Tokenizer" if standard and published else "PreTrainedTokenizerFast"
    assert config["tokenizer_class"] == expected


@pytest.mark.parametrize("unknown", ["raise", "map"])
def test_character_tokenizer_is_loaded_with_the_same_ids(tmp_path, unknown):
    tokenizer = CharacterTokenizer.from_text(" a\r\n\té你'\"\\<unk>", unknown)
    save_gpt2(small_gpt2(tokenizer.vocab_size, tokenizer), tmp_path)
    loaded, text = load_gpt2(tmp_path).tokenizer, "<unk>\r\n\n  é你\\\"'\t"
    np.testing.assert_array_equal(loaded.encode(text), tokenizer.encode(text))
    assert loaded.decode(tokenizer.encode(text)) == text and loaded.end_token is None
    assert loaded.vocab_size == tokenizer.vocab_size
    if unknown == "map":
        assert loaded.encode("axé").tolist() == tokenizer.encode("axé").tolist()
        assert loaded.decode([0]) == "\ufffd"
    else:
        with pytest.raises(ValueError, match="prompt: expected characters of the vocabulary"):
            load_gpt2(tmp_path).generate("ax")


def test_tokenizers_that_transformers_cannot_express_are_refused(tmp_path):
    class Other(CharacterTokenizer):
        def encode(self, text):
            return super().encode(text.lower())

    for tokenizer, message in (
        (Other("abc"), "expected a GPT2Tokenizer, .* got Other"),
        (TranslationTokenizer.train("abc", 260), "expected a GPT2Tokenizer, .* got Translation"),
        (CharacterTokenizer("\ufffd", "map"), "expected one id per character"),
    ):
        with pytest.raises(ValueError, match=f"tokenizer: {message}"):
            save_gpt2(small_gpt2(260, tokenizer), tmp_path)
    assert not list(tmp_path.iterdir())


def test_no_file_of_another_tokenizer_remains(folder):
    write_vocabulary(folder)
    write(folder, special_tokens_map={}, added_tokens={})
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match="folder: .*expected no tokenizer, .* found vocab.json"):
        save_gpt2(small_gpt2(5), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    save_gpt2(small_gpt2(3, CharacterTokenizer("abc")), folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert load_gpt2(folder).tokenizer.decode([0, 1, 2]) == "abc"
