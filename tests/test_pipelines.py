"""Input pipelines: complete epochs, and an order that depends on seed and epoch only."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from keras_genai import pipelines
from keras_genai.audio import mu_law_decode, mu_law_encode


def run_epochs(dataset, epoch, epochs):
    """Yield the batches of each epoch."""
    for number in epochs:
        epoch.assign(number)
        yield list(dataset.as_numpy_iterator())


def array_epochs(seed, epochs):
    """Batches of 4 of the rows 0 … 9, with -row as label."""
    epoch = tf.Variable(0, dtype=tf.int64)
    rows = np.arange(10)
    return run_epochs(pipelines.make_dataset((rows, -rows), 4, seed, epoch), epoch, epochs)


def assert_order_depends_on_seed_and_epoch(order):
    """Assert it of a function `order(seed, epochs)` that returns the list of rows per epoch."""
    first, second, third = order(0, [0, 1, 2])
    assert len({tuple(rows) for rows in (first, second, third)}) == 3
    assert order(0, [2]) == [third] and order(0, [1, 0]) == [second, first]
    assert order(1, [0]) != [first]


def test_an_epoch_has_every_row_once_with_its_label():
    (batches,) = array_epochs(seed=0, epochs=[0])
    assert [len(x) for x, _ in batches] == [4, 4, 2]
    x, y = (np.concatenate(column) for column in zip(*batches, strict=True))
    assert sorted(x) == list(range(10)) and np.array_equal(x, -y)


def test_order_of_arrays_depends_on_seed_and_epoch_only():
    assert_order_depends_on_seed_and_epoch(
        lambda seed, epochs: [
            np.concatenate([x for x, _ in batches]).tolist()
            for batches in array_epochs(seed, epochs)
        ]
    )


# Windows of a text.


def window_epochs(seed, epochs):
    """Batches of 3 windows of 8 tokens from the text 0 … 49."""
    epoch = tf.Variable(0, dtype=tf.int64)
    dataset = pipelines.make_window_dataset(np.arange(50, dtype="int32"), 8, 3, seed, epoch)
    return run_epochs(dataset, epoch, epochs)


def test_windows_are_adjacent_and_targets_are_the_next_tokens():
    for batches in window_epochs(seed=0, epochs=range(5)):
        assert [len(x) for x, _ in batches] == [3, 2]
        x, y = (np.concatenate(column) for column in zip(*batches, strict=True))
        assert x.shape == (5, 8) and np.array_equal(y, x + 1)
        text = np.sort(x.ravel())
        assert np.array_equal(text, np.arange(text[0], text[0] + 40)) and 0 <= text[0] < 8


def test_offset_of_windows_depends_on_seed_and_epoch_only():
    def all_rows(seed, epochs):
        return [
            np.concatenate([x for x, _ in batches]).tolist()
            for batches in window_epochs(seed, epochs)
        ]

    offsets = {min(map(min, rows)) for rows in all_rows(0, range(20))}
    assert len(offsets) > 4
    assert all_rows(0, [3, 4]) == all_rows(0, range(5))[3:] != all_rows(1, [3, 4])


def test_text_shorter_than_two_windows_raises():
    assert pipelines.count_windows(16, 8) == 1
    with pytest.raises(ValueError, match="text: expected at least 16 tokens, got 15"):
        pipelines.count_windows(15, 8)


# Pairs of sequences.


def pair_epochs(seed, epochs):
    """Batches of 8 of 50 pairs of lengths 1 to 29; all tokens of pair i are i + 1."""
    epoch = tf.Variable(0, dtype=tf.int64)
    lengths = np.random.default_rng(0).integers(1, 30, size=(2, 50, 1))
    sources, targets = (np.arange(29) < lengths) * (1 + np.arange(50))[:, None]
    dataset = pipelines.make_pair_dataset(sources, targets, 8, seed, epoch)
    return run_epochs(dataset, epoch, epochs)


def test_pairs_are_batched_by_length_with_minimal_padding():
    for batches in pair_epochs(seed=0, epochs=range(3)):
        assert sorted(len(source) for source, _ in batches) == [2, 8, 8, 8, 8, 8, 8]
        ranges = []
        for source, target in batches:
            # Sources stay with their targets, padded to the next multiple of 8 only.
            np.testing.assert_array_equal(source[:, 0], target[:, 0])
            lengths = np.maximum(*(np.count_nonzero(x, axis=1) for x in (source, target)))
            assert source.shape == target.shape == (len(source), -(-lengths.max() // 8) * 8)
            ranges.append((lengths.min(), lengths.max()))
        rows = np.concatenate([source[:, 0] for source, _ in batches])
        assert sorted(rows) == list(range(1, 51))
        assert ranges != sorted(ranges)  # the shortest batch is not first
        ranges.sort()
        assert all(
            longest <= shortest for (_, longest), (shortest, _) in itertools.pairwise(ranges)
        )


def test_order_of_pairs_depends_on_seed_and_epoch_only():
    assert_order_depends_on_seed_and_epoch(
        lambda seed, epochs: [
            np.concatenate([x[:, 0] for x, _ in batches]).tolist()
            for batches in pair_epochs(seed, epochs)
        ]
    )


def test_pairs_of_equal_length_are_batched_differently_in_each_epoch():
    first, second = (
        {frozenset(x[:, 0].tolist()) for x, _ in batches} for batches in pair_epochs(0, [0, 1])
    )
    assert first != second


# Sounds.


def test_audio_batches_are_padded_to_a_multiple_and_masked_after_the_end():
    lengths = np.array([700, 3, 512, 600, 1024, 5])
    waveforms = [np.full(length, (i + 1) / 8, "float32") for i, length in enumerate(lengths)]
    levels = mu_law_encode(np.arange(1, 7) / 8)
    epoch = tf.Variable(0, dtype=tf.int64)
    batches = list(pipelines.make_audio_dataset(waveforms, np.arange(6), 2, 0, epoch))
    assert sorted(x.shape[1] for (x, _), _ in batches) == [512, 1024, 1024]
    all_labels = []
    for (x, labels), y in batches:
        for row, label, target in zip(x.numpy(), labels.numpy(), y.numpy(), strict=True):
            length = lengths[label]
            assert row[0] == 128 and set(row[1 : 1 + length]) <= {levels[label]}
            assert set(target[:length]) == {levels[label]} and set(target[length:]) <= {-1}
            all_labels.append(label)
    assert sorted(all_labels) == list(range(6))
    (x, y), *_ = pipelines.make_audio_dataset(waveforms, None, 2, 0, epoch)
    assert x.shape == y.shape


def test_augmentation_changes_only_the_volume_and_the_sign():
    rng = np.random.default_rng(0)
    waveforms = [rng.uniform(-0.9, 0.9, size=500).astype("float32") for _ in range(40)]
    epoch = tf.Variable(0, dtype=tf.int64)
    dataset = pipelines.make_audio_dataset(waveforms, np.arange(40), 8, 3, epoch, augment=True)

    def epoch_factors():
        """The factor of each sound in an epoch."""
        factors = np.zeros(40)
        for (_, labels), y in dataset:
            for label, target in zip(labels.numpy(), y.numpy(), strict=True):
                augmented, original = mu_law_decode(target[:500]), waveforms[label]
                factors[label] = augmented @ original / (original @ original)
                assert np.corrcoef(augmented, original)[0, 1] ** 2 > 0.999
        return factors

    first, second = epoch_factors(), epoch_factors()
    assert np.array_equal(first, second)  # seed and epoch determine the factors
    epoch.assign(1)
    assert np.abs(epoch_factors() - first).max() > 0.1
    magnitudes = np.abs(first)
    assert 0.24 < magnitudes.min() < 0.35 and 0.8 < magnitudes.max() < 1.01
    assert 10 < np.sum(first < 0) < 30


@pytest.mark.parametrize("sound", [[0.0, 1.5], [np.nan], []])
def test_sounds_that_mu_law_cannot_encode_raise(sound):
    epoch = tf.Variable(0, dtype=tf.int64)
    with pytest.raises(ValueError, match="waveforms: expected"):
        pipelines.make_audio_dataset([np.zeros(3), np.array(sound)], None, 2, 0, epoch)


def test_arrays_of_different_lengths_raise():
    with pytest.raises(ValueError, match="arrays: expected an equal number of rows"):
        pipelines.make_dataset((np.zeros(3), np.zeros(4)), 2, 0, tf.Variable(0, dtype=tf.int64))


# Shards of workers.


def contexts(num_workers, num_replicas):
    return [tf.distribute.InputContext(num_workers, i, num_replicas) for i in range(num_workers)]


def make_pipelines(epoch):
    """A function from an input context to the dataset, for each kind of pipeline."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 30, size=(2, 23, 1))
    sources, targets = (np.arange(29) < lengths) * (1 + np.arange(23))[:, None]
    waveforms = [rng.uniform(-1, 1, n).astype("float32") for n in rng.integers(1, 1500, 23)]
    return {
        "arrays": lambda context: pipelines.make_dataset(np.arange(23), 5, 1, epoch, context),
        "windows": lambda context: pipelines.make_window_dataset(
            np.arange(200), 8, 5, 1, epoch, context
        ),
        "pairs": lambda context: pipelines.make_pair_dataset(
            sources, targets, 5, 1, epoch, context
        ),
        "sounds": lambda context: pipelines.make_audio_dataset(
            waveforms, np.arange(23), 5, 1, epoch, True, context
        ),
    }


