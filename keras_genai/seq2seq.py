"""Encoder–decoder Transformer of Vaswani et al. 2017, for translation.

The encoder (figure 1, left) maps a source to a context; the decoder (right) predicts each token of
the target from the context and the tokens before it. Training and translation are those of
`translation_model`.

Corrected from article 1, section "Transformer 的实现": its Sequential model is meant for tasks such
as translation from sequence to sequence or natural language processing. A Sequential model has one
input, which suffices for labeling and language modeling; translation has two, the source and the
target so far. The listing ends at the architecture: loss, masks, start and end tokens are added.
"""

import keras
import numpy as np
from keras import layers, ops

from keras_genai.attention import TransformerDecoderLayer, TransformerEncoderLayer
from keras_genai.embeddings import PAD_TOKEN_ID, PositionalEmbedding
from keras_genai.random_state import Dropout
from keras_genai.translation_model import TranslationModel, check_vocabularies
from keras_genai.validation import check_fraction, check_size, check_sizes


@keras.saving.register_keras_serializable(package="keras_genai")
class TransformerSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate with linear warmup, then decay by 1 / sqrt(step).

    Vaswani et al. 2017, equation 3, with a peak of 1 / sqrt(d_model * warmup_steps):

        rate = d_model^-0.5 * min(step^-0.5, step * warmup_steps^-1.5)

    Args:
        d_model: Int. Width of the model's vectors.
        warmup_steps: Int. Number of steps until the peak. Defaults to `4000`.
        decay_steps: Int or `None`. If set, the rate is also multiplied by a factor that decreases
            linearly from 1 to 0 in this number of steps. In a short training, it replaces the
            paper's average of the last checkpoints (section 6.1). Defaults to `None`.
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


def _encode(source, embedding, dropout, encoder_layers, layer_norm):
    """Left half of figure 1: source tokens `(batch, m)` → context `(batch, m, d_model)`, mask."""
    mask = ops.not_equal(source, PAD_TOKEN_ID)  # (batch, m), False at padding
    x = dropout(embedding(source))  # (batch, m, d_model)
    for layer in encoder_layers:
        x = layer(x, mask=mask)  # (batch, m, d_model)
    return layer_norm(x), mask


def _decode(target, context, mask, embedding, dropout, decoder_layers, layer_norm, lm_head):
    """Right half of figure 1: target tokens `(batch, n)` → logits `(batch, n, vocab_size)`."""
    x = dropout(embedding(target))  # (batch, n, d_model)
    for layer in decoder_layers:
        x = layer(x, context, context_mask=mask)  # (batch, n, d_model)
    return lm_head(layer_norm(x))  # (batch, n, vocab_size)


