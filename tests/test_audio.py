"""Mu-law against its formula and its error bound; WAV files against the standard library."""

import os
import sys
import wave

import numpy as np
import pytest
import soundfile

from keras_genai.audio import load_wav, mu_law_decode, mu_law_encode, save_wav


def test_mu_law_levels_computed_by_hand():
    # f(0.5) = ln(128.5) / ln(256) = 0.8757: step (0.8757 + 1) / 2 * 255 = 239.15.
    levels = mu_law_encode([-1.0, -0.5, 0.0, 0.5, 1.0])
    assert levels.tolist() == [0, 16, 128, 239, 255] and levels.dtype == "int32"
    decoded = mu_law_decode(levels)
    assert decoded.dtype == "float32" and decoded[0] == -1 and decoded[-1] == 1
    assert decoded[3] == pytest.approx((256 ** (2 * 239 / 255 - 1) - 1) / 255, rel=1e-6)
    assert abs(decoded[2]) < 1e-4  # an even number of levels has none at exactly 0


@pytest.mark.parametrize("quantization_channels", [2, 16, 255, 256])
def test_decoding_inverts_encoding_within_the_quantization_error(quantization_channels):
    levels = np.arange(quantization_channels)
    decoded = mu_law_decode(levels, quantization_channels)
    assert np.array_equal(mu_law_encode(decoded, quantization_channels), levels)
    assert np.all(np.diff(decoded) > 0)
    x = np.linspace(-1, 1, 10_001)
    encoded = mu_law_encode(x, quantization_channels)
    error = np.abs(mu_law_decode(encoded, quantization_channels) - x)
    # At most half a step of f, 1 / mu, times the slope of its inverse, (1/mu + |x|) ln(1 + mu).
    mu = quantization_channels - 1
    largest_amplitude = np.minimum(np.abs(x) + error, 1)
    assert np.all(error <= (1 / mu + largest_amplitude) * np.log1p(mu) / mu + 1e-6)


@pytest.mark.parametrize("waveform", [[1.1], [-2.0], [np.nan]])
def test_encoding_amplitudes_above_one_raises(waveform):
    with pytest.raises(ValueError, match=r"waveform: expected values in \[-1, 1\]"):
        mu_law_encode(waveform)


def test_invalid_levels_raise():
    with pytest.raises(ValueError, match="levels: expected integers from 0 to 15"):
        mu_law_decode([16], 16)
    with pytest.raises(ValueError, match="quantization_channels: expected"):
        mu_law_encode([0.0], 1)


def test_numpy_number_of_levels_encodes_like_an_int():
    # The logarithm of a NumPy uint8 would have half precision.
    waveform = np.linspace(-1, 1, 999)
    levels = mu_law_encode(waveform, np.uint8(200))
    np.testing.assert_array_equal(levels, mu_law_encode(waveform, 200))
    np.testing.assert_array_equal(mu_law_decode(levels, np.uint8(200)), mu_law_decode(levels, 200))


def test_saved_wav_equals_what_the_standard_library_reads(tmp_path):
    x = np.array([0.0, 0.5, -1.0, 1.0])
    save_wav(tmp_path / "a.wav", x, 8000)
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert file.getparams()[:4] == (1, 2, 8000, 4)
        assert np.frombuffer(file.readframes(4), "<i2").tolist() == [0, 16384, -32767, 32767]
    loaded, sample_rate = load_wav(tmp_path / "a.wav")
    assert sample_rate == 8000 and loaded.dtype == "float32"
    np.testing.assert_allclose(loaded, x, atol=1e-4)


@pytest.mark.parametrize(
    "sample_width, data, expected",
    [
        (2, np.array([16384, 0, -16384, -16384], "<i2"), [0.25, -0.5]),
        (1, np.array([128, 192, 0, 0], "u1"), [0.25, -1.0]),
    ],
)
def test_loading_averages_channels_of_8_and_16_bits(tmp_path, sample_width, data, expected):
    with wave.open(str(tmp_path / "b.wav"), "wb") as file:
        file.setparams((2, sample_width, 44100, 0, "NONE", None))
        file.writeframes(data.tobytes())
    loaded, sample_rate = load_wav(tmp_path / "b.wav")
    assert sample_rate == 44100
    np.testing.assert_allclose(loaded, expected)


def test_loading_a_missing_or_broken_file_raises(tmp_path):
    path = tmp_path / "c.wav"
    with pytest.raises(ValueError, match="c.wav: cannot be read .No such file or directory"):
        load_wav(path)
    path.write_bytes(b"RIFF....")
    with pytest.raises(ValueError, match="c.wav: cannot be read as a WAV file"):
        load_wav(path)


