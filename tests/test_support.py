"""Every cell of the table in `tests/README.md`: what each model supports, and what it refuses.

A situation is a function of a `Family` and a folder. It returns arrays, such as trained weights, in
which the two ways of training must agree.
"""

import contextlib
import copy
import itertools
import pathlib
import pickle
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from families import BATCH_SIZE, NUM_EXAMPLES, adam, flat_layers
from helpers import add_random_noise, frozen_heap
from support import (
    FAMILIES,
    SITUATIONS,
    Batches,
    Excluded,
    Interruption,
    WeightsOfEpochs,
    assert_equal,
    batches,
    cast,
    dataset,
    first_losses,
    generator,
    go_on,
    optimizer_values,
    penalize,
    policies,
    render,
    take,
    train,
    values,
)

KEPT = np.array([1, 0, 1, 1, 0, 0, 1, 0], "float32")


def rate_of_zero():
    return keras.optimizers.SGD(0.0)


# Arguments of `fit`, `evaluate` and `compile`.


def sample_weight(family, path):
    def step(weights, data=(None, None)):
        model = family.build()
        family.compile(model)
        before = values(model.trainable_variables)
        history = family.fit(model, *data, batch_size=NUM_EXAMPLES, sample_weight=weights)
        change = zip(values(model.trainable_variables), before, strict=True)
        return [np.array(history.history["loss"][0]), *(a - b for a, b in change)]

    kept, others, everything = step(KEPT), step(1 - KEPT), step(np.ones(NUM_EXAMPLES))
    assert_equal(step(np.zeros(NUM_EXAMPLES)), [0 * array for array in kept], 1e-6)
    assert_equal(step(None), everything, 1e-5)
    if family.divides_by_weights:
        assert_equal(step(None, take(family.data(), KEPT > 0)), kept, 1e-5)
    else:
        assert_equal([a + b for a, b in zip(kept, others, strict=True)], everything, 1e-5)
    return kept


def evaluate_sample_weight(family, path):
    def evaluate(weights, data=None):
        model, (x, y) = family.build(), data or family.data()
        family.compile(model)
        options = {"batch_size": NUM_EXAMPLES, "verbose": 0, "return_dict": True}
        return model.evaluate(x, y, sample_weight=weights, **options)

    kept, others = evaluate(KEPT), evaluate(1 - KEPT)
    if family.divides_by_weights:
        expected = evaluate(None, take(family.data(), KEPT > 0))["loss"]
        assert kept["loss"] == pytest.approx(expected, rel=1e-5)
    else:
        assert kept["loss"] + others["loss"] == pytest.approx(evaluate(None)["loss"], rel=1e-5)
    _, history = train(
        family, rate_of_zero, validation_data=(*family.data(), KEPT), batch_size=NUM_EXAMPLES
    )
    for name, value in kept.items():
        assert history[f"val_{name}"] == pytest.approx([value], rel=1e-5)
    return [np.array(kept["loss"])]


def regularizers(family, path):
    expected, results = first_losses(family), []
    for i, _ in enumerate(family.losses):
        model = family.build()
        layer = family.kernel_layers(model)[i]
        layer.kernel.regularizer = keras.regularizers.L2(0.1)
        penalty = 0.1 * np.sum(values([layer.kernel])[0] ** 2)
        assert penalty > 1e-3
        family.compile(model)
        history = family.fit(model, epochs=2, batch_size=NUM_EXAMPLES).history
        assert history[family.losses[i]][0] == pytest.approx(expected[i] + penalty, rel=1e-5)
        results += values(model.trainable_variables)
    return results


def losses_of_layers(family, path):
    loss = first_losses(family)[0]
    model, history = train(family, build={"penalize": penalize}, epochs=2, batch_size=NUM_EXAMPLES)
    # Of ones, as in `penalize`. Older Keras does not divide it by the batch size.
    probe = keras.layers.ActivityRegularization(l2=0.01)
    probe(np.ones((NUM_EXAMPLES, *family.penalized_shape), "float32"))
    assert history[family.losses[0]][0] == pytest.approx(
        loss + 0.5 + float(probe.losses[0]), rel=1e-5
    )
    return values(model.trainable_variables)


