"""What article 3, section 3, says of the Transformer: it computes all positions of a text at once.

    python tests/benchmarks/parallelism.py [--runs 5]

Seconds of a training step, and of a token that is written, against the length of the text: a causal
Transformer (GPT-2's layers) beside an LSTM with as many parameters, on 2,048 random characters a
step. A longer text means fewer of them in a batch, so that the arithmetic stays the same but for
attention. The steps that depend on one another are what grows: as many as there are characters for
the LSTM, none more for the Transformer. To write, both take one step a character.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from keras_genai.gpt2 import build_gpt2
from keras_genai.rnn import build_language_model

LENGTHS = (64, 256, 1024)
VOCAB_SIZE, TOKENS = 82, 2048


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5, help="steps of each that are timed [5]")
    options = parser.parse_args()
    models = {
        "Transformer": build_gpt2(VOCAB_SIZE, 1024, 4, 4, 192, dropout=0.0),
        "LSTM": build_language_model(VOCAB_SIZE, "lstm", embed_dim=256, units=576),
    }
    for name, model in models.items():
        print(f"{name}: {model.count_params():,} parameters", flush=True)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, jit_compile=False)
    for length in LENGTHS:
        tokens = np.random.default_rng(0).integers(0, VOCAB_SIZE, (TOKENS // length, length + 1))
        programs = {
            name: lambda model=model: model.train_on_batch(tokens[:, :-1], tokens[:, 1:])
            for name, model in models.items()
        }
        writers = {
            name: lambda model=model: model.generate(tokens[:1, :1], length - 1)
            for name, model in models.items()
        }
        for what, runs, unit in (("training", programs, 1), ("writing", writers, length - 1)):
            seconds = {name: [] for name in runs}
            for i in range(options.runs + 1):
                for name, run in runs.items():
                    start = time.perf_counter()
                    run()
                    if i > 0:  # the first run compiles
                        seconds[name].append((time.perf_counter() - start) / unit)
            figures = ", ".join(
                f"{name} {1e3 * statistics.median(column):.2f} ms"
                for name, column in seconds.items()
            )
            each = "a step" if unit == 1 else "a character"
            print(f"{length} characters, {what}: {figures} {each}", flush=True)


if __name__ == "__main__":
    main()
