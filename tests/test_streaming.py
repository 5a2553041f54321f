"""Data larger than memory: batches, order and splits equal those of the loaded data."""

import dataclasses
import os
import shutil
import types
import wave

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import set_random_weights
from PIL import Image

from keras_genai import (
    array_files,
    datasets,
    recipes,
    streamed_arrays,
    streaming,
    tasks,
    text_files,
)
from keras_genai.audio import WavFile, load_wav, save_wav
from keras_genai.experiments import EXPERIMENTS
from keras_genai.gpt2 import build_gpt2
from keras_genai.pipelines import make_audio_dataset, make_dataset, make_window_dataset
from keras_genai.pixelcnn import build_pixelcnn
from keras_genai.rnn import build_language_model
from keras_genai.text import CharacterTokenizer, GPT2Tokenizer
from keras_genai.wavenet import build_wavenet


def epoch_variable(number=0):
    return tf.Variable(number, dtype=tf.int64)


def arrays_of(dataset):
    """All arrays of all batches of one iteration."""
    return [array for batch in dataset.as_numpy_iterator() for array in tf.nest.flatten(batch)]


def assert_same_batches(dataset, expected):
    assert dataset.element_spec == expected.element_spec and len(dataset) == len(expected)
    found, expected = arrays_of(dataset), arrays_of(expected)
    assert [(x.shape, x.dtype) for x in found] == [(x.shape, x.dtype) for x in expected]
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_array_equal(x, y)


def context(num_workers, worker, num_replicas):
    return tf.distribute.InputContext(num_workers, worker, num_replicas)


# Images.


@pytest.fixture
def image_folder(tmp_path):
    """25 random color images of different sizes, 13 cats and 12 dogs."""
    rng = np.random.default_rng(0)
    for i in range(25):
        path = tmp_path / "images" / ("cats" if i < 13 else "dogs") / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = rng.integers(5, 20, 2)
        Image.fromarray(rng.integers(256, size=(height, width, 3), dtype="uint8")).save(path)
    return tmp_path / "images"


def loaded_batches(folder, subset, number, seed=3, batch_size=4, scale=255, **options):
    """Batches of the arrays of `load_image_folder`."""
    splits = datasets.load_image_folder(folder, **options)
    x, y = splits[subset == "test"]
    x = x.astype("float32").reshape(*x.shape[:3], -1) / scale
    if subset == "test":
        y = np.split(y.astype("int32"), range(batch_size, len(y), batch_size))
        return zip(np.split(x, range(batch_size, len(x), batch_size)), y, strict=True)
    dataset = make_dataset((x, y.astype("int32")), batch_size, seed, epoch_variable(number))
    return dataset.as_numpy_iterator()


@pytest.mark.parametrize("subset", ["train", "test"])
@pytest.mark.parametrize(
    "options", [{}, {"image_size": (7, 9), "channels": 3}, {"image_size": 8, "background": 0}]
)
def test_batches_of_images_equal_those_of_the_loaded_folder(image_folder, subset, options):
    epoch = epoch_variable()
    dataset = datasets.image_folder_batches(
        image_folder, 4, subset=subset, seed=3, epoch=epoch, **options
    )
    assert dataset.element_spec[0].shape[1:] == (
        *np.broadcast_to(options.get("image_size", 28), 2),
        options.get("channels", 1),
    )
    for number in (0, 2):
        epoch.assign(number)
        expected = list(loaded_batches(image_folder, subset, number, **options))
        assert len(dataset) == len(expected)
        for (x, y), (loaded_x, loaded_y) in zip(dataset, expected, strict=True):
            np.testing.assert_array_equal(x, loaded_x)
            np.testing.assert_array_equal(y, loaded_y)
            assert x.dtype == "float32" and y.dtype == "int32"


