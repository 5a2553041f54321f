"""GPT-2 checkpoints against `transformers`, and what is refused.

`fixtures/make_gpt2.py` made the other side; `transformers` itself is not needed here.
"""

import json
import pathlib
import shutil
import sys

import huggingface_hub
import ml_dtypes
import numpy as np
import pytest
from conftest import largest_difference
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from keras_genai import checkpoints
from keras_genai.autoregressive import GREEDY
from keras_genai.checkpoints import load_gpt2, save_gpt2
from keras_genai.gpt2 import build_gpt2
from keras_genai.rnn import build_language_model
from keras_genai.text import GPT2Tokenizer

FIXTURES = pathlib.Path(__file__).parent / "fixtures" / "gpt2"
NAMES = ("plain", "published", "untied", "sharded", "half")


@pytest.fixture
def folder(tmp_path):
    """A checkpoint to be spoiled."""
    return copy("plain", tmp_path / "plain")


def copy(name, folder):
    shutil.copytree(FIXTURES / name, folder)
    return folder


def edit_config(folder, **changes):
    """Change keys of a config; None removes one."""
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    config = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))


def edit_tensors(folder, **changes):
    """Change tensors by what stands after "transformer."; None removes one."""
    tensors = load_file(folder / "model.safetensors")
    tensors |= {"transformer." + name: array for name, array in changes.items()}
    tensors = {name: array for name, array in tensors.items() if array is not None}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def fixture_tensors(name):
    """The tensors of a fixture as GPT2LMHeadModel names them, in float32, without buffers."""
    tensors = {}
    for path in (FIXTURES / name).glob("*.safetensors"):
        tensors |= load_file(path)
    return {
        key if key == "lm_head.weight" else "transformer." + key.removeprefix("transformer."): (
            array.astype("float32")
        )
        for key, array in tensors.items()
        if not key.endswith((".attn.bias", ".masked_bias"))
    }


@pytest.fixture
def nothing_is_built(monkeypatch):
    def build(*args, **kwargs):
        raise AssertionError("a model was built of what should be refused first")

    monkeypatch.setattr(checkpoints, "GPT2", build)


# Parity.


@pytest.mark.parametrize("name", NAMES)
def test_wrong_order_transpose_or_arithmetic_shows_against_transformers(name):
    expected = np.load(FIXTURES / name / "expected.npz")
    model = load_gpt2(FIXTURES / name)
    np.testing.assert_allclose(model(expected["tokens"]), expected["logits"], atol=1e-4)
    prompts = [row[:n] for row, n in zip(expected["prompts"], expected["lengths"])]
    rows = model.generate(prompts, 64, GREEDY)
    for prompt, row, greedy in zip(prompts, rows, expected["greedy"], strict=True):
        assert row.tolist() == [*prompt, *greedy]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_has_the_names_and_values_that_transformers_wrote(tmp_path, name):
    model = load_gpt2(FIXTURES / name)
    save_gpt2(model, tmp_path / "new" / "folder")
    saved, theirs = load_file(tmp_path / "new" / "folder" / "model.safetensors"), fixture_tensors(
        name
    )
    assert sorted(saved) == sorted(theirs)
    for key, array in saved.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, theirs[key], err_msg=key)
    config, original = (
        json.loads((path / "config.json").read_text())
        for path in (tmp_path / "new" / "folder", FIXTURES / name)
    )
    original |= {"n_inner": original["n_inner"] or 4 * original["n_embd"], "dtype": "float32"}
    assert config.items() <= original.items()
    with safe_open(tmp_path / "new" / "folder" / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}

    again = load_gpt2(tmp_path / "new" / "folder")
    assert again.settings == model.settings
    assert largest_difference(again.get_weights(), model.get_weights()) == 0


def test_bfloat16_is_read_and_written(folder):
    tensors = load_file(folder / "model.safetensors")
    short = {name: array.astype(ml_dtypes.bfloat16) for name, array in tensors.items()}
    save_file(short, folder / "model.safetensors")
    model = load_gpt2(folder)
    weights = model.get_weights()
    assert all(weight.dtype == np.float32 for weight in weights)
    np.testing.assert_array_equal(weights[0], short["transformer.wte.weight"].astype("float32"))


