"""Class-conditional networks (Sohn et al. 2015): integer labels as a second, one-hot input.

A network built with `num_classes=None` has no second input, and the functions below leave it as it
is.
"""

import keras
import numpy as np
from keras import layers, ops

from keras_genai.random_state import random_generator
from keras_genai.replicas import run_on_replicas
from keras_genai.validation import (
    as_array,
    check_labels,
    check_methods,
    check_outputs,
    check_size,
    check_sizes,
)


@keras.saving.register_keras_serializable(package="keras_genai")
class OneHot(layers.Layer):
    """One-hot encoding: integer labels `(batch,)` to rows `(batch, num_classes)`.

    A label outside 0 … num_classes - 1 becomes a row of zeros.

    Args:
        num_classes: Int. Number of classes.
    """

    def __init__(self, num_classes, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = check_size("num_classes", num_classes)

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
    check_size("num_classes", num_classes, minimum=2)  # `OneHot` converts it
    return keras.Input((), dtype="int32", name="labels")


def concat_labels(x, labels, num_classes: int | None):
    """Return x `(batch, features)` with one-hot labels concatenated, or x if there are none."""
    if labels is None or num_classes is None:
        return x
    return layers.Concatenate()([x, OneHot(num_classes)(labels)])


def pack_inputs(x, labels=None):
    """Return the inputs of a network: `x`, or `[x, labels]` for a conditional one."""
    return x if labels is None else [x, labels]


def predict_arrays(network: keras.Model, x, labels=None):
    """Return the outputs of a network for x and validated labels, as NumPy arrays.

    Raises:
        ValueError: for invalid labels, and for an output of NaN or infinity.
    """
    check_methods("network", network, "a keras.Model", "inputs", "layers")
    x, shape = as_array("x", x), network.inputs[0].shape
    if x.shape[1:] != shape[1:] or x.ndim == 0:
        raise ValueError(f"x: expected shape {shape}, the input of the network, got {x.shape}.")
    x = x.astype(floatx := keras.config.floatx())
    labels = check_labels(labels, count_classes(network), len(x))
    arrays = (x,) if labels is None else (x, labels)
    outputs = run_on_replicas(
        network.distribute_strategy, lambda *inputs: network(pack_inputs(*inputs)), *arrays
    )
    outputs = keras.tree.map_structure(lambda y: np.asarray(ops.cast(y, floatx)), outputs)
    for output in keras.tree.flatten(outputs):
        check_outputs(network, output)
    return outputs


def count_classes(model: keras.Model) -> int | None:
    """Return the number of classes that a model is conditioned on, or `None`."""
    check_methods("model", model, "a keras.Model", "layers")
    for layer in model.layers:
        if isinstance(layer, OneHot):
            return layer.num_classes
        if isinstance(layer, keras.Model) and (found := count_classes(layer)):
            return found
    return None


def check_network(name: str, network, inputs: tuple, outputs: tuple) -> None:
    """Raise ValueError unless a network is a graph with certain inputs and outputs.

    Args:
        name: String. Name of the argument for the error message.
        network: The argument.
        inputs: Tuple of strings. Names of the expected inputs. A conditional network has one more,
            the labels.
        outputs: Tuple of strings. Names of the expected outputs.
    """
    try:
        num_inputs, num_outputs = len(network.inputs), len(network.outputs)
    except (AttributeError, ValueError, TypeError):  # a subclassed or an unbuilt model
        raise ValueError(
            f"{name}: expected a functional keras.Model, or a Sequential with an Input, got a "
            f"{type(network).__name__} without known inputs and outputs."
        ) from None
    if num_inputs not in (len(inputs), len(inputs) + 1):
        raise ValueError(
            f"{name}: expected inputs {', '.join(inputs)} and, if conditional, labels, got "
            f"{num_inputs} inputs."
        )
    if num_inputs > len(inputs) and count_classes(network) is None:
        raise ValueError(
            f"{name}: expected labels that a conditioning.OneHot layer encodes, which has their "
            f"number, got {num_inputs} inputs without such a layer."
        )
    if num_outputs != len(outputs):
        raise ValueError(
            f"{name}: expected outputs {', '.join(outputs)}, got {num_outputs} outputs. "
            "keras.Model(network.inputs, network.outputs[:n]) has the first n only."
        )


def check_probabilities(name: str, network: keras.Model) -> None:
    """Raise ValueError if the last layer of a network is known to return no probabilities."""
    probabilities = (keras.activations.sigmoid, keras.activations.hard_sigmoid)
    layer, activation = _last_activation(network)
    if activation not in (None, *probabilities):
        raise ValueError(
            f"{name}: expected probabilities, the output of a sigmoid, got the activation "
            f"{getattr(activation, '__name__', activation)!r} of the layer {layer.name}. Append "
            "layers.Activation('sigmoid') to a network of logits."
        )


def check_scores(name: str, network: keras.Model, purpose: str) -> None:
    """Raise ValueError if the last layer of a network is known to return a bounded number."""
    layer, activation = _last_activation(network)
    if activation not in (None, keras.activations.linear):
        raise ValueError(
            f"{name}: expected scores of any size for {purpose}, got the activation "
            f"{getattr(activation, '__name__', activation)!r} of the layer {layer.name}."
        )


def _last_activation(network: keras.Model):
    """Return the last layer that computes something, and its activation, `None` if unknown."""
    operations = getattr(network, "operations", network.layers)
    shape_layers = (layers.Reshape, layers.Flatten)
    last = next(op for op in reversed(operations) if not isinstance(op, shape_layers))
    if isinstance(last, keras.Model):
        return _last_activation(last)
    return last, getattr(last, "activation", None)


def sample_prior(num_samples: int, shape, seed: int | None) -> np.ndarray:
    """Sample z ~ N(0, I), float32 `(num_samples, *shape)`.

    The generator is NumPy's own, so that sampling does not change the state of training.
    """
    (shape,) = check_sizes(shape_dims=shape)
    num_samples = check_size("num_samples", num_samples)
    return random_generator(seed).standard_normal((num_samples, *shape), dtype="float32")
