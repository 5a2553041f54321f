"""Mu-law against its formula and its error bound; WAV files against the standard library."""

import wave

import numpy as np
import pytest

from keras_genai.audio import load_wav, mu_law_decode, mu_law_encode, save_wav


def test_mu_law_by_hand():
    # f(0.5) = ln(128.5) / ln(256) = 0.8757: step (0.8757 + 1) / 2 * 255 = 239.15.
    levels = mu_law_encode([-1.0, -0.5, 0.0, 0.5, 1.0])
    assert levels.tolist() == [0, 16, 128, 239, 255] and levels.dtype == "int32"
    back = mu_law_decode(levels)
    assert back.dtype == "float32" and back[0] == -1 and back[-1] == 1
    assert back[3] == pytest.approx((256 ** (2 * 239 / 255 - 1) - 1) / 255, rel=1e-6)
    assert abs(back[2]) < 1e-4  # no level is silence itself


@pytest.mark.parametrize("num_levels", [2, 16, 255, 256])
def test_levels_come_back_and_waveforms_nearly_so(num_levels):
    levels = np.arange(num_levels)
    decoded = mu_law_decode(levels, num_levels)
    assert np.array_equal(mu_law_encode(decoded, num_levels), levels)
    assert np.all(np.diff(decoded) > 0)
    x = np.linspace(-1, 1, 10_001)
    error = np.abs(mu_law_decode(mu_law_encode(x, num_levels), num_levels) - x)
    # At most half a step of f, 1 / mu, which its inverse stretches by |x|' = (1/mu + |x|) ln(1+mu).
    mu = num_levels - 1
    steepest = np.minimum(np.abs(x) + error, 1)
    assert np.all(error <= (1 / mu + steepest) * np.log1p(mu) / mu + 1e-6)


def test_values_outside_the_range_are_named():
    for waveform in ([1.1], [-2.0], [np.nan]):
        with pytest.raises(ValueError, match=r"waveform: expected values in \[-1, 1\]"):
            mu_law_encode(waveform)
    with pytest.raises(ValueError, match="levels: expected integers from 0 to 15"):
        mu_law_decode([16], 16)
    with pytest.raises(ValueError, match="num_levels: expected"):
        mu_law_encode([0.0], 1)


def test_a_wav_file_is_what_the_standard_library_reads(tmp_path):
    x = np.array([0.0, 0.5, -1.0, 1.0])
    save_wav(tmp_path / "a.wav", x, 8000)
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert file.getparams()[:4] == (1, 2, 8000, 4)
        assert np.frombuffer(file.readframes(4), "<i2").tolist() == [0, 16384, -32767, 32767]
    back, rate = load_wav(tmp_path / "a.wav")
    assert rate == 8000 and back.dtype == "float32"
    np.testing.assert_allclose(back, x, atol=1e-4)


def test_channels_are_averaged_and_eight_bits_are_read(tmp_path):
    for width, data, expected in (
        (2, np.array([16384, 0, -16384, -16384], "<i2"), [0.25, -0.5]),
        (1, np.array([128, 192, 0, 0], "u1"), [0.25, -1.0]),
    ):
        with wave.open(str(tmp_path / "b.wav"), "wb") as file:
            file.setparams((2, width, 44100, 0, "NONE", None))
            file.writeframes(data.tobytes())
        back, rate = load_wav(tmp_path / "b.wav")
        assert rate == 44100
        np.testing.assert_allclose(back, expected)


def test_what_is_no_sound_is_named(tmp_path):
    path = tmp_path / "c.wav"
    with pytest.raises(ValueError, match="c.wav: cannot be read as a WAV file"):
        load_wav(path)
    path.write_bytes(b"RIFF....")
    with pytest.raises(ValueError, match="c.wav: cannot be read as a WAV file"):
        load_wav(path)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 3, 8000, 0, "NONE", None))
        file.writeframes(b"abc")
    with pytest.raises(ValueError, match="c.wav: expected 8 or 16 bits a sample, got 24"):
        load_wav(path)
    save_wav(path, np.zeros(0))
    with pytest.raises(ValueError, match="c.wav: expected a sound, got an empty file"):
        load_wav(path)
    with pytest.raises(ValueError, match=r"waveform: expected shape \(n,\), got \(1, 2\)"):
        save_wav(path, np.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"waveform: expected values in \[-1, 1\]"):
        save_wav(path, np.array([1.5]))
    save_wav(path, np.ones(9))
    whole = path.read_bytes()
    with pytest.raises(ValueError, match="sample_rate: expected a whole number .* got 8000.0"):
        save_wav(path, np.zeros(9), 8000.0)
    assert path.read_bytes() == whole  # nothing was lost
    for missing in (1, 2, 3):
        path.write_bytes(whole[:-missing])
        with pytest.raises(ValueError, match="c.wav: expected 9 samples, but the file was cut sho"):
            load_wav(path)
