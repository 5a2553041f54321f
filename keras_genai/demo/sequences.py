"""Actions of the demo on text, tunes, translations, series and sounds; see `actions`."""

import functools
import inspect
import typing

import numpy as np
from matplotlib.figure import Figure

from keras_genai import datasets, metrics, music
from keras_genai.autoregressive import Sampler
from keras_genai.demo.actions import InputError, check_number, check_text, model
from keras_genai.plotting import COLORS, plot_attention, plot_forecasts, plot_sounds
from keras_genai.tasks.music import MAX_NEW_CHARACTERS

MAX_CHARACTERS = 200  # of a prompt, or of a text to translate
MAX_TEXT = 400  # characters of a text to classify
BEAM_WIDTH = 4
METERS = ("6/8", "C|", "3/4", "2/4", "C", "9/8")
KEYS = ("D", "G", "A", "Em", "Am", "C", "F")
SOUND_CLASSES = ("drum", "electronic", "kick", "percussion", "snare", "tabla")


class Classification(typing.NamedTuple):
    """Result of `classify_author`.

    Attributes:
        probabilities: Dict of the names of the books to their probabilities.
        book: String. The likeliest book.
        tokens: List of pairs of a token and its importance for the likeliest book in [-1, 1]: by
            how much its log-probability is lower without the token, divided by the largest
            magnitude.
    """

    probabilities: dict[str, float]
    book: str
    tokens: list[tuple[str, float]]


# Text and tunes.


def stream_text(name, prompt, new_tokens, temperature, seed):
    """Yield a text as it is generated, the prompt included.

    Args:
        name: String. One of `MODELS["text"]`.
        prompt: String of at most 200 characters.
        new_tokens: Int. Number of new tokens.
        temperature: Float. Temperature of the sampling.
        seed: Int. Seed of the sampling.

    Raises:
        InputError: for an invalid value, and for a character that the model lacks.
    """
    prompt = check_text("prompt", prompt, MAX_CHARACTERS)
    new_tokens = check_number("new_tokens", new_tokens)
    sampling = _check_sampling(temperature, seed)
    language_model = model("text", name)
    _check_characters("prompt", prompt, language_model.tokenizer)
    text = prompt
    for piece in language_model.stream(prompt, new_tokens, sliding_window=True, **sampling):
        text += piece
        yield text


def stream_tune(name, meter, key, temperature, seed):
    """Yield a tune in ABC notation as it is generated.

    Args:
        name: String. One of `MODELS["music"]`.
        meter: String. One of `METERS`.
        key: String. One of `KEYS`.
        temperature: Float. Temperature of the sampling.
        seed: Int. Seed of the sampling.

    Raises:
        InputError: for an invalid value.
    """
    for choice, value, choices in (("meter", meter, METERS), ("key", key, KEYS)):
        if value not in choices:
            raise InputError("error_choice", name=choice, value=f"{value!r:.40}")
    sampling = _check_sampling(temperature, seed)
    prompt = f"\n\nM:{meter}\nL:1/8\nK:{key}\n"
    stream = model("music", name).stream(prompt, MAX_NEW_CHARACTERS, **sampling)
    text = prompt.lstrip("\n")
    for piece in music.first_tune(stream, prompt):
        text += piece
        yield text


def play_tune(tune) -> tuple[np.ndarray, Figure]:
    """Return the waveform of a tune at `music.SAMPLE_RATE`, and its piano roll.

    Raises:
        InputError: for a text that cannot be played.
    """
    tune = check_text("tune", tune, music.MAX_TUNE_LENGTH)
    try:
        return music.synthesize(tune), music.plot_piano_roll([tune])
    except ValueError as error:
        raise InputError("error_tune") from error


def _check_sampling(temperature, seed) -> dict:
    temperature = check_number("temperature", temperature, whole=False)
    return {"sampler": Sampler(temperature), "seed": check_number("seed", seed)}


def _check_characters(name: str, text: str, tokenizer) -> None:
    """Raise InputError for characters outside the vocabulary of a tokenizer of characters."""
    known = getattr(tokenizer, "characters", None)
    if known is not None and (unknown := sorted(set(text) - set(known))):
        raise InputError("error_characters", name=name, characters=" ".join(unknown[:10]))


# Translation and classification.


