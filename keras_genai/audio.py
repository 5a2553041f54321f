"""Audio: mu-law quantization and WAV files."""

import wave

import numpy as np
from keras import ops

from keras_genai.validation import check_range, check_size


def mu_law_encode(waveform, quantization_channels: int = 256) -> np.ndarray:
    """Quantize a waveform to mu-law levels, which are finer for quiet samples (ITU-T G.711).

    With mu = quantization_channels - 1, the companded waveform

        f(x) = sign(x) ln(1 + mu |x|) / ln(1 + mu)

    is rounded to equal steps (van den Oord et al. 2016, "WaveNet", section 2.2).

    Args:
        waveform: Float array of any shape, in [-1, 1].
        quantization_channels: Int, at least 2. Number of levels. Defaults to `256`.

    Returns:
        An int32 array of the same shape, from 0 to quantization_channels - 1. Silence is level
        `quantization_channels // 2`.

    Raises:
        ValueError: for values outside [-1, 1], or for fewer than 2 levels.
    """
    check_size("quantization_channels", quantization_channels, minimum=2)
    waveform = np.asarray(waveform, "float64")
    _check_amplitude(waveform)
    return np.asarray(mu_law_tensor(waveform, quantization_channels))


def mu_law_tensor(waveform, quantization_channels: int = 256):
    """Return `mu_law_encode(waveform)` as a tensor, without validation: for compiled functions."""
    mu = quantization_channels - 1
    companded = ops.sign(waveform) * ops.log1p(mu * ops.abs(waveform)) / np.log1p(mu)
    return ops.cast(ops.floor((companded + 1) / 2 * mu + 0.5), "int32")


def mu_law_decode(levels, quantization_channels: int = 256) -> np.ndarray:
    """Convert the levels of `mu_law_encode` back to a waveform.

    Args:
        levels: Int array of any shape, from 0 to quantization_channels - 1.
        quantization_channels: Int, at least 2. Number of levels. Defaults to `256`.

    Returns:
        A float32 array of the same shape, in [-1, 1].

    Raises:
        ValueError: for levels out of range, or for fewer than 2 levels.
    """
    mu = check_size("quantization_channels", quantization_channels, minimum=2) - 1
    levels = np.asarray(levels)
    check_range("levels", levels, quantization_channels)
    companded = 2 * levels / mu - 1
    return (np.sign(companded) * np.expm1(np.abs(companded) * np.log1p(mu)) / mu).astype("float32")


def save_wav(path, waveform, sample_rate: int = 8000) -> None:
    """Save a waveform as a WAV file: mono, 16 bits per sample.

    Args:
        path: String or path. File to write.
        waveform: Float array `(n,)`, in [-1, 1].
        sample_rate: Int. Samples per second. Defaults to `8000`.

    Raises:
        ValueError: for another shape, or for values outside [-1, 1].
    """
    waveform = np.asarray(waveform)
    if waveform.ndim != 1:
        raise ValueError(f"waveform: expected shape (n,), got {waveform.shape}.")
    _check_amplitude(waveform)
    sample_rate = check_size("sample_rate", sample_rate)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, sample_rate, 0, "NONE", "not compressed"))
        file.writeframes(np.round(waveform * 32767).astype("<i2").tobytes())


def load_wav(path) -> tuple[np.ndarray, int]:
    """Load a WAV file of 8 or 16 bits per sample, and average its channels.

    Args:
        path: String or path. File to read.

    Returns:
        A float32 array `(n,)` in [-1, 1], and the sample rate in samples per second.

    Raises:
        ValueError: for another file format or sample width, and for an empty or truncated file.
    """
    try:
        with wave.open(str(path), "rb") as file:
            num_channels, sample_width, sample_rate, num_frames = file.getparams()[:4]
            data = file.readframes(num_frames)
    except (OSError, EOFError, wave.Error) as error:
        raise ValueError(f"{path}: cannot be read as a WAV file ({error}).") from error
    if sample_width not in (1, 2):
        raise ValueError(f"{path}: expected 8 or 16 bits a sample, got {8 * sample_width}.")
    if not data:
        raise ValueError(f"{path}: expected a sound, got an empty file.")
    if len(data) != num_frames * num_channels * sample_width:
        raise ValueError(f"{path}: expected {num_frames} samples, but the file was cut short.")
    if sample_width == 1:  # unsigned, silence at 128
        samples = (np.frombuffer(data, "u1").astype("float32") - 128) / 128
    else:
        samples = np.frombuffer(data, "<i2").astype("float32") / 32768
    return samples.reshape(-1, num_channels).mean(axis=1), sample_rate


def _check_amplitude(waveform) -> None:
    if not np.all(np.abs(waveform) <= 1):  # NaN compares false, so it fails here too
        raise ValueError(
            "waveform: expected values in [-1, 1], "
            f"got values from {waveform.min()} to {waveform.max()}. Divide by the peak."
        )
