"""Parallel computation of a Transformer beside the step-by-step computation of an LSTM.

    python tests/benchmarks/parallelism.py [--runs 5]

Article 3, section 3, says in its first sentence that a Transformer processes the input sequence in
parallel, which makes it faster in training and inference. Seconds of a training step, and of a
generated token, against the length of the text: a causal Transformer (GPT-2's layers) beside an
LSTM with as many parameters, on 2,048 random characters per step. A longer text means fewer texts
in a batch, so that the amount of arithmetic is the same except for attention. The number of
sequential steps grows: for the LSTM it is the length of the text, for the Transformer it is
constant. To generate text, both take one step per character.
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
VOCAB_SIZE, TOKENS_PER_STEP = 82, 2048


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5, help="number of timed steps [5]")
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
        tokens = np.random.default_rng(0).integers(
            0, VOCAB_SIZE, (TOKENS_PER_STEP // length, length + 1)
        )
        training = {
            name: lambda model=model: model.train_on_batch(tokens[:, :-1], tokens[:, 1:])
            for name, model in models.items()
        }
        generation = {
            name: lambda model=model: model.generate(tokens[:1, :1], length - 1)
            for name, model in models.items()
        }
        for mode, programs, num_units, unit in (
            ("training", training, 1, "step"),
            ("generation", generation, length - 1, "character"),
        ):
            seconds = {name: [] for name in programs}
            for i in range(options.runs + 1):
                for name, program in programs.items():
                    start = time.perf_counter()
                    program()
                    if i > 0:  # the first run compiles
                        seconds[name].append((time.perf_counter() - start) / num_units)
            medians = ", ".join(
                f"{name} {1e3 * statistics.median(column):.2f} ms"
                for name, column in seconds.items()
            )
            print(f"{length} characters, {mode}: {medians} per {unit}", flush=True)


if __name__ == "__main__":
    main()
