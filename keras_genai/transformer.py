"""Transformer: article 1's Sequential model, and the encoder–decoder that translates.

Every position looks at every other one, and takes from each as much as its query agrees with the
other's key (Vaswani et al. 2017, equation 1):

    attention(Q, K, V) = softmax(Q K^T / sqrt(d)) V

`build_transformer` is the article's model: labels for tokens, a language model (`causal=True`), or
one label for a text (`pooling="mean"`). `build_seq2seq_transformer` reads a sentence and writes
another one. Token 0 is padding, here and there.

Corrected from the articles:
- article 1: Keras has no `layers.Transformer`. It is spelled out here, with the article's sizes.
- article 1: tokens are embedded twice, once before the Transformer and once in it. Here, once.
- article 1: no loss, mask, start or end token. Padding is masked, in attention and in the loss.
- article 1: a Sequential model, with one input, is said to translate. Translation has two: the
  sentence, and what has been written so far; it takes the encoder–decoder.
- article 3, section 3: attention alone does not know order; `PositionalEmbedding` tells it. All
  positions are computed at once in training only: writing goes on token by token.
"""

from functools import partial

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from keras_genai import autoregressive
from keras_genai.inputs import (
    CheckedModel,
    Dropout,
    check_choice,
    check_share,
    check_size,
    check_sizes,
)
from keras_genai.text import check_tokenizer
from keras_genai.training import OwnLoss

PADDING = 0
TRANSLATION_BATCH = 128  # sentences that are translated at once


@keras.saving.register_keras_serializable(package="keras_genai")
class PositionalEmbedding(layers.Layer):
    """Tokens (batch, n) to vectors (batch, n, d_model) that know where they stand.

    The embedding is scaled by sqrt(d_model) (Vaswani et al. 2017, section 3.4), and sines and
    cosines of the position are added (section 3.5).

    Args:
        vocab_size: number of tokens.
        max_seq_length: the longest sequence.
        d_model: size of a vector, even.
        positions: False leaves the positions out: what follows cannot know the order then.
    """

    def __init__(self, vocab_size, max_seq_length, d_model, positions=True, **kwargs):
        super().__init__(**kwargs)
        vocab_size, max_seq_length, d_model = check_sizes(
            vocab_size=vocab_size, max_seq_length=max_seq_length, d_model=d_model
        )
        if d_model % 2:
            raise ValueError(f"d_model: expected an even number, got {d_model}.")
        self.vocab_size, self.max_seq_length, self.d_model = vocab_size, max_seq_length, d_model
        self.positions = positions
        self.supports_masking = True
        self.embedding = layers.Embedding(
            vocab_size, d_model, keras.initializers.RandomNormal(stddev=d_model**-0.5)
        )
        self.encoding = positional_encoding(max_seq_length, d_model)

    def build(self, input_shape):
        self.embedding.build(input_shape)

    def call(self, tokens, position=0):
        """Embed tokens that stand at position, position + 1, …"""
        x = self.embedding(tokens) * self.d_model**0.5
        if not self.positions:
            return x
        places = positions_from(position, ops.shape(tokens)[1], self.max_seq_length)
        return x + ops.take(ops.cast(self.encoding, x.dtype), places, axis=0)

    def compute_mask(self, tokens, mask=None):
        return ops.not_equal(tokens, PADDING)  # for all layers that follow

    def compute_output_shape(self, input_shape):
        return (*input_shape, self.d_model)

    def get_config(self):
        return {
            **super().get_config(),
            "vocab_size": self.vocab_size,
            "max_seq_length": self.max_seq_length,
            "d_model": self.d_model,
            "positions": self.positions,
        }


def positions_from(position, length, stop: int):
    """Return position, position + 1, … (length,).

    Raises:
        ValueError: if they are known to reach beyond stop - 1; the gather of what is not known
            before it runs raises an error of TensorFlow.
    """
    if isinstance(position, int) and isinstance(length, int) and position + length > stop:
        raise ValueError(
            f"tokens: expected at most {stop}, as many as the model can take, "
            f"got {position + length}."
        )
    return position + ops.arange(length)


