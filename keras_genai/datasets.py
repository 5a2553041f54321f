"""Loaders of the package's data and of images, texts, series and sounds from files.

The data is in the folder `data/` of the installed package, or beside the package in a checkout. The
environment variable KERAS_GENAI_DATA overrides the location.
"""

import csv
import hashlib
import os
import pathlib

import numpy as np
from keras.utils import img_to_array, load_img

from keras_genai.audio import load_wav
from keras_genai.validation import check_images

BOOKS = ("alice_in_wonderland.txt", "as_you_like_it.txt", "paradise_lost.txt")

SHA256 = {
    "alice_in_wonderland.txt": "cc660e04a3bef809b5436e822536cafefa278d55fb3639fb3e93665590d6fc0a",
    "as_you_like_it.txt": "eaa3526fe53859f34ecdf255712f9ecf0b2c903451d4755b2edaa2e2599cb0fc",
    "paradise_lost.txt": "d01a7d3a2e74df00993e8e487db6016ac0c4bbf86b3df5a585cae8925564bbc2",
    "tang_quatrains.txt": "d3c36c345543604aeac19fbf7941241aaeb85e278cf55fb88582e13a3504baaf",
    "gpt2/encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "gpt2/vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "co2_weekly.csv": "599638ed8670dccfdd92f64a6b3e7babee90e2529ebb5aa103004e48eb1014b5",
    "sunspots_yearly.csv": "74b8e3acb9886b68abe9c56f6081257d522e2cb2470f17dbf597b396f4ea1706",
    "en_zh.tsv": "c76523436294ee2d6cc323892933044940ed7fc345c6bc7af7e1dc7b40a05091",
    "drums_8khz.npz": "caefac9b7b00d68645011f2a1c13acd241791481541e96c1f3480ef1fa8951cc",
    "noto_sans_cjk_sc.otf": "57701bc6b0db3e6b64017d185c6590b317026e00d782efa9b2471d7d878090a6",
    "mnist.npz": "06af5dfe73b70e3bc1c36439982b18a8d76803db9b544f6fdf838a37fbb01b64",
}

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
MIN_FILES = 10
PEAK = 0.95  # of the sounds of a folder, after normalization
SILENCE = 0.001  # of full scale: -60 dB


# Files of the package.


def data_dir() -> pathlib.Path:
    """Return the directory of the package's data."""
    if os.environ.get("KERAS_GENAI_DATA"):
        return pathlib.Path(os.environ["KERAS_GENAI_DATA"])
    package = pathlib.Path(__file__).parent
    installed = package / "data"
    return installed if installed.is_dir() else package.parent / "data"


def verify_checksum(path: pathlib.Path, sha256: str) -> pathlib.Path:
    """Return the path of a file after comparing its SHA-256 checksum with the expected one.

    Args:
        path: `pathlib.Path`. The file.
        sha256: String. Expected checksum, 64 hexadecimal digits.

    Returns:
        The path.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if the checksum differs: the file is cut short or altered.
    """
    remedy = (
        "Reinstall keras_genai (pip install --force-reinstall .), or copy the file from the data "
        "folder of a fresh clone. If KERAS_GENAI_DATA is set, that folder must contain the file."
    )
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. {remedy}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise ValueError(
            f"{path}: cut short or altered: the SHA-256 of its {path.stat().st_size:,} bytes is "
            f"{found[:12]}…, expected {sha256[:12]}…. {remedy}"
        )
    return path


def data_path(name: str) -> pathlib.Path:
    """Return the path of a data file of the package after verifying its checksum.

    Args:
        name: String. Path relative to the data directory, a key of `SHA256`.

    Returns:
        A `pathlib.Path`.

    Raises:
        FileNotFoundError, ValueError: if the file is missing or damaged; see `verify_checksum`.
    """
    return verify_checksum(data_dir() / name, SHA256[name])


# Images.


