"""Tasks on images: VAE, GAN, classifier, PixelCNN and diffusion."""

import numpy as np
import tensorflow as tf

from keras_genai import datasets, metrics, pretrained, streaming
from keras_genai.callbacks import SampleGrid, save_figure
from keras_genai.pipelines import make_dataset
from keras_genai.plotting import plot_images, plot_pixel_nll
from keras_genai.streamed_arrays import StreamedArray, reraise_file_errors
from keras_genai.tasks.base import Data, Task, check_no_cache, cycle_labels
from keras_genai.validation import check_choice, check_size

GRID_SIZE = 64  # samples in a picture
VALIDATION_BATCH_SIZE = 500
MAX_BATCH_BYTES = 2**26  # of streamed images
DEFAULT_SIZE, MIN_SIZE, MAX_SIZE = 28, 8, 256  # of the user's images, in pixels


class ImageTask(Task):
    """Images of MNIST, or of a folder of the user's images.

    `Data.train` and `Data.test` are tuples (x, y) of images in [0, 1], an array or a
    `StreamedArray`, and labels, or `None`. The metric is the loss on the test images.

    Attributes:
        size_multiple: Int. The size of images is a multiple of it: networks of convolutions halve
            images twice.
        channels: Tuple of ints. Numbers of channels that the model can have.

    Args:
        class_conditional: Bool. Whether the model is trained with labels. Defaults to `False`.
        flat: Bool. Whether images are `(features,)`, of gray pixels, instead of `(height, width,
            channels)`. Defaults to `True`.
        frechet: Bool. Whether the metric of a VAE or a GAN is the Fréchet distance between 10,000
            generated digits and the test images, in features of article 4's CNN. Defaults to
            `False`.
    """

    def __init__(self, class_conditional=False, flat=True, frechet=False):
        self.class_conditional, self.flat, self.frechet = class_conditional, flat, frechet
        self.size_multiple, self.channels = (1, (1,)) if flat else (4, (1, 3))

    def load(
        self, source=None, cache=None, image_size: int | None = None, channels: int | None = None
    ) -> Data:
        """Load the images and hold out a test set.

        Args:
            source, cache: See `Task.load`.
            image_size: Int from 8 to 256, or `None`. Height and width to which the user's images
                are resized. `None` is 28. Defaults to `None`.
            channels: Int or `None`. 1 for gray, 3 for RGB pixels of the user's images. `None` is 1.
                Defaults to `None`.

        Raises:
            ValueError: as `Task.load`; for another size or number of channels; and for either of
                them with the recipe's own images.
        """
        self._check_options(source, image_size=image_size, channels=channels)
        if source is None:
            check_no_cache(cache, "the images of the recipe")
            train, test = datasets.load_mnist()
        else:
            train, test = streaming.open_image_folder(
                source, image_size or DEFAULT_SIZE, channels or 1, cache=cache
            )
            num_bytes = 4 * (train[0].size + test[0].size)  # float32
            if cache is None and num_bytes <= streaming.STREAMING_BYTES:
                train, test = ((images[:], labels) for images, labels in (train, test))
        if self.class_conditional and (train[1] is None or train[1].max() == 0):
            raise ValueError(
                f"{source}: expected a folder for each class, since labels are needed."
            )
        image_shape = [*train[0].shape[1:3], channels or 1]
        train, test = self.preprocess(*train), self.preprocess(*test)
        num_classes = None
        if self.class_conditional:
            num_classes = int(max(train[1].max(), test[1].max())) + 1
        classifier = None
        if self.needs_classifier and source is None:
            classifier = pretrained.load("article4-cnn")
        info = {"num_classes": num_classes, "image_shape": image_shape}
        return Data(train, test, len(train[0]), info, classifier)

    def load_run(self, settings, cache=None):
        options = {name: settings.get(name) for name in ("image_size", "channels")}
        return self.load(settings["data"], cache, **options)

    def _check_options(self, source, *, image_size, channels) -> None:
        options = {"image_size": image_size, "channels": channels}
        for name, value in options.items():
            if value is not None and source is None:
                raise ValueError(f"{name}: expected None without data, got {value!r:.50}.")
        if image_size is not None:
            check_size("image_size", image_size, MIN_SIZE, MAX_SIZE)
            if image_size % self.size_multiple:
                raise ValueError(
                    f"image_size: expected a multiple of {self.size_multiple} for a network of "
                    f"convolutions, got {image_size}."
                )
        if channels is not None:
            check_choice("channels", channels, self.channels)

    def preprocess(self, images, labels):
        """Convert images and labels to the arguments of `fit`.

        Args:
            images: Uint8 array or `StreamedArray` `(n, height, width)` or `(n, height, width, 3)`.
            labels: Ints `(n,)` or `None`.

        Returns:
            Tuple of pixels in [0, 1], and labels or, if the model has none, `None`.
        """
        if isinstance(images, StreamedArray):
            height, width, *channels = images.shape[1:]
            row_shape = (height * width,) if self.flat else (height, width, *(channels or [1]))
            x = images.map(self.to_pixels, row_shape, "float32")
        else:
            x = self.to_pixels(images, np.arange(len(images)))
        return (x, np.asarray(labels, "int32")) if self.class_conditional else (x, None)

    def to_pixels(self, images, rows):
        """Return uint8 images as pixels in the layout of the model.

        Args:
            images: Uint8 array `(n, height, width)` or `(n, height, width, 3)`.
            rows: Int array `(n,)`. Index of each image in the training or the test images.
        """
        x = images.astype("float32") / 255
        if self.flat:
            return x.reshape(len(x), -1)
        return x if x.ndim == 4 else x[..., None]

    def train_dataset(self, data, batch_size, seed, epoch, input_context=None):
        x, y = data.train
        return make_dataset(x if y is None else (x, y), batch_size, seed, epoch, input_context)

    def validation_data(self, data):
        if isinstance(data.test[0], StreamedArray):
            return {"validation_data": self._test_dataset(data)}
        return {"validation_data": data.test, "validation_batch_size": VALIDATION_BATCH_SIZE}

    def _test_dataset(self, data):
        """Return the batches of streamed test images, in order."""
        x, y = data.test
        batch_size = max(1, min(VALIDATION_BATCH_SIZE, MAX_BATCH_BYTES // x.row_bytes))
        arrays, epoch = x if y is None else (x, y), tf.Variable(0, dtype=tf.int64)
        return make_dataset(arrays, batch_size, 0, epoch, shuffle=False)

    def callbacks(self, samples_dir, model):
        labels = cycle_labels(model, GRID_SIZE)
        return [SampleGrid(samples_dir / "epoch-{epoch:02d}.png", GRID_SIZE, labels)]

    def evaluate(self, model, data):
        if isinstance(data.test[0], StreamedArray):
            with reraise_file_errors():
                results = model.evaluate(self._test_dataset(data), verbose=0, return_dict=True)
        else:
            results = model.evaluate(
                *data.test, batch_size=VALIDATION_BATCH_SIZE, verbose=0, return_dict=True
            )
        return {"value": results["loss"], **results}

    def save_samples(self, model, data, folder):
        samples = model.generate(GRID_SIZE, cycle_labels(model, GRID_SIZE), seed=0)
        save_figure(plot_images(samples), folder / "samples.png")


class VAETask(ImageTask):
    """Images for a VAE.

    The metric is the test loss; for a conditional VAE it is the percentage of samples that a
    classifier assigns to the requested digit.
    """

    @property
    def needs_classifier(self):
        return self.class_conditional or self.frechet

    def evaluate(self, model, data):
        results = super().evaluate(model, data)
        if self.frechet:
            return {**results, **_sample_quality(model, data)}
        if not self.class_conditional:
            return results
        labels = np.arange(10_000) % 10
        samples = model.generate(10_000, labels, seed=0)
        predicted = metrics.classify_digits(samples, data.classifier)
        return {**results, "value": metrics.label_accuracy(predicted, labels)}

    def save_samples(self, model, data, folder):
        """Write samples, and ten test images above their reconstructions."""
        super().save_samples(model, data, folder)
        x, y = (None if array is None else array[:10] for array in data.test)
        pairs = np.concatenate([x, model.reconstruct(x, y)])
        save_figure(plot_images(pairs, columns=10), folder / "reconstructions.png")


class GANTask(ImageTask):
    """Images for a GAN. The metric is the number of digits among 10,000 samples.

    A digit counts if a classifier finds it in at least one of a hundred samples.
    """

    needs_classifier = True

    def evaluate(self, model, data):
        if self.frechet:
            return _sample_quality(model, data)
        return _digit_coverage(
            metrics.classify_digits(model.generate(10_000, seed=0), data.classifier)
        )


class ClassificationTask(ImageTask):
    """Images for a classifier. The metric is its accuracy on the test images, in percent."""

    def __init__(self):
        super().__init__(class_conditional=True, flat=False)

    def callbacks(self, samples_dir, model):
        return []

    def evaluate(self, model, data):
        return {"value": 100 * super().evaluate(model, data)["accuracy"]}

    def save_samples(self, model, data, folder):
        """Write test images with their predicted labels, and the true one where it differs."""
        x, y = (array[:GRID_SIZE] for array in data.test)
        predicted = model.predict(x, verbose=0).argmax(-1)
        titles = [
            f"{p}" if p == label else f"{p} for {label}"
            for p, label in zip(predicted, y, strict=True)
        ]
        save_figure(plot_images(x, titles=titles), folder / "predictions.png")


class PixelCNNTask(ImageTask):
    """Binarized images for a PixelCNN. The metric is -log p(x) of a test image in nats."""

    def __init__(self, class_conditional=False):
        super().__init__(class_conditional, flat=False)
        self.channels = (1,)

    def to_pixels(self, images, rows):
        """Return binarized images, those of `datasets.binarize` with the images of all rows."""
        x = super().to_pixels(images, rows)
        return (uniform_rows(rows, x.shape[1:]) < x).astype("float32")

    def save_samples(self, model, data, folder):
        """Write samples, completions of eight upper halves, and the NLL of each of their pixels."""
        super().save_samples(model, data, folder)
        x, y = (None if array is None else array[:8] for array in data.test)
        upper_rows = x[:, : x.shape[1] // 2]
        missing_rows = x.shape[1] - upper_rows.shape[1]
        masked = np.pad(upper_rows, [(0, 0), (0, missing_rows), (0, 0), (0, 0)])
        completions = [
            model.generate(len(x), y, upper_rows=upper_rows, seed=seed) for seed in range(4)
        ]
        rows = np.concatenate([x, masked, *completions])
        save_figure(plot_images(rows, columns=len(x)), folder / "completions.png")
        _, log_probs = model.log_prob(x, y)
        save_figure(plot_pixel_nll(x, -log_probs), folder / "likelihood.png")


class DiffusionTask(ImageTask):
    """Images for a diffusion model, sampled by DDPM.

    The metric of a conditional model is the percentage of samples that a classifier assigns to the
    requested digit; of an unconditional one, the number of digits among the samples, as for a GAN.
    """

    needs_classifier = True
    num_samples = 1000

    def __init__(self, class_conditional=False):
        super().__init__(class_conditional, flat=False)

    def evaluate(self, model, data):
        labels = cycle_labels(model, self.num_samples)
        samples = model.generate(self.num_samples, labels, method="ddpm", seed=0)
        predicted = metrics.classify_digits(samples, data.classifier)
        loss = super().evaluate(model, data)["loss"]
        if self.class_conditional:
            return {"value": metrics.label_accuracy(predicted, labels), "loss": loss}
        return {**_digit_coverage(predicted), "loss": loss}

    def save_samples(self, model, data, folder):
        """Write samples, the forward process of test images and the reverse process of samples."""
        super().save_samples(model, data, folder)
        timesteps = np.round(np.linspace(0, model.schedule.num_timesteps - 1, 10)).astype(int)
        x = data.test[0][:4]
        noisy_images = np.stack([model.add_noise(x, t, seed=0) for t in timesteps], axis=1)
        noisy_images = noisy_images.reshape(-1, *x.shape[1:])
        titles = [f"t = {t}" for t in timesteps] + [""] * 10 * (len(x) - 1)
        save_figure(plot_images(noisy_images, columns=10, titles=titles), folder / "noising.png")
        frames = model.generate_progressive(4, cycle_labels(model, 4), num_frames=9, seed=0)
        frames = frames.swapaxes(0, 1).reshape(-1, *x.shape[1:])
        save_figure(plot_images(frames, columns=10), folder / "denoising.png")


def uniform_rows(rows, shape: tuple) -> np.ndarray:
    """Return rows of `numpy.random.default_rng(0).random((n, *shape), "float32")` for any n."""
    size = int(np.prod(shape))
    uniform = np.empty((len(rows), size), "float32")
    for values, row in zip(uniform, rows, strict=True):
        # The generator makes two float32 numbers from each of its numbers of 64 bits.
        position, odd = divmod(int(row) * size, 2)
        generator = np.random.Generator(np.random.PCG64(0).advance(position))
        values[:] = generator.random(odd + size, "float32")[odd:]
    return uniform.reshape(-1, *shape)


def _sample_quality(model, data) -> dict:
    """Return the Fréchet distance of 10,000 generated digits, and which digits they are."""
    labels = cycle_labels(model, 10_000)
    samples = model.generate(10_000, labels, seed=0)
    features = [metrics.image_features(images) for images in (data.test[0], samples)]
    predicted = metrics.classify_digits(samples, data.classifier)
    _, fractions = metrics.mode_coverage(predicted)
    quality = {"value": metrics.frechet_distance(*features), "digit_fractions": fractions}
    if labels is None:
        return quality
    return {**quality, "label_accuracy": metrics.label_accuracy(predicted, labels)}


def _digit_coverage(predicted) -> dict:
    num_covered, fractions = metrics.mode_coverage(predicted)
    return {"value": num_covered, "digit_fractions": fractions}
