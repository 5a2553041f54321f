"""Training on several devices and machines: strategies of `tf.distribute` that Keras can `fit`.

A strategy copies a model to every device, its replicas. Each takes a part of every batch, and the
gradients of all parts are added before the step, so that the replicas stay equal:

    strategy = distribution.strategy("multi-worker")  # the same program on every machine
    with strategy.scope():
        model = VAE(build_encoder(), build_decoder())
        model.compile("adam")
    model.fit(x, batch_size=64)  # 64 images of all workers together

Weights and metrics are those of one process with the same batches, except for its noise: each
replica draws its own. `.github/SCALING.md` is the guide.
"""

import contextlib
import zlib

import keras
import numpy as np
import tensorflow as tf

from keras_genai.cluster import Cluster, LostWorkerError, read_cluster, wait_for_others
from keras_genai.replicas import check_keras_version, count_replicas, replica_part
from keras_genai.validation import check_choice, check_number

STRATEGIES = ("auto", "mirrored", "multi-worker")
START_TIMEOUT = 300.0  # seconds
LOST_WORKER = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
)


# Strategies.


class FitMixin:
    """Mends two calls of `reduce` with which Keras's `fit` fails, and splits each batch evenly.

    - Several workers: Keras takes the mean of scalars, such as a loss, over their axis 0.
    - Before training, Keras takes the mean of the parts of the first batch, to learn their shapes.
      Batches are nested and their parts may differ in size, which TensorFlow cannot add. The part
      of this worker has the shapes, too.
    """

    num_replicas_in_sync: int

    def reduce(self, reduce_op, value, axis):
        if isinstance(value, (tuple, list, dict)):
            return tf.nest.map_structure(lambda part: self.reduce(reduce_op, part, axis), value)
        local_values = self.experimental_local_results(value)
        if local_values[0].shape.rank == 0:
            return super().reduce(reduce_op, value, None)
        if axis is None and str(reduce_op).upper().endswith("MEAN") and self._differ(local_values):
            return local_values[0]
        return super().reduce(reduce_op, value, axis)

    def _differ(self, local_values) -> bool:
        """Return whether the number of rows differs between any two replicas."""
        sizes = [value.shape[0] for value in local_values]
        total, squares = self._add_over_workers([sum(sizes), sum(size**2 for size in sizes)])
        # Equal if and only if all sizes are.
        return self.num_replicas_in_sync * squares != total**2

    def _add_over_workers(self, numbers: list[int]) -> list[int]:
        return numbers

    def experimental_distribute_dataset(self, dataset, options=None):
        policies = tf.data.experimental.AutoShardPolicy
        policy = dataset.options().experimental_distribute.auto_shard_policy
        if policy not in (policies.AUTO, policies.DATA):
            return super().experimental_distribute_dataset(dataset, options)
        # Each worker takes its part of every batch, so that the batches are those of one process.
        # TensorFlow would deal out the files of a dataset that reads some, and leaves the last
        # replicas without an example of a small batch, on which many layers fail.
        return self.distribute_datasets_from_function(
            lambda input_context: _split_batches(dataset, input_context), options
        )


def _split_batches(dataset, input_context) -> tf.data.Dataset:
    """Return the parts of each batch for the replicas of this worker; see `replica_part`."""
    num_replicas, local_replicas = count_replicas(input_context)

    def parts(*batch):
        batch = batch[0] if len(batch) == 1 else batch
        num_rows = tf.shape(tf.nest.flatten(batch)[0])[0]

        def part(replica):
            start, stop = replica_part(num_rows, num_replicas, replica)
            return tf.nest.map_structure(lambda x: None if x is None else x[start:stop], batch)

        return tf.data.Dataset.range(*local_replicas, output_type=tf.int32).map(part)

    options = tf.data.Options()
    if dataset.options().autotune.enabled is None:
        # The tuning thread of each iterator sleeps for seconds, for which the next one waits.
        options.autotune.enabled = False
    return dataset.flat_map(parts).prefetch(2).with_options(options)


class MirroredStrategy(FitMixin, tf.distribute.MirroredStrategy):
    """`tf.distribute.MirroredStrategy`: a replica on each device of this process."""