def test_images_of_the_files_are_split_by_a_fixed_permutation(tmp_path):
    for i in range(30):
        path = tmp_path / ("cats" if i < 13 else "dogs") / f"{i:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (3, 2), 8 * i).save(path)
    order = np.random.default_rng(0).permutation(30)
    epoch = epoch_variable(5)
    for subset, rows in {"train": order[:27], "test": order[27:]}.items():
        batches = datasets.image_folder_batches(
            tmp_path, 4, subset=subset, image_size=(2, 3), seed=1, epoch=epoch
        )
        x, y = (np.concatenate(column) for column in zip(*batches, strict=True))
        if subset == "train":
            rows = np.concatenate(list(make_dataset(rows, 4, 1, epoch)))
        np.testing.assert_array_equal(y, rows >= 13)
        pixels = (8 * rows[:, None, None, None] * np.ones((2, 3, 1))).astype("float32") / 255
        np.testing.assert_array_equal(x, pixels)


def test_images_without_class_folders_have_no_labels(image_folder):
    (x, _), _ = datasets.load_image_folder(image_folder / "cats", 8)
    dataset = datasets.image_folder_batches(image_folder / "cats", 5, image_size=8)
    found = np.concatenate(list(dataset))
    assert found.shape == (12, 8, 8, 1)
    order = np.lexsort(found.reshape(12, -1).T), np.lexsort(x.reshape(12, -1).T)
    np.testing.assert_array_equal(found[order[0], ..., 0], x[order[1]] / np.float32(255))


def test_without_an_epoch_each_iteration_is_the_next_one(image_folder):
    dataset = datasets.image_folder_batches(image_folder, 4, seed=3)
    for number in range(3):
        labels = np.concatenate([y for _, y in dataset])
        expected = np.concatenate([y for _, y in loaded_batches(image_folder, "train", number)])
        np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("num_workers", [2, 3])
@pytest.mark.parametrize("batch_size", [4, 1])
def test_shards_of_workers_join_to_the_batches(image_folder, num_workers, batch_size, monkeypatch):
    expected = arrays_of(
        datasets.image_folder_batches(image_folder, batch_size, epoch=epoch_variable(1))
    )[::2]
    read_paths = []
    read_image = streaming.image_files.read_image
    monkeypatch.setattr(
        streaming.image_files,
        "read_image",
        lambda path, *args: read_paths.append(path) or read_image(path, *args),
    )
    shards = [
        arrays_of(
            datasets.image_folder_batches(
                image_folder,
                batch_size,
                epoch=epoch_variable(1),
                input_context=context(num_workers, worker, num_workers),
            )
        )[::2]
        for worker in range(num_workers)
    ]
    num_small = sum(len(batch) < num_workers for batch in expected)  # given to each, as a whole
    for batch, *parts in zip(expected, *shards, strict=True):
        repeats = num_workers if len(batch) < num_workers else 1
        np.testing.assert_array_equal([*batch] * repeats, np.concatenate(parts))
    assert len(set(read_paths)) == 23
    if not num_small:  # no worker reads a file of another
        assert len(read_paths) == 23


def test_cached_images_are_read_from_the_cache(image_folder, tmp_path):
    cache = tmp_path / "cache"
    options = {"image_size": 8, "channels": 3, "epoch": epoch_variable()}
    expected = arrays_of(datasets.image_folder_batches(image_folder, 4, **options))
    dataset = datasets.image_folder_batches(image_folder, 4, cache=cache, **options)
    for _ in range(2):
        for x, y in zip(arrays_of(dataset), expected, strict=True):
            np.testing.assert_array_equal(x, y)
        for path in image_folder.rglob("*.png"):
            path.write_bytes(b"")


def test_files_of_cached_images_are_not_opened(image_folder, tmp_path):
    cache = tmp_path / "cache"
    splits = streaming.open_image_folder(image_folder, 8, cache=cache)
    expected = [images[:] for images, _ in splits]
    for path in image_folder.rglob("*.png"):
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    splits = streaming.open_image_folder(image_folder, 8, cache=cache)
    for (images, _), pixels in zip(splits, expected, strict=True):
        np.testing.assert_array_equal(images[:], pixels)


def test_row_that_was_not_written_to_the_end_is_read_again(image_folder, tmp_path):
    cache = tmp_path / "cache"
    options = {"image_size": 8, "cache": cache, "epoch": epoch_variable()}
    expected = arrays_of(datasets.image_folder_batches(image_folder, 4, **options))
    rows = np.load(cache / "images" / "rows.npy", mmap_mode="r+")
    checksums = np.load(cache / "images" / "checksums.npy", mmap_mode="r+")
    assert np.count_nonzero(checksums) == 23  # the test images were not read
    rows[:12, 4:] = 0
    checksums[12:20] = 0
    del rows, checksums
    for x, y in zip(
        arrays_of(datasets.image_folder_batches(image_folder, 4, **options)), expected, strict=True
    ):
        np.testing.assert_array_equal(x, y)


