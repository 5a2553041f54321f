"""Small autoregressive models whose probabilities are known, for the tests of decoding."""

import numpy as np
import tensorflow as tf
from keras import ops

from keras_genai.rnn import build_language_model


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
