"""Recurrent networks: comparison with NumPy, and what training achieves."""

import keras
import numpy as np
import pytest
from helpers import set_random_weights

from keras_genai.autoregressive import GREEDY
from keras_genai.random_state import Dropout
from keras_genai.rnn import (
    CELLS,
    MAX_VALUE,
    Forecaster,
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
    constant = np.array([[7.0], [0.0], [1e-20], [-1e20]]) * np.ones(12)
    forecast = model.predict(constant, verbose=0)
    np.testing.assert_array_equal(forecast, constant[:, :3].astype("float32"))


def forecaster_data():
    """Windows `(64, 12)` of a noisy sine with a trend, and the 3 values that follow each."""
    time = np.arange(78)
    series = np.sin(time / 3) + 0.02 * time + np.random.default_rng(0).normal(0, 0.1, 78)
    rows = np.lib.stride_tricks.sliding_window_view(series, 15)
    return rows[:, :12], rows[:, 12:]


def trained_forecaster(past, future, loss="mae"):
    """A forecaster after some epochs, with its history; the seed is fixed."""
    keras.utils.set_random_seed(0)
    model = build_forecaster(12, 3, "simple_rnn", units=6)
    optimizer = keras.optimizers.Adam(0.02, global_clipnorm=1.0)
    model.compile(optimizer, loss, metrics=["mae"], run_eagerly=True)  # without compilation
    return model, model.fit(past, future, epochs=3, verbose=0).history


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["mae", "mse", "huber", "mape"])
def test_training_is_the_same_in_any_unit(loss):
    past, future = forecaster_data()
    model, history = trained_forecaster(past, future, loss)
    expected = model.predict(past, verbose=0)
    for unit in (1e-20, 1e-9, 1e9, 1e20, 2.0**110):
        model, scaled = trained_forecaster(unit * past, unit * future, loss)
        forecasts = model.predict(unit * past, verbose=0).astype("float64") / unit
        # A unit that is no power of 2 rounds the values anew.
        np.testing.assert_allclose(forecasts, expected, atol=1e-3, err_msg=f"{unit}")
        np.testing.assert_allclose(scaled["loss"], history["loss"], rtol=1e-4)
        np.testing.assert_allclose(np.divide(scaled["mae"], unit), history["mae"], rtol=1e-3)


@pytest.mark.parametrize("unit", [1e-20, 1.0, 1e20])
def test_loss_is_in_standard_deviations_of_the_window_and_metrics_are_in_its_unit(unit):
    past, future = (unit * part for part in forecaster_data())
    past[5:] = past[5, 0]  # constant windows, which have no loss
    weights = np.linspace(0, 2, len(past))
    model = build_forecaster(12, 3, "simple_rnn", units=4)
    for loss, power in (("mae", 1), ("mse", 2)):
        model.compile("adam", loss, metrics=["mae"], run_eagerly=True)
        result = model.evaluate(past, future, 16, 0, weights, return_dict=True)
        errors = np.abs(model.predict(past, verbose=0) - future)
        losses = ((errors[:5] / past[:5].std(axis=1, keepdims=True)) ** power).mean(axis=1)
        expected = (weights[:5] * losses).sum() / len(past)
        np.testing.assert_allclose(result["loss"], expected, rtol=1e-4)
        np.testing.assert_allclose(result["mae"] / unit, errors.mean() / unit, rtol=1e-4)


def test_constant_windows_do_not_change_training():
    past, future = forecaster_data()
    constant = np.full_like(past[:32], 5.0)
    sgd = keras.optimizers.SGD
    weights = []
    for rate, x, y in (
        (0.1, past[:32], future[:32]),
        (0.2, np.concatenate([past[:32], constant]), np.concatenate([future[:32], future[32:]])),
    ):
        keras.utils.set_random_seed(1)
        model = build_forecaster(12, 3, "simple_rnn", units=6)
        # The mean over twice as many windows halves the gradient.
        model.compile(sgd(rate), "mse", run_eagerly=True)
        model.fit(x, y, batch_size=64, epochs=2, verbose=0)
        weights.append(model.get_weights())
    for first, second in zip(*weights, strict=True):
        assert np.all(np.isfinite(first))
        np.testing.assert_allclose(first, second, atol=1e-6)


