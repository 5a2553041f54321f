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
