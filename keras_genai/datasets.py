"""Real data: what ships in `data/`, one's own images, texts and series, and batches of each.

`data/` lies inside the installed package, or beside it in a checkout. The environment variable
KERAS_GENAI_DATA names another folder.
"""

import csv
import hashlib
import os
import pathlib

import numpy as np

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


def data_folder() -> pathlib.Path:
    """Return the folder of the shipped data."""
    if os.environ.get("KERAS_GENAI_DATA"):
        return pathlib.Path(os.environ["KERAS_GENAI_DATA"])
    package = pathlib.Path(__file__).parent
    installed = package / "data"
    return installed if installed.is_dir() else package.parent / "data"


def check_file(path: pathlib.Path, sha256: str) -> pathlib.Path:
    """Return `path` if the file there is whole, by its checksum.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it was cut short or altered.
    """
    remedy = (
        "Install keras_genai anew (pip install --force-reinstall .), or copy the file from the "
        "data folder of a fresh clone; KERAS_GENAI_DATA must name a folder that has it."
    )
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. {remedy}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise ValueError(
            f"{path}: cut short or altered: its {path.stat().st_size:,} bytes have SHA-256 "
            f"{found[:12]}…, expected {sha256[:12]}…. {remedy}"
        )
    return path


def shipped(name: str) -> pathlib.Path:
    """Return the path of a file that ships in the data folder, if it is whole; see `check_file`."""
    return check_file(data_folder() / name, SHA256[name])


def load_mnist():
    """Load MNIST (LeCun, Cortes & Burges): 70,000 handwritten digits.

    Returns:
        ((x_train, y_train), (x_test, y_test)), all uint8: 60,000 and 10,000 images (n, 28, 28) with
        pixels from 0 to 255, and their digits (n,).

    Raises:
        FileNotFoundError, ValueError: if the file is missing or damaged.
    """
    path = shipped("mnist.npz")
    with np.load(path) as file:
        return (file["x_train"], file["y_train"]), (file["x_test"], file["y_test"])


def binarize(images, seed: int = 0) -> np.ndarray:
    """Make grey images black and white, once: a pixel becomes 1 with its brightness as probability.

    (Salakhutdinov & Murray 2008.) Figures on MNIST so drawn are near to, not equal to, those on the
    one draw that Larochelle published.

    Args:
        images: with pixels in [0, 1].
        seed: of the draw: the same one gives the same images.

    Returns:
        float32 of the same shape, 0 or 1 each.

    Raises:
        ValueError: for pixels outside [0, 1].
    """
    from keras_genai.inputs import check_images

    images = np.asarray(images)
    check_images("images", images, images.shape[1:])
    drawn = np.random.default_rng(seed).random(images.shape, "float32")
    return (drawn < images).astype("float32")