def test_targets_of_a_horizon_of_one_may_have_no_axis_for_it():
    past, future = forecaster_data()
    model = build_forecaster(12, cell="simple_rnn", units=4)
    model.compile("adam", "mae", run_eagerly=True)
    losses = [model.evaluate(past, y, verbose=0) for y in (future[:, 0], future[:, :1])]
    assert losses[0] == losses[1]
    assert losses[0] == pytest.approx(
        np.mean(np.abs(model.predict(past, verbose=0) - future[:, :1])[:, 0] / past.std(axis=1)),
        rel=1e-4,
    )


PAST, FUTURE = forecaster_data()


@pytest.mark.parametrize(
    "past, future, message",
    [
        (PAST[:, :11], FUTURE, r"x: expected shape \(n, 12\), got \(64, 11\)"),
        (PAST[..., None], FUTURE, r"x: expected shape \(n, 12\), got \(64, 12, 1\)"),
        (PAST[:0], FUTURE[:0], "x: expected at least one row, got an empty array"),
        (np.where(PAST > 1, np.nan, PAST), FUTURE, "x: expected finite numbers, got NaN"),
        (PAST.astype(str), FUTURE, "x: expected numbers, got an array of <U"),
        (PAST * 1e38, FUTURE, r"x: expected numbers of at most 4.25e\+37, got "),
        (list(PAST), FUTURE, "x: expected one array, got list"),
        (PAST, None, "y: expected one array, got NoneType"),
        (PAST, FUTURE[:, 0], r"y: expected shape \(n, 3\), got \(64,\)"),
        (PAST, FUTURE[:9], "y: expected 64 rows, as many as x, got 9"),
        (PAST, FUTURE - np.inf, "y: expected finite numbers, got NaN or infinity"),
        (PAST, FUTURE * 1e38, r"y: expected numbers of at most 4.25e\+37, got "),
    ],
)
def test_invalid_series_are_refused_by_name(past, future, message):
    model = build_forecaster(12, 3, units=4)
    model.compile("adam", "mae")
    before = model.get_weights()
    calls = [model.fit, model.evaluate, model.train_on_batch, model.test_on_batch]
    if message.startswith("x"):
        calls += [lambda x, _: model.predict(x), lambda x, _: model.predict_on_batch(x)]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call(past, future)
    assert all(map(np.array_equal, before, model.get_weights()))


def test_largest_valid_series_has_finite_forecasts():
    model = build_forecaster(12, 3, units=4)
    past = MAX_VALUE * np.where(np.arange(12) % 2, 1, -1)[None]
    assert np.all(np.isfinite(model.predict(past, verbose=0)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_forecasts_of_nan_weights_are_refused_by_name(value):
    model = build_forecaster(12, 3, units=4)
    model.get_layer("future").set_weights([np.full((4, 3), value), np.zeros(3)])
    for predict in (lambda: model.predict(PAST, verbose=0), lambda: model.predict_on_batch(PAST)):
        with pytest.raises(ValueError, match="forecaster: expected finite weights, got NaN"):
            predict()


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_saved_forecaster_keeps_its_class_precision_and_loss(policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    model, history = trained_forecaster(1e-20 * PAST, 1e-20 * FUTURE, "mse")
    keras.config.set_dtype_policy("float32")
    assert np.all(np.isfinite(history["loss"]))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert type(loaded) is Forecaster and loaded.dtype_policy.name == policy
    for part in (PAST, 1e20 * PAST):
        np.testing.assert_array_equal(loaded(part), model(part))
    data = PAST, FUTURE
    assert loaded.evaluate(*data, verbose=0) == model.evaluate(*data, verbose=0)


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