def positional_encoding(length: int, d_model: int) -> np.ndarray:
    """Return sines (even columns) and cosines (odd) of the positions, (length, d_model).

    Vaswani et al. 2017, section 3.5: column 2i has the wavelength 2 pi 10000^(2i / d_model).
    """
    rates = 10000.0 ** (-np.arange(0, d_model, 2) / d_model)
    angles = np.arange(length)[:, None] * rates
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, d_model)


@keras.saving.register_keras_serializable(package="keras_genai")
class MultiHeadAttention(layers.Layer):
    """Attention in several heads at once (Vaswani et al. 2017, section 3.2.2).

    From x (batch, n, d_model), which looks, and a context (batch, m, d_model), which is looked at,
    to (batch, n, d_model).

    Args:
        num_heads: each has its own queries, keys and values, of d_model / num_heads numbers.
        dropout: share of the attention weights that are dropped in training.
        initializer: of the four matrices.
    """

    def __init__(self, num_heads, dropout=0.0, initializer="glorot_uniform", **kwargs):
        super().__init__(**kwargs)
        self.num_heads = check_size("num_heads", num_heads)
        self.initializer = keras.initializers.get(initializer)
        self.dropout = Dropout(dropout)
        self.supports_masking = True

    def build(self, x_shape):
        d_model = x_shape[-1]
        if d_model % self.num_heads:
            raise ValueError(
                f"d_model: expected a multiple of num_heads, {self.num_heads}, got {d_model}."
            )
        self.head_dim = d_model // self.num_heads
        self.query, self.key, self.value, self.projection = (
            layers.Dense(d_model, kernel_initializer=renewed(self.initializer), name=name)
            for name in ("query", "key", "value", "projection")
        )
        for layer in (self.query, self.key, self.value, self.projection):
            layer.build(x_shape)

    def call(self, x, context=None, allowed=None, training=None):
        keys_values = self.keys_values(x if context is None else context)
        return self.attend(x, keys_values, allowed, training)[0]

    def keys_values(self, context):
        """Return the keys and the values of a context, each (batch, num_heads, m, head_dim)."""
        return self._split(self.key(context)), self._split(self.value(context))

    def attend(self, x, keys_values, allowed=None, training=None):
        """Look from x at keys and values, wherever it is allowed to.

        Args:
            allowed: booleans that broadcast to (batch, num_heads, n, m); None allows everything.

        Returns:
            (batch, n, d_model), and the weights (batch, num_heads, n, m).
        """
        keys, values = keys_values
        queries = self._split(self.query(x)) * self.head_dim**-0.5
        scores = ops.matmul(queries, ops.swapaxes(keys, -1, -2))  # (batch, num_heads, n, m)
        if allowed is not None:
            # Not minus infinity: what may look nowhere at all would become NaN.
            scores = ops.where(allowed, scores, ops.cast(-1e9, scores.dtype))
        weights = ops.softmax(scores, axis=-1)
        x = ops.matmul(self.dropout(weights, training=training), values)
        x = ops.reshape(
            ops.swapaxes(x, 1, 2), (-1, ops.shape(x)[2], self.num_heads * self.head_dim)
        )
        return self.projection(x), weights

    def _split(self, x):
        """(batch, n, d_model) → (batch, num_heads, n, head_dim)"""
        x = ops.reshape(x, (-1, ops.shape(x)[1], self.num_heads, self.head_dim))
        return ops.swapaxes(x, 1, 2)

    def compute_output_shape(self, x_shape):
        return x_shape

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "dropout": self.dropout.rate,
            "initializer": keras.initializers.serialize(self.initializer),
        }


def renewed(initializer):
    """Return a copy of an initializer: one that is asked twice makes the same numbers twice."""
    return initializer.__class__.from_config(initializer.get_config())


