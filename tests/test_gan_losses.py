"""Losses of a GAN: values by hand, gradient penalty, steps of the discriminator, refusals."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_genai.adversarial import gradient_penalty
from keras_genai.gan import GAN, build_discriminator, build_gan, build_generator

LOSSES = ["hinge", "wasserstein_gp"]


def build_scores(**options):
    """Build a discriminator of scores."""
    image = keras.Input((16,), name="image")
    hidden = layers.Dense(3, "tanh", **options)(layers.Rescaling(2.0, offset=-1.0)(image))
    return keras.Model(image, layers.Dense(1)(hidden), name="discriminator")


def build_model(loss, **options):
    keras.utils.set_random_seed(0)
    return GAN(build_generator(3, (5,), 16), build_scores(), seed=0, loss=loss, **options)


def images(count=8):
    return np.random.default_rng(1).random((count, 16), "float32")


def numpy_losses(loss, real, fake):
    if loss == "hinge":
        d_loss = np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean()
    else:
        d_loss = fake.mean() - real.mean()
    return d_loss, -fake.mean()


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_those_by_hand(loss, monkeypatch):
    monkeypatch.setattr("keras_genai.gan.gradient_penalty", lambda *arguments: 0.0)
    noise, real = np.random.default_rng(0).normal(size=(8, 3)).astype("float32"), images()
    model = build_model(loss)
    # Scores beyond the margins of the hinge, on both sides.
    model.discriminator.layers[-1].kernel.assign([[4.0], [-3.0], [2.0]])
    model.sample_noise = lambda batch_size, training=True: tf.constant(noise)
    model.compile(run_eagerly=True)
    d_real = np.asarray(model.discriminator(real), "float64")
    d_fake = np.asarray(model.discriminator(model.generator(noise)), "float64")
    assert d_real.min() < 1 < d_real.max() or d_fake.min() < -1 < d_fake.max()
    logs = model.evaluate(real, verbose=0, return_dict=True)
    d_loss, g_loss = numpy_losses(loss, d_real, d_fake)
    assert logs["discriminator_loss"] == pytest.approx(d_loss, rel=1e-5)
    assert logs["generator_loss"] == pytest.approx(g_loss, rel=1e-5)
    if loss == "hinge":
        assert logs["real_accuracy"] == np.float32((d_real > 0).mean())
        assert logs["fake_accuracy"] == np.float32((d_fake <= 0).mean())
    else:  # the zero of Wasserstein scores has no meaning
        assert set(logs) == {"discriminator_loss", "generator_loss"}


def test_gradient_penalty_of_a_linear_discriminator_is_that_of_its_weights():
    image = keras.Input((2, 2, 1))
    dense = layers.Dense(1)
    discriminator = keras.Model(image, dense(layers.Flatten()(image)))
    dense.kernel.assign([[1.0], [2.0], [-2.0], [4.0]])  # norm 5
    x = np.zeros((3, 2, 2, 1), "float32")
    assert float(gradient_penalty(discriminator, x, x + 1, None, 0)) == pytest.approx(10 * 4**2)
    dense.kernel.assign(np.zeros((4, 1)))  # a gradient of 0 has a finite penalty and gradient
    with tf.GradientTape() as tape:
        penalty = gradient_penalty(discriminator, x, x, None, 0)
    assert float(penalty) == pytest.approx(10, rel=1e-4)
    assert np.isfinite(tape.gradient(penalty, dense.kernel)).all()


def test_gradient_penalty_is_taken_between_real_and_generated_images():
    # D(x) = x^2 / 2 has the gradient x.
    image = keras.Input((1,))
    discriminator = keras.Model(image, layers.Multiply()([image, layers.Rescaling(0.5)(image)]))
    real, fake = np.full((4000, 1), 3, "float32"), np.full((4000, 1), 1, "float32")
    penalty = float(gradient_penalty(discriminator, real, fake, None, 0))
    # E[(x - 1)^2] of a uniform x in [1, 3] is 4 / 3.
    assert penalty == pytest.approx(10 * 4 / 3, rel=0.05)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("which", ["generator", "discriminator"])
def test_each_network_moves_in_its_own_step_only(loss, which):
    model = build_model(loss)
    rates = [keras.optimizers.SGD(0.1 if name == which else 0.0) for name in ("generator", "d")]
    if which == "discriminator":
        rates.reverse()
    model.compile(rates[0], keras.optimizers.SGD(0.1 if which == "discriminator" else 0.0))
    before = {name: getattr(model, name).get_weights() for name in ("generator", "discriminator")}
    model.fit(images(), batch_size=4, verbose=0)
    for name, weights in before.items():
        same = [
            np.array_equal(a, b)
            for a, b in zip(weights, getattr(model, name).get_weights(), strict=True)
        ]
        assert all(same) == (name != which)


def test_discriminator_takes_several_steps_for_one_of_the_generator():
    model = build_model("wasserstein_gp", discriminator_steps=3)
    model.compile("sgd", "sgd")
    model.fit(images(), batch_size=4, verbose=0)  # 2 batches
    assert int(model.discriminator_optimizer.iterations) == 6
    assert int(model.generator_optimizer.iterations) == 2


@pytest.mark.parametrize("loss", LOSSES)
def test_saved_model_continues_as_the_original(loss, tmp_path):
    model = build_model(loss, discriminator_steps=2)
    model.compile("sgd", "sgd")
    model.fit(images(), batch_size=4, shuffle=False, verbose=0)
    model.save(tmp_path / "gan.keras")
    loaded = keras.saving.load_model(tmp_path / "gan.keras")
    assert (loaded.loss_name, loaded.discriminator_steps) == (loss, 2)
    for each in (model, loaded):
        each.fit(images(), batch_size=4, shuffle=False, verbose=0)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_average_of_the_generators_weights_is_used_after_training():
    model = build_model("hinge")
    adam = keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.5)
    model.compile(adam, "sgd")
    recorded = []

    class Record(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            recorded.append(model.generator.get_weights())

    model.fit(images(12), batch_size=4, callbacks=[Record()], verbose=0)
    average = recorded[0]
    for weights in recorded[1:]:
        average = [0.5 * a + 0.5 * w for a, w in zip(average, weights, strict=True)]
    for expected, found in zip(average, model.generator.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: build_model("square"), "loss: expected one of 'non_saturating'"),
        (lambda: build_model("non_saturating"), "discriminator: expected probabilities"),
        (lambda: build_model("hinge", joint_batch=True), "joint_batch: expected False for loss="),
        (lambda: build_model("hinge", discriminator_steps=0), "discriminator_steps: expected"),
        (
            lambda: GAN(build_generator(3, (5,), 16), build_discriminator(16, (5,)), loss="hinge"),
            "discriminator: expected scores of any size for loss='hinge', got .* 'sigmoid'",
        ),
        (
            lambda: build_gan(build_generator(3, (5,), 16), build_scores()),
            "discriminator: expected probabilities",
        ),
    ],
)
def test_invalid_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