def metrics(family, path):
    model, weights = family.build(seed=3), KEPT.reshape(family.weights_shape)
    family.remove_noise(model)
    arguments = {
        "metrics": [family.metric(name="plain")],
        "weighted_metrics": [family.metric(name="weighted")],
    }
    family.compile(model, **arguments)
    scores = family.scores(model)
    history = family.fit(model, batch_size=NUM_EXAMPLES, sample_weight=weights).history
    plain, weighted = history["plain"], history["weighted"]
    if scores is None:  # of a random target, the mean is the loss
        (plain_loss,) = first_losses(family, build={"seed": 3})
        assert plain == pytest.approx([plain_loss], rel=1e-5)
        assert weighted == pytest.approx([history["loss"][0] / np.mean(KEPT)], rel=1e-5)
    else:
        rows = np.mean(scores, axis=tuple(range(1, scores.ndim)))
        assert plain == pytest.approx([np.mean(rows)], abs=1e-5)
        assert weighted == pytest.approx([np.average(rows, weights=KEPT)], abs=1e-5)
        assert abs(plain[0] - weighted[0]) > 1e-4
    return [np.array(plain), np.array(weighted)]


def loss_weights(family, path):
    single = first_losses(family, compile={"loss_weights": [1.0]})[0]
    double = first_losses(family, compile={"loss_weights": [2.0]})[0]
    added = family.added_loss(family.build())
    assert double - added == pytest.approx(2 * (single - added), rel=1e-5)
    return [np.array(double)]


# Precision.


def mixed_precision(policy, tolerance, family, path):
    expected = first_losses(family)
    keras.config.set_dtype_policy(policy)
    model = family.build()
    before = values(model.trainable_variables)
    family.compile(model, adam)
    # Loss scaling skips steps until the gradients are finite in float16.
    trained = family.fit(model, epochs=6, batch_size=NUM_EXAMPLES)
    model, history = trained.model, trained.history
    losses = np.array([history[name] for name in family.losses])
    assert_equal(losses[:, 0], expected, tolerance)
    assert np.all(np.isfinite(losses))
    assert np.any(losses.astype("float16") != losses)  # more digits than float16 and bfloat16 have
    after = zip(values(model.trainable_variables), before, strict=True)
    assert np.mean([np.any(a != b) for a, b in after]) > 0.5
    outputs = family.outputs(model)
    model.save(path / "model.keras")
    if family.saves_precision:
        keras.config.set_dtype_policy("float32")
    loaded = keras.models.load_model(path / "model.keras")
    assert policy in policies(model)
    assert policies(loaded) == policies(model)
    assert_equal(family.outputs(loaded), outputs)
    assert_equal(optimizer_values(family, loaded), optimizer_values(family, model))
    return [losses[:, 0]]


def mixed_float16(family, path):
    return mixed_precision("mixed_float16", 5e-3, family, path)


def mixed_bfloat16(family, path):
    return mixed_precision("mixed_bfloat16", 5e-2, family, path)


@frozen_heap()
def int8(family, path):
    model = family.build()
    expected = family.outputs(model)
    with warnings.catch_warnings():
        # Keras names each layer that it cannot quantize.
        warnings.filterwarnings("ignore", "Layer .* does not have a `quantize", UserWarning)
        model.quantize("int8")
    assert "int8" in [getattr(layer, "quantization_mode", None) for layer in flat_layers(model)]
    outputs = family.outputs(model)
    assert_equal(outputs, expected, 0.1)
    model.save(path / "model.keras")
    loaded = keras.models.load_model(path / "model.keras")
    assert_equal(family.outputs(loaded), outputs)
    assert all(np.all(np.isfinite(array)) for array in family.generate(loaded, seed=0))
    return outputs


# Data.


def dtypes(family, path):
    x, y = family.data()
    expected = first_losses(family)
    for dtype in (
        ("uint8", "int64") if family.takes_tokens else ("bool", "uint8", "int64", "float64")
    ):
        data = keras.tree.map_structure(lambda a: cast(a, dtype), (x, y))
        assert_equal(first_losses(family, data=data), expected, 1e-6)
    if family.checks_tokens:
        for dtype in ("bool", "float32"):
            data = keras.tree.map_structure(lambda a: a.astype(dtype), (x, y))
            with pytest.raises(ValueError, match="^x: "):
                first_losses(family, data=data)
    return [expected]


def tf_data(family, path):
    expected, _ = train(family, epochs=2)
    x, y = keras.tree.map_structure(lambda a: cast(a, "float64"), family.data())
    x = tuple(x) if isinstance(x, list) else x
    source = tf.data.Dataset.from_tensor_slices(x if y is None else (x, y)).batch(BATCH_SIZE)
    model, _ = train(family, epochs=2, data=(source, None), shuffle=False)
    assert_equal(values(model.trainable_variables), values(expected.trainable_variables), 1e-6)
    return values(model.trainable_variables)


def other_sources(family, path):
    expected, _ = train(family, epochs=2)
    source = batches(family.data())
    for data, steps in ((Batches(source), {}), (generator(source), {"steps_per_epoch": 2})):
        model, _ = train(family, epochs=2, data=(data, None), shuffle=False, **steps)
        trained = values(model.trainable_variables)
        assert_equal(trained, values(expected.trainable_variables), 1e-6)
    return trained


