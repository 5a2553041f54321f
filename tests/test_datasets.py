"""Loaders: complete data, clear errors for damaged files, and data from the user's own files."""

import hashlib
import re
import shutil

import keras
import numpy as np
import pytest
from PIL import Image

from keras_genai import datasets
from keras_genai.audio import save_wav

# Files of the package and images.


def test_mnist_matches_the_original_distribution():
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
def empty_data_dir(tmp_path, monkeypatch):
    """An empty data directory, selected by KERAS_GENAI_DATA."""
    monkeypatch.setenv("KERAS_GENAI_DATA", str(tmp_path))
    return tmp_path


def test_environment_variable_overrides_the_data_directory(empty_data_dir):
    path = re.escape(str(empty_data_dir / "mnist.npz"))
    with pytest.raises(FileNotFoundError, match=f"{path}: no such file. Reinstall keras_genai"):
        datasets.load_mnist()


def test_damaged_file_raises_an_error_with_a_remedy(empty_data_dir, monkeypatch):
    monkeypatch.delenv("KERAS_GENAI_DATA")
    whole = (datasets.data_dir() / "mnist.npz").read_bytes()
    monkeypatch.setenv("KERAS_GENAI_DATA", str(empty_data_dir))
    altered = bytearray(whole)
    altered[5_000_000] ^= 1
    for damaged in (whole[:1_000_000], bytes(altered), b""):
        (empty_data_dir / "mnist.npz").write_bytes(damaged)
        with pytest.raises(
            ValueError, match="mnist.npz: cut short or altered: .* Reinstall keras_genai"
        ):
            datasets.load_mnist()
    (empty_data_dir / "mnist.npz").write_bytes(whole)
    assert len(datasets.load_mnist()[0][0]) == 60000


def test_fraction_of_white_pixels_equals_the_brightness():
    images = np.repeat([0.0, 0.25, 0.9, 1.0], 10_000).reshape(4, 100, 100)
    binary = datasets.binarize(images)
    assert binary.dtype == "float32" and set(np.unique(binary)) == {0, 1}
    np.testing.assert_allclose(binary.mean(axis=(1, 2)), [0, 0.25, 0.9, 1], atol=0.015)
    assert binary[0].max() == 0 and binary[3].min() == 1
    assert np.array_equal(binary, datasets.binarize(images))
    assert not np.array_equal(binary, datasets.binarize(images, seed=1))
    with pytest.raises(ValueError, match=r"images: expected pixels scaled to \[0, 1\], .* by 255"):
        datasets.binarize(np.array([[0, 255]], "uint8"))


@pytest.mark.parametrize(
    "images, seed, message",
    [
        ([[0, 1], [0]], 0, "images: expected an array, got"),
        (["a"], 0, "images: expected numbers, got an array of"),
        (0.5, 0, r"images: expected shape \(n\), got \(\)"),
        ([[]], 0, r"images: expected at least one pixel, got shape \(1, 0\)"),
        ([[0.5]], -1, "seed: expected None or a whole number of at least 0"),
        ([[0.5]], 1.5, "seed: expected None or a whole number"),
    ],
)
def test_odd_images_and_seeds_are_refused_by_name(images, seed, message):
    with pytest.raises(ValueError, match=message):
        datasets.binarize(images, seed)


def test_binarization_without_a_seed_follows_the_global_one():
    images, results = np.full((1, 100), 0.5), []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        results += [datasets.binarize(images, seed=None) for _ in range(2)]
    assert np.array_equal(results[0], results[2]) and np.array_equal(results[1], results[3])
    assert not np.array_equal(results[0], results[1])


@pytest.fixture
def image_folder(tmp_path):
    """Ten gray 28 x 28 images in each of two class folders; the pixels of image i are i."""
    for i in range(20):
        folder = tmp_path / ("cats" if i < 10 else "dogs")
        folder.mkdir(exist_ok=True)
        keras.utils.save_img(folder / f"{i:02d}.png", np.full((28, 28, 1), i), scale=False)
    return tmp_path


def test_image_folder_is_split_into_training_and_test_images(image_folder):
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


def test_large_color_images_are_converted_to_gray_and_resized(tmp_path):
    for i in range(10):
        keras.utils.save_img(tmp_path / f"{i}.jpg", np.full((50, 70, 3), 200), scale=False)
    (x_train, _), _ = datasets.load_image_folder(tmp_path)
    assert x_train.shape == (9, 28, 28) and np.all(np.abs(x_train.astype(int) - 200) < 3)


def save_text_as_image(folder):
    (folder / "cats" / "99.png").write_bytes(b"not an image")


