"""Transformer: article 1's Sequential model.

`build_transformer` maps tokens to a label per token, to the next token of a language model
(`causal=True`), or to one label per text (`pooling="mean"`). The layers are in `attention`, the
encoder–decoder for translation is in `seq2seq`; this module exports their public names too.

Corrected from article 1, section "Transformer 的实现":
- Keras has no `layers.Transformer`. Here the Transformer is a stack of encoder or decoder layers.
- The listing embeds tokens twice: in an `Embedding` layer, and in the Transformer that follows,
  which takes `input_vocab_size`. Here, `PositionalEmbedding` embeds them once.
- The listing has no mask. Here, padding is masked in attention, in the mean and in the loss.
"""

from functools import partial

import keras
from keras import layers, ops

from keras_genai.attention import (
    PAD_TOKEN_ID,
    CachedMultiHeadAttention,
    PositionalEmbedding,
    TransformerDecoderLayer,
    TransformerEncoderLayer,
    causal_mask,
    positional_encoding,
    positions_from,
    update_cache,
)
from keras_genai.models import Dropout
from keras_genai.seq2seq import (
    MaskedCrossentropy,
    Seq2SeqTransformer,
    TransformerSchedule,
    build_seq2seq_transformer,
)
from keras_genai.validation import check_choice, check_fraction, check_sizes

__all__ = [
    "PAD_TOKEN_ID",
    "CachedMultiHeadAttention",
    "MaskedCrossentropy",
    "MaskedGlobalAveragePooling1D",
    "PositionalEmbedding",
    "Seq2SeqTransformer",
    "TransformerDecoderLayer",
    "TransformerEncoderLayer",
    "TransformerSchedule",
    "build_seq2seq_transformer",
    "build_transformer",
    "causal_mask",
    "positional_encoding",
    "positions_from",
    "update_cache",
]


@keras.saving.register_keras_serializable(package="keras_genai")
class MaskedGlobalAveragePooling1D(layers.GlobalAveragePooling1D):
    """`keras.layers.GlobalAveragePooling1D` that returns 0 for a fully masked row.

    Keras divides 0 by 0 there: the output and the loss would be NaN.
    """

    def call(self, x, mask=None):
        if mask is None:
            return ops.mean(x, axis=1)
        mask = ops.cast(mask, x.dtype)[..., None]  # (batch, n, 1)
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

    The article names the arguments from `num_layers` to `dff` without giving values.

    Args:
        vocab_size: Int. Number of input tokens; 0 is padding.
        output_vocab_size: Int. Number of output tokens or classes.
        max_seq_length: Int. Length of the longest sequence.
        num_layers: Int. Number of Transformer layers. Defaults to `4`.
        d_model: Int, even. Width of the vectors. Defaults to `128`.
        num_heads: Int. Number of attention heads, a divisor of `d_model`. Defaults to `8`.
        dff: Int. Inner width of the feed-forward networks. Defaults to `512`.
        dropout: Float in [0, 1). Dropout rate of the embeddings and of the output of each sublayer.
            Defaults to `0.1`.
        causal: Bool. Whether attention is limited to the position itself and earlier ones, as a
            language model requires. Defaults to `False`.
        pooling: `"mean"` for one output per sequence, `None` for one per token. Defaults to `None`.

    Returns:
        A `keras.Sequential` that maps tokens `(batch, n)` to probabilities `(batch, n,
        output_vocab_size)`, or `(batch, output_vocab_size)` with pooling.

    Raises:
        ValueError: for a size below 1, a `d_model` that is odd or no multiple of `num_heads`, a
            `dropout` outside [0, 1), or an unknown `pooling`.

    Example:
        model = build_transformer(vocab_size, 2, max_seq_length, pooling="mean")
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(texts, labels)  # texts padded with 0
    """
    output_vocab_size, num_layers = check_sizes(
        output_vocab_size=output_vocab_size, num_layers=num_layers
    )
    check_fraction("dropout", dropout)
    check_choice("pooling", pooling, (None, "mean"))
    decoder_layer = partial(TransformerDecoderLayer, cross_attention=False)
    transformer_layer = decoder_layer if causal else TransformerEncoderLayer
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32", name="tokens"),
            PositionalEmbedding(vocab_size, max_seq_length, d_model),  # (batch, n, d_model)
            Dropout(dropout),
            *(transformer_layer(num_heads, dff, dropout=dropout) for _ in range(num_layers)),
            *([] if pooling is None else [MaskedGlobalAveragePooling1D()]),  # (batch, d_model)
            layers.Dense(output_vocab_size, activation="softmax", name="probabilities"),
        ],
        name="transformer",
    )