def invalid_data(family, path):
    model = family.build()
    family.compile(model)
    for message, (x, y) in family.invalid().items():

        def refused():
            return pytest.raises(ValueError, match=f"^{message}")

        before = values(model.trainable_variables)
        with refused():
            family.fit(model, x, y)
        assert_equal(values(model.trainable_variables), before)  # refused before the first step
        if family.arrays_only:
            continue
        for method in (model.evaluate, model.train_on_batch, model.test_on_batch):
            with refused():
                method(x, y)
        second = batches((x, y))[1]
        source = [batches(family.data())[0], second]
        for data in (dataset(source), Batches(source), generator(source)):
            with refused():
                family.fit(model, data, shuffle=False)
    if family.takes_tokens:
        family.compile(model, jit_compile=True)
        message, (x, y) = next(iter(family.invalid().items()))
        with pytest.raises(ValueError, match=f"^{message}"):
            family.fit(
                model, dataset([batches(family.data())[0], batches((x, y))[1]]), shuffle=False
            )
    return []


def invalid_inputs(family, path):
    model = family.build()
    for message, x in family.invalid_inputs().items():
        for method in (model.predict, model.predict_on_batch):
            with pytest.raises(ValueError, match=f"^{message}"):
                method(x)
    return []


# Training with callbacks, frozen layers and random numbers.


def frozen_layer(family, path):
    model = family.build()
    layer = family.layer_to_freeze(model)
    layer.trainable = False
    before, others = values(layer.variables), values(model.trainable_variables)
    family.compile(model, adam)
    model = family.fit(model).model
    assert_equal(values(layer.variables), before)
    changed = zip(values(model.trainable_variables), others, strict=True)
    assert any(np.any(a != b) for a, b in changed)
    trained = values(model.trainable_variables)
    model.save(path / "model.keras")
    loaded = keras.models.load_model(path / "model.keras")
    flags = [layer.trainable for layer in flat_layers(model)]
    assert not all(flags)
    assert [layer.trainable for layer in flat_layers(loaded)] == flags
    assert int(loaded.optimizer.iterations) == 2
    assert_equal(optimizer_values(family, loaded), optimizer_values(family, model))
    assert_equal(go_on(family, loaded), go_on(family, model))
    return trained


def learning_rate_callbacks(family, path):
    stop = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 if epoch == 0 else 0.0)
    expected, _ = train(family)
    model, _ = train(family, epochs=2, callbacks=[stop])
    trained = values(model.trainable_variables)
    assert_equal(trained, values(expected.trainable_variables))
    plateau = keras.callbacks.ReduceLROnPlateau(
        family.losses[0], factor=0.5, patience=1, min_delta=1e9, mode="min"
    )
    model, _ = train(family, epochs=2, callbacks=[plateau])
    rates = [float(optimizer.learning_rate) for optimizer in family.optimizers(model)]
    assert rates == pytest.approx([0.05] * len(rates))
    return trained


def checkpoint_callbacks(family, path):
    epochs, name = WeightsOfEpochs(), family.losses[0]
    checkpoint = keras.callbacks.ModelCheckpoint(path / "{epoch}.keras")
    early = keras.callbacks.EarlyStopping(name, mode="max", patience=1, restore_best_weights=True)
    model, history = train(family, epochs=4, callbacks=[epochs, checkpoint, early])
    best = int(np.argmax(history[name]))
    assert len(history[name]) == min(best + 2, 4)
    assert_equal(values(model.weights), epochs.weights[best])
    loaded = keras.models.load_model(path / f"{best + 1}.keras")
    assert_equal(family.outputs(loaded), family.outputs(model))
    return values(model.trainable_variables)


def backup(family, path):
    expected, _ = train(family, adam, epochs=3)
    for interruption in ([Interruption()], []):
        callbacks = [keras.callbacks.BackupAndRestore(path / "backup"), *interruption]
        with contextlib.suppress(InterruptedError):
            model, history = train(family, adam, epochs=3, callbacks=callbacks)
    assert len(history[family.losses[0]]) == 1
    trained = values(model.trainable_variables)
    assert_equal(trained, values(expected.trainable_variables), 1e-6)
    return trained


def evaluation_in_between(family, path):
    expected, _ = train(family, epochs=2)
    x, y = family.data()
    model, _ = train(family, validation_data=(x, y))
    model.evaluate(x, y, verbose=0)
    family.generate(model)
    family.fit(model, validation_data=(x, y))
    assert_equal(values(model.trainable_variables), values(expected.trainable_variables))
    return values(model.trainable_variables)


