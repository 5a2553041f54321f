"""Embeddings of tokens and positions, in which an index outside the table gives NaN.

A gather outside its table raises an error on a CPU. Compiled with XLA it is clamped to the last
row, and on a GPU it returns zeros, without an error. Here such a vector is NaN, and so is the loss.
The models check their data first: this is the second line of defense, for layers used alone.
"""

import keras
import numpy as np
from keras import layers, ops

from keras_genai.dense import matmul_int8
from keras_genai.layer_state import LayerStateMixin
from keras_genai.validation import check_bools, check_size, check_sizes

PAD_TOKEN_ID = 0


def lookup(table, indices):
    """Return the rows `(…, d)` of a table `(n, d)` at int indices; NaN outside 0 … n - 1."""
    return _nan_outside(ops.take(table, indices, axis=0), indices, table.shape[0])


def _nan_outside(vectors, indices, size):
    valid = ops.logical_and(indices >= 0, indices < size)
    return ops.where(valid[..., None], vectors, ops.cast(np.nan, vectors.dtype))


@keras.saving.register_keras_serializable(package="keras_genai")
class Embedding(layers.Embedding):
    """`keras.layers.Embedding` whose vectors are NaN for ids outside the vocabulary."""

    def __init__(self, input_dim, output_dim, embeddings_initializer="uniform", **kwargs):
        super().__init__(input_dim, output_dim, embeddings_initializer, **kwargs)

    def call(self, inputs):
        return self._embed(super().call, inputs)

    def quantized_call(self, inputs):
        return self._embed(super().quantized_call, inputs)

    def _embed(self, embed, tokens):
        tokens = ops.cast(tokens, "int32")
        return _nan_outside(embed(tokens), tokens, self.input_dim)

    def quantize(self, mode=None, type_check=True, **kwargs):
        super().quantize(mode, type_check=False, **kwargs)  # which Keras refuses to subclasses


@keras.saving.register_keras_serializable(package="keras_genai")
class ReversibleEmbedding(Embedding):
    """Embedding that also projects vectors back to logits over the vocabulary.

    `layer(tokens)` embeds; `layer(x, reverse=True)` maps x `(batch, n, output_dim)` to logits
    `(batch, n, input_dim)`, computed in `keras.config.floatx()` whatever the precision of x. The
    weights have the layout of `keras.layers.ReversibleEmbedding`, which older versions lack.

    Args:
        input_dim: Int. Number of tokens in the vocabulary.
        output_dim: Int. Size of the vectors.
        tie_weights: Bool. Whether the projection uses the transposed table (Press & Wolf 2017), or
            a kernel of its own, which quantization leaves in full precision. Defaults to `True`.
        embeddings_initializer: Initializer of both. Defaults to `"uniform"`.
        **kwargs: Other arguments of `keras.layers.Embedding`.
    """

    def __init__(
        self, input_dim, output_dim, tie_weights=True, embeddings_initializer="uniform", **kwargs
    ):
        super().__init__(input_dim, output_dim, embeddings_initializer, **kwargs)
        self.tie_weights = tie_weights

    def build(self, input_shape=None):
        if self.built:
            return
        super().build(input_shape)
        if not self.tie_weights:
            initializer = self.embeddings_initializer.clone()
            self.reverse_embeddings = self.add_weight(
                (self.output_dim, self.input_dim), initializer, name="reverse_embeddings"
            )

    def call(self, inputs, reverse=False):
        if not reverse:
            return super().call(inputs)
        kernel = ops.transpose(self.embeddings) if self.tie_weights else self.reverse_embeddings
        return _project(inputs, kernel)

    def quantized_call(self, inputs, reverse=False):
        if not reverse:
            return super().quantized_call(inputs)
        if not self.tie_weights:
            return _project(inputs, self.reverse_embeddings)
        if self.quantization_mode != "int8":
            table = layers.Embedding.quantized_call(self, ops.arange(self.input_dim))
            return _project(inputs, ops.transpose(table))
        x = ops.cast(inputs, keras.config.floatx())
        return matmul_int8(x, self._embeddings, self.embeddings_scale)

    def compute_output_spec(self, inputs, reverse=False):
        if not reverse:
            return keras.KerasTensor((*inputs.shape, self.output_dim), self.compute_dtype)
        return keras.KerasTensor((*inputs.shape[:-1], self.input_dim), keras.config.floatx())

    def compute_output_shape(self, input_shape, reverse=False):
        if reverse:
            return (*input_shape[:-1], self.input_dim)
        return (*input_shape, self.output_dim)

    def save_own_variables(self, store):
        super().save_own_variables(store)
        if self.built and not self.tie_weights:
            store[str(len(store.keys()))] = self.reverse_embeddings

    def load_own_variables(self, store):
        super().load_own_variables(store)
        if self.built and not self.tie_weights:
            self.reverse_embeddings.assign(store[str(len(store.keys()) - 1)])

    def get_config(self):
        return {**super().get_config(), "tie_weights": self.tie_weights}


