"""Recurrent networks for text and time series: article 3, sections 1 (RNN) and 2 (LSTM).

A recurrent network processes a sequence step by step. Its hidden state, a vector of fixed size,
summarizes the sequence so far: h_t = f(x_t, h_(t-1)). `RecurrentLanguageModel` predicts the next
token of a text from it, `build_forecaster` the next values of a series. Both support three cells:

    "simple_rnn"  h_t = tanh(W x_t + U h_(t-1) + b)    (Elman 1990)
    "lstm"        gates and a cell state c_t           (Hochreiter & Schmidhuber 1997)
    "gru"         gates without a cell state           (Cho et al. 2014)

Equations of the LSTM with a forget gate (Gers, Schmidhuber & Cummins 2000): i, f and o are the
input, forget and output gates sigmoid(W x_t + U h_(t-1) + b), and g is the candidate
tanh(W x_t + U h_(t-1) + b), each with its own W, U and b; * is the elementwise product:

    c_t = f_t * c_(t-1) + i_t * g_t
    h_t = o_t * tanh(c_t)

`lstm_gates` computes them for a text.

Corrected from the article:
- Section 2, on the inner structure of the LSTM: the cell state is passed to the next time step
  "under the control of the output gate". Of the gates, only forget and input enter c_t, and all of
  c_t is passed on. The output gate controls the output h_t, as the section's first paragraph says.
- Section 2, application scenarios: the LSTM is said to solve both the vanishing and the exploding
  gradients of the RNN. The sum in c_t counteracts vanishing only. The remedy for exploding ones is
  clipping their norm (Pascanu et al. 2013, section 3.2): the recipes train with
  `global_clipnorm=1.0`. `gradient_norms` measures both effects.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from keras_genai.embeddings import Embedding
from keras_genai.language_model import CausalLM
from keras_genai.models import ValidatedModel
from keras_genai.random_state import Dropout
from keras_genai.text import check_tokenizer, encode_texts
from keras_genai.validation import (
    as_array,
    as_numbers,
    check_choice,
    check_fraction,
    check_outputs,
    check_range,
    check_size,
    check_sizes,
    check_token_array,
    check_type,
)

CELLS = {"simple_rnn": layers.SimpleRNN, "lstm": layers.LSTM, "gru": layers.GRU}
MAX_VALUE = 2.0**125  # of a series: an eighth of float32's, so that differences are within float32


@keras.saving.register_keras_serializable(package="keras_genai")
class RecurrentLanguageModel(CausalLM):
    """Recurrent language model: an embedding, recurrent layers and a linear output layer.

    It maps token ids `(batch, n)` to logits `(batch, n, vocab_size)` of the next tokens.

    Args:
        vocab_size: Int. Number of tokens in the vocabulary.
        cell: String, `"simple_rnn"`, `"lstm"` or `"gru"`. Defaults to `"lstm"`.
        embed_dim: Int. Size of the token embeddings. Defaults to `256`.
        units: Int. Size of the hidden state. Defaults to `512`.
        num_layers: Int. Number of recurrent layers. Defaults to `1`.
        dropout: Float in [0, 1). Dropout rate after each recurrent layer. Defaults to `0.0`.
        tokenizer: Tokenizer of `text` with `vocab_size` tokens, or `None`. It is saved with the
            model.
        name: String. Defaults to `"language_model"`.
        **kwargs: Other arguments of `keras.Model`.

    Raises:
        ValueError: for a size below 1, an unknown cell, a dropout rate outside [0, 1), or a
            tokenizer of another vocabulary size.

    Example:
        model = RecurrentLanguageModel(tokenizer.vocab_size, tokenizer=tokenizer)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(2e-3, global_clipnorm=1.0), loss)
        model.fit(tokens[:, :-1], tokens[:, 1:])
        model.generate("Once upon a time")
    """

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
        dropout = check_fraction("dropout", dropout)
        check_tokenizer("tokenizer", tokenizer, vocab_size)

        # Layers.
        embedding = Embedding(vocab_size, embed_dim, name="embedding")
        recurrent_layers = [
            CELLS[cell](units, return_sequences=True, return_state=True, name=f"{cell}_{i + 1}")
            for i in range(num_layers)
        ]
        lm_head = layers.Dense(vocab_size, dtype=keras.config.floatx(), name="lm_head")

        # Functional graph.
        tokens = keras.Input((None,), dtype="int32", name="tokens")
        x = embedding(tokens)  # (batch, n, embed_dim)
        for layer in recurrent_layers:
            x = layer(x)[0]  # (batch, n, units)
            x = Dropout(dropout)(x) if dropout > 0 else x
        logits = lm_head(x)  # (batch, n, vocab_size)
        super().__init__(tokens, logits, name=name, **kwargs)

        self.embedding, self.recurrent_layers, self.lm_head = embedding, recurrent_layers, lm_head
        self.vocab_size, self.tokenizer = vocab_size, tokenizer
        self.config = {
            "vocab_size": vocab_size,
            "cell": cell,
            "embed_dim": embed_dim,
            "units": units,
            "num_layers": num_layers,
            "dropout": dropout,
        }

    def initial_state(self, batch_size, max_length=None, conditioning=None):
        """Return zero states `(batch_size, units)`: h and c per layer for an LSTM, else h.

        The size of the state does not depend on the length of the sequence.
        """
        if conditioning is not None:
            raise ValueError("conditioning: expected None, as the model has no other input.")
        return [
            [ops.zeros((batch_size, size), layer.compute_dtype) for size in _state_sizes(layer)]
            for layer in self.recurrent_layers
        ]

    def step(self, tokens, state, position=0, length=None):
        """Process tokens `(batch, n)`; see `autoregressive.AutoregressiveModel`.

        `position` is ignored: the model has no positional encoding.
        """
        x = self.embedding(tokens)  # (batch, n, embed_dim)
        new_state = []
        if tokens.shape[1] == 1:  # one step of each cell, without a loop over time
            x = x[:, 0]
            for layer, old in zip(self.recurrent_layers, state, strict=True):
                x, new = layer.cell(x, old)
                new_state.append(list(new))
            return self.lm_head(x)[:, None], new_state
        mask = None
        if length is not None:  # recurrent layers keep their state where the mask is False
            mask = ops.broadcast_to(ops.arange(tokens.shape[1]) < length, ops.shape(tokens))
        for layer, old in zip(self.recurrent_layers, state, strict=True):
            x, *new = layer(x, mask=mask, initial_state=old)
            new_state.append(new)
        return self.lm_head(x), new_state


build_language_model = RecurrentLanguageModel  # under a builder's name, like `build_vae`


def _state_sizes(layer):
    """Return the sizes of the state vectors of a recurrent layer: two for an LSTM, else one."""
    sizes = layer.cell.state_size
    return sizes if isinstance(sizes, (list, tuple)) else [sizes]


def lstm_gates(model, text) -> dict:
    """Return the gates and the cell state of a language model's first LSTM layer over a text.

    Args:
        model: `RecurrentLanguageModel` with LSTM cells and a tokenizer.
        text: String of n tokens.

    Returns:
        A dict of arrays `(n, units)`: the gates `"input"`, `"forget"` and `"output"`, in (0, 1),
        and the cell state `"cell"`.

    Raises:
        ValueError: for a model of other cells, and for a model without a tokenizer.
    """
    check_type("model", model, RecurrentLanguageModel)
    layer = model.recurrent_layers[0]
    if not isinstance(layer, layers.LSTM):
        raise ValueError(f"model: expected cell 'lstm', got {model.config['cell']!r}.")
    if model.tokenizer is None:
        raise ValueError("model: expected one with a tokenizer, to encode the text.")
    kernel, recurrent_kernel, bias = layer.get_weights()
    h = c = np.zeros(layer.units)
    gates: dict[str, list] = {"input": [], "forget": [], "output": [], "cell": []}
    for x in np.asarray(model.embedding(*encode_texts("text", model.tokenizer, [text]))):
        # Keras's order in the kernels: input, forget, candidate, output.
        i, f, g, o = np.split(x @ kernel + h @ recurrent_kernel + bias, 4)
        i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
        g = np.tanh(g)
        c = f * c + i * g
        h = o * np.tanh(c)
        for name, value in zip(gates, (i, f, o, c), strict=True):
            gates[name].append(value)
    return {name: np.array(values) for name, values in gates.items()}


def gradient_norms(model, tokens, target) -> np.ndarray:
    """Return the gradient norms of the last prediction's loss with respect to each embedding.

    They decay with the distance to the last token if gradients vanish, and grow if they explode.

    Args:
        model: `RecurrentLanguageModel`.
        tokens: Int array `(batch, n)`.
        target: Int array `(batch,)`. The next token of each sequence.

    Returns:
        An array `(n,)`: the norm at each position, averaged over the batch.

    Raises:
        ValueError: for another model, and for tokens or targets outside the vocabulary.
    """
    check_type("model", model, RecurrentLanguageModel)
    check_token_array("tokens", tokens, model.vocab_size)
    target = as_array("target", target)
    if target.shape != np.shape(tokens)[:1]:
        raise ValueError(f"target: expected shape {np.shape(tokens)[:1]}, got {target.shape}.")
    check_range("target", target, model.vocab_size, "token ids")
    with tf.GradientTape() as tape:
        x = embedded = model.embedding(tf.convert_to_tensor(tokens))  # (batch, n, embed_dim)
        tape.watch(embedded)
        for layer in model.recurrent_layers:
            x = layer(x)[0]
        loss = keras.losses.sparse_categorical_crossentropy(
            target, model.lm_head(x[:, -1]), from_logits=True
        )
    gradient = tape.gradient(loss, embedded)  # (batch, n, embed_dim)
    return np.linalg.norm(gradient, axis=-1).mean(axis=0)


def _window_scale(past):
    """Return the standard deviations `(batch, 1)` of windows `(batch, n)`; 0 if constant.

    The windows are divided by their largest deviation first, since the square of a small or a large
    number is not within float32.
    """
    deviations = past - past[:, -1:]
    largest = ops.max(ops.abs(deviations), axis=1, keepdims=True)
    return largest * ops.std(deviations / ops.where(largest > 0, largest, 1), axis=1, keepdims=True)


@keras.saving.register_keras_serializable(package="keras_genai")
class Forecaster(ValidatedModel):
    """The functional model of `build_forecaster`, whose loss has no unit.

    `fit(past, future)` takes numbers `(batch, window)` and `(batch, horizon)`, or `(batch,)` for a
    horizon of 1. It raises a ValueError for other shapes, for NaN and infinity, and for numbers
    beyond 2^125, whose differences might exceed float32. So does `predict`, and for a forecast of
    NaN or infinity, as of a training that diverged.

    The loss compares targets and forecasts in units of the standard deviation of their window: with
    `loss="mae"`, 0.5 is half a standard deviation. Training is the same in any unit of the series,
    such as grams and tons, for any loss. The scale of a window does not depend on its targets, so
    that it changes the weight of a window, not its best forecast. Constant windows, whose forecast
    is their last value, have no loss. The metrics of `compile` are in the unit of the series.
    """

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        (past,) = keras.tree.flatten(x)
        scale = _window_scale(ops.cast(past, y_pred.dtype))
        y = ops.reshape(ops.cast(y, y_pred.dtype), ops.shape(y_pred))
        y = ops.where(scale > 0, y, y_pred)
        scale = ops.where(scale > 0, scale, 1)
        return super().compute_loss(x, y / scale, y_pred / scale, sample_weight, training)

    def check_inputs(self, x):
        """Raise ValueError unless x is an array of windows that the model can take."""
        _check_values("x", x, self.input_shape[1:])

    def check_data(self, x, y):
        """Raise ValueError unless x and y are windows and the values that follow each."""
        self.check_inputs(x)
        horizon = self.output_shape[1:]
        _check_values("y", y, () if horizon == (1,) and np.ndim(y) == 1 else horizon)
        if len(x) != len(y):
            raise ValueError(f"y: expected {len(x)} rows, as many as x, got {len(y)}.")

    def predict(self, x, *args, **kwargs):
        """Return the forecasts; see `keras.Model.predict`.

        Raises:
            ValueError: for invalid data, and for a forecast of NaN or infinity.
        """
        forecasts = super().predict(x, *args, **kwargs)
        check_outputs(self, forecasts)
        return forecasts

    def predict_on_batch(self, x):
        forecasts = super().predict_on_batch(x)
        check_outputs(self, forecasts)
        return forecasts


def _check_values(name, values, shape):
    """Raise ValueError unless `values` is one array (n, *shape) of numbers up to `MAX_VALUE`."""
    if values is None or isinstance(values, (list, tuple, dict)):
        raise ValueError(f"{name}: expected one array, got {type(values).__name__}.")
    values = as_array(name, values)
    values = values.astype("uint8") if values.dtype == bool else values
    values = as_numbers(name, values, (None, *shape))
    if len(values) == 0:
        raise ValueError(f"{name}: expected at least one row, got an empty array.")
    largest = max(abs(float(values.min(initial=0))), abs(float(values.max(initial=0))))
    if largest > MAX_VALUE:
        raise ValueError(f"{name}: expected numbers of at most {MAX_VALUE:.3g}, got {largest:.3g}.")


def build_forecaster(window, horizon=1, cell="lstm", units=64) -> Forecaster:
    """Build a recurrent forecaster of the next values of a series, in any unit.

    The window is normalized: its last value is subtracted, and it is divided by its standard
    deviation. The forecast is transformed back, so that the series may have a trend (reversible
    instance normalization, Kim et al. 2022, with the last value in place of the mean). The loss is
    in units of the same standard deviation; see `Forecaster`.

    Args:
        window: Int, at least 2. Number of past values.
        horizon: Int. Number of future values, which are forecast jointly. Defaults to `1`.
        cell: String, `"simple_rnn"`, `"lstm"` or `"gru"`. Defaults to `"lstm"`.
        units: Int. Size of the hidden state. Defaults to `64`.

    Returns:
        A `Forecaster`, a functional `keras.Model` from past values `(batch, window)` to future
        values `(batch, horizon)`.

    Raises:
        ValueError: for a window below 2, another size below 1, or an unknown cell.

    Example:
        sunspots = datasets.load_sunspots()  # yearly, with a period of about 11 years
        past, future = datasets.series_windows(sunspots, window=44, horizon=11)
        forecaster = build_forecaster(window=44, horizon=11)
        forecaster.compile("adam", loss="mae")
        forecaster.fit(past, future)
    """
    window = check_size("window", window, minimum=2)
    horizon, units = check_sizes(horizon=horizon, units=units)
    check_choice("cell", cell, CELLS)
    past = keras.Input((window,), name="past")
    last = past[:, -1:]  # (batch, 1)
    scale = _window_scale(past)
    x = (past - last) / ops.where(scale > 0, scale, 1)
    state = CELLS[cell](units, name=cell)(x[..., None])  # (batch, units)
    head = layers.Dense(horizon, dtype=keras.config.floatx(), name="future")
    future = last + scale * head(state)
    return Forecaster(past, future, name="forecaster")
