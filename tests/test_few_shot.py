"""Few-shot generation: new classes leave the old ones as they are, and can be trained."""

import keras
import numpy as np
import pytest
from helpers import add_random_noise, set_random_weights

from keras_genai import load_model
from keras_genai.conditioning import OneHot
from keras_genai.diffusion import DDPM, NoiseSchedule, build_unet
from keras_genai.few_shot import add_classes

X = np.random.default_rng(0).uniform(size=(12, 4, 4, 1)).astype("float32")
LABELS = np.arange(12, dtype="int32") % 3


def build_model(num_classes=3, **options):
    network = set_random_weights(build_unet((4, 4, 1), (4, 6), num_classes=num_classes))
    model = DDPM(network, NoiseSchedule("cosine", 8), seed=0, **options)
    add_random_noise(model.ema_network, 0.1)  # other weights than those of the network
    return model


def label_kernel(network):
    """Return the weights that follow the one-hot encoding, `(num_classes, dim)`."""
    (one_hot,) = (layer for layer in network.layers if isinstance(layer, OneHot))
    return next(
        w for w in network.get_weights() if w.shape[0] == one_hot.num_classes and w.ndim == 2
    )


def test_old_labels_and_no_label_give_the_same_outputs():
    model = build_model(prediction_type="v", ema_momentum=0.9, cond_drop_prob=0.2)
    wide = add_classes(model, 2)
    assert wide.num_classes == 5
    for name in ("prediction_type", "ema_momentum", "cond_drop_prob", "seed"):
        assert getattr(wide, name) == getattr(model, name)
    t = np.arange(12, dtype="int32") % 8
    for labels in (LABELS, np.full(12, -1)):
        for name in ("network", "ema_network"):
            outputs = [np.asarray(getattr(m, name)([X, t, labels])) for m in (model, wide)]
            np.testing.assert_array_equal(*outputs)
    for options in ({"labels": LABELS, "guidance_scale": 2.0}, {"labels": None}):
        generated = [m.generate(12, num_steps=3, seed=1, **options) for m in (model, wide)]
        np.testing.assert_array_equal(*generated)
    assert np.ptp(outputs[0]) > 0.1


def test_a_new_label_begins_as_the_mean_of_the_old_ones():
    model = build_model()
    wide = add_classes(model, 2)
    for name in ("network", "ema_network"):
        old, new = (label_kernel(getattr(m, name)) for m in (model, wide))
        np.testing.assert_array_equal(new[:3], old)
        np.testing.assert_allclose(new[3:], [old.mean(axis=0)] * 2, rtol=1e-6)


@pytest.mark.slow
def test_training_of_the_copy_leaves_the_model_as_it_is():
    model = build_model()
    before = [weight.copy() for weight in model.get_weights()]
    wide = add_classes(model)
    start = label_kernel(wide.network)
    wide.compile(keras.optimizers.Adam(0.01))
    wide.fit(X, np.full(12, 3), batch_size=4, verbose=0)
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)
    change = np.abs(label_kernel(wide.network) - start).max(axis=1)
    assert change[3] > 0 and not change[:3].any()  # rows of labels that did not occur


def test_average_of_the_pretrained_weights_is_not_replaced_by_the_weights():
    wide = add_classes(build_model())
    average = wide.ema_network.get_weights()
    wide.generate(1, 3, num_steps=2, seed=0)
    for weight, expected in zip(wide.ema_network.get_weights(), average, strict=True):
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.slow
def test_copy_is_saved_and_loaded(tmp_path):
    wide = add_classes(build_model())
    wide.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    expected, images = (m.generate(2, [3, 0], num_steps=2, seed=0) for m in (wide, loaded))
    np.testing.assert_allclose(images, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("message", "make", "num_new"),
    [
        ("model: expected a DDPM with classes", lambda: build_model(None), 1),
        ("model: expected a DDPM, got", keras.Sequential, 1),
        ("num_new: expected a whole number of at least 1", build_model, 0),
    ],
)
def test_other_models_and_numbers_are_refused(message, make, num_new):
    with pytest.raises(ValueError, match=f"^{message}"):
        add_classes(make(), num_new)
