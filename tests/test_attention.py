"""Layers of the Transformer against NumPy: attention, encoder and decoder layers, positions."""

import itertools

import helpers as reference
import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import add_random_noise
from keras import ops

from keras_genai.attention import (
    CachedMultiHeadAttention,
    TransformerDecoderLayer,
    TransformerEncoderLayer,
    causal_mask,
)
from keras_genai.embeddings import (
    Embedding,
    PositionalEmbedding,
    ReversibleEmbedding,
    positional_encoding,
)

TOKENS = np.array([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 0, 0, 0, 0], [10, 0, 0, 0, 0, 0, 0]])


@pytest.mark.parametrize("num_heads, cross", [(1, False), (3, False), (3, True)])
def test_attention_against_numpy(num_heads, cross):
    rng = np.random.default_rng(1)
    x, context = (rng.normal(size=(2, n, 6)).astype("float32") for n in (4, 5))
    context = context if cross else x
    layer = CachedMultiHeadAttention(num_heads)
    layer.build(x.shape)
    add_random_noise(layer)
    random_mask = rng.random((2, 4, context.shape[1])) < 0.5
    random_mask[..., 0] = True
    for mask in (None, random_mask):
        expected, expected_scores = reference.attention(layer, x, context, mask)
        mask = None if mask is None else mask[:, None]
        output = layer(x, context, mask) if cross else layer(x, attention_mask=mask)
        np.testing.assert_allclose(output, expected, atol=1e-5)
        scores = layer(x, context, mask, return_attention_scores=True)[1]
        np.testing.assert_allclose(scores, expected_scores, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_fully_masked_row_is_finite_in_every_dtype(dtype):
    x = np.random.default_rng(0).normal(size=(1, 3, 4)).astype("float32")
    mask = np.array([[True, False, False], [True, True, False], [False, False, False]])
    layer = CachedMultiHeadAttention(2, dtype=dtype)
    output, scores = layer(x, attention_mask=mask, return_attention_scores=True)
    assert np.all(np.isfinite(np.asarray(ops.cast(output, "float32"))))
    scores = np.asarray(ops.cast(scores, "float32"))[0]
    assert np.all(scores[:, :2][:, ~mask[:2]] == 0)
    np.testing.assert_allclose(scores[:, 2], 1 / 3, atol=1e-2)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("kind", ["encoder", "decoder", "decoder without cross-attention"])
def test_layers_against_numpy(kind, norm_first):
    rng = np.random.default_rng(1)
    x, context = (rng.normal(size=(2, n, 6)).astype("float32") for n in (4, 5))
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], bool)
    context_mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool)
    causal = np.tril(np.ones((4, 4), bool))
    config = dict(dropout=0.5, norm_first=norm_first, layer_norm_epsilon=0.1)
    if kind == "encoder":
        layer = TransformerEncoderLayer(2, 7, **config)
        layer.build(x.shape)
        add_random_noise(layer)
        expected, _ = reference.transformer_layer(layer, x, mask=mask[:, None])
        np.testing.assert_allclose(layer(x, mask=mask), expected, atol=1e-5)
        np.testing.assert_allclose(layer(x), reference.transformer_layer(layer, x)[0], atol=1e-5)
        return
    layer = TransformerDecoderLayer(2, 7, cross_attention=kind == "decoder", **config)
    layer.build(x.shape)
    add_random_noise(layer)
    if kind == "decoder":
        inputs, masks = (x, context), (causal & mask[:, None], context_mask[:, None])
        expected, expected_scores = reference.transformer_layer(layer, *inputs, *masks)
        inputs = (x, context, mask, context_mask)
    else:
        expected, expected_scores = reference.transformer_layer(layer, x, None, causal)
        inputs = (x,)
    output, scores = layer(*inputs, return_attention_scores=True)
    np.testing.assert_allclose(output, expected, atol=1e-5)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)
    np.testing.assert_allclose(layer(*inputs), expected, atol=1e-5)


