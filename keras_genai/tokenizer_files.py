"""Tokenizers of checkpoints, in the files of the `transformers` library.

A checkpoint has its tokenizer in `tokenizer.json`, or in the two files in which GPT-2's was
published, `vocab.json` and `merges.txt`. `tokenizer_config.json` or `special_tokens_map.json` names
the token that ends a text.
"""

import json

from keras_genai.files import read_json, read_text
from keras_genai.text import CharacterTokenizer, GPT2Tokenizer

TOKENIZER, CONFIG = "tokenizer.json", "tokenizer_config.json"
VOCABULARY, MERGES = "vocab.json", "merges.txt"
SPECIAL_TOKENS, ADDED_TOKENS = "special_tokens_map.json", "added_tokens.json"
TOKENIZER_FILES = (TOKENIZER, CONFIG, VOCABULARY, MERGES, SPECIAL_TOKENS, ADDED_TOKENS)


def load_tokenizer(folder, end_token=None) -> GPT2Tokenizer | None:
    """Load the tokenizer of a checkpoint.

    Args:
        folder: Path. Folder of the checkpoint.
        end_token: Int or `None`. Id of the token that ends a text if no file of the tokenizer names
            it, and the vocabulary has no <|endoftext|>. Defaults to `None`.

    Returns:
        A `GPT2Tokenizer`, `None` if the folder has no tokenizer.

    Raises:
        ValueError: for a damaged file, and for a tokenizer that is not used as its files say; it
            names the file.
        ImportError: without the extra `text`.
    """
    config = _read_optional(folder / CONFIG)
    end_of_text = _end_of_text(folder, config)
    added = _added_tokens(folder, config)
    path = folder / TOKENIZER
    if path.exists():
        tokenizer = _from_json(path, end_of_text)
    elif (folder / VOCABULARY).exists() or (folder / MERGES).exists():
        path = folder / VOCABULARY
        if end_of_text is None:
            ids = read_json(path) | added
            named = [token for token in ids if ids[token] == end_token]
            end_of_text = GPT2Tokenizer.END_OF_TEXT if GPT2Tokenizer.END_OF_TEXT in ids else None
            end_of_text = end_of_text or next(iter(named), None)
        special_tokens = sorted(added, key=added.__getitem__)
        if end_of_text is not None and end_of_text not in added:
            special_tokens.append(end_of_text)
        tokenizer = GPT2Tokenizer._from_files(
            path, folder / MERGES, special_tokens, end_of_text or GPT2Tokenizer.END_OF_TEXT
        )
    else:
        return None
    _check_ids(tokenizer, path, added)
    _check_usage(tokenizer, path, config)
    if end_of_text is not None and tokenizer.end_token is None:
        raise ValueError(f"{path}: expected the end token {end_of_text!r}, found none.")
    if tokenizer.end_token is None and end_token is not None:
        token = tokenizer._tokenizer.id_to_token(end_token)
        tokenizer.end_of_text = token or tokenizer.end_of_text
    return tokenizer


def save_tokenizer(tokenizer, folder, context_length: int | None) -> list[str]:
    """Write `tokenizer.json` and `tokenizer_config.json`, which `transformers.AutoTokenizer` reads.

    Args:
        tokenizer: `GPT2Tokenizer` or `CharacterTokenizer`.
        folder: Path. Existing folder.
        context_length: Int. Longest sequence of the model.

    Returns:
        The names of the files.

    Raises:
        ValueError: for another tokenizer.
    """
    content = tokenizer_json(tokenizer)
    end_token = getattr(tokenizer, "end_token", None)
    end_of_text = None if end_token is None else tokenizer.decode([end_token])
    published = end_of_text == GPT2Tokenizer.END_OF_TEXT
    standard = published and is_standard(json.loads(content))
    config = {
        # That of `transformers` takes vocabulary and merges only, and adds <|endoftext|>.
        "tokenizer_class": "GPT2Tokenizer" if standard else "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        "clean_up_tokenization_spaces": False,
    }
    if published:  # the token has all three roles
        config |= dict.fromkeys(("bos_token", "eos_token", "unk_token"), end_of_text)
    elif end_of_text is not None:
        config["eos_token"] = end_of_text
    (folder / TOKENIZER).write_text(content, encoding="utf-8")
    text = json.dumps(config, indent=2) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")
    return [TOKENIZER, CONFIG]


