"""Spectrograms against sines and Parseval's theorem; the VAE of sounds, its task and commands."""

import sys

import keras
import librosa
import numpy as np
import pytest
from helpers import largest_difference, set_random_weights

import keras_genai
from keras_genai import datasets, recipes, tasks
from keras_genai.__main__ import main
from keras_genai.audio import load_wav, save_wav
from keras_genai.audio_vae import AudioVAE
from keras_genai.conditioning import concat_labels
from keras_genai.learned_prior import MixturePrior
from keras_genai.spectrograms import (
    compute_spectrograms,
    invert_spectrograms,
    log_spectral_distance,
    num_samples,
    resample,
)
from keras_genai.vae import build_conv_decoder, build_conv_encoder

SHAPE = (16, 32, 1)  # windows of 64 samples, one every 16: 240 samples


def build_model(num_classes=None, **options):
    encoder = build_conv_encoder(SHAPE, (2, 3), 4, 2, num_classes=num_classes)
    decoder = build_conv_decoder(2, 4, (3, 2), SHAPE, num_classes=num_classes)
    prior = MixturePrior(2, 3, num_classes)
    model = AudioVAE(encoder, decoder, prior, seed=0, sample_rate=1000, **options)
    return set_random_weights(model, scale=0.5)


def sine(frequency, amplitude=1.0, length=8128):
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(length) / 8000)


def magnitudes(spectrograms):
    """The inverse of s = ln(1 + 1000 a) / ln(1 + 1000)."""
    return (1001.0 ** spectrograms.astype("float64") - 1) / 1000


# Spectrograms.


@pytest.mark.parametrize("amplitude", [1.0, 0.1])
def test_a_sine_has_half_its_amplitude_at_its_frequency(amplitude):
    # Bins are 8000 / 256 = 31.25 Hz apart; the sidelobes of a Hann window are half as high.
    a = magnitudes(compute_spectrograms([sine(32 * 31.25, amplitude)]))[0, 8:-8, :, 0]
    np.testing.assert_allclose(a[:, 32], amplitude / 2, rtol=1e-3)
    np.testing.assert_allclose(a[:, [31, 33]], amplitude / 4, rtol=1e-3)
    assert a[:, np.abs(np.arange(128) - 32) > 2].max() < 1e-3 * amplitude


def test_silence_stays_silence():
    spectrograms = compute_spectrograms([np.zeros(100)])
    assert spectrograms.shape == (1, 128, 128, 1) and spectrograms.dtype == "float32"
    assert not spectrograms.any() and not invert_spectrograms(spectrograms).any()


def test_energy_of_a_spectrogram_is_that_of_the_windows_by_parsevals_theorem():
    x = np.random.default_rng(0).uniform(-1, 1, 240)
    x -= np.mean(x * (-1) ** np.arange(240)) * (-1) ** np.arange(240)
    a = magnitudes(compute_spectrograms([x], SHAPE))[0, ..., 0]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(64) / 64)
    padded = np.pad(x, 32)
    for frame in range(2, 14):
        window = hann * padded[16 * frame : 16 * frame + 64]
        nyquist = np.sum(window * (-1) ** np.arange(64))  # of the dropped frequency
        energy = 64 * np.sum(window**2) - nyquist**2
        found = 32**2 * (2 * np.sum(a[frame] ** 2) - a[frame, 0] ** 2)
        assert found == pytest.approx(energy, rel=1e-4)


def test_full_scale_stays_in_the_range_of_images():
    noise = np.random.default_rng(0).choice([-1.0, 1.0], 8128)
    spectrograms = compute_spectrograms([np.ones(8128), noise, np.sign(sine(100) + 1e-9)])
    assert spectrograms.min() >= 0 and spectrograms.max() <= 1
    np.testing.assert_allclose(spectrograms[0, 8:-8, 0], 1, atol=1e-6)  # of frequency 0
    assert np.abs(invert_spectrograms(spectrograms, 2)).max() <= 1


