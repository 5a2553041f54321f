"""Loaders of the package's data and of images, texts, series and sounds from files.

The data is in the folder `data/` of the installed package, or beside the package in a checkout. The
environment variable KERAS_GENAI_DATA overrides the location.
"""

import hashlib
import os
import pathlib

import numpy as np

from keras_genai import image_files
from keras_genai.audio import trim_silence
from keras_genai.files import find_files, read_text
from keras_genai.random_state import random_generator
from keras_genai.series_files import read_series
from keras_genai.streaming import (  # noqa: F401  (the functions of batches are public here)
    SOUND_SUFFIXES,
    check_sample_rates,
    image_folder_batches,
    open_image_folder,
    read_sounds,
    sound_folder_batches,
    text_file_batches,
)
from keras_genai.validation import as_array, as_numbers, check_choice, check_images, check_size

BOOKS = ("alice_in_wonderland", "as_you_like_it", "king_james", "paradise_lost")
TRAINING_BOOKS = BOOKS[1:]  # of the language models; Alice is left for fine-tuning

SHA256 = {
    "article4_gan_samples.npz": "4342c030255491382abc65a4508bc07fb97f1ecdcdd517a6ca7c81ad877827e7",
    "alice_in_wonderland.txt": "cc660e04a3bef809b5436e822536cafefa278d55fb3639fb3e93665590d6fc0a",
    "as_you_like_it.txt": "eaa3526fe53859f34ecdf255712f9ecf0b2c903451d4755b2edaa2e2599cb0fc",
    "king_james.txt": "6b40e3f13a6cf83937165995b4868d7eb1f429d0c96ddb8574bea5544101a914",
    "oneill_tunes.abc": "5ecf4d147a180d4295b678c6d83f4eed8351ca6072ff0d58b02c5c86f44161e5",
    "paradise_lost.txt": "d01a7d3a2e74df00993e8e487db6016ac0c4bbf86b3df5a585cae8925564bbc2",
    "tang_quatrains.txt": "d3c36c345543604aeac19fbf7941241aaeb85e278cf55fb88582e13a3504baaf",
    "gpt2/encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "gpt2/vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "claims.json": "8772a618bc4d00d5d19f52ce7b7ad0d208110e75b7a8eae393a42e7bebfffca4",
    "co2_weekly.csv": "599638ed8670dccfdd92f64a6b3e7babee90e2529ebb5aa103004e48eb1014b5",
    "sunspots_yearly.csv": "74b8e3acb9886b68abe9c56f6081257d522e2cb2470f17dbf597b396f4ea1706",
    "en_zh.tsv": "c76523436294ee2d6cc323892933044940ed7fc345c6bc7af7e1dc7b40a05091",
    "drums_8khz.npz": "caefac9b7b00d68645011f2a1c13acd241791481541e96c1f3480ef1fa8951cc",
    "noto_sans_cjk_sc.otf": "57701bc6b0db3e6b64017d185c6590b317026e00d782efa9b2471d7d878090a6",
    "mnist.npz": "06af5dfe73b70e3bc1c36439982b18a8d76803db9b544f6fdf838a37fbb01b64",
}


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


def binarize(images, seed: int | None = 0) -> np.ndarray:
    """Binarize grayscale images: each pixel is a Bernoulli sample with its brightness as mean.

    Salakhutdinov & Murray 2008. Log-likelihoods of MNIST binarized this way are close, but not
    equal, to those on the fixed binarization that Larochelle published.

    Args:
        images: Array `(n, ...)`. Pixels in [0, 1].
        seed: Int or `None`. Seed of the samples; without one, `keras.utils.set_random_seed`
            governs them. Defaults to `0`.

    Returns:
        A float32 array of the same shape, with values 0 and 1.

    Raises:
        ValueError: for pixels outside [0, 1], for an empty array, and for an invalid seed.
    """
    images = as_array("images", images)
    if images.size == 0:
        raise ValueError(f"images: expected at least one pixel, got shape {images.shape}.")
    check_images("images", images, images.shape[1:])
    uniform = random_generator(seed).random(images.shape, "float32")
    return (uniform < images).astype("float32")


def load_image_folder(
    folder, image_size: int | tuple[int, int] = (28, 28), channels: int = 1, background: int = 255
):
    """Load a folder of images in the format of `load_mnist`; a random tenth is the test set.

    Images are turned as their EXIF orientation says, and resized by the mean over the area of each
    new pixel (linearly if enlarged), without keeping their aspect ratio. Hidden files are ignored;
    other files are named in a warning.

    Args:
        folder: String or path. A folder of PNG, JPEG, WebP, TIFF, GIF or BMP files, or one that has
            a subfolder of such files for each class.
        image_size: Int or tuple of ints, `(height, width)`. Size of the loaded images. Defaults to
            `(28, 28)`.
        channels: Int, 1 for grayscale or 3 for RGB. Defaults to `1`.
        background: Int from 0 (black) to 255 (white). Gray level behind transparent pixels.
            Defaults to `255`.

    Returns:
        `((x_train, y_train), (x_test, y_test))`: uint8 images `(n, height, width)`, or
        `(n, height, width, 3)` for 3 channels, and integer labels `(n,)`, the indices of
        `image_class_names(folder)`. Labels are `None` if there are no class folders.

    Raises:
        ValueError: for fewer than 10 images, for images beside class folders, and for a file that
            cannot be read as one 8-bit image of at most 2^26 pixels.
    """
    splits = open_image_folder(folder, image_size, channels, background)
    return tuple((images[:], labels) for images, labels in splits)