def test_cache_of_other_files_or_settings_is_refused(image_folder, tmp_path):
    cache = tmp_path / "cache"
    streaming.open_image_folder(image_folder, 8, cache=cache)
    streaming.open_image_folder(image_folder, 8, cache=cache)
    with pytest.raises(ValueError, match="cache: expected a new folder .* of other image_size and"):
        streaming.open_image_folder(image_folder, 9, background=0, cache=cache)
    os.utime(image_folder / "cats" / "00.png", ns=(0, 0))
    with pytest.raises(ValueError, match=r"cache: .*/images of other files\."):
        streaming.open_image_folder(image_folder, 8, cache=cache)
    with pytest.raises(ValueError, match="cache: expected the path of a folder, got the file"):
        streaming.open_image_folder(image_folder, 8, cache=image_folder / "cats" / "01.png")
    for value in ("", 3):
        with pytest.raises(ValueError, match="cache: expected a string or a path"):
            streaming.open_image_folder(image_folder, 8, cache=value)


def test_cache_that_was_not_finished_is_created_again(image_folder, tmp_path, monkeypatch):
    cache = tmp_path / "cache"

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", killed)
        patch.setattr(shutil, "rmtree", lambda *args, **kwargs: None)
        with pytest.raises(KeyboardInterrupt):
            streaming.open_image_folder(image_folder, 8, cache=cache)
    assert [path.name[:18] for path in cache.iterdir()] == ["unfinished-images-"]
    streaming.open_image_folder(image_folder, 8, cache=cache)
    assert [path.name for path in cache.iterdir()] == ["images"]


def test_first_of_several_processes_creates_the_cache(tmp_path):
    def create(folder):
        array_files.open_cache(tmp_path, "rows", {}, lambda other: (other / "a").write_text("1"))
        (folder / "a").write_text("2")

    folder = array_files.open_cache(tmp_path, "rows", {}, create)
    assert (folder / "a").read_text() == "1" and list(tmp_path.iterdir()) == [folder]


def test_cache_that_cannot_be_written_raises_and_leaves_no_files(tmp_path):
    def create(folder):
        (folder / "a").write_text("1")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        array_files.open_cache(tmp_path, "rows", {}, create)
    assert not list(tmp_path.iterdir())


