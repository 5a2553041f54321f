"""What a model is handed, checked before anything is trained on it: sizes, images, labels.

Keras is silent where it hurts most: pixels in [-1, 1] turn a binary cross-entropy negative, a label
outside the classes becomes a row of zeros. Here each of them is a ValueError.
"""

import keras
import numpy as np
from keras import layers, ops


@keras.saving.register_keras_serializable(package="keras_genai")
class OneHot(layers.Layer):
    """Integer labels (batch,) to one-hot rows (batch, num_classes)."""

    def __init__(self, num_classes, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes

    def call(self, labels):
        return ops.one_hot(labels, self.num_classes, dtype=self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (*input_shape, self.num_classes)

    def get_config(self):
        return {**super().get_config(), "num_classes": self.num_classes}


def check_size(name: str, value, minimum: int = 1) -> int:
    """Return `value` as an int, also one of NumPy, which Keras does not take for a size.

    Raises:
        ValueError: unless it is a whole number of at least `minimum`.
    """
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < minimum:
        raise ValueError(f"{name}: expected a whole number of at least {minimum}, got {value!r}.")
    return int(value)


def check_sizes(**sizes) -> list:
    """Return sizes as ints, and those named ..._dims as tuples of them.

    Raises:
        ValueError: unless each is a whole number of at least 1.
    """
    checked = []
    for name, value in sizes.items():
        if not name.endswith("_dims"):
            checked.append(check_size(name, value))
        elif isinstance(value, (list, tuple)):
            checked.append(tuple(check_size(name, size) for size in value))
        else:
            raise ValueError(f"{name}: expected a sequence of whole numbers, got {value!r}.")
    return checked


def check_range(name: str, values, stop: int, kind: str = "integers") -> None:
    """Raise ValueError unless `values`, a NumPy array, are integers from 0 to stop - 1."""
    if not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"{name}: expected {kind}, got an array of {values.dtype}.")
    if values.size and (values.min() < 0 or values.max() >= stop):
        raise ValueError(
            f"{name}: expected {kind} from 0 to {stop - 1}, "
            f"got values from {values.min()} to {values.max()}."
        )


def check_choice(name: str, value, choices) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {value!r}.")


def check_share(name: str, value) -> None:
    """Raise ValueError unless `value` is a number from 0 to less than 1."""
    if not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(f"{name}: expected a share from 0 to less than 1, got {value!r}.")


def check_same(name: str, part: str, expected, value) -> None:
    """Raise ValueError unless one network has in `part` what the other one has."""
    if value != expected:
        raise ValueError(f"{name}: expected {part} {expected}, as the other network, got {value}.")


def check_images(name: str, images, shape: tuple) -> None:
    """Raise ValueError unless `images` are (n, *shape), n at least 1, with all values in [0, 1]."""
    expected = ", ".join(map(str, ("n", *shape)))
    if isinstance(images, (list, tuple)):
        raise ValueError(f"{name}: expected one array ({expected}), got a list of {len(images)}.")
    images = np.asarray(images)
    if images.ndim == 0 or images.shape[1:] != tuple(shape):
        raise ValueError(f"{name}: expected shape ({expected}), got {images.shape}.")
    if len(images) == 0:
        raise ValueError(f"{name}: expected at least one image, got an empty array.")
    if not np.issubdtype(images.dtype, np.number) and images.dtype != bool:
        raise ValueError(f"{name}: expected numbers, got an array of {images.dtype}.")
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= 1):  # written so that NaN, which compares false, fails too
        raise ValueError(
            f"{name}: expected pixels scaled to [0, 1], got values from {low} to {high}. "
            "Divide 8-bit pixels by 255."
        )


def check_labels(labels, num_classes: int | None, count: int) -> np.ndarray | None:
    """Return `labels` as int32 (count,), or None for a model without classes.

    Args:
        labels: None, one integer for all, or integers (count,).
        num_classes: number of classes of the model, or None if it is unconditional.
        count: number of images that the labels belong to.

    Raises:
        ValueError: for labels on an unconditional model, no labels on a conditional one, a wrong
            number of them, or one outside 0 … num_classes - 1.
    """
    if num_classes is None:
        if labels is not None:
            raise ValueError(
                "labels: expected None, since the model was built without num_classes."
            )
        return None
    if labels is None:
        raise ValueError(f"labels: expected integers from 0 to {num_classes - 1}, got None.")
    labels = np.asarray(labels)
    if labels.ndim == 0:
        labels = np.full(count, labels)
    if labels.shape != (count,):
        raise ValueError(f"labels: expected shape ({count},), got {labels.shape}.")
    check_range("labels", labels, num_classes)
    return labels.astype("int32")


