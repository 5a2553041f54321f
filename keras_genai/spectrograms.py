"""Spectrograms of sounds as images in [0, 1], and sounds from spectrograms, by librosa.

A spectrogram `(frames, bins, 1)` has the magnitudes of the short-time Fourier transform with a Hann
window h of 2 * bins samples, which advances by a quarter of its length:

    a(t, f) = |sum_n h_n x_(t+n) e^(-2 pi i f n)| / sum_n h_n        at most 1; of a sine of full
                                                                     scale 1/2
    s(t, f) = ln(1 + 1000 a) / ln(1 + 1000)

The compression is that of mu-law: nearly logarithmic, as loudness is heard, with 0 for silence. The
highest frequency, half of the sample rate, is dropped, so that convolutions can halve the image; on
the way back it is 0. The phase is dropped, too. Griffin & Lim 1984 estimate it: the inverse and the
forward transform alternate, each time with the magnitudes given and the phases found. `griffinlim`
of librosa adds the momentum of Perraudin et al. 2013.

librosa is in the extra `audio`: pip install "keras_genai[audio]".
"""

import numpy as np

from keras_genai.audio import SILENCE
from keras_genai.validation import as_numbers, check_images, check_size

COMPRESSION = 1000.0  # magnitudes below 1 / COMPRESSION, -60 dB, are compressed little
IMAGE_SHAPE = (128, 128, 1)  # 1.016 seconds at 8,000 samples per second
NUM_ITERATIONS = 60  # of Griffin-Lim
PHASE_SEED = 0  # of its first phases: equal spectrograms have equal sounds