def load_image_folder(folder, image_size=(28, 28)):
    """Load a folder of one's own images as MNIST is loaded: grey, resized, the last tenth held out.

    Args:
        folder: images (PNG, JPEG, BMP, GIF), or one folder of images for each class.
        image_size: (height, width) that every image is resized to.

    Returns:
        ((x_train, y_train), (x_test, y_test)): images uint8 (n, height, width), and the number of
        each one's class folder (n,), in alphabetical order. Without class folders the labels are
        None.

    Raises:
        ValueError: for fewer than 10 images, for images beside class folders, and for a file that
            cannot be read as an 8-bit image.
    """
    from keras.utils import img_to_array, load_img

    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder of images, found none.")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if len(paths) < 10:
        raise ValueError(f"{folder}: expected at least 10 images, found {len(paths)}.")
    _check_folder(folder, paths, "images")
    images = []
    for path in paths:
        try:
            image = load_img(path, color_mode="grayscale", target_size=image_size)
        except OSError as error:
            raise ValueError(f"{path}: cannot be read as an image ({error}).") from error
        if image.mode != "L":
            raise ValueError(f"{path}: expected 8 bits a pixel, got Pillow's mode {image.mode}.")
        images.append(img_to_array(image, dtype="uint8")[..., 0])

    x = np.stack(images)
    order = np.random.default_rng(0).permutation(len(x))
    train, test = np.split(order, [len(x) - len(x) // 10])
    if paths[0].parent == folder:
        return (x[train], None), (x[test], None)
    classes = [path.relative_to(folder).parts[0] for path in paths]
    y = np.unique(classes, return_inverse=True)[1]
    return (x[train], y[train]), (x[test], y[test])


def _check_folder(folder, paths, what):
    """Raise ValueError if some files stand in the folder itself, and some in folders of classes."""
    loose = [path.parent == folder for path in paths]
    if any(loose) and not all(loose):
        raise ValueError(f"{folder}: expected {what}, or folders of {what}, found both.")


def load_books() -> list[str]:
    """Load Alice in Wonderland, As You Like It and Paradise Lost, the text of each."""
    return [load_text(shipped(name)) for name in BOOKS]


def load_quatrains() -> list[str]:
    """Load 9,347 quatrains of the Tang dynasty: four phrases of 5 or 7 characters each."""
    return load_text(shipped("tang_quatrains.txt")).splitlines()


def load_text(path) -> str:
    """Load a text file of one's own.

    Raises:
        ValueError: if it is empty, or no text in UTF-8.
    """
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8-sig")  # with a byte order mark or not
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as a text in UTF-8 ({error}).") from error
    if not text.strip():
        raise ValueError(f"{path}: expected a text, got an empty file.")
    return text


def load_translations() -> list[tuple[str, str]]:
    """Load 15,318 English sentences of LibreOffice's help, each with its Chinese translation."""
    return load_pairs(shipped("en_zh.tsv"))


def load_pairs(path) -> list[tuple[str, str]]:
    """Load pairs of sentences of one's own: one pair a line, a tab between the two.

    Raises:
        ValueError: if the file cannot be read, or for a line that is no pair.
    """
    pairs = []
    # Not splitlines, which takes characters of a sentence for ends of lines, such as U+2028.
    for number, line in enumerate(load_text(path).split("\n"), start=1):
        pair = tuple(line.split("\t"))
        if line and (len(pair) != 2 or not all(text.strip() for text in pair)):
            raise ValueError(f"{path}: expected two sentences and a tab in line {number}.")
        if line:
            pairs.append(pair)
    return pairs


def load_co2() -> np.ndarray:
    """Load the weekly CO2 at Mauna Loa from 1958 to 2001, ppm (2284,), gaps filled on a line."""
    return load_series(shipped("co2_weekly.csv"))


def load_sunspots() -> np.ndarray:
    """Load the yearly number of sunspots from 1700 to 2008 (309,)."""
    return load_series(shipped("sunspots_yearly.csv"))


def load_series(path) -> np.ndarray:
    """Load the last column of a CSV file with a heading, float32 (n,).

    Empty fields lie on a straight line between their neighbours.

    Raises:
        ValueError: if the file cannot be read, or if a field is no number.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            _, *rows = csv.reader(file)
        values = np.array([float(row[-1] or "nan") for row in rows if row])
    except (OSError, ValueError) as error:
        reason = f"expected a CSV file with a heading and numbers in its last column ({error})"
        raise ValueError(f"{path}: {reason}.") from error
    known = np.flatnonzero(np.isfinite(values))
    if len(known) == 0:
        raise ValueError(f"{path}: expected numbers in the last column, found none.")
    return np.interp(np.arange(len(values)), known, values[known]).astype("float32")


def load_drums():
    """Load 98 sounds of percussion at 8,000 samples a second, without their silent tails.

    Returns:
        (waveforms, labels, kinds): a list of float32 arrays in [-1, 1] of 150 to 8,000 samples, the
        number of each one's kind (98,), and the names of the kinds.
    """
    with np.load(shipped("drums_8khz.npz")) as file:
        waveforms, names = file["waveforms"] / np.float32(32768), file["kinds"]
    kinds, labels = np.unique(names, return_inverse=True)
    return [_without_tail(waveform) for waveform in waveforms], labels, kinds.tolist()


def load_sound_folder(folder):
    """Load a folder of one's own sounds: WAV files, or one folder of them for each kind.

    Returns:
        (waveforms, labels, kinds, sample_rate, files): as `load_drums`, each scaled to a peak of
        0.95, and cut into seconds if it is longer than one; files (n,) is the number of the file
        that each is from. Without folders of kinds there is one kind.

    Raises:
        ValueError: for fewer than 10 files, for files beside folders, for a file that is no WAV
            file or silent, or for files of more than one sample rate.
    """
    from keras_genai.audio import load_wav

    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder of WAV files, found none.")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".wav")
    if len(paths) < 10:
        raise ValueError(f"{folder}: expected at least 10 WAV files, found {len(paths)}.")
    _check_folder(folder, paths, "WAV files")
    waveforms, names, files, rates = [], [], [], {}
    for number, path in enumerate(paths):
        waveform, rate = load_wav(path)
        if not waveform.any():
            raise ValueError(f"{path}: expected a sound, got silence.")
        waveform = waveform * (0.95 / np.abs(waveform).max())
        for start in range(0, len(waveform), rate):
            second = waveform[start : start + rate]
            if np.abs(second).max() > SILENCE:
                waveforms.append(_without_tail(second))
                names.append(path.relative_to(folder).parts[0] if path.parent != folder else "")
                files.append(number)
        rates.setdefault(rate, path)
    if len(rates) > 1:
        found = ", ".join(f"{rate} in {path.name}" for rate, path in rates.items())
        raise ValueError(f"{folder}: expected one sample rate, found {found}.")
    kinds, labels = np.unique(names, return_inverse=True)
    return waveforms, labels, kinds.tolist(), next(iter(rates)), np.array(files)


SILENCE = 0.001  # of full scale: 60 decibels below it


def _without_tail(waveform):
    """Return a waveform up to the last sample that is louder than `SILENCE`."""
    return waveform[: 1 + np.flatnonzero(np.abs(waveform) > SILENCE)[-1]]


def series_windows(series, window: int, horizon: int, first: int = 0):
    """Cut a series (n,) into what a forecaster sees and what it is to forecast.

    Args:
        first: index of the first value that is forecast, if that is later than `window`.

    Returns:
        (past, future): (m, window) and (m, horizon), one row for each place in the series.

    Raises:
        ValueError: if the series is shorter than window + horizon.
    """
    if len(series) < window + horizon:
        raise ValueError(
            f"series: expected at least {window + horizon} values for a window of {window} and a "
            f"horizon of {horizon}, got {len(series)}."
        )
    rows = np.lib.stride_tricks.sliding_window_view(series, window + horizon)
    rows = rows[max(0, first - window) :]
    return rows[:, :window], rows[:, window:]


def batches(arrays, batch_size: int, seed: int, epoch):
    """Return a `tf.data.Dataset` of shuffled batches, in an order that seed and epoch alone decide.

    Keras's own shuffling starts from the beginning in every process. With this one, training that
    goes on after an interruption sees the batches that it would have seen without one.

    Args:
        arrays: one array, or a tuple of arrays of the same length, in memory.
        batch_size: rows in a batch; the last batch may be shorter.
        seed: of the order.
        epoch: int64 `tf.Variable` with the number of the epoch, to be set before each.
    """
    import tensorflow as tf

    tensors = tf.nest.map_structure(tf.convert_to_tensor, arrays)
    size = len(tf.nest.flatten(tensors)[0])

    def gather(rows):
        return tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows), tensors)

    return _shuffled(size, batch_size, seed, epoch, gather)


def window_batches(tokens, window: int, batch_size: int, seed: int, epoch):
    """Return a `tf.data.Dataset` of batches of windows of a text, each with what follows it.

    Windows lie side by side, from another place on in each epoch.

    Args:
        tokens: int32 (n,).
        window: tokens in a window.
        batch_size, seed, epoch: as for `batches`.

    Yields:
        (x, y), both int32 (batch, window); y[:, i] is the token after x[:, i].
    """
    import tensorflow as tf

    tokens = tf.convert_to_tensor(tokens)

    def gather(rows):
        shift = tf.random.stateless_uniform(
            (), [tf.cast(seed, tf.int64), epoch], maxval=window, dtype=tf.int32
        )
        starts = shift + window * rows
        text = tf.gather(tokens, starts[:, None] + tf.range(window + 1))
        return text[:, :-1], text[:, 1:]

    return _shuffled(count_windows(len(tokens), window), batch_size, seed, epoch, gather)


def pair_batches(sources, targets, batch_size: int, seed: int, epoch):
    """Return a `tf.data.Dataset` of batches of pairs of sequences, with little padding.

    Pairs of like length make a batch; which ones, and the order of the batches, is random.

    Args:
        sources, targets: int32 (n, length), padded with 0 at the end.
        batch_size, seed, epoch: as for `batches`.

    Yields:
        (source, target), both int32 (batch, m): as long as the longest of them, a multiple of 8.
    """
    import tensorflow as tf

    sources, targets = tf.convert_to_tensor(sources), tf.convert_to_tensor(targets)
    lengths = tf.maximum(*(tf.math.count_nonzero(x, axis=1) for x in (sources, targets)))

    def gather(rows):
        longest = -(-tf.reduce_max(tf.gather(lengths, rows)) // 8) * 8
        return tuple(tf.gather(_widen(x, 8), rows)[:, :longest] for x in (sources, targets))

    return _shuffled(len(sources), batch_size, seed, epoch, gather, lengths)


def sound_batches(waveforms, labels, batch_size: int, seed: int, epoch, vary=False):
    """Return a `tf.data.Dataset` of batches of sounds, those of like length together.

    Args:
        waveforms: a list of n float32 arrays in [-1, 1].
        labels: integers (n,), or None.
        batch_size, seed, epoch: as for `batches`.
        vary: whether each sound is another one in each epoch: up to four times as quiet, and as
            often as not upside down. A kind of drum stays what it is by that.

    Yields:
        (x, y): 256 mu-law levels (batch, m), or [levels, labels], and those that follow, -1 where a
        sound has ended; m is a multiple of 512. A sound begins after a level of silence.
    """
    import tensorflow as tf

    from keras_genai.audio import mu_law_levels

    lengths = np.array([len(waveform) for waveform in waveforms], "int32")
    padded = np.zeros((len(lengths), 1 + -(-lengths.max() // 512) * 512), "float32")
    for row, waveform in zip(padded, waveforms):
        row[1 : 1 + len(waveform)] = waveform
    padded, lengths = tf.convert_to_tensor(padded), tf.convert_to_tensor(lengths)

    def gather(rows):
        counts = tf.gather(lengths, rows)
        longest = -(-tf.reduce_max(counts) // 512) * 512
        batch = tf.gather(padded, rows)[:, : longest + 1]
        if vary:
            seeds = tf.stack([tf.cast(seed, tf.int64), epoch])
            drawn = tf.random.stateless_uniform((2, len(padded), 1), seeds)
            quieter, turned = tf.unstack(tf.gather(drawn, rows, axis=1))
            batch *= 4**-quieter * tf.where(turned < 0.5, -1.0, 1.0)
        levels = mu_law_levels(batch)
        x, y = levels[:, :-1], levels[:, 1:]
        y = tf.where(tf.range(longest) < counts[:, None], y, -1)
        return (x if labels is None else (x, tf.gather(labels, rows))), y

    return _shuffled(len(lengths), batch_size, seed, epoch, gather, lengths)


def _widen(tokens, multiple):
    import tensorflow as tf

    return tf.pad(tokens, [[0, 0], [0, -tokens.shape[1] % multiple]])


def count_windows(length: int, window: int) -> int:
    """Return how many windows of an epoch a text of `length` tokens has.

    Raises:
        ValueError: if it is too short for one.
    """
    if length < 2 * window:
        raise ValueError(f"text: expected at least {2 * window} tokens, got {length}.")
    return (length - window) // window


def _shuffled(size: int, batch_size: int, seed: int, epoch, gather, lengths=None):
    """Return batches of shuffled rows, which `gather` makes of their numbers below `size`.

    If lengths (size,) are given, rows of like length come together.
    """
    import tensorflow as tf

    steps = -(-size // batch_size)

    def rows(_):
        seeds = tf.stack([tf.cast(seed, tf.int64), epoch])
        order = tf.random.experimental.stateless_shuffle(tf.range(size), seeds)
        if lengths is None:
            return tf.data.Dataset.from_tensor_slices(order).batch(batch_size)
        order = tf.gather(order, tf.argsort(tf.gather(lengths, order), stable=True))
        starts = tf.random.experimental.stateless_shuffle(batch_size * tf.range(steps), seeds)
        starts = tf.data.Dataset.from_tensor_slices(starts)
        return starts.map(lambda start: order[start : start + batch_size])

    dataset = tf.data.Dataset.from_tensors(0).flat_map(rows).map(gather)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(steps))
    # Not tuned while it runs: a gather needs none, and the tuning thread of TensorFlow 2.21 sleeps
    # ever longer, up to a minute, and can make the end of an epoch wait until it wakes.
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.prefetch(64).with_options(options)
