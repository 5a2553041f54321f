"""Training on several replicas and workers: the same weights and histories as on one device."""

import json
import pathlib
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_genai import cluster, distribution, replicas
from keras_genai.__main__ import main
from keras_genai.gan import GAN, build_discriminator, build_generator, train_gan
from keras_genai.vae import VAE, build_decoder, build_encoder

PROGRAM = pathlib.Path(__file__).parent / "fixtures" / "replicas_program.py"


# The same training in other processes.


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("replicas")


@pytest.fixture(scope="module")
def one_process(folder):
    return run_program(folder / "one.npz", 1)[0]


def run_program(path, num_devices, num_workers=None, names=()):
    """Return the results of each process of the program."""
    command = [sys.executable, str(PROGRAM), str(path), str(num_devices), *names]
    if num_workers is None:
        subprocess.run(command, check=True)
        return [np.load(path)]
    assert cluster.launch(command, num_workers) == 0
    return [np.load(f"{path}-{index}.npz") for index in range(num_workers)]


def assert_same_training(expected, found, num_replicas):
    """Assert equal weights and histories of all families, whose initial weights have moved."""
    for name in found:
        if name in ("noise", "generating devices") or (
            num_replicas > 2 and name.startswith("stock Seq2Seq, 40")
        ):
            continue  # Keras's own model counts parts of unequal size alike
        tolerance = 1e-3 if name.startswith("half precision, weight") else 1e-5
        np.testing.assert_allclose(
            found[name], expected[name], rtol=tolerance, atol=tolerance, err_msg=name
        )


# All families on two devices and in three workers. Two workers differ from three in nothing but the
# equal parts of Keras's own model; of the others, two suffice.
NAMES = ("build_vae", "GAN", "stock Seq2Seq")


@pytest.mark.slow
@pytest.mark.parametrize(
    "num_workers, names",
    [(None, ()), (2, NAMES), (3, ())],
    ids=["2 devices", "2 workers", "3 workers"],
)
def test_replicas_train_as_one_process(one_process, folder, num_workers, names):
    results = run_program(
        folder / f"several-{num_workers}.npz", 1 if num_workers else 2, num_workers, names
    )
    of_one_process = {"generating devices"} | {
        key for key in one_process if key.endswith((", generated", ", log-likelihood", ", windows"))
    }
    of_families = {
        key
        for key in one_process
        if not names or key.startswith(("half", "noise", *(f"{name}," for name in names)))
    }
    for worker in results:
        assert_same_training(one_process, worker, num_workers or 2)
        assert set(worker) == of_families - (of_one_process if num_workers else set())
    if num_workers is None:
        assert results[0]["generating devices"].tolist() == [0, 1]
    # The first replica draws what one process draws; the others draw something else each time.
    draws = np.concatenate([worker["noise"] for worker in results], axis=1)
    np.testing.assert_array_equal(draws[:, 0], one_process["noise"][:, 0])
    assert len(np.unique(draws[:, :, 0], axis=1).reshape(-1)) == draws[:, :, 0].size
    assert not np.array_equal(draws[0, 0, 1], draws[0, 1, 1])  # masks of dropout


PLAIN_KERAS = """
import keras, numpy as np, os, tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()
with strategy.scope():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
try:
    model.fit(np.zeros((4, 2)), np.zeros((4, 1)), batch_size=4, verbose=0)
except Exception as error:
    print(type(error), error, flush=True)
    os._exit(9)
"""


@pytest.mark.slow
def test_keras_itself_still_fails_with_several_workers():
    """If this fails, `fit` of this Keras works, and `FitMixin.reduce` may be deleted."""
    assert cluster.launch([sys.executable, "-c", PLAIN_KERAS], 2) == 9


# One device of a strategy, in this process.


