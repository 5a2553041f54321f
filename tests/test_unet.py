"""U-Net: shapes, dependence on all inputs, the parameters of each block, invalid sizes."""

import math

import numpy as np
import pytest
import tensorflow as tf
from helpers import set_random_weights

from keras_genai.unet import SinusoidalTimeEmbedding, build_unet


@pytest.mark.slow
@pytest.mark.parametrize(
    "image_shape, widths, block_depth, num_classes",
    [
        ((28, 28, 1), (32, 64, 96), 1, None),
        ((8, 12, 3), (5, 33, 12), 2, 4),
        ((5, 3, 1), (7,), 1, 2),
        ((5, 3, 1), (8,), 1, 2),
        ((6, 4, 1), (2, 4), 1, 2),
    ],
)
def test_output_depends_on_timestep_and_label_at_any_size(
    image_shape, widths, block_depth, num_classes
):
    network = build_unet(image_shape, widths, block_depth, num_classes)
    x_t = np.random.default_rng(0).normal(size=(2, *image_shape)).astype("float32")
    inputs = [x_t, np.array([0, 9])] + ([] if num_classes is None else [np.array([-1, 1])])
    assert not np.any(network(inputs))  # untrained, it predicts the mean of the noise
    set_random_weights(network)
    noise = network(inputs)
    assert noise.shape == (2, *image_shape)
    other_timestep = network([x_t, np.array([0, 7]), *inputs[2:]])
    np.testing.assert_allclose(other_timestep[0], noise[0], rtol=1e-4, atol=1e-5)
    assert np.abs(other_timestep[1] - noise[1]).max() > 1e-3
    if num_classes is not None:
        other_label = network([*inputs[:2], np.array([-1, 0])])
        np.testing.assert_allclose(other_label[0], noise[0], rtol=1e-4, atol=1e-5)
        assert np.abs(other_label[1] - noise[1]).max() > 1e-3


def test_time_embedding_has_sines_and_cosines_of_the_timestep():
    embedding = SinusoidalTimeEmbedding(6)(np.array([0, 7]))
    angles = [7 * 10_000 ** (-i / 3) for i in range(3)]
    expected = [[0] * 3 + [1] * 3, [math.sin(a) for a in angles] + [math.cos(a) for a in angles]]
    np.testing.assert_allclose(embedding, expected, atol=1e-6)


def test_parameter_count_is_the_sum_over_the_documented_blocks():
    def residual_block(in_width, width):
        convolutions = 9 * in_width * width + 9 * width * width + 2 * width
        shortcut = in_width * width + width if in_width != width else 0
        time_embedding, second_norm = 128 * width + width, 2 * width
        return 2 * in_width + convolutions + time_embedding + second_norm + shortcut

    time_embedding, first_convolution = 64 * 128 + 128, 9 * 32 + 32
    downsampling = residual_block(32, 32) + residual_block(32, 64)
    attention = 2 * 96 + 4 * (96 * 96 + 96)
    lowest_resolution = residual_block(64, 96) + attention + residual_block(96, 96)
    upsampling = 96 * 64 + 64 + residual_block(128, 64) + 64 * 32 + 32 + residual_block(64, 32)
    output = 2 * 32 + 9 * 32 + 1
    expected = (
        time_embedding + first_convolution + downsampling + lowest_resolution + upsampling + output
    )
    assert build_unet().count_params() == expected
    assert build_unet(num_classes=10).count_params() == expected + 10 * 128


def test_every_output_pixel_depends_on_every_input_pixel():
    network = set_random_weights(build_unet((8, 8, 1), (4, 4, 4)))
    x_t = tf.constant(np.random.default_rng(0).normal(size=(1, 8, 8, 1)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x_t)
        corner = network([x_t, tf.constant([3])])[0, 0, 0, 0]
    assert np.all(tape.gradient(corner, x_t) != 0)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"image_shape": (28, 28)}, r"image_shape: expected \(height, width, channels\), got"),
        ({"image_shape": (30, 28, 1)}, "image_shape: expected multiples of 4 .* got 30 x 28"),
        ({"image_shape": (28, 28, 0)}, "channels: expected a whole number of at least 1, got 0"),
        ({"widths": ()}, "widths: expected a sequence of whole numbers"),
        ({"widths": 32}, "widths: expected a sequence of whole numbers, got 32"),
        ({"widths": (32, 1)}, "widths: expected a whole number of at least 2, got 1"),
        ({"block_depth": 0}, "block_depth: expected"),
        ({"num_classes": 1}, "num_classes: expected"),
    ],
)
def test_invalid_sizes_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_unet(**arguments)


def test_odd_time_embedding_raises():
    with pytest.raises(ValueError, match="dim: expected an even number, got 5"):
        SinusoidalTimeEmbedding(5)
