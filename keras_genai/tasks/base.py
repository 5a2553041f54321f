"""The interface of a task: a kind of data, with its loading, training data, metric and samples."""

import abc
import dataclasses
import hashlib
import pathlib
import typing
from collections.abc import Callable

import numpy as np

from keras_genai.streamed_arrays import StreamedArray, StreamedSounds


@dataclasses.dataclass
class Data:
    """Data of one training run.

    Attributes:
        train: Training arrays, in the layout of the task.
        test: Test arrays, in the layout of the task.
        num_examples: Int. Number of training examples per epoch.
        dataset_info: Dict. Arguments of the recipe's builder that depend on the data, such as the
            number of classes or the tokenizer. JSON-serializable.
        classifier: `keras.Model` or `None`. Trained classifier, if the metric needs one.
        num_test_characters: Int or `None`. Length of a test text whose tokens are streamed.
        test_names: Tuple of strings. Names of the test texts, if they are also scored one by one.
    """

    train: typing.Any
    test: typing.Any
    num_examples: int
    dataset_info: dict
    classifier: typing.Any = None
    num_test_characters: int | None = None
    test_names: tuple[str, ...] = ()

    def sha256(self) -> str:
        """Return a digest of the training and test data, which does not depend on their path.

        Of data that are streamed from files, it is a digest of the names within the folder and of
        the sizes of the files.
        """
        digest = hashlib.sha256()
        _update_digest(digest, (self.train, self.test))
        return digest.hexdigest()


def _update_digest(digest, value) -> None:
    """Add arrays, strings and numbers in nested lists and tuples to a digest."""
    if isinstance(value, (list, tuple)):
        digest.update(f"{len(value)} values,".encode())
        for item in value:
            _update_digest(digest, item)
        return
    if isinstance(value, (StreamedArray, StreamedSounds)):
        value = value.fingerprint
    if isinstance(value, np.ndarray):
        digest.update(f"{value.dtype} {value.shape},".encode())
        digest.update(np.ascontiguousarray(value))
    else:
        content = str(value).encode("utf-8", "surrogatepass")
        digest.update(f"{type(value).__name__} {len(content)},".encode() + content)


class Task(abc.ABC):
    """A kind of data and the model families that learn from it.

    Attributes:
        named_sources: Dict. Names of included datasets that `load` accepts besides paths.
        example_unit: String. Plural noun for the training examples.
        needs_classifier: Bool. Whether the metric needs a classifier of MNIST digits.
    """

    named_sources: typing.ClassVar[dict[str, str]] = {}
    example_unit = "images"
    needs_classifier = False

    @abc.abstractmethod
    def load(self, source=None, cache=None) -> Data:
        """Load the data and hold out a test set.

        Images, sounds and texts of more than `streaming.STREAMING_BYTES` are streamed from their
        files.

        Args:
            source: Path of the user's own data, a name in `named_sources`, or `None` for the
                recipe's own dataset. Defaults to `None`.
            cache: Path of a folder, or `None`. If not `None`, the data are streamed, and decoded
                files are kept there. Defaults to `None`.

        Raises:
            ValueError: for data that the task cannot use, and for a cache of data that are always
                held in memory.
        """

    def load_run(self, settings: dict, cache=None) -> Data:
        """Load the data of a run.

        Args:
            settings: Dict. Settings of `run.json`.
            cache: See `load`.

        Raises:
            ValueError: as `load`, and for options of images if the task has none.
        """
        for name in ("image_size", "channels"):
            if settings.get(name) is not None:
                raise ValueError(
                    f"{name}: expected None, as {settings['name']} has no images, got "
                    f"{settings[name]!r:.50}."
                )
        return self.load(settings["data"], cache)

    @abc.abstractmethod
    def train_dataset(self, data: Data, batch_size: int, seed: int, epoch, input_context=None):
        """Return the shuffled `tf.data.Dataset` of an epoch for `fit`.

        Args:
            data: `Data` from `load`.
            batch_size: Int. Number of examples per batch.
            seed: Int. Seed of the order, which depends on seed and epoch only.
            epoch: `tf.Variable`, int64. Number of the epoch, set before each epoch.
            input_context: `tf.distribute.InputContext` or `None`. If not `None`, the dataset has
                the parts of each batch for the replicas of this worker. Defaults to `None`.
        """

    @abc.abstractmethod
    def validation_data(self, data: Data) -> dict:
        """Return the validation arguments of `fit`, such as `{"validation_data": …}`."""

    def callbacks(self, samples_dir: pathlib.Path, model) -> list:
        """Return callbacks that save samples after each epoch. Defaults to none."""
        return []

    @abc.abstractmethod
    def evaluate(self, model, data: Data) -> dict:
        """Return metrics of the test set; `"value"` is the metric of the recipe."""

    @abc.abstractmethod
    def save_samples(self, model, data: Data, folder: pathlib.Path) -> None:
        """Write samples of the trained model to files in a folder."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The code of one recipe.

    Attributes:
        task: `Task`. Data, metric and samples.
        build: Function of (seed, **dataset_info) that returns the model.
        compile: Function of (model, steps) that compiles the model for a number of training steps.
    """

    task: Task
    build: Callable
    compile: Callable


def check_no_cache(cache, data: str) -> None:
    """Raise ValueError unless there is no cache for data that are held in memory."""
    if cache is not None:
        raise ValueError(f"cache: expected None, as {data} are held in memory, got {cache!r:.200}.")


def split_train_test(values):
    """Return the first nine tenths of a text, list or array, and the last tenth."""
    cut = int(0.9 * len(values))
    return values[:cut], values[cut:]


def cycle_labels(model, num_samples: int):
    """Return labels 0, 1, 2, … in turn for a conditional model, `None` for an unconditional one.

    Those of a text-to-image model are its example prompts.
    """
    if prompts := getattr(model, "example_prompts", None):
        return [prompts[i % len(prompts)] for i in range(num_samples)]
    if model.num_classes is None:
        return None
    return [i % model.num_classes for i in range(num_samples)]
