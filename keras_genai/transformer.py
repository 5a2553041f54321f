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

import typing
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
from keras_genai.text import check_tokenizer, encode_texts
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

    A model with `pooling` classifies texts. With a tokenizer, which is saved in its file, it takes
    strings: `classify`, `attention_maps`, `token_importance`.

    `keras.models.clone_model` returns a plain `keras.Sequential`, which lacks all of this; copy a
    model with `copy.deepcopy`, or `SequentialTransformer.from_config(model.get_config())`.

    Attributes:
        tokenizer: Tokenizer of `text`, or `None`.
        class_names: Tuple of strings, the names of the output classes, or `None`.
    """

    tokenizer: typing.Any = None
    class_names: tuple[str, ...] | None = None

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

    @property
    def is_classifier(self) -> bool:
        """Whether the model has a tokenizer, and one output per text."""
        return self.tokenizer is not None and len(self.output_shape) == 2

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

    def get_config(self):
        config = super().get_config()
        if self.tokenizer is not None:
            config["tokenizer"] = keras.saving.serialize_keras_object(self.tokenizer)
        if self.class_names is not None:
            config["class_names"] = list(self.class_names)
        return config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)  # that of a file before version 0.3 has neither
        tokenizer, class_names = config.pop("tokenizer", None), config.pop("class_names", None)
        model = super().from_config(config, custom_objects)
        model.tokenizer = keras.saving.deserialize_keras_object(tokenizer)
        model.class_names = None if class_names is None else tuple(class_names)
        return model

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

    # Classification of texts.

    def classify(self, text):
        """Return the likeliest class of each text, and the probabilities of all classes.

        A text of more than `max_seq_length` tokens is split into parts of about equal length, whose
        probabilities are averaged.

        Args:
            text: String, or list of m strings.

        Returns:
            Tuple of the class and the probabilities `(num_classes,)` of a string; of a list, a list
            of m classes and probabilities `(m, num_classes)`. A class is its name, or its index if
            the model has no `class_names`.

        Raises:
            ValueError: for a text without tokens, and for a model without tokenizer or `pooling`.
        """
        texts = [text] if isinstance(text, str) else text
        if not isinstance(texts, (list, tuple)) or not texts:
            raise ValueError(f"text: expected a string or a list of strings, got {text!r:.200}.")
        sequences = self._encode(texts)
        limit = self.layers[0].max_seq_length
        parts = [np.array_split(tokens, -(-len(tokens) // limit)) for tokens in sequences]
        passages = [passage for part in parts for passage in part]
        probabilities = self._predict(passages)  # (number of parts, num_classes)
        ends = np.cumsum([len(part) for part in parts])
        probabilities = np.stack([p.mean(axis=0) for p in np.split(probabilities, ends[:-1])])
        classes = [self._class(index) for index in probabilities.argmax(axis=-1)]
        return (classes[0], probabilities[0]) if isinstance(text, str) else (classes, probabilities)

    def attention_maps(self, text: str) -> dict:
        """Return the self-attention scores between the tokens of a text.

        Args:
            text: String of n tokens, at most `max_seq_length`.

        Returns:
            Dict of `"source"` and `"target"`, both the list of the n tokens as strings, and
            `"weights"`, a float array `(num_layers, num_heads, n, n)`: the attention of each token
            (row) to each token (column). Each row sums to 1. `plotting.plot_attention` plots it.

        Raises:
            ValueError: as `classify`, and for a longer text.
        """
        tokens = self._encode_passage(text)
        names = [self.tokenizer.decode([token]) for token in tokens]
        return {"source": names, "target": names, "weights": self._self_attention(tokens)}

    def token_importance(self, text: str) -> dict:
        """Return two measures of the importance of each token for the class of a text.

        Attention shows where a layer takes its values from, which is no explanation of the output
        (Jain & Wallace 2019). Occlusion measures the output itself (Zeiler & Fergus 2014).

        Args:
            text: String of n tokens, at most `max_seq_length`.

        Returns:
            Dict of `"tokens"`, a list of n strings; `"class"`, the likeliest class; `"attention"`,
            a float array `(n,)`, the mean attention to each token over layers, heads and positions,
            which sums to 1; and `"occlusion"`, a float array `(n,)`, in nats: how much lower the
            log-probability of the class is if the token is replaced by padding.

        Raises:
            ValueError: as `attention_maps`.
        """
        tokens = self._encode_passage(text)
        maps = self.attention_maps(text)
        occluded = np.where(np.eye(len(tokens), dtype=bool), PAD_TOKEN_ID, tokens)  # (n, n)
        probabilities = self._predict([tokens, *occluded])  # (n + 1, num_classes)
        index = int(probabilities[0].argmax())
        log_probs = np.log(np.maximum(probabilities[:, index], np.finfo("float32").tiny))
        return {
            "tokens": maps["source"],
            "class": self._class(index),
            "attention": maps["weights"].mean(axis=(0, 1, 2)),
            "occlusion": log_probs[0] - log_probs[1:],
        }

    def _predict(self, passages):
        """Return the probabilities of a list of token sequences."""
        # A length of a multiple of 32: few different lengths, so that few functions are compiled.
        length = min(-(-max(map(len, passages)) // 32) * 32, self.layers[0].max_seq_length)
        passages = keras.utils.pad_sequences(passages, length, padding="post")
        return self.predict(passages, verbose=0)

    def _self_attention(self, tokens):
        """Return the scores of tokens `(n,)`, `(num_layers, num_heads, n, n)`."""
        x, weights = ops.convert_to_tensor(tokens[None]), []
        for layer in self.layers:
            if isinstance(layer, (TransformerEncoderLayer, TransformerDecoderLayer)):
                x, scores = layer(x, return_attention_scores=True)
                weights.append(np.asarray(ops.convert_to_numpy(scores))[0])
            else:
                x = layer(x)
        return np.stack(weights)

    def _class(self, index):
        return int(index) if self.class_names is None else self.class_names[index]

    def _encode(self, texts) -> list[np.ndarray]:
        """Return the tokens of texts, at least one of each."""
        if self.tokenizer is None:
            raise ValueError("tokenizer: expected that of the texts, but the model has none.")
        if len(self.output_shape) != 2:
            raise ValueError("pooling: expected 'mean', for one class per text, got None.")
        sequences = encode_texts("text", self.tokenizer, texts)
        for text, tokens in zip(texts, sequences, strict=True):
            if not np.any(tokens != PAD_TOKEN_ID):
                raise ValueError(f"text: expected at least one token, got none in {text!r:.60}.")
        return sequences

    def _encode_passage(self, text) -> np.ndarray:
        """Return the tokens of a text that the model can take as a whole."""
        (tokens,), limit = self._encode([text]), self.layers[0].max_seq_length
        if len(tokens) > limit:
            raise ValueError(
                f"text: expected at most {limit} tokens, as many as the model can take, got "
                f"{len(tokens)}."
            )
        return tokens


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
    tokenizer=None,
    class_names=None,
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
        tokenizer: Tokenizer of the texts, saved with the model, or `None`. Defaults to `None`.
        class_names: List of strings, the names of the output classes, saved with the model, or
            `None`. Defaults to `None`.

    Returns:
        A `SequentialTransformer`, a subclass of `keras.Sequential`, that maps tokens `(batch, n)`
        to probabilities `(batch, n, output_vocab_size)`, or `(batch, output_vocab_size)` with
        pooling.

    Raises:
        ValueError: for a size below 1, a `d_model` that is odd or not a multiple of `num_heads`, a
            `dropout` outside [0, 1), an unknown `pooling`, a tokenizer of another vocabulary size,
            or another number of names than of classes.

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
    check_tokenizer("tokenizer", tokenizer, vocab_size)
    class_names = _check_class_names(class_names, output_vocab_size)
    decoder_layer = partial(TransformerDecoderLayer, cross_attention=False)
    transformer_layer = decoder_layer if causal else TransformerEncoderLayer
    model = SequentialTransformer(
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
    model.tokenizer, model.class_names = tokenizer, class_names
    return model


def _check_class_names(class_names, num_classes: int) -> tuple[str, ...] | None:
    """Return the names of all classes as a tuple; raise ValueError for others."""
    if class_names is None:
        return None
    if not isinstance(class_names, (list, tuple)) or not all(
        isinstance(name, str) for name in class_names
    ):
        raise ValueError(f"class_names: expected a list of strings, got {class_names!r:.200}.")
    if len(class_names) != num_classes or len(set(class_names)) != num_classes:
        raise ValueError(
            f"class_names: expected {num_classes} different names, one for each class, got "
            f"{list(class_names)!r:.200}."
        )
    return tuple(class_names)
