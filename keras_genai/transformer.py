"""Transformer: article 1's Sequential model.

`build_transformer` maps tokens to a label per token, to the next token of a language model
(`causal=True`), or to one label per text (`pooling="mean"`). The layers are in `attention` and
`embeddings`, the encoder–decoder for translation is in `seq2seq`; this module exports their public
names too.

Corrected from article 1, section "Transformer 的实现":
- Keras has no `layers.Transformer`. Here the Transformer is a stack of encoder or decoder layers.
- The listing embeds tokens twice: in an `Embedding` layer, and in the Transformer that follows,
  which takes `input_vocab_size`. Here, `PositionalEmbedding` embeds them once.
- The listing has no mask. Here, padding is masked in attention, in the mean and in the loss.
"""

from functools import partial

import keras
import numpy as np
from keras import layers, ops

from keras_genai.attention import (
    CachedMultiHeadAttention,
    TransformerDecoderLayer,
    TransformerEncoderLayer,
    causal_mask,
    update_cache,
)
from keras_genai.embeddings import (
    PAD_TOKEN_ID,
    PositionalEmbedding,
    positional_encoding,
    positions_from,
)
from keras_genai.language_model import MaskedCrossentropy, TokenModelMixin, mask_padding
from keras_genai.models import ValidationMixin
from keras_genai.random_state import Dropout
from keras_genai.seq2seq import (
    Seq2SeqTransformer,
    TransformerSchedule,
    build_seq2seq_transformer,
)
from keras_genai.validation import (
    check_bools,
    check_choice,
    check_fraction,
    check_range,
    check_sizes,
    check_token_array,
)

__all__ = [
    "PAD_TOKEN_ID",
    "CachedMultiHeadAttention",
    "MaskedCrossentropy",
    "MaskedGlobalAveragePooling1D",
    "PositionalEmbedding",
    "Seq2SeqTransformer",
    "SequentialTransformer",
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
        dtype = keras.config.floatx()  # a sum over many positions exceeds float16's precision
        mask = ops.cast(mask, dtype)[..., None]  # (batch, n, 1)
        total = ops.sum(ops.cast(x, dtype) * mask, axis=1)
        return ops.cast(total / ops.maximum(ops.sum(mask, axis=1), 1), x.dtype)


@keras.saving.register_keras_serializable(package="keras_genai")
class SequentialTransformer(TokenModelMixin, ValidationMixin, keras.Sequential):
    """The Sequential model of `build_transformer`, which checks its data and excludes padding.

    `fit(x, y)` takes token ids `(batch, n)`, and labels or probabilities of the output's shape. It
    raises a ValueError for ids and labels out of range, except for labels of the loss's
    `ignore_class`, for sequences longer than `max_seq_length`, and for other shapes. Sample weights
    are `(batch,)`, or `(batch, n)` for an output per token.

    Padding is excluded from the loss, whichever it is, and from the metrics of `compile`:

    - where the input is padding, as in every Keras model with masking;
    - in a language model, also where the label is 0, which pads the texts. A language model is
      causal, has no pooling, and as many output tokens as input tokens. In other models, label 0
      may be a class.

    `keras.models.clone_model` returns a plain `keras.Sequential`, which lacks all of this; copy a
    model with `copy.deepcopy`, or `SequentialTransformer.from_config(model.get_config())`.
    """

    @property
    def is_language_model(self) -> bool:
        """Whether the model predicts the next token of its own vocabulary."""
        causal = any(isinstance(layer, TransformerDecoderLayer) for layer in self.layers)
        embedding = self.layers[0]
        return (
            causal
            and isinstance(embedding, PositionalEmbedding)
            and self.output_shape[1:] == (None, embedding.vocab_size)
        )

    def compile(self, optimizer="rmsprop", loss=None, *args, **kwargs):
        """Configure training like `keras.Model.compile`.

        Raises:
            ValueError: for a loss of logits, if the last layer returns probabilities.
        """
        of_logits = isinstance(loss, MaskedCrossentropy) or getattr(loss, "from_logits", False)
        last = self.layers[-1] if self.layers else None
        softmax = getattr(last, "activation", None) is keras.activations.softmax
        if of_logits and (softmax or isinstance(last, keras.layers.Softmax)):
            raise ValueError(
                "loss: expected one of probabilities, such as 'sparse_categorical_crossentropy', "
                f"got {type(loss).__name__} of logits."
            )
        super().compile(optimizer, loss, *args, **kwargs)

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)  # which the file's state is loaded into

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        if self.is_language_model:
            one_hot = len(y.shape) == 3 and y.shape[-1] > 1
            labels = ops.argmax(y, axis=-1) if one_hot else ops.reshape(y, ops.shape(y)[:2])
            mask_padding(labels, y_pred)  # also for the metrics, which are computed afterwards
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def check_inputs(self, x):
        """Raise ValueError unless x is an array of token ids that the model can take."""
        embedding = self.layers[0]
        if isinstance(embedding, PositionalEmbedding):
            check_token_array("x", x, embedding.vocab_size, maximum=embedding.max_seq_length)

    def check_data(self, x, y):
        """Raise ValueError unless x and y are token ids and labels or probabilities."""
        self.check_inputs(x)
        *_, num_outputs = self.output_shape
        shape = np.shape(x)[: len(self.output_shape) - 1]
        if y is None or isinstance(y, (list, tuple, dict)):
            raise ValueError(f"y: expected labels {shape}, got {type(y).__name__}.")
        y = np.asarray(y)
        if y.shape != (*shape, num_outputs):
            if y.shape not in (shape, (*shape, 1)):
                raise ValueError(
                    f"y: expected labels {shape} or probabilities {(*shape, num_outputs)}, "
                    f"got shape {y.shape}."
                )
            check_range("y", y[y != self.ignored_label], num_outputs, "labels")


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
) -> SequentialTransformer:
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
            language model requires, whose labels 0 are padding: no loss counts them. Defaults to
            `False`.
        pooling: `"mean"` for one output per sequence, `None` for one per token. Defaults to `None`.

    Returns:
        A `SequentialTransformer`, a subclass of `keras.Sequential`, that maps tokens `(batch, n)`
        to probabilities `(batch, n, output_vocab_size)`, or `(batch, output_vocab_size)` with
        pooling.

    Raises:
        ValueError: for a size below 1, a `d_model` that is odd or not a multiple of `num_heads`, a
            `dropout` outside [0, 1), or an unknown `pooling`.

    Example:
        model = build_transformer(vocab_size, 2, max_seq_length, pooling="mean")
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(texts, labels)  # texts padded with 0
    """
    output_vocab_size, num_layers = check_sizes(
        output_vocab_size=output_vocab_size, num_layers=num_layers
    )
    dropout = check_fraction("dropout", dropout)
    check_bools(causal=causal)
    check_choice("pooling", pooling, (None, "mean"))
    decoder_layer = partial(TransformerDecoderLayer, cross_attention=False)
    transformer_layer = decoder_layer if causal else TransformerEncoderLayer
    return SequentialTransformer(
        [
            keras.Input((None,), dtype="int32", name="tokens"),
            PositionalEmbedding(vocab_size, max_seq_length, d_model),  # (batch, n, d_model)
            Dropout(dropout),
            *(transformer_layer(num_heads, dff, dropout=dropout) for _ in range(num_layers)),
            *([] if pooling is None else [MaskedGlobalAveragePooling1D()]),  # (batch, d_model)
            layers.Dense(
                output_vocab_size,
                activation="softmax",
                dtype=keras.config.floatx(),
                name="probabilities",
            ),
        ],
        name="transformer",
    )
