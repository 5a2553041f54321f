"""Actions of the demo on images: latent planes, samples, denoising, completion, classification.

An action takes the values of the controls of one tab, and returns arrays and figures. It checks
every value, since a request may come from any program; an `InputError` has the key of its message,
which the page writes in the language of the user.
"""

import functools
import io
import math
import warnings

import keras
import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from keras_genai import datasets, pretrained
from keras_genai.demo.texts import FIGURE_TEXTS
from keras_genai.plotting import chinese_font, plot_images
from keras_genai.validation import is_number

# The pretrained models of each tab, the first of which is selected at the start.
MODELS = {
    "latent": ("article4-vae", "conditional-vae", "conv-vae", "conditional-conv-vae"),
    "gan": ("conditional-dcgan", "dcgan", "article4-gan"),
    "diffusion": (
        "article3-diffusion",
        "article3-diffusion-cosine",
        "article3-diffusion-unconditional",
    ),
    "words": ("article1-text-to-image",),
    "completion": ("article3-pixelcnn",),
    "digit": ("article4-cnn",),
    "text": (
        "article4-gpt2",
        "article3-lstm",
        "article3-rnn",
        "article4-gpt2-tang",
        "article3-lstm-tang",
    ),
    "music": ("article3-music",),
    "translation": (
        "article1-transformer",
        "article3-lstm-attention",
        "article3-lstm-translation",
    ),
    "author": ("article1-transformer-classifier",),
    "forecast": ("article3-forecast",),
    "sound": ("article3-wavenet", "article3-audio-vae"),
}
# Smallest and largest value of each number. The page has controls with the same limits.
LIMITS = {
    "digit": (0, 9),
    "position": (-1, 1),
    "num_images": (1, 25),
    "num_paths": (1, 4),
    "num_completions": (1, 8),
    "guidance_scale": (0, 10),
    "num_steps": (1, 100),
    "new_tokens": (1, 400),
    "temperature": (0.1, 2),
    "seconds": (0.25, 2),
    "week": (2055, 2232),  # the last tenth of the series, except for its last year
    "seed": (0, 2**31 - 1),
}
NUM_ENCODINGS = 2000  # test images of all digits, or of the selected one
EXTENT = 2.5  # half the width of a latent plane, in standard deviations of the encodings
PLANE_SIZE = 11  # decoded images along each side of a latent plane
NUM_FRAMES = 10  # of the path from noise, after the noise itself
IMAGE_SIZE, DIGIT_SIZE = 28, 20  # pixels of an image, and of the box of an MNIST digit in it
DRAWN_ROWS = 14  # rows of a drawing that PixelCNN completes
MAX_WORDS_CHARACTERS = 100
MIN_INK = 10  # pixels of a drawing
FIGURE_DPI = 144


class InputError(ValueError):
    """Invalid value of a control.

    Args:
        key: String. Key of the message in `texts.TEXTS`.
        **values: Values of the message; `name` is the key of a control's label.
    """

    def __init__(self, key, **values):
        super().__init__(f"{key}: {values}")
        self.key, self.values = key, values


# Checks.


def check_number(name: str, value, whole: bool = True):
    """Return a number within its `LIMITS`.

    Args:
        name: String. Key of `LIMITS` and of the control's label.
        value: Value to check. A whole number may be a float, as JSON has no other numbers.
        whole: Bool. Whether it must be a whole number. Defaults to `True`.

    Raises:
        InputError: for another type, and for a number outside the limits.
    """
    minimum, maximum = LIMITS[name]
    valid = is_number(value) and minimum <= value <= maximum  # NaN compares false
    if not valid or (whole and value != int(value)):
        key = "error_whole_number" if whole else "error_number"
        raise InputError(key, name=name, minimum=minimum, maximum=maximum, value=f"{value!r:.40}")
    return int(value) if whole else float(value)