class MultiWorkerStrategy(FitMixin, tf.distribute.MultiWorkerMirroredStrategy):
    """`tf.distribute.MultiWorkerMirroredStrategy`: replicas on the devices of several processes."""

    def _add_over_workers(self, numbers):
        totals = [self.reduce("SUM", tf.constant(n, tf.int64), axis=None) for n in numbers]
        return [int(total.numpy()) for total in totals]

    def check_agreement(self, **settings) -> None:
        """Raise ValueError for a setting that is not the same on all workers."""
        for name, value in settings.items():
            digest = zlib.crc32(repr(value).encode()) % 2**24  # whose square fits in int64
            total, squares = self._add_over_workers([digest, digest**2])
            num_workers = self._add_over_workers([1])[0]
            if num_workers * squares != total**2:
                raise ValueError(
                    f"{name}: expected the same on all workers, got {value!r:.99} on this one, "
                    "and something else on another."
                )

    def barrier(self) -> None:
        """Wait until all workers have called it."""
        self.reduce("SUM", tf.ones(()), axis=None)


def strategy(name: str = "auto", timeout: float = START_TIMEOUT) -> tf.distribute.Strategy:
    """Return a strategy, under whose `scope()` models are built and compiled.

    Args:
        name: `"mirrored"` for all GPUs of this process, or all its logical CPUs if there is no GPU;
            `"multi-worker"` for the processes of the environment variable TF_CONFIG, which
            launchers and clusters set; `"auto"` for the latter if TF_CONFIG is set, else the former
            if there are several devices, else one device. Defaults to `"auto"`.
        timeout: Float. Seconds to wait for the other workers. Defaults to `300.0`.

    Returns:
        A `tf.distribute.Strategy`. Workers have agreed on a random seed, so that they shuffle in
        the same order.

    Raises:
        ValueError: for another name, for `"multi-worker"` without a valid TF_CONFIG, for a port
            that is taken, and if TensorFlow has already started.
        TimeoutError: if a worker does not start in time.
    """
    check_choice("name", name, STRATEGIES)
    timeout = check_number("timeout", timeout, above=0)
    cluster = read_cluster()
    if name == "multi-worker" and cluster is None:
        raise ValueError(
            "TF_CONFIG: expected the cluster and the task of this worker, got no such environment "
            "variable. Launchers and clusters set it; see .github/SCALING.md."
        )
    if name != "mirrored" and cluster is not None:
        return _start_worker(cluster, timeout)
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if name == "auto" and len(devices) == 1:
        return tf.distribute.get_strategy()
    check_keras_version()
    return MirroredStrategy([device.name for device in devices])


def _start_worker(cluster: Cluster, timeout: float) -> MultiWorkerStrategy:
    wait_for_others(cluster, timeout)
    check_keras_version()
    try:
        started = MultiWorkerStrategy()
    except RuntimeError as error:
        raise ValueError(
            f"strategy: expected it to be made before any tensor or model, got one before ({error})"
        ) from error
    with started.scope():
        # A variable has the first worker's initial value on all workers.
        seed = tf.Variable(np.random.randint(2**31 - 1), dtype=tf.int64)  # noqa: NPY002
    keras.utils.set_random_seed(int(seed.numpy()))
    return started


def to_strategy(distribute) -> tf.distribute.Strategy:
    """Return the strategy of an argument `distribute`.

    Args:
        distribute: `None` for the current strategy, a name, or a strategy of this module.

    Raises:
        ValueError: for one with which `fit` fails, and in the scope of several workers, where the
            first one could not do anything alone.
    """
    if distribute is not None and not isinstance(distribute, tf.distribute.Strategy):
        check_choice("distribute", distribute, (None, *STRATEGIES))
        return strategy(distribute)
    current = tf.distribute.get_strategy()
    found = distribute or current
    valid = found.num_replicas_in_sync == 1 or isinstance(found, FitMixin)
    if not valid or isinstance(current, MultiWorkerStrategy):
        raise ValueError(
            "distribute: expected a strategy from distribution.strategy, outside of its scope, "
            f"got a {type(found).__name__}."
        )
    return found


def is_first_worker(strategy: tf.distribute.Strategy) -> bool:
    """Return whether this process saves and prints: it is the first worker, or the only process."""
    if not isinstance(strategy, MultiWorkerStrategy):
        return True
    cluster = read_cluster()
    return cluster is None or cluster.index == 0


@contextlib.contextmanager
def reraise_lost_worker():
    """Context in which TensorFlow's error about another worker is one clear line.

    Raises:
        LostWorkerError: if another worker has ended.
    """
    try:
        yield
    except LOST_WORKER as error:
        cluster = read_cluster()
        if cluster is None or len(cluster.workers) == 1:
            raise
        cause = str(error.message).strip().split("\n")[0]
        raise LostWorkerError(
            "another worker has ended or cannot be reached. Start all workers again, with "
            f"resume, to go on from the last whole epoch. TensorFlow's error: {cause:.200}"
        ) from error
