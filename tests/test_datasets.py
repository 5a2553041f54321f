"""Data: what ships is whole, what is damaged is named, and seed and epoch decide the order."""

import hashlib
import re
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_genai import datasets
from keras_genai.audio import mu_law_decode, mu_law_encode, save_wav


def test_mnist_is_the_canonical_one():
    (x_train, y_train), (x_test, y_test) = datasets.load_mnist()
    assert x_train.shape == (60000, 28, 28) and y_train.shape == (60000,)
    assert x_test.shape == (10000, 28, 28) and y_test.shape == (10000,)
    assert {a.dtype for a in (x_train, y_train, x_test, y_test)} == {np.dtype("uint8")}
    # MD5 of the idx files of the original distribution: a header, then these bytes.
    for array, header, md5 in (
        (x_train, [0x803, 60000, 28, 28], "6bbc9ace"),
        (y_train, [0x801, 60000], "a25bea73"),
        (x_test, [0x803, 10000, 28, 28], "2646ac64"),
        (y_test, [0x801, 10000], "27ae3e4e"),
    ):
        idx = np.array(header, ">i4").tobytes() + array.tobytes()
        assert hashlib.md5(idx).hexdigest().startswith(md5)


@pytest.fixture
def other_folder(tmp_path, monkeypatch):
    """An empty data folder, named by KERAS_GENAI_DATA."""
    monkeypatch.setenv("KERAS_GENAI_DATA", str(tmp_path))
    return tmp_path


def test_environment_variable_names_another_folder(other_folder):
    named = re.escape(str(other_folder / "mnist.npz"))
    with pytest.raises(FileNotFoundError, match=f"{named}: no such file. Install keras_genai anew"):
        datasets.load_mnist()


def test_damaged_files_are_named_with_the_remedy(other_folder, monkeypatch):
    monkeypatch.delenv("KERAS_GENAI_DATA")
    whole = (datasets.data_folder() / "mnist.npz").read_bytes()
    monkeypatch.setenv("KERAS_GENAI_DATA", str(other_folder))
    altered = bytearray(whole)
    altered[5_000_000] ^= 1
    for damaged in (whole[:1_000_000], bytes(altered), b""):
        (other_folder / "mnist.npz").write_bytes(damaged)
        with pytest.raises(
            ValueError, match="mnist.npz: cut short or altered: .* Install keras_genai anew"
        ):
            datasets.load_mnist()
    (other_folder / "mnist.npz").write_bytes(whole)
    assert len(datasets.load_mnist()[0][0]) == 60000


@pytest.fixture
def image_folder(tmp_path):
    """Ten grey 28 x 28 images in each of two class folders; the pixels of image i are i."""
    for i in range(20):
        folder = tmp_path / ("cats" if i < 10 else "dogs")
        folder.mkdir(exist_ok=True)
        keras.utils.save_img(folder / f"{i:02d}.png", np.full((28, 28, 1), i), scale=False)
    return tmp_path


def test_image_folder_is_loaded_with_a_tenth_held_out(image_folder):
    (x_train, y_train), (x_test, y_test) = datasets.load_image_folder(image_folder)
    assert (
        x_train.shape == (18, 28, 28) and x_test.shape == (2, 28, 28) and x_train.dtype == "uint8"
    )
    x, y = np.concatenate([x_train, x_test]), np.concatenate([y_train, y_test])
    assert sorted(x[:, 0, 0]) == list(range(20))
    np.testing.assert_array_equal(y, x[:, 0, 0] >= 10)


def test_image_folder_without_classes_has_no_labels(image_folder):
    (_, y_train), (_, y_test) = datasets.load_image_folder(image_folder / "cats")
    assert y_train is None and y_test is None


