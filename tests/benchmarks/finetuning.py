"""Held-out nats per character of one book, before and after fine-tuning: all weights, and LoRA.

    pip install ".[test]"
    python tests/benchmarks/finetuning.py [--epochs 4] [--rank 8]

The shipped GPT of three books (`article4-gpt2`) goes on with Alice in Wonderland as the recipe
`article4-finetune` trains it; with LoRA, at its own learning rate.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

from keras_genai.gpt2 import enable_lora
from keras_genai.recipes import RECIPES

RATES = {"all weights": 3e-4, "LoRA": 5e-3}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rank", type=int, default=8, help="of LoRA's matrices [8]")
    options = parser.parse_args()
    recipe = RECIPES["article4-finetune"]
    data = recipe.task.load()
    steps = recipe.count_steps(
        {"epochs": options.epochs, "count": data.count, "batch_size": recipe.batch_size}
    )
    for name, rate in RATES.items():
        keras.utils.set_random_seed(0)
        model = recipe.build(0, **data.facts)
        if name == "LoRA":
            enable_lora(model, options.rank)
        recipe.compile.func(model, steps, rate)
        epoch = tf.Variable(0, dtype=tf.int64)
        set_epoch = keras.callbacks.LambdaCallback(on_epoch_begin=lambda n, logs: epoch.assign(n))
        start = time.perf_counter()
        model.fit(
            recipe.task.batches(data, recipe.batch_size, 0, epoch),
            epochs=options.epochs,
            callbacks=[set_epoch],
            shuffle=False,
            verbose=0,
        )
        seconds = time.perf_counter() - start
        figures = recipe.task.measure(model, data)
        trained = sum(variable.value.numpy().size for variable in model.trainable_variables)
        print(
            f"{name}: {trained:,} numbers trained in {seconds:.0f} s, {figures['before']:.3f} nats "
            f"per character before, {figures['measured']:.3f} after",
            flush=True,
        )


if __name__ == "__main__":
    main()
