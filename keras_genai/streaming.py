"""Data larger than memory: images, sounds and texts that are read from their files in each epoch.

The rows, their order and the held-out part are those of the loaders of `datasets`, so that training
on them gives the same weights. Memory does not depend on the amount of data, but for the names of
the files and a few numbers for each.
"""

import warnings

import numpy as np

from keras_genai import image_files, text_files
from keras_genai.array_files import ArrayWriter, CachedRows, DiskArray, digest_files, open_cache
from keras_genai.audio import SILENCE, WavFile, trim_silence
from keras_genai.files import find_files, to_path
from keras_genai.pipelines import make_audio_dataset, make_dataset, make_window_dataset
from keras_genai.streamed_arrays import StreamedArray, StreamedSounds
from keras_genai.validation import check_choice, check_size

STREAMING_BYTES = 2**30  # decoded data of more bytes is streamed by the recipes
SOUND_SUFFIXES = (".wav", ".wave")
PEAK = 0.95  # of the sounds of a folder, after normalization
SOUND_PIECE = 2**22  # samples


# Images.


def open_image_folder(
    folder, image_size=(28, 28), channels: int = 1, background: int = 255, cache=None
):
    """Return a folder of images as `datasets.load_image_folder`, with images as `StreamedArray`.

    Args:
        folder, image_size, channels, background: As for `datasets.load_image_folder`.
        cache: Path of a folder, or `None`. If not `None`, resized images are kept there, and are
            read from there on. Defaults to `None`.

    Returns:
        `((x_train, y_train), (x_test, y_test))`.

    Raises:
        ValueError: as `datasets.load_image_folder`, but for damaged pixels not before they are
            read; and for a cache of other files or settings.
    """
    image_size = image_files.to_image_size(image_size)
    check_choice("channels", channels, (1, 3))
    if check_size("background", background, minimum=0) > 255:
        raise ValueError(f"background: expected a whole number from 0 to 255, got {background}.")
    paths, class_names = find_files(folder, image_files.SUFFIXES, "images")
    fingerprint, digest = digest_files(paths, to_path(folder))
    paths = [str(path) for path in paths]
    shape = (len(paths), *image_size) if channels == 1 else (len(paths), *image_size, channels)
    unchecked, cached = np.arange(len(paths)), None
    if cache is not None:
        settings = {"files": digest, "image_size": image_size, "channels": int(channels)}
        settings |= {"background": int(background)}
        cached = CachedRows(
            open_cache(cache, "images", settings, lambda path: CachedRows.create(path, shape))
        )
        unchecked = cached.missing()
    for row in unchecked:
        image_files.check_image_header(paths[row])

    def read_row(row):
        image = image_files.read_image(paths[row], image_size, channels, background)
        return image.reshape(shape[1:])

    def read(rows):
        if cached is not None:
            return cached.read(rows, read_row)
        return np.stack([read_row(row) for row in rows]) if len(rows) else empty

    empty = np.empty((0, *shape[1:]), "uint8")
    x = StreamedArray(read, shape, "uint8", fingerprint)
    order = np.random.default_rng(0).permutation(len(paths))
    train, test = np.split(order, [len(paths) - len(paths) // 10])
    if class_names is None:
        return (x.select(train), None), (x.select(test), None)
    y = np.unique(class_names, return_inverse=True)[1]
    return (x.select(train), y[train]), (x.select(test), y[test])


def image_folder_batches(
    folder,
    batch_size: int = 32,
    *,
    subset: str = "train",
    image_size: int | tuple[int, int] = (28, 28),
    channels: int = 1,
    background: int = 255,
    seed: int = 0,
    epoch=None,
    cache=None,
    input_context=None,
):
    """Create a dataset of batches of a folder of images that are read in each epoch.

    Batches, order and split are those of `pipelines.make_dataset` with the arrays of
    `load_image_folder`. The folder may be larger than memory.

    Args:
        folder: String or path, as for `load_image_folder`.
        batch_size: Int. Images per batch; the last batch may be smaller. Defaults to `32`.
        subset: String. `"train"` for nine tenths of the images, shuffled in each epoch, or `"test"`
            for the other ones, in order. Defaults to `"train"`.
        image_size, channels, background: As for `load_image_folder`.
        seed: Int. Seed of the order. Defaults to `0`.
        epoch: Int64 `tf.Variable`, the number of the epoch, which determines the order; assigned
            before each epoch, training can be resumed. If `None`, each iteration is the next epoch.
            Defaults to `None`.
        cache: Path of a folder, or `None`. If not `None`, resized images are kept there when they
            are first read, and are read from there on. Defaults to `None`.
        input_context: `tf.distribute.InputContext` or `None`. If not `None`, the dataset has the
            parts of each batch for the replicas of this worker; see `pipelines.resumable_dataset`.
            Defaults to `None`.

    Returns:
        A `tf.data.Dataset` of float32 images in [0, 1], `(batch, height, width, channels)`; with
        class folders, of pairs of them and int32 labels `(batch,)`.

    Raises:
        ValueError: for invalid arguments, as `load_image_folder`, and for a cache of other files or
            settings. A file whose pixels are damaged raises an error when it is read.

    Example:
        dataset = image_folder_batches("photos", 64, image_size=64, channels=3)
        model.fit(dataset, epochs=10, shuffle=False)  # the dataset shuffles
    """
    check_choice("subset", subset, ("train", "test"))
    splits = open_image_folder(folder, image_size, channels, background, cache)
    x, y = splits[subset == "test"]
    x = x.map(
        lambda images, rows: scale_pixels(images, channels), (*x.shape[1:3], channels), "float32"
    )
    arrays = x if y is None else (x, y.astype("int32"))
    return make_dataset(arrays, batch_size, seed, epoch, input_context, subset == "train")


def scale_pixels(images: np.ndarray, channels: int = 1) -> np.ndarray:
    """Return uint8 images as float32 `(n, height, width, channels)` in [0, 1]."""
    return images.astype("float32").reshape(*images.shape[:3], channels) / 255


# Sounds.


def read_sounds(path):
    """Yield (start, peak, waveform) of each sound of at most one second of a WAV file.

    The samples of the whole file, of magnitude at most `peak`, are multiplied by PEAK / peak.
    Silence at the end of a second, and seconds of silence, are left out.

    Args:
        path: String or path of the file.

    Raises:
        ValueError: for a file that is silent or not a WAV file.
    """
    with WavFile(path) as file:
        rate = file.sample_rate
        size = rate * max(1, SOUND_PIECE // rate)  # samples in whole seconds
        starts = range(0, file.num_samples, size)
        peak = max(np.abs(file.read(start, start + size)).max() for start in starts)
        if peak == 0:
            raise ValueError(f"{path}: expected a sound, got silence.")
        for start in starts:
            piece = file.read(start, start + size) * (PEAK / peak)
            for offset in range(0, len(piece), rate):
                second = piece[offset : offset + rate]
                if np.abs(second).max() > SILENCE:
                    yield start + offset, peak, trim_silence(second)


def check_sample_rates(folder, paths) -> tuple[int, int]:
    """Return the common sample rate of WAV files, and the number of all samples.

    Raises:
        ValueError: for a file that is not a WAV file, and for different sample rates.
    """
    num_samples = 0
    paths_by_rate: dict = {}
    for path in paths:
        with WavFile(path) as file:
            paths_by_rate.setdefault(file.sample_rate, path)
            num_samples += file.num_samples
    if len(paths_by_rate) > 1:
        found = ", ".join(f"{rate} in {path.name}" for rate, path in paths_by_rate.items())
        raise ValueError(f"{folder}: expected one sample rate, found {found}.")
    return next(iter(paths_by_rate)), num_samples


def count_sound_bytes(folder) -> int:
    """Return the size of all samples of a folder of WAV files as float32."""
    with warnings.catch_warnings(action="ignore"):  # about other files: the folder is read again
        paths, _ = find_files(folder, SOUND_SUFFIXES, "WAV files")
    return 4 * check_sample_rates(folder, paths)[1]


def open_sound_folder(folder, cache=None):
    """Return a folder of sounds as `datasets.load_sound_folder`, with `StreamedSounds`.

    Each file is read once, for its peak and for the lengths of its sounds.

    Args:
        folder: String or path, as for `datasets.load_sound_folder`.
        cache: Path of a folder, or `None`. If not `None`, the samples are kept there, and are read
            from there on. Defaults to `None`.

    Returns:
        `(sounds, labels, class_names, sample_rate, file_indices)`.

    Raises:
        ValueError: as `datasets.load_sound_folder`, and for a cache of other files.
    """
    paths, file_classes = find_files(folder, SOUND_SUFFIXES, "WAV files")
    sample_rate, _ = check_sample_rates(folder, paths)
    fingerprint, digest = digest_files(paths, to_path(folder))
    paths = [str(path) for path in paths]

    def index_sounds(write=lambda waveform: None) -> tuple[np.ndarray, np.ndarray]:
        """Return file, start and length of each sound `(n, 3)`, and the peak of its file."""
        sounds, peaks = [], []
        for file, path in enumerate(paths):
            for start, peak, waveform in read_sounds(path):
                sounds.append((file, start, len(waveform)))
                peaks.append(peak)
                write(waveform)
        return np.array(sounds, "int64"), np.array(peaks, "float32")

    if cache is None:
        index, peaks = index_sounds()

        def read(row):
            file, start, length = index[row]
            with WavFile(paths[file]) as wav:
                return wav.read(start, start + length) * (PEAK / peaks[row])

    else:

        def create(path):
            with open(path / "samples.npy", "wb") as file:
                samples = ArrayWriter(file, "float32")
                np.save(path / "sounds.npy", index_sounds(samples.append)[0])
                samples.finish()

        path = open_cache(cache, "sounds", {"files": digest}, create)
        index, samples = np.load(path / "sounds.npy"), DiskArray(path / "samples.npy")
        ends = np.cumsum(index[:, 2])

        def read(row):
            return samples[ends[row] - index[row, 2] : ends[row]]

    files, lengths = index[:, 0], index[:, 2]
    class_names, file_labels = np.unique(file_classes or [""] * len(paths), return_inverse=True)
    labels = file_labels[files]
    sounds = StreamedSounds(read, lengths, fingerprint)
    return sounds, labels, class_names.tolist(), sample_rate, files


def split_sounds(labels, files, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of training and test sounds: two files of each class are held out.

    Args:
        labels: Int array `(n,)`. Class of each sound.
        files: Int array `(n,)`. Index of the file of each sound.
        num_classes: Int. Number of classes.
    """
    test: list[int] = []
    for label in range(num_classes):
        class_files = np.unique(files[labels == label])
        test_files = class_files[len(class_files) - min(2, len(class_files) // 2) :]
        test.extend(np.flatnonzero(np.isin(files, test_files)))
    return np.setdiff1d(np.arange(len(labels)), test), np.array(test, "int64")


def sound_folder_batches(
    folder,
    batch_size: int = 16,
    *,
    subset: str = "train",
    seed: int = 0,
    epoch=None,
    cache=None,
    input_context=None,
    augment: bool = False,
):
    """Create a dataset of batches of a folder of WAV files that are read in each epoch.

    Batches and order are those of `pipelines.make_audio_dataset` with the sounds of
    `load_sound_folder`. The folder may be larger than memory.

    Args:
        folder: String or path, as for `load_sound_folder`.
        batch_size: Int. Sounds per batch; the last batch may be smaller. Defaults to `16`.
        subset: String. `"train"`, shuffled in each epoch, or `"test"` for the last two files of
            each class (fewer of a class of less than four), in order. Defaults to `"train"`.
        seed, epoch, input_context: As for `image_folder_batches`.
        cache: Path of a folder, or `None`. If not `None`, the samples are written there first, and
            are read from there on. Defaults to `None`.
        augment: Boolean. As for `pipelines.make_audio_dataset`. Defaults to `False`.

    Returns:
        A `tf.data.Dataset` of pairs `(x, y)`, or `((x, labels), y)` with several class folders; see
        `pipelines.make_audio_dataset`.

    Raises:
        ValueError: for invalid arguments, as `load_sound_folder`, for a subset without sounds, and
            for a cache of other files.
    """
    check_choice("subset", subset, ("train", "test"))
    sounds, labels, class_names, _, files = open_sound_folder(folder, cache)
    indices = split_sounds(labels, files, len(class_names))[subset == "test"]
    if not len(indices):
        raise ValueError(f"{folder}: expected at least two sounds of a class, to hold one out.")
    labels = labels[indices] if len(class_names) > 1 else None
    shuffle = subset == "train"
    return make_audio_dataset(
        sounds.select(indices), labels, batch_size, seed, epoch, augment, input_context, shuffle
    )


# Texts.


def text_file_batches(
    path,
    tokenizer,
    window: int = 128,
    batch_size: int = 32,
    *,
    subset: str = "train",
    seed: int = 0,
    epoch=None,
    cache=None,
    input_context=None,
):
    """Create a dataset of batches of windows of a text that is larger than memory.

    The text is encoded once, piece by piece, and its tokens are kept on disk. Batches and order are
    those of `pipelines.make_window_dataset` with the tokens of the whole text.

    Args:
        path: String or path of a text file as for `load_text`, of any size, or of a folder of
            `.txt` files, which are joined in the order of their names; a line end is added to a
            file that lacks it.
        tokenizer: Tokenizer with `encode`, `decode` and `vocab_size`, such as those of `text`. Its
            tokens of a text must be those of its parts; see `text_files.encode_texts`.
        window: Int. Tokens per window. Defaults to `128`.
        batch_size: Int. Windows per batch; the last batch may be smaller. Defaults to `32`.
        subset: String. `"train"` for the first nine tenths of the characters, in shuffled windows
            with a random offset, or `"test"` for the last tenth, in order. Defaults to `"train"`.
        seed, epoch, input_context: As for `image_folder_batches`.
        cache: Path of a folder that keeps the tokens for the next time, or `None` for temporary
            files. Defaults to `None`.

    Returns:
        A `tf.data.Dataset` of pairs `(x, y)`, both int32 `(batch, window)`: `y[:, i]` is the token
        after `x[:, i]`.

    Raises:
        ValueError: for invalid arguments, for files that are no texts, for fewer than `2 * window`
            tokens of the first part, or `window + 1` of the second, and for a cache of other files
            or of another tokenizer.
    """
    check_choice("subset", subset, ("train", "test"))
    window = check_size("window", window)
    paths = text_files.find_texts(path)
    num_characters, _ = text_files.count_characters(paths)
    if num_characters < 10:
        raise ValueError(f"{path}: expected at least 10 characters, got {num_characters}.")
    cut = int(0.9 * num_characters)
    train, test = text_files.encode_texts(paths, tokenizer, cut, cache)
    if subset == "train":
        return make_window_dataset(train, window, batch_size, seed, epoch, input_context)
    if len(test) <= window:
        raise ValueError(
            f"{path}: expected more than {window} tokens in the last tenth, got {len(test) - 1}."
        )
    windows = text_files.token_windows(test, window)
    return make_dataset(windows, batch_size, seed, epoch, input_context, shuffle=False)
