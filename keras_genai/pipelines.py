"""Input pipelines with a reproducible order of batches.

Keras's own shuffling restarts in every process. In these `tf.data` pipelines a seed and the number
of the epoch determine the order, so that training resumed after an interruption reads the same
batches as uninterrupted training. Data larger than memory has the same pipelines: its rows are read
from files, by `StreamedArray` and `StreamedSounds`, where those of an array are gathered.
"""

import numpy as np
import tensorflow as tf

from keras_genai.audio import mu_law_tensor
from keras_genai.replicas import count_replicas, replica_part
from keras_genai.streamed_arrays import StreamedArray, StreamedSounds
from keras_genai.validation import as_array, as_numbers, check_bools, check_range, check_size

NUM_PARALLEL_BATCHES = 4  # that are read from files at the same time


def make_dataset(
    arrays, batch_size: int, seed: int, epoch, input_context=None, shuffle: bool = True
) -> tf.data.Dataset:
    """Create a dataset of shuffled batches of arrays.

    Args:
        arrays: Array or `StreamedArray`, or tuple of such of the same length.
        batch_size: Int. Rows per batch; the last batch may be smaller.
        seed: Int. Seed of the order.
        epoch: Int64 `tf.Variable`. Number of the epoch, to be assigned before each epoch. If
            `None`, each iteration is the next epoch, also the one in which Keras builds a model of
            several replicas.
        input_context: `tf.distribute.InputContext` or `None`. If not `None`, the dataset has the
            parts of each batch for the replicas of this worker; see `resumable_dataset`. Defaults
            to `None`.
        shuffle: Boolean. If `False`, the rows are in order. Defaults to `True`.

    Returns:
        A `tf.data.Dataset` whose elements have the structure of `arrays`.

    Raises:
        ValueError: for arrays of different lengths or without rows.
    """
    arrays = tf.nest.map_structure(
        lambda x: x if isinstance(x, StreamedArray) else as_array("arrays", x), arrays
    )
    flat = tf.nest.flatten(arrays)
    streamed = any(isinstance(array, StreamedArray) for array in flat)
    lengths = {array.shape[:1] for array in flat}
    if len(lengths) != 1 or not lengths.isdisjoint({(), (0,)}):
        raise ValueError(f"arrays: expected an equal number of rows, got shapes {lengths}.")
    ((num_rows,),) = lengths
    arrays = tf.nest.map_structure(
        lambda x: x if isinstance(x, StreamedArray) else tf.convert_to_tensor(x), arrays
    )

    def gather(rows, seeds, longest):
        return tf.nest.map_structure(lambda array: _gather_rows(array, rows), arrays)

    return resumable_dataset(
        num_rows,
        batch_size,
        seed,
        epoch,
        gather,
        input_context=input_context,
        shuffle=shuffle,
        streamed=streamed,
    )


def make_window_dataset(
    tokens, window: int, batch_size: int, seed: int, epoch, input_context=None
) -> tf.data.Dataset:
    """Create a dataset of windows of a text for next-token prediction.

    The windows of an epoch are adjacent. They start at a random offset, a new one in each epoch.

    Args:
        tokens: Int32 array or `StreamedArray` `(n,)`. Token ids of the text.
        window: Int. Tokens per window.
        batch_size, seed, epoch, input_context: As for `make_dataset`.

    Returns:
        A `tf.data.Dataset` of pairs `(x, y)`, both int32 `(batch, window)`: `y[:, i]` is the token
        after `x[:, i]`.

    Raises:
        ValueError: if the text has fewer than `2 * window` tokens, or other values than integers.
    """
    streamed = isinstance(tokens, StreamedArray)
    if not streamed:
        tokens = as_numbers("tokens", tokens, (None,))
        check_range("tokens", tokens, 2**31)
        tokens = tf.convert_to_tensor(tokens)
    num_windows = count_windows(len(tokens), window)

    def gather(rows, seeds, longest):
        offset = tf.random.stateless_uniform((), seeds, maxval=window, dtype=tf.int32)
        starts = tf.cast(offset, tf.int64) + window * tf.cast(rows, tf.int64)
        positions = starts[:, None] + tf.range(window + 1, dtype=tf.int64)
        windows = _gather_rows(tokens, positions)  # (batch, window + 1)
        return windows[:, :-1], windows[:, 1:]

    return resumable_dataset(
        num_windows,
        batch_size,
        seed,
        epoch,
        gather,
        input_context=input_context,
        streamed=streamed,
    )


def count_windows(num_tokens: int, window: int) -> int:
    """Return the number of windows per epoch of `make_window_dataset`.

    Args:
        num_tokens: Int. Number of tokens of the text.
        window: Int. Tokens per window.

    Raises:
        ValueError: if the text has fewer than `2 * window` tokens.
    """
    num_tokens, window = check_size("num_tokens", num_tokens, 0), check_size("window", window)
    if num_tokens < 2 * window:
        raise ValueError(
            f"text: expected at least {2 * window} tokens, got {num_tokens}, for a window of "
            f"{window}."
        )
    return (num_tokens - window) // window


