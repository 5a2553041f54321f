"""Callbacks: samples and their metrics after epochs, atomic checkpoints, an error at divergence."""

import io
import math
import sys

import keras
import numpy as np
import tensorflow as tf

from keras_genai import metrics
from keras_genai.distribution import MultiWorkerStrategy, is_first_worker
from keras_genai.files import replace_file, to_path
from keras_genai.plotting import plot_images
from keras_genai.random_state import check_seed, random_generator
from keras_genai.validation import check_labels, check_methods, check_number, check_size

SAMPLING_BATCH_SIZE = 500  # images that are generated at once, which bounds the memory
MIN_SAMPLES = 10


def save_figure(figure, path) -> None:
    """Save a figure in one step: an interruption or an error leaves the old file or the new one.

    Args:
        figure: `matplotlib.figure.Figure`.
        path: String or path of the file, whose suffix is the format; without a suffix, `.png` is
            appended.

    Raises:
        ValueError: for another object, and for another path.
        OSError: if the file cannot be written.
    """
    check_methods("figure", figure, "a figure of matplotlib", "savefig")
    path = to_path(path)
    with replace_file(path if path.suffix else path.with_name(f"{path.name}.png")) as unfinished:
        figure.savefig(unfinished)


class SampleGrid(keras.callbacks.Callback):
    """Generate and plot the same samples after each epoch, to a file and inline in a notebook.

    The noise is the same after every epoch, so that the images show the progress of training. It
    does not come from the model's own random generator: training is the same with and without this
    callback. Of several workers, the first one generates.

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
        image_shape: Tuple of ints or `None`. Shape of flat images that are not square; see
            `plot_images`. Defaults to `None`.

    Raises:
        ValueError: for an invalid size or seed, and for another field than `epoch` in the path.
            Labels and image shape are compared with the model before training.
    """

    def __init__(
        self, path=None, num_images=64, labels=None, seed=0, columns=None, image_shape=None
    ):
        super().__init__()
        self.path = None if path is None else to_path(path)
        self.num_images, self.seed = check_size("num_images", num_images), check_seed(seed)
        self.columns = None if columns is None else check_size("columns", columns)
        self.labels, self.image_shape = labels, image_shape
        if path is not None:
            try:
                self._epoch_path(1)
            except (LookupError, ValueError, AttributeError, TypeError) as error:
                raise ValueError(
                    f"path: expected {{epoch}} as the only field, got {path!r}."
                ) from error

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
        return plot_images(images, self.columns, image_shape=self.image_shape)

    def _epoch_path(self, epoch):
        return self.path.with_name(self.path.name.format(epoch=epoch))

    def write_missing(self, epoch: int) -> None:
        """Write the picture of the model after `epoch` epochs, if it is missing or empty."""
        path = None if self.path is None else self._epoch_path(epoch)
        if path is not None and not (path.is_file() and path.stat().st_size):
            path.parent.mkdir(parents=True, exist_ok=True)
            save_figure(self._plot(), path)

    def on_epoch_end(self, epoch, logs=None):
        if not is_first_worker(self.model.distribute_strategy):
            return
        figure = self._plot()
        if self.path is not None:
            save_figure(figure, self._epoch_path(epoch + 1))
        if "ipykernel" in sys.modules:
            from IPython.display import Image, display

            png = io.BytesIO()
            figure.savefig(png)
            display(Image(png.getvalue()))


def generate_batches(model, num_samples: int, labels=None, seed: int = 0):
    """Yield generated images in batches of 500, each with a seed of its own.

    Args:
        model: Image model with `generate`.
        num_samples: Int. Number of images of all batches.
        labels: Int or sequence of ints `(num_samples,)` for a conditional model, else `None`.
            Defaults to `None`.
        seed: Int. Seed of the noise. Defaults to `0`.
    """
    starts = range(0, num_samples, SAMPLING_BATCH_SIZE)
    seeds = random_generator(seed).integers(2**31, size=len(starts))
    for start, batch_seed in zip(starts, seeds, strict=True):
        stop = min(start + SAMPLING_BATCH_SIZE, num_samples)
        batch_labels = labels if np.ndim(labels) == 0 else labels[start:stop]
        yield model.generate(stop - start, labels=batch_labels, seed=int(batch_seed))


