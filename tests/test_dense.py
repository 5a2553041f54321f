"""The dense layer with int8 weights: products, and its modes and files beside those of Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import add_random_noise

from keras_genai.dense import MAX_SIZE, MAX_VECTORS, Dense, matmul_int8


def build(layer_class, input_dim=6, **options):
    layer = layer_class(5, **options)
    layer.build((None, input_dim))
    return layer


def build_int8(layer_class=Dense, **options):
    layer = build(layer_class, **options)
    add_random_noise(layer)
    layer.quantize("int8", type_check=False)
    return layer


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(
    "shape",
    [(6,), (1, 6), (1, 1, 6), (2, 1, 6), (MAX_VECTORS, 6), (MAX_VECTORS + 1, 6), (3, MAX_SIZE + 2)],
)
def test_product_of_int8_rows_is_that_of_numpy(shape, jit_compile):
    rng = np.random.default_rng(0)
    x, rows = rng.normal(size=shape).astype("float32"), rng.integers(-127, 128, (7, shape[-1]))
    scale = rng.uniform(1, 2, 7).astype("float32")
    product = tf.function(matmul_int8, jit_compile=jit_compile)(x, tf.constant(rows, "int8"), scale)
    np.testing.assert_allclose(product, x @ rows.T / scale, rtol=1e-4, atol=2e-2)


def test_sums_of_half_precision_are_those_of_float32():
    x, rows = np.full((2, 600), 2, "float16"), np.full((3, 600), 127, "int8")
    product = matmul_int8(tf.constant(x), tf.constant(rows), np.full(3, 127, "float32"))
    assert product.dtype == "float16"
    np.testing.assert_array_equal(product, np.full((2, 3), 1200))  # the sum is 152,400


def test_product_of_infinite_and_nan_vectors_is_that_of_the_float_kernel():
    rows, scale = np.ones((3, 4), "int8"), np.ones(3, "float32")
    x = np.ones((3, 4), "float32")
    x[0, 0], x[1, 0] = np.inf, np.nan
    product = matmul_int8(tf.constant(x), tf.constant(rows), scale)
    np.testing.assert_array_equal(product[:, 0], [np.inf, np.nan, 4.0])


@pytest.mark.parametrize("use_bias", [False, True])
def test_int8_layer_rounds_its_weights_only(use_bias):
    x = np.random.default_rng(0).normal(size=(2, 3, 6)).astype("float32")
    layer = build(Dense, activation="tanh", use_bias=use_bias)
    add_random_noise(layer)
    kernel = np.asarray(layer.kernel)
    bias = np.asarray(layer.bias) if use_bias else 0
    layer.quantize("int8")
    scale = 127 / np.abs(kernel).max(axis=0)
    rounded = np.round(kernel * scale)
    np.testing.assert_array_equal(layer.kernel, rounded)
    assert layer._kernel.shape == (5, 6)
    np.testing.assert_allclose(layer(x), np.tanh(x @ (rounded / scale) + bias), atol=1e-5)


def test_int8_layers_are_saved_and_loaded_in_the_format_of_keras(tmp_path):
    x = np.random.default_rng(0).normal(size=(2, 6)).astype("float32")
    path, layer = tmp_path / "model.weights.h5", build_int8()
    keras.Sequential([keras.Input((6,)), layer]).save_weights(path)
    stock = build(keras.layers.Dense)
    stock.quantize("int8")
    stock_model = keras.Sequential([keras.Input((6,)), stock])
    stock_model.load_weights(path)
    np.testing.assert_array_equal(stock._kernel, layer.kernel)
    stock_model.save_weights(path)
    loaded = build_int8()
    keras.Sequential([keras.Input((6,)), loaded]).load_weights(path)
    np.testing.assert_array_equal(loaded(x), layer(x))


def test_lora_of_an_int8_layer_is_that_of_keras():
    x = np.random.default_rng(0).normal(size=(2, 6)).astype("float32")
    layer, stock = build_int8(), build_int8(keras.layers.Dense)
    stock._kernel.assign(layer.kernel)
    stock.kernel_scale.assign(layer.kernel_scale)
    stock.bias.assign(layer.bias)
    for each in (layer, stock):
        each.enable_lora(2)
        each.lora_kernel_b.assign(np.ones((2, 5)))
    stock.lora_kernel_a.assign(layer.lora_kernel_a)
    np.testing.assert_array_equal(layer(x), stock(x))


def test_a_configuration_of_the_inputs_counts():
    if not hasattr(keras.quantizers, "Int8QuantizationConfig"):  # an older Keras, without argument
        with pytest.raises(TypeError, match="config"):
            build(Dense).quantize("int8", config=None)
        return
    config_class = keras.quantizers.Int8QuantizationConfig
    quantizer = keras.quantizers.AbsMaxQuantizer(axis=-1, value_range=(-7, 7))
    x = np.random.default_rng(0).normal(size=(2, 6)).astype("float32")
    outputs = []
    for layer_class in (Dense, keras.layers.Dense):
        layer = build(layer_class, kernel_initializer=keras.initializers.GlorotUniform(0))
        layer.quantize("int8", config=config_class(activation_quantizer=quantizer))
        outputs.append(np.asarray(layer(x)))
    np.testing.assert_array_equal(*outputs)
    default = build(Dense, kernel_initializer=keras.initializers.GlorotUniform(0))
    default.quantize("int8", config=config_class())
    assert default.transposed and np.abs(default(x) - outputs[0]).max() > 1e-3
