"""A recipe of images on a folder of pictures in color: real pictures beside generated ones.

    python tests/benchmarks/pictures.py [--recipe dcgan] [--size 32] [--count 6000] [--epochs 20]
        [--output pictures.png]

The pictures are digits of MNIST as PNG files, each in a random ink on a darker paper of the
opposite hue. The recipe reads them as anyone's own: `train dcgan --data FOLDER --image-size 32
--channels 3`.
"""

import argparse
import pathlib
import tempfile
import time

import numpy as np
from matplotlib import colormaps
from PIL import Image

from keras_genai import datasets, recipes
from keras_genai.callbacks import save_figure
from keras_genai.plotting import plot_images
from keras_genai.tasks import cycle_labels

COLUMNS, ROWS = 16, 3  # of real pictures, and of generated ones


def write_pictures(folder, count, size):
    """Write colored digits to a folder for each digit."""
    (images, labels), _ = datasets.load_mnist()
    hues = np.random.default_rng(0).random(count)
    inks, papers = (colormaps["hsv"](hue)[:, :3] for hue in (hues, (hues + 0.5) % 1))
    for i in range(count):
        brightness = images[i][..., None] / 255
        picture = brightness * inks[i] + (1 - brightness) * 0.4 * papers[i]
        path = folder / str(labels[i]) / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.uint8(255 * picture)).resize((size, size)).save(path)


def main():
    parser = argparse.ArgumentParser(description="Train a recipe on pictures in color.")
    parser.add_argument("--recipe", default="dcgan")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--count", type=int, default=6000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("pictures.png"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_pictures(folder, args.count, args.size)
        start = time.perf_counter()
        model, _, _ = recipes.train(
            args.recipe,
            data=folder,
            image_size=args.size,
            channels=3,
            epochs=args.epochs,
            verbose=2,
        )
        (real, _), _ = datasets.load_image_folder(folder, args.size, channels=3)
    count = ROWS * COLUMNS
    generated = model.generate(count, cycle_labels(model, count), seed=0)
    pictures = np.concatenate([real[:count] / 255, generated])
    labels = [["real", "generated"][i // ROWS] if i % ROWS == 0 else "" for i in range(2 * ROWS)]
    save_figure(plot_images(pictures, columns=COLUMNS, row_labels=labels), args.output)
    print(f"{args.output}: {(time.perf_counter() - start) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