def set_random_seed(family, path):
    def run(seed):
        keras.utils.set_random_seed(seed)
        dropout = {"dropout": 0.5} if family.has_dropout else {}
        model, _ = train(family, build={"seed": None, **dropout}, shuffle=True)
        return values(model.trainable_variables), family.generate(model)

    (weights, generated), (weights_again, generated_again) = run(0), run(0)
    assert_equal(weights_again, weights)
    assert_equal(generated_again, generated)
    other_weights = values(family.build(seed=None).trainable_variables)
    assert any(np.any(a != b) for a, b in zip(other_weights, weights, strict=True))
    return []


# Copies and files.


def clone_model(family, path):
    model = family.build()
    clone = keras.models.clone_model(model)
    assert type(clone) is type(model)
    assert [w.shape for w in clone.weights] == [w.shape for w in model.weights]
    return []


def copies(family, path):
    model, _ = train(family, adam)
    trained = values(model.trainable_variables)
    others = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    outputs = family.outputs(model)
    weights = go_on(family, model)
    for other in others:
        assert type(other) is type(model)
        assert_equal(family.outputs(other), outputs)
        assert_equal(go_on(family, other), weights)
    return trained


def load_uncompiled(family, path):
    model = family.build()
    model.save(path / "model.keras")
    loaded = keras.models.load_model(path / "model.keras", compile=False)
    assert type(loaded) is type(model)
    assert_equal(family.outputs(loaded), family.outputs(model))
    return []


def load_part(family, path):
    model, other = family.build(), family.build(seed=1)
    for part in family.parts(other):
        add_random_noise(part)  # a U-Net predicts 0 at first
    parts = zip(family.parts(model), family.parts(other), strict=True)
    before = family.generate(model, seed=0)
    in_parts = set()
    for part, other_part in parts:
        other_part.save_weights(path / "part.weights.h5")
        part.load_weights(path / "part.weights.h5")
        in_parts |= {id(variable) for variable in other_part.variables}
    for variable, other_variable in zip(
        model.trainable_variables, other.trainable_variables, strict=True
    ):
        if id(other_variable) not in in_parts:
            other_variable.assign(variable)
    generated = family.generate(model, seed=0)
    assert_equal(generated, family.generate(other, seed=0))
    assert_equal(family.outputs(model), family.outputs(other))
    assert any(np.any(a != b) for a, b in zip(generated, before, strict=True))
    return []


def unknown_argument(family, path):
    family.build(unknown=1)
    return []


def kl_annealing(family, path):
    model, weights = family.build(), (0.0, 1.0, 0.5)
    family.remove_noise(model)
    family.compile(model, rate_of_zero, run_eagerly=False)
    layer = family.kl_owner(model)

    def set_weight(epoch, logs=None):
        setattr(*layer, weights[epoch])

    callback = keras.callbacks.LambdaCallback(on_epoch_begin=set_weight)
    losses = family.fit(model, epochs=3, callbacks=[callback]).history["loss"]
    kl = family.added_loss(model)
    np.testing.assert_allclose(losses, losses[0] + kl * np.array(weights), rtol=1e-5)
    model.save(path / "model.keras")
    model.save_weights(path / "model.weights.h5")
    restored = family.build()
    restored.load_weights(path / "model.weights.h5")
    for other in (keras.models.load_model(path / "model.keras"), restored):
        assert getattr(*family.kl_owner(other)) == 0.5
    return [np.array(losses)]


# The test of all cells.


@pytest.fixture(autouse=True)
def float32_policy():
    yield
    keras.config.set_dtype_policy("float32")


CELLS = [
    (situation, family)
    for situation, family in itertools.product(SITUATIONS, FAMILIES)
    if not isinstance(SITUATIONS[situation].cell(family), Excluded)
]


@pytest.mark.slow
@pytest.mark.parametrize(("situation", "name"), CELLS)
def test_cell(situation, name, tmp_path):
    run, family, row = globals()[situation], FAMILIES[name], SITUATIONS[situation]
    refused = row.cell(name)
    if refused is not None:
        with pytest.raises(refused.error, match=rf"\b{refused.argument}\b"):
            run(family, tmp_path)
        return
    results = run(family, tmp_path)
    if family.partner is not None and row.cell(family.partner) is None:
        (tmp_path / "partner").mkdir()
        others = run(FAMILIES[family.partner], tmp_path / "partner")
        assert_equal(results, others, row.tolerance)


def test_readme_is_up_to_date():
    written = (pathlib.Path(__file__).parent / "README.md").read_text(encoding="utf-8")
    assert written == render(), "run: python tests/support.py > tests/README.md"
