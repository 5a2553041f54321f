"""Recurrent networks: comparison with NumPy, and what training achieves."""

import keras
import numpy as np
import pytest
from helpers import set_random_weights

from keras_genai.autoregressive import GREEDY
from keras_genai.random_state import Dropout
from keras_genai.rnn import (
    CELLS,
    build_forecaster,
    build_language_model,
    gradient_norms,
    lstm_gates,
)
from keras_genai.text import CharacterTokenizer


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def recurrent_layer(cell, weights, x):
    """One layer applied to x (n, features) in NumPy: hidden states (n, units)."""
    kernel, recurrent_kernel, bias = weights
    units, states = recurrent_kernel.shape[0], []
    h = c = np.zeros(units)
    for row in x:
        if cell == "simple_rnn":
            h = np.tanh(row @ kernel + h @ recurrent_kernel + bias)
        elif cell == "lstm":
            i, f, g, o = np.split(row @ kernel + h @ recurrent_kernel + bias, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        else:  # the reset gate is applied after the product, which has its own bias
            z, r, g = np.split(row @ kernel + bias[0], 3)
            z_h, r_h, g_h = np.split(h @ recurrent_kernel + bias[1], 3)
            z, r = sigmoid(z + z_h), sigmoid(r + r_h)
            h = z * h + (1 - z) * np.tanh(g + r * g_h)
        states.append(h)
    return np.array(states)


@pytest.mark.parametrize("cell", CELLS)
def test_language_model_matches_numpy(cell):
    model = build_language_model(7, cell, embed_dim=5, units=6, num_layers=2, dropout=0.5)
    set_random_weights(model, scale=0.4)
    tokens = [3, 1, 4, 1, 5, 6]
    embedding, *weights = model.get_weights()
    x = embedding[tokens]
    for layer in range(2):
        x = recurrent_layer(cell, weights[3 * layer : 3 * layer + 3], x)
    kernel, bias = weights[6:]
    np.testing.assert_allclose(model(np.array([tokens]))[0], x @ kernel + bias, atol=1e-5)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_dropout_follows_every_recurrent_layer(num_layers):
    tokens = np.zeros((1, 1), "int32")
    model = build_language_model(7, "gru", 5, 400, num_layers=num_layers, dropout=0.5)
    assert sum(isinstance(layer, Dropout) for layer in model.layers) == num_layers
    set_random_weights(model, scale=0.4)
    model.lm_head.set_weights([np.ones((400, 7)), np.zeros(7)])  # the sum of its inputs
    # In training, half of the inputs are 0 and the others are doubled.
    sums = {float(model(tokens, training=True)[0, 0, 0]) for _ in range(3)}
    assert len(sums) == 3 and float(model(tokens)[0, 0, 0]) not in sums


def test_lstm_gates_match_keras():
    tokenizer = CharacterTokenizer("abc")
    model = build_language_model(3, "lstm", 4, 5, num_layers=2, tokenizer=tokenizer)
    set_random_weights(model, scale=0.4)
    gates = lstm_gates(model, "abcab")
    assert all(values.shape == (5, 5) for values in gates.values())
    hidden, _, cell = model.recurrent_layers[0](model.embedding(tokenizer.encode("abcab")[None]))
    np.testing.assert_allclose(gates["cell"][-1], cell[0], atol=1e-5)
    np.testing.assert_allclose(gates["output"] * np.tanh(gates["cell"]), hidden[0], atol=1e-5)
    kept = gates["forget"][1:] * gates["cell"][:-1]
    assert np.all(np.abs(gates["cell"][1:] - kept) <= gates["input"][1:] + 1e-6)


@pytest.mark.parametrize(
    "cell, has_tokenizer, message",
    [
        ("gru", True, "model: expected cell 'lstm', got 'gru'"),
        ("lstm", False, "model: expected one with a tokenizer"),
    ],
)
def test_lstm_gates_of_another_model_raise(cell, has_tokenizer, message):
    tokenizer = CharacterTokenizer("abc") if has_tokenizer else None
    model = build_language_model(3, cell, 4, 5, tokenizer=tokenizer)
    with pytest.raises(ValueError, match=message):
        lstm_gates(model, "abc")


def test_gradient_norms_match_finite_differences():
    model = build_language_model(5, "simple_rnn", embed_dim=3, units=4)
    set_random_weights(model, scale=0.4)
    tokens, target = np.array([[0, 1, 2, 3]]), np.array([4])
    # The tokens are distinct: the gradient at position i is that of row i of the embedding.
    weights, delta = model.get_weights(), 1e-2
    numeric = np.zeros((4, 3))
    for position, k in np.ndindex(4, 3):
        losses = []
        for sign in (1, -1):
            perturbed = [w.copy() for w in weights]
            perturbed[0][position, k] += sign * delta
            model.set_weights(perturbed)
            logits = model(tokens)[:, -1]
            losses.append(keras.losses.sparse_categorical_crossentropy(target, logits, True))
        numeric[position, k] = (losses[0] - losses[1])[0] / (2 * delta)
    model.set_weights(weights)
    expected = np.linalg.norm(numeric, axis=1)
    np.testing.assert_allclose(gradient_norms(model, tokens, target), expected, rtol=1e-2)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("cell", CELLS)
def test_forecaster_in_mixed_precision_is_close_to_float32(cell, policy):
    # Values beyond float16's maximum of 65,504.
    past = 1e5 * (1 + np.random.default_rng(0).random((3, 12)).astype("float32"))
    forecaster = set_random_weights(build_forecaster(12, 4, cell, 8))
    keras.config.set_dtype_policy(policy)
    mixed = set_random_weights(build_forecaster(12, 4, cell, 8))
    keras.config.set_dtype_policy("float32")
    output = np.asarray(mixed(past))
    assert output.dtype == "float32"
    np.testing.assert_allclose(output, forecaster(past), atol=0.03 * past.std())


def test_number_of_parameters():
    model = build_language_model(82)
    assert model.count_params() == 82 * 256 + 4 * 512 * (256 + 512 + 1) + 512 * 82 + 82
    simple = build_language_model(82, "simple_rnn", units=1113)
    assert simple.count_params() == pytest.approx(model.count_params(), rel=1e-3)


@pytest.mark.slow
def test_training_a_language_model_learns_a_periodic_sequence():
    tokens = np.tile(np.arange(5), 60)[: 12 * 21].reshape(12, 21)
    model = build_language_model(5, "lstm", 8, 16)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02, global_clipnorm=1.0), loss)
    model.fit(tokens[:, :-1], tokens[:, 1:], epochs=40, verbose=0)
    assert model.generate(np.array([[3, 4]]), 10, sampler=GREEDY).tolist() == [
        [3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    ]


@pytest.mark.parametrize("cell", CELLS)
def test_forecast_is_equivariant_to_offset_and_scale_of_the_window(cell):
    model = build_forecaster(12, 3, cell, units=8)
    past = np.random.default_rng(0).normal(size=(4, 12)).astype("float32")
    future = model.predict(past, verbose=0)
    assert future.shape == (4, 3)
    np.testing.assert_allclose(
        model.predict(50 * past + 1000, verbose=0), 50 * future + 1000, rtol=1e-4
    )
    constant = model.predict(np.full((1, 12), 7.0), verbose=0)
    np.testing.assert_allclose(constant, 7.0, atol=1e-4)


@pytest.mark.slow
def test_training_a_forecaster_on_a_sine_with_a_trend_beats_persistence():
    time = np.arange(400)
    series = (0.05 * time + np.sin(2 * np.pi * time / 20)).astype("float32")
    rows = np.lib.stride_tricks.sliding_window_view(series, 45)
    model = build_forecaster(40, 5, units=16)
    model.compile(keras.optimizers.Adam(0.01), loss="mae")
    model.fit(rows[:300, :40], rows[:300, 40:], epochs=15, verbose=0)
    error = np.abs(model.predict(rows[300:, :40], verbose=0) - rows[300:, 40:]).mean()
    persistence = np.abs(rows[300:, 39:40] - rows[300:, 40:]).mean()
    assert error < persistence / 4


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: build_language_model(0), "vocab_size: expected a whole number of at least 1"),
        (lambda: build_language_model(5, "elman"), "cell: expected one of 'simple_rnn', 'lstm'"),
        (lambda: build_language_model(5, dropout=1.0), "dropout: expected a fraction from 0"),
        (lambda: build_language_model(5, num_layers=0), "num_layers: expected a whole number"),
        (lambda: build_forecaster(1), "window: expected a whole number of at least 2, got 1"),
        (lambda: build_forecaster(9, 0), "horizon: expected a whole number of at least 1"),
        (lambda: build_forecaster(9, cell="x"), "cell: expected one of"),
    ],
)
def test_invalid_arguments_raise(build, message):
    with pytest.raises(ValueError, match=message):
        build()
