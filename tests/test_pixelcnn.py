"""PixelCNN: against its definition pixel by pixel, enumeration, and naive sampling."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import largest_difference

from keras_genai import autoregressive
from keras_genai.autoregressive import GREEDY, Sampler
from keras_genai.pixelcnn import GatedLayer, Quantize, build_pixelcnn


def random_model(image_shape, num_filters=4, num_layers=3, levels=2, num_classes=None, scale=0.6):
    """A model with large weights, biases too: some pixels are far likelier than others."""
    model = build_pixelcnn(image_shape, num_filters, num_layers, levels, num_classes)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(scale=scale, size=w.shape) for w in model.get_weights()])
    return model


def random_images(count, image_shape, levels=2):
    pixels = np.random.default_rng(1).integers(levels, size=(count, *image_shape))
    return (pixels / (levels - 1)).astype("float32")


def tokens_of(images, levels=2):
    pixels = np.round(images.reshape(len(images), -1) * (levels - 1)).astype("int32")
    return np.concatenate([np.zeros((len(images), 1), "int32"), pixels], axis=1)


@pytest.mark.parametrize("num_classes", [None, 3])
def test_every_pixel_depends_on_all_before_it_and_on_none_after(num_classes):
    model = random_model((8, 8, 1), num_layers=8, num_classes=num_classes)
    pixels = next(layer for layer in model.layers if isinstance(layer, Quantize)).output
    network = keras.Model([pixels, *model.inputs[1:]], model.output)  # rounding has no gradient
    x = tf.constant(random_images(4, (8, 8, 1)))
    labels = [] if num_classes is None else [tf.constant([0, 1, 2, 0])]
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = tf.reshape(network([x, *labels])[..., 1], (4, 64))
    gradient = tf.reshape(tape.batch_jacobian(logits, x), (4, 64, 64))  # of i by j
    depends = np.abs(gradient).max(axis=0) > 0
    assert np.array_equal(depends, np.tri(64, k=-1, dtype=bool))


def by_definition(model, x, label=None):
    """Return the logits of one image (height, width): each convolution as a sum over its places."""
    height, width = x.shape

    def gate(a):
        a, b = np.split(a, 2)
        return np.tanh(a) / (1 + np.exp(-b))

    def at(stack, row, column):
        inside = 0 <= row < height and 0 <= column < width
        return stack[row, column] if inside else np.zeros_like(stack[0, 0])

    vertical = x[..., None].astype("float64")
    horizontal = np.zeros_like(vertical)
    horizontal[:, 1:] = vertical[:, :-1]
    for layer in model.gated_layers:
        half, apart, filters = layer.kernel_size // 2, layer.dilation, layer.num_filters
        (v, v_bias), (h, h_bias) = layer.vertical.get_weights(), layer.horizontal.get_weights()
        down, (out, out_bias) = layer.downwards.get_weights()[0], layer.outwards.get_weights()
        told = np.zeros(4 * filters)
        if label is not None:
            told = layer.condition.get_weights()[0][label]
        new_vertical = np.zeros((height, width, filters))
        new_horizontal = np.zeros((height, width, filters))
        for r, c in np.ndindex(height, width):
            total = v_bias + told[: 2 * filters]
            for i in range(half + 1):
                for j in range(2 * half + 1):
                    place = r - apart * (half - i), c - apart * (half - j)
                    total = total + at(vertical, *place) @ v[i, j]
            new_vertical[r, c] = gate(total)
        for r, c in np.ndindex(height, width):
            total = h_bias + told[2 * filters :] + at(new_vertical, r - 1, c) @ down
            for j in range(half + 1):
                total = total + at(horizontal, r, c - apart * (half - j)) @ h[0, j]
            added = gate(total) @ out + out_bias
            new_horizontal[r, c] = added + (horizontal[r, c] if horizontal.shape[2] > 1 else 0)
        vertical, horizontal = new_vertical, new_horizontal
    for dense in (model.hidden, model.head):
        kernel, bias = dense.get_weights()
        horizontal = np.maximum(horizontal, 0) @ kernel + bias
    return horizontal


@pytest.mark.parametrize("num_classes", [None, 3])
def test_logits_and_log_prob_are_those_of_the_definition(num_classes):
    model = random_model((5, 4, 1), levels=3, num_classes=num_classes)
    x = random_images(2, (5, 4, 1), levels=3)
    labels = None if num_classes is None else [2, 0]
    images, pixels = model.log_prob(x, labels)
    for i in range(2):
        logits = by_definition(model, x[i, ..., 0], None if labels is None else labels[i])
        log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        levels = np.round(x[i] * 2).astype(int)
        expected = np.take_along_axis(log_probs, levels, axis=-1)[..., 0]
        np.testing.assert_allclose(pixels[i], expected, atol=1e-5)
        assert images[i] == pytest.approx(expected.sum(), rel=1e-5)


def test_probabilities_of_all_images_sum_to_one_and_samples_have_them():
    model = random_model((2, 3, 1), scale=2.0)
    every = np.array(list(itertools.product([0, 1], repeat=6)), "float32").reshape(-1, 2, 3, 1)
    probabilities = np.exp(model.log_prob(every)[0])
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert probabilities.max() > 3 / 64  # not all alike
    samples = model.generate(20_000, seed=0).reshape(-1, 6) @ 2 ** np.arange(5, -1, -1)
    counts = np.bincount(samples.astype(int), minlength=64)
    # A chi-square test needs some of each: those that are rare count together.
    groups = np.where(20_000 * probabilities < 10, 64, np.arange(64))
    expected, found = (
        np.bincount(groups, weights)[np.unique(groups)]
        for weights in (20_000 * probabilities, counts)
    )
    statistic = np.sum((found - expected) ** 2 / expected)
    freedom = len(expected) - 1
    assert statistic < freedom + 3.1 * (2 * freedom) ** 0.5  # about one in a thousand is above


def naive(model, prompt, labels, seed, sampler):
    """Run the whole network on the whole image for each pixel."""
    height, width, _ = model.image_shape
    tokens = np.zeros((len(prompt), 1 + height * width), "int32")
    tokens[:, : prompt.shape[1]] = prompt
    uniform = np.random.default_rng(seed).random(
        (tokens.shape[1] - prompt.shape[1], len(prompt)), "float32"
    )
    for numbers, i in zip(uniform, range(prompt.shape[1], tokens.shape[1])):
        images = (tokens[:, 1:] / (model.levels - 1)).astype("float32")
        x = images.reshape(len(prompt), height, width, 1)
        logits = model(x if labels is None else [x, np.array(labels)])
        row, column = divmod(i - 1, width)
        tokens[:, i] = autoregressive.sample(logits[:, row, column], numbers, sampler)
    return (tokens[:, 1:] / (model.levels - 1)).reshape(-1, height, width, 1)


@pytest.mark.parametrize(
    "levels, num_classes, sampler, rows",
    [(2, None, Sampler(), 0), (5, 3, Sampler(0.7, top_p=0.9), 4), (2, 3, GREEDY, 1)],
)
def test_generate_equals_naive_sampling(levels, num_classes, sampler, rows):
    model = random_model((6, 5, 1), levels=levels, num_classes=num_classes)
    labels = None if num_classes is None else [0, 1, 2]
    given = random_images(3, (rows, 5, 1), levels)
    prompt = tokens_of(given, levels)
    sampler_of_tensors = autoregressive._check_sampler(sampler)
    expected = naive(model, prompt, labels, 7, sampler_of_tensors)
    images = model.generate(3, labels, 7, given if rows else None, sampler)
    assert images.shape == (3, 6, 5, 1) and images.dtype == "float32"
    np.testing.assert_array_equal(images, expected.astype("float32"))
    np.testing.assert_array_equal(images[:, :rows], given)


@pytest.mark.parametrize("num_classes", [None, 3])
def test_a_block_leaves_the_state_that_single_pixels_leave(num_classes):
    model = random_model((6, 5, 1), num_classes=num_classes)
    labels = None if num_classes is None else tf.constant([0, 2])
    tokens = tokens_of(random_images(2, (6, 5, 1)))
    state = model.initial_state(2, 31, labels)
    for count in range(1, 31):  # tokens that have been read
        logits, state = model.step(tokens[:, count - 1 : count], state, count - 1)
        if count not in (1, 4, 5, 6, 13, 25, 30):
            continue
        padded = np.pad(tokens[:, :count], ((0, 0), (0, min(3, 31 - count))), constant_values=1)
        empty = model.initial_state(2, 31, labels)
        block_logits, block_state = model.step(padded, empty, 0, count)
        np.testing.assert_allclose(block_logits[:, count - 1], logits[:, 0], atol=1e-5)
        layers = (keras.tree.flatten(x["layers"]) for x in (block_state, state))
        assert largest_difference(*layers) < 1e-5
    sums, _ = autoregressive.log_prob(model, tokens, labels)
    images = tokens[:, 1:].reshape(2, 6, 5, 1)
    np.testing.assert_allclose(sums, model.log_prob(images, labels)[0], rtol=1e-5)


def test_the_state_keeps_rows_not_images():
    def numbers(height):
        state = build_pixelcnn((height, 10, 1)).initial_state(3)
        return sum(tensor.numpy().size for tensor in keras.tree.flatten(state["layers"]))

    # Layer 1: three rows of pixels, three pixels; the others: as many rows and pixels of 32 filters
    # as their dilations, 2 + 4 + 8 + 1 + 2 + 4 + 8; and in each what comes from above, 64 a place.
    assert numbers(10) == numbers(20) == 3 * (3 * 10 + 3 + 29 * 32 * (10 + 1) + 8 * 64 * 10)


def test_training_is_by_nats_per_image_and_sees_the_levels():
    x = random_images(64, (6, 5, 1), levels=4)
    model = build_pixelcnn((6, 5, 1), 8, 2, levels=4)
    model.compile(keras.optimizers.Adam(0.01))
    scores = model.evaluate(x, verbose=0, return_dict=True)
    nats = -model.log_prob(x)[0].mean()
    assert scores["loss"] == pytest.approx(nats, rel=1e-5)
    assert scores["bits_per_dim"] == pytest.approx(nats / 30 / np.log(2), rel=1e-5)
    assert scores["loss"] == pytest.approx(30 * np.log(4), rel=0.2)  # knows nothing yet
    # Grey between two levels is the nearer one, in what is seen and in what is predicted.
    assert model.evaluate(x + 0.1 * (x < 0.5), verbose=0)[0] == pytest.approx(nats, rel=1e-6)
    assert model.evaluate(x > 0.5, verbose=0)[0] == model.evaluate(1.0 * (x > 0.5), verbose=0)[0]
    model.fit(x[:1].repeat(64, 0), epochs=60, verbose=0)
    assert model.evaluate(x[:1], verbose=0)[0] < 1


def test_weights_of_images_weigh_their_loss():
    x = random_images(8, (4, 4, 1))
    results = []
    # Of eight images, four count: half the mean of these four.
    for rate, images, weights in ((0.1, x, [1, 1, 1, 1, 0, 0, 0, 0]), (0.05, x[:4], None)):
        keras.utils.set_random_seed(0)
        model = build_pixelcnn((4, 4, 1), 4, 2)
        model.compile(keras.optimizers.SGD(rate), jit_compile=False)
        weights = None if weights is None else np.array(weights, "float32")
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
        ({"levels": 1}, "levels: expected a whole number of at least 2, got 1"),
        ({"levels": 257}, "levels: expected at most 256, got 257"),
        ({"num_classes": 1}, "num_classes: expected"),
    ],
)
def test_bad_sizes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_pixelcnn(**arguments)


def test_a_kernel_without_a_middle_is_named():
    with pytest.raises(ValueError, match="kernel_size: expected an odd number, got 4"):
        GatedLayer(4, kernel_size=4)


def test_bad_images_labels_and_rows_are_named():
    model = build_pixelcnn((4, 5, 1), 2, 1, num_classes=3)
    model.compile()
    x = np.zeros((2, 4, 5, 1), "float32")
    for call, message in (
        (lambda: model.fit(x * np.nan, [0, 1]), "x: expected pixels"),
        (lambda: model.fit(x + 2, [0, 1]), r"x: expected pixels scaled to \[0, 1\]"),
        (lambda: model.fit(x), "labels: expected integers from 0 to 2, got None"),
        (lambda: model.fit(x[:, :3], [0, 1]), r"x: expected shape \(n, 4, 5, 1\)"),
        (lambda: model.log_prob(x, [0, 3]), "labels: expected integers from 0 to 2"),
        (lambda: model.generate(0, 0), "num_samples: expected"),
        (lambda: model.generate(2), "labels: expected integers from 0 to 2, got None"),
        (lambda: model.generate(2, 0, given=x), "given: expected upper rows, .2, 1 to 3, 5, 1."),
        (lambda: model.generate(2, 0, given=x[:1, :2]), "given: expected upper rows"),
        (lambda: model.generate(2, 0, given=x[:, :0]), "given: expected upper rows"),
        (lambda: model.generate(2, 0, given=x[0, :2] - 1), "given: expected pixels"),
        (lambda: model.compile(loss="mse"), "loss: expected None"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert model.generate(2, 1, given=x[0, :2], seed=0).shape == (2, 4, 5, 1)
