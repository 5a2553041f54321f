"""Sound as numbers: mu-law levels, WAV files."""

import wave

import numpy as np
from keras import ops

from keras_genai.inputs import check_range, check_size


def mu_law_encode(waveform, num_levels: int = 256) -> np.ndarray:
    """Round a waveform to levels that lie closer together the quieter it is (ITU-T G.711).

    With mu = num_levels - 1: f(x) = sign(x) ln(1 + mu |x|) / ln(1 + mu), cut into equal steps (van
    den Oord et al. 2016, section 2.2).

    Args:
        waveform: in [-1, 1], of any shape.
        num_levels: of them, at least 2.

    Returns:
        int32 of that shape, from 0 to num_levels - 1; silence is num_levels // 2.

    Raises:
        ValueError: for values outside [-1, 1], or fewer than 2 levels.
    """
    check_size("num_levels", num_levels, minimum=2)
    waveform = np.asarray(waveform, "float64")
    if not np.all(np.abs(waveform) <= 1):
        raise ValueError("waveform: expected values in [-1, 1], got others. Divide by the peak.")
    return np.asarray(mu_law_levels(waveform, num_levels))


def mu_law_levels(waveform, num_levels: int = 256):
    """Return the levels of a waveform as a tensor, unchecked: `mu_law_encode` within a graph."""
    mu = num_levels - 1
    companded = ops.sign(waveform) * ops.log1p(mu * ops.abs(waveform)) / np.log1p(mu)
    return ops.cast(ops.floor((companded + 1) / 2 * mu + 0.5), "int32")


def mu_law_decode(levels, num_levels: int = 256) -> np.ndarray:
    """Return the waveform, float32 in [-1, 1], that levels from `mu_law_encode` stand for.

    Raises:
        ValueError: unless they are integers from 0 to num_levels - 1.
    """
    mu = check_size("num_levels", num_levels, minimum=2) - 1
    levels = np.asarray(levels)
    check_range("levels", levels, num_levels)
    companded = 2 * levels / mu - 1
    return (np.sign(companded) * np.expm1(np.abs(companded) * np.log1p(mu)) / mu).astype("float32")


def save_wav(path, waveform, sample_rate: int = 8000) -> None:
    """Write a waveform (n,) in [-1, 1] to a WAV file: mono, 16 bits.

    Raises:
        ValueError: for another shape, or values outside [-1, 1].
    """
    waveform = np.asarray(waveform)
    if waveform.ndim != 1:
        raise ValueError(f"waveform: expected shape (n,), got {waveform.shape}.")
    if not np.all(np.abs(waveform) <= 1):
        raise ValueError("waveform: expected values in [-1, 1], got others. Divide by the peak.")
    sample_rate = check_size("sample_rate", sample_rate)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, sample_rate, 0, "NONE", None))
        file.writeframes(np.round(waveform * 32767).astype("<i2").tobytes())


def load_wav(path) -> tuple[np.ndarray, int]:
    """Read a WAV file of 8 or 16 bits, channels averaged.

    Returns:
        (waveform, sample_rate): float32 (n,) in [-1, 1], and samples a second.

    Raises:
        ValueError: if it is no such file, or if it is empty.
    """
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, sample_rate, frames = file.getparams()[:4]
            data = file.readframes(frames)
    except (OSError, EOFError, wave.Error) as error:
        raise ValueError(f"{path}: cannot be read as a WAV file ({error}).") from error
    if width not in (1, 2):
        raise ValueError(f"{path}: expected 8 or 16 bits a sample, got {8 * width}.")
    if not data:
        raise ValueError(f"{path}: expected a sound, got an empty file.")
    if len(data) != frames * channels * width:
        raise ValueError(f"{path}: expected {frames} samples, but the file was cut short.")
    if width == 1:  # from 0 to 255, silence at 128
        samples = (np.frombuffer(data, "u1").astype("float32") - 128) / 128
    else:
        samples = np.frombuffer(data, "<i2").astype("float32") / 32768
    return samples.reshape(-1, channels).mean(axis=1), sample_rate