def _project(x, kernel):
    dtype = keras.config.floatx()
    return ops.matmul(ops.cast(x, dtype), ops.cast(kernel, dtype))


@keras.saving.register_keras_serializable(package="keras_genai")
class PositionalEmbedding(LayerStateMixin, layers.Layer):
    """Token embedding plus sinusoidal positional encoding.

    Maps tokens `(batch, n)` to vectors `(batch, n, d_model)`. The embedding is multiplied by
    `sqrt(d_model)`, which gives it variance 1 (Vaswani et al. 2017, section 3.4), then the encoding
    is added (section 3.5).
    The mask of the output, False at padding, is passed on to the layers that follow. Where a
    compiled gather would take an id or a position outside its table, the output is NaN.

    Args:
        vocab_size: Int. Number of tokens in the vocabulary.
        max_seq_length: Int. Length of the longest sequence.
        d_model: Int, even. Model dimension, the size of the vector of each token.
        add_positions: Bool. Whether to add the positional encoding. Without it, only a causal mask
            carries information about the order. Defaults to `True`.
    """

    def __init__(self, vocab_size, max_seq_length, d_model, add_positions=True, **kwargs):
        super().__init__(**kwargs)
        vocab_size, max_seq_length, d_model = check_sizes(
            vocab_size=vocab_size, max_seq_length=max_seq_length, d_model=d_model
        )
        self.encoding = positional_encoding(max_seq_length, d_model)
        self.vocab_size, self.max_seq_length, self.d_model = vocab_size, max_seq_length, d_model
        check_bools(add_positions=add_positions)
        self.add_positions = add_positions
        self.supports_masking = True
        initializer = keras.initializers.RandomNormal(stddev=d_model**-0.5)
        self.embedding = Embedding(vocab_size, d_model, initializer, dtype=self.dtype_policy)

    def build(self, input_shape):
        self.embedding.build(input_shape)

    def call(self, tokens, position=0):
        """Embed tokens `(batch, n)`, the first of which is at `position`."""
        x = self.embedding(tokens) * self.d_model**0.5  # (batch, n, d_model)
        if not self.add_positions:
            return x
        positions = positions_from(position, ops.shape(tokens)[1], self.max_seq_length)
        return x + lookup(ops.cast(self.encoding, x.dtype), positions)

    def compute_mask(self, tokens, mask=None):
        return ops.not_equal(tokens, PAD_TOKEN_ID)

    def compute_output_shape(self, input_shape):
        return (*input_shape, self.d_model)

    def get_config(self):
        return {
            **super().get_config(),
            "vocab_size": self.vocab_size,
            "max_seq_length": self.max_seq_length,
            "d_model": self.d_model,
            "add_positions": self.add_positions,
        }


def positions_from(position, length, max_length: int):
    """Return the positions `position`, `position + 1`, … as an int tensor `(length,)`.

    Raises:
        ValueError: if the last position exceeds `max_length - 1`, for Python integers. Tensors are
            checked by the `lookup` that follows.
    """
    if isinstance(position, int) and isinstance(length, int) and position + length > max_length:
        raise ValueError(
            f"tokens: expected at most {max_length}, as many as the model can take, "
            f"got {position + length}."
        )
    return position + ops.arange(length)


def positional_encoding(length: int, d_model: int) -> np.ndarray:
    """Return the sinusoidal encoding of positions 0 to `length - 1`, `(length, d_model)`.

    Vaswani et al. 2017, section 3.5, whose columns have wavelengths from 2 pi to 10000 * 2 pi:

        PE(pos, 2i)     = sin(pos / 10000^(2i / d_model))
        PE(pos, 2i + 1) = cos(pos / 10000^(2i / d_model))
    """
    length, d_model = check_size("length", length, 0), check_size("d_model", d_model)
    if d_model % 2:
        raise ValueError(f"d_model: expected an even number, got {d_model}.")
    frequencies = 10000.0 ** (-np.arange(0, d_model, 2) / d_model)
    angles = np.arange(length)[:, None] * frequencies  # (length, d_model / 2)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, d_model)