@pytest.mark.parametrize("num_workers, num_replicas", [(1, 2), (2, 2), (3, 3), (2, 4), (7, 7)])
@pytest.mark.parametrize("kind", ["arrays", "windows", "pairs", "sounds"])
def test_parts_of_the_replicas_join_to_the_batch(kind, num_workers, num_replicas):
    make = make_pipelines(tf.Variable(2, dtype=tf.int64))[kind]
    whole = list(make(None))
    shards = [make(context) for context in contexts(num_workers, num_replicas)]
    assert [len(shard) for shard in shards] == [
        len(whole) * num_replicas // num_workers
    ] * num_workers
    num_local = num_replicas // num_workers
    shards = [list(shard) for shard in shards]
    for i, batch in enumerate(whole):
        parts = [part for shard in shards for part in shard[num_local * i : num_local * (i + 1)]]
        arrays = zip(*map(tf.nest.flatten, parts), strict=True)
        for array, column in zip(tf.nest.flatten(batch), arrays, strict=True):
            # Also the padding is that of the batch.
            repeats = num_replicas if len(array) < num_replicas else 1
            np.testing.assert_array_equal([*array] * repeats, np.concatenate(column))


def test_without_a_context_no_batch_is_split_and_others_are_refused():
    epoch = tf.Variable(0, dtype=tf.int64)
    (batch,) = pipelines.make_dataset(np.arange(6), 6, 0, epoch, contexts(1, 1)[0])
    assert len(batch) == 6
    with pytest.raises(ValueError, match="input_context: expected a tf.distribute.InputContext"):
        pipelines.make_dataset(np.arange(6), 6, 0, epoch, "worker 0")
    with pytest.raises(ValueError, match="same number of replicas on each worker, got 3 on 2"):
        pipelines.make_dataset(np.arange(6), 6, 0, epoch, contexts(2, 3)[0])


def test_without_an_epoch_each_iteration_is_the_next_one():
    epoch = tf.Variable(0, dtype=tf.int64)
    dataset = pipelines.make_dataset(np.arange(9), 4, 0, epoch)
    epochs = run_epochs(dataset, epoch, range(3))
    numbered = [[x.tolist() for x in batches] for batches in epochs]
    dataset = pipelines.make_dataset(np.arange(9), 4, 0, None)
    assert [[x.numpy().tolist() for x in dataset] for _ in range(3)] == numbered


def test_rows_are_in_order_without_shuffling():
    epoch = tf.Variable(3, dtype=tf.int64)
    batches = pipelines.make_dataset(np.arange(9), 4, 0, epoch, shuffle=False)
    assert [x.numpy().tolist() for x in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    waveforms = [np.full(n, 0.5) for n in (600, 5, 1030, 7)]
    batches = pipelines.make_audio_dataset(waveforms, None, 2, 0, epoch, shuffle=False)
    lengths = [np.sum(y != -1, axis=1).tolist() for _, y in batches]
    assert lengths == [[600, 5], [1030, 7]]
    assert [x.shape[1] for x, _ in batches] == [1024, 1536]