def check_text(name: str, value, maximum: int) -> str:
    """Return a text that is not blank and not longer than a number of characters.

    Raises:
        InputError: for another value.
    """
    if not isinstance(value, str) or not value.strip():
        raise InputError("error_blank", name=name)
    if len(value) > maximum:
        raise InputError("error_long", name=name, maximum=maximum, length=len(value))
    return value


def model(tab: str, name) -> keras.Model:
    """Return a pretrained model of a tab, loaded at its first use.

    Raises:
        InputError: for a name that is not in `MODELS[tab]`.
    """
    if name not in MODELS[tab]:
        raise InputError("error_choice", name="model", value=f"{name!r:.40}")
    return _load(name)


@functools.cache
def _load(name):
    return pretrained.load(name)


def is_conditional(tab: str, name) -> bool:
    """Return whether a model of images has the digit as a second input."""
    return model(tab, name).num_classes is not None


def _check_label(network, digit) -> int | None:
    """Return the digit for a conditional model, `None` for another one."""
    if network.num_classes is None:
        if digit is not None:
            raise InputError("error_unused", name="digit", value=digit)
        return None
    return check_number("digit", digit)


# Figures.


def render(figure: Figure, language: str = "en") -> np.ndarray:
    """Return a figure as an array `(height, width, 3)` of bytes, with its texts in a language."""
    if language != "en":
        for text in figure.findobj(Text):
            if text.get_text() in FIGURE_TEXTS:
                size = text.get_fontsize()
                text.set_text(FIGURE_TEXTS[text.get_text()])
                text.set_fontproperties(chinese_font())
                text.set_fontsize(size)
    file = io.BytesIO()
    with warnings.catch_warnings():
        # Of a text in any script, of which the font may lack a character.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        figure.savefig(file, dpi=FIGURE_DPI)
    return np.asarray(Image.open(file).convert("RGB"))


def to_bytes(images) -> np.ndarray:
    """Return images in [0, 1] as arrays of bytes `(n, 28, 28)`."""
    images = np.reshape(images, (-1, IMAGE_SIZE, IMAGE_SIZE))
    return np.round(255 * np.clip(images, 0, 1)).astype("uint8")


# Latent planes.


@functools.cache
def _plane(name, digit):
    """Return the origin `(d,)` and the two axes `(2, d)` of the plane of a latent space.

    They are the mean and the first two principal components of the encodings of test images, each
    component as long as `EXTENT` standard deviations.
    """
    vae, (x, y) = model("latent", name), datasets.load_mnist()[1]
    rows = np.flatnonzero(np.isin(y, y if digit is None else digit))[:NUM_ENCODINGS]
    x = x[rows].reshape(-1, *vae.image_shape).astype("float32") / 255
    z_mean, _ = vae.encode(x, None if digit is None else y[rows].astype("int32"))
    origin = z_mean.mean(axis=0)
    _, singular_values, components = np.linalg.svd(z_mean - origin, full_matrices=False)
    deviations = singular_values[:2] / math.sqrt(len(rows))
    return origin, EXTENT * deviations[:, None] * components[:2]


def _decode(name, digit, points) -> np.ndarray:
    """Return the images of points `(n, 2)` of a plane as bytes `(n, 28, 28)`."""
    vae = model("latent", name)
    digit = _check_label(vae, digit)
    origin, axes = _plane(name, digit)
    z = (origin + np.asarray(points, "float32") @ axes).astype("float32")
    return to_bytes(vae.decode(z, None if digit is None else np.full(len(z), digit)))


def latent_plane(name, digit=None) -> np.ndarray:
    """Decode a grid of points of the plane through the latent space of a VAE.

    Args:
        name: String. One of `MODELS["latent"]`.
        digit: Int from 0 to 9 for a conditional VAE, else `None`. Defaults to `None`.

    Returns:
        A uint8 array `(308, 308)`: 11 × 11 images, whose centers are evenly spaced.

    Raises:
        InputError: for an invalid value.
    """
    steps = (2 * np.arange(PLANE_SIZE) + 1) / PLANE_SIZE - 1
    x, y = np.meshgrid(steps, steps[::-1])  # y increases upward
    images = _decode(name, digit, np.stack([x.ravel(), y.ravel()], axis=-1))
    grid = images.reshape(PLANE_SIZE, PLANE_SIZE, IMAGE_SIZE, IMAGE_SIZE).swapaxes(1, 2)
    return grid.reshape(PLANE_SIZE * IMAGE_SIZE, PLANE_SIZE * IMAGE_SIZE)