class SampleMetrics(keras.callbacks.Callback):
    """Compare generated images with real ones in training: Fréchet distance, precision, recall.

    The metrics are added to `logs` as `frechet_distance`, `precision` and `recall`, NaN in epochs
    that are not measured. `History`, the progress bar and the callbacks that follow in the list of
    `fit` see them: `EarlyStopping`, `ModelCheckpoint` and `CSVLogger` come after this callback,
    `RaiseOnNaN` before it. A patience is counted in epochs, also in those that are not measured.

    The noise is the same after every epoch, and does not come from the model's own random
    generator: training is the same with and without this callback. Of several workers, the first
    one generates; all log its values, so that all stop at the same epoch.

    Args:
        images: Float array `(n, features)` or `(n, height, width, channels)` in [0, 1], n at least
            10. Real images, best those of a test set. The Fréchet distance depends on their number
            and on `num_samples`.
        every: Int. Number of epochs from one measurement to the next. Defaults to `1`.
        num_samples: Int, at least 10. Number of generated images. Defaults to `2000`.
        labels: Int or int array `(num_samples,)` for a conditional model, else `None`. Defaults to
            `None`.
        seed: Int. Seed of the noise. Defaults to `0`.
        network: `keras.Model` or `None`. Network of the features; `None` is article 4's CNN, for
            28 × 28 gray images. See `metrics.image_features`. Defaults to `None`.

    Raises:
        ValueError: for invalid images, sizes or network. Model and labels are checked before
            training.

    Example:
        test = datasets.load_mnist()[1][0].reshape(-1, 784) / 255
        stop = keras.callbacks.EarlyStopping("frechet_distance", mode="min", patience=3)
        history = gan.fit(x, epochs=50, callbacks=[SampleMetrics(test), stop])
    """

    def __init__(self, images, every=1, num_samples=2000, labels=None, seed=0, network=None):
        super().__init__()
        self.every = check_size("every", every)
        self.num_samples = check_size("num_samples", num_samples, MIN_SAMPLES)
        self.labels, self.seed, self.network = labels, check_seed(seed), network
        self.reference = metrics.image_features(images, network)
        self.image_size = np.size(images) // len(images)
        check_size("number of images", len(images), MIN_SAMPLES)

    def on_train_begin(self, logs=None):
        check_methods("model", self.model, "an image model with `generate`", "generate")
        check_methods("model", self.model, "an image model", "image_shape", "num_classes")
        if math.prod(self.model.image_shape) != self.image_size:
            raise ValueError(
                f"images: expected those of the model, {self.model.image_shape}, got "
                f"{self.image_size} values each."
            )
        # Labels that do not fit would otherwise fail after a whole epoch.
        # Prompts, which are no integers, are checked by `generate`.
        if self.labels is not None and not hasattr(self.model, "tokenize"):
            self.labels = check_labels(self.labels, self.model.num_classes, self.num_samples)
        labels = None if self.labels is None else self.labels[:1]
        metrics.image_features(self.model.generate(1, labels=labels, seed=self.seed), self.network)

    def on_epoch_end(self, epoch, logs=None):
        values = np.full(3, np.nan)
        if (epoch + 1) % self.every == 0:
            strategy = self.model.distribute_strategy
            if is_first_worker(strategy):
                values = self._measure()
            if isinstance(strategy, MultiWorkerStrategy):
                values = _send_from_first_worker(strategy, values)
        names = ("frechet_distance", "precision", "recall")
        if logs is not None:
            logs.update(zip(names, map(float, values), strict=True))

    def _measure(self):
        batches = generate_batches(self.model, self.num_samples, self.labels, self.seed)
        features = np.concatenate([metrics.image_features(x, self.network) for x in batches])
        distance = metrics.frechet_distance(self.reference, features)
        return [distance, *metrics.precision_recall(self.reference, features)]