class _TransformerLayer(layers.Layer):
    """What encoder and decoder layers share: sublayers, each with a residual path and a norm."""

    def __init__(
        self,
        num_heads,
        dff,
        dropout=0.1,
        attention_dropout=0.0,
        activation="relu",
        norm_first=False,
        layer_norm_epsilon=1e-6,
        initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads, self.dff = check_sizes(num_heads=num_heads, dff=dff)
        self.attention_dropout = attention_dropout
        self.activation = keras.activations.get(activation)
        self.norm_first, self.layer_norm_epsilon = norm_first, layer_norm_epsilon
        self.initializer = keras.initializers.get(initializer)
        self.attention = self._attention("attention")
        self.attention_norm = self._norm("attention_norm")
        self.inner = self._dense(dff, self.activation, "inner")
        self.feed_forward_norm = self._norm("feed_forward_norm")
        self.dropout = Dropout(dropout)
        self.supports_masking = True

    def _attention(self, name):
        initializer = renewed(self.initializer)
        return MultiHeadAttention(self.num_heads, self.attention_dropout, initializer, name=name)

    def _dense(self, units, activation, name):
        initializer = renewed(self.initializer)
        return layers.Dense(units, activation, kernel_initializer=initializer, name=name)

    def _norm(self, name):
        return layers.LayerNormalization(epsilon=self.layer_norm_epsilon, name=name)

    def build(self, x_shape):
        d_model = x_shape[-1]
        self.outer = self._dense(d_model, None, "outer")
        for layer in (self.attention, self.attention_norm, self.inner, self.feed_forward_norm):
            layer.build(x_shape)
        self.outer.build((*x_shape[:-1], self.dff))

    def _before(self, norm, x):
        """What a sublayer reads."""
        return norm(x) if self.norm_first else x

    def _after(self, norm, x, y, training):
        """Add what a sublayer has made of x to x."""
        x = x + self.dropout(y, training=training)
        return x if self.norm_first else norm(x)

    def _attend(self, x, cache, position, allowed, training):
        """Look from x at x, and at the cache of what stands before it if there is one."""
        h = self._before(self.attention_norm, x)
        cache = _extend(cache, self.attention.keys_values(h), position)
        y, _ = self.attention.attend(h, cache, allowed, training)
        return self._after(self.attention_norm, x, y, training), cache

    def _feed_forward(self, x, training):
        y = self.outer(self.inner(self._before(self.feed_forward_norm, x)))
        return self._after(self.feed_forward_norm, x, y, training)

    def compute_output_shape(self, x_shape):
        return x_shape

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
            "initializer": keras.initializers.serialize(self.initializer),
        }


@keras.saving.register_keras_serializable(package="keras_genai")
class TransformerEncoderLayer(_TransformerLayer):
    """Attention to the whole sequence, then two dense layers (Vaswani et al. 2017, section 3.1).

    x (batch, n, d_model), with a mask (batch, n) that is False at padding, to the same shape.

    Args:
        num_heads: of the attention; d_model is a multiple of it.
        dff: width of the inner dense layer.
        dropout: share of what each sublayer adds that is dropped in training.
        attention_dropout: share of the attention weights, 0 in the paper.
        activation: of the inner dense layer.
        norm_first: whether a sublayer's input is normalised, as in GPT-2, or the sum after it, as
            in the paper. The first is easier to train (Xiong et al. 2020).
        layer_norm_epsilon: added to the variance.
        initializer: of all matrices.
    """

    def call(self, x, mask=None, training=None):
        allowed = None if mask is None else mask[:, None, None, :]
        x, _ = self._attend(x, None, 0, allowed, training)
        return self._feed_forward(x, training)


