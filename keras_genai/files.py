"""Files of the user: found in folders, checked before they are opened, replaced in one step."""

import codecs
import contextlib
import errno
import io
import json
import os
import pathlib
import stat
import warnings

MAX_BYTES = 2**30
MIN_FILES = 10

# Files and folders that systems and archives add, besides those with a leading dot.
SYSTEM_NAMES = {
    "__macosx",
    "$recycle.bin",
    "@eadir",
    "desktop.ini",
    "ehthumbs.db",
    "system volume information",
    "thumbs.db",
}
KINDS = {
    stat.S_IFDIR: "folder",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}
SHOWN_NAMES = 5  # in a message


def to_path(path, name: str = "path") -> pathlib.Path:
    """Return a path as a `pathlib.Path`.

    Args:
        path: String or path.
        name: String. Name of the argument for the error message. Defaults to `"path"`.

    Raises:
        ValueError: for another type, an empty string, or a string with a NUL character.
    """
    if not isinstance(path, (str, os.PathLike)) or not str(path) or "\0" in str(path):
        raise ValueError(f"{name}: expected a string or a path, got {path!r:.200}.")
    return pathlib.Path(path)


def file_status(path) -> os.stat_result:
    """Return the status of a regular file.

    Raises:
        ValueError: for a missing file, and for a folder, FIFO or device, which would block or never
            end.
    """
    path = to_path(path)
    try:
        status = path.stat()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}).") from error
    if not stat.S_ISREG(status.st_mode):
        kind = KINDS.get(stat.S_IFMT(status.st_mode), "special file")
        raise ValueError(f"{path}: cannot be read: expected a file, got a {kind}.")
    return status


def read_bytes(path) -> bytes:
    """Return the contents of a regular file.

    Raises:
        ValueError: for a missing or unreadable file, for a folder, FIFO or device, and for a file
            of more than 1 GiB.
    """
    path, size = to_path(path), file_status(path).st_size
    if size > MAX_BYTES:
        raise ValueError(
            f"{path}: cannot be read: expected at most {MAX_BYTES:,} bytes, got {size:,}."
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}).") from error


def read_text(path) -> str:
    r"""Return the contents of a text file, with line ends as `\n`.

    The encoding is UTF-8, or UTF-16 if the file begins with the byte order mark of UTF-16.

    Raises:
        ValueError: for a file that cannot be read, for another encoding, and for a NUL character.
    """
    data = read_bytes(path)
    utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if utf_16 else "utf-8-sig")  # both drop the mark
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: cannot be read as a text in UTF-8 ({error}).") from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:  # another encoding, such as UTF-32, or a binary file
        line = 1 + text.count("\n", 0, text.index("\0"))
        raise ValueError(
            f"{path}: cannot be read as a text in UTF-8 (a NUL character in line {line})."
        )
    return text


def read_text_pieces(path, size: int = 2**20):
    """Yield the contents of a text file of any size in pieces; see `read_text`.

    Args:
        path: String or path.
        size: Int. Number of bytes that are read for a piece. Defaults to `2**20`.

    Raises:
        ValueError: as `read_text`, but for no size of the file.
    """
    path, line = to_path(path), 1
    file_status(path)
    try:
        with open(path, "rb") as file:
            start = file.read(2)
            file.seek(0)
            utf_16 = start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
            decode = codecs.getincrementaldecoder("utf-16" if utf_16 else "utf-8-sig")()
            decoder = io.IncrementalNewlineDecoder(decode, translate=True)
            data = None
            while data != b"":
                data = file.read(size)
                piece = decoder.decode(data, final=not data)
                if "\0" in piece:
                    line += piece.count("\n", 0, piece.index("\0"))
                    raise ValueError(
                        f"{path}: cannot be read as a text in UTF-8 (a NUL character in line "
                        f"{line})."
                    )
                line += piece.count("\n")
                if piece:
                    yield piece
    except UnicodeDecodeError as error:
        line += error.object.count(b"\n", 0, error.start)
        raise ValueError(
            f"{path}: cannot be read as a text in UTF-8 ({error.reason} in line {line})."
        ) from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}).") from error


