"""Latent editing of VAE and GAN: directions, inversion and interpolation, measured.

    python tests/benchmarks/editing.py [--models article4-vae dcgan ...] [--count 200]
        [--samples 1000] [--seed 0] [--output editing.png]

Directions are fitted to 6,000 samples of the prior. Requested changes, of both signs, are compared
with those that are measured from the pixels, in new samples and in test digits after inversion. The
digit is that of the label, or the one that article 4's CNN reads in the image before. For models
without labels, a second fit has the digit as further attributes, which then also stay the same.
"""

import argparse
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from keras import ops

from keras_genai import datasets, latent_editing, metrics, morphology, pretrained
from keras_genai.callbacks import save_figure
from keras_genai.plotting import plot_images
from keras_genai.vae import VAE

VAES = ["article4-vae", "conditional-vae", "conv-vae", "conditional-conv-vae"]
GANS = ["article4-gan", "dcgan", "conditional-dcgan"]
CHANGES = {"thickness": 0.75, "slant": 12.0, "width": 0.1}  # pixels, degrees, of the height
NUM_FITTED = 6000  # samples of the prior
CERTAIN = 0.9


def measure(images):
    images = images.reshape(-1, 28, 28)
    return {name: function(images) for name, function in morphology.MEASURES.items()}


def labels_in_turn(model, count):
    return np.arange(count, dtype="int32") % 10 if model.num_classes else None


def fit_directions(model, classifier, seed):
    """Return the directions of the measures alone, and those that also keep the digit."""
    labels = labels_in_turn(model, NUM_FITTED)
    z = latent_editing.sample_latents(model, NUM_FITTED, labels, seed=seed)
    images = latent_editing.decode_latents(model, z, labels)
    measured = measure(images)
    fits = {"measures": latent_editing.latent_directions(z, measured, labels)}
    if labels is None:
        digits = metrics.classify_digits(images, classifier)
        shown = {f"is {digit}": np.float64(digits == digit) for digit in range(9)}  # 9 follows
        fits["and digit"] = latent_editing.latent_directions(z, {**measured, **shown})
    return fits


def print_edits(model, directions, z, labels, digits, classifier, title):
    """Print the measured changes of each attribute, half the difference of both signs."""
    for name, change in CHANGES.items():
        edited = [
            latent_editing.decode_latents(model, directions.edit(z, {name: sign * change}), labels)
            for sign in (1, -1)
        ]
        upper, lower = (measure(images) for images in edited)
        changes = {key: np.mean(upper[key] - lower[key]) / 2 for key in CHANGES}
        same = [np.mean(metrics.classify_digits(x, classifier) == digits) for x in edited]
        values = ", ".join(f"{key} {value:+.3f}" for key, value in changes.items())
        requested = f"{name} {change:+}"
        print(f"  {title:<20} {requested:<16} {values}; same digit {100 * np.mean(same):.1f}%")


def edit_model(name, args, classifier, x_test, y_test):
    model = pretrained.load(name)
    x = x_test[: args.count].reshape(-1, *model.image_shape)
    y = y_test[: args.count]
    labels = y if model.num_classes else None
    fits = fit_directions(model, classifier, args.seed)

    print(f"{name}, latent_dim {model.latent_dim}")
    sample_labels = labels_in_turn(model, args.samples)
    options = (model, args.samples, sample_labels)
    samples = latent_editing.sample_latents(*options, seed=args.seed + 1)
    decoded = latent_editing.decode_latents(model, samples, sample_labels)
    digits = metrics.classify_digits(decoded, classifier)
    starts = {"encoder": model.encode(x, labels)[0]} if isinstance(model, VAE) else {}
    for restarts in (1,) if isinstance(model, VAE) else (1, 4):
        start = time.perf_counter()
        z, _ = latent_editing.invert(model, x, labels, num_restarts=restarts, seed=args.seed)
        starts[f"inversion, {restarts} start{'s' * (restarts > 1)}"] = z
        print(f"  inversion with {restarts}: {time.perf_counter() - start:.1f} s")
    for title, z in starts.items():
        images = latent_editing.decode_latents(model, z, labels)
        read = np.mean(metrics.classify_digits(images, classifier) == y)
        norm = np.linalg.norm(z, axis=1).mean()
        print(f"  {title}: squared error of a pixel {np.mean((images - x) ** 2):.4f}, "
              f"read as its digit {100 * read:.1f}%, norm {norm:.1f}")  # fmt: skip
    for title, directions in fits.items():
        print(f"  R² ({title}): {np.round(directions.r_squared[:3], 2)}")
        arguments = (directions, samples, sample_labels, digits, classifier)
        print_edits(model, *arguments, f"samples, {title}")
        print_edits(model, directions, z, labels, y, classifier, f"test, {title}")

    last = fits[next(reversed(fits))]
    return plot_row(
        model, last, x[args.shown], z[args.shown], None if labels is None else y[args.shown]
    )


def plot_row(model, directions, image, z, labels):
    """Return an image, and its z edited by two steps of each sign of thickness and of slant."""
    steps = np.arange(-2, 3)
    moved = [
        directions.edit(np.tile(z, (len(steps), 1)), {name: CHANGES[name] * steps})
        for name in ("thickness", "slant")
    ]
    images = latent_editing.decode_latents(model, np.concatenate(moved), labels)
    return np.concatenate([image.reshape(1, 28, 28), images.reshape(-1, 28, 28)])


def print_interpolation(name, args, classifier, test_features):
    """Print norm and quality of the midpoints of paths between samples."""
    model = pretrained.load(name)
    labels = labels_in_turn(model, args.samples)
    options = (model, args.samples, labels)
    start, end = (latent_editing.sample_latents(*options, seed=args.seed + i) for i in (2, 3))
    points = {"ends": start}
    for method in ("linear", "spherical"):
        points[method] = latent_editing.interpolate_latents(start, end, 3, method)[:, 1]
    for title, z in points.items():
        images = latent_editing.decode_latents(model, z, labels)
        logits = classifier.predict(images.reshape(-1, 28, 28, 1), batch_size=500, verbose=0)
        certain = np.mean(np.max(ops.softmax(logits), axis=1) > CERTAIN)
        distance = metrics.frechet_distance(test_features, metrics.image_features(images))
        norm = np.linalg.norm(z, axis=1).mean()
        print(f"  midpoints, {title}: norm {norm:.2f}, Fréchet distance {distance:.1f}, "
              f"probability of a digit above {CERTAIN}: {100 * certain:.1f}%",
              flush=True)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=VAES + GANS, choices=VAES + GANS)
    parser.add_argument("--count", type=int, default=200, help="test digits to invert [200]")
    parser.add_argument("--samples", type=int, default=1000, help="samples to edit [1000]")
    parser.add_argument("--shown", type=int, default=0, help="index of the plotted digit [0]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("editing.png"))
    args = parser.parse_args()
    _, (x_test, y_test) = datasets.load_mnist()
    x_test, y_test = x_test.astype("float32") / 255, y_test.astype("int32")
    classifier = pretrained.load("article4-cnn")
    test_features = metrics.image_features(x_test[..., None])
    rows = []
    for name in args.models:
        rows.append(edit_model(name, args, classifier, x_test, y_test))
        print_interpolation(name, args, classifier, test_features)
    units = [f"{CHANGES[key] * step:+g}" for key in ("thickness", "slant") for step in range(-2, 3)]
    titles = ["test", *units] + [""] * (len(rows) - 1) * (len(units) + 1)
    images = np.concatenate(rows)
    save_figure(plot_images(images, len(units) + 1, titles, row_labels=args.models), args.output)


if __name__ == "__main__":
    main()
