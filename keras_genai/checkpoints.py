"""GPT-2 checkpoints of the `transformers` library, in and out.

A checkpoint is a folder: `config.json`, and the tensors in `model.safetensors` or in shards that
`model.safetensors.index.json` lists. Their names and layout are those of `GPT2LMHeadModel`
(https://github.com/huggingface/transformers/blob/main/src/transformers/models/gpt2/modeling_gpt2.py):

    wte, wpe                         embeddings of tokens and positions
    h.0.ln_1, h.0.attn.c_attn        norm; queries, keys and values side by side, (d, 3 d)
    h.0.attn.c_proj, h.0.ln_2        projection of the heads; norm
    h.0.mlp.c_fc, h.0.mlp.c_proj     dff wide, and back
    ln_f, lm_head                    norm; the head, (vocab_size, d), if it is not tied to wte

Its dense layers are `Conv1D`, whose matrices are (in, out) as in Keras: none but the head is
transposed. `transformers` writes "transformer." before every name but lm_head's; the first
published files have no prefix, and buffers of the causal mask, which are left out.
"""

import json
import os
import pathlib
import re
import tempfile
import typing
import warnings

import numpy as np
from keras import layers, ops

from keras_genai.gpt2 import ACTIVATIONS, GPT2
from keras_genai.inputs import check_choice, check_share, check_size

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PREFIX, HEAD = "transformer.", "lm_head.weight"
BUFFER = re.compile(r"h\.\d+\.attn\.(masked_)?bias")
# Types of tensors, as safetensors and NumPy name them.
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# A builder's sizes by the keys of a config, which must have them all.
SIZES = {
    "vocab_size": "vocab_size",
    "n_positions": "context_length",
    "n_layer": "num_layers",
    "n_head": "num_heads",
    "n_embd": "d_model",
}
# What else a config may have, and what `transformers` takes if it does not.
DROPOUTS = {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1}
# Keys that would change the arithmetic, with the one value that `GPT2` has.
FIXED = {
    "model_type": "gpt2",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}


def load_gpt2(source, tokenizer=None) -> GPT2:
    """Load a GPT-2 that `transformers` or `save_gpt2` has written.

        model = load_gpt2("gpt2", GPT2Tokenizer.gpt2())
        model.generate("Once upon a time")

    Args:
        source: a folder, or the name of a checkpoint on huggingface.co, which is fetched once:
            "gpt2", "gpt2-medium", "distilbert/distilgpt2". A folder that exists is a folder.
        tokenizer: of the text that the model reads and writes.

    Returns:
        A `GPT2`, in Keras's own precision whatever the file's.

    Raises:
        ValueError: for no such folder or name; a config that lacks a key or asks for what `GPT2`
            does not do; a missing, surplus or misshapen tensor; a missing or damaged file. All of
            it is checked before the model is built.
        ImportError: without the extra `gpt2`.
    """
    folder = _folder(source)
    settings = _read_config(folder / CONFIG)
    tensors = _find_tensors(folder)
    _check_tensors(tensors, settings, folder)
    model = GPT2(**settings, tokenizer=tokenizer)
    for name, parts in _variables(model).items():
        array = tensors[name].read()
        array = array.T if name == HEAD else array
        for variable, part in zip(parts, np.split(array, len(parts), axis=-1)):
            variable.assign(part)
    return model


def save_gpt2(model, folder) -> None:
    """Write a checkpoint that `transformers.GPT2LMHeadModel.from_pretrained(folder)` reads.

    What LoRA has learned is merged into the matrices. Files of the same names are replaced, once
    the new ones are whole.

    Args:
        model: a `GPT2`.
        folder: made if there is none.

    Raises:
        ValueError: for another model, and for quantised weights.
        ImportError: without the extra `gpt2`.
    """
    save_file = _safetensors().numpy.save_file
    if not isinstance(model, GPT2):
        raise ValueError(f"model: expected a GPT2, got {type(model).__name__}.")
    tensors = {}
    for name, parts in _variables(model).items():
        array = np.concatenate([ops.convert_to_numpy(part) for part in parts], axis=-1)
        if array.dtype.name not in DTYPES.values():
            raise ValueError(f"model: expected floating-point weights, got {name} {array.dtype}.")
        full_name = name if name == HEAD else PREFIX + name
        # safetensors writes memory as it lies, which in a transposed view is not the order.
        tensors[full_name] = np.ascontiguousarray(array.T if name == HEAD else array)

    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as unfinished:
        unfinished = pathlib.Path(unfinished)
        dtype = tensors[PREFIX + "wte.weight"].dtype.name
        config = json.dumps(_write_config(model, dtype), indent=2) + "\n"
        (unfinished / CONFIG).write_text(config, encoding="utf-8")
        save_file(tensors, unfinished / WEIGHTS, metadata={"format": "pt"})
        for name in (WEIGHTS, CONFIG):
            os.replace(unfinished / name, folder / name)


