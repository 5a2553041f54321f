"""GPT-2 checkpoints in the format of the `transformers` library, loading and saving.

A checkpoint is a folder with `config.json`, the tensors, in `model.safetensors` or in shards that
`model.safetensors.index.json` lists, and the files of its tokenizer (`tokenizer_files`). Names and
layout of the tensors are those of `GPT2LMHeadModel` in
https://github.com/huggingface/transformers/blob/main/src/transformers/models/gpt2/modeling_gpt2.py

    wte, wpe                         token and position embeddings
    h.0.ln_1, h.0.attn.c_attn        layer norm; query, key and value side by side, (d, 3 d)
    h.0.attn.c_proj, h.0.ln_2        output projection of the attention; layer norm
    h.0.mlp.c_fc, h.0.mlp.c_proj     feed-forward network: d → dff → d
    ln_f, lm_head                    layer norm; output layer (vocab_size, d), if not tied to wte

Its dense layers are `Conv1D`, with kernels (in, out) as in Keras: only lm_head is transposed.
`transformers` puts the prefix "transformer." before every name except lm_head. The files first
published have no prefix, and contain buffers of the causal mask, which are ignored.
"""

import importlib
import json
import os
import pathlib
import re
import tempfile
import typing
import warnings

import numpy as np
from keras import layers, ops

from keras_genai.files import read_json, to_path
from keras_genai.gpt2 import ACTIVATIONS, GPT2
from keras_genai.text import GPT2Tokenizer, check_tokenizer
from keras_genai.tokenizer_files import (
    TOKENIZER_FILES,
    load_tokenizer,
    save_tokenizer,
    tokenizer_json,
)
from keras_genai.validation import check_choice, check_fraction, check_size

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PREFIX, LM_HEAD = "transformer.", "lm_head.weight"
BUFFER = re.compile(r"h\.\d+\.attn\.(masked_)?bias")
# Data types of tensors: names of safetensors and NumPy.
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# Required keys of a checkpoint's config, and the arguments of `GPT2` they correspond to.
SIZES = {
    "vocab_size": "vocab_size",
    "n_positions": "context_length",
    "n_layer": "num_layers",
    "n_head": "num_heads",
    "n_embd": "d_model",
}
# Optional keys, with the defaults of `transformers`.
DROPOUT_RATES = {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1}
# Keys that change the computation, with the only value that `GPT2` implements.
FIXED = {
    "model_type": "gpt2",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}


def load_gpt2(source, tokenizer="auto") -> GPT2:
    """Load a GPT-2 checkpoint saved by `transformers` or by `save_gpt2`.

    Config and tensors are validated before the model is built.

    Args:
        source: String or path. A folder, or the name of a checkpoint on huggingface.co, which is
            downloaded once: `"gpt2"`, `"gpt2-medium"`, `"distilbert/distilgpt2"`. An existing
            folder takes precedence.
        tokenizer: Tokenizer of the model's text; `"auto"` for that of the checkpoint, in
            `tokenizer.json` or in `vocab.json` and `merges.txt`, `None` if it has none; or `None`.
            Defaults to `"auto"`.

    Returns:
        A `GPT2` with weights in Keras's default precision, whatever the precision of the file.

    Raises:
        ValueError: for an unknown folder or name; a config that lacks a key or requires what `GPT2`
            does not implement; a missing, unexpected or misshapen tensor, or one with NaN; a
            tokenizer with more tokens than the model, or one whose files disagree; a missing or
            damaged file.
        ImportError: without the extra `gpt2`.

    Example:
        model = load_gpt2("gpt2")
        model.generate("Once upon a time")
    """
    automatic = isinstance(tokenizer, str) and tokenizer == "auto"
    if isinstance(tokenizer, str) and not automatic:
        raise ValueError(f"tokenizer: expected 'auto', a tokenizer or None, got {tokenizer!r:.60}.")
    folder = _find_folder(source)
    arguments = _read_config(folder / CONFIG)
    tensors = _find_tensors(folder)
    _check_tensors(tensors, arguments, folder)
    if automatic:
        tokenizer = _load_tokenizer(folder, arguments["vocab_size"])
    model = GPT2(**arguments, tokenizer=tokenizer)
    for name, variables in _variables(model).items():
        array = tensors[name].read()
        if not np.all(np.isfinite(array)):
            raise ValueError(
                f"{tensors[name].path}: {tensors[name].name}: expected finite numbers, got NaN or "
                "infinity."
            )
        array = array.T if name == LM_HEAD else array
        for variable, part in zip(variables, np.split(array, len(variables), axis=-1), strict=True):
            variable.assign(part)
    return model


