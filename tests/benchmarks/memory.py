"""What article 3 says of memory: a simple RNN loses what lies far back, an LSTM keeps it.

    python tests/benchmarks/memory.py [--steps 600] [--output memory.png]

Recall: a sequence begins with one of 8 symbols, then come as many others of them as the gap is
long, then a question: which one was first? Both networks have as many parameters and train alike,
first on the shortest gap, then on the next one; the gradient is clipped.

Gradient: how much the loss at the end depends on each token before, by its distance: in new
networks, in trained ones, and in a new RNN whose recurrent weights are twice as large: there it
explodes. A few steps of gradient descent show what that does to the weights, and what clipping is
for.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from matplotlib.figure import Figure

from keras_genai.plotting import COLORS
from keras_genai.rnn import build_language_model, gradient_norms

SYMBOLS = QUESTION = 8
UNITS = {"simple_rnn": 134, "lstm": 64}  # 21,500 parameters each
GAPS = (5, 10, 20, 50, 100, 200)
NAMES = {"simple_rnn": "RNN", "lstm": "LSTM"}
STYLES = {"new": "--", "trained": "-", "weights doubled": ":"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600, help="of training for each gap [600]")
    parser.add_argument("--output", default="memory.png", help="figure to write [memory.png]")
    options = parser.parse_args()
    figure = Figure(figsize=(11, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    models = {}
    for cell in UNITS:
        models[cell, "new"], model = build(cell), build(cell)
        print(f"{cell}: {model.count_params():,} parameters")
        recalled = [recall(model, gap, options.steps) for gap in GAPS]
        left.plot(GAPS, recalled, "o-", color=COLORS[NAMES[cell]], label=NAMES[cell])
        models[cell, "trained"] = model
    models["simple_rnn", "weights doubled"] = build_doubled()
    left.axhline(100 / SYMBOLS, color="gray", linestyle=":", label="guessing")
    left.set(xscale="log", xticks=GAPS, xticklabels=GAPS, xlabel="gap", ylabel="recalled, %")
    left.minorticks_off()
    left.legend()
    tokens, target = draw(198, 16, seed=0)
    for (cell, state), model in models.items():
        norms = gradient_norms(model, tokens, target)[::-1]
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
        before, after = explode(clipnorm)
        print(f"largest recurrent weight, clipped at {clipnorm}: {before:.2f}, then {after:.2f}")


def build(cell):
    keras.utils.set_random_seed(0)
    model = build_language_model(QUESTION + 1, cell, embed_dim=16, units=UNITS[cell])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3, global_clipnorm=1.0), loss)
    return model


def build_doubled():
    model = build("simple_rnn")
    kernel, recurrent, bias = model.recurrent[0].get_weights()
    model.recurrent[0].set_weights([kernel, 2 * recurrent, bias])
    return model


def explode(clipnorm):
    """Return the largest recurrent weight of the doubled RNN before and after 20 steps."""
    model = build_doubled()
    model.compile(keras.optimizers.SGD(0.1, global_clipnorm=clipnorm), model.loss)
    before = np.abs(model.recurrent[0].get_weights()[1]).max()
    recall(model, 100, 20)
    return before, np.abs(model.recurrent[0].get_weights()[1]).max()


def draw(gap, count, seed):
    """Return sequences (count, gap + 2) and the symbols (count,) that they begin with."""
    rng = np.random.default_rng(seed)
    symbols = rng.integers(SYMBOLS, size=(count, 1 + gap))
    return np.column_stack([symbols, np.full(count, QUESTION)]), symbols[:, 0]


def recall(model, gap, steps) -> float:
    """Train on a gap, and return how many of 1,000 symbols are recalled after it, in percent."""
    x, symbols = draw(gap, 64 * steps, seed=gap)
    y = np.zeros_like(x)
    y[:, -1] = symbols
    only_the_last = np.zeros(x.shape, "float32")
    only_the_last[:, -1] = 1
    model.fit(x, y, batch_size=64, sample_weight=only_the_last, verbose=0)
    x, symbols = draw(gap, 1000, seed=1)
    found = model.predict(x, batch_size=500, verbose=0)[:, -1, :SYMBOLS].argmax(-1)
    recalled = 100 * float(np.mean(found == symbols))
    print(f"  gap {gap}: {recalled:.1f}% recalled", flush=True)
    return recalled


if __name__ == "__main__":
    main()
