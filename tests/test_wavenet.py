"""WaveNet: its reach by gradient, its rings and samples against the whole network."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import largest_difference

from keras_genai import audio, autoregressive
from keras_genai.autoregressive import GREEDY, Sampler
from keras_genai.recipes import RECIPES
from keras_genai.wavenet import build_wavenet, receptive_field


def random_model(num_classes=None, num_blocks=2, layers_per_block=3, num_levels=16):
    model = build_wavenet(num_levels, num_blocks, layers_per_block, 4, 6, num_classes)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(scale=0.5, size=w.shape) for w in model.get_weights()])
    return model


def random_levels(count, length, num_levels=16):
    return np.random.default_rng(1).integers(num_levels, size=(count, length)).astype("int32")


@pytest.mark.parametrize(
    "num_blocks, layers_per_block, expected", [(1, 1, 2), (1, 3, 8), (2, 3, 15), (2, 10, 2047)]
)
def test_receptive_field(num_blocks, layers_per_block, expected):
    assert receptive_field(num_blocks, layers_per_block) == expected
    if layers_per_block < 10:
        model = random_model(None, num_blocks, layers_per_block)
        network = keras.Model(model.get_layer("embedding").output, model.output)
        length = 2 * expected
        x = tf.random.normal((2, length, 4), seed=0)
        with tf.GradientTape() as tape:
            tape.watch(x)
            logits = network(x)[..., 3]  # (2, length)
        depends = np.abs(tape.batch_jacobian(logits, x)).max(axis=(0, 3)) > 0  # of i by j
        # On itself and on the `expected` - 1 before it, and on nothing that comes later.
        band = np.tri(length, dtype=bool) & ~np.tri(length, k=-expected, dtype=bool)
        assert np.array_equal(depends, band)


@pytest.mark.parametrize("num_classes", [None, 3])
def test_logits_are_those_of_the_definition(num_classes):
    model = random_model(num_classes)
    levels, label = random_levels(1, 20), 2
    x = model.embedding.get_weights()[0][levels[0]].astype("float64")
    total = 0.0
    for i, layer in enumerate(model.dilated_layers):
        dilation = 2 ** (i % 3)
        (kernel, bias), (out, out_bias) = layer.filter.get_weights(), layer.outwards.get_weights()
        told = 0.0 if num_classes is None else layer.condition.get_weights()[0][label]
        before = np.concatenate([np.zeros((dilation, 4)), x[:-dilation]])
        gates = before @ kernel[:4] + x @ kernel[4:] + bias + told
        gated = np.tanh(gates[:, :4]) / (1 + np.exp(-gates[:, 4:])) @ out + out_bias
        x, total = x + gated[:, :4], total + gated[:, 4:]
    (hidden, hidden_bias), (head, head_bias) = model.hidden.get_weights(), model.head.get_weights()
    expected = np.maximum(np.maximum(total, 0) @ hidden + hidden_bias, 0) @ head + head_bias
    logits = model(levels if num_classes is None else [levels, np.array([label])])
    np.testing.assert_allclose(logits[0], expected, atol=1e-4)


@pytest.mark.parametrize("num_classes", [None, 3])
def test_blocks_and_single_samples_read_as_the_whole_network_does(num_classes):
    model, levels = random_model(num_classes), random_levels(3, 40)
    labels = None if num_classes is None else np.array([0, 1, 2])
    expected = np.asarray(model(levels if labels is None else [levels, labels]))
    state, position = model.initial_state(3, 40, labels), 0
    for count, padding in ((1, 0), (1, 0), (3, 5), (16, 0), (2, 1), (1, 0), (6, 10), (1, 0)):
        block = np.pad(levels[:, position : position + count], ((0, 0), (0, padding)))
        length = count if padding else None
        logits, state = model.step(block, state, position, length)
        np.testing.assert_allclose(
            logits[:, :count], expected[:, position : position + count], atol=1e-4
        )
        position += count


def naive(model, num_steps, labels, seed, sampler):
    """Run the whole network on the whole sound for each sample."""
    levels = np.full((len(labels), 1), 8, "int32")
    uniform = np.random.default_rng(seed).random((num_steps, len(labels)), "float32")
    for numbers in uniform:
        inputs = levels if model.num_classes is None else [levels, np.array(labels)]
        drawn = autoregressive.sample(model(inputs)[:, -1], numbers, sampler)
        levels = np.concatenate([levels, np.asarray(drawn)[:, None]], axis=1)
    return audio.mu_law_decode(levels[:, 1:], 16)


@pytest.mark.parametrize(
    "sampler, num_classes", [(Sampler(), None), (Sampler(0.7, top_p=0.9), 3), (GREEDY, 3)]
)
def test_generate_equals_naive_sampling(num_classes, sampler):
    model = random_model(num_classes)
    labels = [0, 1, 2]
    expected = naive(model, 50, labels, 7, autoregressive._check_sampler(sampler))
    sounds = model.generate(3, 50, None if num_classes is None else labels, 7, sampler)
    assert sounds.dtype == "float32" and np.abs(sounds).max() <= 1
    np.testing.assert_array_equal(sounds, expected)


def test_the_likelihood_is_that_of_each_sample_given_all_before_it():
    model = random_model(3)
    sounds = [np.sin(np.arange(n) / 3) for n in (9, 40)]
    sums, samples = model.log_prob(sounds, [2, 1])
    for sound, label, total, nats in zip(sounds, [2, 1], sums, samples):
        levels = np.append(8, audio.mu_law_encode(sound, 16))
        logits = np.asarray(model([levels[None, :-1], np.array([label])]))[0].astype("float64")
        log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        expected = log_probs[np.arange(len(sound)), levels[1:]]
        np.testing.assert_allclose(nats, expected, atol=1e-4)
        assert total == pytest.approx(expected.sum(), rel=1e-4)
    whole, _ = model.log_prob(np.stack([sounds[0]] * 2), 2)
    np.testing.assert_allclose(whole, sums[0], rtol=1e-5)


def test_the_state_does_not_grow_with_the_sound():
    model = build_wavenet()
    for max_length in (100, 100_000):
        state = model.initial_state(2, max_length)
        numbers = sum(tensor.numpy().size for tensor in keras.tree.flatten(state))
        assert numbers == 2 * 2046 * 32  # 1 + 2 + … + 512, twice


def test_padding_does_not_train():
    levels = random_levels(4, 31)
    x, y = levels[:, :-1], levels[:, 1:].copy()
    results = []
    y[:, 20:] = -1
    for cut in (30, 20):  # what is ignored might as well not be there
        keras.utils.set_random_seed(0)
        model = build_wavenet(16, 1, 3, 4, 6)
        RECIPES["article3-wavenet"].compile(model, steps=10)
        model.fit(x[:, :cut], y[:, :cut], verbose=0)
        results.append(model.get_weights())
    assert largest_difference(*results) < 1e-6


def test_a_label_decides_the_sound():
    # Three kinds of sound, each a level that goes on: only the label can tell the first one.
    y = np.repeat([[3], [7], [12]], 20, axis=1)
    x = np.concatenate([np.full((3, 1), 8), y[:, :-1]], axis=1)
    model = build_wavenet(16, 1, 2, 8, 8, num_classes=3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02), loss, jit_compile=False)
    model.fit([x, np.arange(3)], y, epochs=60, verbose=0)
    sounds = model.generate(3, 10, [2, 0, 1], sampler=GREEDY)
    expected = audio.mu_law_decode(y[[2, 0, 1], :10], 16)
    np.testing.assert_array_equal(sounds, expected)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_levels": 1}, "num_levels: expected a whole number of at least 2, got 1"),
        ({"num_blocks": 0}, "num_blocks: expected"),
        ({"layers_per_block": 0}, "layers_per_block: expected"),
        ({"num_filters": 1.5}, "num_filters: expected"),
        ({"num_skip": 0}, "num_skip: expected"),
        ({"num_classes": 1}, "num_classes: expected"),
        ({"sample_rate": 0}, "sample_rate: expected"),
    ],
)
def test_bad_sizes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_wavenet(**arguments)


def test_bad_levels_labels_and_sounds_are_named():
    model = random_model(3)
    model.compile("adam", "sparse_categorical_crossentropy")
    x = random_levels(2, 9)
    for call, message in (
        (lambda: model.fit([x + 10, np.zeros(2, int)], x), "x: expected levels from 0 to 15"),
        (lambda: model.fit([x, np.zeros(2, int)], x - 9), "y: expected levels from 0 to 15"),
        (lambda: model.fit([x, np.array([0, 3])], x), "labels: expected integers from 0 to 2"),
        (lambda: model.fit(x, x), "labels: expected integers from 0 to 2, got None"),
        (lambda: model.fit([x[0], np.zeros(2, int)], x), r"x: expected levels \(batch, n\)"),
        (lambda: model.generate(2, 5), "labels: expected integers from 0 to 2, got None"),
        (lambda: model.generate(2, 0, 1), "num_steps: expected"),
        (lambda: model.generate(0, 5, 1), "num_samples: expected"),
        (lambda: model.log_prob(x[0] / 16, 0), r"waveform: expected \(batch, n\) or a list of arr"),
        (lambda: model.log_prob([], 0), r"waveform: expected \(batch, n\) or a list of arrays"),
        (lambda: model.log_prob(x + 0.5, 0), r"waveform: expected values in \[-1, 1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
