"""Parts of encoder–decoder models for translation: training, search and checks.

The encoder maps a source to a context; the decoder predicts each token of the target from the
context and the tokens before it:

    p(target | source) = ∏ p(target_t | target_1 … target_(t-1), source)

In training, the decoder input is the reference target, shifted by one token (teacher forcing). In
translation, it is the tokens generated so far. Token 0 is padding, 1 starts a target, 2 ends it.

`seq2seq` has the Transformer, `seq2seq_lstm` the LSTM of `TranslationModel`.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_genai import autoregressive
from keras_genai.beam_search import beam_search, check_length_penalty
from keras_genai.embeddings import PAD_TOKEN_ID
from keras_genai.language_model import (
    MaskedCrossentropy,
    TokenModelMixin,
    mask_padding,
    token_weights,
)
from keras_genai.models import (
    ConfigMixin,
    CustomLossMixin,
    ValidatedModel,
    with_loss_scaling,
)
from keras_genai.replicas import apply_gradients, num_replicas
from keras_genai.text import check_tokenizer, encode_texts
from keras_genai.validation import check_size, check_sizes, check_token_array, check_tokens

TRANSLATION_BATCH_SIZE = 128


class TranslationModel(TokenModelMixin, ConfigMixin, CustomLossMixin, ValidatedModel):
    """Functional encoder–decoder model from a source sequence to a target sequence.

    Maps `[source (batch, m), target (batch, n)]` to logits `(batch, n, target_vocab_size)`, where
    `logits[:, i]` belongs to the target token at position i + 1. `fit(source, target)` takes
    targets from their start token to their end token, and reports two metrics: `loss`, and
    `cross_entropy`, the cross-entropy per token in nats without label smoothing. Sample weights are
    `(batch,)` or of the target's shape; both metrics are divided by the sum of the weights. Metrics
    of `compile` take labels and logits, and exclude padding.

    A subclass implements `autoregressive.AutoregressiveModel`, with the source `(batch, m)` as
    conditioning, and `cross_attention(source, target)`: the attention scores `(num_layers,
    num_heads, n, m)` of a source `(1, m)` and a decoder input `(1, n)`.

    Args:
        inputs: List of the `keras.Input`s of source and target.
        logits: Keras tensor. Output of the graph.
        config: Dict. Constructor arguments of the subclass, except tokenizers and `name`, among
            them `"input_vocab_size"`, `"target_vocab_size"` and `"max_seq_length"`.
        input_tokenizer: Tokenizer of the source texts, saved with the model, or `None`.
        target_tokenizer: Tokenizer of the target texts, saved with the model, or `None`.
        **kwargs: Other arguments of `keras.Model`.
    """

    start_token, end_token = 1, 2

    def __init__(self, inputs, logits, config, input_tokenizer, target_tokenizer, **kwargs):
        super().__init__(inputs, logits, **kwargs)
        self.config = config
        self.input_vocab_size = config["input_vocab_size"]
        self.vocab_size = config["target_vocab_size"]
        self.context_length = config["max_seq_length"]
        self.input_tokenizer, self.target_tokenizer = input_tokenizer, target_tokenizer
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.cross_entropy_tracker = keras.metrics.Mean(name="cross_entropy")

    def get_config(self):
        return {
            **super().get_config(),
            **self.config,
            "input_tokenizer": keras.saving.serialize_keras_object(self.input_tokenizer),
            "target_tokenizer": keras.saving.serialize_keras_object(self.target_tokenizer),
        }

    # Training.

    def compile(self, optimizer="adam", loss=None, *, auto_scale_loss=True, **kwargs):
        """Configure training like `keras.Model.compile`.

        Unlike in other models with a `CustomLossMixin`, a loss and loss weights may be given.

        Args:
            optimizer: Keras optimizer or its name. Defaults to `"adam"`.
            loss: Loss of labels and logits. Defaults to `MaskedCrossentropy(label_smoothing=0.1)`,
                the loss of Vaswani et al. 2017, section 5.4.
            auto_scale_loss: Bool. Whether to scale the loss in float16. Defaults to `True`.
            **kwargs: Other arguments of `keras.Model.compile`.
        """
        loss = loss or MaskedCrossentropy(label_smoothing=0.1)
        optimizer = with_loss_scaling(optimizer, self) if auto_scale_loss else optimizer
        keras.Model.compile(self, optimizer, loss, auto_scale_loss=False, **kwargs)
        self.optimizer.build(self.trainable_variables)
        # Keras builds loss and metrics in their first call. With several replicas, it would make
        # that call itself before training, with the source as the only input, and fail.
        y, y_pred = ops.ones((1, 1), "int32"), ops.zeros((1, 1, self.vocab_size))
        self.compute_loss(y=y, y_pred=y_pred)
        self.compute_metrics(None, y, y_pred)
        self.reset_metrics()

    def compute_loss_and_logs(self, data, training):
        """Return the loss of a batch `(source, target)` and a dict of metric results."""
        source, target, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        decoder_input, labels = target[:, :-1], target[:, 1:]  # teacher forcing: (batch, n - 1)
        logits = self([source, decoder_input], training=training)  # (batch, n - 1, vocab_size)
        weights = ops.cast(mask_padding(labels, logits), keras.config.floatx())
        if sample_weight is not None:
            if len(sample_weight.shape) == 2 and sample_weight.shape[1] != 1:
                sample_weight = sample_weight[:, 1:]  # the start token is no label
            sample_weight = token_weights(sample_weight, logits)
            weights = weights * sample_weight
        loss = keras.Model.compute_loss(self, None, labels, logits, sample_weight)
        cross_entropy = MaskedCrossentropy()(labels, logits, sample_weight)
        replicas = num_replicas()  # Keras divides losses by it
        self.loss_tracker.update_state(loss * replicas, ops.sum(weights))
        self.cross_entropy_tracker.update_state(cross_entropy * replicas, ops.sum(weights))
        metrics = self.compute_metrics(None, labels, logits, sample_weight)
        return self.weight_loss(loss, logits, sample_weight), metrics

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss, logs = self.compute_loss_and_logs(data, training=True)
            loss = self.optimizer.scale_loss(loss)  # no effect without a LossScaleOptimizer
        gradients = tape.gradient(loss, self.trainable_weights)
        apply_gradients(self.optimizer, gradients, self.trainable_weights)
        return logs

    def check_data(self, x, y):
        """Raise ValueError unless x and y are token ids of the vocabularies, of valid lengths."""
        limit = self.context_length
        check_token_array("x", x, self.input_vocab_size, maximum=limit)
        # The decoder input is one token shorter.
        check_token_array("y", y, self.vocab_size, minimum=2, maximum=limit + 1)
        if len(x) != len(y):
            raise ValueError(f"y: expected {len(x)} targets, as many as sources, got {len(y)}.")
        self._check_length("y", y)

    def check_inputs(self, x):
        """Raise ValueError unless x is a source and a decoder input, for `predict`."""
        if not isinstance(x, (list, tuple)) or len(x) != 2:
            raise ValueError(f"x: expected [source, target], got {type(x).__name__}.")
        vocab_sizes = self.input_vocab_size, self.vocab_size
        for name, tokens, vocab_size in zip(("source", "target"), x, vocab_sizes, strict=True):
            check_token_array(name, tokens, vocab_size, maximum=self.context_length)

    def _check_length(self, name, tokens):
        """Return the length of the longest sequence without padding, if the model can take it."""
        columns = np.any(np.asarray(tokens) != PAD_TOKEN_ID, axis=0)
        longest = int(np.max(np.flatnonzero(columns), initial=-1)) + 1
        if longest > self.context_length:
            raise ValueError(
                f"{name}: expected at most {self.context_length} tokens, as many as the model can "
                f"take, got {longest}."
            )
        return longest

    # Translation.

    def translate(self, source, *, beam_width=1, length_penalty=0.6, max_new_tokens=None):
        """Search for the likeliest target of each source, greedily or with beams.

        Args:
            source: String or list of strings; or token ids, an array `(batch, m)` padded with 0,
                or a list of sequences of any lengths.
            beam_width: Int. Number of beams, 4 in Vaswani et al. 2017, section 6.1; 1 is greedy
                search. Defaults to `1`.
            length_penalty: Float, at least 0. Exponent of the length normalization of beam search;
                see `beam_search.beam_search`. Defaults to `0.6`, as in the paper.
            max_new_tokens: Int or `None`. Maximum number of tokens to generate, limited to
                `max_seq_length - 1`. Defaults to `None`, that limit.

        Returns:
            A string, a list of strings, or int32 tokens `(batch, n)` filled with the end token.

        Raises:
            ValueError: for an empty source or one longer than `max_seq_length`, for ids outside the
                vocabulary, for text if the model has no tokenizers, and for an invalid option.
        """
        search_options = (beam_width, length_penalty, max_new_tokens)
        texts = [source] if isinstance(source, str) else source
        if not isinstance(texts, (list, tuple)) or (texts and not isinstance(texts[0], str)):
            return self._translate_tokens(source, *search_options)
        self._check_tokenizers()
        # Sorted by length: a batch is as long as its longest source, and takes as many steps.
        sources = encode_texts("source text", self.input_tokenizer, texts)
        order = sorted(range(len(texts)), key=lambda i: len(sources[i]))
        targets = [None] * len(texts)
        for start in range(0, len(texts), TRANSLATION_BATCH_SIZE):
            rows = order[start : start + TRANSLATION_BATCH_SIZE]
            batch = keras.utils.pad_sequences([sources[i] for i in rows], padding="post")
            for i, target in zip(rows, self._translate_tokens(batch, *search_options), strict=True):
                target = autoregressive.truncate_at_stop_token(target, 0, self.end_token)
                targets[i] = self.target_tokenizer.decode(target[target != self.end_token])
        return targets[0] if isinstance(source, str) else targets

    def _check_tokenizers(self):
        if self.input_tokenizer is None or self.target_tokenizer is None:
            raise ValueError("source: expected token ids, since the model has no tokenizers.")

    def _translate_tokens(self, source, beam_width, length_penalty, max_new_tokens):
        """Translate token ids `(batch, m)` to int32 tokens `(batch, n)`."""
        rows = check_tokens("source", source, self.input_vocab_size, minimum=1)
        beam_width = check_size("beam_width", beam_width)
        length_penalty = check_length_penalty(length_penalty)
        limit = self.context_length - 1
        max_new_tokens = limit if max_new_tokens is None else max_new_tokens
        max_new_tokens = min(check_size("max_new_tokens", max_new_tokens), limit)
        source = keras.utils.pad_sequences(rows, padding="post")
        empty = np.flatnonzero(np.all(source == PAD_TOKEN_ID, axis=1))
        if len(empty):
            raise ValueError(
                f"source: expected at least one token, got nothing but padding in row {empty[0]}."
            )
        longest = self._check_length("source", source)
        # A length of a multiple of 32: few different lengths, so that few functions are compiled.
        padded_length = min(-(-longest // 32) * 32, self.context_length)
        source = keras.utils.pad_sequences(source[:, :longest], padded_length, padding="post")
        prompt = np.full((len(source), 1), self.start_token)
        options = {"conditioning": source, "stop_token": self.end_token}
        if beam_width == 1:
            options["sampler"] = autoregressive.GREEDY
            return autoregressive.generate(self, prompt, max_new_tokens, **options)[:, 1:]
        options |= {"beam_width": beam_width, "length_penalty": length_penalty}
        sequences, _ = beam_search(self, prompt, max_new_tokens, **options)
        return sequences[:, 0, 1:]  # the best beam, without the start token

    def attention_maps(self, source: str, target: str) -> dict:
        """Return the cross-attention scores between the tokens of a source and of a target.

        Args:
            source: String of m tokens.
            target: String of n - 1 tokens; the end token is appended.

        Returns:
            Dict of `"source"` and `"target"`, lists of the m and n tokens as strings, and
            `"weights"`, a float array `(num_layers, num_heads, n, m)`: the attention to each source
            token while each target token is predicted. Each row sums to 1.

        Raises:
            ValueError: if the model has no tokenizers, or no attention.
        """
        self._check_tokenizers()
        (source_ids,) = encode_texts("source text", self.input_tokenizer, [source])
        (target_ids,) = encode_texts("target text", self.target_tokenizer, [target])
        target_ids = np.append(target_ids, self.end_token)
        decoder_input = np.append(self.start_token, target_ids[:-1])
        weights = self.cross_attention(source_ids[None], decoder_input[None])
        return {
            "source": [self.input_tokenizer.decode([token]) for token in source_ids],
            "target": [self.target_tokenizer.decode([token]) for token in target_ids],
            "weights": weights,
        }


def check_vocabularies(
    input_vocab_size, target_vocab_size, max_seq_length, input_tokenizer, target_tokenizer
) -> tuple[int, int, int]:
    """Return the first three arguments of a `TranslationModel` as ints.

    Raises:
        ValueError: for a size below 1, and for a tokenizer of another vocabulary size.
    """
    input_vocab_size, target_vocab_size, max_seq_length = check_sizes(
        input_vocab_size=input_vocab_size,
        target_vocab_size=target_vocab_size,
        max_seq_length=max_seq_length,
    )
    check_tokenizer("input_tokenizer", input_tokenizer, input_vocab_size)
    check_tokenizer("target_tokenizer", target_tokenizer, target_vocab_size)
    return input_vocab_size, target_vocab_size, max_seq_length