def test_auto_is_one_device_without_devices_and_workers(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setattr(keras, "__version__", "3.10.0")
    assert distribution.strategy("auto").num_replicas_in_sync == 1
    assert isinstance(distribution.strategy("mirrored"), distribution.MirroredStrategy)
    with pytest.raises(ValueError, match="name: expected one of 'auto'"):
        distribution.strategy("tpu")


def test_options_of_compile_that_replicas_lack_are_refused(monkeypatch):
    monkeypatch.setattr(keras, "__version__", "3.10.0")
    model = VAE(build_encoder(4, (3,), 2), build_decoder(2, (3,), 4))
    model._distribute_strategy = FakeStrategy()
    for options, message in [
        ({"steps_per_execution": 2}, "steps_per_execution: expected 1 with several replicas"),
        ({"jit_compile": True}, "jit_compile: expected False with several replicas on CPUs"),
    ]:
        model.compile("sgd", **options)
        for method in (model.fit, model.evaluate):
            with pytest.raises(ValueError, match=message):
                method(np.zeros((4, 4), "float32"), verbose=0)


def test_article_loop_of_a_gan_is_refused(monkeypatch):
    networks = build_generator(2, (3,), 4), build_discriminator(4, (3,))
    monkeypatch.setattr(GAN, "distribute_strategy", FakeStrategy())
    with pytest.raises(ValueError, match="train_gan: expected one replica"):
        train_gan(*networks, np.zeros((4, 4), "float32"))


class FakeStrategy:
    """Two replicas of a CPU, for checks that come before any computation."""

    num_replicas_in_sync = 2

    def __init__(self):
        self.extended = types.SimpleNamespace(worker_devices=("/device:CPU:0", "/device:CPU:1"))


class FakeContext:
    """A replica whose sum over all replicas is twice its own value."""

    @staticmethod
    def all_reduce(reduce_op, values):
        assert reduce_op in ("SUM", tf.distribute.ReduceOp.SUM)
        return [2 * value for value in values]


def test_gradients_are_clipped_after_they_are_added(monkeypatch):
    monkeypatch.setattr(replicas, "num_replicas", lambda: 2)
    monkeypatch.setattr(tf.distribute, "get_replica_context", FakeContext)
    variables = [keras.Variable([0.0, 0.0]), keras.Variable([0.0])]
    gradients = [tf.constant([3.0, 0.0]), tf.constant([4.0])]  # the sum has norm 10
    for clipping, expected in [
        ({"global_clipnorm": 5.0}, [[3.0, 0.0], [4.0]]),
        ({"clipnorm": 7.0}, [[6.0, 0.0], [7.0]]),
        ({"clipvalue": 1.0}, [[1.0, 0.0], [1.0]]),
    ]:
        for scaled in (False, True):
            optimizer = keras.optimizers.SGD(1.0, **clipping)
            scale = 1.0
            if scaled:
                optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=8.0)
                scale = 8.0
            optimizer.build(variables)
            for variable in variables:
                variable.assign(tf.zeros_like(variable))
            # Keras's own sum over replicas is replaced, too: this replica has half of the result.
            replicas.apply_gradients(optimizer, [scale * g for g in gradients], variables)
            for variable, step in zip(variables, expected, strict=True):
                found = keras.ops.convert_to_numpy(variable)
                np.testing.assert_allclose(found, -np.array(step), rtol=1e-6)


def test_an_optimizer_that_clips_and_accumulates_is_refused(monkeypatch):
    monkeypatch.setattr(replicas, "num_replicas", lambda: 2)
    monkeypatch.setattr(tf.distribute, "get_replica_context", FakeContext)
    optimizer = keras.optimizers.SGD(1.0, clipnorm=1.0, gradient_accumulation_steps=2)
    with pytest.raises(ValueError, match="clips or accumulates gradients, not both"):
        replicas.apply_gradients(optimizer, [tf.ones(2)], [keras.Variable([0.0, 0.0])])


def test_weighted_loss_has_the_value_and_the_gradient_of_all_examples(monkeypatch):
    """A replica has 3 of 4 examples and 2 of 8 tokens, and a loss of 5, divided by 2 replicas."""
    monkeypatch.setattr(replicas, "num_replicas", lambda: 2)
    monkeypatch.setattr(replicas, "all_reduce_sum", lambda values: tf.constant([4.0, 8.0]))
    monkeypatch.setattr(tf.distribute, "get_replica_context", FakeContext)
    loss = tf.Variable(5.0)
    with tf.GradientTape() as tape:
        weighted = replicas.weight_loss(loss / 2, num_examples=3, count=2)
    # The sum over replicas of gradients is that of the mean over tokens: 2/8 of this loss.
    assert tape.gradient(weighted, loss).numpy() == pytest.approx(2 / 8)
    # A metric of R * loss, weighted by 3 of 4 examples, gets 2/8 of this loss, too.
    assert 2 * weighted.numpy() * 3 / 4 == pytest.approx(5 * 2 / 8)


def test_a_sum_over_the_batch_is_refused(monkeypatch):
    model = VAE(build_encoder(4, (3,), 2), build_decoder(2, (3,), 4))
    monkeypatch.setattr("keras_genai.models.in_one_of_several_replicas", lambda: True)
    model.loss = keras.losses.MeanSquaredError(reduction="sum")
    with pytest.raises(ValueError, match="loss: expected a mean over the batch"):
        model.weight_loss(tf.ones(()), tf.ones((2, 4)))


@pytest.mark.parametrize(
    "num_rows, num_replicas, sizes",
    [
        (32, 3, [11, 11, 10]),
        (4, 3, [2, 1, 1]),
        (3, 2, [2, 1]),
        (6, 2, [3, 3]),
        (5, 4, [2, 1, 1, 1]),
    ],
)
def test_each_row_of_a_batch_is_in_one_part(num_rows, num_replicas, sizes):
    rows = np.arange(num_rows)
    parts = [
        rows[slice(*map(int, replicas.replica_part(num_rows, num_replicas, replica)))]
        for replica in range(num_replicas)
    ]
    assert [len(part) for part in parts] == sizes
    np.testing.assert_array_equal(np.concatenate(parts), rows)