def load_mnist() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Load MNIST (LeCun, Cortes & Burges): 70,000 images of handwritten digits.

    Returns:
        `((x_train, y_train), (x_test, y_test))`, all uint8: 60,000 and 10,000 images
        `(n, 28, 28)` with pixels from 0 to 255, and their digits `(n,)`.

    Raises:
        FileNotFoundError, ValueError: if the file is missing or damaged.
    """
    with np.load(data_path("mnist.npz")) as file:
        return (file["x_train"], file["y_train"]), (file["x_test"], file["y_test"])


def binarize(images, seed: int = 0) -> np.ndarray:
    """Binarize grayscale images: each pixel is a Bernoulli sample with its brightness as mean.

    Salakhutdinov & Murray 2008. Log-likelihoods of MNIST binarized this way are close, but not
    equal, to those on the fixed binarization that Larochelle published.

    Args:
        images: Array `(n, ...)`. Pixels in [0, 1].
        seed: Int. Seed of the samples. Defaults to `0`.

    Returns:
        A float32 array of the same shape, with values 0 and 1.

    Raises:
        ValueError: for pixels outside [0, 1].
    """
    images = np.asarray(images)
    check_images("images", images, images.shape[1:])
    uniform = np.random.default_rng(seed).random(images.shape, "float32")
    return (uniform < images).astype("float32")


def load_image_folder(folder, image_size: tuple[int, int] = (28, 28)):
    """Load a folder of images in the format of `load_mnist`; a random tenth is the test set.

    Args:
        folder: String or path. A folder of PNG, JPEG, BMP or GIF files, or one that has a
            subfolder of such files for each class.
        image_size: Tuple of ints, `(height, width)`. Size of the loaded images. Defaults to
            `(28, 28)`.

    Returns:
        `((x_train, y_train), (x_test, y_test))`: grayscale images, uint8 `(n, height, width)`, and
        integer labels `(n,)`, the indices of the class folders in alphabetical order. Labels are
        `None` if there are no class folders.

    Raises:
        ValueError: for fewer than 10 images, for images beside class folders, and for a file that
            cannot be read as an 8-bit image.
    """
    paths, class_names = _find_files(folder, IMAGE_SUFFIXES, "images")
    images = []
    for path in paths:
        try:
            image = load_img(path, color_mode="grayscale", target_size=image_size)
        except OSError as error:
            raise ValueError(f"{path}: cannot be read as an image ({error}).") from error
        if image.mode != "L":
            raise ValueError(f"{path}: expected 8 bits per pixel, got Pillow's mode {image.mode}.")
        images.append(img_to_array(image, dtype="uint8")[..., 0])

    x = np.stack(images)
    order = np.random.default_rng(0).permutation(len(x))
    train, test = np.split(order, [len(x) - len(x) // 10])
    if class_names is None:
        return (x[train], None), (x[test], None)
    y = np.unique(class_names, return_inverse=True)[1]
    return (x[train], y[train]), (x[test], y[test])


def _find_files(folder, suffixes, description):
    """Find the files of a folder or of its class subfolders.

    Returns:
        Their sorted paths, and the class name of each, or `None` if there are no subfolders.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder of {description}, found none.")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes)
    if len(paths) < MIN_FILES:
        raise ValueError(
            f"{folder}: expected at least {MIN_FILES} {description}, found {len(paths)}."
        )
    without_class = [path.parent == folder for path in paths]
    if all(without_class):
        return paths, None
    if any(without_class):
        raise ValueError(
            f"{folder}: expected {description}, or folders of {description}, found both."
        )
    return paths, [path.relative_to(folder).parts[0] for path in paths]


# Texts.


def load_books() -> list[str]:
    """Load the texts of Alice in Wonderland, As You Like It and Paradise Lost."""
    return [load_text(data_path(name)) for name in BOOKS]


def load_quatrains() -> list[str]:
    """Load 9,347 quatrains of the Tang dynasty, each of four verses of 5 or 7 characters."""
    return load_text(data_path("tang_quatrains.txt")).splitlines()


def load_text(path) -> str:
    """Load a UTF-8 text file, with or without a byte order mark.

    Raises:
        ValueError: if the file is empty, or not a UTF-8 text.
    """
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8-sig")  # drops a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as a text in UTF-8 ({error}).") from error
    if not text.strip():
        raise ValueError(f"{path}: expected a text, got an empty file.")
    return text


def load_translations() -> list[tuple[str, str]]:
    """Load 15,318 English sentences of LibreOffice's help with their Chinese translations."""
    return load_pairs(data_path("en_zh.tsv"))


def load_pairs(path) -> list[tuple[str, str]]:
    """Load pairs of sentences from a text file with one tab-separated pair per line.

    Empty lines are skipped.

    Raises:
        ValueError: if the file cannot be read, or if a line is not a pair.
    """
    pairs = []
    # Not str.splitlines, which also splits at characters such as U+2028 within a sentence.
    for number, line in enumerate(load_text(path).split("\n"), start=1):
        if not line:
            continue
        pair = tuple(line.split("\t"))
        if len(pair) != 2 or not all(text.strip() for text in pair):
            raise ValueError(f"{path}: expected two sentences and a tab in line {number}.")
        pairs.append(pair)
    return pairs


# Time series.


def load_co2() -> np.ndarray:
    """Load weekly CO2 at Mauna Loa, 1958 to 2001, in ppm `(2284,)`; gaps are interpolated."""
    return load_series(data_path("co2_weekly.csv"))


