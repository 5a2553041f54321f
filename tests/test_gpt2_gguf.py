"""GGUF files of GPT-2, read by the `gguf` library; llama.cpp itself runs in engines.py."""

import json
import re
import sys

import gguf
import numpy as np
import pytest
from helpers import add_random_noise
from safetensors.numpy import load_file

from keras_genai.gpt2 import GPT2, enable_lora
from keras_genai.gpt2_checkpoint import save_gpt2
from keras_genai.gpt2_gguf import save_gguf
from keras_genai.rnn import build_language_model
from keras_genai.text import CharacterTokenizer, GPT2Tokenizer, TranslationTokenizer

TEXT = "The quick brown fox jumps over the lazy dog. " * 4
TOKENIZER = GPT2Tokenizer.train(TEXT, 270)
# Names of llama.cpp's tensors and of those of `transformers`, and whether they are transposed.
NAMES = {
    "token_embd": ("transformer.wte", False),
    "position_embd": ("transformer.wpe", False),
    "output_norm": ("transformer.ln_f", False),
    "output": ("lm_head", False),
    "attn_norm": ("ln_1", False),
    "attn_qkv": ("attn.c_attn", True),
    "attn_output": ("attn.c_proj", True),
    "ffn_norm": ("ln_2", False),
    "ffn_up": ("mlp.c_fc", True),
    "ffn_down": ("mlp.c_proj", True),
}


def build(**options):
    sizes = {"context_length": 16, "num_layers": 2, "num_heads": 3, "d_model": 6, "dff": 10}
    options = {"vocab_size": 270, "tokenizer": TOKENIZER, **sizes, **options}
    model = GPT2(**options)
    add_random_noise(model)
    return model


def edited_tokenizer(part, **changes):
    content = json.loads(TOKENIZER.tokenizer_json)
    (content[part][0] if part == "added_tokens" else content[part]).update(changes)
    return GPT2Tokenizer(json.dumps(content))


def read(path):
    """The values and the tensors of a file."""
    reader = gguf.GGUFReader(path)
    values = {name: field.contents() for name, field in reader.fields.items()}
    return values, {tensor.name: np.array(tensor.data) for tensor in reader.tensors}


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_tensors_equal_those_of_a_checkpoint(tie_embeddings, tmp_path):
    model = build(tie_embeddings=tie_embeddings)
    enable_lora(model, rank=2)
    for layer in model.decoder_layers:
        add_random_noise(layer.self_attention.query)
    save_gguf(model, tmp_path / "gpt2.gguf")
    save_gpt2(model, tmp_path)
    _, tensors = read(tmp_path / "gpt2.gguf")
    expected = load_file(tmp_path / "model.safetensors")
    assert len(tensors) == len(expected)
    for name, array in tensors.items():
        block, name, kind = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(\w+)", name).groups()
        original, transposed = NAMES[name]
        original = original if block is None else f"transformer.h.{block}.{original}"
        other = expected.pop(f"{original}.{kind}")
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, other.T if transposed else other, err_msg=name)


def test_values_are_those_of_model_and_tokenizer(tmp_path):
    save_gguf(build(layer_norm_epsilon=1e-3), tmp_path / "gpt2.gguf")
    values, _ = read(tmp_path / "gpt2.gguf")
    expected = {
        "general.architecture": "gpt2",
        "gpt2.context_length": 16,
        "gpt2.block_count": 2,
        "gpt2.attention.head_count": 3,
        "gpt2.embedding_length": 6,
        "gpt2.feed_forward_length": 10,
        "gpt2.attention.layer_norm_epsilon": np.float32(1e-3),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.bos_token_id": 269,
        "tokenizer.ggml.eos_token_id": 269,
        "tokenizer.ggml.add_bos_token": False,
        # Bytes as GPT-2 writes them; the end token is a special one.
        "tokenizer.ggml.token_type": [gguf.TokenType.NORMAL] * 269 + [gguf.TokenType.CONTROL],
    }
    assert values.items() >= expected.items()
    tokens, merges = values["tokenizer.ggml.tokens"], values["tokenizer.ggml.merges"]
    assert tokens[-1] == "<|endoftext|>"
    assert [token.replace("Ġ", " ") for token in tokens[256:269]] == [
        TOKENIZER.decode([i]) for i in range(256, 269)
    ]
    assert [merge.replace(" ", "") for merge in merges] == tokens[256:269]


def test_rows_without_a_token_are_left_out(tmp_path):
    model = build(vocab_size=300, tie_embeddings=False)
    save_gguf(model, tmp_path / "gpt2.gguf")
    values, tensors = read(tmp_path / "gpt2.gguf")
    assert len(values["tokenizer.ggml.tokens"]) == 270
    for name in ("token_embd.weight", "output.weight"):
        assert tensors[name].shape == (270, 6)


def test_published_names_of_the_tanh_approximation_are_one_activation(tmp_path):
    save_gguf(build(activation="gelu_pytorch_tanh"), tmp_path / "gpt2.gguf")


WITHOUT_END = GPT2Tokenizer(TOKENIZER.tokenizer_json, "</s>")
WITHOUT_MERGES = GPT2Tokenizer.train(TEXT, 257)
PREFIXED = edited_tokenizer("pre_tokenizer", add_prefix_space=True)
TRIMMED = edited_tokenizer("added_tokens", lstrip=True)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"activation": "gelu"}, "expected the activation gelu_new, got gelu."),
        ({"tokenizer": None}, "expected the tokenizer a GPT2Tokenizer, got None."),
        (
            {"tokenizer": CharacterTokenizer("abc")},
            "expected the tokenizer a GPT2Tokenizer, got CharacterTokenizer.",
        ),
        (
            {"tokenizer": TranslationTokenizer.train(TEXT, 270)},
            "expected the tokenizer a GPT2Tokenizer, got TranslationTokenizer.",
        ),
        ({"tokenizer": WITHOUT_END}, "expected a tokenizer with an end token, got one without."),
        ({"tokenizer": WITHOUT_MERGES}, "expected a tokenizer that splits texts as that of GPT-2"),
        ({"tokenizer": PREFIXED}, "expected a tokenizer that splits texts as that of GPT-2"),
        ({"tokenizer": TRIMMED}, "expected a tokenizer that splits texts as that of GPT-2"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=re.escape(f"model: {message}")):
        save_gguf(build(**options), tmp_path / "gpt2.gguf")
    assert not list(tmp_path.iterdir())


def test_other_models_and_int8_weights_are_refused(tmp_path):
    model = build_language_model(270, "lstm", 3, 3, tokenizer=TOKENIZER)
    with pytest.raises(ValueError, match="model: expected a GPT2, got RecurrentLanguageModel."):
        save_gguf(model, tmp_path / "gpt2.gguf")
    model = build()
    model.embedding.quantize("int8")
    with pytest.raises(ValueError, match="model: expected floating-point weights"):
        save_gguf(model, tmp_path / "gpt2.gguf")
    assert not list(tmp_path.iterdir())


def test_missing_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ImportError, match=re.escape('pip install "keras_genai[gpt2]"')):
        save_gguf(build(), tmp_path / "gpt2.gguf")
