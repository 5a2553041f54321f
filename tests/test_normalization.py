"""Group normalization: values and gradients beside those of Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import add_random_noise

from keras_genai.normalization import GroupNormalization

SHAPES = [(3, 5, 4, 12), (3, 12), (2, 7, 12), (2, 3, 4, 5, 12)]


def build_pair(shape, activation, **options):
    """Return the layer of Keras with an activation, and the one here, with the same weights."""
    expected = keras.Sequential(
        [keras.layers.GroupNormalization(4, **options), keras.layers.Activation(activation)]
    )
    layer = GroupNormalization(4, activation, **options)
    expected.build(shape)
    layer.build(shape)
    add_random_noise(layer)
    expected.layers[0].set_weights(layer.get_weights())
    return expected, layer


def value_and_gradients(layer, x, upstream):
    """Return the output, and the gradients of its sum, weighted by `upstream`."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    variables = [variable.value for variable in layer.trainable_variables]
    return [y, *tape.gradient(y, [x, *variables], upstream)]


@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize("activation", ["silu", "relu", None])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.usefixtures("double_precision")
def test_values_and_gradients_are_those_of_keras(shape, activation, in_graph):
    rng = np.random.default_rng(0)
    x, upstream = (tf.constant(rng.normal(2, 3, size=shape)) for _ in range(2))
    results = [
        (tf.function(value_and_gradients) if in_graph else value_and_gradients)(layer, x, upstream)
        for layer in build_pair(shape, activation)
    ]
    for expected, result in zip(*results, strict=True):
        np.testing.assert_allclose(result, expected, atol=1e-11)


@pytest.mark.parametrize("options", [{"center": False}, {"scale": False}, {"epsilon": 0.5}])
def test_options_are_those_of_keras(options):
    x = np.random.default_rng(0).normal(2, 3, size=SHAPES[0])
    expected, layer = build_pair(SHAPES[0], "silu", **options)
    np.testing.assert_allclose(layer(x), expected(x), rtol=1e-4, atol=1e-5)
    copy = GroupNormalization.from_config(layer.get_config())
    copy.build(SHAPES[0])
    copy.set_weights(layer.get_weights())
    np.testing.assert_array_equal(copy(x), layer(x))


# Earlier versions of Keras round the weights, too.
@pytest.mark.parametrize(("policy", "atol"), [("mixed_float16", 2e-3), ("mixed_bfloat16", 2e-2)])
def test_half_precision_is_computed_in_float32(policy, atol):
    # In float16 the squares would overflow.
    x = tf.cast(np.random.default_rng(0).normal(0, 300, size=SHAPES[0]), policy[6:])
    expected, layer = build_pair(SHAPES[0], None)
    half = GroupNormalization(4, dtype=policy)
    half.build(SHAPES[0])
    half.set_weights(layer.get_weights())
    y = half(x)
    assert keras.backend.standardize_dtype(y.dtype) == policy[6:]
    expected = expected(tf.cast(x, "float32"))
    np.testing.assert_allclose(tf.cast(y, "float32"), expected, rtol=0.01, atol=atol)


def test_images_of_any_size_share_a_network():
    inputs = keras.Input((None, None, 8))
    model = keras.Model(inputs, GroupNormalization(2, "silu")(inputs))
    model.compile("sgd", "mse")
    for size in (2, 5):
        x = np.random.default_rng(0).normal(size=(3, size, size, 8))
        assert np.isfinite(model.train_on_batch(x, x))
        assert model.predict(x, verbose=0).shape == x.shape


def test_layers_of_one_shape_and_activation_share_their_compiled_gradients():
    layers = [
        build_pair(shape, activation)[1]
        for shape, activation in [
            ((3, 5, 12), "silu"), ([2, 5, 12], "silu"), ((3, 7, 12), "silu"), ((3, 5, 12), "relu"),
        ]
    ]  # fmt: skip
    means = [layer._means for layer in layers]
    assert means[0] is means[1] is means[3] is not means[2]
    steps = [layer._scale_and_shift for layer in layers]
    assert steps[0] is steps[1] and len(set(steps)) == 3


def test_a_group_of_equal_values_has_no_variance():
    """The difference of the two means may round below 0, whose root is NaN."""
    x = np.full((2, 8, 8, 4), 1.1, "float32")
    layer = GroupNormalization(2)
    np.testing.assert_allclose(layer(x), np.zeros_like(x), atol=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"axis": 1}, "axis: expected -1"), ({"activation": "no"}, "activation: expected")],
)
def test_invalid_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        GroupNormalization(2, **arguments)
