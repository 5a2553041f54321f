"""Article 4's networks against PyTorch: same weights in, same outputs, same weights after one step.

`fixtures/make_pytorch.py` made the other side; PyTorch itself is not needed here.
"""

import pathlib

import keras
import numpy as np
import pytest
from conftest import largest_difference
from fixtures.parameters import draw, draw_noise, some

from keras_genai import datasets
from keras_genai.cnn import build_cnn
from keras_genai.gan import GAN, build_discriminator, build_generator
from keras_genai.vae import VAE, build_decoder, build_encoder

BATCH = 8
TORCH = np.load(pathlib.Path(__file__).parent / "fixtures" / "pytorch.npz")


@pytest.fixture
def eight_digits():
    (images, labels), _ = datasets.load_mnist()
    return images[:BATCH] / 255, labels[:BATCH].astype("int32")


def to_keras(arrays, flattened=None):
    """PyTorch's layout to Keras's: (out, in) to (in, out), (out, in, h, w) to (h, w, in, out).

    `flattened` is the (channels, height, width) that PyTorch flattens before a dense layer; Keras
    flattens height, width, channels.
    """
    for array in arrays:
        if flattened and array.ndim == 2 and array.shape[1] == np.prod(flattened):
            array = array.reshape(-1, *flattened).transpose(0, 2, 3, 1).reshape(len(array), -1)
        yield array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def from_keras(arrays, flattened=None):
    """The reverse of `to_keras`."""
    for array in arrays:
        array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        if flattened and array.ndim == 2 and array.shape[1] == np.prod(flattened):
            channels, height, width = flattened
            array = array.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)
            array = array.reshape(len(array), -1)
        yield array


def check_weights(weights, name, flattened=None):
    """Compare with what PyTorch's step left, and make sure that the step was seen."""
    ours = [some(array) for array in from_keras(weights, flattened)]
    theirs = [TORCH[f"{name}_weight_{i}"] for i in range(len(ours))]
    assert largest_difference(ours, theirs) < 1e-6  # Keras keeps its learning rate in float32
    assert largest_difference(ours, [some(array) for array in draw(name)]) > 1e-4


def adam(learning_rate, loss_scale=1.0):
    """PyTorch's first Adam step.

    PyTorch adds its epsilon, 1e-8, to the bias-corrected root; Keras to the raw one, which in the
    first step is smaller by sqrt(1 - 0.999). Where our loss is PyTorch's times `loss_scale`, so is
    epsilon.
    """
    return keras.optimizers.Adam(learning_rate, epsilon=1e-8 * np.sqrt(1 - 0.999) * loss_scale)


def test_vae(double_precision, eight_digits, monkeypatch):
    x = eight_digits[0].reshape(BATCH, 784)
    model = VAE(build_encoder(), build_decoder())
    model.set_weights(list(to_keras(draw("vae"))))
    z_mean, z_log_var = model.encode(x)
    np.testing.assert_allclose(z_mean, TORCH["vae_mean"], atol=1e-12)
    np.testing.assert_allclose(z_log_var, TORCH["vae_log_var"], atol=1e-12)
    epsilon = draw_noise(0, (BATCH, 20))
    x_hat = model.decode(z_mean + np.exp(z_log_var / 2) * epsilon)
    np.testing.assert_allclose(x_hat, TORCH["vae_x_hat"], atol=1e-12)

    monkeypatch.setattr(keras.random, "normal", lambda *args, **kwargs: epsilon)
    # The article sums its loss over the batch, we take the mean.
    model.compile(adam(1e-3, loss_scale=1 / BATCH))
    logs = model.fit(x, batch_size=BATCH, shuffle=False, verbose=0).history
    losses = [logs["reconstruction"][0] * BATCH, logs["kl"][0] * BATCH]
    np.testing.assert_allclose(losses, TORCH["vae_losses"], rtol=1e-6)
    check_weights(model.get_weights(), "vae")


def test_gan(double_precision, eight_digits):
    model = GAN(build_generator(), build_discriminator())
    model.generator.set_weights(list(to_keras(draw("generator"))))
    model.discriminator.set_weights(list(to_keras(draw("discriminator"))))
    fake = np.asarray(model.generator(draw_noise(1, (BATCH, 100))))
    np.testing.assert_allclose(2 * fake - 1, TORCH["fake"], atol=1e-12)  # ours are in [0, 1]
    np.testing.assert_allclose(model.discriminator(fake), TORCH["judged"], atol=1e-12)

    noise = iter([draw_noise(1, (BATCH, 100)), draw_noise(2, (BATCH, 100))])
    model.sample_noise = lambda batch_size: next(noise)
    model.compile(adam(2e-4), adam(2e-4))
    logs = model.fit(eight_digits[0].reshape(BATCH, 784), batch_size=BATCH, verbose=0).history
    losses = [logs["discriminator_loss"][0], logs["generator_loss"][0]]
    np.testing.assert_allclose(losses, TORCH["gan_losses"], rtol=1e-6)
    check_weights(model.generator.get_weights(), "generator")
    check_weights(model.discriminator.get_weights(), "discriminator")


def test_cnn(double_precision, eight_digits):
    x, y = eight_digits[0][..., None], eight_digits[1]
    flattened = (64, 7, 7)
    model = build_cnn()
    model.set_weights(list(to_keras(draw("cnn"), flattened)))
    np.testing.assert_allclose(model(x), TORCH["logits"], atol=1e-12)

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(adam(1e-3), loss, jit_compile=False)
    logs = model.fit(x, y, batch_size=BATCH, verbose=0).history
    np.testing.assert_allclose(logs["loss"], TORCH["cnn_losses"], rtol=1e-6)
    check_weights(model.get_weights(), "cnn", flattened)
