"""Checks of every batch: the same batches afterwards, and the original error."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_genai.batch_checks import BatchCheck
from keras_genai.vae import VAE, build_decoder, build_encoder

X = np.random.default_rng(0).uniform(size=(8, 12)).astype("float32")


class Batches(keras.utils.PyDataset):
    """Batches of two images, which count the epochs."""

    def __init__(self, x, **kwargs):
        super().__init__(**kwargs)
        self.x, self.epochs = x, 0

    def __len__(self):
        return len(self.x) // 2

    def __getitem__(self, index):
        return (self.x[2 * index : 2 * index + 2],)

    def on_epoch_end(self):
        self.epochs += 1


def sources(x):
    """All kinds of sources that Keras takes, with the same batches of two."""
    return {
        "dataset": tf.data.Dataset.from_tensor_slices(x).batch(2),
        "dataset of tuples": tf.data.Dataset.from_tensor_slices((x,)).batch(2),
        "PyDataset": Batches(x),
        "PyDataset of two workers": Batches(x, workers=2),
        "generator": ((x[i : i + 2],) for i in range(0, len(x), 2)),
        "iterable": [(x[i : i + 2],) for i in range(0, len(x), 2)],
    }


def small_vae():
    keras.utils.set_random_seed(0)
    model = VAE(build_encoder(12, (4,), 2), build_decoder(2, (4,), 12), seed=0)
    model.compile("sgd", jit_compile=False)
    return model


@pytest.mark.parametrize("kind", sources(X))
def test_batches_and_structures_are_unchanged(kind):
    def read(source):
        if isinstance(source, keras.utils.PyDataset):
            return [source[i] for i in range(source.num_batches)]
        return list(source)

    checked = read(BatchCheck(lambda x, y, sample_weight: None).apply(sources(X)[kind]))
    original = read(sources(X)[kind])
    for batch, expected in zip(checked, original, strict=True):
        assert type(batch) is type(expected)
        keras.tree.map_structure(np.testing.assert_array_equal, batch, expected)


@pytest.mark.parametrize("kind", [kind for kind in sources(X) if kind != "iterable"])
@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
def test_invalid_later_batch_raises_the_error_of_arrays(kind, method):
    invalid = X.copy()
    invalid[5] = 255
    source = sources(invalid)[kind]
    options = {"shuffle": False} if method == "fit" else {}
    with pytest.raises(ValueError, match=r"^x: expected pixels scaled to \[0, 1\], got"):
        getattr(small_vae(), method)(source, verbose=0, **options)


def test_validation_data_is_checked():
    for validation_data in (
        (255 * X,),
        (X, None, np.full(8, np.nan)),
        sources(255 * X)["dataset"],
    ):
        with pytest.raises(ValueError, match=r"^(x|sample_weight): expected"):
            small_vae().fit(X, validation_data=validation_data, verbose=0)


@pytest.mark.parametrize("call", ["train_on_batch", "test_on_batch", "predict_on_batch"])
def test_single_batches_are_checked(call):
    with pytest.raises(ValueError, match="^x: expected pixels"):
        getattr(small_vae(), call)(255 * X)


def test_other_errors_of_a_source_are_raised_as_they_are():
    def broken():
        yield (X[:2],)
        raise OSError("no such image")

    with pytest.raises(Exception, match="no such image"):
        small_vae().fit(broken(), shuffle=False, verbose=0)


def test_py_dataset_is_told_of_its_epochs_as_by_keras():
    stock = keras.Sequential([keras.Input((12,)), keras.layers.Dense(1, activity_regularizer="l1")])
    stock.compile("sgd")  # the activity is its only loss
    epochs = []
    for model in (small_vae(), stock):
        batches = Batches(X)
        model.fit(batches, epochs=2, verbose=0)
        epochs.append(batches.epochs)
    assert epochs[0] == epochs[1] > 1


def without_targets(kind):
    """A source of images and sample weights without targets."""
    weights = np.arange(8, dtype="float32")
    if kind == "dataset":
        dataset = tf.data.Dataset.from_tensor_slices((X, weights)).batch(2)
        return dataset.map(lambda x, sample_weight: (x, None, sample_weight))
    batches = [(X[i : i + 2], None, weights[i : i + 2]) for i in range(0, 8, 2)]
    if kind == "generator":
        return (batch for batch in batches)
    dataset = Batches(X)
    dataset.__class__ = type("Weighted", (Batches,), {"__getitem__": lambda self, i: batches[i]})
    return dataset


@pytest.mark.parametrize("kind", ["dataset", "PyDataset", "generator"])
def test_weights_without_targets_count_in_every_source(kind):
    expected = small_vae().fit(
        X, sample_weight=np.arange(8), batch_size=2, shuffle=False, verbose=0
    )  # fmt: skip
    source = without_targets(kind)
    result = small_vae().fit(source, shuffle=False, steps_per_epoch=4, verbose=0)
    assert result.history["loss"] == pytest.approx(expected.history["loss"], rel=1e-6)


@pytest.mark.parametrize(
    "weights, message",
    [
        (np.ones(7), r"expected shape \(8,\), got \(7,\)"),
        (np.ones((8, 12)), r"expected shape \(8,\), got \(8, 12\)"),
        (np.array([np.nan] * 8), "expected finite numbers"),
        (np.array(["1"] * 8), "expected numbers"),
    ],
)
def test_invalid_sample_weights_raise(weights, message):
    with pytest.raises(ValueError, match=f"sample_weight: {message}"):
        small_vae().fit(X, sample_weight=weights, verbose=0)


def test_positional_validation_data_is_checked():
    arguments = (None, 4, 1, 0, None, 0.0)
    assert "val_loss" in small_vae().fit(X, *arguments, (X,)).history
    with pytest.raises(ValueError, match="^x: expected pixels"):
        small_vae().fit(X, *arguments, (255 * X,))


def test_frozen_model_raises():
    model = small_vae()
    model.trainable = False
    with pytest.raises(ValueError, match="vae: expected trainable weights, got a frozen model"):
        model.fit(X, verbose=0)


def test_class_weight_without_labels_raises():
    with pytest.raises(ValueError, match="class_weight: expected None without labels"):
        small_vae().fit(X, class_weight={0: 2.0}, verbose=0)


def test_sample_weights_of_shape_n_1_are_those_of_shape_n():
    losses = [
        small_vae().fit(X, sample_weight=weights, shuffle=False, verbose=0).history["loss"]
        for weights in (np.arange(8), np.arange(8)[:, None], tf.range(8))
    ]
    assert losses[0] == losses[1] == losses[2]
