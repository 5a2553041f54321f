"""Task on images with captions: a diffusion model conditioned on text."""

import re

import numpy as np

from keras_genai import datasets, metrics, morphology
from keras_genai.callbacks import save_figure
from keras_genai.plotting import plot_images
from keras_genai.tasks.base import cycle_labels
from keras_genai.tasks.images import DiffusionTask, ImageTask
from keras_genai.text_to_image import collect_words, tokenize
from keras_genai.validation import check_labels, check_strings

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# Ranges of the measures of `morphology`, in pixels and degrees, each about a third of the digits;
# between them, no word is true.
THICKNESS = {"thin": (-np.inf, 2.1), "thick": (2.6, np.inf)}
SLANT = {"backslanted": (-np.inf, -3.0), "upright": (0.0, 10.0), "slanted": (13.0, np.inf)}
MENTIONED = 0.7  # share of the adjectives that captions mention
GUIDANCE_SCALE = 2.0
NUM_PROMPTS = 8  # in a picture


def describe_digits(images, digits, seed: int = 0) -> list[str]:
    """Return captions of digits, such as "a thick slanted seven".

    Adjectives are measured from the pixels. Each is mentioned with probability `MENTIONED`, so that
    a prompt may leave it out, too.

    Args:
        images: Float array `(n, height, width)`, white on black, in [0, 1].
        digits: Int array `(n,)`, from 0 to 9.
        seed: Int. Seed of what is mentioned. Defaults to `0`.

    Raises:
        ValueError: for other images, and for another number of digits or one outside 0 to 9.
    """
    digits = check_labels(digits, len(DIGITS), len(images))
    mentioned = np.random.default_rng(seed).random((2, len(digits))) < MENTIONED
    words = [[DIGITS[digit]] for digit in digits]
    for ranges, measure, row in zip(
        (SLANT, THICKNESS), (morphology.slant, morphology.thickness), mentioned, strict=True
    ):
        values = measure(images)
        for word, (low, high) in ranges.items():
            for i in np.flatnonzero(row & (low < values) & (values < high)):
                words[i].insert(0, word)
    return [" ".join(_with_article(caption)) for caption in words]


def _with_article(words: list[str]) -> list[str]:
    return ["an" if words[0] in ("upright", "eight") else "a", *words]


def caption_test_digits(num_samples: int) -> tuple[list[str], np.ndarray]:
    """Return captions of the test images of MNIST, from the first on in a circle, and digits."""
    images, digits = datasets.load_mnist()[1]
    rows = np.arange(num_samples) % len(digits)
    captions = describe_digits(images / 255, digits)
    return [captions[row] for row in rows], digits[rows]


def all_prompts() -> list[str]:
    """Return all captions of `describe_digits`: 10 digits, 3 degrees of thickness, 4 of slant."""
    thickness, slants = (None, *THICKNESS), (None, *SLANT)
    words = [
        [word for word in (thick, slant, digit) if word]
        for thick in thickness
        for slant in slants
        for digit in DIGITS
    ]
    return [" ".join(_with_article(caption)) for caption in words]


def prompt_accuracy(images, prompts, classifier) -> dict[str, float]:
    """Return the percentage of images that are as their prompts say.

    Args:
        images: Float array `(n, 28, 28, 1)` in [0, 1].
        prompts: List of n captions of `describe_digits`.
        classifier: `keras.Model` that maps images to logits of digits.

    Returns:
        A dict: `"digit"`, and `"thickness"` and `"slant"` where the prompt mentions it, in percent
        of these prompts; `"all"` of what the prompt says.

    Raises:
        ValueError: for another number of prompts.
    """
    prompts = check_strings("prompts", prompts, len(images))
    digits = metrics.classify_digits(images, classifier)
    correct: dict[str, list] = {"digit": [], "thickness": [], "slant": [], "all": []}
    measures = {"thickness": (THICKNESS, morphology.thickness), "slant": (SLANT, morphology.slant)}
    values = {name: measure(images) for name, (_, measure) in measures.items()}
    for i, prompt in enumerate(prompts):
        words = prompt.split()
        found = {"digit": DIGITS[digits[i]] in words}
        for name, (ranges, _) in measures.items():
            for word, (low, high) in ranges.items():
                if word in words:
                    found[name] = low < values[name][i] < high
        for name, value in {**found, "all": all(found.values())}.items():
            correct[name].append(value)
    return {name: 100 * float(np.mean(found)) for name, found in correct.items() if found}


class TextToImageTask(DiffusionTask):
    """Images with captions: MNIST, described by `describe_digits`, or the user's images.

    The captions of the user's images are the names of the class folders, such as
    `thick_red_circle`. The labels of `Data` are tokens `(n, max_words)`.

    The metric is the percentage of samples of MNIST that are as their prompt says, digit, thickness
    and slant, with classifier-free guidance.
    """

    num_samples = 600  # 5 of each prompt

    def __init__(self):
        super().__init__(class_conditional=True)

    def load(self, source=None, cache=None, image_size=None, channels=None):
        data = super().load(source, cache, image_size, channels)
        splits = (data.train, data.test)
        if source is None:
            captions = [describe_digits(x[..., 0], y, seed=i) for i, (x, y) in enumerate(splits)]
        else:
            names = [re.sub("[_-]+", " ", name) for name in datasets.image_class_names(source)]
            if len(set(names)) < len(names):
                raise ValueError(f"{source}: expected folders of different captions, got {names}.")
            captions = [[names[label] for label in y] for _, y in splits]
        all_captions = [*captions[0], *captions[1]]
        vocabulary = collect_words(all_captions)
        max_words = max(len(caption.split()) for caption in all_captions)
        data.train, data.test = (
            (x, tokenize(texts, vocabulary, max_words))
            for (x, _), texts in zip(splits, captions, strict=True)
        )
        data.dataset_info = {
            "image_shape": data.dataset_info["image_shape"],
            "vocabulary": vocabulary,
            "max_words": max_words,
            "example_prompts": all_prompts() if source is None else sorted(set(all_captions)),
        }
        return data

    def evaluate(self, model, data):
        prompts = cycle_labels(model, self.num_samples)
        samples = model.generate(
            len(prompts), prompts, guidance_scale=GUIDANCE_SCALE, method="ddpm", seed=0
        )
        loss = ImageTask.evaluate(self, model, data)["loss"]
        accuracy = prompt_accuracy(samples, prompts, data.classifier)
        return {"value": accuracy["all"], **accuracy, "loss": loss}

    def save_samples(self, model, data, folder):
        """Write the samples of a diffusion model, and one row of samples for each of 8 prompts."""
        super().save_samples(model, data, folder)
        rows = np.linspace(0, len(model.example_prompts) - 1, NUM_PROMPTS).astype(int)
        prompts = [model.example_prompts[row] for row in rows]
        labels = np.repeat(prompts, NUM_PROMPTS)
        samples = model.generate(len(labels), labels, guidance_scale=GUIDANCE_SCALE, seed=0)
        save_figure(plot_images(samples, NUM_PROMPTS, row_labels=prompts), folder / "prompts.png")