def test_attention_scores_are_outputs_of_a_functional_model():
    x, context = keras.Input((None, 6)), keras.Input((None, 6))
    outputs = TransformerDecoderLayer(2, 7)(x, context, return_attention_scores=True)
    assert [tuple(output.shape) for output in outputs] == [(None, None, 6), (None, 2, None, None)]
    output, scores = keras.Model([x, context], outputs)([np.ones((1, 4, 6)), np.ones((1, 5, 6))])
    assert output.shape == (1, 4, 6) and scores.shape == (1, 2, 4, 5)
    np.testing.assert_allclose(np.sum(scores, axis=-1), 1, rtol=1e-5)


@pytest.mark.parametrize("cross_attention", [False, True])
def test_cached_steps_of_a_decoder_layer_equal_its_call(cross_attention):
    rng = np.random.default_rng(1)
    x, context = (rng.normal(size=(2, n, 6)).astype("float32") for n in (4, 5))
    context_mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool)
    layer = TransformerDecoderLayer(2, 7, cross_attention=cross_attention)
    layer.build(x.shape)
    add_random_noise(layer)
    state, outputs = layer.initial_state(2, 6, context), []  # room for more than there is
    for start, stop in ((0, 2), (2, 3), (3, 4)):
        output, state = layer.step(x[:, start:stop], state, tf.constant(start), context_mask)
        outputs.append(output)
    expected = layer(x, context, context_mask=context_mask)
    np.testing.assert_allclose(np.concatenate(outputs, axis=1), expected, atol=1e-5)


def test_causal_mask_allows_keys_up_to_the_position_of_the_query():
    np.testing.assert_array_equal(causal_mask(4), np.tril(np.ones((4, 4), bool)))
    np.testing.assert_array_equal(causal_mask(2, 5, 1), np.tril(np.ones((5, 5), bool))[1:3])


def test_embedding_is_scaled_and_positions_are_added():
    layer = PositionalEmbedding(11, 9, 6)
    layer.build(TOKENS.shape)
    table = np.asarray(layer.embedding.embeddings)
    expected = reference.positional_embedding(table, TOKENS)
    np.testing.assert_allclose(layer(TOKENS), expected, atol=1e-5)
    # The same tokens from the third position on.
    np.testing.assert_allclose(layer(TOKENS[:, 3:], position=3), expected[:, 3:], atol=1e-5)
    np.testing.assert_array_equal(layer.compute_mask(TOKENS), TOKENS != 0)
    scaled = PositionalEmbedding(11, 9, 6, add_positions=False)
    scaled.build(TOKENS.shape)
    scaled.set_weights(layer.get_weights())
    np.testing.assert_allclose(scaled(TOKENS), 6**0.5 * table[TOKENS], atol=1e-5)
    # Unit variance, comparable with that of the positional encoding.
    wide = PositionalEmbedding(100, 9, 64, add_positions=False)
    assert np.std(wide(np.arange(100)[None])) == pytest.approx(1, rel=0.05)


def test_positions_beyond_the_longest_sequence_raise():
    layer = PositionalEmbedding(11, 4, 6)
    layer(np.full((1, 4), 3))
    with pytest.raises(ValueError, match="tokens: expected at most 4, as many as .*, got 5"):
        layer(np.full((1, 3), 3), position=2)


