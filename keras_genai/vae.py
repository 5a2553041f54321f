"""Variational autoencoder: article 1, article 2 (section 4.2) and article 4 (section 3).

An encoder maps an image x to a Gaussian q(z|x), a decoder maps a draw of it back to an image, and
both are trained to maximise a lower bound of log p(x) (Kingma & Welling 2014, equation 3):

    log p(x) >= E_q[log p(x|z)] - KL(q(z|x) || p(z)),    p(z) = N(0, I)

`build_vae` trains it with the stock `fit`; `VAE` is the same with its own `train_step`, which
`training` writes out. Their losses and, from one seed, their weights agree.

Corrected from the articles:
- article 1: z never reaches the decoder, and the noise has a fixed batch size; here `Sampling`
  stands between the two and takes the shape of what it is given. It is a layer, so that the model
  can be loaded again, which a Lambda cannot.
- article 1: the KL term is averaged over the latent axis, which divides its weight by the latent
  size. Both terms are summed over their features here, then averaged over the batch.
- article 2: the encoder ends in one sigmoid point, without a variance, a draw or a KL term, and the
  model is trained from noise to noise. Here it is a VAE of the article's sizes, on images.
- article 4: pixels in [-1, 1] as targets of a cross-entropy, whose loss then falls below zero
  without end. Pixels are in [0, 1], and anything else is a ValueError.
- article 4 prints sums over a batch beside means over images; every number here is per image.

Kept from Keras where PyTorch differs: Glorot initialisation, Adam's epsilon of 1e-7, and a loss
that is averaged over the batch where article 4 sums it (to Adam, a factor means nothing).
"""

import keras
import numpy as np
from keras import layers, ops

from keras_genai.inputs import (
    GenerativeImageModel,
    ImageModel,
    SavedSeed,
    append_one_hot,
    call_network,
    check_choice,
    check_same,
    check_sizes,
    count_classes,
    label_input,
    latent_noise,
    with_labels,
)
from keras_genai.training import OwnLoss


@keras.saving.register_keras_serializable(package="keras_genai")
class Sampling(SavedSeed, layers.Layer):
    """Draw z ~ N(z_mean, exp(z_log_var)): z = z_mean + exp(z_log_var / 2) * epsilon.

    [z_mean, z_log_var], each (batch, latent_dim), to z (batch, latent_dim). Drawn so, z has a
    derivative by the encoder's weights (Kingma & Welling 2014, section 2.4).
    """

    def __init__(self, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs):
        z_mean, z_log_var = inputs
        epsilon = keras.random.normal(
            ops.shape(z_mean), dtype=z_mean.dtype, seed=self.seed_generator
        )
        return z_mean + ops.exp(0.5 * z_log_var) * epsilon

    def compute_output_shape(self, input_shape):
        return input_shape[0]

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


@keras.saving.register_keras_serializable(package="keras_genai")
class KLDivergence(layers.Layer):
    """Pass [z_mean, z_log_var] on, and add weight * KL, a mean over the batch, to the loss."""

    def __init__(self, weight=1.0, **kwargs):
        super().__init__(**kwargs)
        self.weight = weight

    def call(self, inputs):
        self.add_loss(self.weight * ops.mean(kl_divergence(*inputs)))
        return inputs

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "weight": self.weight}


@keras.saving.register_keras_serializable(package="keras_genai")
def reconstruction_loss(x, x_hat):
    """Return -log p(x|z) of a Bernoulli decoder: binary cross-entropy, summed over the pixels.

    A likelihood in the strict sense if the pixels are 0 or 1; of grey ones, the usual stand-in.

    Args:
        x: images (batch, features) in [0, 1].
        x_hat: their reconstructions (batch, features), the Bernoulli means.

    Returns:
        Nats per image, (batch,).
    """
    return ops.sum(ops.binary_crossentropy(x, x_hat), axis=-1)


def kl_divergence(z_mean, z_log_var):
    """Return KL(N(z_mean, exp(z_log_var)) || N(0, I)), summed over the latent axis.

    Kingma & Welling 2014, appendix B. Both arguments are (batch, latent_dim).

    Returns:
        Nats per image, (batch,); zero where the encoder returns the prior.
    """
    return -0.5 * ops.sum(1 + z_log_var - ops.square(z_mean) - ops.exp(z_log_var), axis=-1)


# A Gaussian decoder of variance 1 has -log p(x|z) = |x - x_hat|^2 / 2 + constant, which is d/2
# times article 2's "mse" over d pixels. Beside the "mse" itself the KL term therefore weighs 2/d.
RECONSTRUCTION_LOSSES = {
    "bernoulli": reconstruction_loss,
    "gaussian": keras.losses.mean_squared_error,
}