def image_class_names(folder) -> list[str]:
    """Return the names of the class folders of a folder of images: name i belongs to label i.

    Args:
        folder: String or path, as for `load_image_folder`.

    Returns:
        A list of strings in alphabetical order; empty without class folders.

    Raises:
        ValueError: for fewer than 10 images, and for images beside class folders.
    """
    return sorted(set(find_files(folder, image_files.SUFFIXES, "images")[1] or []))


# Texts.


def load_book(name: str) -> str:
    """Load the text of a book.

    Args:
        name: String, one of `BOOKS`: `"alice_in_wonderland"`, `"as_you_like_it"`, `"king_james"`
            (the King James Bible, one verse per line) or `"paradise_lost"`.

    Raises:
        ValueError: for another name.
    """
    check_choice("name", name, BOOKS)
    return load_text(data_path(f"{name}.txt"))


def load_books() -> list[str]:
    """Load the texts of `TRAINING_BOOKS`: As You Like It, the King James Bible, Paradise Lost."""
    return [load_book(name) for name in TRAINING_BOOKS]


def load_quatrains() -> list[str]:
    """Load 9,347 quatrains of the Tang dynasty, each of four verses of 5 or 7 characters."""
    return load_text(data_path("tang_quatrains.txt")).splitlines()


def load_tunes() -> list[str]:
    """Load 1,841 Irish tunes of O'Neill's Music of Ireland (1903) in ABC notation."""
    return load_text(data_path("oneill_tunes.abc")).strip("\n").split("\n\n")


def load_text(path) -> str:
    r"""Load a text file in UTF-8, or in UTF-16 with a byte order mark; line ends become `\n`.

    Raises:
        ValueError: if the file is empty, larger than 1 GiB, not a regular file, or not such a text.
    """
    text = read_text(path)
    if not text.strip():
        raise ValueError(f"{path}: expected a text, got an empty file.")
    return text


def load_translations() -> list[tuple[str, str]]:
    """Load 15,318 English sentences of LibreOffice's help with their Chinese translations."""
    return load_pairs(data_path("en_zh.tsv"))


def load_pairs(path) -> list[tuple[str, str]]:
    """Load pairs of sentences from a text file with one tab-separated pair per line.

    Encodings and line ends are those of `load_text`. Empty lines are skipped.

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


def load_series(path, decimal: str | None = None) -> np.ndarray:
    """Load the last column of a CSV file; empty fields are interpolated linearly.

    Commas, semicolons or tabs separate the columns. Numbers have a decimal point or a decimal
    comma, and thousands may be grouped; numbers that can be read in two ways, such as a column of
    `"1,234"`, are refused unless `decimal` is given. The header may be missing if the first row is
    clearly one of values. Empty rows around the table, and empty fields before the first number and
    after the last, are dropped.

    Args:
        path: String or path.
        decimal: String, `"."` or `","`, or `None` to infer the decimal sign. Defaults to `None`.

    Returns:
        A float32 array `(n,)`.

    Raises:
        ValueError: if the file cannot be read or has two readings; if rows differ in length, a
            field is not a number, a number is outside of float32, or dates decrease. The message
            has the line.
    """
    check_choice("decimal", decimal, (None, ".", ","))
    values = read_series(path, decimal)
    known = np.flatnonzero(np.isfinite(values))
    positions = np.arange(known[0], known[-1] + 1)
    return np.interp(positions, known, values[known]).astype("float32")


def series_windows(series, window: int, horizon: int, first: int = 0):
    """Split a series into overlapping windows and the values that follow each window.

    Args:
        series: Array of finite numbers `(n,)`.
        window: Int. Number of past values.
        horizon: Int. Number of future values.
        first: Int. Index of the first future value of the first row, if above `window`. Defaults
            to `0`.

    Returns:
        `(past, future)`, arrays `(m, window)` and `(m, horizon)`; consecutive rows are shifted by
        one value.

    Raises:
        ValueError: for another shape, NaN or infinity, a window or horizon below 1, a series of
            fewer than `window + horizon` values, or of fewer than `first + horizon`.
    """
    series = as_numbers("series", series)
    if series.ndim != 1:
        raise ValueError(f"series: expected shape (n,), got {series.shape}.")
    window, horizon = check_size("window", window), check_size("horizon", horizon)
    first = check_size("first", first, minimum=0)
    if len(series) < window + horizon:
        raise ValueError(
            f"series: expected at least {window + horizon} values for a window of {window} and a "
            f"horizon of {horizon}, got {len(series)}."
        )
    if first > len(series) - horizon:
        raise ValueError(
            f"first: expected at most {len(series) - horizon}, as {horizon} of {len(series)} "
            f"values are forecast, got {first}."
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
    at most one second. Hidden files are ignored; other files are named in a warning.

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
    paths, file_classes = find_files(folder, SOUND_SUFFIXES, "WAV files")
    sample_rate, _ = check_sample_rates(folder, paths)
    waveforms, names, file_indices = [], [], []
    for index, path in enumerate(paths):
        for _, _, waveform in read_sounds(path):
            waveforms.append(waveform)
            names.append("" if file_classes is None else file_classes[index])
            file_indices.append(index)
    class_names, labels = np.unique(names, return_inverse=True)
    return waveforms, labels, class_names.tolist(), sample_rate, np.array(file_indices)
