"""Encoder–decoder of LSTMs for translation, with and without attention: article 3, section 2.

The encoder, an LSTM in each direction, reads the source. Without attention (Sutskever et al. 2014),
the decoder, another LSTM, starts from the encoder's last state: one vector of fixed size, whatever
the length of the source. With attention (Bahdanau et al. 2015), it computes a context vector for
each target token, a weighted mean of the encoder's outputs h_1 … h_m (equations 5 and 6):

    e_ij  = v . tanh(W s_(i-1) + U h_j)        (appendix A.1.2)
    a_ij  = exp(e_ij) / sum_k exp(e_ik)
    c_i   = sum_j a_ij h_j

where s_(i-1) is the state of the decoder before target token i. Training and translation are those
of `translation_model`.

Differences from the papers: LSTMs in place of the gated units of Bahdanau et al.; the first state
of the decoder comes from both directions of the encoder, theirs from the backward one; the output
depends on the state after the token's step, not before it, and has tanh units in place of maxout
ones. Sutskever et al. have four layers, whose encoder reads the reversed source in one direction.
"""

import keras
import tensorflow as tf
from keras import layers, ops

from keras_genai.embeddings import PAD_TOKEN_ID, Embedding
from keras_genai.random_state import Dropout
from keras_genai.translation_model import TranslationModel, check_vocabularies
from keras_genai.validation import check_bools, check_fraction, check_sizes


@keras.saving.register_keras_serializable(package="keras_genai")
class AttentionLSTM(layers.Layer):
    """LSTM that attends to a context at each step (Bahdanau et al. 2015, section 3.1).

    Args:
        units: Int. Size of the state.
        attention_units: Int. Size of the hidden layer of the attention scores.
        **kwargs: Other arguments of `keras.layers.Layer`.

    Raises:
        ValueError: for a size below 1.
    """

    def __init__(self, units, attention_units, **kwargs):
        super().__init__(**kwargs)
        self.units, self.attention_units = check_sizes(units=units, attention_units=attention_units)
        self.cell = layers.LSTMCell(self.units, dtype=self.dtype_policy, name="cell")
        dense = {"use_bias": False, "dtype": self.dtype_policy}
        self.query = layers.Dense(self.attention_units, name="query", **dense)  # W
        self.key = layers.Dense(self.attention_units, name="key", **dense)  # U
        self.score = layers.Dense(1, name="score", **dense)  # v
        self.supports_masking = True  # the mask of the context is an argument

    def build(self, x_shape, context_shape):
        self.cell.build((x_shape[0], x_shape[-1] + context_shape[-1]))
        self.query.build((x_shape[0], self.units))
        self.key.build(context_shape)
        self.score.build((*context_shape[:-1], self.attention_units))

    def call(self, x, context, state, mask=None, keys=None, length=None):
        """Process inputs of n steps.

        Args:
            x: Tensor `(batch, n, d)`. Inputs.
            context: Tensor `(batch, m, k)`. Vectors that are attended to.
            state: List of the tensors h and c, `(batch, units)` each.
            mask: Bool tensor `(batch, m)`, `True` where the context is valid, or `None`. Defaults
                to `None`.
            keys: Tensor `(batch, m, attention_units)`: `self.key(context)`, or `None` to compute
                it. Defaults to `None`.
            length: Scalar int tensor or `None`. Number of valid steps; later ones keep the state.
                Defaults to `None`, all.

        Returns:
            `(outputs, scores, state)`: `(batch, n, units + k)`, the output of the LSTM and the
            context vector of each step; attention scores `(batch, n, m)`; and the last state.
        """
        keys = self.key(context) if keys is None else keys
        num_steps = ops.shape(x)[1]
        valid = tf.range(num_steps) < (num_steps if length is None else length)

        def step(previous, inputs):
            x, is_valid = inputs  # (batch, d), ()
            h, c, *_ = previous
            scores, context_vector = self.attend(h, context, keys, mask)
            inputs = ops.concatenate([x, context_vector], axis=-1)
            _, (new_h, new_c) = self.cell(inputs, [h, c])
            h, c = ops.where(is_valid, new_h, h), ops.where(is_valid, new_c, c)
            return h, c, context_vector, scores

        before = (*state, ops.zeros_like(context[:, 0]), ops.zeros_like(context[:, :, 0]))
        h, c, context_vectors, scores = tf.scan(step, (ops.swapaxes(x, 0, 1), valid), before)
        outputs = ops.swapaxes(ops.concatenate([h, context_vectors], axis=-1), 0, 1)
        return outputs, ops.swapaxes(scores, 0, 1), [h[-1], c[-1]]

    def compute_mask(self, *args, **kwargs):
        return None, None, None  # every step of the target is computed

    def attend(self, h, context, keys, mask):
        """Return the scores `(batch, m)` and the context vector `(batch, k)` of states h."""
        energies = self.score(ops.tanh(self.query(h)[:, None] + keys))[..., 0]  # e_ij
        if mask is not None:  # finite, so that a row of padding gives no NaN
            energies = ops.where(mask, energies, -1e4)
        scores = ops.softmax(energies, axis=-1)  # a_ij
        return scores, ops.einsum("bm,bmk->bk", scores, context)  # c_i

    def get_config(self):
        config = {"units": self.units, "attention_units": self.attention_units}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="keras_genai")
