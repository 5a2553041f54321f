"""Callbacks: a grid of samples after each epoch, atomic checkpoints, an error at the first NaN."""

import io
import math
import os
import pathlib
import sys

import keras
import numpy as np

from keras_genai.plotting import plot_images


class SampleGrid(keras.callbacks.Callback):
    """Generate and plot the same samples after each epoch, to a file and inline in a notebook.

    The noise is the same after every epoch, so that the images show the progress of training. It
    does not come from the model's own random generator: training is the same with and without this
    callback.

    Args:
        path: String, path or `None`. Path of the image files, with the epoch as a field of the file
            name, such as `"samples/epoch-{epoch:02d}.png"`. `None` writes no file. Defaults to
            `None`.
        num_images: Int. Number of samples. Defaults to `64`.
        labels: Int or int array `(num_images,)` for a conditional model, else `None`. Defaults to
            `None`.
        seed: Int. Seed of the noise. Defaults to `0`.
        columns: Int or `None`. Number of columns of the grid; `None` makes it square. Defaults to
            `None`.
    """

    def __init__(self, path=None, num_images=64, labels=None, seed=0, columns=None):
        super().__init__()
        self.path, self.num_images, self.labels, self.seed = path, num_images, labels, seed
        self.columns = columns

    def on_train_begin(self, logs=None):
        if not hasattr(self.model, "generate"):
            raise ValueError(
                f"model: expected a model with `generate`, such as a VAE, got a "
                f"{type(self.model).__name__}."
            )
        # Labels, image shape and path that do not fit would otherwise fail after a whole epoch.
        self._plot()
        if self.path is not None:
            self._epoch_path(1).parent.mkdir(parents=True, exist_ok=True)

    def _plot(self):
        images = self.model.generate(self.num_images, labels=self.labels, seed=self.seed)
        return plot_images(images, self.columns)

    def _epoch_path(self, epoch):
        path = pathlib.Path(self.path)
        return path.with_name(path.name.format(epoch=epoch))

    def on_epoch_end(self, epoch, logs=None):
        figure = self._plot()
        if self.path is not None:
            figure.savefig(self._epoch_path(epoch + 1))
        if "ipykernel" in sys.modules:
            from IPython.display import Image, display

            png = io.BytesIO()
            figure.savefig(png)
            display(Image(png.getvalue()))


class AtomicModelCheckpoint(keras.callbacks.Callback):
    """Save the whole model after each epoch, in one atomic step.

    An interruption at any moment leaves a complete file. `keras.callbacks.BackupAndRestore`
    overwrites its weights and its epoch number one after the other: an interruption between the two
    repeats an epoch, and one during the second makes both unreadable. The folder of the file is
    created before training.

    Args:
        path: String or path of the `.keras` file.
    """

    def __init__(self, path):
        super().__init__()
        self.path = pathlib.Path(path)

    def on_train_begin(self, logs=None):
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def on_epoch_end(self, epoch, logs=None):
        unfinished = self.path.with_name(f"unfinished-{self.path.name}")
        self.model.save(unfinished)
        os.replace(unfinished, self.path)


class RaiseOnNaN(keras.callbacks.Callback):
    """Raise FloatingPointError at the first metric that is NaN or infinite.

    The message names the metric, the epoch and the step. `keras.callbacks.TerminateOnNaN` checks
    `loss` only, which a GAN does not have.
    """

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        # With several steps per execution, Keras counts past the last step of an epoch.
        self._check(logs, f"by step {min(batch + 1, self.params['steps'])}")

    def on_epoch_end(self, epoch, logs=None):
        self._check(logs, "at its end")  # validation metrics include the effect of the last step

    def _check(self, logs, position):
        for name, value in (logs or {}).items():
            if not math.isfinite(np.asarray(value)):
                raise FloatingPointError(
                    f"{name} is {float(value)} in epoch {self.epoch + 1}, {position}."
                )