# Config.


def _read_config(path) -> dict:
    """Return the arguments of `GPT2` that a config stands for."""
    config = _read_json(path)
    for key, value in FIXED.items():
        if config.get(key, None if key == "model_type" else value) != value:
            raise ValueError(f"{path}: {key}: expected {value!r}, got {config.get(key)!r}.")
    missing = [key for key in SIZES if key not in config]
    if missing:
        raise ValueError(f"{path}: expected the key {missing[0]}, found none.")
    for key in SIZES:
        check_size(f"{path}: {key}", config[key])
    d_model, num_heads = config["n_embd"], config["n_head"]
    if d_model % num_heads:
        raise ValueError(
            f"{path}: n_embd: expected a multiple of n_head, {num_heads}, got {d_model}."
        )
    dff = config.get("n_inner")
    if dff is not None:
        check_size(f"{path}: n_inner", dff)
    activation = config.get("activation_function", "gelu_new")
    check_choice(f"{path}: activation_function", activation, list(ACTIVATIONS))
    epsilon = config.get("layer_norm_epsilon", 1e-5)
    if not isinstance(epsilon, float) or not 0 < epsilon < 1:
        raise ValueError(
            f"{path}: layer_norm_epsilon: expected a number between 0 and 1, got {epsilon!r}."
        )
    tie_embeddings = config.get("tie_word_embeddings", True)
    check_choice(f"{path}: tie_word_embeddings", tie_embeddings, (True, False))
    rates = {key: config.get(key, default) for key, default in DROPOUTS.items()}
    for key, rate in rates.items():
        check_share(f"{path}: {key}", rate)
    if len(set(rates.values())) > 1:
        warnings.warn(
            f"{path}: {rates}: GPT2 has one rate of dropout; that of resid_pdrop is taken. It "
            "matters in training only.",
            stacklevel=3,
        )
    return {
        **{argument: config[key] for key, argument in SIZES.items()},
        "dff": dff,
        "activation": activation,
        "layer_norm_epsilon": epsilon,
        "tie_embeddings": tie_embeddings,
        "dropout": rates["resid_pdrop"],
    }


def _write_config(model, dtype: str) -> dict:
    """Return the config of a model, the reverse of `_read_config`."""
    settings = model.settings
    end_token = getattr(model.tokenizer, "end_token", None)
    if model.tokenizer is None and model.vocab_size == 50257:
        end_token = 50256  # GPT-2's own <|endoftext|>
    return {
        "architectures": ["GPT2LMHeadModel"],
        **FIXED,
        **{key: settings[argument] for key, argument in SIZES.items()},
        "n_inner": settings["dff"],
        "activation_function": settings["activation"],
        "layer_norm_epsilon": settings["layer_norm_epsilon"],
        "tie_word_embeddings": settings["tie_embeddings"],
        **{key: settings["dropout"] for key in DROPOUTS},
        "bos_token_id": end_token,
        "eos_token_id": end_token,
        "dtype": dtype,
    }


def _read_json(path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as JSON ({error}).") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(content).__name__}.")
    return content


# Tensors.


class Tensor(typing.NamedTuple):
    """A tensor of a safetensors file: its path, the open file, and the name that it has there."""

    path: pathlib.Path
    file: typing.Any
    name: str

    @property
    def shape(self) -> tuple:
        return tuple(self.file.get_slice(self.name).get_shape())

    @property
    def dtype(self) -> str:
        return self.file.get_slice(self.name).get_dtype()

    def read(self) -> np.ndarray:
        """Return it in float32 at least, which has a place for every value of the shorter ones."""
        array = self.file.get_tensor(self.name)
        return array.astype(np.result_type(array.dtype, np.float32))


