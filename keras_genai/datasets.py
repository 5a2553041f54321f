"""Real data: what ships in `data/`, a folder of one's own images, and batches of either.

`data/` lies inside the installed package, or beside it in a checkout. The environment variable
KERAS_GENAI_DATA names another folder.
"""

import hashlib
import os
import pathlib

import numpy as np

SHA256 = {
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


def load_mnist():
    """Load MNIST (LeCun, Cortes & Burges): 70,000 handwritten digits.

    Returns:
        ((x_train, y_train), (x_test, y_test)), all uint8: 60,000 and 10,000 images (n, 28, 28) with
        pixels from 0 to 255, and their digits (n,).

    Raises:
        FileNotFoundError, ValueError: if the file is missing or damaged.
    """
    path = check_file(data_folder() / "mnist.npz", SHA256["mnist.npz"])
    with np.load(path) as file:
        return (file["x_train"], file["y_train"]), (file["x_test"], file["y_test"])


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
    loose = [path.parent == folder for path in paths]
    if any(loose) and not all(loose):
        raise ValueError(f"{folder}: expected images, or folders of images, found both.")
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
    if all(loose):
        return (x[train], None), (x[test], None)
    classes = [path.relative_to(folder).parts[0] for path in paths]
    y = np.unique(classes, return_inverse=True)[1]
    return (x[train], y[train]), (x[test], y[test])


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

    def rows(_):
        seeds = tf.stack([tf.cast(seed, tf.int64), epoch])
        order = tf.random.experimental.stateless_shuffle(tf.range(size), seeds)
        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size)

    def gather(rows):
        return tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows), tensors)

    dataset = tf.data.Dataset.from_tensors(0).flat_map(rows).map(gather)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(-(-size // batch_size)))
    # Not tuned while it runs: a gather needs none, and the tuning thread of TensorFlow 2.21 sleeps
    # ever longer, up to 5 s, and can make the end of an epoch wait until it wakes.
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.prefetch(64).with_options(options)