def test_images_of_other_sizes_and_colours_become_grey_and_small(tmp_path):
    for i in range(10):
        keras.utils.save_img(tmp_path / f"{i}.jpg", np.full((50, 70, 3), 200), scale=False)
    (x_train, _), _ = datasets.load_image_folder(tmp_path)
    assert x_train.shape == (9, 28, 28) and np.all(np.abs(x_train.astype(int) - 200) < 3)


def test_bad_image_folders_are_named(image_folder, tmp_path):
    with pytest.raises(ValueError, match="nowhere: expected a folder of images"):
        datasets.load_image_folder(tmp_path / "nowhere")
    (image_folder / "cats" / "99.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match="99.png: cannot be read as an image"):
        datasets.load_image_folder(image_folder)
    Image.fromarray(np.full((28, 28), 300, "uint16")).save(image_folder / "cats" / "99.png")
    with pytest.raises(ValueError, match="99.png: expected 8 bits a pixel"):  # or 300 would be 44
        datasets.load_image_folder(image_folder)
    (image_folder / "cats" / "99.png").rename(image_folder / "99.png")
    with pytest.raises(ValueError, match="expected images, or folders of images, found both"):
        datasets.load_image_folder(image_folder)
    (image_folder / "99.png").unlink()
    shutil.rmtree(image_folder / "cats")
    (image_folder / "dogs" / "19.png").unlink()
    with pytest.raises(ValueError, match="at least 10 images, found 9"):
        datasets.load_image_folder(image_folder)


def orders(seed, epochs):
    epoch = tf.Variable(0, dtype=tf.int64)
    rows = np.arange(10)
    dataset = datasets.batches((rows, -rows), 4, seed, epoch)
    for number in epochs:
        epoch.assign(number)
        yield list(dataset.as_numpy_iterator())


def test_batches_hold_every_row_once_with_its_label():
    (batches,) = orders(seed=0, epochs=[0])
    assert [len(x) for x, _ in batches] == [4, 4, 2]
    x, y = (np.concatenate(column) for column in zip(*batches))
    assert sorted(x) == list(range(10)) and np.array_equal(x, -y)


def test_order_of_batches_depends_on_seed_and_epoch_alone():
    def flat(seed, epochs):
        return [
            np.concatenate([x for x, _ in batches]).tolist() for batches in orders(seed, epochs)
        ]

    first, second, third = flat(0, [0, 1, 2])
    assert len({tuple(order) for order in (first, second, third)}) == 3
    assert flat(0, [2]) == [third] and flat(0, [1, 0]) == [second, first]
    assert flat(1, [0]) != [first]


# Texts and series.


def test_books_and_quatrains_are_whole():
    assert sum(map(len, datasets.load_books())) == 730_522
    poems = datasets.load_quatrains()
    assert len(poems) == 9347 and len(set("".join(poems))) == 4508
    assert all(poem.count("\uff0c") == poem.count("\u3002") == 2 for poem in poems)


def windows(seed, epochs):
    epoch = tf.Variable(0, dtype=tf.int64)
    dataset = datasets.window_batches(np.arange(50, dtype="int32"), 8, 3, seed, epoch)
    for number in epochs:
        epoch.assign(number)
        yield list(dataset.as_numpy_iterator())


def test_windows_lie_side_by_side_each_with_what_follows():
    for batches in windows(seed=0, epochs=range(5)):
        assert [len(x) for x, _ in batches] == [3, 2]
        x, y = (np.concatenate(column) for column in zip(*batches))
        assert x.shape == (5, 8) and np.array_equal(y, x + 1)
        text = np.sort(x.ravel())
        assert np.array_equal(text, np.arange(text[0], text[0] + 40)) and 0 <= text[0] < 8


def test_windows_begin_elsewhere_in_each_epoch_and_alike_from_one_seed():
    def all_rows(seed, epochs):
        return [np.concatenate([x for x, _ in b]).tolist() for b in windows(seed, epochs)]

    starts = {min(map(min, rows)) for rows in all_rows(0, range(20))}
    assert len(starts) > 4
    assert all_rows(0, [3, 4]) == all_rows(0, range(5))[3:] != all_rows(1, [3, 4])
    with pytest.raises(ValueError, match="text: expected at least 16 tokens, got 15"):
        datasets.count_windows(15, 8)


def pairs(seed, epochs):
    """50 pairs of lengths 1 to 29: all tokens of both of pair i are i + 1."""
    epoch = tf.Variable(0, dtype=tf.int64)
    lengths = np.random.default_rng(0).integers(1, 30, size=(2, 50, 1))
    sources, targets = (np.arange(29) < lengths) * (1 + np.arange(50))[:, None]
    dataset = datasets.pair_batches(sources, targets, 8, seed, epoch)
    for number in epochs:
        epoch.assign(number)
        yield list(dataset.as_numpy_iterator())


def test_pairs_of_like_length_make_a_batch_each_pair_once():
    for batches in pairs(seed=0, epochs=range(3)):
        assert sorted(len(source) for source, _ in batches) == [2, 8, 8, 8, 8, 8, 8]
        ranges = []
        for source, target in batches:
            # Sources stay with their targets; no column more than a multiple of 8 needs.
            np.testing.assert_array_equal(source[:, 0], target[:, 0])
            lengths = np.maximum(*(np.count_nonzero(x, axis=1) for x in (source, target)))
            assert source.shape == target.shape == (len(source), -(-lengths.max() // 8) * 8)
            ranges.append((lengths.min(), lengths.max()))
        rows = np.concatenate([source[:, 0] for source, _ in batches])
        assert sorted(rows) == list(range(1, 51))
        assert ranges != sorted(ranges)  # not the shortest first
        ranges.sort()
        assert all(longest <= next for (_, longest), (next, _) in zip(ranges, ranges[1:]))


def test_order_of_pairs_depends_on_seed_and_epoch_alone():
    def flat(seed, epochs):
        return [np.concatenate([x[:, 0] for x, _ in b]).tolist() for b in pairs(seed, epochs)]

    first, second, third = flat(0, [0, 1, 2])
    assert len({tuple(order) for order in (first, second, third)}) == 3
    assert flat(0, [2]) == [third] and flat(0, [1, 0]) == [second, first]
    assert flat(1, [0]) != [first]
    # Of those of one length, others come together in each epoch.
    batches = [{frozenset(x[:, 0].tolist()) for x, _ in b} for b in pairs(0, [0, 1])]
    assert batches[0] != batches[1]


def test_translations_are_whole(tmp_path):
    translations = datasets.load_translations()
    assert len(translations) == 15318 and all(len(pair) == 2 for pair in translations)
    chinese = [any("\u4e00" <= c <= "\u9fff" for c in text) for _, text in translations]
    assert np.mean(chinese) > 0.99
    path = tmp_path / "own.tsv"
    path.write_bytes("a b\t\u7532\r\n\nc\u2028\t\u4e59\n".encode())
    assert datasets.load_pairs(path) == [("a b", "\u7532"), ("c\u2028", "\u4e59")]


def test_gaps_of_a_series_lie_on_a_line():
    co2 = datasets.load_co2()
    assert co2.shape == (2284,) and co2.dtype == "float32" and np.isfinite(co2).all()
    np.testing.assert_allclose(co2[:3], [316.1, 317.3, 317.6], rtol=1e-6)
    with open(datasets.shipped("co2_weekly.csv")) as file:
        empty = [i for i, line in enumerate(file.readlines()[1:]) if line.strip().endswith(",")]
    assert len(empty) == 59
    first = empty[0]
    assert empty[1] != first + 1
    assert co2[first] == pytest.approx((co2[first - 1] + co2[first + 1]) / 2, abs=1e-4)
    sunspots = datasets.load_sunspots()
    assert sunspots.shape == (309,) and sunspots[:2].tolist() == [5, 11]


def test_series_windows():
    past, future = datasets.series_windows(np.arange(10), window=4, horizon=2)
    assert past.tolist()[0] == [0, 1, 2, 3] and future.tolist()[-1] == [8, 9] and len(past) == 5
    past, future = datasets.series_windows(np.arange(10), 4, 2, first=7)
    assert past.tolist() == [[3, 4, 5, 6], [4, 5, 6, 7]] and future[:, 0].tolist() == [7, 8]
    with pytest.raises(ValueError, match="series: expected at least 11 values for a window of 4"):
        datasets.series_windows(np.arange(10), 4, 7)


def test_bad_texts_and_series(tmp_path):
    path = tmp_path / "own"
    for content, load, message in (
        (b" \n", datasets.load_text, "expected a text, got an empty file"),
        (b"\xff\xfe", datasets.load_text, "cannot be read as a text in UTF-8"),
        (b"a,b\n1,x\n", datasets.load_series, "expected a CSV file with a heading and numbers"),
        (b"", datasets.load_series, "expected a CSV file with a heading and numbers"),
        (b"a,b\n1,\n", datasets.load_series, "expected numbers in the last column, found none"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"own: {message}"):
            load(path)
    with pytest.raises(ValueError, match="nowhere: cannot be read"):
        datasets.load_text(tmp_path / "nowhere")


def test_a_byte_order_mark_is_no_character_of_the_text(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("abc", encoding="utf-8-sig")
    assert datasets.load_text(path) == "abc"


@pytest.mark.parametrize("line", ["c", "c\t", " \td", "c\td\te"])
def test_a_line_that_is_no_pair_is_named(tmp_path, line):
    path = tmp_path / "own.tsv"
    path.write_text(f"\na\tb\n\n{line}\ne\tf\n")  # empty lines count, and are left out
    with pytest.raises(ValueError, match="own.tsv: expected two sentences and a tab in line 4"):
        datasets.load_pairs(path)


def test_binary_pixels_are_as_often_white_as_they_are_bright():
    images = np.repeat([0.0, 0.25, 0.9, 1.0], 10_000).reshape(4, 100, 100)
    binary = datasets.binarize(images)
    assert binary.dtype == "float32" and set(np.unique(binary)) == {0, 1}
    np.testing.assert_allclose(binary.mean(axis=(1, 2)), [0, 0.25, 0.9, 1], atol=0.015)
    assert binary[0].max() == 0 and binary[3].min() == 1
    assert np.array_equal(binary, datasets.binarize(images))
    assert not np.array_equal(binary, datasets.binarize(images, seed=1))
    with pytest.raises(ValueError, match=r"images: expected pixels scaled to \[0, 1\], .* by 255"):
        datasets.binarize(np.array([[0, 255]], "uint8"))


def test_drums_are_what_ships_without_silent_tails():
    waveforms, labels, kinds = datasets.load_drums()
    assert kinds == ["drum", "electronic", "kick", "percussion", "snare", "tabla"]
    assert np.bincount(labels).tolist() == [20, 25, 13, 10, 4, 26]
    with np.load(datasets.shipped("drums_8khz.npz")) as file:
        whole = file["waveforms"]
    for waveform, padded in zip(waveforms, whole):
        n = len(waveform)
        np.testing.assert_array_equal(waveform, padded[:n] / np.float32(32768))
        assert abs(waveform[-1]) > 0.001 and np.abs(padded[n:]).max(initial=0) <= 32.768


def write_sounds(folder, count=10, rate=100):
    for i in range(count):
        path = folder / ("low" if i < 4 else "high") / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_wav(path, 0.5 * np.sin(np.arange(1, 61)), rate)


def test_a_folder_of_sounds_is_scaled_and_cut_into_seconds(tmp_path):
    write_sounds(tmp_path)
    save_wav(tmp_path / "high" / "long.wav", np.r_[np.ones(150), np.zeros(100)] / 4, 100)
    waveforms, labels, kinds, rate, files = datasets.load_sound_folder(tmp_path)
    assert kinds == ["high", "low"] and rate == 100
    assert files.tolist() == [0, 1, 2, 3, 4, 5, 6, 6, 7, 8, 9, 10]
    assert np.bincount(labels).tolist() == [6 + 2, 4]
    assert [len(w) for w, kind in zip(waveforms, labels) if kind == 0] == [60] * 6 + [100, 50]
    for waveform in waveforms:
        assert np.abs(waveform).max() == pytest.approx(0.95) and waveform.dtype == "float32"
    (tmp_path / "none").mkdir()
    for folder, message in (
        (tmp_path / "nowhere", "nowhere: expected a folder of WAV files, found none"),
        (tmp_path / "none", "none: expected at least 10 WAV files, found 0"),
    ):
        with pytest.raises(ValueError, match=message):
            datasets.load_sound_folder(folder)
    save_wav(tmp_path / "high" / "other.wav", np.ones(9), 200)
    with pytest.raises(ValueError, match="one sample rate, found 100 in 4.wav, 200 in other.wav"):
        datasets.load_sound_folder(tmp_path)
    save_wav(tmp_path / "high" / "other.wav", np.zeros(9), 100)
    with pytest.raises(ValueError, match="other.wav: expected a sound, got silence"):
        datasets.load_sound_folder(tmp_path)
    save_wav(tmp_path / "loose.wav", np.ones(9), 100)
    with pytest.raises(ValueError, match="expected WAV files, or folders of WAV files, found both"):
        datasets.load_sound_folder(tmp_path)


def test_batches_of_sounds_end_where_the_sounds_do():
    lengths = np.array([700, 3, 512, 600, 1024, 5])
    waveforms = [np.full(length, (i + 1) / 8, "float32") for i, length in enumerate(lengths)]
    levels = mu_law_encode(np.arange(1, 7) / 8)
    epoch = tf.Variable(0, dtype=tf.int64)
    batches = list(datasets.sound_batches(waveforms, np.arange(6), 2, 0, epoch))
    assert sorted(x.shape[1] for (x, _), _ in batches) == [512, 1024, 1024]
    seen = []
    for (x, labels), y in batches:
        for row, label, target in zip(x.numpy(), labels.numpy(), y.numpy()):
            length = lengths[label]
            assert row[0] == 128 and set(row[1 : 1 + length]) <= {levels[label]}
            assert set(target[:length]) == {levels[label]} and set(target[length:]) <= {-1}
            seen.append(label)
    assert sorted(seen) == list(range(6))
    (x, y), *_ = datasets.sound_batches(waveforms, None, 2, 0, epoch)
    assert x.shape == y.shape


def test_sounds_that_vary_keep_their_form():
    rng = np.random.default_rng(0)
    waveforms = [rng.uniform(-0.9, 0.9, size=500).astype("float32") for _ in range(40)]
    epoch = tf.Variable(0, dtype=tf.int64)

    def factors():
        """What each sound was multiplied by."""
        found = np.zeros(40)
        for (x, labels), y in datasets.sound_batches(waveforms, np.arange(40), 8, 3, epoch, True):
            for label, target in zip(labels.numpy(), y.numpy()):
                played, whole = mu_law_decode(target[:500]), waveforms[label]
                found[label] = played @ whole / (whole @ whole)
                assert np.corrcoef(played, whole)[0, 1] ** 2 > 0.999
        return found

    first, again = factors(), factors()
    assert np.array_equal(first, again)  # seed and epoch decide
    epoch.assign(1)
    assert np.abs(factors() - first).max() > 0.1
    sizes = np.abs(first)
    assert 0.24 < sizes.min() < 0.35 and 0.8 < sizes.max() < 1.01
    assert 10 < np.sum(first < 0) < 30
