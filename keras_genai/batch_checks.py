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
        except (tf.errors.OpError, RuntimeError):
            if self.error is None:
                raise
            raise self.error from None

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

        def check_arrays(*arrays):
            self(tf.nest.pack_sequence_as(spec, arrays))
            return np.array(True)

        def check_batch(*batch):
            checked = tf.numpy_function(check_arrays, tf.nest.flatten(batch), tf.bool)
            with tf.control_dependencies([checked]):
                batch = tf.nest.map_structure(tf.identity, batch)
            return batch if isinstance(spec, tuple) else batch[0]

        return dataset.map(check_batch)

    def _apply_to_generator(self, batches):
        for batch in batches:
            self(batch)
            yield batch


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
        return batch

    def on_epoch_begin(self):
        self.dataset.on_epoch_begin()

    def on_epoch_end(self):
        self.dataset.on_epoch_end()


def is_array(x) -> bool:
    """Return whether x is an array or a list or dict of arrays, not a source of batches."""
    return hasattr(x, "shape") or isinstance(x, (list, tuple, dict))