def test_each_replica_has_a_batch_of_fewer_rows_than_replicas():
    parts = [[int(bound) for bound in replicas.replica_part(2, 3, replica)] for replica in range(3)]
    assert parts == [[0, 2]] * 3


def test_batches_of_a_dataset_are_split_with_missing_targets():
    x = np.arange(7)
    dataset = tf.data.Dataset.from_tensor_slices((x, -x)).batch(5).map(lambda x, y: (x, None, y))
    context = tf.distribute.InputContext(2, 1, 4)  # two workers of two replicas: the second
    parts = list(distribution._split_batches(dataset, context))
    assert [part[0].numpy().tolist() for part in parts] == [[3], [4], [5, 6], [5, 6]]
    assert all(part[1] is None and (part[0] == -part[2]).numpy().all() for part in parts)


def test_example_batches_of_any_structure_are_reduced():
    strategy = distribution.MirroredStrategy(["CPU:0"])
    batch = {"x": tf.ones((3, 2)), "y": (tf.range(3.0), tf.constant(2.0))}
    reduced = strategy.reduce("MEAN", batch, axis=None)
    assert reduced["x"].shape == (3, 2) and reduced["y"][0].shape == (3,)
    assert strategy.reduce("MEAN", tf.constant(2.0), axis=0).numpy() == 2.0


def test_generation_on_replicas_joins_parts_in_order():
    strategy = distribution.MirroredStrategy(["CPU:0"])
    rows = np.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(
        replicas.run_on_replicas(strategy, lambda x: 2 * x, tf.constant(rows)), 2 * rows
    )


def test_lost_worker_is_one_clear_error_among_several_workers_only(monkeypatch):
    lost = tf.errors.UnavailableError(None, None, "recvmsg:Connection reset by peer")
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(tf.errors.UnavailableError), distribution.reraise_lost_worker():
        raise lost
    config = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    with (
        pytest.raises(cluster.LostWorkerError, match="another worker has ended"),
        distribution.reraise_lost_worker(),
    ):
        raise lost


def test_strategies_that_fit_cannot_use_are_refused(monkeypatch):
    assert distribution.to_strategy(None).num_replicas_in_sync == 1
    with pytest.raises(ValueError, match="distribute: expected one of None, 'auto'"):
        distribution.to_strategy("tpu")
    with pytest.raises(ValueError, match="distribute: expected a strategy from distribution"):
        monkeypatch.setattr(tf.distribute.MirroredStrategy, "num_replicas_in_sync", 2)
        distribution.to_strategy(tf.distribute.MirroredStrategy(["CPU:0"]))


def test_keras_before_3_10_is_refused_on_several_replicas(monkeypatch):
    monkeypatch.setattr(keras, "__version__", "3.9.2")
    with pytest.raises(ValueError, match=r"keras: expected at least version 3.10 .* got 3.9.2"):
        distribution.strategy("mirrored")
    assert distribution.strategy("auto").num_replicas_in_sync == 1


def test_settings_that_differ_between_workers_are_named(monkeypatch):
    class Workers(distribution.MultiWorkerStrategy):
        def __init__(self, others):
            self.others = others

        def _add_over_workers(self, numbers):
            return [a + b for a, b in zip(numbers, self.others(numbers), strict=True)]

    Workers(lambda numbers: numbers).check_agreement(seed=0, name="article4-vae")
    with pytest.raises(ValueError, match="seed: expected the same on all workers, got 0"):
        Workers(lambda n: n if len(n) == 1 else [1, 1]).check_agreement(seed=0)


def test_texts_are_generated_on_all_devices(capsys, monkeypatch):
    monkeypatch.setattr(keras, "__version__", "3.10.0")
    arguments = ["generate", "article3-rnn", "--prompt", "Alice", "--length", "9", "--seed", "1"]
    texts = []
    for options in ([], ["--distribute", "mirrored"]):
        assert main([*arguments, *options]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != ""


@pytest.mark.parametrize("method", ["predict", "predict_on_batch"])
def test_predictions_by_several_replicas_are_returned_once(method, monkeypatch):
    model = VAE(build_encoder(4, (3,), 2), build_decoder(2, (3,), 4))
    model._distribute_strategy = FakeStrategy()
    monkeypatch.setattr(keras.Model, method, lambda self, x: np.append(x, x, 0))
    x = np.random.default_rng(0).random((3, 4), "float32")
    np.testing.assert_array_equal(getattr(model, method)(x), x)