@keras.saving.register_keras_serializable(package="keras_genai")
class TransformerDecoderLayer(_TransformerLayer):
    """Attention to what stands before, to a context, then two dense layers (section 3.1).

    x (batch, n, d_model) and context (batch, m, d_model), with masks (batch, n) and (batch, m) that
    are False at padding, to the shape of x. Without a context it is a layer of a GPT.

    Args: as `TransformerEncoderLayer`, and
        cross_attention: whether there is a context.
    """

    def __init__(self, num_heads, dff, cross_attention=True, **kwargs):
        super().__init__(num_heads, dff, **kwargs)
        self.cross_attention = None
        if cross_attention:
            self.cross_attention = self._attention("cross_attention")
            self.cross_attention_norm = self._norm("cross_attention_norm")

    def build(self, x_shape):
        super().build(x_shape)
        if self.cross_attention is not None:
            self.cross_attention.build(x_shape)
            self.cross_attention_norm.build(x_shape)

    def call(self, x, context=None, mask=None, context_mask=None, training=None):
        return self.call_with_weights(x, context, mask, context_mask, training)[0]

    def call_with_weights(self, x, context=None, mask=None, context_mask=None, training=None):
        """Return what `call` does, and the weights of cross-attention (batch, num_heads, n, m)."""
        allowed, weights = causal_mask(ops.shape(x)[1]), None
        if mask is not None:
            allowed = allowed & mask[:, None, None, :]
        x, _ = self._attend(x, None, 0, allowed, training)
        if self.cross_attention is not None:
            context = self.cross_attention.keys_values(context)
            x, weights = self._cross_attend(x, context, context_mask, training)
        return self._feed_forward(x, training), weights

    def initial_state(self, batch_size, max_length, context=None):
        """Return room for the keys and values of max_length vectors, and those of the context."""
        shape = (batch_size, self.num_heads, max_length, self.attention.head_dim)
        state = {"cache": tuple(ops.zeros(shape, self.compute_dtype) for _ in range(2))}
        if self.cross_attention is not None:
            state["context"] = self.cross_attention.keys_values(context)
        return state

    def step(self, x, state, position, context_mask=None):
        """Return what `call` does of x (batch, n, d_model) alone, and the new state.

        x stands at position; what `call` would see before it is in the state.
        """
        allowed = causal_mask(x.shape[1], state["cache"][0].shape[2], position)
        x, cache = self._attend(x, state["cache"], position, allowed, training=False)
        if self.cross_attention is not None:
            x, _ = self._cross_attend(x, state["context"], context_mask, training=False)
        return self._feed_forward(x, training=False), {**state, "cache": cache}

    def _cross_attend(self, x, context, context_mask, training):
        allowed = None if context_mask is None else context_mask[:, None, None, :]
        h = self._before(self.cross_attention_norm, x)
        y, weights = self.cross_attention.attend(h, context, allowed, training)
        return self._after(self.cross_attention_norm, x, y, training), weights

    def get_config(self):
        return {**super().get_config(), "cross_attention": self.cross_attention is not None}


def causal_mask(n, m=None, position=0):
    """Return (n, m), True where a token at position + row may look at one at the column."""
    rows, columns = ops.arange(n), ops.arange(n if m is None else m)
    return columns[None, :] <= position + rows[:, None]


def _extend(cache, keys_values, position):
    """Return the cache with keys and values written at position; without one, these alone."""
    if cache is None:
        return keys_values
    return tuple(
        ops.slice_update(old, (0, 0, position, 0), new) for old, new in zip(cache, keys_values)
    )


@keras.saving.register_keras_serializable(package="keras_genai")
class MaskedCrossentropy(keras.losses.Loss):
    """Cross-entropy of logits, in nats, a mean over all tokens that are not padding.

    Tokens (batch, n), logits (batch, n, vocab_size).

    Args:
        label_smoothing: the target is the token with a probability of 1 - label_smoothing, else any
            one of the vocabulary (Vaswani et al. 2017, section 5.4).
    """

    def __init__(
        self, label_smoothing=0.0, reduction="mean_with_sample_weight", name="loss", **kwargs
    ):
        super().__init__(name=name, reduction=reduction, **kwargs)
        check_share("label_smoothing", label_smoothing)
        self.label_smoothing = label_smoothing

    def __call__(self, y_true, y_pred, sample_weight=None):
        weight = ops.cast(ops.not_equal(y_true, PADDING), y_pred.dtype)
        if sample_weight is not None:
            sample_weight = ops.cast(sample_weight, weight.dtype)
            weight = weight * ops.reshape(sample_weight, (ops.shape(y_true)[0], -1))
        return super().__call__(y_true, y_pred, weight)

    def call(self, y_true, y_pred):
        log_probs = ops.log_softmax(y_pred, axis=-1)
        tokens = ops.cast(y_true, "int32")[..., None]
        nats = -ops.take_along_axis(log_probs, tokens, axis=-1)[..., 0]
        return (1 - self.label_smoothing) * nats - self.label_smoothing * ops.mean(log_probs, -1)

    def get_config(self):
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