def _kl_weight(beta, likelihood, num_pixels):
    check_choice("likelihood", likelihood, RECONSTRUCTION_LOSSES)
    return beta if likelihood == "bernoulli" else 2 * beta / num_pixels


def build_encoder(
    input_dim=784, hidden_dims=(400,), latent_dim=20, activation="relu", num_classes=None
) -> keras.Model:
    """Build the encoder q(z|x), as wide as article 4's.

    Args:
        input_dim: number of pixels of an image.
        hidden_dims: widths of the hidden layers; article 2 has (256, 128).
        latent_dim: size of z; article 2 has 32.
        activation: of the hidden layers.
        num_classes: if given, the model takes integer labels (batch,) as a second input.

    Returns:
        A model from x (batch, input_dim) to [z_mean, z_log_var], each (batch, latent_dim).

    Raises:
        ValueError: if a size is not a whole number of at least 1.
    """
    input_dim, hidden_dims, latent_dim = check_sizes(
        input_dim=input_dim, hidden_dims=hidden_dims, latent_dim=latent_dim
    )
    x = keras.Input((input_dim,), name="x")
    labels = label_input(num_classes)
    h = append_one_hot(x, labels, num_classes)
    for units in hidden_dims:
        h = layers.Dense(units, activation=activation)(h)
    z_mean = layers.Dense(latent_dim, name="z_mean")(h)
    z_log_var = layers.Dense(latent_dim, name="z_log_var")(h)
    return keras.Model(with_labels(x, labels), [z_mean, z_log_var], name="encoder")


def build_decoder(
    latent_dim=20, hidden_dims=(400,), output_dim=784, activation="relu", num_classes=None
) -> keras.Model:
    """Build the decoder p(x|z), as wide as article 4's.

    Args:
        latent_dim: size of z; article 2 has 32.
        hidden_dims: widths of the hidden layers; article 2 has (128, 256).
        output_dim: number of pixels of an image.
        activation: of the hidden layers.
        num_classes: if given, the model takes integer labels (batch,) as a second input.

    Returns:
        A model from z (batch, latent_dim) to the means of p(x|z), (batch, output_dim) in [0, 1].

    Raises:
        ValueError: if a size is not a whole number of at least 1.
    """
    latent_dim, hidden_dims, output_dim = check_sizes(
        latent_dim=latent_dim, hidden_dims=hidden_dims, output_dim=output_dim
    )
    z = keras.Input((latent_dim,), name="z")
    labels = label_input(num_classes)
    h = append_one_hot(z, labels, num_classes)
    for units in hidden_dims:
        h = layers.Dense(units, activation=activation)(h)
    x_hat = layers.Dense(output_dim, activation="sigmoid", name="x_hat")(h)
    return keras.Model(with_labels(z, labels), x_hat, name="decoder")


def build_vae(encoder, decoder, beta=1.0, likelihood="bernoulli", seed=None) -> keras.Model:
    """Connect the two networks to a functional model with the KL term, for the stock `fit`.

        vae = build_vae(build_encoder(), build_decoder())
        vae.compile("adam", loss=reconstruction_loss)
        vae.fit(x, x)

    Args:
        encoder: from `build_encoder`.
        decoder: from `build_decoder`, with the same latent_dim and num_classes.
        beta: weight of the KL term; 1 is the bound of log p(x), more presses z towards the prior
            (Higgins et al. 2017).
        likelihood: "bernoulli", to be compiled with `loss=reconstruction_loss` (nats per image); or
            "gaussian" of variance 1, to be compiled with article 2's `loss="mse"`, beside which the
            KL term is scaled by 2 / pixels.
        seed: of the noise of `Sampling`.

    Returns:
        A model from x, or [x, labels] if conditional, to its reconstruction (batch, features).

    Raises:
        ValueError: if the networks do not fit each other, or for an unknown likelihood.
    """
    _check_fit(encoder, decoder)
    kl_weight = _kl_weight(beta, likelihood, decoder.outputs[0].shape[-1])
    inputs = with_labels(*encoder.inputs)
    z_mean, z_log_var = KLDivergence(kl_weight, name="kl_divergence")(encoder(inputs))
    z = Sampling(seed, name="sampling")([z_mean, z_log_var])
    x_hat = decoder(with_labels(z, *encoder.inputs[1:]))
    return ImageModel(inputs, x_hat, name="vae")