def test_lora_is_merged_into_what_is_saved(tmp_path):
    model = load_gpt2(FIXTURES / "plain")
    layer = model.decoder_layers[1].inner
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(np.full(layer.lora_kernel_b.shape, 0.1))
    save_gpt2(model, tmp_path)
    tokens = np.arange(10)[None]
    difference = largest_difference([load_gpt2(tmp_path)(tokens)], [model(tokens)])
    assert (
        difference
        < 1e-5
        < largest_difference([load_gpt2(FIXTURES / "plain")(tokens)], [model(tokens)])
    )


def test_end_token_of_the_tokenizer_is_written_and_no_other_is_made_up(tmp_path):
    tokenizer = GPT2Tokenizer.train("the cat and the hat", 260)
    for size, given, expected in ((260, tokenizer, tokenizer.end_token), (260, None, None)):
        save_gpt2(build_gpt2(size, 8, 1, 1, 4, tokenizer=given), tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        assert config["eos_token_id"] == config["bos_token_id"] == expected
    assert load_gpt2(tmp_path, tokenizer).tokenizer is tokenizer
    with pytest.raises(ValueError, match="tokenizer: expected 61 tokens, as the model has, got 2"):
        load_gpt2(FIXTURES / "plain", tokenizer)


# Names.


def test_a_name_is_fetched_and_a_folder_is_not(monkeypatch, tmp_path):
    fetched = []

    def snapshot_download(name, allow_patterns):
        fetched.append(name)
        assert not any("bin" in pattern for pattern in allow_patterns)
        return str(FIXTURES / "plain")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert load_gpt2("openai-community/gpt2").vocab_size == 61
    assert fetched == ["openai-community/gpt2"]
    copy("half", tmp_path / "gpt2")
    monkeypatch.chdir(tmp_path)
    assert load_gpt2("gpt2").vocab_size == 300
    assert fetched == ["openai-community/gpt2"]


def test_neither_folder_nor_name_is_one_clear_error(monkeypatch, tmp_path):
    def offline(name, allow_patterns):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no connection\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ValueError, match=r"gpt3: no such folder, and no .* \(no connection\)\.$"):
        load_gpt2("gpt3")
    with pytest.raises(ValueError, match="none: no such folder"):
        load_gpt2(tmp_path / "none")


@pytest.mark.parametrize("module", ["safetensors", "huggingface_hub"])
def test_without_its_extra_the_error_names_it(monkeypatch, module, tmp_path):
    model = build_gpt2(5, 4, 1, 1, 2)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, module + ".numpy", None)
    with pytest.raises(ImportError, match=r'pip install "keras_genai\[gpt2\]"'):
        load_gpt2(FIXTURES / "plain" if module == "safetensors" else "gpt2")
    if module == "safetensors":
        with pytest.raises(ImportError, match=r'pip install "keras_genai\[gpt2\]"'):
            save_gpt2(model, tmp_path)


# What is refused, before a model is built.

BAD_CONFIGS = [
    ({"model_type": "bert"}, "model_type: expected 'gpt2', got 'bert'"),
    ({"model_type": None}, "model_type: expected 'gpt2', got None"),
    ({"scale_attn_weights": False}, "scale_attn_weights: expected True, got False"),
    ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx: expected False"),
    ({"add_cross_attention": True}, "add_cross_attention: expected False, got True"),
    ({"activation_function": "mish"}, "activation_function: expected one of 'gelu_new', .*'mish'"),
    ({"n_embd": None}, "expected the key n_embd, found none"),
    ({"n_layer": 0}, "n_layer: expected a whole number of at least 1, got 0"),
    ({"n_head": 5}, "n_embd: expected a multiple of n_head, 5, got 32"),
    ({"n_inner": 1.5}, "n_inner: expected a whole number"),
    ({"layer_norm_epsilon": "1"}, "layer_norm_epsilon: expected a number between 0 and 1"),
    ({"tie_word_embeddings": "no"}, "tie_word_embeddings: expected one of True, False, got 'no'"),
    ({"attn_pdrop": 1.0}, "attn_pdrop: expected a share from 0 to less than 1, got 1.0"),
]


@pytest.mark.parametrize("changes, message", BAD_CONFIGS)
def test_what_the_model_does_not_do_is_refused_by_its_key(
    folder, nothing_is_built, changes, message
):
    edit_config(folder, **changes)
    with pytest.raises(ValueError, match=f"config.json: {message}"):
        load_gpt2(folder)