def test_loading_24_bits(tmp_path):
    path = tmp_path / "c.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 3, 8000, 0, "NONE", None))
        file.writeframes(b"\0\0\x40\0\0\x20" + b"\xff\xff\xff\x01\0\0")  # little-endian
    np.testing.assert_allclose(load_wav(path)[0], [0.375, 0.0])


def test_other_encodings_without_soundfile_raise_with_a_remedy(tmp_path, monkeypatch):
    path = tmp_path / "c.wav"
    soundfile.write(path, np.zeros(9), 8000, subtype="ULAW")
    assert load_wav(path)[0].tolist() == [0.0] * 9
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ValueError, match="c.wav: cannot be read .*: pip install soundfile"):
        load_wav(path)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("file_format", ["WAV", "WAVEX"])
def test_loaded_samples_equal_those_of_soundfile(tmp_path, subtype, file_format):
    path = tmp_path / "c.wav"
    x = np.random.default_rng(0).uniform(-1, 1, (100, 2))
    soundfile.write(path, x, 8000, subtype, format=file_format)
    expected, sample_rate = soundfile.read(path)
    loaded, loaded_rate = load_wav(path)
    assert loaded.dtype == "float32" and loaded_rate == sample_rate
    np.testing.assert_allclose(loaded, expected.mean(axis=1), atol=1e-7)


def test_loading_an_empty_sound_raises(tmp_path):
    path = tmp_path / "c.wav"
    save_wav(path, np.zeros(0))
    with pytest.raises(ValueError, match="c.wav: .*expected a sound, got an empty file"):
        load_wav(path)


@pytest.mark.parametrize("missing_bytes", [1, 2, 3])
def test_loading_a_truncated_file_raises(tmp_path, missing_bytes):
    path = tmp_path / "c.wav"
    save_wav(path, np.ones(9))
    path.write_bytes(path.read_bytes()[:-missing_bytes])
    with pytest.raises(ValueError, match="c.wav: .*expected 18 bytes, but the file was cut short"):
        load_wav(path)


@pytest.mark.parametrize(
    "waveform, sample_rate, message",
    [
        (np.zeros((1, 2)), 8000, r"waveform: expected shape \(n,\), got \(1, 2\)"),
        (np.array([1.5]), 8000, r"waveform: expected values in \[-1, 1\]"),
        (np.zeros(9), 8000.0, "sample_rate: expected a whole number .* got 8000.0"),
        (np.zeros(9), 2**31, "sample_rate: expected a whole number of at most 2147483647"),
        (np.zeros(9, complex), 8000, "waveform: expected real numbers, got an array of complex128"),
        (np.array(["a"]), 8000, "waveform: expected real numbers"),
        (np.full(9, -128, "int8"), 8000, r"waveform: expected values in \[-1, 1\]"),
    ],
)
def test_saving_an_invalid_sound_raises_and_keeps_the_old_file(
    tmp_path, waveform, sample_rate, message
):
    path = tmp_path / "c.wav"
    save_wav(path, np.ones(9))
    old = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        save_wav(path, waveform, sample_rate)
    assert path.read_bytes() == old


def test_interrupted_saving_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "c.wav"
    save_wav(path, np.ones(9))
    old = path.read_bytes()

    def full_disk(self, data):
        self._file.write(data[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(wave.Wave_write, "writeframes", full_disk)
    with pytest.raises(OSError, match="No space left on device: '.*c.wav'"):
        save_wav(path, np.zeros(9))
    assert path.read_bytes() == old and list(tmp_path.iterdir()) == [path]


def test_saving_through_a_link_keeps_the_link(tmp_path):
    (tmp_path / "link.wav").symlink_to("c.wav")
    save_wav(tmp_path / "link.wav", np.ones(9))
    assert (tmp_path / "link.wav").is_symlink() and len(load_wav(tmp_path / "c.wav")[0]) == 9


def test_saving_to_a_device_or_folder_raises(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", "/dev/null"):
        with pytest.raises(ValueError, match="cannot be written: expected a file"):
            save_wav(path, np.ones(9))
    with pytest.raises(FileNotFoundError, match="nowhere/c.wav"):
        save_wav(tmp_path / "nowhere" / "c.wav", np.ones(9))


def test_waveforms_in_half_precision_are_saved_unchanged(tmp_path):
    save_wav(tmp_path / "c.wav", np.array([1.0, -1.0, 0.5], "float16"))
    with wave.open(str(tmp_path / "c.wav")) as file:
        assert np.frombuffer(file.readframes(3), "<i2").tolist() == [32767, -32767, 16384]


def test_levels_of_8_bits_do_not_overflow():
    levels = np.arange(256)
    decoded = mu_law_decode(levels.astype("uint8"))
    np.testing.assert_array_equal(decoded, mu_law_decode(levels))
    assert decoded.dtype == "float32"