@keras.saving.register_keras_serializable(package="keras_genai")
class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises for warmup_steps, then falls as 1 / sqrt(step).

    Vaswani et al. 2017, equation 3: the peak is 1 / sqrt(d_model * warmup_steps).

    Args:
        d_model: size of the model's vectors.
        warmup_steps: until the peak.
        decay_steps: if given, the rate is multiplied by what falls from 1 to 0 in so many steps. In
            a short training this serves for the average of the last weights that the paper takes.
    """

    def __init__(self, d_model, warmup_steps=4000, decay_steps=None):
        self.d_model, self.warmup_steps = check_sizes(d_model=d_model, warmup_steps=warmup_steps)
        self.decay_steps = None if decay_steps is None else check_size("decay_steps", decay_steps)

    def __call__(self, step):
        step = ops.cast(step, "float32") + 1  # Keras counts from 0
        rate = self.d_model**-0.5 * ops.minimum(step**-0.5, step * self.warmup_steps**-1.5)
        if self.decay_steps is None:
            return rate
        return rate * ops.maximum(1 - step / self.decay_steps, 0)

    def get_config(self):
        return {
            "d_model": self.d_model,
            "warmup_steps": self.warmup_steps,
            "decay_steps": self.decay_steps,
        }


@keras.saving.register_keras_serializable(package="keras_genai")
class MeanOfTokens(layers.GlobalAveragePooling1D):
    """Keras's, but 0 for a row of nothing but padding: its mean would be NaN, and the loss too."""

    def call(self, x, mask=None):
        if mask is None:
            return ops.mean(x, axis=1)
        mask = ops.cast(mask, x.dtype)[..., None]
        return ops.sum(x * mask, axis=1) / ops.maximum(ops.sum(mask, axis=1), 1)


def build_transformer(
    vocab_size,
    output_vocab_size,
    max_seq_length,
    num_layers=4,
    d_model=128,
    num_heads=8,
    dff=512,
    dropout=0.1,
    causal=False,
    pooling=None,
) -> keras.Sequential:
    """Build article 1's Sequential model: an embedding, Transformer layers, a softmax.

        model = build_transformer(vocab_size, 2, max_seq_length, pooling="mean")
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(texts, labels)  # texts padded with 0, which no attention, mean or loss counts

    Args:
        vocab_size: number of input tokens; 0 is padding.
        output_vocab_size: number of output tokens, or of classes.
        max_seq_length: the longest sequence.
        num_layers, d_model, num_heads, dff: layers, size of a vector, heads of an attention, and
            inner width of a layer; the article gives no numbers.
        dropout: share of the embeddings, and of what each sublayer adds, that is dropped.
        causal: whether a position sees nothing after it, as a language model must.
        pooling: "mean" for one output a sequence, None for one a token.

    Returns:
        A model from tokens (batch, n) to probabilities (batch, n, output_vocab_size), or (batch,
        output_vocab_size) if pooled.

    Raises:
        ValueError: for a size below 1, a d_model that is odd or no multiple of num_heads, or a
            dropout outside [0, 1).
    """
    output_vocab_size, num_layers = check_sizes(
        output_vocab_size=output_vocab_size, num_layers=num_layers
    )
    check_share("dropout", dropout)
    check_choice("pooling", pooling, (None, "mean"))
    if causal:
        transformer_layer = partial(TransformerDecoderLayer, cross_attention=False)
    else:
        transformer_layer = TransformerEncoderLayer
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32", name="tokens"),
            PositionalEmbedding(vocab_size, max_seq_length, d_model),
            Dropout(dropout),
            *(transformer_layer(num_heads, dff, dropout=dropout) for _ in range(num_layers)),
            *([] if pooling is None else [MeanOfTokens()]),
            layers.Dense(output_vocab_size, activation="softmax", name="probabilities"),
        ],
        name="transformer",
    )