def test_griffin_lim_returns_sounds_of_nearly_the_same_spectrogram():
    waveforms = [sound[:8000] for sound in datasets.load_drums()[0][::16]]
    spectrograms = compute_spectrograms(waveforms)
    sounds = invert_spectrograms(spectrograms)
    assert sounds.shape == (len(waveforms), 127 * 64) and sounds.dtype == "float32"
    a, b = magnitudes(spectrograms), magnitudes(compute_spectrograms(sounds))
    for given, found in zip(a, b, strict=True):
        # A sound that would exceed full scale is divided by its peak.
        found *= np.sum(given * found) / np.sum(found**2)
        assert np.linalg.norm(found - given) < 0.15 * np.linalg.norm(given)
    np.testing.assert_array_equal(invert_spectrograms(spectrograms[2:3])[0], sounds[2])
    few = magnitudes(compute_spectrograms(invert_spectrograms(spectrograms, 1)))
    assert np.linalg.norm(few - a) > 2 * np.linalg.norm(b - a)


def test_log_spectral_distance_of_known_levels():
    levels = np.full((2, 4, 8, 1), -20.0)  # dB of full scale
    others = levels.copy()
    others[0, 0, :4] = -26  # half of the frequencies of one frame, 6 dB
    others[1] = -90  # below the level of silence, -60 dB
    x, y = (np.log1p(1000 * 10 ** (z / 20) / 2) / np.log1p(1000) for z in (levels, others))
    expected = [np.sqrt(6**2 / 2) / 4, 40]
    np.testing.assert_allclose(log_spectral_distance(x, y), expected, rtol=1e-6)
    np.testing.assert_array_equal(log_spectral_distance(x, x), 0)


def test_resampling_keeps_frequency_and_length():
    x = sine(440 * 8000 / 44100, 0.5, 44100)  # 440 Hz at 44,100 samples per second
    y = resample(x, 44100, 8000)
    assert y.shape == (8000,) and y.dtype == "float32"
    np.testing.assert_allclose(y[500:-500], sine(440, 0.5, 8000)[500:-500], atol=1e-3)
    high = resample(sine(5000 * 8000 / 44100, 0.5, 44100), 44100, 8000)  # above 4,000 Hz
    assert np.abs(high[500:-500]).max() < 1e-3
    np.testing.assert_array_equal(resample(x, 44100, 44100), x.astype("float32"))


X = np.zeros((1, 16, 32, 1))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: num_samples((128, 127, 1)), "image_shape: expected an even number of bins"),
        (lambda: num_samples((128, 128)), r"image_shape: expected \(frames, bins, 1\)"),
        (lambda: num_samples((4, 128, 1)), "frames of image_shape: expected"),
        (lambda: compute_spectrograms(3, SHAPE), "waveforms: expected a list of arrays"),
        (lambda: compute_spectrograms([], SHAPE), "waveforms: expected a list of arrays"),
        (lambda: compute_spectrograms([[]], SHAPE), "waveforms: expected 1 to 240 samples"),
        (lambda: compute_spectrograms(np.zeros((1, 241)), SHAPE), "1 to 240 samples .* got 241"),
        (lambda: compute_spectrograms([[0, 1.5]], SHAPE), "magnitude at most 1.5"),
        (lambda: compute_spectrograms([[np.nan]], SHAPE), "waveforms: expected finite"),
        (lambda: invert_spectrograms(X[0]), "spectrograms: expected shape"),
        (lambda: invert_spectrograms(X + 2), "spectrograms: expected .*1"),
        (lambda: invert_spectrograms(X, 0), "num_iterations: expected"),
        (lambda: log_spectral_distance(X, X[:, :2]), "others: expected shape"),
        (lambda: resample([0.5], 0, 1), "sample_rate: expected"),
        (lambda: resample([0.5], 1, 0), "target_rate: expected"),
        (lambda: build_model(class_names=["a", "b"]), "class_names: expected 1, got 2"),
        (lambda: build_model(2).generate(2), "labels: expected integers from 0 to 1, got None"),
        (lambda: build_model().interpolate([[0.5]], [0.5]), r"start: expected shape \(n\)"),
        (lambda: build_model().interpolate([0.5], [0.5], 1), "steps: expected"),
        (lambda: build_model(2).interpolate([0.5], [0.5]), "labels: expected integers"),
        (lambda: build_model().interpolate([0.5], [0.5], labels=1), "labels: expected None"),
        (lambda: build_model().interpolate([0.5], []), "end: expected 1 to 240 samples"),
    ],
)
def test_invalid_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_missing_librosa_is_named_with_its_extra(monkeypatch, tmp_path, capsys):
    build_model().save(tmp_path / "model.keras")
    monkeypatch.setitem(sys.modules, "librosa", None)
    with pytest.raises(ImportError, match=r'pip install "keras_genai\[audio\]"'):
        compute_spectrograms([[0.5]], SHAPE)
    output = str(tmp_path / "a.wav")
    assert main(["generate", str(tmp_path / "model.keras"), "--output", output]) == 2
    assert 'pip install "keras_genai[audio]"' in capsys.readouterr().err


