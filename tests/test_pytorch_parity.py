"""Article 4's networks against PyTorch: equal initial weights, outputs, and weights after one step.

`fixtures/make_pytorch.py` computed PyTorch's results; PyTorch itself is not needed here.
"""

import pathlib

import keras
import numpy as np
import pytest
from fixtures.parameters import initial_weights, step_noise, subsample
from helpers import largest_difference

from keras_genai import datasets
from keras_genai.cnn import build_cnn
from keras_genai.gan import GAN, build_discriminator, build_generator
from keras_genai.vae import VAE, build_decoder, build_encoder

BATCH_SIZE = 8
TORCH = np.load(pathlib.Path(__file__).parent / "fixtures" / "pytorch.npz")


@pytest.fixture
def eight_digits():
    (images, labels), _ = datasets.load_mnist()
    return images[:BATCH_SIZE] / 255, labels[:BATCH_SIZE].astype("int32")


def to_keras(arrays, flattened=None):
    """Transpose PyTorch's layout to Keras's: (out, in) to (in, out), (o, i, h, w) to (h, w, i, o).

    `flattened` is the (channels, height, width) that PyTorch flattens before a dense layer; Keras
    flattens (height, width, channels).
    """
    for array in arrays:
        if flattened and array.ndim == 2 and array.shape[1] == np.prod(flattened):
            array = array.reshape(-1, *flattened).transpose(0, 2, 3, 1).reshape(len(array), -1)
        yield array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def from_keras(arrays, flattened=None):
    """Transpose Keras's layout to PyTorch's, the inverse of `to_keras`."""
    for array in arrays:
        array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        if flattened and array.ndim == 2 and array.shape[1] == np.prod(flattened):
            channels, height, width = flattened
            array = array.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)
            array = array.reshape(len(array), -1)
        yield array


def check_weights(weights, name, flattened=None):
    """Compare weights with PyTorch's after the step, which has changed them."""
    weights = [subsample(array) for array in from_keras(weights, flattened)]
    expected = [TORCH[f"{name}_weight_{i}"] for i in range(len(weights))]
    assert largest_difference(weights, expected) < 1e-6  # Keras's learning rate is float32
    before = [subsample(array) for array in initial_weights(name)]
    assert largest_difference(weights, before) > 1e-4


def adam(learning_rate, loss_scale=1.0):
    """Return an Adam whose first step is PyTorch's.

    PyTorch adds its epsilon, 1e-8, to the bias-corrected square root; Keras adds it to the raw one,
    which is smaller by sqrt(1 - 0.999) in the first step. If Keras's loss is PyTorch's times
    `loss_scale`, epsilon is scaled, too.
    """
    return keras.optimizers.Adam(learning_rate, epsilon=1e-8 * np.sqrt(1 - 0.999) * loss_scale)


def test_vae_step_matches_pytorch(double_precision, eight_digits, monkeypatch):
    x = eight_digits[0].reshape(BATCH_SIZE, 784)
    model = VAE(build_encoder(), build_decoder())
    model.set_weights(list(to_keras(initial_weights("vae"))))
    z_mean, z_log_var = model.encode(x)
    np.testing.assert_allclose(z_mean, TORCH["vae_mean"], atol=1e-12)
    np.testing.assert_allclose(z_log_var, TORCH["vae_log_var"], atol=1e-12)
    epsilon = step_noise(0, (BATCH_SIZE, 20))
    x_hat = model.decode(z_mean + np.exp(z_log_var / 2) * epsilon)
    np.testing.assert_allclose(x_hat, TORCH["vae_x_hat"], atol=1e-12)

    monkeypatch.setattr(keras.random, "normal", lambda *args, **kwargs: epsilon)
    # The article sums its loss over the batch; here it is the mean.
    model.compile(adam(1e-3, loss_scale=1 / BATCH_SIZE))
    logs = model.fit(x, batch_size=BATCH_SIZE, shuffle=False, verbose=0).history
    losses = [logs["reconstruction_loss"][0] * BATCH_SIZE, logs["kl_loss"][0] * BATCH_SIZE]
    np.testing.assert_allclose(losses, TORCH["vae_losses"], rtol=1e-6)
    check_weights(model.get_weights(), "vae")


def test_gan_step_matches_pytorch(double_precision, eight_digits):
    model = GAN(build_generator(), build_discriminator())
    model.generator.set_weights(list(to_keras(initial_weights("generator"))))
    model.discriminator.set_weights(list(to_keras(initial_weights("discriminator"))))
    fake = np.asarray(model.generator(step_noise(1, (BATCH_SIZE, 100))))
    np.testing.assert_allclose(2 * fake - 1, TORCH["fake"], atol=1e-12)  # here they are in [0, 1]
    np.testing.assert_allclose(model.discriminator(fake), TORCH["fake_output"], atol=1e-12)

    noise = iter([step_noise(1, (BATCH_SIZE, 100)), step_noise(2, (BATCH_SIZE, 100))])
    model.sample_noise = lambda batch_size: next(noise)
    model.compile(adam(2e-4), adam(2e-4))
    logs = model.fit(
        eight_digits[0].reshape(BATCH_SIZE, 784), batch_size=BATCH_SIZE, verbose=0
    ).history
    losses = [logs["discriminator_loss"][0], logs["generator_loss"][0]]
    np.testing.assert_allclose(losses, TORCH["gan_losses"], rtol=1e-6)
    check_weights(model.generator.get_weights(), "generator")
    check_weights(model.discriminator.get_weights(), "discriminator")


@pytest.mark.slow
def test_cnn_step_matches_pytorch(double_precision, eight_digits):
    x, y = eight_digits[0][..., None], eight_digits[1]
    flattened = (64, 7, 7)
    model = build_cnn()
    model.set_weights(list(to_keras(initial_weights("cnn"), flattened)))
    np.testing.assert_allclose(model(x), TORCH["logits"], atol=1e-12)

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(adam(1e-3), loss, jit_compile=False)
    logs = model.fit(x, y, batch_size=BATCH_SIZE, verbose=0).history
    np.testing.assert_allclose(logs["loss"], TORCH["cnn_losses"], rtol=1e-6)
    check_weights(model.get_weights(), "cnn", flattened)
