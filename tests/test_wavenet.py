"""WaveNet: receptive field by gradient, buffers and samples against the whole network."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import largest_difference, set_random_weights

from keras_genai import audio, autoregressive
from keras_genai.autoregressive import GREEDY, Sampler
from keras_genai.experiments import EXPERIMENTS
from keras_genai.wavenet import ResidualBlock, build_wavenet, receptive_field


def random_model(num_classes=None, num_blocks=2, layers_per_block=3, quantization_channels=16):
    model = build_wavenet(quantization_channels, num_blocks, layers_per_block, 4, 6, num_classes)
    return set_random_weights(model, scale=0.5)


def random_levels(num_sounds, length, quantization_channels=16):
    rng = np.random.default_rng(1)
    return rng.integers(quantization_channels, size=(num_sounds, length)).astype("int32")


@pytest.mark.slow
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
        depends = np.abs(tape.batch_jacobian(logits, x)).max(axis=(0, 3)) > 0  # output by input
        # The current sample and the `expected` - 1 before it; no later one.
        band = np.tri(length, dtype=bool) & ~np.tri(length, k=-expected, dtype=bool)
        assert np.array_equal(depends, band)


@pytest.mark.parametrize("num_classes", [None, 3])
def test_logits_equal_the_equations_in_numpy(num_classes):
    model = random_model(num_classes)
    levels, label = random_levels(1, 20), 2
    x = model.embedding.get_weights()[0][levels[0]].astype("float64")
    skip_sum = 0.0
    for i, block in enumerate(model.residual_blocks):
        dilation = 2 ** (i % 3)
        kernel, bias = block.gate_dense.get_weights()
        output_kernel, output_bias = block.residual_and_skip.get_weights()
        if num_classes is not None:
            bias = bias + block.label_projection.get_weights()[0][label]
        past = np.concatenate([np.zeros((dilation, 4)), x[:-dilation]])
        gates = past @ kernel[:4] + x @ kernel[4:] + bias
        output = np.tanh(gates[:, :4]) / (1 + np.exp(-gates[:, 4:])) @ output_kernel + output_bias
        x, skip_sum = x + output[:, :4], skip_sum + output[:, 4:]
    (hidden, hidden_bias), (head, head_bias) = model.hidden.get_weights(), model.head.get_weights()
    relu = np.maximum(skip_sum, 0)
    expected = np.maximum(relu @ hidden + hidden_bias, 0) @ head + head_bias
    logits = model(levels if num_classes is None else [levels, np.array([label])])
    np.testing.assert_allclose(logits[0], expected, atol=1e-4)


@pytest.mark.parametrize("num_classes", [None, 3])
def test_step_on_blocks_and_single_samples_equals_the_whole_network(num_classes):
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


def generate_uncached(model, length, labels, seed, sampler):
    """Run the whole network on the whole sound for each sample."""
    levels = np.full((len(labels), 1), 8, "int32")
    uniform = np.random.default_rng(seed).random((length, len(labels)), "float32")
    for numbers in uniform:
        inputs = levels if model.num_classes is None else [levels, np.array(labels)]
        next_levels = autoregressive.sample(model(inputs)[:, -1], numbers, sampler)
        levels = np.concatenate([levels, np.asarray(next_levels)[:, None]], axis=1)
    return audio.mu_law_decode(levels[:, 1:], 16)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sampler, num_classes", [(Sampler(), None), (Sampler(0.7, top_p=0.9), 3), (GREEDY, 3)]
)
def test_generate_equals_uncached_sampling(num_classes, sampler):
    model = random_model(num_classes)
    labels = [0, 1, 2]
    expected = generate_uncached(model, 50, labels, 7, autoregressive.check_sampler(sampler))
    sounds = model.generate(
        3, None if num_classes is None else labels, length=50, sampler=sampler, seed=7
    )
    assert sounds.dtype == "float32" and np.abs(sounds).max() <= 1
    np.testing.assert_array_equal(sounds, expected)


def test_generated_sounds_last_one_second_by_default():
    model = build_wavenet(16, 1, 2, 4, 6, sample_rate=100)
    sounds = model.generate(2, seed=0)
    assert sounds.shape == (2, 100)
    np.testing.assert_array_equal(sounds, model.generate(2, length=100, seed=0))


def test_log_prob_equals_the_log_softmax_of_the_whole_network():
    model = random_model(3)
    sounds = [np.sin(np.arange(n) / 3) for n in (9, 40)]
    sums, samples = model.log_prob(sounds, [2, 1])
    for sound, label, total, log_probs in zip(sounds, [2, 1], sums, samples, strict=True):
        levels = np.append(8, audio.mu_law_encode(sound, 16))
        logits = np.asarray(model([levels[None, :-1], np.array([label])]))[0].astype("float64")
        log_softmax = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        expected = log_softmax[np.arange(len(sound)), levels[1:]]
        np.testing.assert_allclose(log_probs, expected, atol=1e-4)
        assert total == pytest.approx(expected.sum(), rel=1e-4)
    batch_sums, _ = model.log_prob(np.stack([sounds[0]] * 2), 2)
    np.testing.assert_allclose(batch_sums, sums[0], rtol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_precision_of_a_residual_block_is_that_of_all_layers_inside(policy):
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    block = ResidualBlock(4, 6, 2, dtype=policy)
    outputs = block(x)
    assert {layer.dtype_policy.name for layer in block._flatten_layers()} == {policy}
    assert {output.dtype.name for output in outputs} == {policy.removeprefix("mixed_")}


def test_state_size_does_not_depend_on_the_length():
    model = build_wavenet()
    for max_length in (100, 100_000):
        state = model.initial_state(2, max_length)
        state_size = sum(tensor.numpy().size for tensor in keras.tree.flatten(state))
        assert state_size == 2 * 2046 * 32  # 1 + 2 + … + 512, twice


@pytest.mark.slow
def test_padding_targets_do_not_change_training():
    levels = random_levels(4, 31)
    x, y = levels[:, :-1], levels[:, 1:].copy()
    results = []
    y[:, 20:] = -1
    for length in (30, 20):  # with the padding, and without
        keras.utils.set_random_seed(0)
        model = build_wavenet(16, 1, 3, 4, 6)
        EXPERIMENTS["article3-wavenet"].compile(model, steps=10)
        model.fit(x[:, :length], y[:, :length], verbose=0)
        results.append(model.get_weights())
    assert largest_difference(*results) < 1e-6


@pytest.mark.slow
def test_labels_condition_the_generated_sounds():
    # Three classes of constant level: only the label determines the first sample.
    y = np.repeat([[3], [7], [12]], 20, axis=1)
    x = np.concatenate([np.full((3, 1), 8), y[:, :-1]], axis=1)
    model = build_wavenet(16, 1, 2, 8, 8, num_classes=3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02), loss, jit_compile=False)
    model.fit([x, np.arange(3)], y, epochs=60, verbose=0)
    sounds = model.generate(3, [2, 0, 1], length=10, sampler=GREEDY)
    expected = audio.mu_law_decode(y[[2, 0, 1], :10], 16)
    np.testing.assert_array_equal(sounds, expected)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"quantization_channels": 1},
            "quantization_channels: expected a whole number of at least 2, got 1",
        ),
        ({"num_blocks": 0}, "num_blocks: expected"),
        ({"layers_per_block": 0}, "layers_per_block: expected"),
        ({"residual_channels": 1.5}, "residual_channels: expected"),
        ({"skip_channels": 0}, "skip_channels: expected"),
        ({"num_classes": 1}, "num_classes: expected"),
        ({"sample_rate": 0}, "sample_rate: expected"),
    ],
)
def test_invalid_sizes_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_wavenet(**arguments)


@pytest.fixture(scope="module")
def conditional_model():
    model = random_model(3)
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


LEVELS = random_levels(2, 9)
LABELS = np.zeros(2, int)


@pytest.mark.parametrize(
    "method, args, kwargs, message",
    [
        ("fit", [[LEVELS + 10, LABELS], LEVELS], {}, "x: expected levels from 0 to 15"),
        ("fit", [[LEVELS, LABELS], LEVELS - 9], {}, "y: expected levels from 0 to 15"),
        (
            "fit",
            [[LEVELS, np.array([0, 3])], LEVELS],
            {},
            "labels: expected integers from 0 to 2",
        ),
        ("fit", [LEVELS, LEVELS], {}, "labels: expected integers from 0 to 2, got None"),
        ("fit", [[LEVELS[0], LABELS], LEVELS], {}, r"x: expected levels \(batch, n\)"),
        ("generate", [2], {"length": 5}, "labels: expected integers from 0 to 2, got None"),
        ("generate", [2, 1], {"length": 0}, "length: expected"),
        ("generate", [0, 1], {"length": 5}, "num_samples: expected"),
        (
            "log_prob",
            [LEVELS[0] / 16, 0],
            {},
            r"waveform: expected \(batch, n\) or a list of arrays",
        ),
        ("log_prob", [[], 0], {}, r"waveform: expected \(batch, n\) or a list of arrays"),
        ("log_prob", [LEVELS + 0.5, 0], {}, r"waveform: expected values in \[-1, 1\]"),
    ],
)
def test_invalid_levels_labels_and_sounds_raise(conditional_model, method, args, kwargs, message):
    with pytest.raises(ValueError, match=message):
        getattr(conditional_model, method)(*args, **kwargs)