def save_text(path, text: str) -> None:
    """Write a text file in UTF-8 in one step; see `replace_file`."""
    with replace_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def read_json(path) -> dict:
    """Return the JSON object of a file; raise ValueError with its path for other contents."""
    text = read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read as JSON ({error}).") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(content).__name__}.")
    return content


def find_files(folder, suffixes: tuple[str, ...], description: str, min_files: int = MIN_FILES):
    """Find the files of a folder or of its class subfolders.

    Hidden files and folders, and those that systems and archives add (`SYSTEM_NAMES`), are ignored.
    Other files, and class folders without a file of the suffixes, are named in a warning. Links to
    files and folders are followed.

    Args:
        folder: String or path.
        suffixes: Strings in lowercase, such as `(".wav",)`.
        description: String. What the files are, in the plural, for messages.
        min_files: Int. Number of files that are needed. Defaults to `10`.

    Returns:
        The sorted paths, and the class name of each, or `None` if there are no class folders.

    Raises:
        ValueError: for too few files, for files beside class folders, for files in deeper folders
            only, and for a folder that is found twice by links.
    """
    folder = to_path(folder, "folder")
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder of {description}, found none.")
    folders, files = _walk(folder)
    paths = sorted(path for path in files if path.suffix.lower() in suffixes)
    skipped = sorted(set(files) - set(paths))
    if len(paths) < min_files:
        others = f", and {_shown(skipped, folder)}" if skipped else ""
        raise ValueError(
            f"{folder}: expected at least {min_files} {description}, found {len(paths)}{others}."
        )
    depths = {len(path.relative_to(folder).parts) for path in paths}
    class_names = None
    if depths != {1}:
        if 1 in depths:
            raise ValueError(
                f"{folder}: expected {description}, or folders of {description}, found both."
            )
        if min(depths) > 2:  # such as train/cats/1.png, whose class is not "train"
            raise ValueError(
                f"{folder}: expected {description} in the folder of each class, found them in "
                f"deeper folders only, such as {paths[0].parent}."
            )
        class_names = [path.relative_to(folder).parts[0] for path in paths]
        skipped += [
            path for path in folders if path.parent == folder and path.name not in class_names
        ]
    if skipped:
        warnings.warn(
            f"{folder}: skipped {len(skipped)}, not {description}: {_shown(skipped, folder)}.",
            stacklevel=3,
        )
    return paths, class_names


def _shown(paths, folder) -> str:
    """Return the first paths, relative to the folder, for a message."""
    names = [str(path.relative_to(folder)) for path in paths[:SHOWN_NAMES]]
    return ", ".join(names if len(paths) <= SHOWN_NAMES else [*names, "…"])


def _walk(root: pathlib.Path) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """Return the folders below a folder, and the files in all of them, without hidden ones."""
    found = {root.resolve(): root}
    folders, files, queue = [], [], [root]
    while queue:
        try:
            paths = sorted(queue.pop().iterdir())
        except OSError as error:
            raise ValueError(f"{error.filename}: cannot be read ({error.strerror}).") from error
        for path in paths:
            if path.name.startswith(".") or path.name.lower() in SYSTEM_NAMES:
                continue
            if not path.is_dir():
                files.append(path)
                continue
            target = path.resolve()
            if target in found:  # a loop of links, or the same files under two labels
                raise ValueError(f"{path}: a link to a folder that is found as {found[target]}.")
            found[target] = path
            folders.append(path)
            queue.append(path)
    return sorted(folders), files


@contextlib.contextmanager
def replace_file(path):
    """Write a file in one step: an interruption or an error leaves the old file or the new one.

    Args:
        path: String or path of the file. A link is followed.

    Yields:
        A `pathlib.Path` in the same folder, to write to. It replaces `path` at the end of the
        block, and is removed after an error.

    Raises:
        ValueError: if `path` is a folder, FIFO or device.
        OSError: if the file cannot be written.
    """
    path = to_path(path).resolve()
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: cannot be written: expected a file, got a folder or a device.")
    unfinished = path.with_name(f"unfinished-{path.name}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    except OSError as error:  # those of HDF5 may have neither a number nor a reason
        reason = error.strerror or " ".join(str(error).split())
        raise OSError(error.errno or errno.EIO, reason, str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()