def load_sunspots() -> np.ndarray:
    """Load the yearly number of sunspots, 1700 to 2008, `(309,)`."""
    return load_series(data_path("sunspots_yearly.csv"))


def load_series(path) -> np.ndarray:
    """Load the last column of a CSV file with a header row; empty fields are interpolated linearly.

    Returns:
        A float32 array `(n,)`.

    Raises:
        ValueError: if the file cannot be read, or if a field is not a number.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            _, *rows = csv.reader(file)
        values = np.array([float(row[-1] or "nan") for row in rows if row])
    except (OSError, ValueError) as error:
        reason = f"expected a CSV file with a header and numbers in its last column ({error})"
        raise ValueError(f"{path}: {reason}.") from error
    known = np.flatnonzero(np.isfinite(values))
    if len(known) == 0:
        raise ValueError(f"{path}: expected numbers in the last column, found none.")
    return np.interp(np.arange(len(values)), known, values[known]).astype("float32")


def series_windows(series, window: int, horizon: int, first: int = 0):
    """Split a series into overlapping windows and the values that follow each window.

    Args:
        series: Array `(n,)`.
        window: Int. Number of past values.
        horizon: Int. Number of future values.
        first: Int. Index of the first future value of the first row, if above `window`. Defaults
            to `0`.

    Returns:
        `(past, future)`, arrays `(m, window)` and `(m, horizon)`; consecutive rows are shifted by
        one value.

    Raises:
        ValueError: if the series has fewer than `window + horizon` values.
    """
    if len(series) < window + horizon:
        raise ValueError(
            f"series: expected at least {window + horizon} values for a window of {window} and a "
            f"horizon of {horizon}, got {len(series)}."
        )
    rows = np.lib.stride_tricks.sliding_window_view(series, window + horizon)
    rows = rows[max(0, first - window) :]
    return rows[:, :window], rows[:, window:]


# Sounds.


def load_drums() -> tuple[list[np.ndarray], np.ndarray, list[str]]:
    """Load 98 percussion sounds at 8,000 samples per second, without the silence at their ends.

    Returns:
        `(waveforms, labels, class_names)`: a list of float32 arrays in [-1, 1] of 150 to 8,000
        samples, integer labels `(98,)`, and the list of class names.
    """
    with np.load(data_path("drums_8khz.npz")) as file:
        waveforms, names = file["waveforms"] / np.float32(32768), file["kinds"]
    class_names, labels = np.unique(names, return_inverse=True)
    return [trim_silence(waveform) for waveform in waveforms], labels, class_names.tolist()


def load_sound_folder(folder):
    """Load a folder of WAV files, or one that has a subfolder of WAV files for each class.

    Each file is normalized to a peak of 0.95. Files longer than one second are split into sounds of
    at most one second.

    Args:
        folder: String or path.

    Returns:
        `(waveforms, labels, class_names, sample_rate, file_indices)`: the first three as from
        `load_drums`, the sample rate, and for each sound the index of its file `(n,)`. Without
        subfolders there is one class, named `""`.

    Raises:
        ValueError: for fewer than 10 files, for files beside class folders, for a file that is
            silent or not a WAV file, or for different sample rates.
    """
    paths, file_classes = _find_files(folder, (".wav",), "WAV files")
    waveforms, names, file_indices, paths_by_rate = [], [], [], {}
    for index, path in enumerate(paths):
        waveform, rate = load_wav(path)
        if not waveform.any():
            raise ValueError(f"{path}: expected a sound, got silence.")
        waveform = waveform * (PEAK / np.abs(waveform).max())
        for start in range(0, len(waveform), rate):
            second = waveform[start : start + rate]
            if np.abs(second).max() > SILENCE:
                waveforms.append(trim_silence(second))
                names.append("" if file_classes is None else file_classes[index])
                file_indices.append(index)
        paths_by_rate.setdefault(rate, path)
    if len(paths_by_rate) > 1:
        found = ", ".join(f"{rate} in {path.name}" for rate, path in paths_by_rate.items())
        raise ValueError(f"{folder}: expected one sample rate, found {found}.")
    class_names, labels = np.unique(names, return_inverse=True)
    sample_rate = next(iter(paths_by_rate))
    return waveforms, labels, class_names.tolist(), sample_rate, np.array(file_indices)


def trim_silence(waveform: np.ndarray) -> np.ndarray:
    """Return a waveform `(n,)` without the samples after the last one louder than `SILENCE`."""
    return waveform[: 1 + np.flatnonzero(np.abs(waveform) > SILENCE)[-1]]
