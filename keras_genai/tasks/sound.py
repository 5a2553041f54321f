"""Task on sounds: WaveNet."""

import numpy as np
import tensorflow as tf

from keras_genai import datasets
from keras_genai.audio import save_wav
from keras_genai.autoregressive import Sampler
from keras_genai.callbacks import save_figure
from keras_genai.pipelines import make_audio_dataset
from keras_genai.plotting import COLORS, plot_sounds
from keras_genai.tasks.base import Data, Task, cycle_labels

SOUND_TEMPERATURE = 0.9  # at 1, noise is too bright: tests/benchmarks/sounds.py


class AudioTask(Task):
    """Sounds of several classes. The metric is the NLL of the test sounds in nats per sample.

    Two files of each class are held out, with all their seconds. `Data.train` and `Data.test` are
    tuples of a list of waveforms and labels `(n,)`.
    """

    example_unit = "sounds"

    def load(self, source=None) -> Data:
        if source is None:
            (waveforms, labels, class_names), sample_rate = datasets.load_drums(), 8000
            files = np.arange(len(labels))
        else:
            waveforms, labels, class_names, sample_rate, files = datasets.load_sound_folder(source)
        test_indices: list[int] = []
        for label in range(len(class_names)):
            class_files = np.unique(files[labels == label])
            test_files = class_files[len(class_files) - min(2, len(class_files) // 2) :]
            test_indices.extend(np.flatnonzero(np.isin(files, test_files)))
        if not test_indices:
            raise ValueError(f"{source}: expected at least two sounds of a class, to hold one out.")
        train_indices = np.setdiff1d(np.arange(len(labels)), test_indices)
        train, test = (
            ([waveforms[i] for i in indices], labels[indices])
            for indices in (train_indices, test_indices)
        )
        dataset_info = {"class_names": class_names, "sample_rate": sample_rate}
        return Data(train, test, len(train_indices), dataset_info)

    def train_dataset(self, data, batch_size, seed, epoch):
        return self._make_dataset(data, data.train, batch_size, seed, epoch, augment=True)

    def validation_data(self, data):
        constant_epoch = tf.Variable(0, dtype=tf.int64)
        return {"validation_data": self._make_dataset(data, data.test, 4, 0, constant_epoch)}

    def _make_dataset(self, data, sounds, *args, **kwargs):
        waveforms, labels = sounds
        labels = labels if len(data.dataset_info["class_names"]) > 1 else None
        return make_audio_dataset(waveforms, labels, *args, **kwargs)

    def evaluate(self, model, data):
        waveforms, labels = data.test
        log_probs, _ = model.log_prob(waveforms, labels if model.num_classes else None)
        num_audio_samples = sum(len(waveform) for waveform in waveforms)
        return {
            "value": -float(log_probs.sum()) / num_audio_samples,
            "num_audio_samples": num_audio_samples,
        }

    def save_samples(self, model, data, folder):
        """Write one second of sound of each class as a WAV file, and a picture of all."""
        class_names = data.dataset_info["class_names"]
        waveforms = model.generate(
            len(class_names),
            cycle_labels(model, len(class_names)),
            sampler=Sampler(SOUND_TEMPERATURE),
            seed=0,
        )
        (folder / "samples").mkdir(exist_ok=True)
        for name, waveform in zip(class_names, waveforms, strict=True):
            save_wav(folder / "samples" / f"{name or 'sound'}.wav", waveform, model.sample_rate)
        picture = plot_sounds(waveforms, model.sample_rate, class_names, COLORS["WaveNet"])
        save_figure(picture, folder / "samples.png")
