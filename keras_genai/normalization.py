"""Group normalization with an activation, whose training takes fewer passes over the images.

TensorFlow runs each operation on its own, so that a layer of few FLOPs takes the time of its passes
over memory. The variance is E[x^2] - E[x]^2, which needs no differences from the mean, and the two
steps that process whole images have gradients compiled with XLA, each in one pass.
"""

import functools

import keras
import tensorflow as tf
from keras import layers

from keras_genai.validation import check_identifier


@keras.saving.register_keras_serializable(package="keras_genai")
class GroupNormalization(layers.GroupNormalization):
    """Group normalization (Wu & He 2018, section 3.1) of channels, and an activation.

        y = activation(gamma (x - mean) / sqrt(variance + epsilon) + beta)

    Mean and variance are those of a group of channels at all positions of an image. They are
    computed in at least float32, and are less precise than those of Keras where the mean of a group
    is more than a thousand times its standard deviation. Maps x `(batch, …, channels)` to the same
    shape.

    Args:
        groups: Int. Number of groups, a divisor of the channels. Defaults to `32`.
        activation: Activation, or `None`. Defaults to `None`.
        **kwargs: Other arguments of `keras.layers.GroupNormalization`, but `axis`.

    Raises:
        ValueError: for another `axis` than the last, and for an unknown activation.
    """

    def __init__(self, groups=32, activation=None, **kwargs):
        super().__init__(groups, **kwargs)
        if self.axis != -1:
            raise ValueError(f"axis: expected -1, the channels, got {self.axis!r}.")
        self.activation = check_identifier(
            "activation", activation, keras.activations.get, "an activation"
        )

    def build(self, input_shape):
        super().build(input_shape)
        shape = tuple(input_shape[1:])
        self._means = _mean_and_mean_of_squares(shape)
        self._scale_and_shift = _scale_and_shift(shape, self.activation)

    def call(self, inputs):
        dtype = keras.backend.result_type(inputs.dtype, "float32")
        x = tf.cast(inputs, dtype)
        num_channels = x.shape[-1]
        group_shape = (-1, self.groups, num_channels // self.groups)

        def mean_of_groups(mean_of_channels):
            grouped = tf.reshape(mean_of_channels, group_shape)
            return tf.reduce_mean(grouped, axis=-1, keepdims=True)

        def grouped(weight, default):
            return (
                default if weight is None else tf.reshape(tf.cast(weight, dtype), group_shape[1:])
            )

        mean, mean_of_squares = map(mean_of_groups, self._means(x))
        variance = tf.maximum(mean_of_squares - tf.square(mean), 0)
        gamma = grouped(self.gamma, tf.ones(group_shape[1:], dtype))
        scale = gamma * tf.math.rsqrt(variance + self.epsilon)
        shift = grouped(self.beta, 0) - mean * scale
        shape = (-1, *[1] * (len(x.shape) - 2), num_channels)
        y = self._scale_and_shift(x, tf.reshape(scale, shape), tf.reshape(shift, shape))
        return tf.cast(y, inputs.dtype)

    def get_config(self):
        activation = keras.activations.serialize(self.activation)
        return {**super().get_config(), "activation": activation}


# All layers of one shape share their compiled gradients. Each shape has its own: TensorFlow warns
# of a function that is traced five times.


@functools.cache
def _mean_and_mean_of_squares(shape):
    """Return a function of x: E[x] and E[x^2] of each channel, `(batch, 1, …, channels)`."""

    def compute_gradient(x, mean_gradient, square_gradient):
        size = tf.cast(tf.reduce_prod(tf.shape(x)[1:-1]), x.dtype)
        return (mean_gradient + 2 * x * square_gradient) / size

    compute_gradient = _compile(compute_gradient)

    @tf.custom_gradient
    def function(x):
        means = [_over_positions(tf.reduce_mean, values) for values in (x, tf.square(x))]
        return means, functools.partial(compute_gradient, x)

    return function


@functools.cache
def _scale_and_shift(shape, activation):
    """Return the function `activation(scale * x + shift)` of x, scale and shift."""

    def compute_gradients(x, scale, shift, upstream):
        h = scale * x + shift
        with tf.GradientTape() as tape:
            tape.watch(h)
            y = activation(h)
        h_gradient = tape.gradient(y, h, upstream)
        return h_gradient * scale, h_gradient * x, h_gradient

    compute_gradients = _compile(compute_gradients)

    @tf.custom_gradient
    def function(x, scale, shift):
        def gradient(upstream):
            x_gradient, *products = compute_gradients(x, scale, shift, upstream)
            return x_gradient, *(_over_positions(tf.reduce_sum, p) for p in products)

        return activation(scale * x + shift), gradient

    return function


def _compile(function):
    # A partial: TensorFlow counts traces by code, and would warn after five shapes.
    return tf.function(functools.partial(function), autograph=False, jit_compile=True)


def _over_positions(reduction, x):
    return reduction(x, tuple(range(1, len(x.shape) - 1)), keepdims=True)