def save_16_bit_image(folder):
    # Converted to 8 bits, 300 would become 44.
    Image.fromarray(np.full((28, 28), 300, "uint16")).save(folder / "cats" / "99.png")


def move_an_image_out_of_its_class_folder(folder):
    (folder / "cats" / "09.png").rename(folder / "09.png")


def keep_nine_images(folder):
    shutil.rmtree(folder / "cats")
    (folder / "dogs" / "19.png").unlink()


@pytest.mark.parametrize(
    "damage, message",
    [
        (shutil.rmtree, "expected a folder of images, found none"),
        (save_text_as_image, "99.png: cannot be read as an image"),
        (save_16_bit_image, "99.png: cannot be read as an image .expected 8 bits per pixel"),
        (
            move_an_image_out_of_its_class_folder,
            "expected images, or folders of images, found both",
        ),
        (keep_nine_images, "at least 10 images, found 9"),
    ],
)
def test_invalid_image_folders_raise(image_folder, damage, message):
    damage(image_folder)
    with pytest.raises(ValueError, match=message):
        datasets.load_image_folder(image_folder)


HIDDEN_NAMES = [
    ".ipynb_checkpoints/0.png",
    "cats/.ipynb_checkpoints/0.png",
    "cats/._00.png",
    "__MACOSX/cats/._00.png",
    "__MACOSX/0.png",
    ".DS_Store",
    "cats/Thumbs.db",
    "dogs/desktop.ini",
    "@eaDir/0.png",
]


def test_hidden_files_and_folders_are_ignored(image_folder):
    expected = datasets.load_image_folder(image_folder)
    for name in HIDDEN_NAMES:
        (image_folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image_folder / "cats" / "00.png", image_folder / name)
    loaded = datasets.load_image_folder(image_folder)  # a warning would be an error
    for part, expected_part in zip(loaded, expected, strict=True):
        np.testing.assert_array_equal(part[0], expected_part[0])
        np.testing.assert_array_equal(part[1], expected_part[1])
    assert datasets.image_class_names(image_folder) == ["cats", "dogs"]


def test_folder_that_is_itself_hidden_is_read(image_folder):
    hidden = image_folder.parent / ".images"
    image_folder.rename(hidden)
    assert len(datasets.load_image_folder(hidden)[0][0]) == 18


def test_skipped_files_and_empty_class_folders_are_named(image_folder):
    (image_folder / "cats" / "a.heic").write_bytes(b"")
    (image_folder / "labels.csv").write_text("")
    (image_folder / "birds").mkdir()
    with pytest.warns(UserWarning, match=r"skipped 3, not images: cats/a.heic, labels"):
        (_, y), _ = datasets.load_image_folder(image_folder)
    assert set(y) == {0, 1}
    with pytest.warns(UserWarning, match="skipped 3"):
        assert datasets.image_class_names(image_folder) == ["cats", "dogs"]


def test_other_files_are_named_if_there_are_too_few_images(tmp_path):
    for i in range(12):
        (tmp_path / f"{i:02d}.heic").write_bytes(b"")
    message = "at least 10 images, found 0, and 00.heic, 01.heic, 02.heic, 03.heic, 04.heic, …"
    with pytest.raises(ValueError, match=message):
        datasets.load_image_folder(tmp_path)


