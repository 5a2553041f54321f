"""Audio: mu-law quantization and WAV files."""

import contextlib
import io
import struct
import wave

import numpy as np
from keras import ops

from keras_genai.files import file_status, read_bytes, replace_file
from keras_genai.validation import as_array, as_numbers, check_range, check_size

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE  # format tags
# The last 14 bytes of the GUID of a format, behind its tag.
GUID = bytes.fromhex("0000 0000 1000 8000 00aa 0038 9b71")
# Sizes that programs write before they know the size of a stream.
STREAMED = (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000)
MAX_SAMPLES = 2**28
SILENCE = 0.001  # of full scale: -60 dB


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
    with WavFile(path, io.BytesIO(read_bytes(path))) as file:
        return file.read(), file.sample_rate


class WavFile:
    """WAV file whose samples are read in parts; see `load_wav`.

    Args:
        path: String or path of the file.
        file: Binary file of its contents, or `None` to open `path`. Defaults to `None`.

    Attributes:
        num_samples: Int. Number of samples of each channel.
        sample_rate: Int. Samples per second.

    Raises:
        ValueError: as `load_wav`; `read` raises it for samples that are NaN or infinite.
    """

    def __init__(self, path, file=None):
        self.path, self._sound = path, None
        if file is None:
            file_status(path)
        with contextlib.ExitStack() as stack, self._naming():
            self._file = open(path, "rb") if file is None else file  # noqa: SIM115
            stack.callback(self.close)
            self._open()
            stack.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self) -> None:
        self._file.close()

    def _open(self):
        form, self._start, num_bytes = _find_samples(self._file)
        self._format = _parse_format(form, num_bytes)
        if self._format is None:
            self._sound = _open_with_soundfile(self._file)
            self.num_samples, self.sample_rate = self._sound.frames, self._sound.samplerate
        else:
            _, num_channels, width, self.sample_rate = self._format
            self.num_samples = num_bytes // (num_channels * width)
        if not self.num_samples:
            raise ValueError("expected a sound, got an empty file")
        if self.sample_rate < 1:
            raise ValueError(f"expected a sample rate of at least 1, got {self.sample_rate}")

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return the samples from `start` to `stop`, the mean of all channels, float32 `(n,)`."""
        stop = self.num_samples if stop is None else min(stop, self.num_samples)
        with self._naming():
            if self._sound is None:
                tag, num_channels, width, _ = self._format
                self._file.seek(self._start + start * num_channels * width)
                samples = self._file.read((stop - start) * num_channels * width)
                channels = _decode(samples, tag, width).reshape(-1, num_channels)
            else:
                channels = _read_with_soundfile(self._sound, start, stop)
            if len(channels) != stop - start:
                raise ValueError(f"expected {stop - start} samples, but the file was cut short")
            if not np.all(np.isfinite(channels)):
                raise ValueError("expected finite samples, got NaN or infinity")
        return channels.mean(axis=1, dtype="float64").astype("float32")

    @contextlib.contextmanager
    def _naming(self):
        """Context in which every error names the file."""
        try:
            yield
        except ValueError as error:
            raise ValueError(f"{self.path}: cannot be read as a WAV file ({error}).") from error
        except OSError as error:
            raise ValueError(f"{self.path}: cannot be read ({error.strerror}).") from error


def trim_silence(waveform: np.ndarray) -> np.ndarray:
    """Return a waveform `(n,)` without the samples after the last one louder than `SILENCE`.

    Raises:
        ValueError: for another shape, and for values that are not finite numbers.
    """
    waveform = as_numbers("waveform", waveform, (None,))
    return waveform[: 1 + np.flatnonzero(np.abs(waveform) > SILENCE).max(initial=-1)]


def _find_samples(file) -> tuple[bytes, int, int]:
    """Return the format chunk of a WAV file, and start and size of its sample data in bytes.

    The chunk is empty if it is another file.

    Raises:
        ValueError: if a chunk is missing or cut short.
    """
    file_size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(12)
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return b"", 0, 0
    form, position = b"", 12
    while position + 8 <= file_size:
        file.seek(position)
        name, size = struct.unpack("<4sI", file.read(8))
        position += 8
        rest = file_size - position
        if name == b"data":
            (riff_size,) = struct.unpack_from("<I", head, 4)
            unknown = size == 0 and (riff_size in STREAMED or riff_size + 8 <= position)
            size = rest if size in STREAMED or unknown else size
        if size > rest:
            raise ValueError(f"chunk {name!r}: expected {size} bytes, but the file was cut short")
        if name == b"data":
            if not form:
                raise ValueError("expected the format before the data")
            return form, position, size
        if name == b"fmt ":
            form = file.read(size)
        position += size
        file.seek(position)
        # A chunk of odd size is followed by a zero byte, which some programs omit.
        if size % 2 and file.read(1) in (b"\0", b""):
            position += 1
    raise ValueError("expected chunks of format and data, but the file was cut short")


def _parse_format(form: bytes, num_bytes: int) -> tuple[int, int, int, int] | None:
    """Return format tag, number of channels, bytes per sample and sample rate.

    Args:
        form: Bytes. The format chunk.
        num_bytes: Int. Size of the sample data.

    Returns:
        A tuple, or `None` for another encoding.

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
    if num_bytes % frame_size:
        raise ValueError(
            f"expected a multiple of {frame_size} bytes of samples, got {num_bytes}: "
            "the file was cut short"
        )
    return tag, num_channels, width, rate


def _decode(samples: bytes, tag: int, width: int) -> np.ndarray:
    """Return the samples `(n,)` of all channels as floating-point numbers."""
    if tag == FLOAT:
        return np.frombuffer(samples, f"<f{width}")
    if width == 1:  # unsigned, silence at 128
        return (np.frombuffer(samples, "u1").astype("float32") - 128) / 128
    # Into the highest bytes of 32 bits.
    raw = np.zeros((len(samples) // width, 4), "u1")
    raw[:, 4 - width :] = np.frombuffer(samples, "u1").reshape(-1, width)
    return raw.view("<i4")[:, 0] / 2**31


def _open_with_soundfile(file):
    """Return the `soundfile.SoundFile` of a file of another encoding."""
    try:
        import soundfile
    except ImportError as error:
        raise ValueError(
            "not a WAV file of integers or floating-point numbers; "
            "other sounds need soundfile: pip install soundfile"
        ) from error
    file.seek(0)
    try:
        sound = soundfile.SoundFile(file)
    except soundfile.SoundFileError as error:
        # The whole message has the address of the object in memory.
        raise ValueError(getattr(error, "error_string", error)) from error
    if sound.frames * sound.channels > MAX_SAMPLES:
        raise ValueError(
            f"expected at most {MAX_SAMPLES} samples, got {sound.frames} × {sound.channels}"
        )
    return sound


def _read_with_soundfile(sound, start: int, stop: int) -> np.ndarray:
    """Return the samples `(n, channels)` of a `soundfile.SoundFile`."""
    import soundfile

    try:
        sound.seek(start)
        return sound.read(stop - start, dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
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