def translate(name, text) -> tuple[str, Figure | None]:
    """Translate an English sentence to Chinese by beam search.

    Args:
        name: String. One of `MODELS["translation"]`.
        text: String of at most 200 characters and of as many tokens as the model can take.

    Returns:
        The translation, and a figure of its attention, `None` for a model without attention.

    Raises:
        InputError: for an invalid value.
    """
    text = check_text("sentence", text, MAX_CHARACTERS)
    translator = model("translation", name)
    _check_num_tokens("sentence", text, translator.input_tokenizer, translator.context_length)
    translation = translator.translate(text, beam_width=BEAM_WIDTH)
    if not (translation and translator.config.get("attention", True)):
        return translation, None
    return translation, plot_attention(translator.attention_maps(text, translation))


def classify_author(name, text) -> Classification:
    """Classify an English text by the book of the training data that it is likeliest from.

    Args:
        name: String. One of `MODELS["author"]`.
        text: String of at most 400 characters and of as many tokens as the model can take.

    Raises:
        InputError: for an invalid value.
    """
    text = check_text("passage", text, MAX_TEXT)
    classifier = model("author", name)
    _check_num_tokens("passage", text, classifier.tokenizer, classifier.layers[0].max_seq_length)
    book, probabilities = classifier.classify(text)
    importance = classifier.token_importance(text)
    occlusion = importance["occlusion"]
    shares = occlusion / max(float(np.max(np.abs(occlusion))), 1e-9)
    names = map(str, classifier.class_names)
    return Classification(
        dict(zip(names, map(float, probabilities), strict=True)),
        str(book),
        list(zip(importance["tokens"], map(float, shares), strict=True)),
    )


def _check_num_tokens(name: str, text: str, tokenizer, maximum: int) -> None:
    """Raise InputError for a text of no token, or of more than a model can take."""
    length = len(tokenizer.encode(text))
    if length == 0:
        raise InputError("error_no_words", name=name)
    if length > maximum:
        raise InputError("error_tokens", name=name, maximum=maximum, length=length)


# Series and sounds.


def forecast(name, week) -> tuple[Figure, float, float]:
    """Forecast a year of the weekly CO2 from the five years before it.

    Args:
        name: String. One of `MODELS["forecast"]`.
        week: Int. Index of the first forecast week, in the held-out last tenth of the series.

    Returns:
        A figure, the mean absolute error of the forecast in ppm, and that of the last value before
        it, repeated.

    Raises:
        InputError: for an invalid value.
    """
    week = check_number("week", week)
    forecaster, series = model("forecast", name), _load_series()
    (_, window), (_, horizon) = forecaster.input_shape, forecaster.output_shape
    future = forecaster.predict(series[None, week - window : week], verbose=0)[0]
    observed = series[week : week + horizon]
    repeated = np.full(horizon, series[week - 1])
    figure = plot_forecasts(series[: week + horizon], week, {"forecast": future})
    figure.set_size_inches(7, 3.2)
    figure.axes[0].set(xlabel="week", ylabel="CO2 (ppm)")
    error, last_error = (metrics.mean_absolute_error(x, observed) for x in (future, repeated))
    return figure, error, last_error


@functools.cache
def _load_series() -> np.ndarray:
    return datasets.load_co2()


def is_autoregressive(name) -> bool:
    """Return whether a model of sounds generates them sample by sample, of any length."""
    return "sampler" in inspect.signature(model("sound", name).generate).parameters


def generate_sound(name, label, seconds, temperature, seed) -> tuple[np.ndarray, int, Figure]:
    """Generate a percussive sound.

    Args:
        name: String. One of `MODELS["sound"]`.
        label: String. One of `SOUND_CLASSES`.
        seconds: Float. Length of the sound for an autoregressive model, else `None`.
        temperature: Float. Temperature of the sampling for an autoregressive model, else `None`.
        seed: Int. Seed of the sampling.

    Returns:
        The waveform, its sample rate, and a figure of waveform and spectrogram.

    Raises:
        InputError: for an invalid value.
    """
    if label not in SOUND_CLASSES:
        raise InputError("error_choice", name="sound_class", value=f"{label!r:.40}")
    network = model("sound", name)
    if is_autoregressive(name):
        seconds = check_number("seconds", seconds, whole=False)
        options = _check_sampling(temperature, seed)
        options["length"] = round(seconds * network.sample_rate)
    else:
        for option, value in (("seconds", seconds), ("temperature", temperature)):
            if value is not None:
                raise InputError("error_unused", name=option, value=value)
        options = {"seed": check_number("seed", seed)}
    (waveform,) = network.generate(1, SOUND_CLASSES.index(label), **options)
    color = COLORS["WaveNet" if is_autoregressive(name) else "VAE"]
    figure = plot_sounds([waveform], network.sample_rate, [""], color)
    figure.set_size_inches(7, 4.5)
    return waveform, network.sample_rate, figure
