"""Article 1's Sequential model: padding, causality, the stock loss."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import add_random_noise

from keras_genai import attention, seq2seq, transformer
from keras_genai.transformer import build_transformer

TOKENS = np.array([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 0, 0, 0, 0], [10, 0, 0, 0, 0, 0, 0]])


def small_transformer(**config):
    model = build_transformer(11, 6, 20, num_layers=2, d_model=8, num_heads=2, dff=12, **config)
    add_random_noise(model)
    return model


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("pooling", [None, "mean"])
def test_padding_does_not_change_the_output(causal, pooling):
    model = small_transformer(causal=causal, pooling=pooling)
    output, wider = np.asarray(model(TOKENS)), np.asarray(model(np.pad(TOKENS, [[0, 0], [0, 9]])))
    assert output.shape == ((3, 6) if pooling else (3, 7, 6))
    np.testing.assert_allclose(output.sum(axis=-1), 1, rtol=1e-5)
    for row, length in enumerate([7, 3, 1]):
        alone = np.asarray(model(TOKENS[row : row + 1, :length]))[0]
        valid = ... if pooling else slice(length)
        np.testing.assert_allclose(output[row][valid], alone, atol=1e-5)
        np.testing.assert_allclose(wider[row][valid], alone, atol=1e-5)


@pytest.mark.parametrize("causal, pooling", list(itertools.product([False, True], [None, "mean"])))
def test_row_of_padding_gives_finite_outputs_and_gradients(causal, pooling):
    model = small_transformer(causal=causal, pooling=pooling)
    with tf.GradientTape() as tape:
        output = model(np.concatenate([TOKENS, 0 * TOKENS[:1]]))
        total = tf.reduce_sum(output**2)
    assert np.isfinite(output).all()
    for gradient in tape.gradient(total, model.trainable_variables):
        assert np.isfinite(tf.convert_to_tensor(gradient)).all()


def test_outputs_of_the_causal_model_alone_are_independent_of_later_tokens():
    tokens = np.array([[1, 7, 8, 4, 9, 3]])
    causal, bidirectional = small_transformer(causal=True), small_transformer()
    for i in (0, 3, 5):
        changed = tokens.copy()
        changed[:, i] = 5
        difference = np.abs(np.asarray(causal(changed)) - causal(tokens)).max(axis=-1)
        assert np.all(difference[:, :i] < 1e-6) and np.all(difference[:, i:] > 1e-5)
        difference = np.abs(np.asarray(bidirectional(changed)) - bidirectional(tokens))
        assert np.all(difference.max(axis=-1) > 1e-5)


def test_stock_loss_ignores_padding():
    model = small_transformer()
    model.compile(loss="sparse_categorical_crossentropy", run_eagerly=True)
    labels = np.where(TOKENS == 0, 0, TOKENS % 6)
    probabilities = np.take_along_axis(np.asarray(model(TOKENS)), labels[..., None], -1)[..., 0]
    loss = model.evaluate(TOKENS, labels, verbose=0)
    assert loss == pytest.approx(-np.log(probabilities)[TOKENS != 0].mean(), rel=1e-5)


PADDED = np.array([[5, 6, 7, 8, 0, 0], [5, 6, 7, 8, 9, 10], [3, 0, 0, 0, 0, 0]])


@pytest.mark.parametrize("sample_weight", [None, "sequences", "tokens"])
@pytest.mark.parametrize(
    "loss",
    [
        "sparse_categorical_crossentropy",
        keras.losses.SparseCategoricalCrossentropy(ignore_class=0),
        keras.losses.CategoricalCrossentropy(),
    ],
    ids=["name", "ignore_class", "categorical"],
)
def test_padding_labels_do_not_count_in_a_language_model(loss, sample_weight):
    model = build_transformer(11, 11, 12, 1, 8, 2, 12, causal=True)
    add_random_noise(model)
    one_hot = isinstance(loss, keras.losses.CategoricalCrossentropy)
    accuracy = keras.metrics.CategoricalAccuracy if one_hot else "accuracy"
    metric = accuracy(name="accuracy") if one_hot else accuracy
    model.compile("adam", loss, weighted_metrics=[metric], run_eagerly=True)
    x, labels = PADDED[:, :-1], PADDED[:, 1:]
    probabilities = np.asarray(model(x), "float64")
    losses = -np.log(np.take_along_axis(probabilities, labels[..., None], axis=-1))[..., 0]
    weights = {
        None: None,
        "sequences": np.array([1.0, 0.5, 3.0]),
        "tokens": np.random.default_rng(0).random((3, 5)),
    }[sample_weight]
    mask = labels != 0
    weighted = mask * (1.0 if weights is None else weights.reshape(3, -1))
    y = np.eye(11)[labels] if one_hot else labels
    logs = model.test_on_batch(x, y, sample_weight=weights, return_dict=True)
    assert logs["loss"] == pytest.approx((losses * weighted).sum() / mask.sum(), rel=1e-4)
    correct = probabilities.argmax(axis=-1) == labels
    if weights is not None:
        assert logs["accuracy"] == pytest.approx(np.average(correct, weights=weighted), abs=1e-5)


def test_the_label_that_the_loss_ignores_does_not_count_in_the_metrics():
    model = build_transformer(11, 6, 12, 1, 8, 2, 12)
    add_random_noise(model)
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=-100)
    model.compile("adam", loss, weighted_metrics=["accuracy"], run_eagerly=True)
    x, labels = np.array([[3, 4, 5, 6], [7, 8, 9, 10]]), np.array([[0, 1, 2, 3], [4, 5, 0, 1]])
    ignored = np.array([[0, 0, 1, 1], [0, 1, 1, 1]], bool)
    probabilities = np.asarray(model(x), "float64")
    losses = -np.log(np.take_along_axis(probabilities, labels[..., None], axis=-1))[..., 0]
    correct = probabilities.argmax(axis=-1) == labels
    logs = model.evaluate(x, np.where(ignored, -100, labels), verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(losses[~ignored].mean(), rel=1e-5)
    assert logs["accuracy"] == pytest.approx(correct[~ignored].mean())


def test_a_loss_of_logits_is_refused_for_probabilities():
    model = small_transformer()
    logits_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for loss in (transformer.MaskedCrossentropy(), logits_loss):
        with pytest.raises(ValueError, match="loss: expected one of probabilities, .* of logits"):
            model.compile("adam", loss)
    model.pop()
    model.add(keras.layers.Dense(6))
    model.compile("adam", transformer.MaskedCrossentropy())
    model.add(keras.layers.Softmax())
    with pytest.raises(ValueError, match="loss: expected one of probabilities"):
        model.compile("adam", transformer.MaskedCrossentropy())
    transformer.SequentialTransformer().compile("adam", "mse")  # layers may follow


@pytest.mark.parametrize("ignore_class", [None, -100])
def test_labels_with_an_axis_of_size_1_count_like_those_without(ignore_class):
    model = build_transformer(11, 11, 12, 1, 8, 2, 12, causal=True)
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=ignore_class)
    model.compile("adam", loss, metrics=["accuracy"], run_eagerly=True)
    x, y = np.array([[3, 4, 5, 6], [7, 8, 9, 10]]), np.array([[4, 5, 6, 0], [8, 9, 10, 2]])
    y = y if ignore_class is None else np.where(y == 2, ignore_class, y)
    expected = model.evaluate(x, y, verbose=0)
    assert model.evaluate(x, y[..., None], verbose=0) == pytest.approx(expected)
    assert expected[0] > 0


def test_label_0_counts_as_a_class_outside_of_language_models():
    for config in ({"causal": False}, {"causal": True}):
        model = build_transformer(11, 6, 12, 1, 8, 2, 12, **config)
        assert not model.is_language_model
        model.compile(loss="sparse_categorical_crossentropy", run_eagerly=True)
        x = np.array([[3, 4, 5, 6]])
        loss = model.evaluate(x, 0 * x, verbose=0)
        assert loss == pytest.approx(-np.log(np.asarray(model(x))[..., 0]).mean(), rel=1e-5)


@pytest.mark.slow
def test_language_model_of_padded_texts_does_not_generate_padding():
    short, long = np.tile([5, 6, 7, 8, 0, 0, 0], (32, 1)), np.tile(np.arange(5, 12), (32, 1))
    tokens = np.concatenate([short, long])
    model = build_transformer(12, 12, 12, 1, 16, 2, 32, dropout=0.0, causal=True)
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
    model.fit(tokens[:, :-1], tokens[:, 1:], epochs=30, verbose=0)
    probabilities = model.predict(np.array([[5, 6, 7, 8]]), verbose=0)[0, -1]
    assert probabilities[0] < 0.05 and probabilities[9] > 0.9


def test_one_hot_labels_and_changed_layers_are_valid():
    model = small_transformer(pooling="mean")
    model.compile("adam", "categorical_crossentropy", run_eagerly=True)
    model.train_on_batch(TOKENS, np.eye(6)[[0, 1, 2]])
    model.pop()
    model.add(keras.layers.Dense(3, activation="softmax"))
    model.compile("adam", "sparse_categorical_crossentropy", run_eagerly=True)
    model.train_on_batch(TOKENS, np.array([[0], [1], [2]]))
    with pytest.raises(ValueError, match="y: expected labels from 0 to 2, got values from 3 to 3"):
        model.train_on_batch(TOKENS, np.full(3, 3))
    copied = transformer.SequentialTransformer.from_config(model.get_config())
    assert type(copied) is type(model) and copied.output_shape == (None, 3)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: build_transformer(0, 5, 9), "vocab_size: expected a whole number"),
        (lambda: build_transformer(5, 0, 9), "output_vocab_size: expected a whole number"),
        (lambda: build_transformer(5, 5, 0), "max_seq_length: expected a whole number"),
        (lambda: build_transformer(5, 5, 9, 0), "num_layers: expected a whole number"),
        (lambda: build_transformer(5, 5, 9, 1, 7, 1), "d_model: expected an even number, got 7"),
        (lambda: build_transformer(5, 5, 9, 1, 8, 3), "d_model: expected a multiple of num_heads"),
        (lambda: build_transformer(5, 5, 9, 1, 8, 0), "num_heads: expected a whole number"),
        (lambda: build_transformer(5, 5, 9, 1, 8, 2, 0), "dff: expected a whole number"),
        (lambda: build_transformer(5, 5, 9, dropout=-0.1), "dropout: expected a fraction from 0"),
        (lambda: build_transformer(5, 5, 9, pooling="max"), "pooling: expected one of None, 'me"),
    ],
)
def test_invalid_arguments_raise(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_module_exports_the_public_names_of_its_parts():
    for module in (attention, seq2seq):
        names = {
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
        }
        assert names and names <= set(transformer.__all__)
    assert transformer.PAD_TOKEN_ID == seq2seq.PAD_TOKEN_ID == 0
    assert issubclass(transformer.MaskedGlobalAveragePooling1D, keras.layers.Layer)
    assert all(hasattr(transformer, name) for name in transformer.__all__)
