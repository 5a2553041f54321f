"""Layers of the Transformer (Vaswani et al. 2017): attention, encoder, decoder.

Attention averages values, weighted by the similarity of queries and keys (equation 1):

    Attention(Q, K, V) = softmax(Q K^T / sqrt(head_dim)) V

In self-attention, queries, keys and values all come from one sequence; in cross-attention, keys and
values come from another one, the context, which is the encoder output. Shapes: n positions of x, m
of the context. Token 0 is padding: its positions are masked.

A decoder layer works in two ways with equal results. `call` processes whole sequences in parallel;
`initial_state` and `step` keep the keys and values of earlier tokens in a cache, so that generating
a token costs one position and not the whole sequence.

Corrected from article 3, section 3:
- The first paragraph credits the speed of training and inference to parallel processing of the
  input sequence (并行地处理输入序列). This holds for training, for encoding and for reading a
  prompt, but not for generation token by token, which the third paragraph describes as iterative.
- The first paragraph computes relations between elements directly, not in order, and mentions no
  positions. Attention without a causal mask is permutation-equivariant: it ignores the order of its
  input. `embeddings.PositionalEmbedding` adds the positions.
"""

import keras
from keras import layers, ops

from keras_genai.dense import Dense
from keras_genai.layer_state import LayerStateMixin
from keras_genai.random_state import Dropout
from keras_genai.validation import (
    check_bools,
    check_fraction,
    check_identifier,
    check_number,
    check_size,
    check_sizes,
    check_type,
)


@keras.saving.register_keras_serializable(package="keras_genai")
class CachedMultiHeadAttention(LayerStateMixin, layers.Layer):
    """Multi-head attention (Vaswani et al. 2017, section 3.2.2) with cacheable keys and values.

        MultiHead(x, context) = Concat(head_1, …, head_h) W_O
        head_i = Attention(x W_Q_i, context W_K_i, context W_V_i)

    Maps x `(batch, n, d_model)` and a context `(batch, m, d_model)` to `(batch, n, d_model)`.
    Queries come from x; keys and values come from the context. All projections have biases, as in
    GPT-2.

    Args:
        num_heads: Int. Number of heads, a divisor of `d_model`. The width of a head, `head_dim`, is
            `d_model / num_heads`.
        dropout: Float in [0, 1). Dropout rate of the attention scores. Defaults to `0.0`.
        kernel_initializer: Initializer of the four kernels. Defaults to `"glorot_uniform"`.
    """

    def __init__(self, num_heads, dropout=0.0, kernel_initializer="glorot_uniform", **kwargs):
        super().__init__(**kwargs)
        self.num_heads = check_size("num_heads", num_heads)
        self.kernel_initializer = _get_initializer(kernel_initializer)
        self.dropout = Dropout(check_fraction("dropout", dropout), dtype=self.dtype_policy)
        self.supports_masking = True

    def build(self, x_shape):
        d_model = x_shape[-1]
        if d_model % self.num_heads:
            raise ValueError(
                f"d_model: expected a multiple of num_heads, {self.num_heads}, got {d_model}."
            )
        self.head_dim = d_model // self.num_heads
        # One Dense layer per projection holds the kernels of all heads side by side. Each has its
        # own copy of the initializer, which would return the same kernel when called again.
        self.query, self.key, self.value, self.output_dense = (
            Dense(
                d_model,
                kernel_initializer=self.kernel_initializer.clone(),
                dtype=self.dtype_policy,
                name=name,
            )
            for name in ("query", "key", "value", "output_dense")
        )
        for dense in (self.query, self.key, self.value, self.output_dense):
            dense.build(x_shape)

    def call(
        self, x, context=None, attention_mask=None, training=None, return_attention_scores=False
    ):
        """Attend from x to a context, by default to x itself.

        Returns the output `(batch, n, d_model)`; with `return_attention_scores`, also the scores
        `(batch, num_heads, n, m)`.
        """
        key_value = self.project_key_value(x if context is None else context)
        output, scores = self.compute_attention(x, key_value, attention_mask, training)
        return (output, scores) if return_attention_scores else output

    def project_key_value(self, context):
        """Return the keys and values of a context, each `(batch, num_heads, m, head_dim)`."""
        return self._split_heads(self.key(context)), self._split_heads(self.value(context))

    def compute_attention(self, x, key_value, attention_mask=None, training=None):
        """Attend from x to projected keys and values.

        Args:
            x: Float tensor `(batch, n, d_model)`.
            key_value: Tuple of keys and values, each `(batch, num_heads, m, head_dim)`.
            attention_mask: Bool tensor that broadcasts to `(batch, num_heads, n, m)`, True where
                attention is allowed, or `None`.
            training: Bool. Whether to apply dropout.

        Returns:
            Tuple of the output `(batch, n, d_model)` and the scores `(batch, num_heads, n, m)`,
            which are the weights of the values: after the softmax, before dropout.
        """
        key, value = key_value
        query = self._split_heads(self.query(x)) * self.head_dim**-0.5
        logits = ops.matmul(query, ops.swapaxes(key, -1, -2))  # (batch, num_heads, n, m)
        if attention_mask is not None:
            # Large but finite in every dtype: with -inf, a fully masked row would be NaN.
            masked = -3e4 if keras.backend.standardize_dtype(logits.dtype) == "float16" else -1e9
            logits = ops.where(attention_mask, logits, ops.cast(masked, logits.dtype))
        scores = ops.softmax(logits, axis=-1)
        x = ops.matmul(self.dropout(scores, training=training), value)
        x = ops.swapaxes(x, 1, 2)  # (batch, n, num_heads, head_dim)
        x = ops.reshape(x, (-1, ops.shape(x)[1], self.num_heads * self.head_dim))
        return self.output_dense(x), scores

    def _split_heads(self, x):
        """Reshape `(batch, n, d_model)` to `(batch, num_heads, n, head_dim)`."""
        x = ops.reshape(x, (-1, ops.shape(x)[1], self.num_heads, self.head_dim))
        return ops.swapaxes(x, 1, 2)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "dropout": self.dropout.rate,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def _get_initializer(kernel_initializer):
    initializer = check_identifier(
        "kernel_initializer", kernel_initializer, keras.initializers.get, "an initializer"
    )
    check_type("kernel_initializer", initializer, keras.initializers.Initializer)
    return initializer