def test_compiled_with_xla_indices_outside_the_tables_give_nan():
    tokens = np.array([[0, 10, 3], [11, -1, 4]])
    invalid = (tokens < 0) | (tokens > 10)
    for layer in (Embedding(11, 6), ReversibleEmbedding(11, 6), PositionalEmbedding(11, 3, 6)):
        layer(np.zeros((1, 1), "int32"))
        vectors = tf.function(layer, jit_compile=True)(tokens)
        np.testing.assert_array_equal(np.isnan(vectors).all(axis=-1), invalid)
        np.testing.assert_array_equal(np.isnan(vectors).any(axis=-1), invalid)
    valid = np.full((1, 3), 4)
    shifted = tf.function(lambda position: layer(valid, position), jit_compile=True)
    np.testing.assert_array_equal(np.isnan(shifted(tf.constant(1)))[0, :, 0], [False, False, True])


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("tie_weights", [False, True])
def test_reversible_embedding_has_the_weights_and_logits_of_keras(tie_weights, quantized, tmp_path):
    x = np.random.default_rng(0).normal(size=(2, 3, 6)).astype("float32")
    layer = ReversibleEmbedding(11, 6, tie_weights)
    model = keras.Sequential([keras.Input((None,), dtype="int32"), layer])
    add_random_noise(model)
    table = np.asarray(layer.embeddings)
    kernel = table.T if tie_weights else np.asarray(layer.reverse_embeddings)
    if quantized:
        layer.quantize("int8")
    atol = 0.1 if quantized else 1e-5
    np.testing.assert_allclose(layer(TOKENS), table[TOKENS], atol=atol / 10)
    np.testing.assert_allclose(layer(x, reverse=True), x @ kernel, atol=atol)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").layers[-1]
    np.testing.assert_array_equal(loaded(x, reverse=True), layer(x, reverse=True))
    np.testing.assert_array_equal(loaded(TOKENS), layer(TOKENS))
    if hasattr(keras.layers, "ReversibleEmbedding") and not quantized:
        stock = keras.layers.ReversibleEmbedding(11, 6, tie_weights)
        stock.build()
        stock_model = keras.Sequential([keras.Input((None,), dtype="int32"), stock])
        model.save_weights(tmp_path / "model.weights.h5")
        stock_model.load_weights(tmp_path / "model.weights.h5")
        np.testing.assert_allclose(stock(x, reverse=True), layer(x, reverse=True), atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_precision_of_a_layer_is_that_of_all_layers_inside(policy):
    x = np.random.default_rng(0).normal(size=(2, 4, 6)).astype("float32")
    for layer, inputs in (
        (TransformerEncoderLayer(2, 7, dtype=policy), x),
        (TransformerDecoderLayer(2, 7, cross_attention=False, dtype=policy), x),
        (CachedMultiHeadAttention(2, dtype=policy), x),
        (PositionalEmbedding(11, 9, 6, dtype=policy), TOKENS),
    ):
        output = layer(inputs)
        assert {inner.dtype_policy.name for inner in layer._flatten_layers()} == {policy}
        assert output.dtype == layer.compute_dtype == policy.removeprefix("mixed_")
        reference = type(layer).from_config({**layer.get_config(), "dtype": "float32"})
        reference.build(inputs.shape)
        reference.set_weights(layer.get_weights())
        output = ops.cast(output, "float32")
        np.testing.assert_allclose(output, reference(inputs), atol=0.05)


def test_frozen_and_quantized_inner_layers_are_saved_in_a_sequential_model(tmp_path):
    layer = TransformerEncoderLayer(2, 7)
    model = keras.Sequential([keras.Input((4, 6)), layer])
    layer.self_attention.query.trainable = False
    layer.feedforward_output_dense.quantize("int8")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = np.random.default_rng(0).normal(size=(2, 4, 6)).astype("float32")
    np.testing.assert_array_equal(loaded(x), model(x))
    inner = loaded.layers[-1]
    assert not inner.self_attention.query.trainable and inner.self_attention.key.trainable
    assert inner.feedforward_output_dense.quantization_mode == "int8"


def test_positional_encoding_against_its_formula():
    encoding = positional_encoding(50, 8)
    for position, i in itertools.product(range(50), range(4)):
        angle = position / 10000 ** (2 * i / 8)
        assert encoding[position, 2 * i] == pytest.approx(np.sin(angle), abs=1e-12)
        assert encoding[position, 2 * i + 1] == pytest.approx(np.cos(angle), abs=1e-12)


@pytest.mark.parametrize("add_positions", [False, True])
def test_encoder_is_permutation_equivariant_only_without_positions(add_positions):
    order = np.random.default_rng(0).permutation(7)
    embedding = PositionalEmbedding(11, 9, 8, add_positions=add_positions)
    encoder = keras.Sequential([embedding, TransformerEncoderLayer(2, 12)])
    encoder(TOKENS[:1])
    add_random_noise(encoder)
    permuted = encoder(TOKENS[:1, order])
    difference = np.abs(permuted - encoder(TOKENS[:1]).numpy()[:, order])
    assert np.all(difference.max(-1) > 1e-3) if add_positions else np.all(difference < 1e-5)
