"""Recurrent networks that write and forecast: article 3, sections 1 and 2.

A recurrent network reads a sequence step by step and keeps what it has read in a state of fixed
size, h_t = f(x_t, h_(t-1)). `build_language_model` predicts the next token of a text from it,
`build_forecaster` the next values of a series, each with one of three cells:

    "simple_rnn"  h_t = tanh(W x_t + U h_(t-1) + b)                               (Elman 1990)
    "lstm"        a cell state c_t beside h_t, and gates      (Hochreiter & Schmidhuber 1997)
    "gru"         gates without a cell state                  (Cho et al. 2014)

The LSTM's, with * for the product of elements (`lstm_gates` shows them):

    c_t = forget_t * c_(t-1) + input_t * tanh(…)          what is kept, and what is added
    h_t = output_t * tanh(c_t)                            what is shown of it

Corrected from the article:
- The output gate does not decide what memory passes on: the cell state does that, through the
  forget gate. The output gate decides what of it the hidden state shows.
- Gates keep gradients from vanishing, not from exploding: that is cured by clipping them (Pascanu
  et al. 2013), `global_clipnorm` in the recipes. `gradient_norms` measures both.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from keras_genai.inputs import Dropout, check_choice, check_share, check_size, check_sizes
from keras_genai.text import LanguageModel, check_tokenizer

CELLS = {"simple_rnn": layers.SimpleRNN, "lstm": layers.LSTM, "gru": layers.GRU}


def build_language_model(
    vocab_size,
    cell="lstm",
    embed_dim=256,
    units=512,
    num_layers=1,
    dropout=0.0,
    tokenizer=None,
) -> LanguageModel:
    """Build a recurrent language model.

        model = build_language_model(tokenizer.vocab_size, tokenizer=tokenizer)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(2e-3, global_clipnorm=1.0), loss)
        model.fit(tokens[:, :-1], tokens[:, 1:])
        model.generate("Once upon a time")

    Args:
        vocab_size: number of tokens.
        cell: "simple_rnn", "lstm" or "gru".
        embed_dim: size of a token's embedding.
        units: size of the state.
        num_layers: recurrent layers, each of which reads the one below.
        dropout: share of each layer's output that is dropped in training.
        tokenizer: of the text that the model reads and writes; it is saved with the model.

    Returns:
        A model from token ids (batch, n) to logits (batch, n, vocab_size).

    Raises:
        ValueError: for a size below 1, an unknown cell, a dropout outside [0, 1), or a tokenizer of
            another size.
    """
    return RecurrentLanguageModel(
        vocab_size, cell, embed_dim, units, num_layers, dropout, tokenizer
    )


@keras.saving.register_keras_serializable(package="keras_genai")
class RecurrentLanguageModel(LanguageModel):
    """The model of `build_language_model`, whose arguments it has."""

    def __init__(
        self,
        vocab_size,
        cell="lstm",
        embed_dim=256,
        units=512,
        num_layers=1,
        dropout=0.0,
        tokenizer=None,
        name="language_model",
        **kwargs,
    ):
        vocab_size, embed_dim, units, num_layers = check_sizes(
            vocab_size=vocab_size, embed_dim=embed_dim, units=units, num_layers=num_layers
        )
        check_choice("cell", cell, CELLS)
        check_share("dropout", dropout)
        check_tokenizer("tokenizer", tokenizer, vocab_size)
        embedding = layers.Embedding(vocab_size, embed_dim, name="embedding")
        recurrent = [
            CELLS[cell](units, return_sequences=True, return_state=True, name=f"{cell}_{i + 1}")
            for i in range(num_layers)
        ]
        head = layers.Dense(vocab_size, name="logits")

        tokens = keras.Input((None,), dtype="int32", name="tokens")
        x = embedding(tokens)  # (batch, n, embed_dim)
        for layer in recurrent:
            x = layer(x)[0]  # (batch, n, units)
            x = Dropout(dropout)(x) if dropout > 0 else x
        super().__init__(tokens, head(x), name=name, **kwargs)

        self.embedding, self.recurrent, self.head = embedding, recurrent, head
        self.vocab_size, self.tokenizer = vocab_size, tokenizer
        self.settings = {
            "vocab_size": vocab_size,
            "cell": cell,
            "embed_dim": embed_dim,
            "units": units,
            "num_layers": num_layers,
            "dropout": dropout,
        }

    def initial_state(self, batch_size, max_length=None, conditioning=None):
        """Return zeros (batch_size, units) for each state of each layer: an LSTM has two, h and c.

        However long the sequence, num_layers * batch_size * units numbers, twice that for an LSTM.
        """
        if conditioning is not None:
            raise ValueError("conditioning: expected None, as the model has no other input.")
        dtype = self.compute_dtype
        return [
            [ops.zeros((batch_size, size), dtype) for size in _state_sizes(layer)]
            for layer in self.recurrent
        ]

    def step(self, tokens, state, position=0, length=None):
        """Read tokens (batch, n); see `autoregressive`. The position makes no difference here."""
        x = self.embedding(tokens)  # (batch, n, embed_dim)
        new_state = []
        if tokens.shape[1] == 1:
            x = x[:, 0]
            for layer, old in zip(self.recurrent, state):
                x, new = layer.cell(x, old)
                new_state.append(list(new))
            return self.head(x)[:, None], new_state
        mask = None
        if length is not None:  # where it is False, a layer keeps its state
            mask = ops.broadcast_to(ops.arange(tokens.shape[1]) < length, ops.shape(tokens))
        for layer, old in zip(self.recurrent, state):
            x, *new = layer(x, mask=mask, initial_state=old)
            new_state.append(new)
        return self.head(x), new_state


def _state_sizes(layer):
    sizes = layer.cell.state_size
    return sizes if isinstance(sizes, (list, tuple)) else [sizes]


def lstm_gates(model, text) -> dict:
    """Return what the gates of a language model's first LSTM do while it reads a text.

    Args:
        model: from `build_language_model`, with cell "lstm" and a tokenizer.
        text: of n tokens.

    Returns:
        "input", "forget" and "output" gates, each (n, units) in (0, 1), and the "cell" state.

    Raises:
        ValueError: for cells without gates, and for a model without a tokenizer.
    """
    layer = model.recurrent[0]
    if not isinstance(layer, layers.LSTM):
        raise ValueError(f'model: expected cells with gates, "lstm", got {layer.name}.')
    if model.tokenizer is None:
        raise ValueError("model: expected one with a tokenizer, since it is to read a text.")
    kernel, recurrent_kernel, bias = layer.get_weights()
    h = c = np.zeros(layer.units)
    gates = {"input": [], "forget": [], "output": [], "cell": []}
    for x in np.asarray(model.embedding(model.tokenizer.encode(text))):
        # Keras's order: input, forget, candidate, output.
        i, f, candidate, o = np.split(x @ kernel + h @ recurrent_kernel + bias, 4)
        i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
        c = f * c + i * np.tanh(candidate)
        h = o * np.tanh(c)
        for name, value in zip(gates, (i, f, o, c)):
            gates[name].append(value)
    return {name: np.array(values) for name, values in gates.items()}


def gradient_norms(model, tokens, target) -> np.ndarray:
    """Return how much the loss after the last token depends on each token before it.

    Args:
        model: a language model.
        tokens: ids (batch, n).
        target: ids (batch,) of the tokens that follow.

    Returns:
        (n,): the norm of the gradient of the last token's cross-entropy by the embedding at each
        position, a mean over the batch.
    """
    with tf.GradientTape() as tape:
        x = embedded = model.embedding(tf.convert_to_tensor(tokens))
        tape.watch(embedded)
        for layer in model.recurrent:
            x = layer(x)[0]
        loss = keras.losses.sparse_categorical_crossentropy(
            target, model.head(x[:, -1]), from_logits=True
        )
    gradient = tape.gradient(loss, embedded)  # (batch, n, embed_dim)
    return np.linalg.norm(gradient, axis=-1).mean(axis=0)


def build_forecaster(window, horizon=1, cell="lstm", units=64) -> keras.Model:
    """Build a recurrent forecaster of the next values of a series.

        sunspots = datasets.load_sunspots()  # yearly, with a period of some 11 years
        past, future = datasets.series_windows(sunspots, window=44, horizon=11)
        forecaster = build_forecaster(window=44, horizon=11)
        forecaster.compile("adam", loss="mae")
        forecaster.fit(past, future)

    It sees a window less its last value, divided by the window's standard deviation, and its answer
    is put back to that place and scale: a series may rise without end. (Kim et al. 2022, reversible
    instance normalisation, with the last value for the mean.)

    Args:
        window: number of past values that it sees, at least 2.
        horizon: number of values that it forecasts, all at once.
        cell: "simple_rnn", "lstm" or "gru".
        units: size of the state.

    Returns:
        A model from (batch, window) to (batch, horizon).

    Raises:
        ValueError: for a window below 2, another size below 1, or an unknown cell.
    """
    window = check_size("window", window, minimum=2)
    horizon, units = check_sizes(horizon=horizon, units=units)
    check_choice("cell", cell, CELLS)
    past = keras.Input((window,), name="past")
    last = past[:, -1:]
    scale = ops.std(past, axis=1, keepdims=True) + keras.config.epsilon()
    x = (past - last) / scale
    state = CELLS[cell](units, name=cell)(x[..., None])  # (batch, units)
    future = last + scale * layers.Dense(horizon, name="future")(state)
    return keras.Model(past, future, name="forecaster")