def build_seq2seq_transformer(
    input_vocab_size,
    target_vocab_size,
    max_seq_length,
    num_layers=4,
    d_model=128,
    num_heads=8,
    dff=512,
    dropout=0.1,
    norm_first=True,
    input_tokenizer=None,
    target_tokenizer=None,
) -> "Seq2SeqTransformer":
    """Build the encoder–decoder of Vaswani et al. 2017, which reads a sequence and writes another.

        model = build_seq2seq_transformer(4000, 4000, max_seq_length=80)
        model.compile(keras.optimizers.Adam(WarmupSchedule(128), beta_2=0.98, epsilon=1e-9))
        model.fit(source, target)  # the target from its start token to its end token
        model.translate("…")

    The stock `fit` takes what the decoder sees and what it is to say apart:

        stock = keras.Model(model.inputs, model.outputs)
        stock.compile("adam", MaskedCrossentropy(label_smoothing=0.1))
        stock.fit([source, target[:, :-1]], target[:, 1:])

    Args:
        input_vocab_size, target_vocab_size: number of tokens; 0 is padding, 1 starts and 2 ends a
            target.
        max_seq_length: the longest source or target.
        num_layers: of the encoder, and of the decoder.
        d_model: size of a vector.
        num_heads: of an attention.
        dff: inner width of a layer.
        dropout: share of the embeddings, and of what each sublayer adds, that is dropped.
        norm_first: whether a sublayer's input is normalised, or, as in the paper, the sum after it:
            trained by the recipe, such an encoder came to say the same at every position.
        input_tokenizer, target_tokenizer: of the texts that the model reads and writes; they are
            saved with it.

    Returns:
        A model from [source (batch, m), target (batch, n)] to logits (batch, n, target_vocab_size).

    Raises:
        ValueError: for a size below 1, a d_model that is odd or no multiple of num_heads, a dropout
            outside [0, 1), or a tokenizer of another size.
    """
    return Seq2SeqTransformer(
        input_vocab_size,
        target_vocab_size,
        max_seq_length,
        num_layers,
        d_model,
        num_heads,
        dff,
        dropout,
        norm_first,
        input_tokenizer,
        target_tokenizer,
    )