def test_different_rates_of_dropout_are_no_silent_change(folder):
    edit_config(folder, embd_pdrop=0.0)
    with pytest.warns(UserWarning, match="config.json: .*one rate of dropout; that of resid_pdrop"):
        assert load_gpt2(folder).settings["dropout"] == 0.1


BAD_TENSORS = [
    ({"h.1.attn.c_attn.weight": None}, "plain: h.1.attn.c_attn.weight: expected this tensor"),
    ({"h.2.ln_1.bias": np.zeros(32)}, "transformer.h.2.ln_1.bias: a tensor that the model of"),
    ({"h.0.mlp.c_fc.weight": np.zeros((128, 32))}, r"c_fc.weight: .* \(32, 128\), got \(128, 32\)"),
    ({"wpe.weight": np.zeros((73, 32), "int32")}, "transformer.wpe.weight: expected one of F64"),
]


@pytest.mark.parametrize("changes, message", BAD_TENSORS)
def test_tensors_that_are_not_the_configs_are_refused_by_name(
    folder, nothing_is_built, changes, message
):
    edit_tensors(folder, **changes)
    with pytest.raises(ValueError, match=message):
        load_gpt2(folder)


def test_a_head_goes_by_what_the_config_says_of_it(folder, nothing_is_built):
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"] + 1
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match="lm_head.weight: expected the values of wte.weight"):
        load_gpt2(folder)
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(AssertionError, match="a model was built"):
        load_gpt2(folder)
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors")
    edit_config(folder, tie_word_embeddings=False)
    with pytest.raises(ValueError, match="lm_head.weight: expected this tensor, found none"):
        load_gpt2(folder)


def test_a_tensor_with_and_without_prefix_is_refused(folder, nothing_is_built):
    tensors = load_file(folder / "model.safetensors")
    tensors["ln_f.bias"] = tensors["transformer.ln_f.bias"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match="ln_f.bias: expected ln_f.bias once, found it twice"):
        load_gpt2(folder)


@pytest.mark.parametrize("size", [0, 5, 200, -1])
def test_a_file_that_was_cut_short_is_refused(folder, nothing_is_built, size):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match="model.safetensors: cut short or damaged"):
        load_gpt2(folder)


def test_missing_and_unreadable_files_are_named(folder, nothing_is_built):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="model.safetensors: no such file"):
        load_gpt2(folder)
    for content in ("{", "[]"):
        (folder / "config.json").write_text(content)
        with pytest.raises(ValueError, match="config.json: (cannot be read as|expected a) JSON"):
            load_gpt2(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match="config.json: cannot be read"):
        load_gpt2(folder)


def test_shards_that_are_not_as_listed_are_refused(tmp_path, nothing_is_built):
    folder = copy("sharded", tmp_path / "sharded")
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    places = content["weight_map"]
    name, shard = "transformer.h.1.ln_1.bias", places["transformer.h.1.ln_1.bias"]

    def load_with(weight_map):
        index.write_text(json.dumps({**content, "weight_map": weight_map}))
        load_gpt2(folder)

    with pytest.raises(ValueError, match=f"lists, but {name} is in it, and not listed"):
        load_with({key: place for key, place in places.items() if key != name})
    with pytest.raises(ValueError, match="lists, but more is not in it"):
        load_with({**places, "more": shard})
    for bad in (None, {name: "../model.safetensors"}, {name: 1}):
        with pytest.raises(ValueError, match="index.json: weight_map: expected a file of the"):
            load_with(bad)
    (folder / shard).unlink()
    with pytest.raises(ValueError, match=f"{shard}: no such file"):
        load_with(places)


# Saving.


def test_a_failure_leaves_what_was_there(monkeypatch, folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(tensors, path, metadata):
        pathlib.Path(path).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", fail)
    with pytest.raises(OSError, match="No space left"):
        save_gpt2(build_gpt2(5, 4, 1, 1, 2), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_only_a_gpt2_of_floating_point_weights_is_saved(tmp_path):
    with pytest.raises(ValueError, match="model: expected a GPT2, got RecurrentLanguageModel"):
        save_gpt2(build_language_model(5, "gru", 2, 3), tmp_path)
    model = build_gpt2(5, 4, 1, 1, 2)
    model.embedding.quantize("int8")
    with pytest.raises(ValueError, match="model: expected floating-point weights, got .* int8"):
        save_gpt2(model, tmp_path)
    assert not list(tmp_path.iterdir())
