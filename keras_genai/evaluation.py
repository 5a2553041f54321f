"""Quality and speed of trained models, one row for each: images, texts, and all other recipes.

Images are compared with the 10,000 test images of MNIST, in features of article 4's CNN: the
Fréchet distance is that of a small classifier, which is not comparable with published ones of
Inception. Texts are compared with the text of the recipe. `python -m keras_genai evaluate` prints
the rows as tables.
"""

import copy
import dataclasses
import functools
import itertools
import math
import pathlib
import time
import typing

import numpy as np
import tensorflow as tf

from keras_genai import catalog, datasets, metrics, pretrained, saving
from keras_genai.arguments import MAX_SAMPLES, MIN_SAMPLES
from keras_genai.audio_vae import AudioVAE
from keras_genai.autoregressive import Sampler
from keras_genai.callbacks import generate_batches
from keras_genai.experiments import EXPERIMENTS
from keras_genai.files import to_path
from keras_genai.language_model import CausalLM
from keras_genai.models import GenerativeImageModel
from keras_genai.quality_report import MIN_COPIED, ImageRow, RecipeRow, TextRow
from keras_genai.random_state import check_seed
from keras_genai.runs import RunFolder
from keras_genai.streamed_arrays import StreamedArray
from keras_genai.tasks import caption_test_digits, cycle_labels
from keras_genai.tasks.language import LanguageModelingTask
from keras_genai.text_to_image import TextToImageDDPM
from keras_genai.validation import check_size, check_type

NUM_SAMPLES = 10_000  # as many as test images
NUM_DIFFUSION_SAMPLES = 2000  # a network is evaluated 50 times for each
NUM_NEIGHBORS_SAMPLES = 2000  # of each side, for precision and recall
NUM_IMPORTANCE_SAMPLES = 100  # of z for each test image
DIGITS = 10
NUM_CHARACTERS = 2000
TEMPERATURE = 0.8
NUM_TRAINING_STEPS = 5
FAMILIES = ("VAE", "GAN", "PixelCNN", "DDPM")


# Models.


class Candidate(typing.NamedTuple):
    """A model with what is known of its training.

    Attributes:
        name: String. Name of the model, or path of its file.
        model: `keras.Model`.
        recipe: String or `None`. Name of the recipe.
        data: String or `None`. The user's data, `None` for those of the recipe.
        minutes: Float or `None`. Minutes of training.
        image_size, channels: Ints or `None`. Those to which the user's images were converted.
    """

    name: str
    model: typing.Any
    recipe: str | None = None
    data: str | None = None
    minutes: float | None = None
    image_size: int | None = None
    channels: int | None = None

    @property
    def makes_images(self) -> bool:
        """Whether the model generates images."""
        return isinstance(self.model, GenerativeImageModel) and not isinstance(self.model, AudioVAE)


def open_model(source: str) -> Candidate:
    """Load a pretrained model or a file, and check that it can be evaluated.

    Args:
        source: String. Name of a pretrained model, or path of a `.keras` file. `run.json`, which
            `train` writes beside `model.keras`, has the recipe, the data and the minutes.

    Raises:
        ValueError: for an unknown name, a damaged file, and a model that cannot be evaluated:
            images other than MNIST's, texts without tokenizer, and unknown recipes.
        FileNotFoundError: if there is no such file.
    """
    check_type("source", source, str)
    if source.endswith(".keras"):
        candidate = Candidate(source, saving.load_model(source), *_read_run(to_path(source)))
    else:
        name = catalog.find(source).name
        info = pretrained.metadata(name)
        candidate = Candidate(name, pretrained.load(name), name, info["data"], info["minutes"])
    _check_candidate(candidate)
    return candidate


def _read_run(path: pathlib.Path) -> tuple:
    """Return the attributes of a `Candidate` after `model` from the run that wrote a file."""
    run = RunFolder(path.parent)
    settings = run.read_settings() if path.name == run.model_path.name else None
    if settings is None:
        return ()
    names = ("name", "data", "minutes", "image_size", "channels")
    return tuple(settings.get(name) for name in names)