def save_gpt2(model, folder) -> None:
    """Save a checkpoint that `transformers.GPT2LMHeadModel.from_pretrained(folder)` can load.

    The model's tokenizer is saved with it, for `transformers.AutoTokenizer.from_pretrained(folder)`
    and for `load_gpt2`: a `CharacterTokenizer` is loaded as a `GPT2Tokenizer` with the same ids.
    With a `GPT2Tokenizer`, `ct2-transformers-converter --model FOLDER` converts it for CTranslate2.
    LoRA updates are merged into the kernels. Existing files, also those of another tokenizer, are
    replaced once the new ones are complete.

    Args:
        model: `GPT2`. Model to save.
        folder: String or path. Folder of the checkpoint, created if it does not exist.

    Raises:
        ValueError: for another model class, for quantized weights, for a tokenizer that
            `transformers` cannot express, and for a model without a tokenizer in a folder with one.
        ImportError: without the extra `gpt2`.
    """
    save_file = _import_safetensors().numpy.save_file
    tensors = checkpoint_tensors(model)
    folder = to_path(folder, "folder")
    existing = [name for name in TOKENIZER_FILES if (folder / name).exists()]
    if model.tokenizer is not None:
        tokenizer_json(model.tokenizer)  # raises before a file is written
    elif existing:
        raise ValueError(
            f"folder: {folder}: expected no tokenizer, as the model has none, found {existing[0]}. "
            "Remove it, or set model.tokenizer to the one that it belongs to."
        )

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as unfinished:
        unfinished = pathlib.Path(unfinished)
        dtype = tensors[PREFIX + "wte.weight"].dtype.name
        config = json.dumps(_checkpoint_config(model, dtype), indent=2) + "\n"
        (unfinished / CONFIG).write_text(config, encoding="utf-8")
        save_file(tensors, unfinished / WEIGHTS, metadata={"format": "pt"})
        names = [WEIGHTS, CONFIG]
        if model.tokenizer is not None:
            names += save_tokenizer(model.tokenizer, unfinished, model.context_length)
        for name in names:
            os.replace(unfinished / name, folder / name)
        for name in set(existing) - set(names):
            (folder / name).unlink()


# Config.


