"""Task on sounds: WaveNet."""

import numpy as np
import tensorflow as tf

from keras_genai import datasets, streaming
from keras_genai.audio import save_wav
from keras_genai.autoregressive import Sampler
from keras_genai.callbacks import save_figure
from keras_genai.pipelines import make_audio_dataset
from keras_genai.plotting import COLORS, plot_sounds
from keras_genai.streamed_arrays import StreamedSounds
from keras_genai.tasks.base import Data, Task, check_no_cache, cycle_labels

EVALUATION_BATCH = 64  # of streamed sounds
SOUND_TEMPERATURE = 0.9  # at 1, noise is too bright: tests/benchmarks/sounds.py


class AudioTask(Task):
    """Sounds of several classes. The metric is the NLL of the test sounds in nats per sample.

    Two files of each class are held out, with all their seconds. `Data.train` and `Data.test` are
    tuples of waveforms, a list or `StreamedSounds`, and labels `(n,)`.
    """

    example_unit = "sounds"

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


def _select(waveforms, rows):
    """Return the waveforms of an array of indices."""
    if isinstance(waveforms, StreamedSounds):
        return waveforms.select(rows)
    return [waveforms[row] for row in rows]
