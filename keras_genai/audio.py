"""Audio: mu-law quantization and WAV files."""

import io
import struct
import wave

import numpy as np
from keras import ops

from keras_genai.files import read_bytes, replace_file
from keras_genai.validation import as_array, check_range, check_size

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE  # format tags
# The last 14 bytes of the GUID of a format, behind its tag.
GUID = bytes.fromhex("0000 0000 1000 8000 00aa 0038 9b71")
# Sizes that programs write before they know the size of a stream.
STREAMED = (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000)
MAX_SAMPLES = 2**28


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
    levels = check_size("quantization_channels", quantization_channels, minimum=2)
    return np.asarray(mu_law_tensor(_as_waveform(waveform), levels))


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
    levels = as_array("levels", levels)
    check_range("levels", levels, quantization_channels)
    companded = 2 * levels.astype("float64") / mu - 1
    return (np.sign(companded) * np.expm1(np.abs(companded) * np.log1p(mu)) / mu).astype("float32")


def save_wav(path, waveform, sample_rate: int = 8000) -> None:
    """Save a waveform as a WAV file: mono, 16 bits per sample. An error keeps the old file.

    Args:
        path: String or path. File to write.
        waveform: Float array `(n,)`, in [-1, 1].
        sample_rate: Int, less than 2^31. Samples per second. Defaults to `8000`.

    Raises:
        ValueError: for another shape, values outside [-1, 1], a sample rate out of range, or a path
            of a folder or device.
        OSError: if the file cannot be written.
    """
    waveform = as_array("waveform", waveform)
    if waveform.ndim != 1:
        raise ValueError(f"waveform: expected shape (n,), got {waveform.shape}.")
    if len(waveform) > MAX_SAMPLES:
        raise ValueError(f"waveform: expected at most {MAX_SAMPLES} samples, got {len(waveform)}.")
    waveform = _as_waveform(waveform)
    sample_rate = check_size("sample_rate", sample_rate)
    samples = np.round(waveform * 32767).astype("<i2").tobytes()
    with (
        replace_file(path) as unfinished,
        open(unfinished, "wb") as raw,
        wave.open(raw, "wb") as file,
    ):
        file.setparams((1, 2, sample_rate, 0, "NONE", "not compressed"))
        file.writeframes(samples)


def load_wav(path) -> tuple[np.ndarray, int]:
    """Load a WAV file, and average its channels.

    Integers of 8, 16, 24 and 32 bits and floating-point numbers of 32 and 64 bits are read here;
    compressed formats need the package `soundfile`. A size of the data that is unknown in the
    header, as in a stream, is that of the rest of the file.

    Args:
        path: String or path. File to read.

    Returns:
        A float32 array `(n,)`, and the sample rate in samples per second. Integers are scaled to
        [-1, 1]; floating-point samples may exceed it.

    Raises:
        ValueError: for another file format, an empty, truncated or damaged file, a sample rate of
            0, and samples that are NaN or infinite.
    """
    data = read_bytes(path)
    try:
        form, samples = _read_chunks(data)
        decoded = _decode(form, samples)
        channels, rate = _read_with_soundfile(data) if decoded is None else decoded
        if not channels.size:
            raise ValueError("expected a sound, got an empty file")
        if rate < 1:
            raise ValueError(f"expected a sample rate of at least 1, got {rate}")
        if not np.all(np.isfinite(channels)):
            raise ValueError("expected finite samples, got NaN or infinity")
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read as a WAV file ({error}).") from error
    return channels.mean(axis=1, dtype="float64").astype("float32"), rate


