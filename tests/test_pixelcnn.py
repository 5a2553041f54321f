"""PixelCNN against direct summation pixel by pixel, enumeration, and uncached sampling."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import largest_difference, set_random_weights

from keras_genai import autoregressive
from keras_genai.autoregressive import GREEDY, Sampler
from keras_genai.pixelcnn import GatedPixelCNNLayer, Quantize, build_pixelcnn


def random_model(
    image_shape, num_filters=4, num_layers=3, num_levels=2, num_classes=None, scale=0.6
):
    """A model with large weights and biases: some pixels are far more likely than others."""
    model = build_pixelcnn(image_shape, num_filters, num_layers, num_levels, num_classes)
    return set_random_weights(model, scale=scale)


def random_images(num_images, image_shape, num_levels=2):
    levels = np.random.default_rng(1).integers(num_levels, size=(num_images, *image_shape))
    return (levels / (num_levels - 1)).astype("float32")


def image_tokens(images, num_levels=2):
    levels = np.round(images.reshape(len(images), -1) * (num_levels - 1)).astype("int32")
    return np.concatenate([np.zeros((len(images), 1), "int32"), levels], axis=1)


@pytest.mark.parametrize("num_classes", [None, 3])
def test_logits_depend_on_all_earlier_pixels_and_on_no_later_ones(num_classes):
    model = random_model((8, 8, 1), num_layers=8, num_classes=num_classes)
    pixels = next(layer for layer in model.layers if isinstance(layer, Quantize)).output
    network = keras.Model([pixels, *model.inputs[1:]], model.output)  # rounding has no gradient
    x = tf.constant(random_images(4, (8, 8, 1)))
    labels = [] if num_classes is None else [tf.constant([0, 1, 2, 0])]
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = tf.reshape(network([x, *labels])[..., 1], (4, 64))
    gradient = tf.reshape(tape.batch_jacobian(logits, x), (4, 64, 64))  # output by input pixel
    depends = np.abs(gradient).max(axis=0) > 0
    assert np.array_equal(depends, np.tri(64, k=-1, dtype=bool))


def logits_by_direct_summation(model, x, label=None):
    """Return the logits of one image (height, width), each convolution as a sum over its kernel."""
    height, width = x.shape

    def gate(a):
        a, b = np.split(a, 2)
        return np.tanh(a) / (1 + np.exp(-b))

    def zero_padded(stack, row, column):
        inside = 0 <= row < height and 0 <= column < width
        return stack[row, column] if inside else np.zeros_like(stack[0, 0])

    vstack = x[..., None].astype("float64")
    hstack = np.zeros_like(vstack)
    hstack[:, 1:] = vstack[:, :-1]
    for layer in model.gated_layers:
        half, dilation, filters = layer.kernel_size // 2, layer.dilation_rate, layer.num_filters
        v_kernel, v_bias = layer.vertical_conv.get_weights()
        h_kernel, h_bias = layer.horizontal_conv.get_weights()
        (v_to_h,) = layer.vertical_to_horizontal.get_weights()
        residual, residual_bias = layer.horizontal_residual.get_weights()
        label_bias = np.zeros(4 * filters)
        if label is not None:
            label_bias = layer.label_projection.get_weights()[0][label]
        new_vstack = np.zeros((height, width, filters))
        new_hstack = np.zeros((height, width, filters))
        for r, c in np.ndindex(height, width):
            total = v_bias + label_bias[: 2 * filters]
            for i in range(half + 1):
                for j in range(2 * half + 1):
                    pixel = zero_padded(
                        vstack, r - dilation * (half - i), c - dilation * (half - j)
                    )
                    total = total + pixel @ v_kernel[i, j]
            new_vstack[r, c] = gate(total)
        for r, c in np.ndindex(height, width):
            total = h_bias + label_bias[2 * filters :] + zero_padded(new_vstack, r - 1, c) @ v_to_h
            for j in range(half + 1):
                total = total + zero_padded(hstack, r, c - dilation * (half - j)) @ h_kernel[0, j]
            output = gate(total) @ residual + residual_bias
            new_hstack[r, c] = output + (hstack[r, c] if hstack.shape[2] > 1 else 0)
        vstack, hstack = new_vstack, new_hstack
    for dense in (model.hidden, model.head):
        kernel, bias = dense.get_weights()
        hstack = np.maximum(hstack, 0) @ kernel + bias
    return hstack


@pytest.mark.parametrize("num_classes", [None, 3])
def test_log_prob_equals_direct_summation(num_classes):
    model = random_model((5, 4, 1), num_levels=3, num_classes=num_classes)
    x = random_images(2, (5, 4, 1), num_levels=3)
    labels = None if num_classes is None else [2, 0]
    images, pixels = model.log_prob(x, labels)
    for i in range(2):
        label = None if labels is None else labels[i]
        logits = logits_by_direct_summation(model, x[i, ..., 0], label)
        log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        levels = np.round(x[i] * 2).astype(int)
        expected = np.take_along_axis(log_probs, levels, axis=-1)[..., 0]
        np.testing.assert_allclose(pixels[i], expected, atol=1e-5)
        assert images[i] == pytest.approx(expected.sum(), rel=1e-5)


@pytest.mark.slow
def test_image_probabilities_sum_to_one_and_match_the_sample_frequencies():
    model = random_model((2, 3, 1), scale=2.0)
    all_images = np.array(list(itertools.product([0, 1], repeat=6)), "float32")
    probabilities = np.exp(model.log_prob(all_images.reshape(-1, 2, 3, 1))[0])
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert probabilities.max() > 3 / 64  # far from uniform
    samples = model.generate(20_000, seed=0).reshape(-1, 6) @ 2 ** np.arange(5, -1, -1)
    counts = np.bincount(samples.astype(int), minlength=64)
    # A chi-square test needs a minimum of expected counts: rare images are pooled.
    groups = np.where(20_000 * probabilities < 10, 64, np.arange(64))
    expected, found = (
        np.bincount(groups, weights)[np.unique(groups)]
        for weights in (20_000 * probabilities, counts)
    )
    statistic = np.sum((found - expected) ** 2 / expected)
    degrees_of_freedom = len(expected) - 1
    # About one statistic in a thousand is larger.
    assert statistic < degrees_of_freedom + 3.1 * (2 * degrees_of_freedom) ** 0.5


def generate_uncached(model, prompt, labels, seed, sampler):
    """Run the whole network on the whole image for each pixel."""
    height, width, _ = model.image_shape
    tokens = np.zeros((len(prompt), 1 + height * width), "int32")
    tokens[:, : prompt.shape[1]] = prompt
    uniform = np.random.default_rng(seed).random(
        (tokens.shape[1] - prompt.shape[1], len(prompt)), "float32"
    )
    for numbers, i in zip(uniform, range(prompt.shape[1], tokens.shape[1]), strict=True):
        images = (tokens[:, 1:] / (model.num_levels - 1)).astype("float32")
        x = images.reshape(len(prompt), height, width, 1)
        logits = model(x if labels is None else [x, np.array(labels)])
        row, column = divmod(i - 1, width)
        tokens[:, i] = autoregressive.sample(logits[:, row, column], numbers, sampler)
    return (tokens[:, 1:] / (model.num_levels - 1)).reshape(-1, height, width, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "num_levels, num_classes, sampler, rows",
    [(2, None, Sampler(), 0), (5, 3, Sampler(0.7, top_p=0.9), 4), (2, 3, GREEDY, 1)],
)
def test_generate_equals_uncached_sampling(num_levels, num_classes, sampler, rows):
    model = random_model((6, 5, 1), num_levels=num_levels, num_classes=num_classes)
    labels = None if num_classes is None else [0, 1, 2]
    upper_rows = random_images(3, (rows, 5, 1), num_levels)
    prompt = image_tokens(upper_rows, num_levels)
    expected = generate_uncached(model, prompt, labels, 7, autoregressive.check_sampler(sampler))
    images = model.generate(
        3, labels, upper_rows=upper_rows if rows else None, sampler=sampler, seed=7
    )
    assert images.shape == (3, 6, 5, 1) and images.dtype == "float32"
    np.testing.assert_array_equal(images, expected.astype("float32"))
    np.testing.assert_array_equal(images[:, :rows], upper_rows)


@pytest.mark.parametrize("num_classes", [None, 3])
def test_step_on_a_block_gives_the_state_of_single_steps(num_classes):
    model = random_model((6, 5, 1), num_classes=num_classes)
    labels = None if num_classes is None else tf.constant([0, 2])
    tokens = image_tokens(random_images(2, (6, 5, 1)))
    state = model.initial_state(2, 31, labels)
    for length in range(1, 31):
        logits, state = model.step(tokens[:, length - 1 : length], state, length - 1)
        if length not in (1, 4, 5, 6, 13, 25, 30):
            continue
        padding = min(3, 31 - length)
        block = np.pad(tokens[:, :length], ((0, 0), (0, padding)), constant_values=1)
        block_logits, block_state = model.step(block, model.initial_state(2, 31, labels), 0, length)
        np.testing.assert_allclose(block_logits[:, length - 1], logits[:, 0], atol=1e-5)
        caches = (keras.tree.flatten(x["caches"]) for x in (block_state, state))
        assert largest_difference(*caches) < 1e-5
    sums, _ = autoregressive.log_prob(model, tokens, labels)
    images = tokens[:, 1:].reshape(2, 6, 5, 1)
    np.testing.assert_allclose(sums, model.log_prob(images, labels)[0], rtol=1e-5)


def test_cache_size_does_not_depend_on_the_image_height():
    def cache_size(height):
        state = build_pixelcnn((height, 10, 1)).initial_state(3)
        return sum(tensor.numpy().size for tensor in keras.tree.flatten(state["caches"]))

    # Layer 1: three rows of pixels, three pixels; the others: as many rows and pixels of 32 filters
    # as their dilation rates, 2 + 4 + 8 + 1 + 2 + 4 + 8; and in each layer the projected vertical
    # stack, 64 channels per column.
    expected = 3 * (3 * 10 + 3 + 29 * 32 * (10 + 1) + 8 * 64 * 10)
    assert cache_size(10) == cache_size(20) == expected


@pytest.mark.slow
def test_loss_is_the_nll_per_image_of_the_quantized_pixels():
    x = random_images(64, (6, 5, 1), num_levels=4)
    model = build_pixelcnn((6, 5, 1), 8, 2, num_levels=4)
    model.compile(keras.optimizers.Adam(0.01))
    scores = model.evaluate(x, verbose=0, return_dict=True)
    nll = -model.log_prob(x)[0].mean()
    assert scores["loss"] == pytest.approx(nll, rel=1e-5)
    assert scores["bits_per_dim"] == pytest.approx(nll / 30 / np.log(2), rel=1e-5)
    assert scores["loss"] == pytest.approx(30 * np.log(4), rel=0.2)  # untrained: nearly uniform
    # Gray between two levels is rounded to the nearer one, in the input and in the target.
    assert model.evaluate(x + 0.1 * (x < 0.5), verbose=0)[0] == pytest.approx(nll, rel=1e-6)
    assert model.evaluate(x > 0.5, verbose=0)[0] == model.evaluate(1.0 * (x > 0.5), verbose=0)[0]
    model.fit(x[:1].repeat(64, 0), epochs=60, verbose=0)
    assert model.evaluate(x[:1], verbose=0)[0] < 1  # one image is memorized


def test_sample_weights_scale_the_loss_of_each_image():
    x = random_images(8, (4, 4, 1))
    results = []
    # Four of eight images have weight 1: half the mean of these four.
    half = np.array([1, 1, 1, 1, 0, 0, 0, 0], "float32")
    for rate, images, weights in ((0.1, x, half), (0.05, x[:4], None)):
        keras.utils.set_random_seed(0)
        model = build_pixelcnn((4, 4, 1), 4, 2)
        model.compile(keras.optimizers.SGD(rate), jit_compile=False)
        model.train_on_batch(images, sample_weight=weights)
        results.append(model.get_weights())
    assert largest_difference(*results) < 1e-6


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"image_shape": (8, 8, 3)},
            r"image_shape: expected \(height, width, 1\), got \(8, 8, 3\)",
        ),
        ({"image_shape": (8, 8)}, "image_shape: expected"),
        ({"image_shape": 28}, "image_shape: expected"),
        ({"image_shape": (0, 8, 1)}, "height: expected a whole number of at least 1, got 0"),
        ({"num_filters": 0}, "num_filters: expected"),
        ({"num_layers": 2.0}, "num_layers: expected"),
        ({"num_levels": 1}, "num_levels: expected a whole number of at least 2, got 1"),
        ({"num_levels": 257}, "num_levels: expected at most 256, got 257"),
        ({"num_classes": 1}, "num_classes: expected"),
    ],
)
def test_invalid_sizes_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_pixelcnn(**arguments)


def test_even_kernel_size_raises():
    with pytest.raises(ValueError, match="kernel_size: expected an odd number, got 4"):
        GatedPixelCNNLayer(4, kernel_size=4)


@pytest.fixture(scope="module")
def small_model():
    model = build_pixelcnn((4, 5, 1), 2, 1, num_classes=3)
    model.compile()
    return model


IMAGES = np.zeros((2, 4, 5, 1), "float32")


@pytest.mark.parametrize(
    "method, args, kwargs, message",
    [
        ("fit", [IMAGES * np.nan, [0, 1]], {}, "x: expected pixels"),
        ("fit", [IMAGES + 2, [0, 1]], {}, r"x: expected pixels scaled to \[0, 1\]"),
        ("fit", [IMAGES], {}, "labels: expected integers from 0 to 2, got None"),
        ("fit", [IMAGES[:, :3], [0, 1]], {}, r"x: expected shape \(n, 4, 5, 1\)"),
        ("log_prob", [IMAGES, [0, 3]], {}, "labels: expected integers from 0 to 2"),
        ("generate", [0, 0], {}, "num_samples: expected"),
        ("generate", [2], {}, "labels: expected integers from 0 to 2, got None"),
        (
            "generate",
            [2, 0],
            {"upper_rows": IMAGES},
            r"upper_rows: expected shape \(2, 1 to 3, 5, 1\), got \(2, 4, 5, 1\)",
        ),
        ("generate", [2, 0], {"upper_rows": IMAGES[:1, :2]}, "upper_rows: expected shape"),
        ("generate", [2, 0], {"upper_rows": IMAGES[:, :0]}, "upper_rows: expected shape"),
        ("generate", [2, 0], {"upper_rows": IMAGES[0, :2] - 1}, "upper_rows: expected pixels"),
        ("compile", [], {"loss": "mse"}, "loss: expected None"),
    ],
)
def test_invalid_images_labels_and_rows_raise(small_model, method, args, kwargs, message):
    with pytest.raises(ValueError, match=message):
        getattr(small_model, method)(*args, **kwargs)


def test_upper_rows_of_one_image_apply_to_all_samples(small_model):
    images = small_model.generate(2, 1, upper_rows=IMAGES[0, :2], seed=0)
    assert images.shape == (2, 4, 5, 1)
