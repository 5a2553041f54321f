"""Images of the claims: MNIST in [0, 1], samples of pretrained models, and readers of digits."""

import functools
import types
import typing

import keras
import numpy as np

from keras_genai import datasets, pretrained
from keras_genai.callbacks import generate_batches
from keras_genai.cnn import build_cnn
from keras_genai.diffusion import DDPM
from keras_genai.tasks import cycle_labels
from keras_genai.validation import check_choice, check_size

# Part of the name of a pretrained image model, to its family.
FAMILIES = {"vae": "VAE", "gan": "GAN", "pixelcnn": "PixelCNN", "diffusion": "diffusion"}
FEW_STEPS = {"method": "dpm_solver++", "num_steps": 10}  # of diffusion, a fifth of the default
BATCH_SIZE = 500


class MNISTPixels(typing.NamedTuple):
    """MNIST as `(n, 28, 28, 1)` in [0, 1], with labels `(n,)`."""

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def load_pixels() -> MNISTPixels:
    """Load MNIST as pixels in [0, 1]."""
    (train, train_labels), (test, test_labels) = datasets.load_mnist()
    train, test = (x[..., None].astype("float32") / 255 for x in (train, test))
    return MNISTPixels(train, train_labels.astype("int32"), test, test_labels.astype("int32"))


def family_of(name: str) -> str | None:
    """Return the family of a pretrained image model, or `None` for another name."""
    return next((family for part, family in FAMILIES.items() if part in name), None)


@functools.cache
def load_model(name: str):
    """Load a pretrained model once."""
    return pretrained.load(name)


@functools.lru_cache(maxsize=64)
def draw(name: str, num_samples: int, seed: int, few_steps: bool = False) -> np.ndarray:
    """Return samples of a pretrained model, once for all claims.

    Args:
        name: String. Name of the model. A conditional one generates the digits 0 to 9 in turn.
        num_samples: Int. Number of samples n.
        seed: Int. Seed of the samples.
        few_steps: Bool. Whether a diffusion model takes 10 steps of DPM-Solver++ instead of its
            default sampler. Defaults to `False`.

    Returns:
        Float32 array `(n, 28, 28, 1)` that cannot be written to.
    """
    model = sampler = load_model(name)
    if few_steps and isinstance(model, DDPM):
        sampler = types.SimpleNamespace(generate=functools.partial(model.generate, **FEW_STEPS))
    labels = cycle_labels(model, num_samples)
    batches = list(generate_batches(sampler, num_samples, labels, seed))
    images = np.concatenate(batches).reshape(-1, 28, 28, 1)
    images.setflags(write=False)
    return images


# Checks.


def check_seeds(seeds) -> list[int]:
    """Return at least 2 different seeds as ints.

    Raises:
        ValueError: for another type, fewer seeds, a repeated one, and one outside int32.
    """
    if not isinstance(seeds, (list, tuple, range)):
        raise ValueError(f"seeds: expected a sequence of ints, got {seeds!r:.200}.")
    checked = [check_size("seeds", seed, minimum=0) for seed in seeds]
    if len(checked) < 2 or len(set(checked)) < len(checked):
        raise ValueError(f"seeds: expected at least 2 different ints, got {seeds!r:.200}.")
    return checked


def check_models(models, conditional: bool = False, name: str = "models", families=None) -> list:
    """Return names of pretrained image models as a list.

    Args:
        models: List or tuple of strings.
        conditional: Bool. Whether all have to be conditional. Defaults to `False`.
        name: String. Name of the argument for the error message. Defaults to `"models"`.
        families: Collection of strings, or `None` for all families. Defaults to `None`.

    Raises:
        ValueError: for another type, no name or a repeated one, and a name of another model.
    """
    if not isinstance(models, (list, tuple)) or not models:
        raise ValueError(f"{name}: expected a list of names, got {models!r:.200}.")
    families = set(FAMILIES.values()) if families is None else families
    choices = [choice for choice in pretrained.names() if family_of(choice) in families]
    for model in models:
        check_choice(name, model, choices)
        if conditional and load_model(model).num_classes != 10:
            raise ValueError(f"{name}: expected conditional models, got {model}.")
    if len(set(models)) < len(models):
        raise ValueError(f"{name}: expected different names, got {models!r:.200}.")
    return list(models)


# Readers of digits.


def train_classifier(x, y, epochs: int, seed: int = 0) -> keras.Model:
    """Train article 4's classifier on images `(n, height, width, 1)` and their digits `(n,)`."""
    keras.utils.set_random_seed(seed)
    classifier = build_cnn(x.shape[1:])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    classifier.compile("adam", loss, jit_compile=False)  # XLA makes convolutions slower on a CPU
    classifier.fit(x, y, batch_size=64, epochs=epochs, verbose=0)
    return classifier


def read_digits(classifier, images) -> tuple[np.ndarray, np.ndarray]:
    """Return the digits `(n,)` that a classifier predicts, and their probabilities `(n,)`."""
    logits = classifier.predict(images, batch_size=BATCH_SIZE, verbose=0).astype("float64")
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return logits.argmax(axis=1), odds.max(axis=1) / odds.sum(axis=1)