def compute_spectrograms(waveforms, image_shape=IMAGE_SHAPE) -> np.ndarray:
    """Compute the spectrogram of each sound; shorter sounds are followed by silence.

    Args:
        waveforms: Array `(n, samples)` in [-1, 1], or a list of n arrays of any lengths, of at most
            `num_samples(image_shape)` samples.
        image_shape: Tuple of ints `(frames, bins, 1)` with an even number of bins. Defaults to
            `(128, 128, 1)`: windows of 256 samples, one every 64.

    Returns:
        Float32 array `(n, frames, bins, 1)` in [0, 1]. Time is the first axis.

    Raises:
        ValueError: for an invalid shape, values outside [-1, 1], and a sound that is too long.
        ImportError: without librosa.
    """
    librosa = _import_librosa()
    length, (frames, bins, _) = num_samples(image_shape), image_shape
    if not isinstance(waveforms, (list, tuple, np.ndarray)) or not len(waveforms):
        raise ValueError(f"waveforms: expected a list of arrays, got {waveforms!r:.200}.")
    spectrograms = np.empty((len(waveforms), frames, bins, 1), "float32")
    for spectrogram, waveform in zip(spectrograms, waveforms, strict=True):
        waveform = check_waveform("waveforms", waveform, length)
        padded = np.pad(waveform.astype("float32"), (0, length - len(waveform)))
        transform = librosa.stft(padded, n_fft=2 * bins, hop_length=bins // 2)  # (bins + 1, frames)
        # The sum of a periodic Hann window is half of its length. 1 is exceeded by rounding only.
        spectrogram[..., 0] = _compress(np.minimum(np.abs(transform[:-1]).T / bins, 1))
    return spectrograms


def invert_spectrograms(spectrograms, num_iterations: int = NUM_ITERATIONS) -> np.ndarray:
    """Estimate the sound of each spectrogram by Griffin-Lim.

    Args:
        spectrograms: Float array `(n, frames, bins, 1)` in [0, 1], with an even number of bins.
        num_iterations: Int. Number of iterations. Defaults to `60`.

    Returns:
        Waveforms, float32 `(n, samples)` in [-1, 1]. A sound whose estimate exceeds full scale is
        divided by its peak.

    Raises:
        ValueError: for another shape, values outside [0, 1], or a number below 1.
        ImportError: without librosa.
    """
    librosa = _import_librosa()
    spectrograms = as_numbers("spectrograms", spectrograms, (None, None, None, 1))
    length, (_, _, bins, _) = num_samples(spectrograms.shape[1:]), spectrograms.shape
    check_images("spectrograms", spectrograms, spectrograms.shape[1:])
    num_iterations = check_size("num_iterations", num_iterations)
    waveforms = np.empty((len(spectrograms), length), "float32")
    for row, spectrogram in zip(waveforms, spectrograms, strict=True):
        magnitudes = bins * _expand(spectrogram[..., 0].astype("float64")).T
        row[:] = limit_peak(
            librosa.griffinlim(
                np.pad(magnitudes, ((0, 1), (0, 0))),  # the highest frequency
                n_iter=num_iterations,
                hop_length=bins // 2,
                n_fft=2 * bins,
                length=length,
                random_state=PHASE_SEED,
            )
        )
    return waveforms


def resample(waveform, sample_rate: int, target_rate: int) -> np.ndarray:
    """Convert a sound to another sample rate, without what the new rate cannot represent.

    Args:
        waveform: Float array `(n,)`.
        sample_rate: Int. Samples per second.
        target_rate: Int. New number of samples per second.

    Returns:
        Float32 array of about n * target_rate / sample_rate samples, divided by its peak if that is
        above 1.

    Raises:
        ValueError: for an invalid sound or sample rate.
        ImportError: without librosa.
    """
    waveform = as_numbers("waveform", waveform, (None,)).astype("float32")
    sample_rate = check_size("sample_rate", sample_rate)
    target_rate = check_size("target_rate", target_rate)
    if sample_rate == target_rate or not len(waveform):
        return waveform
    librosa = _import_librosa()
    return limit_peak(librosa.resample(waveform, orig_sr=sample_rate, target_sr=target_rate))


def limit_peak(waveform: np.ndarray) -> np.ndarray:
    """Divide a waveform by its peak if that is above 1."""
    return waveform / np.maximum(np.abs(waveform).max(initial=0), 1)


def log_spectral_distance(spectrograms, others) -> np.ndarray:
    """Return the log-spectral distance of spectrograms (Gray & Markel 1976), in dB.

    The root of the mean squared difference of the levels over the frequencies, averaged over time.
    A level is that of a sine in dB of full scale, and at least -60 dB, the level of silence.

    Args:
        spectrograms, others: Float arrays of the same shape, `(n, frames, bins, 1)`, in [0, 1].

    Returns:
        Array `(n,)`: 0 for equal spectrograms.

    Raises:
        ValueError: for arrays of other or of different shapes, and values outside [0, 1].
    """
    spectrograms = as_numbers("spectrograms", spectrograms, (None, None, None, 1))
    check_images("spectrograms", spectrograms, spectrograms.shape[1:])
    others = as_numbers("others", others, spectrograms.shape)
    check_images("others", others, spectrograms.shape[1:])
    levels = [
        20 * np.log10(np.maximum(2 * _expand(x[..., 0].astype("float64")), SILENCE))
        for x in (spectrograms, others)
    ]
    squares = np.square(levels[0] - levels[1]).mean(axis=-1)  # (n, frames)
    return np.sqrt(squares).mean(axis=-1)


def check_waveform(name: str, waveform, length: int) -> np.ndarray:
    """Return a waveform as an array.

    Raises:
        ValueError: unless it is numbers in [-1, 1] `(n,)`, from 1 to `length`.
    """
    waveform = as_numbers(name, waveform, (None,))
    peak = np.abs(waveform).max(initial=0)
    if not 0 < len(waveform) <= length or peak > 1:
        raise ValueError(
            f"{name}: expected 1 to {length} samples in [-1, 1], got {len(waveform)} of magnitude "
            f"at most {peak:g}."
        )
    return waveform


def num_samples(image_shape) -> int:
    """Return the number of samples of the sounds of a spectrogram `(frames, bins, 1)`.

    Raises:
        ValueError: for another shape, fewer than 5 frames, or an odd number of bins.
    """
    shape = tuple(image_shape) if isinstance(image_shape, (list, tuple)) else ()
    if len(shape) != 3 or shape[2] != 1:
        raise ValueError(f"image_shape: expected (frames, bins, 1), got {image_shape!r:.200}.")
    frames = check_size("frames of image_shape", shape[0], minimum=5)  # at least one window
    bins = check_size("bins of image_shape", shape[1], minimum=2)
    if bins % 2:
        raise ValueError(f"image_shape: expected an even number of bins, got {bins}.")
    return (frames - 1) * (bins // 2)


def _compress(magnitudes):
    return np.log1p(COMPRESSION * magnitudes) / np.log1p(COMPRESSION)


def _expand(values):
    return np.expm1(values * np.log1p(COMPRESSION)) / COMPRESSION


def _import_librosa():
    try:
        import librosa
    except ImportError as error:
        raise ImportError(
            'librosa: expected for spectrograms, got none: pip install "keras_genai[audio]"'
        ) from error
    return librosa
