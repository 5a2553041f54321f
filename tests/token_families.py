"""Toy models of tokens: how each is built, trained and compared."""

import keras
import numpy as np
from families import NUM_EXAMPLES, Family, labels, second_batch, seed_all

from keras_genai.gpt2 import GPT2
from keras_genai.rnn import RecurrentLanguageModel
from keras_genai.seq2seq_lstm import Seq2SeqLSTM
from keras_genai.transformer import MaskedCrossentropy, Seq2SeqTransformer, build_transformer
from keras_genai.wavenet import WaveNet

VOCAB_SIZE, MAX_LENGTH = 9, 8


def tokens(length, seed=0):
    """Eight sequences without padding, the highest id in the first and the last row."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, VOCAB_SIZE, size=(NUM_EXAMPLES, length)).astype("int32")
    ids[[0, -1], 0] = VOCAB_SIZE - 1
    return ids


class LanguageModel(Family):
    """A language model with `generate`."""

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    takes_tokens = has_dropout = True
    maximum: int | None = None
    shape_message = "y: expected the shape of x"

    def data(self):
        return tokens(6)[:, :-1], tokens(6)[:, 1:]

    def generate(self, model, **options):
        return [model.generate(tokens(2), 3, **options)]

    def invalid(self):
        x, y = self.data()
        long = tokens(MAX_LENGTH + 2)
        return {
            "x: expected token ids": (second_batch(x, VOCAB_SIZE), y),
            "y: expected token ids": (x, second_batch(y, VOCAB_SIZE)),
            self.shape_message: (x, y[:, :-1]),
            **({"x: expected at most 8": (long[:, :-1], long[:, 1:])} if self.maximum else {}),
        }


class RNN(LanguageModel):
    """The recurrent language model."""

    name = "RecurrentLanguageModel"

    def build(self, seed=0, **options):
        seed_all(seed)
        return RecurrentLanguageModel(VOCAB_SIZE, "gru", 3, 4, **options)


class Transformer(LanguageModel):
    """The causal Sequential model."""

    name, loss = "build_transformer", "sparse_categorical_crossentropy"
    maximum, shape_message = MAX_LENGTH, "y: expected labels .*shape"

    def build(self, seed=0, dropout=0.0, **options):
        seed_all(seed)
        return build_transformer(
            VOCAB_SIZE, VOCAB_SIZE, MAX_LENGTH, 1, 4, 2, 6, dropout, causal=True, **options
        )

    def generate(self, model, **options):
        return self.outputs(model)

    def invalid(self):
        return {
            name.replace("y: expected token ids", "y: expected labels"): data
            for name, data in super().invalid().items()
        }


class Seq2Seq(LanguageModel):
    """The encoder–decoder with its own `train_step`."""

    name, partner, loss = "Seq2SeqTransformer", "stock Seq2Seq", None
    divides_by_weights = True

    def build(self, seed=0, dropout=0.0, **options):
        seed_all(seed)
        return Seq2SeqTransformer(
            VOCAB_SIZE, VOCAB_SIZE, MAX_LENGTH, 1, 4, 2, 6, dropout, **options
        )

    def data(self):
        return tokens(5), tokens(6, seed=1)

    def inputs(self):
        return [tokens(5), tokens(6, seed=1)[:, :-1]]

    def scores(self, model):
        return np.argmax(self.outputs(model)[0], axis=-1) == tokens(6, seed=1)[:, 1:]

    def parts(self, model):
        return [model.encoder]

    def generate(self, model, seed=None):
        return [model.translate(tokens(5))]

    def invalid(self):
        x, y = self.data()
        return {
            "x: expected token ids": (second_batch(x, VOCAB_SIZE), y),
            "y: expected token ids": (x, second_batch(y, VOCAB_SIZE)),
            "x: expected at most 8": (tokens(MAX_LENGTH + 1), y),
            "y: expected at most": (x, tokens(MAX_LENGTH + 2)),
        }

    def invalid_inputs(self):
        source, target = self.inputs()
        return {
            "source: expected token ids": [second_batch(source, VOCAB_SIZE), target],
            "target: expected token ids": [source, second_batch(target, VOCAB_SIZE)],
            "source: expected at most 8": [tokens(MAX_LENGTH + 1), target],
        }


class Seq2SeqRecurrent(Seq2Seq):
    """The encoder–decoder of LSTMs, with attention."""

    name, partner = "Seq2SeqLSTM", None

    def build(self, seed=0, dropout=0.0, **options):
        seed_all(seed)
        return Seq2SeqLSTM(
            VOCAB_SIZE, VOCAB_SIZE, MAX_LENGTH, True, 3, 4, dropout=dropout, **options
        )


class StockSeq2Seq(Seq2Seq):
    """The stock `fit` of the same graph."""

    name, partner, loss = "stock Seq2Seq", None, MaskedCrossentropy(label_smoothing=0.1)

    def build(self, seed=0, **options):
        model = super().build(seed, **options)
        return keras.Model(model.inputs, model.outputs)

    def data(self):
        return self.inputs(), tokens(6, seed=1)[:, 1:]

    checks_tokens = saves_precision = False
    weights_shape = (NUM_EXAMPLES, 1)

    def parts(self, model):
        return []

    def generate(self, model, seed=None):
        return self.outputs(model)


class GPT(LanguageModel):
    """GPT-2."""

    name = "GPT2"
    maximum = MAX_LENGTH

    def build(self, seed=0, dropout=0.0, **options):
        seed_all(seed)
        return GPT2(VOCAB_SIZE, MAX_LENGTH, 1, 2, 4, dropout=dropout, **options)


class Waves(Family):
    """The conditional WaveNet."""

    name = "WaveNet"
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    takes_tokens = True

    def build(self, seed=0, **options):
        seed_all(seed)
        return WaveNet(VOCAB_SIZE, 1, 2, 3, 4, num_classes=2, **options)

    def data(self):
        return [tokens(6)[:, :-1], labels()], tokens(6)[:, 1:]

    def generate(self, model, **options):
        return [model.generate(2, [0, 1], length=3, **options)]

    def invalid(self):
        (x, classes), y = self.data()
        return {
            "x: expected levels": ([second_batch(x, VOCAB_SIZE), classes], y),
            "y: expected levels": ([x, classes], second_batch(y, VOCAB_SIZE)),
            "labels: expected integers": ([x, second_batch(classes, 2)], y),
        }