# The model.


@pytest.mark.parametrize("num_classes", [None, 3])
def test_generated_sounds_are_the_decoded_samples_of_the_prior(num_classes):
    model, labels = build_model(num_classes), None if num_classes is None else [2, 0]
    z = model.prior.sample(2, labels, seed=5)
    expected = invert_spectrograms(model.decode(z, labels))
    sounds = model.generate(2, labels, seed=5)
    np.testing.assert_allclose(sounds, expected, atol=1e-5)
    assert sounds.shape == (2, 240) and sounds.dtype == "float32" and np.abs(sounds).max() <= 1
    assert largest_difference([sounds], [model.generate(2, labels, seed=6)]) > 1e-3


def test_interpolation_mixes_latent_vectors_and_labels():
    z, labels = keras.Input((2,)), keras.Input((), dtype="int32")
    x_hat = keras.layers.Dense(16 * 32, "sigmoid")(concat_labels(z, labels, 3))
    decoder = keras.Model([z, labels], keras.layers.Reshape(SHAPE)(x_hat))
    encoder = build_conv_encoder(SHAPE, (2, 3), 4, 2, num_classes=3)
    model = set_random_weights(AudioVAE(encoder, decoder, MixturePrior(2, 3, 3)), scale=0.5)
    kernel, bias = decoder.get_weights()
    start, end = 0.5 * sine(500, length=200), 0.5 * sine(3000, length=240)
    sounds = model.interpolate(start, end, 3, [2, 0])
    x, labels = model.waveforms_to_spectrograms([start, end]), np.array([2, 0])
    z = model.encode(x, labels)[0]
    rows = [[*z[0], 0, 0, 1], [*z.mean(axis=0), 0.5, 0, 0.5], [*z[1], 1, 0, 0]]
    expected = 1 / (1 + np.exp(-(np.array(rows) @ kernel + bias)))
    np.testing.assert_allclose(sounds, invert_spectrograms(expected.reshape(-1, *SHAPE)), atol=1e-4)
    reconstructions = invert_spectrograms(model.reconstruct(x, labels))
    np.testing.assert_allclose(sounds[[0, 2]], reconstructions, atol=1e-4)


def test_interpolation_without_classes_is_that_of_the_latent_vectors():
    model = build_model()
    start, end = 0.5 * sine(500, length=200), 0.5 * sine(3000, length=240)
    z = model.encode(model.waveforms_to_spectrograms([start, end]))[0]
    expected = invert_spectrograms(model.decode(np.linspace(z[0], z[1], 5)))
    np.testing.assert_allclose(model.interpolate(start, end, 5), expected, atol=1e-4)