def causal_mask(n, m=None, position=0):
    """Return a bool mask `(n, m)`, True where key position j <= query position, `position + i`.

    Args:
        n: Int. Number of queries.
        m: Int or `None`. Number of keys; `None` is `n`. Defaults to `None`.
        position: Int or scalar tensor. Position of the first query. Defaults to `0`.
    """
    queries, keys = position + ops.arange(n), ops.arange(n if m is None else m)
    return keys[None, :] <= queries[:, None]


def update_cache(cache, key_value, position):
    """Store new keys and values, each `(batch, num_heads, n, head_dim)`, from `position` on."""
    return tuple(
        ops.slice_update(old, (0, 0, position, 0), new)
        for old, new in zip(cache, key_value, strict=True)
    )


class _TransformerLayer(LayerStateMixin, layers.Layer):
    """Base of encoder and decoder layers: self-attention, and a position-wise feed-forward network.

    Each is a sublayer with a residual connection and layer normalization (Vaswani et al. 2017,
    section 3.1): `x + sublayer(norm(x))` if `norm_first`, else `norm(x + sublayer(x))`.
    """

    def __init__(
        self,
        num_heads,
        dff,
        dropout=0.1,
        attention_dropout=0.0,
        activation="relu",
        norm_first=False,
        layer_norm_epsilon=1e-6,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads, self.dff = check_sizes(num_heads=num_heads, dff=dff)
        self.attention_dropout = check_fraction("attention_dropout", attention_dropout)
        self.activation = check_identifier(
            "activation", activation, keras.activations.get, "an activation"
        )
        check_bools(norm_first=norm_first)
        epsilon = check_number("layer_norm_epsilon", layer_norm_epsilon, above=0)
        self.norm_first, self.layer_norm_epsilon = norm_first, epsilon
        self.kernel_initializer = _get_initializer(kernel_initializer)
        self.self_attention = self._attention("self_attention")
        self.self_attention_layer_norm = self._layer_norm("self_attention_layer_norm")
        self.feedforward_intermediate_dense = self._dense(
            self.dff, self.activation, "feedforward_intermediate_dense"
        )
        self.feedforward_layer_norm = self._layer_norm("feedforward_layer_norm")
        self.dropout = Dropout(check_fraction("dropout", dropout), dtype=self.dtype_policy)
        self.supports_masking = True

    def _attention(self, name):
        return CachedMultiHeadAttention(
            self.num_heads,
            self.attention_dropout,
            self.kernel_initializer.clone(),
            dtype=self.dtype_policy,
            name=name,
        )

    def _dense(self, units, activation, name):
        return Dense(
            units,
            activation,
            kernel_initializer=self.kernel_initializer.clone(),
            dtype=self.dtype_policy,
            name=name,
        )

    def _layer_norm(self, name):
        return layers.LayerNormalization(
            epsilon=self.layer_norm_epsilon, dtype=self.dtype_policy, name=name
        )

    def build(self, x_shape):
        self.feedforward_output_dense = self._dense(x_shape[-1], None, "feedforward_output_dense")
        self.self_attention.build(x_shape)
        self.self_attention_layer_norm.build(x_shape)
        self.feedforward_intermediate_dense.build(x_shape)
        self.feedforward_layer_norm.build(x_shape)
        self.feedforward_output_dense.build((*x_shape[:-1], self.dff))

    def _pre_norm(self, layer_norm, x):
        """Return the input of a sublayer."""
        return layer_norm(x) if self.norm_first else x

    def _add_residual(self, layer_norm, x, sublayer_output, training):
        """Return the sum of a sublayer's input and output, normalized in a post-norm layer."""
        x = x + self.dropout(sublayer_output, training=training)
        return x if self.norm_first else layer_norm(x)

    def _self_attention_block(self, x, attention_mask, training, cache=None, position=0):
        """Attend from x to itself, or to a cache in which its keys and values are stored first.

        Returns the new x `(batch, n, d_model)`, the attention scores, and the keys and values.
        """
        h = self._pre_norm(self.self_attention_layer_norm, x)
        key_value = self.self_attention.project_key_value(h)
        if cache is not None:
            key_value = update_cache(cache, key_value, position)
        h, scores = self.self_attention.compute_attention(h, key_value, attention_mask, training)
        x = self._add_residual(self.self_attention_layer_norm, x, h, training)
        return x, scores, key_value

    def _feedforward_block(self, x, training):
        h = self._pre_norm(self.feedforward_layer_norm, x)
        h = self.feedforward_intermediate_dense(h)  # (batch, n, dff)
        h = self.feedforward_output_dense(h)  # (batch, n, d_model)
        return self._add_residual(self.feedforward_layer_norm, x, h, training)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "dff": self.dff,
            "dropout": self.dropout.rate,
            "attention_dropout": self.attention_dropout,
            "activation": keras.activations.serialize(self.activation),
            "norm_first": self.norm_first,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


@keras.saving.register_keras_serializable(package="keras_genai")
class TransformerEncoderLayer(_TransformerLayer):
    """Encoder layer: self-attention over the whole sequence, then a feed-forward network.

    The left block of Vaswani et al. 2017, figure 1. Maps x `(batch, n, d_model)`, with a mask
    `(batch, n)` that is False at padding, to the same shape.

    Args:
        num_heads: Int. Number of attention heads, a divisor of `d_model`.
        dff: Int. Inner width of the feed-forward network.
        dropout: Float in [0, 1). Dropout rate of the output of each sublayer. Defaults to `0.1`.
        attention_dropout: Float in [0, 1). Dropout rate of the attention scores. Defaults to `0.0`,
            as in the paper.
        activation: Activation of the feed-forward network. Defaults to `"relu"`.
        norm_first: Bool. Whether to normalize the input of each sublayer (pre-norm), as in GPT-2,
            or its sum with the output (post-norm), as in the paper. Pre-norm is easier to train
            (Xiong et al. 2020). Defaults to `False`.
        layer_norm_epsilon: Float. Added to the variance. Defaults to `1e-6`.
        kernel_initializer: Initializer of all kernels. Defaults to `"glorot_uniform"`.
    """

    def call(self, x, mask=None, training=None, *, return_attention_scores=False):
        """Process whole sequences.

        Returns the output `(batch, n, d_model)`; with `return_attention_scores`, also the scores
        `(batch, num_heads, n, n)`.
        """
        attention_mask = None if mask is None else mask[:, None, None, :]
        x, scores, _ = self._self_attention_block(x, attention_mask, training)
        x = self._feedforward_block(x, training)
        return (x, scores) if return_attention_scores else x

    def compute_output_spec(self, x, *args, return_attention_scores=False, **kwargs):
        output = keras.KerasTensor(x.shape, self.compute_dtype)
        if not return_attention_scores:
            return output
        batch_size, n, _ = x.shape
        return output, keras.KerasTensor((batch_size, self.num_heads, n, n), self.compute_dtype)

    def compute_output_shape(self, x_shape):
        return x_shape


@keras.saving.register_keras_serializable(package="keras_genai")
class TransformerDecoderLayer(_TransformerLayer):
    """Decoder layer: causal self-attention, cross-attention to a context, a feed-forward network.

    The right block of Vaswani et al. 2017, figure 1. Maps x `(batch, n, d_model)` and a context
    `(batch, m, d_model)`, with masks `(batch, n)` and `(batch, m)` that are False at padding, to
    the shape of x. Without cross-attention, it is a layer of a GPT.

    Args:
        num_heads: Int. Number of attention heads, a divisor of `d_model`.
        dff: Int. Inner width of the feed-forward network.
        cross_attention: Bool. Whether the layer attends to a context. Defaults to `True`.
        **kwargs: Other arguments of `TransformerEncoderLayer`.
    """

    def __init__(self, num_heads, dff, cross_attention=True, **kwargs):
        super().__init__(num_heads, dff, **kwargs)
        check_bools(cross_attention=cross_attention)
        self.cross_attention = None
        if cross_attention:
            self.cross_attention = self._attention("cross_attention")
            self.cross_attention_layer_norm = self._layer_norm("cross_attention_layer_norm")

    def build(self, x_shape):
        super().build(x_shape)
        if self.cross_attention is not None:
            self.cross_attention.build(x_shape)
            self.cross_attention_layer_norm.build(x_shape)

    def call(
        self,
        x,
        context=None,
        mask=None,
        context_mask=None,
        training=None,
        *,
        return_attention_scores=False,
    ):
        """Process whole sequences.

        Returns the output `(batch, n, d_model)`; with `return_attention_scores`, also the scores of
        cross-attention `(batch, num_heads, n, m)`, or of self-attention if there is no other.
        """
        attention_mask = causal_mask(ops.shape(x)[1])
        if mask is not None:
            attention_mask = attention_mask & mask[:, None, None, :]
        x, scores, _ = self._self_attention_block(x, attention_mask, training)
        if self.cross_attention is not None:
            key_value = self.cross_attention.project_key_value(context)
            x, scores = self._cross_attention_block(x, key_value, context_mask, training)
        x = self._feedforward_block(x, training)
        return (x, scores) if return_attention_scores else x

    def compute_output_spec(self, x, *args, return_attention_scores=False, **kwargs):
        if return_attention_scores:
            kwargs["return_attention_scores"] = True
            return super().compute_output_spec(x, *args, **kwargs)  # by tracing `call`
        return keras.KerasTensor(x.shape, self.compute_dtype)

    def initial_state(self, batch_size, max_length, context=None):
        """Return an empty cache of `max_length` positions, and the context's keys and values."""
        shape = (batch_size, self.num_heads, max_length, self.self_attention.head_dim)
        state = {"cache": tuple(ops.zeros(shape, self.compute_dtype) for _ in ("key", "value"))}
        if self.cross_attention is not None:
            state["context"] = self.cross_attention.project_key_value(context)
        return state

    def step(self, x, state, position, context_mask=None):
        """Return the output of `call` for x `(batch, n, d_model)` from `position` on; new state."""
        cache = state["cache"]
        attention_mask = causal_mask(x.shape[1], cache[0].shape[2], position)
        x, _, cache = self._self_attention_block(x, attention_mask, False, cache, position)
        if self.cross_attention is not None:
            x, _ = self._cross_attention_block(x, state["context"], context_mask, training=False)
        return self._feedforward_block(x, training=False), {**state, "cache": cache}

    def _cross_attention_block(self, x, key_value, context_mask, training):
        """Attend from x to the context; return x `(batch, n, d_model)` and the scores."""
        attention_mask = None if context_mask is None else context_mask[:, None, None, :]
        h = self._pre_norm(self.cross_attention_layer_norm, x)
        h, scores = self.cross_attention.compute_attention(h, key_value, attention_mask, training)
        return self._add_residual(self.cross_attention_layer_norm, x, h, training), scores

    def get_config(self):
        return {**super().get_config(), "cross_attention": self.cross_attention is not None}