def _read_chunks(data: bytes) -> tuple[bytes, bytes]:
    """Return the format chunk and the sample data of a WAV file; empty if it is another file.

    Raises:
        ValueError: if a chunk is missing or cut short.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return b"", b""
    form, position = b"", 12
    while position + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        position += 8
        rest = len(data) - position
        if name == b"data":
            (riff_size,) = struct.unpack_from("<I", data, 4)
            unknown = size == 0 and (riff_size in STREAMED or riff_size + 8 <= position)
            size = rest if size in STREAMED or unknown else size
        if size > rest:
            raise ValueError(f"chunk {name!r}: expected {size} bytes, but the file was cut short")
        if name == b"data":
            if not form:
                raise ValueError("expected the format before the data")
            return form, data[position : position + size]
        if name == b"fmt ":
            form = data[position : position + size]
        position += size
        # A chunk of odd size is followed by a zero byte, which some programs omit.
        if size % 2 and data[position : position + 1] in (b"\0", b""):
            position += 1
    raise ValueError("expected chunks of format and data, but the file was cut short")


def _decode(form: bytes, samples: bytes) -> tuple[np.ndarray, int] | None:
    """Return the samples `(n, channels)` and the sample rate, or `None` for another encoding.

    Raises:
        ValueError: for sizes that contradict each other.
    """
    if not form:
        return None
    if len(form) < 16:
        raise ValueError(f"expected a format of at least 16 bytes, got {len(form)}")
    tag, num_channels, rate, _, frame_size, bits = struct.unpack_from("<HHIIHH", form)
    if tag == EXTENSIBLE and form[26:40] == GUID:
        (tag,) = struct.unpack_from("<H", form, 24)
    if tag not in (PCM, FLOAT):
        return None
    width = frame_size // num_channels if num_channels else 0  # bytes
    widths = (1, 2, 3, 4) if tag == PCM else (4, 8)
    whole = width * num_channels == frame_size and 8 * (width - 1) < bits <= 8 * width
    if width not in widths or not whole:
        raise ValueError(
            f"{num_channels} channels of {bits} bits in {frame_size} bytes, format {tag}"
        )
    if len(samples) % frame_size:
        raise ValueError(
            f"expected a multiple of {frame_size} bytes of samples, got {len(samples)}: "
            "the file was cut short"
        )
    if tag == FLOAT:
        decoded = np.frombuffer(samples, f"<f{width}")
    elif width == 1:  # unsigned, silence at 128
        decoded = (np.frombuffer(samples, "u1").astype("float32") - 128) / 128
    else:
        # Into the highest bytes of 32 bits.
        raw = np.zeros((len(samples) // width, 4), "u1")
        raw[:, 4 - width :] = np.frombuffer(samples, "u1").reshape(-1, width)
        decoded = raw.view("<i4")[:, 0] / 2**31
    return decoded.reshape(-1, num_channels), rate


def _read_with_soundfile(data: bytes) -> tuple[np.ndarray, int]:
    """Return the samples `(n, channels)` and the sample rate of a file of another encoding."""
    try:
        import soundfile
    except ImportError as error:
        raise ValueError(
            "not a WAV file of integers or floating-point numbers; "
            "other sounds need soundfile: pip install soundfile"
        ) from error
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            num_frames = file.frames
            if num_frames * file.channels > MAX_SAMPLES:
                raise ValueError(
                    f"expected at most {MAX_SAMPLES} samples, got {num_frames} × {file.channels}"
                )
            samples = file.read(dtype="float32", always_2d=True)
            if len(samples) != num_frames:
                raise ValueError(f"expected {num_frames} samples, but the file was cut short")
            return samples, file.samplerate
    except soundfile.SoundFileError as error:
        # The whole message has the address of the object in memory.
        raise ValueError(getattr(error, "error_string", error)) from error


def _as_waveform(waveform) -> np.ndarray:
    """Return a waveform as float64: float16 would round 32767 to 32768."""
    waveform = as_array("waveform", waveform)
    if waveform.dtype.kind not in "fiub":
        raise ValueError(f"waveform: expected real numbers, got an array of {waveform.dtype}.")
    waveform = waveform.astype("float64")
    if not np.all(np.abs(waveform) <= 1):  # NaN compares false, so it fails here too
        raise ValueError(
            "waveform: expected values in [-1, 1], "
            f"got values from {waveform.min()} to {waveform.max()}. Divide by the peak."
        )
    return waveform
