"""What happens beside training: a grid of samples, a whole file after each epoch, a stop at NaN."""

import io
import math
import os
import pathlib
import sys

import keras
import numpy as np

from keras_genai.plotting import plot_images


class ImageGrid(keras.callbacks.Callback):
    """Draw the same samples after each epoch, to a file and inline in a notebook.

    The noise is the same each time, so that one picture shows what another epoch has changed. It is
    not taken from the model's own generator: training goes the same way with and without this
    callback.

    Args:
        path: of the files, the epoch a field of the name, "samples/epoch-{epoch:02d}.png"; None for
            inline only.
        num_images: how many.
        labels: an integer or integers (num_images,) if the model is conditional.
        seed: of the noise.
        columns: of the grid; None makes it square.
    """

    def __init__(self, path=None, num_images=64, labels=None, seed=0, columns=None):
        super().__init__()
        self.path, self.num_images, self.labels, self.seed = path, num_images, labels, seed
        self.columns = columns

    def on_epoch_end(self, epoch, logs=None):
        images = self.model.generate(self.num_images, labels=self.labels, seed=self.seed)
        figure = plot_images(images, self.columns)
        if self.path is not None:
            path = pathlib.Path(self.path)
            path = path.with_name(path.name.format(epoch=epoch + 1))
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path)
        if "ipykernel" in sys.modules:
            from IPython.display import Image, display

            png = io.BytesIO()
            figure.savefig(png)
            display(Image(png.getvalue()))


class SaveEachEpoch(keras.callbacks.Callback):
    """Save the whole model after each epoch, so that a kill at any moment leaves a whole file.

    `keras.callbacks.BackupAndRestore` writes its weights and its epoch one after the other, in
    place: a kill between the two repeats an epoch, and one while the second is written makes both
    unreadable. Here a new file replaces the old one in a single step.

    Args:
        path: of the `.keras` file.
    """

    def __init__(self, path):
        super().__init__()
        self.path = pathlib.Path(path)

    def on_epoch_end(self, epoch, logs=None):
        unfinished = self.path.with_name(f"unfinished-{self.path.name}")
        self.model.save(unfinished)
        os.replace(unfinished, self.path)


class StopAtNaN(keras.callbacks.Callback):
    """Raise FloatingPointError at the first loss that is not a number or infinite, and say where.

    `keras.callbacks.TerminateOnNaN` looks at `loss` alone, which a GAN has none of, and ends
    training as if all were well.
    """

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        # With several steps per execution, Keras counts past the last step of an epoch.
        self._check(logs, f"by step {min(batch + 1, self.params['steps'])}")

    def on_epoch_end(self, epoch, logs=None):
        self._check(logs, "at its end")  # held-out losses show what the last step did

    def _check(self, logs, where):
        for name, value in (logs or {}).items():
            if not math.isfinite(np.asarray(value)):
                raise FloatingPointError(
                    f"{name} is {float(value)} in epoch {self.epoch + 1}, {where}."
                )
