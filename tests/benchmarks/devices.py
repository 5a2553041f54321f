"""Generation split over two logical devices of this machine, beside one device.

    python tests/benchmarks/devices.py [--pairs 5]

The pretrained models on one device, and their copies under `distribution.strategy("mirrored")` on
two logical CPUs. The first samples of each are not timed: they compile. Both generate from one
seed; values that differ are counted, since sums over batches of another size are rounded otherwise.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from keras_genai import distribution, pretrained

PROGRAMS = {  # seed to samples
    "conditional-vae": lambda model, seed: model.generate(
        10_000, np.arange(10_000) % 10, seed=seed
    ),
    "article3-diffusion": lambda model, seed: model.generate(
        64, np.arange(64) % 10, num_steps=10, seed=seed
    ),
    "article3-pixelcnn": lambda model, seed: model.generate(64, seed=seed),
    "article3-wavenet": lambda model, seed: model.generate(
        8, labels=np.arange(8) % 4, length=2000, seed=seed
    ),
    "article3-lstm": lambda model, seed: model.generate(np.ones((64, 1), "int32"), 500, seed=seed),
    "article4-gpt2": lambda model, seed: model.generate(np.ones((64, 1), "int32"), 120, seed=seed),
    "article1-transformer": lambda model, seed: model.translate(
        np.tile([[5, 6, 7, 8]], (64, 1)), max_new_tokens=20
    ),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5, help="number of timed runs of each [5]")
    options = parser.parse_args()
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = distribution.strategy("mirrored")
    for name, program in PROGRAMS.items():
        one = pretrained.load(name)
        with strategy.scope():
            two = pretrained.load(name)
        samples = [np.asarray(program(model, 0)) for model in (one, two)]
        differing = np.mean(np.abs(samples[0] - samples[1]) > 1e-3)
        pairs = [
            [seconds(program, model, seed) for model in (one, two)] for seed in range(options.pairs)
        ]
        medians = [statistics.median(column) for column in zip(*pairs, strict=True)]
        print(
            f"| {name} | {medians[0]:.2f} | {medians[1]:.2f} | {medians[0] / medians[1]:.2f} "
            f"| {differing:.2%} |",
            flush=True,
        )


def seconds(program, model, seed) -> float:
    start = time.perf_counter()
    program(model, seed)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
