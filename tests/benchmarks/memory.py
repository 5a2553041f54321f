"""Memory of a simple RNN and of an LSTM: article 3, sections 1 and 2.

    python tests/benchmarks/memory.py [--steps 600] [--output memory.png]

Recall: a sequence begins with one of 8 symbols; a gap of random symbols follows, then a question
mark, at which the first symbol is to be predicted. Both networks have as many parameters and the
same training with clipped gradients, first on the shortest gap, then on each longer one.

Gradient: the norm of the gradient of the last loss with respect to each token's embedding, by
distance: in untrained networks, in trained ones, and in an untrained RNN with its recurrent weights
doubled, where it explodes. A few steps of gradient descent show the effect of that on the weights,
with and without clipping.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from matplotlib.figure import Figure

from keras_genai.plotting import COLORS
from keras_genai.rnn import build_language_model, gradient_norms

NUM_SYMBOLS = QUESTION_ID = 8
UNITS = {"simple_rnn": 134, "lstm": 64}  # 21,500 parameters each
GAPS = (5, 10, 20, 50, 100, 200)
NAMES = {"simple_rnn": "RNN", "lstm": "LSTM"}
STYLES = {"untrained": "--", "trained": "-", "weights doubled": ":"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600, help="training steps per gap [600]")
    parser.add_argument("--output", default="memory.png", help="file of the figure [memory.png]")
    options = parser.parse_args()
    figure = Figure(figsize=(11, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    models = {}
    for cell in UNITS:
        models[cell, "untrained"], model = build_model(cell), build_model(cell)
        print(f"{cell}: {model.count_params():,} parameters")
        recall = [train_and_recall(model, gap, options.steps) for gap in GAPS]
        left.plot(GAPS, recall, "o-", color=COLORS[NAMES[cell]], label=NAMES[cell])
        models[cell, "trained"] = model
    models["simple_rnn", "weights doubled"] = build_doubled_rnn()
    left.axhline(100 / NUM_SYMBOLS, color="gray", linestyle=":", label="chance")
    left.set(xscale="log", xticks=GAPS, xticklabels=GAPS, xlabel="gap", ylabel="recall, %")
    left.minorticks_off()
    left.legend()
    tokens, targets = sample_sequences(198, 16, seed=0)
    for (cell, state), model in models.items():
        norms = gradient_norms(model, tokens, targets)[::-1]
        name = f"{NAMES[cell]}, {state}"
        right.plot(norms, STYLES[state], color=COLORS[NAMES[cell]], label=name)
        print(
            f"gradient, {name}: {norms[0]:.2g} at distance 0, {norms[-1]:.2g} at 199, "
            f"{norms.min():.2g} at least"
        )
    right.set(yscale="log", xlabel="distance from the end", ylabel="norm of the gradient")
    right.legend(loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(options.output, dpi=100)
    for clipnorm in (None, 1.0):
        before, after = largest_recurrent_weights(clipnorm)
        print(f"largest recurrent weight, clipnorm {clipnorm}: {before:.2f}, then {after:.2f}")


def build_model(cell):
    keras.utils.set_random_seed(0)
    model = build_language_model(QUESTION_ID + 1, cell, embed_dim=16, units=UNITS[cell])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3, global_clipnorm=1.0), loss)
    return model


def build_doubled_rnn():
    model = build_model("simple_rnn")
    kernel, recurrent_kernel, bias = model.recurrent_layers[0].get_weights()
    model.recurrent_layers[0].set_weights([kernel, 2 * recurrent_kernel, bias])
    return model


def largest_recurrent_weights(clipnorm):
    """Return the largest recurrent weight of the doubled RNN before and after 20 steps."""
    model = build_doubled_rnn()
    model.compile(keras.optimizers.SGD(0.1, global_clipnorm=clipnorm), model.loss)
    before = np.abs(model.recurrent_layers[0].get_weights()[1]).max()
    train_and_recall(model, 100, 20)
    return before, np.abs(model.recurrent_layers[0].get_weights()[1]).max()


def sample_sequences(gap, num_sequences, seed):
    """Return sequences (num_sequences, gap + 2) and their first symbols (num_sequences,)."""
    rng = np.random.default_rng(seed)
    symbols = rng.integers(NUM_SYMBOLS, size=(num_sequences, 1 + gap))
    return np.column_stack([symbols, np.full(num_sequences, QUESTION_ID)]), symbols[:, 0]


def train_and_recall(model, gap, steps) -> float:
    """Train on a gap, and return the recall of the first symbol in 1,000 sequences, in percent."""
    x, symbols = sample_sequences(gap, 64 * steps, seed=gap)
    y = np.zeros_like(x)
    y[:, -1] = symbols
    sample_weight = np.zeros(x.shape, "float32")
    sample_weight[:, -1] = 1  # the loss of the last position only
    model.fit(x, y, batch_size=64, sample_weight=sample_weight, verbose=0)
    x, symbols = sample_sequences(gap, 1000, seed=1)
    predicted = model.predict(x, batch_size=500, verbose=0)[:, -1, :NUM_SYMBOLS].argmax(-1)
    recall = 100 * float(np.mean(predicted == symbols))
    print(f"  gap {gap}: {recall:.1f}% recall", flush=True)
    return recall


if __name__ == "__main__":
    main()
