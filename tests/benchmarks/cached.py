"""Cached generation beside generation that runs the whole network for each pixel or sample.

    python tests/benchmarks/cached.py pixelcnn [--pairs 3]
    python tests/benchmarks/cached.py wavenet [--pairs 3]
    python tests/benchmarks/cached.py realtime [--pairs 7]

Both are loops compiled once by XLA that use the same random numbers, and must generate the same
values. The networks are the package's defaults, untrained. pixelcnn: 64 images of growing size.
wavenet: one sound of growing length. realtime: seconds for a second of sound, 8,000 samples, with
the cache. The first run of each program is not timed: it compiles.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_genai.audio import mu_law_decode
from keras_genai.autoregressive import sample
from keras_genai.pixelcnn import build_pixelcnn
from keras_genai.wavenet import build_wavenet


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=["pixelcnn", "wavenet", "realtime"])
    parser.add_argument("--pairs", type=int, default=3, help="number of timed runs [3]")
    options = parser.parse_args()
    print(f"Keras {keras.__version__}, TensorFlow {tf.__version__}", flush=True)
    keras.utils.set_random_seed(0)
    {"pixelcnn": pixelcnn, "wavenet": wavenet, "realtime": realtime}[options.mode](options)


def pixelcnn(options):
    for size in (7, 14, 28):
        model = build_pixelcnn((size, size, 1))

        def compute_logits(tokens, model=model, size=size):
            images = ops.cast(ops.reshape(tokens, (-1, size, size, 1)), "float32")
            return ops.reshape(model(images), (-1, size * size, 2))

        naive = naive_loop(compute_logits, (64, size * size))
        compare(
            f"64 images of {size} x {size}",
            lambda seed: model.generate(64, seed=seed).reshape(64, -1),
            lambda seed: naive(uniform(size * size, 64, seed)).numpy(),
            options,
        )


def wavenet(options):
    model = build_wavenet()

    def compute_logits(levels):
        silence = ops.full((1, 1), 128, "int32")
        return model(ops.concatenate([silence, levels[:, :-1]], axis=1))

    for length in (250, 500, 1000):
        naive = naive_loop(compute_logits, (1, length))
        compare(
            f"one sound of {length} samples",
            lambda seed: model.generate(1, length=length, seed=seed),
            lambda seed: mu_law_decode(naive(uniform(length, 1, seed)).numpy()),
            options,
        )


def realtime(options):
    model = build_wavenet()

    def generate_second():
        model.generate(1, length=8000)

    generate_second()
    seconds = sorted(timed(generate_second) for _ in range(options.pairs))
    print(
        f"a second of sound: {statistics.median(seconds):.2f} s "
        f"(from {seconds[0]:.2f} to {seconds[-1]:.2f})"
    )


def uniform(num_steps, batch_size, seed):
    """Return the uniform random numbers that `autoregressive.generate` uses for this seed."""
    return tf.constant(np.random.default_rng(seed).random((num_steps, batch_size), "float32"))


def naive_loop(compute_logits, shape):
    """Return a compiled function that samples all values, with the whole network for each."""

    @tf.function(jit_compile=True)
    def generate(uniform_numbers):
        def body(position, values):
            logits = compute_logits(values)
            logits = ops.slice(logits, [0, position, 0], [shape[0], 1, vocab_size])[:, 0]
            sampled = sample(logits, uniform_numbers[position])
            return position + 1, ops.slice_update(values, [0, position], sampled[:, None])

        vocab_size = compute_logits(ops.zeros(shape, "int32")).shape[-1]
        loop_vars = tf.constant(0), ops.zeros(shape, "int32")
        return tf.while_loop(lambda position, values: position < shape[1], body, loop_vars)[1]

    return generate


def compare(name, cached, naive, options):
    equal = np.mean(cached(0) == naive(0))
    pairs = [(timed(cached, seed), timed(naive, seed)) for seed in range(1, options.pairs + 1)]
    cached_seconds, naive_seconds = (
        statistics.median(column) for column in zip(*pairs, strict=True)
    )
    ratios = sorted(naive_seconds / cached_seconds for cached_seconds, naive_seconds in pairs)
    print(
        f"{name}: {cached_seconds:.3f} s with the cache, {naive_seconds:.2f} s without, "
        f"{statistics.median(ratios):.0f} times as fast (from {ratios[0]:.0f} to "
        f"{ratios[-1]:.0f}); {100 * equal:.2f}% of the values are equal",
        flush=True,
    )


def timed(function, *arguments) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
