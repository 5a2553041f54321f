"""What training on several replicas needs: sums over replicas, exact means, different noise.

A strategy of `tf.distribute` gives each replica a part of every batch. Keras averages the loss of
each part, clips the gradients of each replica, and then adds the gradients. This module makes the
result that of one process: parts of unequal size count by their size, and gradients are clipped
after they have been added. With one replica, every function leaves its input as it is.
"""

import itertools
from concurrent import futures

import keras
import tensorflow as tf
from keras import ops

FIRST_KERAS = (3, 10)


def num_replicas() -> int:
    """Return the number of replicas of the current strategy."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def in_one_of_several_replicas() -> bool:
    """Return whether the caller is the computation of one replica among several."""
    return num_replicas() > 1 and tf.distribute.get_replica_context() is not None


def all_reduce_sum(values):
    """Return the sum over all replicas of a tensor or of each tensor in a list."""
    if not in_one_of_several_replicas():
        return values
    return tf.distribute.get_replica_context().all_reduce("SUM", values)


def mean_over_replicas(values):
    """Return the part of this replica of the mean of values over all replicas.

    Args:
        values: Float tensor `(batch,)`. A part may be empty.

    Returns:
        Scalar. The parts of all replicas add up to the mean over the batches of all.
    """
    count = all_reduce_sum(ops.cast(ops.shape(values)[0], values.dtype))
    return ops.sum(values) / count


def weight_loss(loss, num_examples, count=None):
    """Weight the loss of a replica such that gradients and metrics are those of one process.

    Keras divides the mean loss of each replica by the number of replicas R. The gradients of all
    replicas are added, and `Mean` metrics of R * loss are weighted by the number of examples. Both
    are right if all replicas have the same count.

    Args:
        loss: Scalar. Mean loss of the replica, divided by R.
        num_examples: Int. Number of examples of the replica.
        count: Number over which the loss is a mean, such as that of the tokens without padding.
            Defaults to `num_examples`.

    Returns:
        A scalar with the gradient of R * count / (sum of all counts) * loss.
    """
    if not in_one_of_several_replicas():
        return loss
    num_examples = ops.cast(num_examples, loss.dtype)
    count = num_examples if count is None else ops.cast(count, loss.dtype)
    examples_of_all, count_of_all = tf.unstack(all_reduce_sum(tf.stack([num_examples, count])))
    share = tf.math.divide_no_nan(count, count_of_all)
    value = loss * share * tf.math.divide_no_nan(examples_of_all, num_examples)
    weighted = loss * share * num_replicas()
    return weighted + tf.stop_gradient(value - weighted)


# Batches.


def replica_part(num_rows, num_replicas: int, replica):
    """Return the rows of a batch that a replica takes: 32 of three replicas are 11, 11 and 10.

    Many layers fail on an empty batch. If there are fewer rows than replicas, each has the whole
    batch: the mean gradient is that of one process, and metrics count the rows once per replica.

    Args:
        num_rows: Int32 tensor. Number of rows of the batch.
        num_replicas: Int. Number of all replicas.
        replica: Int32 tensor. Index of the replica.

    Returns:
        `(start, stop)`, int32 tensors.
    """
    bounds = [-(-num_rows * index // num_replicas) for index in (replica, replica + 1)]
    small = num_rows < num_replicas
    return tf.where(small, 0, bounds[0]), tf.where(small, num_rows, bounds[1])


def count_replicas(input_context) -> tuple[int, tuple[int, int]]:
    """Return the number of all replicas, and the range of the replicas of this worker.

    Raises:
        ValueError: unless the context is a `tf.distribute.InputContext`, or `None` for one replica.
    """
    if input_context is None:
        return 1, (0, 1)
    if not isinstance(input_context, tf.distribute.InputContext):
        raise ValueError(
            "input_context: expected a tf.distribute.InputContext or None, "
            f"got {input_context!r:.200}."
        )
    num_workers = input_context.num_input_pipelines
    num_replicas = input_context.num_replicas_in_sync
    if num_replicas % num_workers:
        raise ValueError(
            "input_context: expected the same number of replicas on each worker, "
            f"got {num_replicas} on {num_workers}."
        )
    num_local, worker = num_replicas // num_workers, input_context.input_pipeline_id
    return num_replicas, (worker * num_local, (worker + 1) * num_local)


# Gradients.


def needs_summed_gradients(optimizer) -> bool:
    """Return whether an optimizer must see the sum of the gradients of several replicas.

    One that clips, since the sum of clipped gradients is not the clipped sum; and one that scales
    the loss, since all replicas must agree whether a gradient is infinite.
    """
    scales = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    return in_one_of_several_replicas() and (scales or _clips(optimizer))


def apply_gradients(optimizer, gradients, variables) -> None:
    """Apply gradients of the loss of this replica, which are added to those of the others.

    Args:
        optimizer: Keras optimizer.
        gradients: List of tensors, or `None` for a variable without gradient.
        variables: List of variables.

    Raises:
        ValueError: for an optimizer that clips and accumulates gradients, with several replicas.
    """
    if needs_summed_gradients(optimizer):
        known = [gradient for gradient in gradients if gradient is not None]
        summed = _clip(optimizer, all_reduce_sum(known))
        # The optimizer adds those of all replicas, which are now equal.
        shares = iter(_multiply(summed, 1 / num_replicas()))
        gradients = [None if gradient is None else next(shares) for gradient in gradients]
    optimizer.apply(gradients, variables)


def _innermost(optimizer):
    return getattr(optimizer, "inner_optimizer", optimizer)


def _clips(optimizer) -> bool:
    optimizer = _innermost(optimizer)
    names = ("clipnorm", "global_clipnorm", "clipvalue")
    return any(getattr(optimizer, name, None) is not None for name in names)


def _clip(optimizer, gradients):
    """Clip gradients as an optimizer would, which clips them after it has undone loss scaling."""
    if not _clips(optimizer):
        return gradients
    scale = optimizer.scale_loss(tf.ones(()))
    optimizer = _innermost(optimizer)
    if optimizer.gradient_accumulation_steps:
        raise ValueError(
            "optimizer: expected one that clips or accumulates gradients, not both, with "
            f"{num_replicas()} replicas."
        )
    gradients = _multiply(gradients, 1 / scale)
    if optimizer.clipnorm is not None:
        gradients = [tf.clip_by_norm(gradient, optimizer.clipnorm) for gradient in gradients]
    elif optimizer.global_clipnorm is not None:
        gradients, _ = tf.clip_by_global_norm(gradients, optimizer.global_clipnorm)
    else:
        limit = optimizer.clipvalue
        gradients = [tf.clip_by_value(gradient, -limit, limit) for gradient in gradients]
    return _multiply(gradients, scale)


def _multiply(gradients, factor):
    """Multiply gradients, of which those of embeddings are `tf.IndexedSlices`."""
    return [
        tf.IndexedSlices(g.values * tf.cast(factor, g.dtype), g.indices, g.dense_shape)
        if isinstance(g, tf.IndexedSlices)
        else g * tf.cast(factor, g.dtype)
        for g in gradients
    ]


# Random numbers.


class ReplicaSeedGenerator(keras.random.SeedGenerator):
    """A seed generator that draws different numbers in each replica.

    Keras's own has the same state on all replicas, which would draw the same noise. The first
    replica draws what one process draws.
    """

    def next(self, *args, **kwargs):
        seed = super().next(*args, **kwargs)
        if not in_one_of_several_replicas():
            return seed
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        folded = tf.random.fold_in(ops.cast(seed, "int32"), replica)
        return tf.where(tf.equal(replica, 0), seed, ops.cast(folded, seed.dtype))


# Generation.


def run_on_replicas(strategy, function, *arrays):
    """Apply a function to parts of arrays, each on a device of this process, and join the results.

    Args:
        strategy: `tf.distribute.Strategy`, such as `model.distribute_strategy`.
        function: Function of tensors that returns a tensor or a list of tensors.
        *arrays: Arrays or tensors of the same number of rows, nested ones, or `None`.

    Returns:
        The result of the function, for all rows.
    """
    parts = split_rows(strategy, len(arrays[0]))
    if len(parts) == 1:
        return function(*arrays)
    results = map_replicas(
        strategy, lambda rows: function(*(take_rows(array, rows) for array in arrays)), parts
    )
    return join_rows(results)


def split_rows(strategy, num_rows: int) -> list[slice]:
    """Return the rows of each device of this process, a single part if some would have none."""
    num_parts = num_local_replicas(strategy)
    if num_rows < num_parts:
        num_parts = 1
    bounds = [round(index * num_rows / num_parts) for index in range(num_parts + 1)]
    return [slice(*pair) for pair in itertools.pairwise(bounds)]


def take_rows(array, rows: slice):
    """Return rows of an array, of each array in a nested structure, or `None` of `None`."""
    return tf.nest.map_structure(lambda x: None if x is None else x[rows], array)


def join_rows(parts: list):
    """Return the rows of all parts, which are tensors or nested structures of them."""
    if len(parts) == 1:
        return parts[0]
    return tf.nest.map_structure(lambda *tensors: tf.concat(tensors, axis=0), *parts)


def map_replicas(strategy, function, *parts) -> list:
    """Return `list(map(function, *parts))`, with each call on a device of its own.

    Each device has a thread, as `strategy.run` would call an eager function on one after another.

    Args:
        strategy: `tf.distribute.Strategy`.
        function: Function of the elements of `parts`. It has no effect on the replicas.
        *parts: Lists of one element for each device of this process, or of a single one.
    """
    if len(parts[0]) == 1:
        return list(map(function, *parts))
    devices = strategy.extended.worker_devices

    def call(replica, device, *arguments):
        # Variables in the context of a replica are the copies on its device.
        with tf.device(device), tf.distribute.ReplicaContext(strategy, replica):
            return function(*arguments)

    with futures.ThreadPoolExecutor(len(devices)) as threads:
        return list(threads.map(call, _local_replica_ids(strategy), devices, *parts))


def _local_replica_ids(strategy) -> list[int]:
    """Return the indices of the replicas of this process among those of all."""
    values = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(context.replica_id_in_sync_group)
    )
    return [int(value) for value in strategy.experimental_local_results(values)]


def num_local_replicas(strategy) -> int:
    """Return the number of replicas on devices of this process."""
    if strategy.num_replicas_in_sync == 1:
        return 1
    return len(strategy.extended.worker_devices)


# Compilation.


def check_compile_options(model) -> None:
    """Raise ValueError for options of `compile` that TensorFlow lacks on several replicas."""
    strategy = model.distribute_strategy
    if strategy.num_replicas_in_sync == 1:
        return
    check_keras_version()
    if model.steps_per_execution > 1:
        raise ValueError(
            "steps_per_execution: expected 1 with several replicas, as TensorFlow cannot tell in a "
            f"compiled loop when the data end, got {model.steps_per_execution}."
        )
    cpus = all("CPU" in device.upper() for device in strategy.extended.worker_devices)
    if model.jit_compile and cpus:
        raise ValueError(
            "jit_compile: expected False with several replicas on CPUs, as XLA has no "
            "communication between CPUs, got True."
        )


def check_keras_version() -> None:
    """Raise ValueError for a Keras whose metrics have the values of one replica only."""
    version = tuple(int(number) for number in keras.__version__.split(".")[:2])
    if version < FIRST_KERAS:
        raise ValueError(
            "keras: expected at least version 3.10 to train on several replicas, as the metrics of "
            f"older ones are those of a single one, got {keras.__version__}."
        )


def check_one_replica(name: str, model) -> None:
    """Raise ValueError unless a function that cannot train on several replicas has one."""
    if model.distribute_strategy.num_replicas_in_sync > 1:
        raise ValueError(f"{name}: expected one replica, as only `fit` trains on several.")
