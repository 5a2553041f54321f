"""Two replicas of a MirroredStrategy train as one does: their losses are averaged, not added."""

import subprocess
import sys

# Two logical CPUs must be set up before TensorFlow starts, so this runs in a process of its own.
PROGRAM = """
import contextlib
import keras, numpy as np, tensorflow as tf
from keras_genai.diffusion import DDPM, NoiseSchedule, build_unet
from keras_genai.gan import GAN, build_discriminator, build_generator
from keras_genai.pixelcnn import build_pixelcnn
from keras_genai.transformer import MaskedCrossentropy, build_seq2seq_transformer
from keras_genai.vae import VAE, Sampling, build_decoder, build_encoder, build_vae
from keras_genai.vae import reconstruction_loss

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
x = np.random.default_rng(0).uniform(size=(64, 12)).astype("float32")

# The two replicas draw other noise than one does. Without noise they must agree.
Sampling.call = lambda self, inputs: inputs[0]
GAN.sample_noise = lambda self, batch_size: tf.ones((batch_size, 3))
DDPM.sample_noise = lambda self, x: (tf.fill(tf.shape(x)[:1], 5), x - 0.5)

def vae_networks():
    return build_encoder(12, (8,), 3), build_decoder(3, (8,), 12)

def stock_vae():
    model = build_vae(*vae_networks())
    model.compile(keras.optimizers.SGD(0.01), loss=reconstruction_loss, jit_compile=False)
    return model, (x, x)

def custom_vae():
    model = VAE(*vae_networks())
    model.compile(keras.optimizers.SGD(0.01), jit_compile=False)
    return model, (x,)

def pixelcnn():
    model = build_pixelcnn((4, 3, 1), 4, 2)
    model.compile(keras.optimizers.SGD(0.01), jit_compile=False)
    return model, (x.reshape(64, 4, 3, 1),)

def ddpm():
    model = DDPM(build_unet((4, 3, 1), (4,)), NoiseSchedule("cosine", 9), ema_momentum=0.5)
    model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    return model, (x.reshape(64, 4, 3, 1),)

def gan(joint_batch):
    model = GAN(build_generator(3, (8,), 12), build_discriminator(12, (8,)), joint_batch)
    model.compile(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1), jit_compile=False)
    return model, (x,)

# A replica's loss is the mean of its own tokens: each has as many, though its sentences differ.
tokens = np.random.default_rng(0).integers(3, 9, size=(2, 64, 8)).astype("int32")
tokens[:, 1::2, 5:] = 0

def stock_transformer():
    network = build_seq2seq_transformer(9, 9, 8, 1, 8, 2, 12, dropout=0.0)
    model = keras.Model(network.inputs, network.outputs)
    model.compile(keras.optimizers.SGD(0.1), MaskedCrossentropy(0.1), jit_compile=False)
    return model, ([tokens[0], tokens[1, :, :-1]], tokens[1, :, 1:])

def custom_transformer():
    model = build_seq2seq_transformer(9, 9, 8, 1, 8, 2, 12, dropout=0.0)
    model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    return model, (tokens[0], tokens[1])

gans = (lambda: gan(False), lambda: gan(True))
transformers = (stock_transformer, custom_transformer)
for build in (stock_vae, custom_vae, pixelcnn, ddpm, *gans, *transformers):
    results = []
    for scope in (contextlib.nullcontext(), strategy.scope()):
        keras.utils.set_random_seed(0)
        with scope:
            model, data = build()
            before = model.get_weights()
            history = model.fit(*data, batch_size=32, epochs=2, shuffle=False, verbose=0).history
        weights = model.get_weights()
        assert max(np.abs(a - b).max() for a, b in zip(weights, before)) > 1e-2
        results.append((weights, history))
    (one, one_history), (two, two_history) = results
    difference = max(np.abs(a - b).max() for a, b in zip(one, two))
    assert difference < 1e-5, difference
    for name in one_history:
        np.testing.assert_allclose(two_history[name], one_history[name], rtol=1e-4, err_msg=name)
"""


def test_two_replicas_train_as_one_does():
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