def _check_candidate(candidate: Candidate) -> None:
    name, model, recipe, data, *_ = candidate
    if candidate.makes_images:
        _check_image_model(name, model)
        if data is not None:  # the reference would be other images
            raise ValueError(f"{name}: expected a model of MNIST digits, got one of {data}.")
        return
    if recipe is None:
        raise ValueError(
            f"{name}: expected a model of MNIST digits, or run.json beside model.keras with the "
            "recipe of its training."
        )
    catalog.find(recipe)
    if isinstance(model, CausalLM):
        _check_text_model(name, model, recipe)


def _check_image_model(name, model) -> None:
    shape, num_classes = tuple(model.image_shape), model.num_classes
    if shape not in ((784,), (28, 28, 1)) or num_classes not in (None, DIGITS):
        classes = "" if num_classes in (None, DIGITS) else f" of {num_classes} classes"
        raise ValueError(
            f"{name}: expected a model of MNIST digits, (784,) or (28, 28, 1), of 10 classes or "
            f"none, got images {shape}{classes}."
        )
    if isinstance(model, TextToImageDDPM):
        model.tokenize(caption_test_digits(MIN_SAMPLES)[0])


def _check_text_model(name, model, recipe) -> None:
    if model.tokenizer is None:
        raise ValueError(f"{name}: expected a model with a tokenizer, got one without.")
    if not isinstance(EXPERIMENTS[recipe].task, LanguageModelingTask):
        raise ValueError(f"{name}: expected the recipe of a language model, got {recipe}.")


def evaluate(
    candidate: Candidate, num_samples: int | None = None, seed: int = 0
) -> ImageRow | TextRow | RecipeRow:
    """Measure a model of `open_model`.

    Args:
        candidate: `Candidate`.
        num_samples: Int or `None`. Number of generated images; see `evaluate_image_model`.
        seed: Int. Seed of the generated samples. Defaults to `0`.
    """
    check_type("candidate", candidate, Candidate)
    _check_candidate(candidate)
    name, model, recipe, data, minutes, *_ = candidate
    row: ImageRow | TextRow | RecipeRow
    if candidate.makes_images:
        row = evaluate_image_model(model, num_samples, seed)
    elif isinstance(model, CausalLM):
        row = evaluate_text_model(model, str(recipe), data, seed)
    else:
        row = _evaluate_recipe(candidate)
    return dataclasses.replace(row, name=name, minutes=minutes)


def _evaluate_recipe(candidate: Candidate) -> RecipeRow:
    recipe = catalog.find(str(candidate.recipe))
    task, model = EXPERIMENTS[recipe.name].task, candidate.model
    try:
        data = task.load_run({**candidate._asdict(), "name": recipe.name})
        value = task.evaluate(model, data)["value"]
    except ImportError:
        value = None
    return RecipeRow(recipe.name, _count_parameters(model), None, recipe.metric, value)


def _count_parameters(model) -> int:
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


# Images.


def measure_images(images, labels=None) -> dict:
    """Compare images with the test images of MNIST.

    Args:
        images: Float array `(n, 784)` or `(n, 28, 28, 1)` in [0, 1], n at least 100.
        labels: Int array `(n,)` of the digits that were requested, or `None`. Defaults to `None`.

    Returns:
        A dict of the attributes of `ImageRow` from `num_samples` to `accuracy`.

    Raises:
        ValueError: for other images, and for another number of labels.
    """
    features = metrics.image_features(images)
    check_size("number of images", len(features), MIN_SAMPLES)
    reference = _test_features()
    nearest = NUM_NEIGHBORS_SAMPLES
    precision, recall = metrics.precision_recall(reference[:nearest], features[:nearest])
    kernel_distance, error = metrics.kernel_distance(reference, features)
    predicted = metrics.classify_digits(images, _classifier())
    digits_covered, fractions = metrics.mode_coverage(predicted)
    return {
        "num_samples": len(features),
        "frechet_distance": metrics.frechet_distance(reference, features),
        "kernel_distance": kernel_distance,
        "kernel_distance_error": error,
        "precision": precision,
        "recall": recall,
        "digits_covered": digits_covered,
        "least_frequent": 100 * min(fractions),
        "most_frequent": 100 * max(fractions),
        "accuracy": None if labels is None else metrics.label_accuracy(predicted, labels),
    }


@functools.cache
def _classifier():
    return pretrained.load("article4-cnn")


@functools.cache
def _test_features() -> np.ndarray:
    return metrics.image_features(_to_pixels(datasets.load_mnist()[1][0]))


