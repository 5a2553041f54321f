"""Tasks on sounds: WaveNet, and a VAE of spectrograms."""

import numpy as np
import tensorflow as tf

from keras_genai import datasets, streaming
from keras_genai.audio import save_wav
from keras_genai.autoregressive import Sampler
from keras_genai.callbacks import save_figure
from keras_genai.pipelines import make_audio_dataset, make_dataset
from keras_genai.plotting import COLORS, plot_sounds
from keras_genai.spectrograms import (
    IMAGE_SHAPE,
    compute_spectrograms,
    log_spectral_distance,
    num_samples,
    resample,
)
from keras_genai.streamed_arrays import StreamedArray, StreamedSounds, reraise_file_errors
from keras_genai.tasks.base import Data, Task, check_no_cache, cycle_labels

EVALUATION_BATCH = 64  # of streamed sounds
SOUND_TEMPERATURE = 0.9  # at 1, noise is too bright: tests/benchmarks/sounds.py
SPECTROGRAM_RATE = 8000  # samples per second of a VAE's sounds
SEMITONES = (0, -3, -2, -1, 1, 2, 3)  # pitches of each training sound of a VAE


class AudioTask(Task):
    """Sounds of several classes. The metric is the NLL of the test sounds in nats per sample.

    Two files of each class are held out, with all their seconds. `Data.train` and `Data.test` are
    tuples of waveforms, a list or `StreamedSounds`, and labels `(n,)`.
    """

    example_unit = "sounds"
    family = "WaveNet"  # whose color the samples have

    def load(self, source=None, cache=None) -> Data:
        if source is None:
            check_no_cache(cache, "the sounds of the recipe")
            (waveforms, labels, class_names), sample_rate = datasets.load_drums(), 8000
            files = np.arange(len(labels))
        else:
            waveforms, labels, class_names, sample_rate, files = self._load_folder(source, cache)
        splits = streaming.split_sounds(labels, files, len(class_names))
        if not len(splits[1]):
            raise ValueError(f"{source}: expected at least two sounds of a class, to hold one out.")
        train, test = ((_select(waveforms, rows), labels[rows]) for rows in splits)
        dataset_info = {"class_names": class_names, "sample_rate": sample_rate}
        return Data(train, test, len(train[0]), dataset_info)

    def _load_folder(self, source, cache):
        """Return the result of `datasets.load_sound_folder`, or of `open_sound_folder`."""
        if cache is None and streaming.count_sound_bytes(source) <= streaming.STREAMING_BYTES:
            return datasets.load_sound_folder(source)
        return streaming.open_sound_folder(source, cache)

    def train_dataset(self, data, batch_size, seed, epoch, input_context=None):
        return self._make_dataset(data, data.train, batch_size, seed, epoch, True, input_context)

    def validation_data(self, data):
        constant_epoch = tf.Variable(0, dtype=tf.int64)
        return {"validation_data": self._make_dataset(data, data.test, 4, 0, constant_epoch)}

    def _make_dataset(self, data, sounds, *args, **kwargs):
        waveforms, labels = sounds
        labels = labels if len(data.dataset_info["class_names"]) > 1 else None
        return make_audio_dataset(waveforms, labels, *args, **kwargs)

    def evaluate(self, model, data):
        waveforms, labels = data.test
        size = EVALUATION_BATCH if isinstance(waveforms, StreamedSounds) else len(labels)
        log_prob, num_audio_samples = 0.0, 0
        for start in range(0, len(labels), size):
            batch, batch_labels = (x[start : start + size] for x in (waveforms, labels))
            log_probs, _ = model.log_prob(batch, batch_labels if model.num_classes else None)
            log_prob += float(log_probs.sum())
            num_audio_samples += sum(len(waveform) for waveform in batch)
        return {
            "value": -log_prob / num_audio_samples,
            "num_audio_samples": num_audio_samples,
        }

    def save_samples(self, model, data, folder):
        """Write one second of sound of each class as a WAV file, and a picture of all."""
        class_names = data.dataset_info["class_names"]
        waveforms = self.generate(model, len(class_names))
        (folder / "samples").mkdir(exist_ok=True)
        for name, waveform in zip(class_names, waveforms, strict=True):
            save_wav(folder / "samples" / f"{name or 'sound'}.wav", waveform, model.sample_rate)
        picture = plot_sounds(waveforms, model.sample_rate, class_names, COLORS[self.family])
        save_figure(picture, folder / "samples.png")

    def generate(self, model, num_sounds):
        """Return one second of sound of each class in turn, with the seed 0."""
        sampler = Sampler(SOUND_TEMPERATURE)
        return model.generate(num_sounds, cycle_labels(model, num_sounds), sampler=sampler, seed=0)


