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
