"""Recurrent networks: against NumPy by hand, and what training them promises."""

import keras
import numpy as np
import pytest

from keras_genai.autoregressive import GREEDY
from keras_genai.inputs import Dropout
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


def by_hand(cell, weights, x):
    """One layer over x (n, features) in NumPy: hidden states (n, units)."""
    kernel, recurrent, bias = weights
    units, states = recurrent.shape[0], []
    h = c = np.zeros(units)
    for row in x:
        if cell == "simple_rnn":
            h = np.tanh(row @ kernel + h @ recurrent + bias)
        elif cell == "lstm":
            i, f, g, o = np.split(row @ kernel + h @ recurrent + bias, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        else:  # the reset gate after the product, with a bias of its own
            z, r, g = np.split(row @ kernel + bias[0], 3)
            z_h, r_h, g_h = np.split(h @ recurrent + bias[1], 3)
            z, r = sigmoid(z + z_h), sigmoid(r + r_h)
            h = z * h + (1 - z) * np.tanh(g + r * g_h)
        states.append(h)
    return np.array(states)


def randomize(model):
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(scale=0.4, size=w.shape) for w in model.get_weights()])


@pytest.mark.parametrize("cell", CELLS)
def test_language_model_against_numpy(cell):
    model = build_language_model(7, cell, embed_dim=5, units=6, num_layers=2, dropout=0.5)
    randomize(model)
    tokens = [3, 1, 4, 1, 5, 6]
    embedding, *weights = model.get_weights()
    x = embedding[tokens]
    for layer in range(2):
        x = by_hand(cell, weights[3 * layer : 3 * layer + 3], x)
    kernel, bias = weights[6:]
    np.testing.assert_allclose(model(np.array([tokens]))[0], x @ kernel + bias, atol=1e-5)


def test_the_output_of_every_layer_is_dropped_in_training():
    tokens = np.zeros((1, 1), "int32")
    for num_layers in (1, 2):
        model = build_language_model(7, "gru", 5, 400, num_layers=num_layers, dropout=0.5)
        drawn = [layer for layer in model.layers if isinstance(layer, Dropout)]
        assert len(drawn) == num_layers
        randomize(model)
        model.head.set_weights([np.ones((400, 7)), np.zeros(7)])  # the sum of what is left
        # Below the head, half of the outputs is 0, the other half twice as large.
        found = {float(model(tokens, training=True)[0, 0, 0]) for _ in range(3)}
        assert len(found) == 3 and float(model(tokens)[0, 0, 0]) not in found


def test_gates_against_numpy_and_keras():
    tokenizer = CharacterTokenizer("abc")
    model = build_language_model(3, "lstm", 4, 5, num_layers=2, tokenizer=tokenizer)
    randomize(model)
    gates = lstm_gates(model, "abcab")
    assert all(values.shape == (5, 5) for values in gates.values())
    hidden, _, cell = model.recurrent[0](model.embedding(tokenizer.encode("abcab")[None]))
    np.testing.assert_allclose(gates["cell"][-1], cell[0], atol=1e-5)
    np.testing.assert_allclose(gates["output"] * np.tanh(gates["cell"]), hidden[0], atol=1e-5)
    kept = gates["forget"][1:] * gates["cell"][:-1]
    assert np.all(np.abs(gates["cell"][1:] - kept) <= gates["input"][1:] + 1e-6)
    with pytest.raises(ValueError, match="model: expected cells with gates"):
        lstm_gates(build_language_model(3, "gru", 4, 5, tokenizer=tokenizer), "abc")
    with pytest.raises(ValueError, match="model: expected one with a tokenizer"):
        lstm_gates(build_language_model(3, "lstm", 4, 5), "abc")


def test_gradient_norms_against_differences():
    model = build_language_model(5, "simple_rnn", embed_dim=3, units=4)
    randomize(model)
    tokens, target = np.array([[0, 1, 2, 3]]), np.array([4])
    # Four different tokens: the gradient at a place is that of a row of the embedding.
    weights, step = model.get_weights(), 1e-2
    numeric = np.zeros((4, 3))
    for place, k in np.ndindex(4, 3):
        losses = []
        for sign in (1, -1):
            moved = [w.copy() for w in weights]
            moved[0][place, k] += sign * step
            model.set_weights(moved)
            logits = model(tokens)[:, -1]
            losses.append(keras.losses.sparse_categorical_crossentropy(target, logits, True))
        numeric[place, k] = (losses[0] - losses[1])[0] / (2 * step)
    model.set_weights(weights)
    expected = np.linalg.norm(numeric, axis=1)
    np.testing.assert_allclose(gradient_norms(model, tokens, target), expected, rtol=1e-2)


def test_number_of_parameters():
    model = build_language_model(82)
    assert model.count_params() == 82 * 256 + 4 * 512 * (256 + 512 + 1) + 512 * 82 + 82
    simple = build_language_model(82, "simple_rnn", units=1113)
    assert simple.count_params() == pytest.approx(model.count_params(), rel=1e-3)


def test_a_language_model_learns_what_follows():
    tokens = np.tile(np.arange(5), 60)[: 12 * 21].reshape(12, 21)
    model = build_language_model(5, "lstm", 8, 16)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02, global_clipnorm=1.0), loss)
    model.fit(tokens[:, :-1], tokens[:, 1:], epochs=40, verbose=0)
    assert model.generate(np.array([[3, 4]]), 10, GREEDY).tolist() == [
        [3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    ]


@pytest.mark.parametrize("cell", CELLS)
def test_forecaster_follows_the_place_and_the_scale_of_its_window(cell):
    model = build_forecaster(12, 3, cell, units=8)
    past = np.random.default_rng(0).normal(size=(4, 12)).astype("float32")
    future = model.predict(past, verbose=0)
    assert future.shape == (4, 3)
    np.testing.assert_allclose(
        model.predict(50 * past + 1000, verbose=0), 50 * future + 1000, rtol=1e-4
    )
    constant = model.predict(np.full((1, 12), 7.0), verbose=0)
    np.testing.assert_allclose(constant, 7.0, atol=1e-4)


def test_forecaster_learns_a_wave_on_a_slope():
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
        (lambda: build_language_model(5, dropout=1.0), "dropout: expected a share from 0"),
        (lambda: build_language_model(5, num_layers=0), "num_layers: expected a whole number"),
        (lambda: build_forecaster(1), "window: expected a whole number of at least 2, got 1"),
        (lambda: build_forecaster(9, 0), "horizon: expected a whole number of at least 1"),
        (lambda: build_forecaster(9, cell="x"), "cell: expected one of"),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()
