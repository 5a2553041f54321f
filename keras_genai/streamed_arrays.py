"""Arrays and lists of sounds whose rows are read from files when they are needed.

The pipelines gather their rows as those of arrays in memory, so that batches are the same.
"""

import collections
import contextlib

import numpy as np
import tensorflow as tf

_file_errors: collections.deque = collections.deque(maxlen=16)


class StreamedArray:
    """Array whose rows are read from files when they are needed. `x[:10]` reads ten rows.

    Args:
        read: Function from row indices, an integer array of any shape, to an array of the rows.
        shape: Tuple of ints. Shape of the whole array.
        dtype: String. Data type of the rows.
        fingerprint: String. Digest of the names and sizes of the files.
    """

    def __init__(self, read, shape: tuple, dtype: str, fingerprint: str):
        self.read, self.shape, self.dtype, self.fingerprint = read, tuple(shape), dtype, fingerprint

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, index):
        if isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        return self.read(np.asarray(index))

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.shape[1:])) * np.dtype(self.dtype).itemsize

    def select(self, indices: np.ndarray) -> "StreamedArray":
        """Return the rows of an array of indices as a `StreamedArray`."""
        shape = (len(indices), *self.shape[1:])
        return StreamedArray(
            lambda rows: self.read(indices[rows]), shape, self.dtype, self.fingerprint
        )

    def map(self, function, row_shape: tuple, dtype: str) -> "StreamedArray":
        """Return an array of `function(values, rows)`, called whenever rows are read."""
        shape = (len(self), *row_shape)
        return StreamedArray(
            lambda rows: function(self.read(rows), rows), shape, dtype, self.fingerprint
        )

    def gather(self, rows):
        """Return the rows of a tensor of indices, as an operation of a `tf.data` pipeline."""
        values = _call_reader(self.read, [rows], self.dtype)
        values.set_shape((*rows.shape, *self.shape[1:]))
        return values


class StreamedSounds:
    """List of waveforms that are read from files when they are needed.

    Args:
        read: Function from the index of a sound to its float32 samples `(n,)`.
        lengths: Int array `(num_sounds,)`. Number of samples of each.
        fingerprint: String. Digest of the names and sizes of the files.
    """

    def __init__(self, read, lengths: np.ndarray, fingerprint: str):
        self.read, self.lengths, self.fingerprint = read, lengths, fingerprint

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, index: slice) -> list[np.ndarray]:
        return [self.read(row) for row in range(*index.indices(len(self)))]

    def select(self, indices: np.ndarray) -> "StreamedSounds":
        """Return the sounds of an array of indices as `StreamedSounds`."""
        return StreamedSounds(
            lambda row: self.read(indices[row]), self.lengths[indices], self.fingerprint
        )

    def gather(self, rows, longest):
        """Return the waveforms of a tensor of indices, `(batch, 1 + longest)`, after a zero."""

        def read(rows, longest):
            padded = np.zeros((len(rows), 1 + longest), "float32")
            for row, waveform in zip(padded, map(self.read, rows), strict=True):
                row[1 : 1 + len(waveform)] = waveform
            return padded

        padded = _call_reader(read, [rows, longest], "float32")
        padded.set_shape((None, None))
        return padded


def _call_reader(read, arguments, dtype):
    """Return the result of a function that reads files, and keep its error."""

    def call(*arguments):
        try:
            return np.asarray(read(*arguments), dtype)
        except (ValueError, OSError) as error:
            _file_errors.append(error)
            raise

    return tf.numpy_function(call, arguments, dtype)


def find_file_error(failure: Exception) -> Exception | None:
    """Return the error of a file that TensorFlow reports as one of its own, or `None`."""
    message = str(failure)
    return next((error for error in reversed(_file_errors) if str(error) in message), None)


@contextlib.contextmanager
def reraise_file_errors():
    """Context in which the error of a file that a dataset reads is raised as it is.

    TensorFlow reports an error of Python as one of its own, with a long traceback in its message.
    """
    try:
        yield
    except (tf.errors.OpError, RuntimeError) as failure:
        error = find_file_error(failure)
        if error is None:
            raise
        raise error from None