def _to_pixels(images) -> np.ndarray:
    return images[..., None].astype("float32") / 255


def training_images_row() -> ImageRow:
    """Return the row of 10,000 training images of MNIST: the best that a model could have."""
    (images, labels), _ = datasets.load_mnist()
    quality = measure_images(_to_pixels(images[:NUM_SAMPLES]), labels[:NUM_SAMPLES])
    return ImageRow("training images", None, None, None, **quality)


def evaluate_image_model(model, num_samples: int | None = None, seed: int = 0) -> ImageRow:
    """Generate images and compare them with the test images of MNIST.

    A conditional model generates the digits 0 to 9 in turn, a text-to-image model those of the
    captions of the test images. A diffusion model takes the default sampler, DDIM with 50 steps.
    One batch is generated before the clock starts, so that compilation is not measured.

    The negative log-likelihood is that of the binarized test images, given their digits for a
    conditional model: exact for a PixelCNN of two levels, and the importance-weighted bound with
    100 samples for a VAE with a Bernoulli likelihood.

    Args:
        model: Image model with `generate`, such as a VAE, of MNIST's images.
        num_samples: Int from 100 to 100,000, or `None`: 2,000 for diffusion, 10,000 for others.
            Defaults to `None`.
        seed: Int. Seed of the samples. Defaults to `0`.

    Raises:
        ValueError: for a model of other images or classes, and for another number of samples.
    """
    check_type("model", model, GenerativeImageModel)
    _check_image_model("model", model)
    classes = [base.__name__ for base in type(model).__mro__]
    family = next((name for name in classes if name in FAMILIES), classes[0])
    family = "diffusion" if family == "DDPM" else family
    if num_samples is None:
        num_samples = NUM_DIFFUSION_SAMPLES if family == "diffusion" else NUM_SAMPLES
    num_samples = check_size("num_samples", num_samples, MIN_SAMPLES, MAX_SAMPLES)
    check_seed(seed)
    labels = prompts = cycle_labels(model, num_samples)
    if isinstance(model, TextToImageDDPM):
        prompts, labels = caption_test_digits(num_samples)
    next(generate_batches(model, num_samples, prompts, seed))  # compiles
    images, seconds = [], []
    batches = generate_batches(model, num_samples, prompts, seed)
    while True:
        start = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            break
        seconds.append((time.perf_counter() - start) / len(batch))
        images.append(batch)
    # A smaller batch at the end may be compiled anew.
    whole = [s for s, batch in zip(seconds, images, strict=True) if len(batch) == len(images[0])]
    nats, is_bound = _test_nats(model)
    return ImageRow(
        model.name,
        family,
        _count_parameters(model),
        None,
        **measure_images(np.concatenate(images), labels),
        nats=nats,
        nats_is_bound=is_bound,
        seconds_per_1000=1000 * float(np.median(whole)),
    )


def _test_nats(model) -> tuple[float | None, bool]:
    """Return the mean NLL of the binarized test images, and whether it is an upper bound."""
    images, digits = datasets.load_mnist()[1]
    x = datasets.binarize(_to_pixels(images)).reshape(-1, *model.image_shape)
    labels = None if model.num_classes is None else digits.astype("int32")
    if getattr(model, "num_levels", None) == 2:  # a PixelCNN
        return -float(np.mean(model.log_prob(x, labels)[0])), False
    if getattr(model, "likelihood", None) == "bernoulli":
        log_probs = metrics.importance_weighted_log_likelihood(
            model, x, labels, num_samples=NUM_IMPORTANCE_SAMPLES, seed=0
        )
        return -float(np.mean(log_probs)), True
    return None, False


# Texts.


