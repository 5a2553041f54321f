"""Fine-tuning of all weights and LoRA: held-out nats per character of a book, before and after.

    pip install ".[test]"
    python tests/benchmarks/finetuning.py [--epochs 10] [--rank 8]

The pretrained GPT of three books (`article4-gpt2`) is trained further on a fourth one, Alice in
Wonderland, as in the recipe `article4-finetune`; with LoRA, at a learning rate of its own.
"""

import argparse
import math
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

from keras_genai.experiments import EXPERIMENTS
from keras_genai.gpt2 import enable_lora
from keras_genai.recipes import RECIPES

LEARNING_RATES = {"all weights": 3e-4, "LoRA": 5e-3}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10, help="number of epochs [10]")
    parser.add_argument("--rank", type=int, default=8, help="rank of LoRA's matrices [8]")
    options = parser.parse_args()
    recipe, experiment = RECIPES["article4-finetune"], EXPERIMENTS["article4-finetune"]
    data = experiment.task.load()
    steps = options.epochs * math.ceil(data.num_examples / recipe.batch_size)
    for name, learning_rate in LEARNING_RATES.items():
        keras.utils.set_random_seed(0)
        model = experiment.build(0, **data.dataset_info)
        if name == "LoRA":
            enable_lora(model, options.rank)
        experiment.compile(model, steps, learning_rate=learning_rate)
        epoch = tf.Variable(0, dtype=tf.int64)
        set_epoch = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda index, logs, epoch=epoch: epoch.assign(index)
        )
        start = time.perf_counter()
        model.fit(
            experiment.task.train_dataset(data, recipe.batch_size, 0, epoch),
            epochs=options.epochs,
            callbacks=[set_epoch],
            shuffle=False,
            verbose=0,
        )
        seconds = time.perf_counter() - start
        results = experiment.task.evaluate(model, data)
        num_weights = sum(variable.value.numpy().size for variable in model.trainable_variables)
        print(
            f"{name}: {num_weights:,} weights trained in {seconds:.0f} s, "
            f"{results['before']:.3f} nats per character before, {results['value']:.3f} after",
            flush=True,
        )


if __name__ == "__main__":
    main()