def test_linked_class_folders_and_files_are_read(image_folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (image_folder / "cats").rename(elsewhere / "c")
    (image_folder / "cats").symlink_to(elsewhere / "c", target_is_directory=True)
    (image_folder / "dogs" / "10.png").rename(elsewhere / "d")
    (image_folder / "dogs" / "10.png").symlink_to(elsewhere / "d")
    (x, y), (x_test, y_test) = datasets.load_image_folder(image_folder)
    x, y = np.concatenate([x, x_test])[:, 0, 0], np.concatenate([y, y_test])
    assert sorted(x) == list(range(20))
    np.testing.assert_array_equal(y, x >= 10)


@pytest.mark.parametrize("target", ["cats", "."])
def test_folder_that_is_found_twice_by_links_raises(image_folder, target):
    (image_folder / "dogs" / "again").symlink_to(image_folder / target, target_is_directory=True)
    with pytest.raises(ValueError, match="again: a link to a folder that is found as"):
        datasets.load_image_folder(image_folder)


def test_folders_of_class_folders_raise(image_folder):
    (image_folder / "train").mkdir()
    for name in ("cats", "dogs"):
        (image_folder / name).rename(image_folder / "train" / name)
    with pytest.raises(ValueError, match="deeper folders only, such as .*train/cats"):
        datasets.load_image_folder(image_folder)


def test_folders_within_a_class_folder_belong_to_the_class(image_folder):
    (image_folder / "dogs" / "2020").mkdir()
    (image_folder / "dogs" / "10.png").rename(image_folder / "dogs" / "2020" / "10.png")
    (x, y), _ = datasets.load_image_folder(image_folder)
    np.testing.assert_array_equal(y, x[:, 0, 0] >= 10)


def test_class_names_of_a_folder_without_classes_are_empty(image_folder):
    assert datasets.image_class_names(image_folder / "cats") == []


def test_image_data_format_does_not_change_the_images(image_folder):
    expected = datasets.load_image_folder(image_folder, (14, 7), channels=3)[0][0]
    keras.config.set_image_data_format("channels_first")
    try:
        x = datasets.load_image_folder(image_folder, (14, 7), channels=3)[0][0]
    finally:
        keras.config.set_image_data_format("channels_last")
    assert x.shape == (18, 14, 7, 3)
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("image_size", [14, (14, 14), [14, np.int64(14)]])
def test_image_size_is_an_int_or_a_pair(image_folder, image_size):
    assert datasets.load_image_folder(image_folder, image_size)[0][0].shape == (18, 14, 14)


def test_enlarged_images_are_interpolated_linearly(tmp_path):
    for i in range(10):
        Image.fromarray(np.array([[0, 80]], "uint8")).save(tmp_path / f"{i}.png")
    x = datasets.load_image_folder(tmp_path, (1, 4))[0][0][0]
    assert x.tolist() == [[0, 20, 60, 80]]  # at -1/4, 1/4, 3/4 and 5/4 between the two


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"image_size": 0}, "image_size: expected a whole number of at least 1, got 0"),
        ({"image_size": (28, 28, 3)}, r"image_size: expected an int or \(height, width\)"),
        ({"image_size": 28.0}, "image_size: expected a whole number"),
        ({"image_size": 10**6}, "image_size: expected at most 67,108,864 pixels"),
        ({"channels": 4}, "channels: expected one of 1, 3, got 4"),
        ({"background": 256}, "background: expected a whole number from 0 to 255, got 256"),
        ({"background": -1}, "background: expected a whole number"),
        ({"folder": None}, "folder: expected a string or a path, got None"),
        ({"folder": "a\0b"}, "folder: expected a string or a path"),
    ],
)
def test_invalid_arguments_of_an_image_folder_raise(image_folder, arguments, message):
    with pytest.raises(ValueError, match=message):
        datasets.load_image_folder(**{"folder": image_folder, **arguments})


# Texts and series.


def test_books_and_quatrains_are_complete():
    assert len(datasets.load_book("alice_in_wonderland")) == 148_476
    # As You Like It, the King James Bible, Paradise Lost.
    assert [len(text) for text in datasets.load_books()] == [125_179, 4_139_037, 456_867]
    verses = datasets.load_book("king_james").replace("\n\n", "\n").splitlines()
    assert len(verses) == 31_102 and verses[-1].endswith("be with you all. Amen.")
    poems = datasets.load_quatrains()
    assert len(poems) == 9347 and len(set("".join(poems))) == 4508
    assert all(poem.count("\uff0c") == poem.count("\u3002") == 2 for poem in poems)


def test_each_tune_has_its_header_and_notes():
    tunes = datasets.load_tunes()
    assert len(tunes) == len(set(tunes)) == 1841
    for tune in tunes:
        fields = [line[:2] for line in tune.splitlines()]
        assert fields[:4] == ["T:", "M:", "L:", "K:"] and len(fields) > 4, tune


def test_unknown_book_raises():
    with pytest.raises(ValueError, match="name: expected one of .*'king_james'.*, got 'moby_dick'"):
        datasets.load_book("moby_dick")


def test_translations_are_complete():
    translations = datasets.load_translations()
    assert len(translations) == 15318 and all(len(pair) == 2 for pair in translations)
    chinese = [any("\u4e00" <= c <= "\u9fff" for c in text) for _, text in translations]
    assert np.mean(chinese) > 0.99


def test_pairs_are_split_at_line_feeds_only(tmp_path):
    path = tmp_path / "own.tsv"
    path.write_bytes("a b\t\u7532\r\n\nc\u2028\t\u4e59\n".encode())
    assert datasets.load_pairs(path) == [("a b", "\u7532"), ("c\u2028", "\u4e59")]


