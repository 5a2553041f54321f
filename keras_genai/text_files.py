"""Texts larger than memory: read in pieces, and encoded to tokens on disk."""

import contextlib
import hashlib
import json
import pathlib
import re
import tempfile

import numpy as np

from keras_genai.array_files import ArrayWriter, DiskArray, digest_files, open_cache
from keras_genai.files import file_status, find_files, read_text_pieces, to_path
from keras_genai.streamed_arrays import StreamedArray
from keras_genai.validation import check_methods, check_range

PIECE = 2**20  # bytes of a file, and characters to encode
MAX_PIECE = 2**26  # without a boundary of tokens
CONTEXT = 256  # characters on each side of a boundary, with which it is checked
TAIL = 2**14  # characters at the end of a piece, in which a boundary is searched for first
MAX_CHECKS = 64  # of boundaries
BOUNDARY = re.compile(r"(?<=[^\W_])(?=[\W_])")  # after a letter or digit, before another character


def find_texts(path) -> list[pathlib.Path]:
    """Return a text file, or the `.txt` files of a folder in the order of their names.

    Raises:
        ValueError: for a path that is neither, for a folder without such files, and for files in
            folders below it.
    """
    path = to_path(path)
    if not path.is_dir():
        file_status(path)
        return [path]
    paths, class_names = find_files(path, (".txt",), "text files", min_files=1)
    if class_names is not None:
        raise ValueError(f"{path}: expected text files, found them in folders below it.")
    return paths


def read_texts(paths):
    """Yield the contents of text files in pieces; a line end follows each file that lacks one."""
    for path in paths:
        end = "\n"
        for piece in read_text_pieces(path, PIECE):
            yield piece
            end = piece[-1]
        if end != "\n" and path != paths[-1]:
            yield "\n"


def read_start(paths, length: int) -> str:
    """Return the first characters of text files."""
    text = ""
    for piece in read_texts(paths):
        text += piece[: length - len(text)]
        if len(text) == length:
            break
    return text


def count_characters(paths) -> tuple[int, list[str]]:
    """Return the number of all characters of text files, and the sorted different ones."""
    length, characters = 0, set()
    for piece in read_texts(paths):
        length += len(piece)
        characters.update(piece)
    return length, sorted(characters)


def encode_texts(paths, tokenizer, cut: int, cache=None) -> list[StreamedArray]:
    """Encode text files piece by piece, and keep the tokens on disk.

    Tokens are those of the two parts of the text as a whole. A piece ends after a letter or digit
    and before another character, where a token of byte-pair encoding always ends. For special
    tokens and other tokenizers, the tokens of 256 characters on both sides are compared with those
    of the two sides, and another boundary is chosen if they differ. Characters as tokens have a
    boundary everywhere.

    Args:
        paths: List of the paths of the files.
        tokenizer: Tokenizer with `encode`, `decode` and `vocab_size`; for a cache also
            `get_config`.
        cut: Int, at least 1. Number of characters of the first part.
        cache: Path of a folder, or `None` for temporary files. Defaults to `None`.

    Returns:
        A list of two `StreamedArray` of int32 tokens `(n,)`: the first part; its last token and the
        rest.

    Raises:
        ValueError: for a text that the tokenizer refuses, for a tokenizer without boundaries, and
            for a cache of other files or of another tokenizer.
        OSError: if the tokens cannot be written.
    """
    check_methods("tokenizer", tokenizer, "a tokenizer", "encode", "decode", "vocab_size")
    dtype = np.min_scalar_type(tokenizer.vocab_size - 1)
    fingerprint, digest = digest_files(paths, paths[0].parent)

    def write(train_file, test_file):
        train, test = (_Encoder(tokenizer, ArrayWriter(f, dtype)) for f in (train_file, test_file))
        position = 0
        for piece in read_texts(paths):
            split = max(0, cut - position)
            train.add(piece[:split])
            if 0 < split <= len(piece):
                test.writer.append(train.finish())
            test.add(piece[split:])
            position += len(piece)
        test.finish()

    files: list = []
    if cache is None:
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(2)]
            write(*files)
            stack.pop_all()  # the arrays close them
    else:
        check_methods("tokenizer", tokenizer, "a tokenizer with a configuration", "get_config")
        config = json.dumps(tokenizer.get_config(), sort_keys=True).encode()
        settings = {"files": digest, "tokenizer": hashlib.sha256(config).hexdigest(), "cut": cut}

        def create(folder):
            with open(folder / "train.npy", "wb") as train, open(folder / "test.npy", "wb") as test:
                write(train, test)

        folder = open_cache(cache, "text", settings, create)
        files = [folder / "train.npy", folder / "test.npy"]
    return [_stream_tokens(DiskArray(file), fingerprint) for file in files]


def _stream_tokens(tokens: DiskArray, fingerprint: str) -> StreamedArray:
    return StreamedArray(
        lambda rows: tokens[rows].astype("int32"), tokens.shape, "int32", fingerprint
    )


def token_windows(tokens: StreamedArray, window: int) -> tuple[StreamedArray, StreamedArray]:
    """Return the adjacent windows of a text `(n, window)`, and those of the next tokens."""
    shape = ((len(tokens) - 1) // window, window)

    def windows(first):
        return StreamedArray(
            lambda rows: tokens.read(first + window * rows[:, None] + np.arange(window)),
            shape,
            "int32",
            tokens.fingerprint,
        )

    return windows(0), windows(1)


class _Encoder:
    """Encoder of a text that is added in pieces."""

    def __init__(self, tokenizer, writer: ArrayWriter):
        self.tokenizer, self.writer = tokenizer, writer
        self.text, self.position, self.last_token = "", 0, np.empty(0, "int32")

    def add(self, piece: str) -> None:
        self.text += piece
        end = self._find_boundary() if len(self.text) >= PIECE else 0
        if end:
            self._write(end)
        elif len(self.text) > MAX_PIECE:
            raise ValueError(
                "tokenizer: expected one that encodes the parts of a text as the whole, got one "
                f"without a boundary in {len(self.text):,} characters."
            )

    def finish(self) -> np.ndarray:
        """Encode the rest, and return the last token `(1,)`."""
        if self.text:
            self._write(len(self.text))
        self.writer.finish()
        return self.last_token

    def _write(self, end: int) -> None:
        try:
            tokens = np.asarray(self.tokenizer.encode(self.text[:end]))
        except ValueError as error:
            raise ValueError(f"text from character {self.position:,} on: {error}") from error
        check_range("tokenizer", tokens, self.tokenizer.vocab_size, "token ids")
        self.writer.append(tokens)
        self.text, self.position = self.text[end:], self.position + end
        self.last_token = tokens[-1:]

    def _find_boundary(self) -> int:
        """Return the last boundary with a context on both sides, or 0."""
        if hasattr(self.tokenizer, "characters"):
            return len(self.text)
        last = len(self.text) - CONTEXT
        for first in (max(CONTEXT, last - TAIL), CONTEXT):
            candidates = [match.start() for match in BOUNDARY.finditer(self.text, first, last)]
            for end in candidates[: -MAX_CHECKS - 1 : -1]:
                if self._is_boundary(end):
                    return end
        return 0

    def _is_boundary(self, end: int) -> bool:
        sides = self.text[end - CONTEXT : end], self.text[end : end + CONTEXT]
        tokens = [self.tokenizer.encode(text) for text in (*sides, "".join(sides))]
        return np.array_equal(np.concatenate(tokens[:2]), tokens[2])
