"""GPT-2 in a GGUF file, for llama.cpp and the programs around it, such as Ollama and LM Studio.

Keys and tensors are those that llama.cpp reads for its architecture "gpt2":
https://github.com/ggml-org/llama.cpp/blob/master/src/models/gpt2.cpp
Its own converter knows published tokenizers only, by a hash of the token ids of one text.
"""

import importlib
import json

import numpy as np

from keras_genai.files import replace_file, to_path
from keras_genai.gpt2 import ACTIVATIONS, gelu_new
from keras_genai.gpt2_checkpoint import checkpoint_tensors
from keras_genai.text import GPT2Tokenizer
from keras_genai.tokenizer_files import is_standard


def save_gguf(model, path) -> None:
    """Save a GPT-2 and its tokenizer in one GGUF file, which llama.cpp generates text from.

    The weights are saved in float32; `llama-quantize` of llama.cpp makes smaller files of it. LoRA
    updates are merged into the kernels. Rows of a padded vocabulary that belong to no token are
    left out. An existing file is replaced once the new one is complete.

    Args:
        model: `GPT2`. Model to save, with the activation `"gelu_new"`, the only one of llama.cpp's
            GPT-2, and with a `GPT2Tokenizer` that splits texts as the published one does.
        path: String or path. Path of the file, which usually ends in `.gguf`.

    Raises:
        ValueError: for another model class, activation or tokenizer, and for quantized weights.
        OSError: if the file cannot be written.
        ImportError: without the extra `gpt2`.

    Example:
        save_gguf(pretrained.load("article4-gpt2"), "gpt2.gguf")
    """
    gguf = _import_gguf()
    path = to_path(path)
    tensors = checkpoint_tensors(model)
    config, tokenizer = model.config, model.tokenizer
    if ACTIVATIONS[config["activation"]] is not gelu_new:
        raise ValueError(f"model: expected the activation gelu_new, got {config['activation']}.")
    tokens, types, merges = _vocabulary(tokenizer, gguf.TokenType)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, config["num_layers"])

    with replace_file(path) as unfinished:
        writer = gguf.GGUFWriter(unfinished, "gpt2")
        writer.add_name(model.name)
        writer.add_file_type(gguf.LlamaFileType.ALL_F32)
        writer.add_context_length(config["context_length"])
        writer.add_block_count(config["num_layers"])
        writer.add_head_count(config["num_heads"])
        writer.add_embedding_length(config["d_model"])
        writer.add_feed_forward_length(config["dff"])
        writer.add_layer_norm_eps(config["layer_norm_epsilon"])
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")  # the regular expression that splits texts
        writer.add_token_list(tokens)
        writer.add_token_types(types)
        writer.add_token_merges(merges)
        writer.add_bos_token_id(tokenizer.end_token)
        writer.add_eos_token_id(tokenizer.end_token)
        writer.add_add_bos_token(False)
        for name, array in tensors.items():
            if name.endswith(("wte.weight", "lm_head.weight")):
                array = array[: len(tokens)]
            elif ".c_" in name:
                array = array.T  # (in, out) → (out, in)
            gguf_name = names.get_name(name, (".weight", ".bias"))
            writer.add_tensor(gguf_name, np.ascontiguousarray(array, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _vocabulary(tokenizer, types) -> tuple[list[str], list[int], list[str]]:
    """Return the tokens of a tokenizer, their types, and the merges in order.

    Raises:
        ValueError: unless llama.cpp encodes each text as the tokenizer does.
    """
    if type(tokenizer) is not GPT2Tokenizer:
        got = None if tokenizer is None else type(tokenizer).__name__
        raise ValueError(f"model: expected the tokenizer a GPT2Tokenizer, got {got}.")
    if tokenizer.end_token is None:
        raise ValueError("model: expected a tokenizer with an end token, got one without.")
    content = json.loads(tokenizer.tokenizer_json)
    merges = content["model"].get("merges")
    added = content["added_tokens"]
    trimmed = any(token[key] for token in added for key in ("lstrip", "rstrip", "single_word"))
    if not is_standard(content) or not merges or trimmed:
        raise ValueError(
            "model: expected a tokenizer that splits texts as that of GPT-2 and has merges, got "
            "another."
        )
    ids = content["model"]["vocab"] | {token["content"]: token["id"] for token in added}
    tokens = sorted(ids, key=ids.__getitem__)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in merges]
    token_types = [types.NORMAL] * len(tokens)
    for token in added:
        token_types[token["id"]] = types.CONTROL if token["special"] else types.USER_DEFINED
    return tokens, token_types, merges


def _import_gguf():
    try:
        return importlib.import_module("gguf")
    except ImportError as error:
        raise ImportError('GGUF files need an extra: pip install "keras_genai[gpt2]".') from error
