"""Checks of the data that `fit`, `evaluate` and `predict` take, whatever its source.

Arrays are checked as a whole before anything is computed. A `tf.data.Dataset`, a
`keras.utils.PyDataset` and a generator are checked batch by batch, as they are read.
"""

import contextlib
import itertools
import types

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_genai.streamed_arrays import find_file_error


class BatchCheck:
    """Check of every batch of a source, with its first error.

    Keras reads most sources inside TensorFlow, which reports an error of Python as one of its own,
    with a long traceback in its message. `reraise` raises the original one.

    Args:
        check: Function of (x, y, sample_weight), NumPy arrays or `None`, that raises ValueError.
    """

    def __init__(self, check):
        self.check = check
        self.error: ValueError | None = None

    def __call__(self, batch) -> None:
        try:
            self.check(*keras.utils.unpack_x_y_sample_weight(batch))
        except ValueError as error:
            self.error = error
            raise

    @contextlib.contextmanager
    def reraise(self):
        """Context in which the error of a check is raised as it is."""
        try:
            yield
        except (tf.errors.OpError, RuntimeError) as failure:
            error = self.error or find_file_error(failure)
            if error is None:
                raise
            raise error from None

    def apply(self, source):
        """Return a source with the same batches, each of which is checked when it is read."""
        if isinstance(source, tf.data.Dataset):
            return self._apply_to_dataset(source)
        if isinstance(source, keras.utils.PyDataset):
            return _CheckedPyDataset(source, self)
        if isinstance(source, types.GeneratorType):
            first = next(source)
            self(first)  # checked here, since Keras reads it to learn the shapes
            return self._apply_to_generator(itertools.chain([first], source))
        if isinstance(source, tf.distribute.DistributedDataset):
            return source  # each batch is split over devices
        self(next(iter(source)))  # another iterable, such as PyTorch's DataLoader: its first batch
        return source

    def _apply_to_dataset(self, dataset):
        spec = dataset.element_spec

        def check_batch(*batch):
            parts = tf.nest.flatten(batch)  # None at missing targets

            def check_arrays(*arrays):
                remaining = iter(arrays)
                filled = [None if part is None else next(remaining) for part in parts]
                self(tf.nest.pack_sequence_as(spec, filled))
                return np.array(True)

            tensors = [part for part in parts if part is not None]
            with tf.control_dependencies([tf.numpy_function(check_arrays, tensors, tf.bool)]):
                parts = [None if part is None else tf.identity(part) for part in parts]
            batch = tf.nest.pack_sequence_as(batch, parts)
            return fill_missing_targets(batch) if isinstance(spec, tuple) else batch[0]

        return dataset.map(check_batch)

    def _apply_to_generator(self, batches):
        for batch in batches:
            self(batch)
            yield fill_missing_targets(batch)


class _CheckedPyDataset(keras.utils.PyDataset):
    """A `keras.utils.PyDataset` whose batches are checked."""

    def __init__(self, dataset, check):
        super().__init__(dataset.workers, dataset.use_multiprocessing, dataset.max_queue_size)
        self.dataset, self.check = dataset, check

    @property
    def num_batches(self):
        return self.dataset.num_batches

    def __getitem__(self, index):
        batch = self.dataset[index]
        self.check(batch)
        return fill_missing_targets(batch)

    def on_epoch_begin(self):
        self.dataset.on_epoch_begin()

    def on_epoch_end(self):
        self.dataset.on_epoch_end()


def fill_missing_targets(batch):
    """Return `(x, targets of width 0, sample_weight)` for `(x, None, sample_weight)`.

    Without targets, Keras would drop the weights or raise an error.
    """
    if not isinstance(batch, tuple) or len(batch) < 3 or batch[1] is not None:
        return batch
    x, _, sample_weight = batch
    return x, ops.zeros((ops.shape(x)[0], 0)), sample_weight


def is_array(x) -> bool:
    """Return whether x is an array or a list or dict of arrays, not a source of batches."""
    return hasattr(x, "shape") or isinstance(x, (list, tuple, dict))