@keras.saving.register_keras_serializable(package="keras_genai")
class Seq2SeqTransformer(OwnLoss, CheckedModel):
    """The model of `build_seq2seq_transformer`, whose arguments it has, with its own `train_step`.

    Reported are `loss`, and `nats`, the cross-entropy of a token without label smoothing.
    """

    start_token, end_token = 1, 2

    def __init__(
        self,
        input_vocab_size,
        target_vocab_size,
        max_seq_length,
        num_layers=4,
        d_model=128,
        num_heads=8,
        dff=512,
        dropout=0.1,
        norm_first=True,
        input_tokenizer=None,
        target_tokenizer=None,
        name="seq2seq_transformer",
        **kwargs,
    ):
        input_vocab_size, target_vocab_size, max_seq_length, num_layers = check_sizes(
            input_vocab_size=input_vocab_size,
            target_vocab_size=target_vocab_size,
            max_seq_length=max_seq_length,
            num_layers=num_layers,
        )
        check_share("dropout", dropout)
        check_tokenizer("input_tokenizer", input_tokenizer, input_vocab_size)
        check_tokenizer("target_tokenizer", target_tokenizer, target_vocab_size)
        source_embedding = PositionalEmbedding(input_vocab_size, max_seq_length, d_model)
        target_embedding = PositionalEmbedding(target_vocab_size, max_seq_length, d_model)
        source_dropout, target_dropout = Dropout(dropout), Dropout(dropout)
        settings = {"dropout": dropout, "norm_first": norm_first}
        encoder_layers = [
            TransformerEncoderLayer(num_heads, dff, name=f"encoder_{i + 1}", **settings)
            for i in range(num_layers)
        ]
        decoder_layers = [
            TransformerDecoderLayer(num_heads, dff, name=f"decoder_{i + 1}", **settings)
            for i in range(num_layers)
        ]
        # What has only been added to must be normalised in the end.
        encoder_norm, decoder_norm = (
            layers.LayerNormalization(epsilon=1e-6, name=name) if norm_first else layers.Identity()
            for name in ("encoder_norm", "decoder_norm")
        )
        head = layers.Dense(target_vocab_size, name="logits")

        source = keras.Input((None,), dtype="int32", name="source")
        target = keras.Input((None,), dtype="int32", name="target")
        mask = ops.not_equal(source, PADDING)
        context = source_dropout(source_embedding(source))  # (batch, m, d_model)
        for layer in encoder_layers:
            context = layer(context, mask=mask)
        context = encoder_norm(context)
        x = target_dropout(target_embedding(target))  # (batch, n, d_model)
        for layer in decoder_layers:
            x = layer(x, context, context_mask=mask)
        super().__init__([source, target], head(decoder_norm(x)), name=name, **kwargs)
        self.encoder = keras.Model(source, context, name="encoder")

        self.target_embedding, self.decoder_layers = target_embedding, decoder_layers
        self.decoder_norm, self.head = decoder_norm, head
        self.input_vocab_size, self.vocab_size = input_vocab_size, target_vocab_size
        self.context_length = max_seq_length
        self.input_tokenizer, self.target_tokenizer = input_tokenizer, target_tokenizer
        self.settings = {
            "input_vocab_size": input_vocab_size,
            "target_vocab_size": target_vocab_size,
            "max_seq_length": max_seq_length,
            "num_layers": num_layers,
            "d_model": target_embedding.d_model,
            "num_heads": decoder_layers[0].num_heads,
            "dff": decoder_layers[0].dff,
            "dropout": dropout,
            "norm_first": norm_first,
        }
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.nats_tracker = keras.metrics.Mean(name="nats")

    def compile(self, optimizer="adam", loss=None, **kwargs):
        """As `keras.Model.compile`; the loss is `MaskedCrossentropy(label_smoothing=0.1)`."""
        loss = loss or MaskedCrossentropy(label_smoothing=0.1)
        keras.Model.compile(self, optimizer, loss, **kwargs)
        self.optimizer.build(self.trainable_variables)
        # The loss is made by its first call. With several replicas Keras makes that call itself,
        # ahead of training and of the source alone, which fails.
        self.compute_loss(y=ops.ones((1, 1), "int32"), y_pred=ops.zeros((1, 1, self.vocab_size)))

    @property
    def metrics(self):
        return [self.loss_tracker, self.nats_tracker]

    def batch_loss(self, data, training):
        source, target, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        # What has been written so far is the right answer's (teacher forcing), one token behind.
        written, labels = target[:, :-1], target[:, 1:]
        logits = self([source, written], training=training)
        loss = self.compute_loss(y=labels, y_pred=logits, sample_weight=sample_weight)
        num_tokens = ops.sum(ops.cast(labels != PADDING, "float32"))
        replicas = tf.distribute.get_strategy().num_replicas_in_sync  # Keras divides the loss by it
        self.loss_tracker.update_state(loss * replicas, num_tokens)
        self.nats_tracker.update_state(MaskedCrossentropy()(labels, logits) * replicas, num_tokens)
        return loss, {metric.name: metric.result() for metric in self.metrics}

    def check_data(self, x, y):
        """Raise ValueError unless x and y are tokens of the vocabularies, not too many."""
        autoregressive.check_tokens("x", x, self.input_vocab_size, minimum=1)
        autoregressive.check_tokens("y", y, self.vocab_size, minimum=2)
        self._check_length("x", x)
        self._check_length("y", y)

    def _check_length(self, name, tokens):
        """Return the length of the longest row, padding apart, if the model can take it."""
        columns = np.any(np.asarray(tokens) != PADDING, axis=0)
        longest = int(np.max(np.flatnonzero(columns), initial=-1)) + 1
        if longest > self.context_length:
            raise ValueError(
                f"{name}: expected at most {self.context_length} tokens, as many as the model can "
                f"take, got {longest}."
            )
        return longest

    def initial_state(self, batch_size, max_length, conditioning):
        """Return keys and values of the source (batch, m), and room for max_length tokens."""
        mask = ops.not_equal(conditioning, PADDING)
        context = self.encoder(conditioning)
        decoder = [
            layer.initial_state(batch_size, max_length, context) for layer in self.decoder_layers
        ]
        return {"mask": mask, "layers": decoder}

    def step(self, tokens, state, position, length=None):
        """Read target tokens (batch, n); see `autoregressive`."""
        x, new = self.target_embedding(tokens, position), []
        for layer, old in zip(self.decoder_layers, state["layers"]):
            x, old = layer.step(x, old, position, state["mask"])
            new.append(old)
        return self.head(self.decoder_norm(x)), {**state, "layers": new}

    def translate(self, source, beam_width=1, length_penalty=0.6, max_length=None):
        """Write the likeliest target that is found for each source.

        Args:
            source: a text or a list of texts; or token ids, an array (batch, m) padded with 0.
            beam_width: how many beginnings are kept (Vaswani et al. 2017, section 6.1, keep 4); 1
                is greedy.
            length_penalty: see `autoregressive.beam_search`.
            max_length: tokens that are written at most; never more than max_seq_length - 1.

        Returns:
            A text, a list of texts, or int32 tokens (batch, n), filled with the end token.

        Raises:
            ValueError: for an empty source or one longer than max_seq_length, for ids outside the
                vocabulary, and for text if the model has no tokenizers.
        """
        texts = [source] if isinstance(source, str) else source
        if not isinstance(texts, (list, tuple)):
            return self._translate(source, beam_width, length_penalty, max_length)
        self._check_tokenizers()
        # Shortest first: a batch is as long as its longest source, and takes as many steps.
        sources = [self.input_tokenizer.encode(text) for text in texts]
        order = sorted(range(len(texts)), key=lambda i: len(sources[i]))
        targets = [None] * len(texts)
        for start in range(0, len(texts), TRANSLATION_BATCH):
            rows = order[start : start + TRANSLATION_BATCH]
            tokens = pad([sources[i] for i in rows])
            for i, row in zip(
                rows, self._translate(tokens, beam_width, length_penalty, max_length)
            ):
                written = autoregressive.until_end(row, 0, self.end_token)
                targets[i] = self.target_tokenizer.decode(written[written != self.end_token])
        return targets[0] if isinstance(source, str) else targets

    def _check_tokenizers(self):
        if self.input_tokenizer is None or self.target_tokenizer is None:
            raise ValueError("source: expected token ids, since the model has no tokenizers.")

    def _translate(self, source, beam_width, length_penalty, max_length):
        autoregressive.check_tokens("source", source, self.input_vocab_size, minimum=1)
        check_size("beam_width", beam_width)
        source = np.asarray(source)
        empty = np.flatnonzero(np.all(source == PADDING, axis=1))
        if len(empty):
            raise ValueError(
                f"source: expected at least one token, got nothing but padding in row {empty[0]}."
            )
        longest = self._check_length("source", source)
        # Few lengths, so that few functions are compiled.
        source = pad(list(source[:, :longest]), multiple=32)[:, : self.context_length]
        num_steps = self.context_length - 1 if max_length is None else max_length
        check_size("max_length", num_steps)
        num_steps = min(num_steps, self.context_length - 1)
        prompt = np.full((len(source), 1), self.start_token)
        settings = {"conditioning": source, "end_token": self.end_token}
        if beam_width == 1:
            greedy = autoregressive.GREEDY
            return autoregressive.generate(self, prompt, num_steps, greedy, **settings)[:, 1:]
        tokens, _ = autoregressive.beam_search(
            self, prompt, num_steps, beam_width, length_penalty, **settings
        )
        return tokens[:, 0, 1:]

    def attention_maps(self, source: str, target: str) -> dict:
        """Return which source tokens the decoder looks at while it writes a target.

        Returns:
            "source" and "target": lists of the m and n tokens, as texts; "weights": the weights of
            cross-attention (num_layers, num_heads, n, m), which of the source each target token was
            written from; each row sums to 1.

        Raises:
            ValueError: if the model has no tokenizers.
        """
        self._check_tokenizers()
        source = self.input_tokenizer.encode(source)
        target = np.append(self.target_tokenizer.encode(target), self.end_token)
        written = np.append(self.start_token, target[:-1])
        context = self.encoder(source[None])
        x, weights = self.target_embedding(written[None]), []
        for layer in self.decoder_layers:
            x, of_layer = layer.call_with_weights(x, context)
            weights.append(np.asarray(of_layer)[0])
        names = [self.input_tokenizer.decode([token]) for token in source]
        target_names = [self.target_tokenizer.decode([token]) for token in target]
        return {"source": names, "target": target_names, "weights": np.stack(weights)}

    def get_config(self):
        tokenizers = {
            name: tokenizer and keras.saving.serialize_keras_object(tokenizer)
            for name, tokenizer in (
                ("input_tokenizer", self.input_tokenizer),
                ("target_tokenizer", self.target_tokenizer),
            )
        }
        return {"name": self.name, **self.settings, **tokenizers}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        tokenizers = {
            name: keras.saving.deserialize_keras_object(config[name], custom_objects)
            for name in ("input_tokenizer", "target_tokenizer")
        }
        return cls(**{**config, **tokenizers})


def pad(sequences, multiple=1) -> np.ndarray:
    """Return sequences as an int32 array (batch, n), filled with padding at the end.

    n is the length of the longest, rounded up to a multiple.
    """
    longest = max(len(row) for row in sequences)
    padded = np.full((len(sequences), -(-longest // multiple) * multiple), PADDING, "int32")
    for row, sequence in zip(padded, sequences):
        row[: len(sequence)] = sequence
    return padded