def _find_tensors(folder) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by their names without prefix, without the buffers."""
    index, listed = folder / INDEX, None
    shards = [WEIGHTS]
    if not (folder / WEIGHTS).is_file() and index.is_file():
        listed = _read_json(index).get("weight_map")
        if not isinstance(listed, dict) or not all(_is_shard(s) for s in listed.values()):
            raise ValueError(f"{index}: weight_map: expected a file of the folder for each tensor.")
        shards = sorted(set(listed.values()))
    tensors = {}
    for shard in shards:
        path = folder / shard
        file = _open(path)
        names = set(file.keys())
        if listed is not None:
            expected = {name for name, place in listed.items() if place == shard}
            for name in sorted(expected ^ names):
                found = "is not in it" if name in expected else "is in it, and not listed"
                raise ValueError(f"{path}: expected what {INDEX} lists, but {name} {found}.")
        for full_name in sorted(names):
            name = full_name.removeprefix(PREFIX)
            if name in tensors:
                raise ValueError(f"{path}: {full_name}: expected {name} once, found it twice.")
            if not BUFFER.fullmatch(name):
                tensors[name] = Tensor(path, file, full_name)
    return tensors


def _is_shard(name) -> bool:
    return isinstance(name, str) and pathlib.PurePath(name).name == name


def _open(path):
    safetensors = _safetensors()
    if not path.is_file():
        raise ValueError(f"{path}: no such file.")
    try:
        return safetensors.safe_open(path, framework="np")
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path}: cut short or damaged ({error}).") from error


def _check_tensors(tensors, settings, folder) -> None:
    """Raise ValueError unless there are all tensors of the model, in its shapes, and no other."""
    shapes = _shapes(settings)
    for name in shapes:
        if name not in tensors:
            raise ValueError(f"{folder}: {name}: expected this tensor, found none.")
    for name, tensor in tensors.items():
        if name == HEAD and settings["tie_embeddings"]:
            if not np.array_equal(tensor.read(), tensors["wte.weight"].read()):
                raise ValueError(
                    f"{tensor.path}: {HEAD}: expected the values of wte.weight, as {CONFIG} has "
                    "tie_word_embeddings, got others."
                )
            continue
        label = f"{tensor.path}: {tensor.name}"
        if name not in shapes:
            raise ValueError(f"{label}: a tensor that the model of {CONFIG} does not have.")
        if tensor.shape != shapes[name]:
            raise ValueError(f"{label}: expected shape {shapes[name]}, got {tensor.shape}.")
        if tensor.dtype not in DTYPES:
            raise ValueError(f"{label}: expected one of {', '.join(DTYPES)}, got {tensor.dtype}.")


def _shapes(settings) -> dict[str, tuple]:
    """Return the shapes of a model's tensors, by their names without prefix."""
    d, vocab_size = settings["d_model"], settings["vocab_size"]
    dff = settings["dff"] or 4 * d
    shapes = {"wte.weight": (vocab_size, d), "wpe.weight": (settings["context_length"], d)}
    for i in range(settings["num_layers"]):
        for name, width, out in (
            ("attn.c_attn", d, 3 * d),
            ("attn.c_proj", d, d),
            ("mlp.c_fc", d, dff),
            ("mlp.c_proj", dff, d),
        ):
            shapes |= {f"h.{i}.{name}.weight": (width, out), f"h.{i}.{name}.bias": (out,)}
        for name in ("ln_1", "ln_2"):
            shapes |= {f"h.{i}.{name}.weight": (d,), f"h.{i}.{name}.bias": (d,)}
    shapes |= {"ln_f.weight": (d,), "ln_f.bias": (d,)}
    return shapes if settings["tie_embeddings"] else {**shapes, HEAD: (vocab_size, d)}


def _variables(model) -> dict[str, list]:
    """Return the model's variables by the names of tensors; those of c_attn lie side by side."""
    parts = {"ln_f": [model.norm]}
    for i, layer in enumerate(model.decoder_layers):
        attention = layer.attention
        parts |= {
            f"h.{i}.ln_1": [layer.attention_norm],
            f"h.{i}.attn.c_attn": [attention.query, attention.key, attention.value],
            f"h.{i}.attn.c_proj": [attention.projection],
            f"h.{i}.ln_2": [layer.feed_forward_norm],
            f"h.{i}.mlp.c_fc": [layer.inner],
            f"h.{i}.mlp.c_proj": [layer.outer],
        }
    variables = {
        "wte.weight": [model.embedding.embeddings],
        "wpe.weight": [model.positions.embeddings],
    }
    for name, found in parts.items():
        is_norm = isinstance(found[0], layers.LayerNormalization)
        weight, bias = ("gamma", "beta") if is_norm else ("kernel", "bias")
        variables[f"{name}.weight"] = [getattr(part, weight) for part in found]
        variables[f"{name}.bias"] = [getattr(part, bias) for part in found]
    if not model.settings["tie_embeddings"]:
        variables[HEAD] = [model.embedding.reverse_embeddings]
    return variables


# Files.


def _folder(source) -> pathlib.Path:
    """Return the folder of a checkpoint, fetched if `source` is no folder."""
    folder = pathlib.Path(source)
    if folder.is_dir():
        return folder
    if not isinstance(source, str):
        raise ValueError(f"{source}: no such folder.")
    try:
        return pathlib.Path(_download(source))
    except (OSError, ValueError) as error:  # as huggingface_hub's own errors are
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{source}: no such folder, and no checkpoint of this name could be fetched from "
            f"huggingface.co ({reason})."
        ) from error


def _download(name: str) -> str:
    """Return the folder where huggingface_hub keeps a checkpoint, fetched if it is not there."""
    patterns = [CONFIG, WEIGHTS, INDEX, "model-*.safetensors"]
    return _extra("huggingface_hub").snapshot_download(name, allow_patterns=patterns)


def _safetensors():
    _extra("safetensors.numpy")
    return _extra("safetensors")


def _extra(module: str):
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            'Checkpoints of GPT-2 need an extra: pip install "keras_genai[gpt2]".'
        ) from error