@keras.saving.register_keras_serializable(package="keras_genai")
class Seq2SeqTransformer(TranslationModel):
    """Encoder–decoder Transformer from a source sequence to a target sequence.

    `fit(source, target)`, `translate` and the metrics are those of
    `translation_model.TranslationModel`.

    Args:
        input_vocab_size: Int. Number of source tokens; 0 is padding.
        target_vocab_size: Int. Number of target tokens; 0 is padding, 1 starts a target, 2 ends it.
        max_seq_length: Int. Length of the longest source or target.
        num_layers: Int. Number of encoder layers, and of decoder layers. Defaults to `4`.
        d_model: Int, even. Model dimension, the size of the vector of each token. Defaults to
            `128`.
        num_heads: Int. Number of attention heads, a divisor of `d_model`. Defaults to `8`.
        dff: Int. Inner width of the feed-forward networks. Defaults to `512`.
        dropout: Float in [0, 1). Dropout rate of the embeddings and of the output of each sublayer.
            Defaults to `0.1`.
        norm_first: Bool. Whether to normalize the input of each sublayer (pre-norm), or its sum
            with the output (post-norm), as in the paper. A post-norm model trained by the recipe
            `article1-transformer` failed: its encoder returned the same vector at every position.
            Defaults to `True`.
        input_tokenizer: Tokenizer of the source texts, saved with the model, or `None`.
        target_tokenizer: Tokenizer of the target texts, saved with the model, or `None`.
        name: String. Name of the model. Defaults to `"seq2seq_transformer"`.

    Raises:
        ValueError: for a size below 1, a `d_model` that is odd or not a multiple of `num_heads`, a
            `dropout` outside [0, 1), or a tokenizer with another vocabulary size.

    Example:
        model = Seq2SeqTransformer(4000, 4000, max_seq_length=80)
        rate = TransformerSchedule(d_model=128)
        model.compile(keras.optimizers.Adam(rate, beta_2=0.98, epsilon=1e-9))
        model.fit(source, target)
        model.translate("…")

    The stock `fit` of a functional model takes the decoder input and the labels separately:

        stock = keras.Model(model.inputs, model.outputs)
        stock.compile("adam", MaskedCrossentropy(label_smoothing=0.1))
        stock.fit([source, target[:, :-1]], target[:, 1:])
    """

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
        vocabularies = input_vocab_size, target_vocab_size, max_seq_length
        vocabularies = check_vocabularies(*vocabularies, input_tokenizer, target_tokenizer)
        input_vocab_size, target_vocab_size, max_seq_length = vocabularies
        num_layers = check_size("num_layers", num_layers)
        dropout = check_fraction("dropout", dropout)

        # Layers.
        source_embedding = PositionalEmbedding(
            input_vocab_size, max_seq_length, d_model, name="source_embedding"
        )
        target_embedding = PositionalEmbedding(
            target_vocab_size, max_seq_length, d_model, name="target_embedding"
        )
        source_dropout, target_dropout = Dropout(dropout), Dropout(dropout)
        layer_config = {"dropout": dropout, "norm_first": norm_first}
        encoder_layers = [
            TransformerEncoderLayer(num_heads, dff, name=f"encoder_layer_{i + 1}", **layer_config)
            for i in range(num_layers)
        ]
        decoder_layers = [
            TransformerDecoderLayer(num_heads, dff, name=f"decoder_layer_{i + 1}", **layer_config)
            for i in range(num_layers)
        ]
        # The output of a pre-norm stack is an unnormalized sum: it needs a final layer norm.
        encoder_layer_norm, decoder_layer_norm = (
            layers.LayerNormalization(epsilon=1e-6, name=name) if norm_first else layers.Identity()
            for name in ("encoder_layer_norm", "decoder_layer_norm")
        )
        lm_head = layers.Dense(target_vocab_size, dtype=keras.config.floatx(), name="lm_head")

        # Graph.
        encoder_parts = (source_embedding, source_dropout, encoder_layers, encoder_layer_norm)
        decoder_parts = (
            target_embedding, target_dropout, decoder_layers, decoder_layer_norm, lm_head
        )  # fmt: skip
        source = keras.Input((None,), dtype="int32", name="source")  # (batch, m)
        target = keras.Input((None,), dtype="int32", name="target")  # (batch, n)
        context, source_mask = _encode(source, *encoder_parts)
        logits = _decode(target, context, source_mask, *decoder_parts)
        config = {
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
        tokenizers = input_tokenizer, target_tokenizer
        super().__init__([source, target], logits, config, *tokenizers, name=name, **kwargs)

        # Attributes.
        self.encoder = keras.Model(source, context, name="encoder")
        self.target_embedding, self.decoder_layers = target_embedding, decoder_layers
        self.decoder_layer_norm, self.lm_head = decoder_layer_norm, lm_head

    # Translation.

    def initial_state(self, batch_size, max_length, conditioning):
        """Encode sources `(batch, m)`; see `autoregressive.AutoregressiveModel`."""
        context = self.encoder(conditioning)  # (batch, m, d_model)
        states = [
            layer.initial_state(batch_size, max_length, context) for layer in self.decoder_layers
        ]
        return {"mask": ops.not_equal(conditioning, PAD_TOKEN_ID), "layers": states}

    def step(self, tokens, state, position, length=None):
        """Process target tokens `(batch, n)`; see `autoregressive.AutoregressiveModel`."""
        x, states = self.target_embedding(tokens, position=position), []
        for layer, layer_state in zip(self.decoder_layers, state["layers"], strict=True):
            x, layer_state = layer.step(x, layer_state, position, state["mask"])
            states.append(layer_state)
        return self.lm_head(self.decoder_layer_norm(x)), {**state, "layers": states}

    def cross_attention(self, source, target):
        context = self.encoder(source)  # (1, m, d_model)
        x, weights = self.target_embedding(target), []
        for layer in self.decoder_layers:
            x, scores = layer(x, context, return_attention_scores=True)
            weights.append(np.asarray(scores)[0])
        return np.stack(weights)


build_seq2seq_transformer = Seq2SeqTransformer  # under a builder's name, like `build_vae`
