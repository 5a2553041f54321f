"""Data augmentation with generated digits: article 1, section "数据增强和合成".

    python tests/benchmarks/augmentation.py [--seeds 10]

Article 4's CNN is trained on 100 real digits, ten of each class, and tested on all 10,000 test
images. Arms, with equal numbers of gradient steps and equal exposure to each real digit:

- 100 digits: 200 steps of 20 real digits, each digit 40 times;
- shifts: each step adds 20 of the real digits, shifted by up to two pixels;
- VAE of the same 100: each step adds 20 samples of a conditional VAE trained on the 100 digits;
- VAE of 60,000: each step adds 20 samples of the pretrained `conditional-vae`;
- 4,000 more digits: each step adds 20 real digits that are not among the 100.

Unchanged copies of the real digits in place of the added ones would change nothing: the loss is a
mean over the batch. Seeds differ in the 100 digits, the VAE and the CNN's initial weights; all arms
of a seed share digits and initial weights. Per arm: mean and standard deviation of the accuracy,
and the paired difference to 100 digits with its standard error.
"""

import argparse

import keras
import numpy as np

from keras_genai import datasets, pretrained, vae
from keras_genai.cnn import build_cnn

DIGITS_PER_CLASS, BATCH, PASSES = 10, 20, 40
NUM_STEPS = 10 * DIGITS_PER_CLASS * PASSES // BATCH
VAE_PASSES, VAE_BETA = 200, 5.0
MAX_SHIFT = 2  # pixels


def main():
    parser = argparse.ArgumentParser(description="Accuracy of a CNN with generated digits.")
    parser.add_argument("--seeds", type=int, default=10)
    num_seeds = parser.parse_args().seeds
    (images, y_train), (test_images, y_test) = datasets.load_mnist()
    x_train, x_test = (x.reshape(-1, 784).astype("float32") / 255 for x in (images, test_images))
    large_vae = pretrained.load("conditional-vae")
    accuracies = {}
    for seed in range(num_seeds):
        rng = np.random.default_rng(seed)
        rows = np.concatenate(
            [rng.choice(np.flatnonzero(y_train == k), DIGITS_PER_CLASS, False) for k in range(10)]
        )
        order = np.concatenate([rng.permutation(rows) for _ in range(PASSES)])
        x, y = x_train[order], y_train[order]  # NUM_STEPS batches, one after the other
        labels = np.arange(len(x)) % 10
        others = rng.choice(np.setdiff1d(np.arange(len(x_train)), rows), len(x), replace=False)
        small_vae = train_vae(x_train, y_train, rows, seed)
        added = {
            "100 digits": None,
            "+ shifts of the 100": (shifted(x, rng), y),
            "+ VAE of the same 100": (small_vae.generate(len(x), labels, seed=seed), labels),
            "+ VAE of 60,000": (large_vae.generate(len(x), labels, seed=seed), labels),
            "+ 4,000 more digits": (x_train[others], y_train[others]),
        }
        for name, extra in added.items():
            accuracy = test_accuracy(x, y, extra, x_test, y_test, seed)
            accuracies.setdefault(name, []).append(accuracy)
        print(seed, *(f"{values[-1]:.2f}" for values in accuracies.values()), flush=True)
    base = np.array(accuracies["100 digits"])
    for name, values in accuracies.items():
        difference = np.array(values) - base
        print(
            f"{name}: {np.mean(values):.1f}%, standard deviation {np.std(values, ddof=1):.1f};"
            f" difference {difference.mean():+.1f}"
            f" ± {difference.std(ddof=1) / num_seeds**0.5:.1f} points"
        )


def shifted(x, rng):
    """Return images `(n, 784)`, each shifted by a random number of pixels in both directions."""
    shifts = rng.integers(-MAX_SHIFT, MAX_SHIFT + 1, (len(x), 2))
    images = [
        np.roll(image, shift, axis=(0, 1))  # the margin of MNIST is black
        for image, shift in zip(x.reshape(-1, 28, 28), shifts, strict=True)
    ]
    return np.stack(images).reshape(-1, 784)


def train_vae(x_train, y_train, rows, seed):
    """Train a conditional VAE on the given rows alone."""
    keras.utils.set_random_seed(seed)
    encoder, decoder = vae.build_encoder(num_classes=10), vae.build_decoder(num_classes=10)
    model = vae.VAE(encoder, decoder, beta=VAE_BETA, seed=seed)
    model.compile("adam", jit_compile=True, steps_per_execution=50)
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(rows) for _ in range(VAE_PASSES)])
    model.fit(x_train[order], y_train[order], batch_size=BATCH, shuffle=False, verbose=0)
    return model


def test_accuracy(x, y, extra, x_test, y_test, seed):
    """Return the test accuracy in percent of a CNN trained on x, and on extra images beside it."""
    x, y = x.reshape(NUM_STEPS, BATCH, 784), y.reshape(NUM_STEPS, BATCH)
    if extra is not None:
        x = np.concatenate([x, extra[0].reshape(NUM_STEPS, BATCH, 784)], axis=1)
        y = np.concatenate([y, extra[1].reshape(NUM_STEPS, BATCH)], axis=1)
    keras.utils.set_random_seed(seed)
    cnn = build_cnn()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    cnn.compile("adam", loss, metrics=["accuracy"], jit_compile=False)
    cnn.fit(x.reshape(-1, 28, 28, 1), y.reshape(-1), x.shape[1], shuffle=False, verbose=0)
    x_test = x_test.reshape(-1, 28, 28, 1)
    return 100 * cnn.evaluate(x_test, y_test, batch_size=500, verbose=0)[1]


if __name__ == "__main__":
    main()