def decode_point(name, digit, x, y) -> np.ndarray:
    """Decode one point of the plane.

    Args:
        name, digit: See `latent_plane`.
        x, y: Floats in [-1, 1]. Position from left to right, and from the bottom to the top.

    Returns:
        A uint8 array `(28, 28)`.

    Raises:
        InputError: for an invalid value.
    """
    point = [check_number("position", value, whole=False) for value in (x, y)]
    return _decode(name, digit, [point])[0]


# Samples.


def gan_images(name, digit, num_images, seed) -> Figure:
    """Generate images with a GAN.

    Args:
        name: String. One of `MODELS["gan"]`.
        digit: Int from 0 to 9 for a conditional GAN, else `None`.
        num_images: Int. Number of images.
        seed: Int. Seed of the noise.

    Raises:
        InputError: for an invalid value.
    """
    gan = model("gan", name)
    num_images, seed = check_number("num_images", num_images), check_number("seed", seed)
    images = gan.generate(num_images, _check_label(gan, digit), seed=seed)
    return plot_images(images, columns=min(num_images, 5))


def diffusion_path(name, digit, guidance_scale, num_steps, num_paths, seed) -> Figure:
    """Plot the path of images from noise, one row for each image.

    Args:
        name: String. One of `MODELS["diffusion"]`.
        digit: Int from 0 to 9 for a conditional model, else `None`.
        guidance_scale: Float. Scale of classifier-free guidance for a conditional model, else
            `None`.
        num_steps: Int. Number of sampling steps.
        num_paths: Int. Number of images.
        seed: Int. Seed of the noise.

    Returns:
        A figure with the number of steps above each column.

    Raises:
        InputError: for an invalid value.
    """
    ddpm = model("diffusion", name)
    digit = _check_label(ddpm, digit)
    if digit is None and guidance_scale is not None:
        raise InputError("error_unused", name="guidance_scale", value=guidance_scale)
    scale = 1.0 if digit is None else check_number("guidance_scale", guidance_scale, whole=False)
    num_steps, num_paths = (
        check_number("num_steps", num_steps),
        check_number("num_paths", num_paths),
    )
    num_frames = min(NUM_FRAMES, num_steps)
    frames = ddpm.generate_progressive(
        num_paths,
        digit,
        num_frames=num_frames,
        guidance_scale=scale,
        num_steps=num_steps,
        seed=check_number("seed", seed),
    )  # (num_frames + 1, n, 28, 28, 1)
    frames = np.clip(frames.swapaxes(0, 1), 0, 1)
    steps = np.round(np.linspace(0, num_steps, num_frames + 1)).astype(int)
    titles = [*map(str, steps), *[""] * (len(steps) * (num_paths - 1))]
    return plot_images(frames.reshape(-1, *frames.shape[2:]), columns=len(steps), titles=titles)


def word_images(name, prompt, guidance_scale, num_images, seed) -> Figure:
    """Plot images of a prompt, in 10 steps of DPM-Solver++.

    Args:
        name: String. One of `MODELS["words"]`.
        prompt: String. Words of the model's vocabulary.
        guidance_scale: Float. Scale of classifier-free guidance.
        num_images, seed: Ints.

    Raises:
        InputError: for an invalid value, and for a word that is not in the vocabulary.
    """
    ddpm = model("words", name)
    prompt = check_text("words", prompt, MAX_WORDS_CHARACTERS)
    try:
        ddpm.tokenize([prompt])
    except ValueError as error:
        vocabulary = ", ".join(ddpm.vocabulary)
        raise InputError("error_words", maximum=ddpm.max_words, vocabulary=vocabulary) from error
    images = ddpm.generate(
        check_number("num_images", num_images),
        prompt,
        guidance_scale=check_number("guidance_scale", guidance_scale, whole=False),
        num_steps=10,
        method="dpm_solver++",
        timestep_spacing="karras",
        seed=check_number("seed", seed),
    )
    return plot_images(images, columns=5)