@pytest.mark.parametrize("num_classes", [None, 3])
def test_saved_model_generates_the_same_sounds_and_trains_on(tmp_path, num_classes):
    names = None if num_classes is None else ["a", "b", "c"]
    model = build_model(num_classes, class_names=names)
    labels = None if num_classes is None else np.array([0, 1, 2, 2])
    x = np.random.default_rng(0).random((4, *SHAPE), "float32")
    model.compile("adam", run_eagerly=True)
    model.fit(x, labels, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras_genai.load_model(tmp_path / "model.keras")
    assert (type(loaded), loaded.sample_rate, loaded.class_names) == (AudioVAE, 1000, names)
    for each in (model, loaded):
        each.fit(x, labels, verbose=0)
    assert largest_difference(model.get_weights(), loaded.get_weights()) < 1e-6
    options = {"labels": None if num_classes is None else 1, "seed": 1}
    np.testing.assert_allclose(loaded.generate(1, **options), model.generate(1, **options))


# The task.


def test_task_has_seven_pitches_of_each_training_sound():
    data = tasks.SpectrogramTask().load()
    waveforms, labels, _ = datasets.load_drums()
    assert data.num_examples == 7 * 86 and len(data.test[0]) == 12
    assert data.dataset_info["sample_rate"] == 8000
    assert np.bincount(data.train[1]).tolist() == [7 * n for n in (18, 23, 11, 8, 2, 24)]
    x = data.train[0][:7]
    np.testing.assert_array_equal(x[0], compute_spectrograms([waveforms[0][:8128]])[0])
    faster = librosa.resample(waveforms[0], orig_sr=round(8000 * 2**0.25), target_sr=8000)
    np.testing.assert_array_equal(x[6], compute_spectrograms([faster])[0])
    held_out = np.flatnonzero(labels == 0)[-2:]
    expected = compute_spectrograms([waveforms[i] for i in held_out])
    np.testing.assert_array_equal(data.test[0][:2], expected)


@pytest.fixture
def sound_folder(tmp_path):
    for i in range(10):
        path = tmp_path / "sounds" / ("low" if i < 5 else "high") / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_wav(path, sine(300 + 100 * i, 0.9, 3000 + i), 16000)
    return tmp_path / "sounds"


def test_metric_is_the_distance_of_reconstructions_and_streaming_changes_nothing(
    sound_folder, monkeypatch
):
    task = tasks.SpectrogramTask()
    data = task.load(sound_folder)
    assert data.dataset_info == {"class_names": ["high", "low"], "sample_rate": 8000}
    assert data.train[0][0, :, :, 0].mean(axis=0).argmax() == round(2 * 800 / 31.25)
    monkeypatch.setattr(tasks.sound, "EVALUATION_BATCH", 3)
    monkeypatch.setattr(tasks.sound.streaming, "STREAMING_BYTES", 0)
    streamed = task.load(sound_folder)
    for (x, y), (rows, labels) in ((data.train, streamed.train), (data.test, streamed.test)):
        np.testing.assert_array_equal(rows[:], x)
        np.testing.assert_array_equal(labels, y)
    assert streamed.sha256() == task.load(sound_folder).sha256() != data.sha256()
    model = recipes.create("article3-audio-vae", **data.dataset_info)
    x, labels = data.test
    expected = log_spectral_distance(x, model.reconstruct(x, labels)).mean()
    for each in (data, streamed):
        results = task.evaluate(model, each)
        assert results["value"] == pytest.approx(expected, rel=1e-5) and results["loss"] > 0


@pytest.mark.slow
def test_commands_train_on_own_sounds_without_classes_and_write_sounds(tmp_path, capsys):
    (tmp_path / "sounds").mkdir()
    for i in range(10):
        save_wav(tmp_path / "sounds" / f"{i}.wav", sine(300 + i, 0.9, 2000), 8000)
    run, output = tmp_path / "run", str(tmp_path / "a.wav")
    options = ["--data", str(tmp_path / "sounds"), "--epochs", "1", "--output", str(run)]
    assert main(["train", "article3-audio-vae", *options]) == 0
    sound, sample_rate = load_wav(run / "samples" / "sound.wav")
    assert (len(sound), sample_rate) == (8128, 8000) and (run / "samples.png").exists()
    generate = ["generate", str(run / "model.keras"), "--output", output]
    assert main([*generate, "--count", "2"]) == 0
    assert len(load_wav(output)[0]) == 2 * 8128
    for option, message in (
        (["--temperature", "1"], "--temperature: not for a VAE"),
        (["--length", "9"], "--length: not for a VAE"),
        (["--label", "1"], "labels: expected None"),
        (["--prompt", "a"], "--prompt: only for a text model"),
    ):
        assert main([*generate, *option]) == 2
        assert message in capsys.readouterr().err
    assert main(["evaluate", str(run / "model.keras")]) == 0
    assert "distance of reconstructed spectrograms, dB" in capsys.readouterr().out
