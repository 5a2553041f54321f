"""The Transformer in NumPy, one attention head after the other, with weights of Keras layers."""

import itertools

import numpy as np


def randomize(model, scale=0.4):
    """Add noise to all weights of a layer or model: no bias stays 0, no scale of a norm stays 1."""
    rng = np.random.default_rng(0)
    model.set_weights([w + rng.normal(scale=scale, size=w.shape) for w in model.get_weights()])


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