def test_file_with_a_damaged_header_raises_at_the_start(image_folder):
    (image_folder / "dogs" / "20.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"20\.png: cannot be read as an image \(not a PNG"):
        datasets.image_folder_batches(image_folder)


def test_file_with_damaged_pixels_raises_one_error_with_its_path(image_folder):
    path = image_folder / "dogs" / "20.png"
    path.write_bytes(path.read_bytes()[:-30])
    dataset = datasets.image_folder_batches(image_folder)
    with (
        pytest.raises(ValueError, match=r"20\.png: cannot be read as an image") as raised,
        streamed_arrays.reraise_file_errors(),
    ):
        list(dataset)
    assert type(raised.value) is ValueError and "Traceback" not in str(raised.value)


def test_other_errors_of_tensorflow_are_not_replaced():
    with pytest.raises(tf.errors.InvalidArgumentError), streamed_arrays.reraise_file_errors():
        tf.reshape(tf.zeros(3), (2, 2))


# Sounds.


@pytest.fixture
def sound_folder(tmp_path):
    """12 sounds of two classes, of up to three seconds at 800 samples per second."""
    rng = np.random.default_rng(0)
    for i in range(12):
        path = tmp_path / "sounds" / ("high" if i % 2 else "low") / f"{i:02d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        length = 2400 if i == 3 else int(rng.integers(300, 2400))
        waveform = rng.uniform(-1, 1, length) * rng.uniform(0.1, 1)
        waveform[-50:] = 0
        if i == 3:
            waveform[700:2300] = 4e-5  # a second of silence
        save_wav(path, waveform, 800)
    return tmp_path / "sounds"


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("cached", [False, True])
def test_batches_of_sounds_equal_those_of_the_loaded_folder(
    sound_folder, tmp_path, augment, cached, monkeypatch
):
    waveforms, labels, _, _, files = datasets.load_sound_folder(sound_folder)
    monkeypatch.setattr(streaming, "SOUND_PIECE", 1000)  # of which one second is read at a time
    train, test = streaming.split_sounds(labels, files, 2)
    epoch = epoch_variable()
    cache = tmp_path / "cache" if cached else None
    options = {"epoch": epoch, "cache": cache, "augment": augment}
    dataset = datasets.sound_folder_batches(sound_folder, 4, seed=5, **options)
    expected = make_audio_dataset(
        [waveforms[i] for i in train], labels[train], 4, 5, epoch, augment
    )
    for number in (0, 1):
        epoch.assign(number)
        assert_same_batches(dataset, expected)
    dataset = datasets.sound_folder_batches(sound_folder, 3, subset="test", **options)
    rows = np.concatenate([label for (_, label), _ in dataset])
    np.testing.assert_array_equal(rows, labels[test])
    lengths = np.concatenate([np.sum(y != -1, axis=1) for _, y in dataset])
    np.testing.assert_array_equal(lengths, [len(waveforms[i]) for i in test])


def test_streamed_sounds_equal_the_loaded_ones(sound_folder):
    loaded = datasets.load_sound_folder(sound_folder)
    streamed = streaming.open_sound_folder(sound_folder)
    for waveform, expected in zip(streamed[0][:], loaded[0], strict=True):
        np.testing.assert_array_equal(waveform, expected)
    for found, expected in zip(streamed[1:], loaded[1:], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_cached_sounds_are_read_from_the_cache(sound_folder, tmp_path):
    sounds = streaming.open_sound_folder(sound_folder)[0][:]
    cached = streaming.open_sound_folder(sound_folder, tmp_path / "cache")[0]
    shutil.rmtree(sound_folder)
    for waveform, expected in zip(cached[:], sounds, strict=True):
        np.testing.assert_array_equal(waveform, expected)


def test_shards_of_sounds_join_to_the_batches(sound_folder):
    whole, *shards = (
        arrays_of(
            datasets.sound_folder_batches(
                sound_folder, 4, epoch=epoch_variable(), input_context=part, augment=True
            )
        )
        for part in (None, context(2, 0, 4), context(2, 1, 4))
    )
    for column in range(3):  # x, labels and y
        parts = [shard[column::3] for shard in shards]
        for i, batch in enumerate(whole[column::3]):
            joined = [part for shard in parts for part in shard[2 * i : 2 * i + 2]]
            repeats = 4 if len(batch) < 4 else 1  # fewer sounds than replicas: all for each
            np.testing.assert_array_equal([*batch] * repeats, np.concatenate(joined))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_parts_of_a_wav_file_equal_the_whole(tmp_path, channels, width):
    path = tmp_path / "sound.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, 100, 0, "NONE", "not compressed"))
        file.writeframes(np.random.default_rng(0).bytes(57 * width * channels))
    waveform, rate = load_wav(path)
    with WavFile(path) as file:
        assert (file.num_samples, file.sample_rate) == (57, 100) == (len(waveform), rate)
        for start, stop in ((0, 57), (0, 10), (13, 40), (50, 99), (57, 57)):
            np.testing.assert_array_equal(file.read(start, stop), waveform[start:stop])


# Texts.


WORDS = (
    "Alice was, at 9: 'tis a\r\nlong caf\u00e9  \u65e9\u5b89\uff0c\u6587\u4ef6 <|endoftext|> x\r"
)


@pytest.fixture
def text_folder(tmp_path):
    """Three text files, whose names are in another order than their dates."""
    rng = np.random.default_rng(0)
    words = WORDS.split(" ")
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in ("b.txt", "a.txt", "c.TXT"):
        text = " ".join(rng.choice(words, 700))
        (folder / name).write_bytes(("\ufeff" if name == "b.txt" else "").encode() + text.encode())
    return folder


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(text_files, "PIECE", 3)
    monkeypatch.setattr(text_files, "CONTEXT", 20)


def whole_text(folder):
    """The joined contents of the files of a folder, by `load_text`."""
    texts = [datasets.load_text(path) for path in sorted(folder.iterdir())]
    ended = [text if text.endswith("\n") else text + "\n" for text in texts[:-1]]
    return "".join([*ended, texts[-1]])


def test_pieces_of_texts_join_to_the_whole(text_folder, small_pieces):
    paths = text_files.find_texts(text_folder)
    pieces = list(text_files.read_texts(paths))
    assert max(map(len, pieces)) <= 5 and "".join(pieces) == whole_text(text_folder)
    text = whole_text(text_folder)
    assert text_files.count_characters(paths) == (len(text), sorted(set(text)))
    assert text_files.read_start(paths, 1234) == text[:1234]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encoding_and_line_ends_are_those_of_load_text(tmp_path, small_pieces, encoding):
    path = tmp_path / "text.txt"
    path.write_bytes((WORDS * 3 + "\r\n\r").encode(encoding))
    assert "".join(text_files.read_texts([path])) == datasets.load_text(path)


@pytest.mark.parametrize("kind", ["characters", "byte pairs"])
@pytest.mark.parametrize("cached", [False, True])
def test_windows_of_texts_equal_those_of_the_whole_text(
    text_folder, tmp_path, small_pieces, kind, cached
):
    text = whole_text(text_folder)
    cut = int(0.9 * len(text))
    if kind == "characters":
        tokenizer = CharacterTokenizer.from_text(text)
    else:
        tokenizer = GPT2Tokenizer.train(text, 400)
    epoch = epoch_variable()
    cache = tmp_path / "cache" if cached else None
    options = {"epoch": epoch, "cache": cache, "seed": 2}
    for _ in range(1 + cached):
        dataset = datasets.text_file_batches(text_folder, tokenizer, 16, 8, **options)
        expected = make_window_dataset(tokenizer.encode(text[:cut]), 16, 8, 2, epoch)
        for number in (0, 3):
            epoch.assign(number)
            assert_same_batches(dataset, expected)
    test = [*tokenizer.encode(text[:cut])[-1:], *tokenizer.encode(text[cut:])]
    dataset = datasets.text_file_batches(text_folder, tokenizer, 16, 8, subset="test", **options)
    x, y = (np.concatenate(column).ravel() for column in zip(*dataset, strict=True))
    num_tokens = (len(test) - 1) // 16 * 16
    np.testing.assert_array_equal(x, test[:num_tokens])
    np.testing.assert_array_equal(y, test[1 : num_tokens + 1])


def test_a_special_token_is_not_cut(small_pieces, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("ab<|endoftext|>" * 200)
    tokenizer = GPT2Tokenizer.train("ab ab", 300)
    train, test = text_files.encode_texts([path], tokenizer, 2700)
    expected = tokenizer.encode("ab<|endoftext|>" * 180)
    np.testing.assert_array_equal(train[:], expected)
    np.testing.assert_array_equal(test[1:], expected[:40])


def test_a_word_longer_than_the_context_is_not_cut(small_pieces, tmp_path):
    text = " ".join("a" * n for n in np.random.default_rng(0).integers(50, 150, 30))
    path = tmp_path / "text.txt"
    path.write_text(text)
    tokenizer = GPT2Tokenizer.train(text, 262)
    train, _ = text_files.encode_texts([path], tokenizer, len(text))
    np.testing.assert_array_equal(train[:], tokenizer.encode(text))


def test_tokenizer_whose_tokens_depend_on_the_whole_text_is_refused(
    text_folder, small_pieces, monkeypatch
):
    class StartTokenizer(CharacterTokenizer):
        """Characters after a start token."""

        @property
        def characters(self):
            raise AttributeError

        @characters.setter
        def characters(self, value):
            pass

        def encode(self, text):
            return np.append(0, super().encode(text))

    tokenizer = StartTokenizer(sorted(set(whole_text(text_folder))))
    monkeypatch.setattr(text_files, "MAX_PIECE", 500)
    with pytest.raises(ValueError, match="tokenizer: expected one that encodes the parts of a"):
        datasets.text_file_batches(text_folder, tokenizer)


def test_errors_of_texts_name_the_file_or_the_argument(text_folder, tmp_path, small_pieces):
    tokenizer = CharacterTokenizer.from_text(whole_text(text_folder))
    with pytest.raises(ValueError, match="expected at least 40000 tokens"):
        datasets.text_file_batches(text_folder, tokenizer, 20_000)
    with pytest.raises(ValueError, match="texts: expected more than 5000 tokens in the last tenth"):
        datasets.text_file_batches(text_folder, tokenizer, 5000, subset="test")
    with pytest.raises(ValueError, match="text from character .* on: text: expected characters"):
        datasets.text_file_batches(text_folder, CharacterTokenizer("Alice"))
    with pytest.raises(ValueError, match="tokenizer: expected a tokenizer"):
        datasets.text_file_batches(text_folder, None)
    path = text_folder / "b.txt"
    path.write_bytes(b"a\nb\n" * 100 + b"\xff")
    with pytest.raises(
        ValueError, match=r"b\.txt: cannot be read as a text in UTF-8 \(.* in line 201\)"
    ):
        datasets.text_file_batches(text_folder, tokenizer)
    path.write_bytes(b"a\nb\n" * 100 + b"c\0")
    with pytest.raises(ValueError, match=r"b\.txt: .* \(a NUL character in line 201\)"):
        datasets.text_file_batches(text_folder, tokenizer)
    (text_folder / "deep").mkdir()
    (text_folder / "deep" / "d.txt").write_text("d")
    with pytest.raises(ValueError, match="expected text files, or folders of text files, found"):
        datasets.text_file_batches(text_folder, tokenizer)
    with pytest.raises(ValueError, match="missing: cannot be read"):
        datasets.text_file_batches(tmp_path / "missing", tokenizer)


def test_ids_outside_the_vocabulary_are_refused(text_folder):
    tokenizer = CharacterTokenizer.from_text(whole_text(text_folder))
    shifted = types.SimpleNamespace(
        encode=lambda text: tokenizer.encode(text) + 1,
        decode=tokenizer.decode,
        vocab_size=tokenizer.vocab_size,
    )
    with pytest.raises(ValueError, match="tokenizer: expected token ids from 0 to"):
        datasets.text_file_batches(text_folder, shifted)


def test_cache_of_another_tokenizer_is_refused(text_folder, tmp_path):
    text = whole_text(text_folder)
    cache = tmp_path / "cache"
    datasets.text_file_batches(text_folder, CharacterTokenizer.from_text(text), cache=cache)
    tokenizer = CharacterTokenizer.from_text(text + "~")
    with pytest.raises(ValueError, match=r"cache: .*text of other tokenizer\."):
        datasets.text_file_batches(text_folder, tokenizer, cache=cache)
    paths, tokenizer = text_files.find_texts(text_folder), CharacterTokenizer.from_text(text)
    with pytest.raises(ValueError, match=r"cache: .*text of other cut\."):
        text_files.encode_texts(paths, tokenizer, 100, cache)


# Tasks and recipes.


@pytest.fixture
def stream(monkeypatch):
    """A function that makes all data of users larger than the limit."""
    return lambda: monkeypatch.setattr(streaming, "STREAMING_BYTES", 0)


def load_both(task, source, stream):
    loaded = task.load(source)
    stream()
    return loaded, task.load(source)


@pytest.mark.parametrize(
    "task",
    [
        tasks.VAETask(),
        tasks.VAETask(class_conditional=True),
        tasks.GANTask(),
        tasks.ClassificationTask(),
        tasks.PixelCNNTask(class_conditional=True),
        tasks.DiffusionTask(class_conditional=True),
    ],
    ids=lambda task: type(task).__name__,
)
def test_tasks_stream_images_beyond_the_limit(image_folder, task, stream):
    loaded, streamed = load_both(task, image_folder, stream)
    assert isinstance(streamed.train[0], streamed_arrays.StreamedArray)
    assert streamed.num_examples == loaded.num_examples == 23
    assert streamed.dataset_info == loaded.dataset_info
    epoch = epoch_variable(1)
    assert_same_batches(
        task.train_dataset(streamed, 4, 0, epoch), task.train_dataset(loaded, 4, 0, epoch)
    )
    (batch,) = task.validation_data(streamed)["validation_data"]
    x, y = batch if task.class_conditional else (batch, None)
    np.testing.assert_array_equal(x, loaded.test[0])
    if task.class_conditional:
        np.testing.assert_array_equal(y, loaded.test[1])
    np.testing.assert_array_equal(streamed.test[0][:1], loaded.test[0][:1])


@pytest.mark.parametrize("shape", [(3, 4), (3, 5, 1)])
def test_uniform_rows_are_those_of_the_whole_array(shape):
    whole = np.random.default_rng(0).random((20, *shape), "float32")
    rows = np.array([7, 0, 19, 8, 7])
    np.testing.assert_array_equal(tasks.images.uniform_rows(rows, shape), whole[rows])


def test_digest_of_streamed_data_depends_on_names_and_sizes_only(image_folder, tmp_path, stream):
    stream()
    task = tasks.VAETask()
    digest = task.load(image_folder).sha256()
    moved = image_folder.rename(tmp_path / "moved")
    os.utime(moved / "cats" / "00.png", ns=(0, 0))
    assert task.load(moved).sha256() == digest
    (moved / "cats" / "00.png").rename(moved / "cats" / "0.png")
    assert task.load(moved).sha256() != digest
    (moved / "cats" / "0.png").rename(moved / "cats" / "00.png")
    Image.new("L", (50, 50)).save(moved / "cats" / "00.png")
    assert task.load(moved).sha256() != digest


def test_large_test_images_are_evaluated_in_small_batches(image_folder, stream, monkeypatch):
    stream()
    monkeypatch.setattr(tasks.images, "MAX_BATCH_BYTES", 784 * 4 + 1)
    task = tasks.VAETask()
    data = task.load(image_folder)
    assert [len(x) for x in task.validation_data(data)["validation_data"]] == [1, 1]


def test_tasks_stream_sounds_beyond_the_limit(sound_folder, stream):
    task = tasks.AudioTask()
    loaded, streamed = load_both(task, sound_folder, stream)
    assert isinstance(streamed.train[0], streamed_arrays.StreamedSounds)
    assert (streamed.num_examples, streamed.dataset_info) == (
        loaded.num_examples,
        loaded.dataset_info,
    )
    epoch = epoch_variable(1)
    assert_same_batches(
        task.train_dataset(streamed, 4, 0, epoch), task.train_dataset(loaded, 4, 0, epoch)
    )
    assert_same_batches(
        task.validation_data(streamed)["validation_data"],
        task.validation_data(loaded)["validation_data"],
    )


@pytest.mark.parametrize("vocab_size", [None, 300])
def test_tasks_stream_texts_beyond_the_limit(text_folder, stream, small_pieces, vocab_size):
    task = tasks.LanguageModelingTask(window=16, vocab_size=vocab_size)
    loaded, streamed = load_both(task, text_folder, stream)
    assert isinstance(streamed.train, streamed_arrays.StreamedArray)
    assert isinstance(loaded.train, np.ndarray)
    assert (streamed.num_examples, streamed.dataset_info) == (
        loaded.num_examples,
        loaded.dataset_info,
    )
    np.testing.assert_array_equal(streamed.train[:], loaded.train)
    np.testing.assert_array_equal(streamed.test[0][:], loaded.test[0])
    batches = task.validation_data(streamed)["validation_data"]
    for column, expected in zip(
        zip(*batches, strict=True), task.validation_data(loaded)["validation_data"], strict=True
    ):
        np.testing.assert_array_equal(np.concatenate(column), expected)


@pytest.mark.parametrize(
    "task, source",
    [
        (tasks.VAETask(), None),
        (tasks.AudioTask(), None),
        (tasks.LanguageModelingTask(), None),
        (tasks.LanguageModelingTask(), "tang"),
        (tasks.ForecastingTask(), None),
        (tasks.TranslationTask(), None),
    ],
)
def test_cache_of_data_in_memory_is_refused(tmp_path, task, source):
    with pytest.raises(ValueError, match="cache: expected None, as .* in memory, got '.*cache'"):
        task.load(source, cache=str(tmp_path / "cache"))


def test_a_cache_streams_small_data(image_folder, sound_folder, text_folder, tmp_path):
    cache = tmp_path / "cache"
    for task, folder in (
        (tasks.VAETask(), image_folder),
        (tasks.AudioTask(), sound_folder),
        (tasks.LanguageModelingTask(window=16), text_folder),
    ):
        data = task.load(folder, cache=cache)
        list(task.train_dataset(data, 4, 0, epoch_variable()))
        assert not isinstance(data.train, np.ndarray)
    assert sorted(path.name for path in cache.iterdir()) == ["images", "sounds", "text"]


@pytest.mark.parametrize("context_length", [None, 16])
def test_streamed_text_has_the_likelihood_of_the_loaded_one(text_folder, stream, context_length):
    task = tasks.LanguageModelingTask(window=16)
    loaded, streamed = load_both(task, text_folder, stream)
    tokenizer = CharacterTokenizer(loaded.dataset_info["characters"])
    if context_length is None:
        model = build_language_model(tokenizer.vocab_size, "gru", 4, 4, tokenizer=tokenizer)
    else:
        model = build_gpt2(tokenizer.vocab_size, context_length, 1, 2, 8, tokenizer=tokenizer)
    set_random_weights(model, scale=1)
    found, expected = (task.evaluate(model, data) for data in (streamed, loaded))
    assert found == pytest.approx(expected, rel=1e-6) and expected["num_characters"] > 1000


@pytest.mark.slow
def test_streamed_sounds_have_the_likelihood_of_the_loaded_ones(sound_folder, stream, monkeypatch):
    monkeypatch.setattr(tasks.sound, "EVALUATION_BATCH", 3)
    task = tasks.AudioTask()
    loaded, streamed = load_both(task, sound_folder, stream)
    model = build_wavenet(256, 1, 1, 2, 2, num_classes=2)
    set_random_weights(model, scale=1)
    found, expected = (task.evaluate(model, data) for data in (streamed, loaded))
    assert found == pytest.approx(expected, rel=1e-6)


SMALL_MODELS = {
    "article4-vae": EXPERIMENTS["article4-vae"].build,
    "article3-pixelcnn": lambda seed, num_classes, image_shape: build_pixelcnn(
        (28, 28, 1), 1, 4, num_classes=num_classes
    ),
    "article3-wavenet": lambda seed, class_names, sample_rate: build_wavenet(
        256, 1, 2, 4, 4, num_classes=len(class_names), sample_rate=sample_rate
    ),
    "article3-lstm": lambda seed, characters: build_language_model(
        len(characters), "lstm", 4, 4, tokenizer=CharacterTokenizer(characters)
    ),
}


class Interruption(keras.callbacks.Callback):
    """Interruption by the user at the start of the second epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL_MODELS)
def test_recipe_on_streamed_data_ends_with_the_weights_of_the_loaded_data(
    name, tmp_path, request, stream, monkeypatch
):
    fixture = {"article3-wavenet": "sound_folder", "article3-lstm": "text_folder"}
    folder = request.getfixturevalue(fixture.get(name, "image_folder"))
    experiment = dataclasses.replace(EXPERIMENTS[name], build=SMALL_MODELS[name])
    monkeypatch.setitem(EXPERIMENTS, name, experiment)
    options = {"data": folder, "batch_size": 8, "seed": 1, "verbose": 0}
    expected = recipes.train(name, epochs=2, folder=tmp_path / "loaded", **options)
    stream()
    whole = recipes.train(name, epochs=2, **options)
    options |= {"epochs": 2, "folder": tmp_path / "streamed"}
    with monkeypatch.context() as patch:
        patch.setattr(type(experiment.task), "callbacks", lambda *args: [Interruption()])
        with pytest.raises(KeyboardInterrupt):
            recipes.train(name, **options)
    resumed = recipes.train(name, resume=True, **options)
    for result in (whole, resumed):
        for weight, loaded_weight in zip(
            result.model.get_weights(), expected.model.get_weights(), strict=True
        ):
            np.testing.assert_array_equal(weight, loaded_weight)
    assert whole.metrics == pytest.approx(expected.metrics, rel=1e-6)
    assert whole.history["val_loss"] == pytest.approx(expected.history["val_loss"], rel=1e-6)
    samples = sorted(path.name for path in (tmp_path / "loaded").iterdir())
    assert samples == sorted(path.name for path in (tmp_path / "streamed").iterdir())
