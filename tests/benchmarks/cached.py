"""Drawing with what is remembered beside drawing with the whole network for each pixel or sample.

    python tests/benchmarks/cached.py pixelcnn [--pairs 3]
    python tests/benchmarks/cached.py wavenet [--pairs 3]
    python tests/benchmarks/cached.py realtime [--pairs 7]

Both are loops that are compiled once by XLA, draw the same numbers, and must draw the same values;
the default networks of this package, new. pixelcnn: 64 images of growing size. wavenet: one sound
of growing length. realtime: seconds for a second of sound, 8,000 samples, drawn with the cache.
A first run of each is not counted: it compiles.
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
    parser.add_argument("what", choices=["pixelcnn", "wavenet", "realtime"])
    parser.add_argument("--pairs", type=int, default=3, help="runs that are timed [3]")
    options = parser.parse_args()
    print(f"Keras {keras.__version__}, TensorFlow {tf.__version__}", flush=True)
    keras.utils.set_random_seed(0)
    {"pixelcnn": pixelcnn, "wavenet": wavenet, "realtime": realtime}[options.what](options)


def pixelcnn(options):
    for size in (7, 14, 28):
        model = build_pixelcnn((size, size, 1))
        whole = naive_loop(
            lambda tokens: ops.reshape(
                model(ops.cast(ops.reshape(tokens, (-1, size, size, 1)), "float32")),
                (-1, size * size, 2),
            ),
            (64, size * size),
        )
        compare(
            f"64 images of {size} x {size}",
            lambda seed: model.generate(64, seed=seed).reshape(64, -1),
            lambda seed: whole(uniform(size * size, 64, seed)).numpy(),
            options,
        )


def wavenet(options):
    model = build_wavenet()
    for length in (250, 500, 1000):

        def logits(levels):
            silence = ops.full((1, 1), 128, "int32")
            return model(ops.concatenate([silence, levels[:, :-1]], axis=1))

        whole = naive_loop(logits, (1, length))
        compare(
            f"one sound of {length} samples",
            lambda seed: model.generate(1, length, seed=seed),
            lambda seed: mu_law_decode(whole(uniform(length, 1, seed)).numpy()),
            options,
        )


def realtime(options):
    model = build_wavenet()
    model.generate(1, 8000)
    seconds = sorted(timed(model.generate, 1, 8000) for _ in range(options.pairs))
    print(
        f"a second of sound: {statistics.median(seconds):.2f} s "
        f"(from {seconds[0]:.2f} to {seconds[-1]:.2f})"
    )


def uniform(steps, batch, seed):
    """Return the numbers that the engine draws from this seed."""
    return tf.constant(np.random.default_rng(seed).random((steps, batch), "float32"))


def naive_loop(logits, shape):
    """Return a compiled function that draws all values, calling the whole network for each."""

    @tf.function(jit_compile=True)
    def draw(numbers):
        def advance(place, values):
            at_place = ops.slice(logits(values), [0, place, 0], [shape[0], 1, vocab_size])[:, 0]
            drawn = sample(at_place, numbers[place])
            return place + 1, ops.slice_update(values, [0, place], drawn[:, None])

        vocab_size = logits(ops.zeros(shape, "int32")).shape[-1]
        first = tf.constant(0), ops.zeros(shape, "int32")
        return tf.while_loop(lambda place, values: place < shape[1], advance, first)[1]

    return draw


def compare(name, cached, whole, options):
    same = np.mean(cached(0) == whole(0))
    pairs = [(timed(cached, seed), timed(whole, seed)) for seed in range(1, options.pairs + 1)]
    own, theirs = (statistics.median(column) for column in zip(*pairs))
    ratios = sorted(theirs / own for own, theirs in pairs)
    print(
        f"{name}: {own:.3f} s with the cache, {theirs:.2f} s without, "
        f"{statistics.median(ratios):.0f} times as fast (from {ratios[0]:.0f} to "
        f"{ratios[-1]:.0f}); {100 * same:.2f}% of the values are the same",
        flush=True,
    )


def timed(function, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