@pytest.mark.parametrize("line", ["c", "c\t", " \td", "c\td\te"])
def test_line_that_is_not_a_pair_raises_with_its_number(tmp_path, line):
    path = tmp_path / "own.tsv"
    path.write_text(f"\na\tb\n\n{line}\ne\tf\n")  # empty lines are skipped, but counted
    with pytest.raises(ValueError, match="own.tsv: expected two sentences and a tab in line 4"):
        datasets.load_pairs(path)


def test_byte_order_mark_is_not_part_of_the_text(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("abc", encoding="utf-8-sig")
    assert datasets.load_text(path) == "abc"


def test_gaps_of_a_series_are_interpolated():
    co2 = datasets.load_co2()
    assert co2.shape == (2284,) and co2.dtype == "float32" and np.isfinite(co2).all()
    np.testing.assert_allclose(co2[:3], [316.1, 317.3, 317.6], rtol=1e-6)
    with open(datasets.data_path("co2_weekly.csv")) as file:
        empty = [i for i, line in enumerate(file.readlines()[1:]) if line.strip().endswith(",")]
    assert len(empty) == 59
    first = empty[0]
    assert empty[1] != first + 1
    assert co2[first] == pytest.approx((co2[first - 1] + co2[first + 1]) / 2, abs=1e-4)
    sunspots = datasets.load_sunspots()
    assert sunspots.shape == (309,) and sunspots[:2].tolist() == [5, 11]


def test_series_windows_overlap_and_are_followed_by_their_future():
    past, future = datasets.series_windows(np.arange(10), window=4, horizon=2)
    assert past.tolist()[0] == [0, 1, 2, 3] and future.tolist()[-1] == [8, 9] and len(past) == 5
    past, future = datasets.series_windows(np.arange(10), 4, 2, first=7)
    assert past.tolist() == [[3, 4, 5, 6], [4, 5, 6, 7]] and future[:, 0].tolist() == [7, 8]
    with pytest.raises(ValueError, match="series: expected at least 11 values for a window of 4"):
        datasets.series_windows(np.arange(10), 4, 7)
    with pytest.raises(ValueError, match=r"series: expected shape \(n,\), got \(10, 1\)"):
        datasets.series_windows(np.zeros((10, 1)), 4, 2)
    for sizes, name in (((0, 2), "window"), ((4, 0), "horizon"), ((4, 2, -1), "first")):
        with pytest.raises(ValueError, match=f"{name}: expected a whole number"):
            datasets.series_windows(np.arange(10), *sizes)


@pytest.mark.parametrize(
    "series, message",
    [
        ([1.0, np.nan, 2.0], "series: expected finite numbers, got NaN or infinity"),
        (["1", "2", "3"], "series: expected numbers, got an array of <U1"),
        ([1j, 2, 3], "series: expected numbers, got an array of complex"),
        ([[1, 2], [3]], "series: expected an array, got"),
        (None, "series: expected numbers, got an array of object"),
    ],
)
def test_series_of_other_values_than_finite_numbers_is_refused(series, message):
    with pytest.raises(ValueError, match=message):
        datasets.series_windows(series, 1, 1)


def test_windows_that_start_behind_the_series_are_refused():
    past, future = datasets.series_windows(np.arange(10), 4, 2, first=8)
    assert past.tolist() == [[4, 5, 6, 7]] and future.tolist() == [[8, 9]]
    with pytest.raises(ValueError, match="first: expected at most 8, as 2 of 10 values are .* 9"):
        datasets.series_windows(np.arange(10), 4, 2, first=9)


def test_series_far_from_one_keep_their_values(tmp_path):
    path = tmp_path / "own.csv"
    for scale in (1e-9, 1e9):
        path.write_text("t,x\n" + "\n".join(f"{t},{(t + 1.5) * scale!r}" for t in range(5)))
        np.testing.assert_allclose(
            datasets.load_series(path), (np.arange(5) + 1.5) * scale, rtol=1e-6
        )


def test_unknown_decimal_sign_raises(tmp_path):
    with pytest.raises(ValueError, match="decimal: expected one of None, '.', ',', got ';'"):
        datasets.load_series(tmp_path / "own.csv", decimal=";")


def test_file_of_more_than_a_gibibyte_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "own.txt"
    with open(path, "wb") as file:
        file.truncate(2**40)  # sparse: no disk is used
    for load in (datasets.load_text, datasets.load_series, datasets.load_pairs):
        with pytest.raises(ValueError, match="own.txt: cannot be read: expected at most 1,073,741"):
            load(path)


@pytest.mark.parametrize(
    "content, load, message",
    [
        (b" \n", datasets.load_text, "expected a text, got an empty file"),
        (b"\xff", datasets.load_text, "cannot be read as a text in UTF-8"),
        (None, datasets.load_text, "cannot be read"),
        (b"a,b\n1,x\n", datasets.load_series, "expected a CSV file with numbers"),
        (b"", datasets.load_series, "expected a CSV file with numbers"),
        (
            b"a,b\n1,\n",
            datasets.load_series,
            "expected a CSV .* numbers in its last column .found none",
        ),
    ],
)
def test_invalid_texts_and_series_raise(tmp_path, content, load, message):
    path = tmp_path / "own"
    if content is not None:  # else the file does not exist
        path.write_bytes(content)
    with pytest.raises(ValueError, match=f"own: {message}"):
        load(path)


# Sounds.


def test_drums_match_the_file_without_trailing_silence():
    waveforms, labels, class_names = datasets.load_drums()
    assert class_names == ["drum", "electronic", "kick", "percussion", "snare", "tabla"]
    assert np.bincount(labels).tolist() == [20, 25, 13, 10, 4, 26]
    with np.load(datasets.data_path("drums_8khz.npz")) as file:
        recordings = file["waveforms"]
    for waveform, recording in zip(waveforms, recordings, strict=True):
        n = len(waveform)
        np.testing.assert_array_equal(waveform, recording[:n] / np.float32(32768))
        assert abs(waveform[-1]) > 0.001 and np.abs(recording[n:]).max(initial=0) <= 32.768


@pytest.fixture
def sound_folder(tmp_path):
    """Ten sounds of 60 samples at 100 samples per second in two class folders."""
    for i in range(10):
        path = tmp_path / ("low" if i < 4 else "high") / f"{i}.wav"
        path.parent.mkdir(exist_ok=True)
        save_wav(path, 0.5 * np.sin(np.arange(1, 61)), 100)
    return tmp_path


def test_sound_folder_is_normalized_and_split_into_seconds(sound_folder):
    save_wav(sound_folder / "high" / "long.wav", np.r_[np.ones(150), np.zeros(100)] / 4, 100)
    waveforms, labels, class_names, rate, file_indices = datasets.load_sound_folder(sound_folder)
    assert class_names == ["high", "low"] and rate == 100
    assert file_indices.tolist() == [0, 1, 2, 3, 4, 5, 6, 6, 7, 8, 9, 10]
    assert np.bincount(labels).tolist() == [6 + 2, 4]
    high = [len(w) for w, label in zip(waveforms, labels, strict=True) if label == 0]
    assert high == [60] * 6 + [100, 50]
    for waveform in waveforms:
        assert np.abs(waveform).max() == pytest.approx(0.95) and waveform.dtype == "float32"


def test_sound_folder_without_classes_has_one_unnamed_class(tmp_path):
    for i in range(10):
        save_wav(tmp_path / f"{i}.wav", np.ones(9), 100)
    waveforms, labels, class_names, _, _ = datasets.load_sound_folder(tmp_path)
    assert len(waveforms) == 10 and not labels.any() and class_names == [""]


def test_silence_is_trimmed_to_nothing():
    assert datasets.trim_silence(np.zeros(9)).shape == (0,)
    assert datasets.trim_silence(np.array([0, 0.5, 0])).tolist() == [0, 0.5]


def save_at_a_rate_of_zero(folder):
    path = folder / "high" / "4.wav"
    data = path.read_bytes()
    path.write_bytes(data[:24] + bytes(4) + data[28:])


def save_at_another_sample_rate(folder):
    save_wav(folder / "high" / "other.wav", np.ones(9), 200)


def save_silence(folder):
    save_wav(folder / "high" / "other.wav", np.zeros(9), 100)


def save_outside_the_class_folders(folder):
    save_wav(folder / "loose.wav", np.ones(9), 100)


def delete_all_sounds(folder):
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    "damage, message",
    [
        (shutil.rmtree, "expected a folder of WAV files, found none"),
        (delete_all_sounds, "expected at least 10 WAV files, found 0"),
        (
            save_at_another_sample_rate,
            "expected one sample rate, found 100 in 4.wav, 200 in other.wav",
        ),
        (save_silence, "other.wav: expected a sound, got silence"),
        (save_at_a_rate_of_zero, "4.wav: cannot be read .* sample rate of at least 1, got 0"),
        (
            save_outside_the_class_folders,
            "expected WAV files, or folders of WAV files, found both",
        ),
    ],
)
def test_invalid_sound_folders_raise(sound_folder, damage, message):
    damage(sound_folder)
    with pytest.raises(ValueError, match=message):
        datasets.load_sound_folder(sound_folder)