# Drawings.


def check_drawing(pixels, rows: int = IMAGE_SIZE) -> np.ndarray:
    """Return a drawing as an array `(rows, 28)` in [0, 1].

    Args:
        pixels: List of 784 numbers from 0, black, to 255, white, or `None` for no drawing.
        rows: Int. Number of upper rows that are returned. Defaults to `28`.

    Raises:
        InputError: for another list, and for a drawing of almost no ink in these rows.
    """
    empty = "error_empty_drawing" if rows == IMAGE_SIZE else "error_empty_half"
    if pixels is None:
        raise InputError(empty)
    numbers = isinstance(pixels, list) and len(pixels) == IMAGE_SIZE**2
    if not numbers or not all(is_number(pixel) and 0 <= pixel <= 255 for pixel in pixels):
        raise InputError("error_drawing", name="drawing")
    image = np.reshape(pixels, (IMAGE_SIZE, IMAGE_SIZE))[:rows] / 255
    if np.sum(image > 0.5) < MIN_INK:
        raise InputError(empty)
    return image


def complete_digit(name, pixels, num_completions, seed) -> Figure:
    """Complete the upper half of a drawn digit by PixelCNN.

    Args:
        name: String. One of `MODELS["completion"]`.
        pixels: List of 784 numbers; see `check_drawing`. The lower half is ignored.
        num_completions: Int. Number of completions.
        seed: Int. Seed of the sampling.

    Raises:
        InputError: for an invalid value.
    """
    upper_rows = check_drawing(pixels, DRAWN_ROWS)[..., None].round()  # black and white
    num_completions = check_number("num_completions", num_completions)
    images = model("completion", name).generate(
        num_completions, upper_rows=upper_rows, seed=check_number("seed", seed)
    )
    return plot_images(images, columns=min(num_completions, 4))


def center_digit(image) -> np.ndarray:
    """Return a drawing in the format of MNIST (LeCun et al. 1998).

    The digit is scaled to fit a box of 20 × 20 pixels, with its center of mass at the center.

    Args:
        image: Float array `(28, 28)` in [0, 1], with some ink.

    Returns:
        A float32 array `(28, 28)` in [0, 1].
    """
    rows, columns = (np.flatnonzero(image.max(axis=axis) > 0.1) for axis in (1, 0))
    box = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = (max(1, round(n * DIGIT_SIZE / max(box.shape))) for n in box.shape)
    scaled = Image.fromarray(np.round(255 * box).astype("uint8")).resize((width, height))
    digit = np.asarray(scaled, "float32") / 255
    weights = digit / digit.sum()
    center = IMAGE_SIZE / 2  # the mean of the centers of mass in MNIST
    top = round(center - np.sum(weights.sum(axis=1) * np.arange(height)))
    left = round(center - np.sum(weights.sum(axis=0) * np.arange(width)))
    top, left = (min(max(0, x), IMAGE_SIZE - n) for x, n in ((top, height), (left, width)))
    centered = np.zeros((IMAGE_SIZE, IMAGE_SIZE), "float32")
    centered[top : top + height, left : left + width] = digit
    return centered


def classify_digit(name, pixels) -> dict[str, float]:
    """Return the probability of each digit for a drawing.

    Args:
        name: String. One of `MODELS["digit"]`.
        pixels: List of 784 numbers; see `check_drawing`.

    Raises:
        InputError: for an invalid value.
    """
    classifier, image = model("digit", name), center_digit(check_drawing(pixels))
    logits = classifier.predict_on_batch(image[None, ..., None])[0]
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    return {str(digit): float(p) for digit, p in enumerate(probabilities)}