class SpectrogramTask(AudioTask):
    """Spectrograms of sounds, for a VAE. The metric is the distance of reconstructions in dB.

    It is the log-spectral distance of the spectrograms of the test sounds, those that `AudioTask`
    holds out, from their reconstructions.

    Sounds are resampled to 8,000 samples per second. Training has seven versions of each sound,
    faster or slower by up to three semitones, which changes pitch and length. `Data.train` and
    `Data.test` are tuples of spectrograms, an array or a `StreamedArray`, and labels or `None`.
    """

    family = "VAE"

    def load(self, source=None, cache=None) -> Data:
        data = super().load(source, cache)
        sample_rate = data.dataset_info["sample_rate"]
        train, test = (
            _spectrograms(sounds, labels, sample_rate, semitones, cache is not None)
            for (sounds, labels), semitones in ((data.train, SEMITONES), (data.test, (0,)))
        )
        class_names = data.dataset_info["class_names"]
        if len(class_names) == 1:
            train, test = (train[0], None), (test[0], None)
        dataset_info = {"class_names": class_names, "sample_rate": SPECTROGRAM_RATE}
        return Data(train, test, len(train[0]), dataset_info)

    def train_dataset(self, data, batch_size, seed, epoch, input_context=None):
        x, labels = data.train
        arrays = x if labels is None else (x, labels)
        return make_dataset(arrays, batch_size, seed, epoch, input_context)

    def validation_data(self, data):
        x, labels = data.test
        arrays, epoch = x if labels is None else (x, labels), tf.Variable(0, dtype=tf.int64)
        return {"validation_data": make_dataset(arrays, EVALUATION_BATCH, 0, epoch, shuffle=False)}

    def evaluate(self, model, data):
        x, labels = data.test
        distances: list[float] = []
        for start in range(0, len(x), EVALUATION_BATCH):
            rows = slice(start, start + EVALUATION_BATCH)
            batch, batch_labels = x[rows], None if labels is None else labels[rows]
            distances.extend(log_spectral_distance(batch, model.reconstruct(batch, batch_labels)))
        with reraise_file_errors():
            results = model.evaluate(
                self.validation_data(data)["validation_data"], verbose=0, return_dict=True
            )
        return {"value": float(np.mean(distances)), **results}

    def generate(self, model, num_sounds):
        return model.generate(num_sounds, cycle_labels(model, num_sounds), seed=0)


def _spectrograms(waveforms, labels, sample_rate: int, semitones, streamed: bool) -> tuple:
    """Return spectrograms of each sound at each pitch, and their labels.

    Args:
        waveforms: List of arrays, or `StreamedSounds`.
        labels: Int array `(n,)`.
        sample_rate: Int. Samples per second.
        semitones: Tuple of numbers. Changes of the pitch.
        streamed: Bool. Whether to compute them whenever they are read, as is done with more than
            `streaming.STREAMING_BYTES`.

    Returns:
        Array or `StreamedArray` `(n * len(semitones), *IMAGE_SHAPE)`, and labels.
    """
    length = num_samples(IMAGE_SHAPE)

    def read(rows):
        sounds = []
        for sound, version in zip(*np.divmod(rows, len(semitones)), strict=True):
            (waveform,) = waveforms[sound : sound + 1]
            rate = round(sample_rate * 2 ** (semitones[version] / 12))  # at which it is played
            sounds.append(resample(waveform, rate, SPECTROGRAM_RATE)[:length])
        return compute_spectrograms(sounds)

    fingerprint = getattr(waveforms, "fingerprint", None)
    if fingerprint is None:
        fingerprint = Data(waveforms, None, 0, {}).sha256()
    shape = (len(waveforms) * len(semitones), *IMAGE_SHAPE)
    spectrograms = StreamedArray(read, shape, "float32", fingerprint)
    labels = np.repeat(labels, len(semitones))
    if not streamed and 4 * spectrograms.size <= streaming.STREAMING_BYTES:
        return spectrograms[:], labels
    return spectrograms, labels


def _select(waveforms, rows):
    """Return the waveforms of an array of indices."""
    if isinstance(waveforms, StreamedSounds):
        return waveforms.select(rows)
    return [waveforms[row] for row in rows]