def tokenizer_json(tokenizer) -> str:
    """Return a tokenizer in the JSON format of the `tokenizers` library.

    Raises:
        ValueError: unless it is a `GPT2Tokenizer`, or a `CharacterTokenizer` that this format can
            express.
    """
    if type(tokenizer) is GPT2Tokenizer:
        return tokenizer.tokenizer_json
    if getattr(type(tokenizer), "encode", None) is not CharacterTokenizer.encode:
        raise ValueError(
            f"tokenizer: expected a GPT2Tokenizer, a CharacterTokenizer or None, got "
            f"{type(tokenizer).__name__}, which `transformers` cannot express."
        )
    vocabulary = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]
    if len(set(vocabulary)) < len(vocabulary):
        raise ValueError("tokenizer: expected one id per character, got two of U+FFFD.")
    content: dict = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": r"[\s\S]"},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": {
            "type": "WordLevel",
            "vocab": {character: i for i, character in enumerate(vocabulary)},
            # Without this token in the vocabulary, an unknown character is an error.
            "unk_token": vocabulary[0] if tokenizer.unknown == "map" else "<unk>",
        },
    }
    return json.dumps(content, ensure_ascii=False)


def _read_optional(path) -> dict:
    return read_json(path) if path.exists() else {}


def _end_of_text(folder, config) -> str | None:
    """Return the end token that the files of a tokenizer name."""
    special_tokens = _read_optional(folder / SPECIAL_TOKENS)
    for name, content in ((CONFIG, config), (SPECIAL_TOKENS, special_tokens)):
        token = content.get("eos_token")
        if isinstance(token, dict):
            token = token.get("content", 0)
        if token is not None and not isinstance(token, str):
            raise ValueError(f"{folder / name}: eos_token: expected a string, got {token!r:.60}.")
        if token is not None:
            return token
    return None


def _added_tokens(folder, config) -> dict[str, int]:
    """Return the ids of the tokens that are listed besides the vocabulary."""
    tokens = _read_optional(folder / ADDED_TOKENS)
    try:
        for i, token in config.get("added_tokens_decoder", {}).items():
            tokens[token["content"]] = int(i)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        path = folder / CONFIG
        raise ValueError(f"{path}: added_tokens_decoder: expected tokens by their ids.") from error
    for token, i in tokens.items():
        if type(i) is not int:
            raise ValueError(f"{folder / ADDED_TOKENS}: {token}: expected an id, got {i!r:.60}.")
    return tokens


def _from_json(path, end_of_text) -> GPT2Tokenizer:
    """Return the tokenizer of `tokenizer.json`."""
    content = read_json(path)
    try:
        tokenizer = GPT2Tokenizer(
            read_text(path), GPT2Tokenizer.END_OF_TEXT if end_of_text is None else end_of_text
        )
    except ValueError as error:
        raise ValueError(f"{path}: {str(error).removeprefix('tokenizer_json: ')}") from error
    added = {token["content"]: token["id"] for token in content.get("added_tokens") or []}
    _check_ids(tokenizer, path, added)  # the library would give them other ids
    return tokenizer


def _check_ids(tokenizer, path, tokens: dict[str, int]) -> None:
    """Raise ValueError unless a tokenizer has certain ids by token."""
    for token, expected in tokens.items():
        got = tokenizer._tokenizer.token_to_id(token)
        if got != expected:
            raise ValueError(f"{path}: expected {token!r} with the id {expected}, got {got}.")


def _check_usage(tokenizer, path, config) -> None:
    """Raise ValueError unless a prompt is encoded as a text that a model can continue."""
    if tokenizer._tokenizer.post_processor is not None:
        ids = tokenizer.encode("a").tolist()
        text_ids = tokenizer._tokenizer.encode("a", add_special_tokens=False).ids
        if ids != text_ids:
            text = tokenizer.decode(ids)
            raise ValueError(
                f"{path}: post_processor: expected no token before or after a text, got {text!r} "
                "for 'a'."
            )
    if config.get("add_prefix_space") and tokenizer.encode("a").tolist() != (
        tokenizer.encode(" a").tolist()
    ):
        raise ValueError(f"{path}: add_prefix_space: expected True, as in {CONFIG}, got False.")


def is_standard(content: dict) -> bool:
    """Return whether a tokenizer is that of GPT-2, apart from its vocabulary and merges."""
    expected: dict[str, dict] = {
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE"},
    }
    same = all(
        isinstance(content.get(key), dict) and part.items() <= content[key].items()
        for key, part in expected.items()
    )
    options = ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")
    plain = not any(content["model"].get(option) for option in (*options, "byte_fallback"))
    return same and plain and not content.get("normalizer") and not content.get("post_processor")
