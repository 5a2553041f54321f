"""Helpers of several tests: comparison, random weights, toy models, a Transformer in NumPy."""

import contextlib
import gc
import itertools

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_genai import datasets
from keras_genai.rnn import build_language_model

# Counts of the tests of damage, asserted where they are made.
COUNTS = {
    "kills": 20,
    "damaged settings": 81,
    "rebuilt": 28,
    "hostile files": 237,
    "flipped bits": 50,
    "odd calls": 21692,
}

# Files.


def write_digits(folder, count: int):
    """Write MNIST digits as PNG files, in a folder for each digit; return the folder."""
    (x, y), _ = datasets.load_mnist()
    for i in range(count):
        (folder / str(y[i])).mkdir(exist_ok=True)
        keras.utils.save_img(folder / str(y[i]) / f"{i}.png", x[i][..., None], scale=False)
    return folder


# Time.


@contextlib.contextmanager
def frozen_heap():
    """Leave existing objects out of garbage collections: Keras runs one for each int8 layer."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


# Comparison.


def largest_difference(arrays, others) -> float:
    """Return the largest absolute difference between two lists of arrays of equal shapes."""
    assert [np.shape(a) for a in arrays] == [np.shape(b) for b in others]
    return max(
        float(np.max(np.abs(np.asarray(a) - b))) for a, b in zip(arrays, others, strict=True)
    )


# Random weights.


def set_random_weights(model, scale=0.3):
    """Set all weights, biases too, to normal random numbers; return the model."""
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(scale=scale, size=w.shape) for w in model.get_weights()])
    return model


def add_random_noise(model, scale=0.4):
    """Add noise to all weights of a layer or model: no bias stays 0, no scale of a norm stays 1."""
    rng = np.random.default_rng(0)
    model.set_weights([w + rng.normal(scale=scale, size=w.shape) for w in model.get_weights()])


# Small autoregressive models whose probabilities are known.


class BigramModel:
    """A model with known probabilities: each token depends only on the previous one."""

    context_length = None
    variables = ()

    def __init__(self, probabilities):
        self.vocab_size = len(probabilities)
        with np.errstate(divide="ignore"):
            self.logits = tf.constant(np.log(probabilities), tf.float32)

    def initial_state(self, batch_size, max_length, conditioning=None):
        return tf.zeros((batch_size, 0))

    def step(self, tokens, state, position, length=None):
        return tf.gather(self.logits, tokens), state


def random_bigram_model(vocab_size=4):
    return BigramModel(np.random.default_rng(0).dirichlet(np.ones(vocab_size), vocab_size))


def cyclic_bigram_model(vocab_size=4):
    """0 -> 1 -> 2 -> … -> 0, each with probability 1."""
    return BigramModel(np.roll(np.eye(vocab_size), 1, axis=1))


class PositionalModel:
    """A model that depends on the positions and the order of all tokens and on its conditioning.

    The logits at i are the sum over j <= i of embedding[token_j] * position_table[j], plus the
    conditioning. As in a Transformer, the table of positions is finite and the state has one row
    per token.
    """

    variables, vocab_size, context_length = (), 9, 600

    def __init__(self):
        rng = np.random.default_rng(0)
        self.embedding = rng.normal(scale=1.0, size=(9, 9)).astype("float32")
        self.position_table = rng.normal(scale=0.2, size=(600, 9)).astype("float32")

    def __call__(self, tokens, conditioning):
        rows = self.embedding[tokens] * self.position_table[: tokens.shape[1]]
        return np.cumsum(rows, axis=1, dtype="float64") + conditioning[:, None]

    def initial_state(self, batch_size, max_length, conditioning):
        assert max_length <= self.context_length
        return {"conditioning": conditioning, "rows": tf.zeros((batch_size, max_length, 9))}

    def step(self, tokens, state, position, length=None):
        n = tokens.shape[1]
        positions = tf.slice(self.position_table, [position, 0], [n, 9])
        rows = tf.gather(self.embedding, tokens) * positions
        rows = ops.slice_update(state["rows"], [0, position, 0], rows)
        mask = tf.range(rows.shape[1]) <= position + tf.range(n)[:, None]  # (n, max_length)
        logits = tf.einsum("nm,bmv->bnv", tf.cast(mask, "float32"), rows)
        return logits + state["conditioning"][:, None], {**state, "rows": rows}


def random_conditioning(batch_size):
    return np.random.default_rng(1).normal(scale=2, size=(batch_size, 9)).astype("float32")


def recurrent_model(cell="lstm", num_layers=2):
    """A small recurrent network whose next-token distribution is far from uniform."""
    model = build_language_model(9, cell, embed_dim=6, units=8, num_layers=num_layers)
    model.lm_head.set_weights([5 * w for w in model.lm_head.get_weights()])
    return model


def token_log_probs(logits, tokens):
    """Return log p of each token from the second on, for logits (batch, n - 1, vocab_size)."""
    logits = np.asarray(logits, "float64")
    normalized = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return np.take_along_axis(normalized, tokens[:, 1:, None], axis=-1)[..., 0]


# The Transformer in NumPy, one attention head after the other, with weights of Keras layers.


def dense(layer, x):
    return x @ np.asarray(layer.kernel) + np.asarray(layer.bias)


def layer_norm(layer, x):
    x = x - x.mean(axis=-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + layer.epsilon)
    return x * np.asarray(layer.gamma) + np.asarray(layer.beta)


def attention(layer, x, context, mask=None):
    """Return the output `(batch, n, d_model)` and the scores `(batch, num_heads, n, m)`."""
    head_dim, outputs, all_scores = x.shape[-1] // layer.num_heads, [], []
    for head in range(layer.num_heads):
        columns = slice(head * head_dim, (head + 1) * head_dim)
        query = dense(layer.query, x)[..., columns]
        key = dense(layer.key, context)[..., columns]
        value = dense(layer.value, context)[..., columns]
        scores = np.exp(query @ key.transpose(0, 2, 1) / np.sqrt(head_dim))
        if mask is not None:
            scores = scores * mask
        scores = scores / scores.sum(axis=-1, keepdims=True)
        outputs.append(scores @ value)
        all_scores.append(scores)
    outputs = np.concatenate(outputs, axis=-1)
    return dense(layer.output_dense, outputs), np.stack(all_scores, axis=1)


def transformer_layer(layer, x, context=None, mask=None, context_mask=None):
    """Return the output of an encoder or decoder layer, and the scores of its last attention."""
    scores = None

    def add(x, norm, sublayer):
        if layer.norm_first:
            return x + sublayer(layer_norm(norm, x))
        return layer_norm(norm, x + sublayer(x))

    def self_attention(h):
        nonlocal scores
        h, scores = attention(layer.self_attention, h, h, mask)
        return h

    def cross_attention(h):
        nonlocal scores
        h, scores = attention(layer.cross_attention, h, context, context_mask)
        return h

    def feedforward(h):
        h = np.maximum(dense(layer.feedforward_intermediate_dense, h), 0)
        return dense(layer.feedforward_output_dense, h)

    x = add(x, layer.self_attention_layer_norm, self_attention)
    if context is not None:
        x = add(x, layer.cross_attention_layer_norm, cross_attention)
    return add(x, layer.feedforward_layer_norm, feedforward), scores


def positional_embedding(table, tokens):
    d_model = table.shape[1]
    x = table[tokens] * np.sqrt(d_model)
    for position, i in itertools.product(range(tokens.shape[1]), range(d_model // 2)):
        angle = position / 10000 ** (2 * i / d_model)
        x[:, position, 2 * i] += np.sin(angle)
        x[:, position, 2 * i + 1] += np.cos(angle)
    return x