def evaluate_text_model(
    model, recipe: str, data=None, seed: int = 0, num_characters: int = NUM_CHARACTERS
) -> TextRow:
    """Score the held-out text of a recipe, and compare a generated text with the training text.

    The text is generated with a temperature of 0.8 and a sliding window, once before the clock
    starts. Training steps are timed on a copy of the model.

    Args:
        model: Language model with a tokenizer.
        recipe: String. Name of the recipe, which has the text and the batch size.
        data: Path of the user's own text, or `None` for that of the recipe. Defaults to `None`.
        seed: Int. Seed of the generated text. Defaults to `0`.
        num_characters: Int. Length of the generated text. Defaults to `2000`.

    Raises:
        ValueError: for another model or recipe, for a tokenizer that is not the recipe's, and for
            a text that is larger than memory.
    """
    check_type("model", model, CausalLM)
    batch_size = catalog.find(recipe).batch_size
    _check_text_model("model", model, recipe)
    num_characters = check_size("num_characters", num_characters)
    check_seed(seed)
    task = EXPERIMENTS[recipe].task
    loaded = task.load(data)
    if isinstance(loaded.train, StreamedArray):
        raise ValueError(f"data: expected a text that fits into memory, got {data}.")
    _check_tokenizer(model.tokenizer, loaded.dataset_info)
    text, tokens_per_second = _generate_text(model, loaded, num_characters, seed)
    text, training_text = map(_collapse, (text, model.tokenizer.decode(loaded.train)))
    lengths = common_substrings(text, training_text)
    longest = max(lengths, default=0)
    start = lengths.index(longest) if lengths else 0
    return TextRow(
        model.name,
        _count_parameters(model),
        None,
        task.evaluate(model, loaded)["value"],
        _time_training(model, task, loaded, batch_size),
        tokens_per_second,
        len(text),
        longest,
        100 * _fraction_in_runs(lengths, MIN_COPIED),
        text[start : start + longest],
    )


def _check_tokenizer(tokenizer, dataset_info: dict) -> None:
    """Raise ValueError unless the tokens of the data are those of the tokenizer."""
    found = {
        "characters": "".join(getattr(tokenizer, "characters", ())),
        "tokenizer": getattr(tokenizer, "tokenizer_json", None),
    }
    if any(found[key] != value for key, value in dataset_info.items()):
        raise ValueError(
            "data: expected the text that the model was trained on, got one with another tokenizer."
        )


def _generate_text(model, data, num_characters: int, seed: int) -> tuple[str, float]:
    """Return a text that continues the training text, and the new tokens per second."""
    prompt = data.test[0][:1][None]  # (1, 1)

    def generate():
        return model.generate(
            prompt,
            num_characters,
            sampler=Sampler(temperature=TEMPERATURE),
            seed=seed,
            sliding_window=True,
        )

    generate()  # compiles
    start = time.perf_counter()
    tokens = generate()[0, 1:]
    seconds = time.perf_counter() - start
    return model.tokenizer.decode(tokens)[:num_characters], len(tokens) / seconds


def _time_training(model, task, data, batch_size: int) -> float | None:
    """Return tokens per second of training steps, `None` for too few examples or no optimizer."""
    epoch = tf.Variable(0, dtype=tf.int64)
    batches = task.train_dataset(data, batch_size, 0, epoch)
    batches = list(itertools.islice(batches, 1 + NUM_TRAINING_STEPS))
    batches = [(x, y) for x, y in batches if len(x) == batch_size]
    if len(batches) < 2 or not model.compiled:
        return None
    trained = copy.deepcopy(model)
    trained.train_on_batch(*batches[0])  # compiles
    start = time.perf_counter()
    for x, y in batches[1:]:
        trained.train_on_batch(x, y)
    seconds = time.perf_counter() - start
    return sum(math.prod(x.shape) for x, _ in batches[1:]) / seconds


def _collapse(text: str) -> str:
    """Return a text with one space for each run of white space: indents are no copies."""
    return " ".join(text.split())


def common_substrings(text: str, source: str) -> list[int]:
    """Return the length of the longest common substring that begins at each character of a text.

    Args:
        text: String of n characters.
        source: String. Text in which the substrings are searched.

    Returns:
        A list of n ints.
    """
    check_type("text", text, str)
    check_type("source", source, str)
    lengths, end = [], 0
    for start in range(len(text)):
        # Without its first character, a substring of the source is one, too: the end never falls.
        end = max(start, end)
        while end < len(text) and text[start : end + 1] in source:
            end += 1
        lengths.append(end - start)
    return lengths


def _fraction_in_runs(lengths: list[int], minimum: int) -> float:
    """Return the fraction of characters within common substrings of a minimum length."""
    copied = np.zeros(len(lengths), bool)
    for start, length in enumerate(lengths):
        if length >= minimum:
            copied[start : start + length] = True
    return float(copied.sum() / max(1, len(copied)))