def _read_config(path) -> dict:
    """Return the arguments of `GPT2` that correspond to a checkpoint's config."""
    config = read_json(path)
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
    rates = {key: config.get(key, default) for key, default in DROPOUT_RATES.items()}
    for key, rate in rates.items():
        check_fraction(f"{path}: {key}", rate)
    if len(set(rates.values())) > 1:
        warnings.warn(
            f"{path}: {rates}: GPT2 has one dropout rate; resid_pdrop is used. It matters in "
            "training only.",
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


def _checkpoint_config(model, dtype: str) -> dict:
    """Return a checkpoint's config of a model, the inverse of `_read_config`."""
    end_token = getattr(model.tokenizer, "end_token", None)
    if model.tokenizer is None and model.vocab_size == 50257:
        end_token = 50256  # <|endoftext|> of the published GPT-2
    end_of_text = getattr(model.tokenizer, "end_of_text", GPT2Tokenizer.END_OF_TEXT)
    begins_texts = end_of_text == GPT2Tokenizer.END_OF_TEXT  # another end token may not
    return {
        "architectures": ["GPT2LMHeadModel"],
        **FIXED,
        **{key: model.config[argument] for key, argument in SIZES.items()},
        "n_inner": model.config["dff"],
        "activation_function": model.config["activation"],
        "layer_norm_epsilon": model.config["layer_norm_epsilon"],
        "tie_word_embeddings": model.config["tie_embeddings"],
        **dict.fromkeys(DROPOUT_RATES, model.config["dropout"]),
        "bos_token_id": end_token if begins_texts else None,
        "eos_token_id": end_token,
        "dtype": dtype,
    }


def _load_tokenizer(folder, vocab_size: int):
    """Return the tokenizer of a checkpoint, `None` if it has none."""
    if any((folder / name).exists() for name in TOKENIZER_FILES):
        _import_extra("tokenizers")
    end_token = read_json(folder / CONFIG).get("eos_token_id")
    if type(end_token) is not int or not 0 <= end_token < vocab_size:
        end_token = None  # absent, or a list
    tokenizer = load_tokenizer(folder, end_token)
    check_tokenizer(f"{folder}: tokenizer", tokenizer, vocab_size, padded=True)
    return tokenizer


# Tensors.


class Tensor(typing.NamedTuple):
    """A tensor of a safetensors file.

    Attributes:
        path: Path of the file.
        file: Open safetensors file.
        name: String. Name of the tensor in the file.
    """

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
        """Return the array in at least float32, to which float16 and bfloat16 convert exactly."""
        array = self.file.get_tensor(self.name)
        return array.astype(np.result_type(array.dtype, np.float32))


def _find_tensors(folder) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint, without buffers, by their names without prefix."""
    index, weight_map = folder / INDEX, None
    shards = [WEIGHTS]
    if not (folder / WEIGHTS).is_file() and index.is_file():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(map(_is_file_name, weight_map.values())):
            raise ValueError(f"{index}: weight_map: expected a file of the folder for each tensor.")
        shards = sorted(set(weight_map.values()))
    tensors = {}
    for shard in shards:
        path = folder / shard
        file = _open(path)
        names = set(file.keys())
        if weight_map is not None:
            listed = {name for name, file_name in weight_map.items() if file_name == shard}
            for name in sorted(listed ^ names):
                problem = "is not in it" if name in listed else "is in it, and not listed"
                raise ValueError(f"{path}: expected the tensors of {INDEX}, but {name} {problem}.")
        for full_name in sorted(names):
            name = full_name.removeprefix(PREFIX)
            if name in tensors:
                raise ValueError(f"{path}: {full_name}: expected {name} once, found it twice.")
            if not BUFFER.fullmatch(name):
                tensors[name] = Tensor(path, file, full_name)
    return tensors


def _is_file_name(value) -> bool:
    return isinstance(value, str) and pathlib.PurePath(value).name == value


def _open(path):
    safetensors = _import_safetensors()
    if not path.is_file():
        raise ValueError(f"{path}: no such file.")
    try:
        return safetensors.safe_open(path, framework="np")
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path}: cut short or damaged ({error}).") from error


def _check_tensors(tensors, arguments, folder) -> None:
    """Raise ValueError unless the tensors are exactly those of `GPT2(**arguments)`."""
    if arguments["num_layers"] > len(tensors):  # before a list of all their tensors is made
        raise ValueError(
            f"{folder / CONFIG}: n_layer: expected below {len(tensors)}, the number of tensors, "
            f"got {arguments['num_layers']}."
        )
    shapes = _shapes(arguments)
    for name in shapes:
        if name not in tensors:
            raise ValueError(f"{folder}: {name}: expected this tensor, found none.")
    for name, tensor in tensors.items():
        if name == LM_HEAD and arguments["tie_embeddings"]:
            if not np.array_equal(tensor.read(), tensors["wte.weight"].read()):
                raise ValueError(
                    f"{tensor.path}: {LM_HEAD}: expected the values of wte.weight, as {CONFIG} has "
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


def _shapes(arguments) -> dict[str, tuple]:
    """Return the shapes of the tensors of `GPT2(**arguments)`, by their names without prefix."""
    d, vocab_size = arguments["d_model"], arguments["vocab_size"]
    dff = arguments["dff"] or 4 * d
    shapes: dict[str, tuple] = {
        "wte.weight": (vocab_size, d),
        "wpe.weight": (arguments["context_length"], d),
    }
    for i in range(arguments["num_layers"]):
        for name, inputs, outputs in (
            ("attn.c_attn", d, 3 * d),
            ("attn.c_proj", d, d),
            ("mlp.c_fc", d, dff),
            ("mlp.c_proj", dff, d),
        ):
            shapes[f"h.{i}.{name}.weight"] = (inputs, outputs)
            shapes[f"h.{i}.{name}.bias"] = (outputs,)
        for name in ("ln_1", "ln_2"):
            shapes |= {f"h.{i}.{name}.weight": (d,), f"h.{i}.{name}.bias": (d,)}
    shapes |= {"ln_f.weight": (d,), "ln_f.bias": (d,)}
    return shapes if arguments["tie_embeddings"] else {**shapes, LM_HEAD: (vocab_size, d)}


def checkpoint_tensors(model) -> dict[str, np.ndarray]:
    """Return the tensors of a model's checkpoint; raise ValueError for quantized weights."""
    if not isinstance(model, GPT2):
        raise ValueError(f"model: expected a GPT2, got {type(model).__name__}.")
    tensors = {}
    for name, variables in _variables(model).items():
        array = np.concatenate([ops.convert_to_numpy(part) for part in variables], axis=-1)
        if array.dtype.name not in DTYPES.values():
            raise ValueError(f"model: expected floating-point weights, got {name} {array.dtype}.")
        full_name = name if name == LM_HEAD else PREFIX + name
        # Contiguous, since safetensors saves the memory of a transposed view in its old order.
        tensors[full_name] = np.ascontiguousarray(array.T if name == LM_HEAD else array)
    return tensors


def _variables(model) -> dict[str, list]:
    """Return the model's variables by the names of their tensors, those of c_attn in its order."""
    layers_of = {"ln_f": [model.layer_norm]}
    for i, layer in enumerate(model.decoder_layers):
        attention = layer.self_attention
        layers_of |= {
            f"h.{i}.ln_1": [layer.self_attention_layer_norm],
            f"h.{i}.attn.c_attn": [attention.query, attention.key, attention.value],
            f"h.{i}.attn.c_proj": [attention.output_dense],
            f"h.{i}.ln_2": [layer.feedforward_layer_norm],
            f"h.{i}.mlp.c_fc": [layer.feedforward_intermediate_dense],
            f"h.{i}.mlp.c_proj": [layer.feedforward_output_dense],
        }
    variables = {
        "wte.weight": [model.embedding.embeddings],
        "wpe.weight": [model.position_embedding.embeddings],
    }
    for name, parts in layers_of.items():
        is_norm = isinstance(parts[0], layers.LayerNormalization)
        weight, bias = ("gamma", "beta") if is_norm else ("kernel", "bias")
        variables[f"{name}.weight"] = [getattr(part, weight) for part in parts]
        variables[f"{name}.bias"] = [getattr(part, bias) for part in parts]
    if not model.config["tie_embeddings"]:
        variables[LM_HEAD] = [model.embedding.reverse_embeddings]
    return variables


# Files.


def _find_folder(source) -> pathlib.Path:
    """Return the folder of a checkpoint, downloaded if `source` is not a folder."""
    folder = to_path(source, "source")
    if folder.is_dir():
        return folder
    if not isinstance(source, str):
        raise ValueError(f"source: {source}: no such folder.")
    try:
        return pathlib.Path(_download(source))
    except (OSError, ValueError) as error:  # base classes of the errors of huggingface_hub
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"source: {source}: no such folder, and no checkpoint of this name could be downloaded "
            f"from huggingface.co ({reason})."
        ) from error


def _download(name: str) -> str:
    """Return the cache folder of a checkpoint, downloaded if it is not in the cache."""
    patterns = [CONFIG, WEIGHTS, INDEX, "model-*.safetensors", *TOKENIZER_FILES]
    return _import_extra("huggingface_hub").snapshot_download(name, allow_patterns=patterns)


def _import_safetensors():
    _import_extra("safetensors.numpy")
    return _import_extra("safetensors")


def _import_extra(module: str):
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            'Checkpoints of GPT-2 need an extra: pip install "keras_genai[gpt2]".'
        ) from error
