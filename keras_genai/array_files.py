"""Arrays on disk that are larger than memory, and caches of decoded files.

An array is mapped into memory anew for each batch, so that only the rows of the batch are held
there.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import weakref
import zlib

import numpy as np

from keras_genai.files import file_status, read_json, to_path


class DiskArray:
    """Array in a `.npy` file.

    Args:
        file: Path of the file, or binary file object, which is closed with the array.
    """

    def __init__(self, file):
        self.file = file
        with contextlib.ExitStack() as stack:
            if isinstance(file, pathlib.Path):
                file = stack.enter_context(open(file, "rb"))
            else:
                weakref.finalize(self, file.close)
            file.seek(0)
            np.lib.format.read_magic(file)
            self.shape, _, self.dtype = np.lib.format.read_array_header_1_0(file)
            self.offset = file.tell()

    def __len__(self):
        return self.shape[0]

    def map(self, mode: str = "r") -> np.memmap:
        """Return the array, mapped into memory until it is deleted."""
        return np.memmap(self.file, self.dtype, mode, self.offset, self.shape)  # type: ignore

    def __getitem__(self, index) -> np.ndarray:
        return np.array(self.map()[index])


class ArrayWriter:
    """Writer of an array `(n,)` in the format `.npy`, part by part.

    Args:
        file: Binary file object.
        dtype: Data type of the array.
    """

    def __init__(self, file, dtype):
        self.file, self.dtype, self.length = file, np.dtype(dtype), 0
        self._write_header()

    def _write_header(self):
        # NumPy leaves space in the header for a length of any number of digits.
        self.file.seek(0)
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.length,)}
        np.lib.format.write_array_header_1_0(self.file, header)

    def append(self, values: np.ndarray) -> None:
        self.file.write(np.ascontiguousarray(values, self.dtype))
        self.length += len(values)

    def finish(self) -> None:
        """Write the length. The file is not closed."""
        self._write_header()
        self.file.flush()


class CachedRows:
    """Rows of an array on disk, filled when they are first read.

    Each row has a checksum, 0 before it is there. Without the right one, as after a process was
    killed while it wrote the row, the row is read from its own file again.

    Args:
        folder: `pathlib.Path` of a folder that `create` has filled.
    """

    def __init__(self, folder: pathlib.Path):
        self.rows, self.checksums = (
            DiskArray(folder / f"{name}.npy") for name in ("rows", "checksums")
        )

    @staticmethod
    def create(folder: pathlib.Path, shape: tuple) -> None:
        """Write an array of uint8 rows in a folder, without a row yet.

        Raises:
            OSError: if there is no space for all rows.
        """
        for name, dtype, size in (("rows", "uint8", shape), ("checksums", "uint32", shape[:1])):
            path = folder / f"{name}.npy"
            np.lib.format.open_memmap(path, "w+", dtype, size)
            # A mapped file that finds the disk full would end the process.
            if hasattr(os, "posix_fallocate"):
                with open(path, "r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)

    def missing(self) -> np.ndarray:
        """Return the indices of the rows that are not there."""
        return np.flatnonzero(self.checksums[:] == 0)

    def read(self, indices, read_row) -> np.ndarray:
        """Return rows `(n, ...)`; those that are not there are those of `read_row(index)`."""
        rows, checksums = self.rows.map("r+"), self.checksums.map("r+")
        values = np.array(rows[indices])
        for value, index in zip(values, indices, strict=True):
            if checksums[index] != zlib.crc32(value):
                value[...] = read_row(index)
                rows[index] = value
                checksums[index] = zlib.crc32(value)
        return values


def digest_files(paths, root) -> tuple[str, str]:
    """Return a digest of the names and sizes of files, and one that has their times, too."""
    fingerprint, digest = hashlib.sha256(), hashlib.sha256()
    for path in paths:
        status = file_status(path)
        entry = f"{path.relative_to(root).as_posix()}\0{status.st_size}\0"
        fingerprint.update(entry.encode("utf-8", "surrogateescape"))
        digest.update(f"{entry}{status.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
    return fingerprint.hexdigest(), digest.hexdigest()


def open_cache(cache, name: str, settings: dict, create) -> pathlib.Path:
    """Return the folder of a cache, after creating it or comparing its settings.

    It is created under another name and renamed at the end, so that it is there as a whole or not
    at all. If several processes create it, the first one is kept.

    Args:
        cache: String or path of a folder, which is created.
        name: String. Name of the folder within it.
        settings: Dict. What the contents depend on; JSON-serializable.
        create: Function from a `pathlib.Path` that writes the files of the cache to that folder.

    Raises:
        ValueError: for a cache of other files or settings, and for a path of a file.
        OSError: if the folder cannot be written.
    """
    cache = to_path(cache, "cache")
    if cache.exists() and not cache.is_dir():
        raise ValueError(f"cache: expected the path of a folder, got the file {cache}.")
    cache.mkdir(parents=True, exist_ok=True)
    folder, prefix = cache / name, f"unfinished-{name}-"
    settings = json.loads(json.dumps(settings))
    if not folder.exists():
        unfinished = pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=cache))
        try:
            create(unfinished)
            (unfinished / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
            os.rename(unfinished, folder)
        except OSError:
            if not folder.exists():  # it was not created by another process meanwhile
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    found = read_json(folder / "settings.json")
    if found != settings:
        different = [key for key in settings if found.get(key) != settings[key]]
        raise ValueError(
            f"cache: expected a new folder or a cache of the same files and settings, "
            f"got {folder} of other {' and '.join(different)}."
        )
    for unfinished in cache.glob(f"{prefix}*"):  # of a process that was killed
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder
