"""A new sign from 20 images: a conditional diffusion model, fine-tuned, beside one from scratch.

    python tests/benchmarks/few_shot.py [--settings replay scratch ...] [--steps 200]
        [--guidance-scales 1 2] [--seed 0] [--output few-shot.png]

The sign is a 3 of MNIST after a quarter turn, which looks like the letter m: handwriting of which
there are 990 other images to compare with. All are from the test set, which no model was trained
on; upright threes were in the training of `article3-diffusion-cosine`. Samples are taken in 10
steps of DPM-Solver++. Old digits are measured with article 4's CNN. A near copy of one of the 20
images is nearer to it (root of the summed squared differences of the pixels) than 99% of the
held-out images are to theirs.
"""

import argparse
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from keras_genai import datasets, metrics, pretrained
from keras_genai.callbacks import save_figure
from keras_genai.diffusion import DDPM, build_unet
from keras_genai.few_shot import add_classes
from keras_genai.plotting import plot_images

BASE, NEW_LABEL, NUM_SHOTS, BATCH_SIZE = "article3-diffusion-cosine", 10, 20, 32
NUM_OLD = 500  # samples of the digits 0 to 9
EMA_MOMENTUM = 0.98  # an average over about 50 steps
SAMPLER = {"method": "dpm_solver++", "num_steps": 10, "timestep_spacing": "karras"}
# Learning rate, share of replayed digits, pixels of random shifts, trained weights.
SETTINGS = {
    "replay": (1e-3, 0.5, 0, "all"),
    "lower-rate": (3e-4, 0.5, 0, "all"),
    "less-replay": (1e-3, 0.25, 0, "all"),
    "no-replay": (1e-3, 0.0, 0, "all"),
    "shifts": (1e-3, 0.5, 1, "all"),
    "label-only": (1e-2, 0.0, 0, "label"),
    "scratch": (2e-3, 0.0, 0, "new"),
}


def load_sign(seed):
    """Return the images to learn from and the held-out ones."""
    _, (images, labels) = datasets.load_mnist()
    signs = np.rot90(images[labels == 3], axes=(1, 2))[..., None].astype("float32") / 255
    order = np.random.default_rng(seed).permutation(len(signs))
    return signs[order[:NUM_SHOTS]], signs[order[NUM_SHOTS:]]


def shift(images, pixels, rng):
    """Return images moved by up to a number of pixels in each direction."""
    moves = rng.integers(-pixels, pixels + 1, (len(images), 2))
    return np.stack([np.roll(x, move, (0, 1)) for x, move in zip(images, moves, strict=True)])


def build(base, trained, seed):
    """Return the model to train: the base with one more class, or new weights."""
    if trained == "new":
        network = build_unet(num_classes=NEW_LABEL + 1)
        return DDPM(network, base.schedule, seed, prediction_type=base.prediction_type)
    model = add_classes(base)
    if trained == "label":
        for layer in model.network.layers:
            weights = layer.get_weights()
            layer.trainable = bool(weights) and len(weights[0]) == NEW_LABEL + 1
    return model


def make_batches(shots, num_steps, share, pixels, seed):
    """Return images and labels of all steps: the new sign, and a share of old digits."""
    (images, digits), _ = datasets.load_mnist()
    rng = np.random.default_rng(seed)
    num_old = round(BATCH_SIZE * share)
    x, labels = [], []
    for _ in range(num_steps):
        new = shots[rng.integers(len(shots), size=BATCH_SIZE - num_old)]
        old = rng.integers(len(images), size=num_old)
        x += [shift(new, pixels, rng) if pixels else new, images[old][..., None] / 255]
        labels += [np.full(len(new), NEW_LABEL), digits[old]]
    return np.concatenate(x, dtype="float32"), np.concatenate(labels).astype("int32")


def nearest_distances(images, others):
    """Return the distance of each image to the nearest of the others."""
    differences = images.reshape(len(images), 1, -1) - others.reshape(1, len(others), -1)
    return np.sqrt(np.sum(differences**2, axis=2)).min(axis=1)