def make_pair_dataset(
    sources, targets, batch_size: int, seed: int, epoch, input_context=None
) -> tf.data.Dataset:
    """Create a dataset of pairs of sequences, batched by length to save padding.

    A batch has pairs of similar length. The order of the batches, and the choice between pairs of
    equal length, are random.

    Args:
        sources: Int32 array `(n, source_length)`. Token ids, padded with 0 at the end.
        targets: Int32 array `(n, target_length)`. Token ids, padded with 0 at the end.
        batch_size, seed, epoch, input_context: As for `make_dataset`.

    Returns:
        A `tf.data.Dataset` of pairs `(source, target)`, both int32 `(batch, m)`: m is the length of
        the longest sequence of the batch, rounded up to a multiple of 8.

    Raises:
        ValueError: for arrays of another shape, of different lengths, or of other values than token
            ids.
    """
    sources = as_numbers("sources", sources, (None, None))
    targets = as_numbers("targets", targets, (None, None))
    check_range("sources", sources, 2**31)
    check_range("targets", targets, 2**31)
    if len(sources) != len(targets) or not sources.size or not targets.size:
        raise ValueError(
            "sources, targets: expected a row of both for each pair, at least one, got shapes "
            f"{sources.shape} and {targets.shape}."
        )
    sources, targets = tf.convert_to_tensor(sources), tf.convert_to_tensor(targets)
    lengths = tf.maximum(*(tf.math.count_nonzero(x, axis=1) for x in (sources, targets)))

    def gather(rows, seeds, longest):
        longest = -(-longest // 8) * 8
        return tuple(
            tf.gather(pad_to_multiple(x, 8), rows)[:, :longest] for x in (sources, targets)
        )

    return resumable_dataset(len(sources), batch_size, seed, epoch, gather, lengths, input_context)


def make_audio_dataset(
    waveforms,
    labels,
    batch_size: int,
    seed: int,
    epoch,
    augment: bool = False,
    input_context=None,
    shuffle: bool = True,
) -> tf.data.Dataset:
    """Create a dataset of quantized sounds for next-sample prediction, batched by length.

    Args:
        waveforms: List of n float32 arrays in [-1, 1], or `StreamedSounds`.
        labels: Integer array `(n,)`, or `None`.
        batch_size, seed, epoch, input_context: As for `make_dataset`.
        augment: Boolean. If `True`, each sound is multiplied in each epoch by a random factor,
            whose magnitude is log-uniform in (1/4, 1] and whose sign is negative with probability
            1/2. Neither changes the class of a sound. Defaults to `False`.
        shuffle: Boolean. If `False`, the sounds are in order, whatever their length. Defaults to
            `True`.

    Returns:
        A `tf.data.Dataset` of pairs `(x, y)`, or `((x, labels), y)`, with int32 mu-law levels from
        0 to 255. x `(batch, m)` begins with one level of silence; y `(batch, m)` has the next
        levels, and -1 after the end of a sound; m is a multiple of 512.

    Raises:
        ValueError: for an empty list of sounds, for samples outside [-1, 1], and unless each sound
            has a label.
    """
    check_bools(augment=augment, shuffle=shuffle)
    streamed = isinstance(waveforms, StreamedSounds)
    if not streamed:
        waveforms = _check_waveforms(waveforms)
    num_sounds = len(waveforms)
    if labels is not None:
        labels = as_numbers("labels", labels, (num_sounds,))
        check_range("labels", labels, 2**31)
    if streamed:
        lengths = waveforms.lengths
    else:
        lengths = np.array([len(waveform) for waveform in waveforms])
        padded = np.zeros((num_sounds, 1 + -(-lengths.max() // 512) * 512), "float32")
        for row, waveform in zip(padded, waveforms, strict=True):
            row[1 : 1 + len(waveform)] = waveform
        padded = tf.convert_to_tensor(padded)
    lengths = tf.convert_to_tensor(lengths, tf.int32)

    def gather(rows, seeds, longest):
        longest = -(-longest // 512) * 512
        if streamed:
            batch = waveforms.gather(rows, longest)
        else:
            batch = tf.gather(padded, rows)[:, : longest + 1]
        if augment:
            uniform = tf.random.stateless_uniform((2, num_sounds, 1), seeds)
            attenuation, sign = tf.unstack(tf.gather(uniform, rows, axis=1))
            batch *= 4**-attenuation * tf.where(sign < 0.5, -1.0, 1.0)
        levels = mu_law_tensor(batch)  # (batch, longest + 1)
        x, y = levels[:, :-1], levels[:, 1:]
        y = tf.where(tf.range(longest) < tf.gather(lengths, rows)[:, None], y, -1)
        return (x if labels is None else (x, tf.gather(labels, rows))), y

    return resumable_dataset(
        num_sounds,
        batch_size,
        seed,
        epoch,
        gather,
        lengths,
        input_context,
        shuffle=shuffle,
        streamed=streamed,
    )


def _check_waveforms(waveforms) -> list[np.ndarray]:
    """Return waveforms as arrays; raise ValueError for samples that mu-law cannot encode."""
    if not isinstance(waveforms, (list, tuple)) or not waveforms:
        raise ValueError(f"waveforms: expected a list of arrays, got {waveforms!r:.200}.")
    waveforms = [as_numbers("waveforms", waveform, (None,)) for waveform in waveforms]
    if not all(len(waveform) and np.abs(waveform).max() <= 1 for waveform in waveforms):
        raise ValueError("waveforms: expected samples in [-1, 1], got others, or an empty sound.")
    return waveforms


def _gather_rows(array, rows):
    return array.gather(rows) if isinstance(array, StreamedArray) else tf.gather(array, rows)


def pad_to_multiple(tokens, multiple: int):
    """Pad tokens `(batch, n)` with 0 at the end, up to a length that is a multiple."""
    return tf.pad(tokens, [[0, 0], [0, -tokens.shape[1] % multiple]])


def resumable_dataset(
    num_rows: int,
    batch_size: int,
    seed: int,
    epoch,
    gather,
    lengths=None,
    input_context=None,
    shuffle: bool = True,
    streamed: bool = False,
) -> tf.data.Dataset:
    """Create a dataset of shuffled batches whose order depends on seed and epoch only.

    Args:
        num_rows: Int. Number of rows of the data.
        batch_size: Int. Rows per batch; the last batch may be smaller.
        seed: Int. Seed of the order.
        epoch: Int64 `tf.Variable`. Number of the epoch, to be assigned before each epoch. If
            `None`, each iteration is the next epoch.
        gather: Function from row indices `(batch,)`, int32, from seed and epoch `(2,)`, int64, and
            from the largest of the `lengths` of the batch (0 without them) to the batch.
        lengths: Integer tensor `(num_rows,)` or `None`. If not `None`, rows of similar length are
            batched together, and the batches are shuffled. Defaults to `None`.
        input_context: `tf.distribute.InputContext` or `None`. If not `None`, each batch is split
            into a part for each replica; see `replicas.replica_part`. The dataset has the parts of
            this worker's replicas, in order. Rows of others are not gathered. Defaults to `None`.
        shuffle: Boolean. If `False`, the rows are in order. Defaults to `True`.
        streamed: Boolean. Whether `gather` reads files: then several batches are gathered at the
            same time, and few are held in memory. Defaults to `False`.

    Returns:
        A `tf.data.Dataset` of known cardinality.

    Raises:
        ValueError: for an invalid batch size, seed, epoch or context.
    """
    batch_size = min(check_size("batch_size", batch_size), num_rows)
    seed = check_size("seed", seed, 0, 2**63 - 1)
    check_bools(shuffle=shuffle)
    last_epoch = tf.Variable(-1, dtype=tf.int64) if epoch is None else None
    if epoch is not None and (
        not tf.is_tensor(epoch) or epoch.dtype != tf.int64 or epoch.shape.rank
    ):
        raise ValueError(f"epoch: expected an int64 variable, got {epoch!r:.200}.")
    num_replicas, replicas = count_replicas(input_context)
    num_batches = -(-num_rows // batch_size)

    def row_batches(_):
        number = epoch if last_epoch is None else last_epoch.assign_add(1)
        seeds = tf.stack([tf.cast(seed, tf.int64), number])
        order = tf.range(num_rows)
        starts = batch_size * tf.range(num_batches)
        if shuffle:
            order = tf.random.experimental.stateless_shuffle(order, seeds)
            if lengths is not None:
                order = tf.gather(order, tf.argsort(tf.gather(lengths, order), stable=True))
                starts = tf.random.experimental.stateless_shuffle(starts, seeds)

        def select(start, replica):
            """Return the arguments of `gather` for the part of a replica."""
            rows = order[start : start + batch_size]
            longest = tf.constant(0)
            if lengths is not None:
                longest = tf.reduce_max(tf.gather(lengths, rows))
            first, last = replica_part(tf.size(rows), num_replicas, replica)
            return rows[first:last], seeds, longest

        starts = tf.data.Dataset.from_tensor_slices(starts)
        return starts.flat_map(
            lambda start: tf.data.Dataset.range(*replicas, output_type=tf.int32).map(
                lambda replica: select(start, replica)
            )
        )

    dataset = tf.data.Dataset.from_tensors(0).flat_map(row_batches)
    dataset = dataset.map(gather, NUM_PARALLEL_BATCHES if streamed else None)
    num_parts = num_batches * (replicas[1] - replicas[0])
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(num_parts))
    # Autotuning is disabled: a gather needs none, and the tuning thread of TensorFlow 2.21 sleeps
    # for increasing periods, up to a minute, which can delay the end of an epoch.
    options = tf.data.Options()
    options.autotune.enabled = False
    options.deterministic = True
    return dataset.prefetch(2 if streamed else 64).with_options(options)