def _send_from_first_worker(strategy: MultiWorkerStrategy, values) -> np.ndarray:
    """Return the values of the first worker on all workers, which call this function together."""
    is_first = float(is_first_worker(strategy))
    row = np.append(np.nan_to_num(values), 1) * is_first
    total = strategy.reduce("SUM", tf.constant(row), axis=None).numpy()
    return total[:-1] / total[-1]  # a worker of several devices is counted more than once


class AtomicModelCheckpoint(keras.callbacks.Callback):
    """Save the whole model after each epoch, in one atomic step.

    An interruption at any moment leaves a complete file. `keras.callbacks.BackupAndRestore`
    overwrites its weights and its epoch number one after the other: an interruption between the two
    repeats an epoch, and one during the second makes both unreadable. The folder of the file is
    created before training. Of several workers, the first one saves.

    Args:
        path: String or path of the `.keras` file.

    Raises:
        ValueError: for another path.
    """

    def __init__(self, path):
        super().__init__()
        self.path = to_path(path)

    def on_train_begin(self, logs=None):
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def on_epoch_end(self, epoch, logs=None):
        if not is_first_worker(self.model.distribute_strategy):
            return
        with replace_file(self.path) as unfinished:
            self.model.save(unfinished)


class RaiseOnNaN(keras.callbacks.Callback):
    """Raise FloatingPointError at the first metric or weight that is NaN or infinite.

    The message names the metric, the epoch and the step, or the weight and the epoch.
    `keras.callbacks.TerminateOnNaN` checks `loss` only, which a GAN does not have. Weights are
    checked after each epoch: the loss of the last step, and one from which a broken weight is
    masked, are finite. A loss that has grown without becoming infinite is an error too.

    Args:
        max_growth: Float or `None`. Largest valid loss after an epoch, as a multiple of the loss
            of the first step or of 1, whichever is larger; a larger one that still rises is an
            error. `None` turns the check off. Defaults to `1000.0`.

    Raises:
        ValueError: for another number.
    """

    def __init__(self, max_growth=1000.0):
        super().__init__()
        if max_growth is not None:
            max_growth = check_number("max_growth", max_growth, above=0)
        self.max_growth = max_growth

    def on_train_begin(self, logs=None):
        self.first, self.previous = {}, {}

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        # With several steps per execution, Keras counts past the last step of an epoch.
        self._check(logs, f"by step {min(batch + 1, self.params['steps'])}")
        self.first = self.first or dict(logs or {})

    def on_epoch_end(self, epoch, logs=None):
        self._check(logs, "at its end")  # validation metrics include the effect of the last step
        for weight in self.model.weights:
            if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
                raise FloatingPointError(
                    f"{weight.path} has NaN or infinite values at the end of epoch {epoch + 1}."
                )
        if self.max_growth is not None:
            self._check_growth(epoch, logs or {})

    def _check(self, logs, position):
        for name, value in (logs or {}).items():
            if not np.all(np.isfinite(np.asarray(value))):
                raise FloatingPointError(
                    f"{name} is {float(value)} in epoch {self.epoch + 1}, {position}."
                )

    def _check_growth(self, epoch, logs):
        # Validation losses, if there are any: they are those after the epoch.
        losses = {name: float(value) for name, value in logs.items() if name.endswith("loss")}
        losses = {n: v for n, v in losses.items() if n.startswith("val_")} or losses
        for name, value in losses.items():
            first = abs(float(self.first.get(name.removeprefix("val_"), 0)))
            if value > max(self.max_growth * max(first, 1), self.previous.get(name, -math.inf)):
                raise FloatingPointError(
                    f"{name} has grown to {value:.3g} in epoch {epoch + 1}, from {first:.3g} at "
                    "the first step: training diverges."
                )
        self.previous = losses