class Ruler:
    """Measures of samples of the new sign, beside its images and the held-out ones."""

    def __init__(self, shots, held_out):
        self.shots, self.features = shots, metrics.image_features(held_out)
        distances = nearest_distances(held_out, shots)
        self.limit, self.count = np.quantile(distances, 0.01), len(held_out)
        self.classifier = pretrained.load("article4-cnn")

    def print_signs(self, name, images):
        features = metrics.image_features(images)
        precision, recall = metrics.precision_recall(self.features, features)
        copies = np.mean(nearest_distances(images, self.shots) < self.limit)
        print(f"{name}: Fréchet distance {metrics.frechet_distance(self.features, features):.1f}, "
              f"precision {precision:.2f}, recall {recall:.2f}, near copies {100 * copies:.1f}%",
              flush=True)  # fmt: skip

    def print_digits(self, name, model, seed):
        labels = np.arange(NUM_OLD) % 10
        samples = model.generate(NUM_OLD, labels, **SAMPLER, seed=seed)
        digits = metrics.classify_digits(samples, self.classifier)
        print(f"{name}: old digits as requested {metrics.label_accuracy(digits, labels):.1f}%")


def run(name, base, ruler, args):
    """Train one setting and measure it after each number of steps; return samples to plot."""
    learning_rate, share, pixels, trained = SETTINGS[name]
    keras.utils.set_random_seed(args.seed)
    model = build(base, trained, args.seed)
    model.ema_momentum = EMA_MOMENTUM
    model.compile(keras.optimizers.Adam(learning_rate), jit_compile=False)
    x, labels = make_batches(ruler.shots, max(args.steps), share, pixels, args.seed)
    previous, seconds = 0, 0.0
    for steps in sorted(args.steps):
        part = slice(previous * BATCH_SIZE, steps * BATCH_SIZE)
        start = time.perf_counter()
        model.fit(x[part], labels[part], batch_size=BATCH_SIZE, shuffle=False, verbose=0)
        previous, seconds = steps, seconds + time.perf_counter() - start
        title = f"{name}, {steps} steps"
        print(f"{title}: trained in {seconds:.0f} s")
        for scale in args.guidance_scales:
            options = {"guidance_scale": scale, "seed": args.seed, **SAMPLER}
            samples = model.generate(ruler.count, NEW_LABEL, **options)
            ruler.print_signs(f"{title}, guidance scale {scale:g}", samples)
        if trained != "new":
            ruler.print_digits(title, model, args.seed)
    return samples


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--steps", nargs="+", type=int, default=[200], help="[200]")
    parser.add_argument("--guidance-scales", nargs="+", type=float, default=[1.0, 2.0])
    parser.add_argument("--seed", type=int, default=0, help="also of the choice of the 20 images")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("few-shot.png"))
    args = parser.parse_args()
    shots, held_out = load_sign(args.seed)
    ruler, base = Ruler(shots, held_out), pretrained.load(BASE)
    (images, digits), _ = datasets.load_mnist()
    others = np.rot90(images[digits == 3][: len(held_out)], axes=(1, 2))[..., None] / 255
    ruler.print_signs("images of the training set", others)
    copies = np.resize(shots, held_out.shape)
    ruler.print_signs("the 20 images", copies)
    ruler.print_signs("shifted by a pixel", shift(copies, 1, np.random.default_rng(args.seed)))
    ruler.print_digits("before", base, args.seed)
    rows = {"20 images": shots, "held out": held_out[:NUM_SHOTS]}
    for name in args.settings:
        rows[name] = run(name, base, ruler, args)[:NUM_SHOTS]
    pictures = np.concatenate(list(rows.values()))
    save_figure(plot_images(pictures, NUM_SHOTS, row_labels=list(rows)), args.output)


if __name__ == "__main__":
    main()