def _check_fit(encoder, decoder):
    """Raise ValueError unless the decoder takes the z and the labels of the encoder."""
    z = encoder.outputs[0].shape[-1], decoder.inputs[0].shape[-1]
    check_same("decoder", "latent_dim", *z)
    x = encoder.inputs[0].shape[-1], decoder.outputs[0].shape[-1]
    check_same("decoder", "output_dim", *x)
    check_same("decoder", "num_classes", count_classes(encoder), count_classes(decoder))


@keras.saving.register_keras_serializable(package="keras_genai")
class VAE(OwnLoss, GenerativeImageModel):
    """The VAE of `build_vae` with its own `train_step`, which reports both terms of the loss.

        vae = VAE(build_encoder(), build_decoder())
        vae.compile("adam")
        vae.fit(x)
        digits = vae.generate(16)

    Args: as `build_vae`. Conditional networks take their labels in `fit(x, labels)`.

    Reported are `loss`, `reconstruction` and `kl`, the last in nats per image. With a Bernoulli
    likelihood, loss = reconstruction + beta * kl, all in nats; with a Gaussian one, reconstruction
    is article 2's mean squared error, and loss = reconstruction + 2 / pixels * beta * kl.
    """

    def __init__(
        self, encoder, decoder, beta=1.0, likelihood="bernoulli", seed=None, name="vae", **kwargs
    ):
        _check_fit(encoder, decoder)
        kl_weight = _kl_weight(beta, likelihood, decoder.outputs[0].shape[-1])
        inputs = with_labels(*encoder.inputs)
        sampling = Sampling(seed, name="sampling")
        z = sampling(encoder(inputs))
        x_hat = decoder(with_labels(z, *encoder.inputs[1:]))
        super().__init__(inputs, x_hat, name=name, **kwargs)
        self.encoder, self.decoder, self.sampling = encoder, decoder, sampling
        self.beta, self.likelihood, self.seed = beta, likelihood, seed
        self.num_classes = count_classes(decoder)
        self.latent_dim = decoder.inputs[0].shape[-1]
        self.kl_weight = kl_weight
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.reconstruction_tracker = keras.metrics.Mean(name="reconstruction")
        self.kl_tracker = keras.metrics.Mean(name="kl")

    @property
    def metrics(self):
        return [self.loss_tracker, self.reconstruction_tracker, self.kl_tracker]

    def batch_loss(self, data, training):
        x, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        z_mean, z_log_var = self.encoder(with_labels(x, labels), training=training)
        z = self.sampling([z_mean, z_log_var])
        x_hat = self.decoder(with_labels(z, labels), training=training)

        reconstruction = RECONSTRUCTION_LOSSES[self.likelihood](x, x_hat)  # (batch,)
        kl = kl_divergence(z_mean, z_log_var)  # (batch,)
        loss = reconstruction + self.kl_weight * kl
        self.reconstruction_tracker.update_state(reconstruction, sample_weight)
        self.kl_tracker.update_state(kl, sample_weight)
        return self.average(loss, sample_weight)

    def encode(self, x, labels=None) -> tuple[np.ndarray, np.ndarray]:
        """Return z_mean and z_log_var, each (n, latent_dim), of x (n, features) in [0, 1]."""
        self.check_data(x, labels)
        return call_network(self.encoder, x, labels)

    def decode(self, z, labels=None) -> np.ndarray:
        """Return the images (n, features) in [0, 1] that z (n, latent_dim) stands for."""
        return call_network(self.decoder, z, labels)

    def reconstruct(self, x, labels=None) -> np.ndarray:
        """Return images x (n, features) as they come back from their z_mean: no noise is drawn."""
        z_mean, _ = self.encode(x, labels)
        return self.decode(z_mean, labels)

    def generate(self, num_samples=1, labels=None, seed=None) -> np.ndarray:
        """Draw images from z ~ N(0, I).

        Args:
            num_samples: how many, n.
            labels: an integer or integers (n,) if the model is conditional, else None.
            seed: the same seed gives the same images; training is not touched.

        Returns:
            Images (n, features) in [0, 1].
        """
        return self.decode(latent_noise(num_samples, self.latent_dim, seed), labels)

    def get_config(self):
        return {
            "name": self.name,
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "decoder": keras.saving.serialize_keras_object(self.decoder),
            "beta": self.beta,
            "likelihood": self.likelihood,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        networks = {
            key: keras.saving.deserialize_keras_object(config[key], custom_objects)
            for key in ("encoder", "decoder")
        }
        return cls(**{**config, **networks})
