"""Class-conditional networks (Sohn et al. 2015): integer labels as a second, one-hot input.

A network built with `num_classes=None` has no second input, and the functions below leave it as it
is.
"""

import keras
import numpy as np
from keras import layers, ops

from keras_genai.validation import check_labels, check_size


@keras.saving.register_keras_serializable(package="keras_genai")
class OneHot(layers.Layer):
    """One-hot encoding: integer labels `(batch,)` to rows `(batch, num_classes)`.

    A label outside 0 … num_classes - 1 becomes a row of zeros.

    Args:
        num_classes: Int. Number of classes.
    """

    def __init__(self, num_classes, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes

    def call(self, labels):
        return ops.one_hot(labels, self.num_classes, dtype=self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (*input_shape, self.num_classes)

    def get_config(self):
        return {**super().get_config(), "num_classes": self.num_classes}


def label_input(num_classes: int | None):
    """Return the label input of a conditional network, `(batch,)`, or `None` without classes."""
    if num_classes is None:
        return None
    check_size("num_classes", num_classes, minimum=2)
    return keras.Input((), dtype="int32", name="labels")


def concat_labels(x, labels, num_classes: int | None):
    """Return x `(batch, features)` with one-hot labels concatenated, or x if there are none."""
    if labels is None or num_classes is None:
        return x
    return layers.Concatenate()([x, OneHot(int(num_classes))(labels)])


def pack_inputs(x, labels=None):
    """Return the inputs of a network: `x`, or `[x, labels]` for a conditional one."""
    return x if labels is None else [x, labels]


def predict_arrays(network: keras.Model, x, labels=None):
    """Return the outputs of a network for x and validated labels, as NumPy arrays."""
    x = np.asarray(x, keras.config.floatx())
    labels = check_labels(labels, count_classes(network), len(x))
    return keras.tree.map_structure(np.asarray, network(pack_inputs(x, labels)))


def count_classes(model: keras.Model) -> int | None:
    """Return the number of classes that a model is conditioned on, or `None`."""
    for layer in model.layers:
        if isinstance(layer, OneHot):
            return layer.num_classes
        if isinstance(layer, keras.Model) and (found := count_classes(layer)):
            return found
    return None


def sample_prior(num_samples: int, latent_dim: int, seed: int | None) -> np.ndarray:
    """Sample z ~ N(0, I), float32 `(num_samples, latent_dim)`.

    The generator is NumPy's own, so that sampling does not change the state of training.
    """
    check_size("num_samples", num_samples)
    return np.random.default_rng(seed).standard_normal((num_samples, latent_dim), dtype="float32")