class Seq2SeqLSTM(TranslationModel):
    """Encoder–decoder of LSTMs from a source sequence to a target sequence.

    `fit(source, target)`, `translate` and the metrics are those of
    `translation_model.TranslationModel`.

    Args:
        input_vocab_size: Int. Number of source tokens; 0 is padding.
        target_vocab_size: Int. Number of target tokens; 0 is padding, 1 starts a target, 2 ends it.
        max_seq_length: Int. Length of the longest source or target.
        attention: Bool. Whether the decoder attends to the source. Defaults to `True`.
        embed_dim: Int. Size of the token embeddings, and of the hidden layer before the logits.
            Defaults to `128`.
        units: Int. Size of the state of each of the three LSTMs, and of the hidden layer of the
            attention scores. Defaults to `256`.
        dropout: Float in [0, 1). Dropout rate of the embeddings and of the hidden layer before the
            logits. Defaults to `0.2`.
        input_tokenizer: Tokenizer of the source texts, saved with the model, or `None`.
        target_tokenizer: Tokenizer of the target texts, saved with the model, or `None`.
        name: String. Name of the model. Defaults to `"seq2seq_lstm"`.
        **kwargs: Other arguments of `keras.Model`.

    Raises:
        ValueError: for a size below 1, an `attention` that is no bool, a `dropout` outside [0, 1),
            or a tokenizer with another vocabulary size.

    Example:
        model = Seq2SeqLSTM(4000, 4000, max_seq_length=80)
        model.compile(keras.optimizers.Adam(1e-3, global_clipnorm=1.0))
        model.fit(source, target)
        model.translate("…")
    """

    def __init__(
        self,
        input_vocab_size,
        target_vocab_size,
        max_seq_length,
        attention=True,
        embed_dim=128,
        units=256,
        dropout=0.2,
        input_tokenizer=None,
        target_tokenizer=None,
        name="seq2seq_lstm",
        **kwargs,
    ):
        vocabularies = input_vocab_size, target_vocab_size, max_seq_length
        vocabularies = check_vocabularies(*vocabularies, input_tokenizer, target_tokenizer)
        input_vocab_size, target_vocab_size, max_seq_length = vocabularies
        embed_dim, units = check_sizes(embed_dim=embed_dim, units=units)
        dropout = check_fraction("dropout", dropout)
        check_bools(attention=attention)

        # Layers.
        # Of unit variance: with Keras's embeddings of at most 0.05, a small model predicts the same
        # tokens for any source for hundreds of steps.
        source_embedding, target_embedding = (
            Embedding(size, embed_dim, keras.initializers.RandomNormal(stddev=1.0), name=name)
            for size, name in (
                (input_vocab_size, "source_embedding"),
                (target_vocab_size, "target_embedding"),
            )
        )
        source_dropout, target_dropout, hidden_dropout = (Dropout(dropout) for _ in range(3))
        options = {"return_sequences": True, "return_state": True}
        encoder_lstm = layers.Bidirectional(layers.LSTM(units, **options), name="encoder_lstm")
        initial_h = layers.Dense(units, activation="tanh", name="initial_h")
        initial_c = layers.Dense(units, name="initial_c")
        if attention:
            decoder_lstm = AttentionLSTM(units, units, name="decoder_lstm")
        else:
            decoder_lstm = layers.LSTM(units, name="decoder_lstm", **options)
        hidden = layers.Dense(embed_dim, activation="tanh", name="hidden")
        lm_head = layers.Dense(target_vocab_size, dtype=keras.config.floatx(), name="lm_head")

        # Graph.
        source = keras.Input((None,), dtype="int32", name="source")  # (batch, m)
        target = keras.Input((None,), dtype="int32", name="target")  # (batch, n)
        mask = ops.not_equal(source, PAD_TOKEN_ID)  # (batch, m), False at padding
        embedded = source_dropout(source_embedding(source))  # (batch, m, embed_dim)
        context, *states = encoder_lstm(embedded, mask=mask)  # (batch, m, 2 * units)
        h = initial_h(ops.concatenate(states[0::2], axis=-1))  # of both directions
        c = initial_c(ops.concatenate(states[1::2], axis=-1))  # (batch, units)
        embedded = target_dropout(target_embedding(target))  # (batch, n, embed_dim)
        if attention:
            outputs, _, _ = decoder_lstm(embedded, context, [h, c], mask=mask)
        else:
            outputs, _, _ = decoder_lstm(embedded, initial_state=[h, c])
        features = ops.concatenate([outputs, embedded], axis=-1)
        logits = lm_head(hidden_dropout(hidden(features)))  # (batch, n, target_vocab_size)
        config = {
            "input_vocab_size": input_vocab_size,
            "target_vocab_size": target_vocab_size,
            "max_seq_length": max_seq_length,
            "attention": attention,
            "embed_dim": embed_dim,
            "units": units,
            "dropout": dropout,
        }
        tokenizers = input_tokenizer, target_tokenizer
        super().__init__([source, target], logits, config, *tokenizers, name=name, **kwargs)

        # Attributes.
        self.encoder = keras.Model(source, [context, h, c], name="encoder")
        self.target_embedding, self.decoder_lstm = target_embedding, decoder_lstm
        self.hidden, self.lm_head = hidden, lm_head

    # Translation.

    def initial_state(self, batch_size, max_length, conditioning):
        """Encode sources `(batch, m)`; see `autoregressive.AutoregressiveModel`."""
        context, h, c = self.encoder(conditioning)
        if not self.config["attention"]:
            return {"lstm": [h, c]}
        mask = ops.not_equal(conditioning, PAD_TOKEN_ID)
        keys = self.decoder_lstm.key(context)
        return {"lstm": [h, c], "context": context, "keys": keys, "mask": mask}

    def step(self, tokens, state, position, length=None):
        """Process target tokens `(batch, n)`; see `autoregressive.AutoregressiveModel`.

        `position` is ignored: the model has no positional encoding.
        """
        embedded = self.target_embedding(tokens)  # (batch, n, embed_dim)
        if self.config["attention"]:
            context = (state["context"], state["lstm"], state["mask"], state["keys"])
            outputs, _, lstm_state = self.decoder_lstm(embedded, *context, length=length)
        else:
            mask = None
            if length is not None:
                mask = ops.broadcast_to(ops.arange(tokens.shape[1]) < length, ops.shape(tokens))
            outputs, *lstm_state = self.decoder_lstm(
                embedded, initial_state=state["lstm"], mask=mask
            )
        logits = self.lm_head(self.hidden(ops.concatenate([outputs, embedded], axis=-1)))
        return logits, {**state, "lstm": lstm_state}

    def cross_attention(self, source, target):
        if not self.config["attention"]:
            raise ValueError("model: expected one with attention, got attention=False.")
        context, h, c = self.encoder(source)
        _, scores, _ = self.decoder_lstm(self.target_embedding(target), context, [h, c])
        return ops.convert_to_numpy(scores)[:, None]


build_seq2seq_lstm = Seq2SeqLSTM  # under a builder's name, like `build_vae`