def count_classes(model: keras.Model) -> int | None:
    """Return the number of classes that `model` is conditioned on, None if on none."""
    for layer in model.layers:
        if isinstance(layer, OneHot):
            return layer.num_classes
        if isinstance(layer, keras.Model) and (found := count_classes(layer)):
            return found
    return None


# A conditional network has a second input: integer labels, whose one-hot rows stand beside the
# features of the first. The three functions below leave a network without classes as it is.


def label_input(num_classes: int | None):
    """Return a conditional network's second input, labels (batch,), or None without classes."""
    if num_classes is None:
        return None
    check_size("num_classes", num_classes, minimum=2)
    return keras.Input((), dtype="int32", name="labels")


def append_one_hot(x, labels, num_classes: int | None):
    """Return x (batch, features) with one-hot labels beside its features, if there are labels."""
    if labels is None:
        return x
    return layers.Concatenate()([x, OneHot(int(num_classes))(labels)])


def with_labels(x, labels=None):
    """Return what a network is called on: x, or [x, labels] if it is conditional."""
    return x if labels is None else [x, labels]


def call_network(network: keras.Model, x, labels=None):
    """Return the network's output for x and its labels (checked), as NumPy arrays."""
    x = np.asarray(x, keras.config.floatx())
    labels = check_labels(labels, count_classes(network), len(x))
    return keras.tree.map_structure(np.asarray, network(with_labels(x, labels)))


def latent_noise(num_samples: int, latent_dim: int, seed: int | None) -> np.ndarray:
    """Draw standard normal noise (num_samples, latent_dim), apart from any model's state."""
    check_size("num_samples", num_samples)
    return np.random.default_rng(seed).standard_normal((num_samples, latent_dim), dtype="float32")


class SavedSeed:
    """Save the state of a layer's `seed_generator`, which Keras leaves out of its files.

    Without it, training that goes on from a file would draw its first noise once more. For layers
    and models that own no other variable themselves.
    """

    def save_own_variables(self, store):
        store["seed_generator_state"] = np.asarray(self.seed_generator.state)

    def load_own_variables(self, store):
        self.seed_generator.state.assign(store["seed_generator_state"])


@keras.saving.register_keras_serializable(package="keras_genai")
class Dropout(SavedSeed, layers.Dropout):
    """Keras's; what it drops goes on where a saved model had stopped."""

    def save_own_variables(self, store):
        if self.rate > 0:  # else Keras draws nothing, and there is no state
            super().save_own_variables(store)

    def load_own_variables(self, store):
        if self.rate > 0:
            super().load_own_variables(store)


class CheckedModel(keras.Model):
    """A `keras.Model` whose `check_data(x, y)` looks at what it is to train or be evaluated on.

    Arrays are checked whole. A `tf.data.Dataset` is taken as it is: it may be endless.
    """

    def fit(self, x=None, y=None, *args, validation_data=None, **kwargs):
        if is_array(x):
            self.check_data(x, y)
        if isinstance(validation_data, (list, tuple)):
            self.check_data(*validation_data[:2])
        return super().fit(x, y, *args, validation_data=validation_data, **kwargs)

    def evaluate(self, x=None, y=None, *args, **kwargs):
        if is_array(x):
            self.check_data(x, y)
        return super().evaluate(x, y, *args, **kwargs)


@keras.saving.register_keras_serializable(package="keras_genai")
class ImageModel(CheckedModel):
    """A model that looks at its images and labels before it trains or is evaluated on them."""

    @property
    def image_shape(self) -> tuple:
        return tuple(self.inputs[0].shape[1:])

    def check_data(self, x, y=None):
        """Raise ValueError unless the arrays suit `fit(x, y)` or `fit([x, labels], y)`.

        Targets of the images' own shape are images too; whole numbers (n,) are class labels.
        """
        x, labels = (*x, None)[:2] if isinstance(x, (list, tuple)) else (x, None)
        check_images("x", x, self.image_shape)
        check_labels(labels, count_classes(self), len(x))
        if y is not None and self.outputs[0].shape[1:] == self.image_shape:
            check_images("y", y, self.image_shape)
        elif y is not None and np.ndim(y) == 1:
            check_labels(y, self.outputs[0].shape[-1], len(x))


class GenerativeImageModel(ImageModel):
    """One that takes its labels, if it is conditional, in `fit(x, labels)`."""

    def check_data(self, x, labels=None):
        check_images("x", x, self.image_shape)
        check_labels(labels, self.num_classes, len(x))


def is_array(x) -> bool:
    """Whether x is an array, or a list of one for each input, and not a data set."""
    return hasattr(x, "shape") or isinstance(x, (list, tuple))
