"""Variational autoencoder: article 1, article 2 (section 4.2) and article 4 (section 3).

An encoder maps an image x to a Gaussian q(z|x), a decoder maps a sample of z back to an image.
Training maximizes the evidence lower bound, ELBO (Kingma & Welling 2014, equation 3):

    log p(x) >= E_q[log p(x|z)] - KL(q(z|x) || p(z)),    p(z) = N(0, I)

`build_vae` is trained by the stock `fit`; `VAE` has its own `train_step`. Trained from the same
seed, both have equal losses and weights.

Corrected from the articles:
- Article 1, sampling function: z never reaches the decoder, and the noise has a fixed batch size.
  `Sampling` connects the two networks and takes its shape from its input. It is a layer, because
  a model with article 1's Lambda loads only with `custom_objects`.
- Article 1, loss: the KL term is averaged over the latent axis, which divides its weight by the
  latent size. Both terms are summed over their features here, then averaged over the batch.
- Article 2, section 4.2: the encoder ends in one sigmoid layer, without a variance, a sample or a
  KL term, and the model is trained from noise to noise. Here it is a VAE of the article's sizes,
  trained on images.
- Article 4, section 3: pixels in [-1, 1] are the targets of a binary cross-entropy, which is
  defined for [0, 1] only. PyTorch raises a RuntimeError; Keras silently minimizes a loss that is
  unbounded below. Pixels are in [0, 1] here; other values raise a ValueError.
- Article 4, section 3, prints sums over a batch beside means; here all values are per image.

Kept from Keras where PyTorch differs: Glorot initialization, Adam's epsilon of 1e-7, and a loss
averaged over the batch where article 4 sums it (Adam's step does not depend on the scale of the
loss, except through epsilon).
"""

import math

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from keras_genai.conditioning import (
    check_network,
    check_probabilities,
    concat_labels,
    count_classes,
    label_input,
    pack_inputs,
    predict_arrays,
    sample_prior,
)
from keras_genai.conv_networks import build_conv_decoder as build_conv_decoder
from keras_genai.conv_networks import build_conv_encoder as build_conv_encoder
from keras_genai.models import (
    AdjustableNumberMixin,
    ConfigMixin,
    CustomLossMixin,
    GenerativeImageModel,
    ImageModel,
    adjustable_number,
    check_scalar,
)
from keras_genai.random_state import SeedStateMixin
from keras_genai.replicas import apply_gradients, weight_loss
from keras_genai.validation import (
    as_numbers,
    check_choice,
    check_identifier,
    check_same,
    check_sizes,
)

# The base classes define `compile`, `test_step`, `unpack` and `reduce_and_log`.

# Layers.


@keras.saving.register_keras_serializable(package="keras_genai")
class Sampling(SeedStateMixin, layers.Layer):
    """Reparameterization trick: z = z_mean + exp(z_log_var / 2) * epsilon, epsilon ~ N(0, I).

    The layer maps [z_mean, z_log_var] to z, all `(batch, latent_dim)`, with a gradient with respect
    to both (Kingma & Welling 2014, section 2.4). Outside of training, the noise comes from a second
    generator, so that evaluation does not change the training that follows.

    Args:
        seed: Int or `None`. Seed of the noise generator. Defaults to `None`.
    """

    def __init__(self, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.create_seed_generators(seed)

    def call(self, inputs, training=False):
        z_mean, z_log_var = (ops.cast(x, keras.config.floatx()) for x in inputs)
        epsilon = keras.random.normal(
            ops.shape(z_mean), dtype=z_mean.dtype, seed=self.get_seed_generator(training)
        )
        return ops.cast(z_mean + ops.exp(0.5 * z_log_var) * epsilon, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape[0]

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


@keras.saving.register_keras_serializable(package="keras_genai")
class KLDivergenceLoss(AdjustableNumberMixin, layers.Layer):
    """Identity on [z_mean, z_log_var] that adds weight * KL, averaged over the batch, to the loss.

    Args:
        weight: Float. Weight of the KL term. It may be set at any time, also by a callback in
            training (KL annealing, Bowman et al. 2016), and is saved. Defaults to `1.0`.
    """

    def __init__(self, weight=1.0, **kwargs):
        super().__init__(**kwargs)
        self.create_number(check_scalar("weight", weight))

    weight = adjustable_number("weight")

    def call(self, inputs):
        kl = kl_divergence(*inputs)
        # One term per image, whose sum Keras adds to the loss.
        self.add_loss(ops.cast(self.number, kl.dtype) * kl / ops.cast(ops.size(kl), kl.dtype))
        return inputs

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "weight": self.weight}


# Losses.


@keras.saving.register_keras_serializable(package="keras_genai")
def reconstruction_loss(x, x_hat):
    """Return -log p(x|z) of a Bernoulli decoder: binary cross-entropy summed over all pixels.

    For pixels of 0 and 1 it is an exact likelihood (Kingma & Welling 2014, appendix C.1); for gray
    pixels it is the usual substitute.

    Args:
        x: Float tensor `(batch, features)` or `(batch, height, width, channels)`. Images in [0, 1].
        x_hat: Float tensor of the same shape. Reconstructions, the Bernoulli means.

    Returns:
        Nats per image, `(batch,)`.
    """
    x, x_hat = (ops.cast(image, keras.config.floatx()) for image in (x, x_hat))
    return _sum_per_example(ops.binary_crossentropy(x, x_hat))


def squared_error(x, x_hat):
    """Return the squared error of each image, averaged over its pixels, `(batch,)`."""
    x, x_hat = (ops.cast(image, keras.config.floatx()) for image in (x, x_hat))
    return ops.mean(ops.square(x - x_hat), axis=tuple(range(1, len(x.shape))))


def kl_divergence(z_mean, z_log_var):
    """Return KL(N(z_mean, exp(z_log_var)) || N(0, I)), summed over the latent axes.

    -1/2 sum_j (1 + log sigma_j^2 - mu_j^2 - sigma_j^2) (Kingma & Welling 2014, appendix B).

    Args:
        z_mean: Float tensor `(batch, latent_dim)`.
        z_log_var: Float tensor `(batch, latent_dim)`.

    Returns:
        Nats per image, `(batch,)`; zero where q(z|x) is the prior.
    """
    z_mean, z_log_var = (ops.cast(x, keras.config.floatx()) for x in (z_mean, z_log_var))
    return -0.5 * _sum_per_example(1 + z_log_var - ops.square(z_mean) - ops.exp(z_log_var))


def _sum_per_example(x):
    return ops.sum(x, axis=tuple(range(1, len(x.shape))))


# A Gaussian decoder of variance 1 has -ELBO = |x - x_hat|^2 / 2 + KL + constant
#                                           = d/2 (mse + 2/d KL) + constant    for d pixels.
# The bracket is minimized, so that article 2's loss="mse" can be used: the KL term weighs 2/d.
RECONSTRUCTION_LOSSES = {"bernoulli": reconstruction_loss, "gaussian": squared_error}


def _kl_scale(likelihood, decoder):
    """Return the weight of the KL term at beta = 1."""
    check_choice("likelihood", likelihood, RECONSTRUCTION_LOSSES)
    if likelihood == "bernoulli":
        check_probabilities("decoder", decoder)
        return 1.0
    return 2 / math.prod(decoder.outputs[0].shape[1:])


# Networks.


def build_encoder(
    input_dim=784, hidden_dims=(400,), latent_dim=20, activation="relu", num_classes=None
) -> keras.Model:
    """Build the encoder q(z|x). The default sizes are those of article 4.

    Args:
        input_dim: Int. Number of pixels of an image. Defaults to `784`.
        hidden_dims: Tuple of ints. Widths of the hidden layers; article 2 uses `(256, 128)`.
            Defaults to `(400,)`.
        latent_dim: Int. Size of z; article 2 uses `32`. Defaults to `20`.
        activation: String or callable. Activation of the hidden layers. Defaults to `"relu"`.
        num_classes: Int, at least 2, or `None`. If given, the model takes integer labels `(batch,)`
            as a second input. Defaults to `None`.

    Returns:
        A `keras.Model` that maps x `(batch, input_dim)` to [z_mean, z_log_var], each
        `(batch, latent_dim)`.

    Raises:
        ValueError: for an invalid size or number of classes, and for an unknown activation.
    """
    input_dim, hidden_dims, latent_dim = check_sizes(
        input_dim=input_dim, hidden_dims=hidden_dims, latent_dim=latent_dim
    )
    activation = check_identifier("activation", activation, keras.activations.get, "an activation")
    x = keras.Input((input_dim,), name="x")
    labels = label_input(num_classes)
    h = concat_labels(x, labels, num_classes)
    for units in hidden_dims:
        h = layers.Dense(units, activation=activation)(h)
    dtype = keras.config.floatx()  # of the outputs, also under mixed precision
    z_mean = layers.Dense(latent_dim, name="z_mean", dtype=dtype)(h)
    z_log_var = layers.Dense(latent_dim, name="z_log_var", dtype=dtype)(h)
    return keras.Model(pack_inputs(x, labels), [z_mean, z_log_var], name="encoder")


def build_decoder(
    latent_dim=20, hidden_dims=(400,), output_dim=784, activation="relu", num_classes=None
) -> keras.Model:
    """Build the decoder p(x|z). The default sizes are those of article 4.

    Args:
        latent_dim: Int. Size of z; article 2 uses `32`. Defaults to `20`.
        hidden_dims: Tuple of ints. Widths of the hidden layers; article 2 uses `(128, 256)`.
            Defaults to `(400,)`.
        output_dim: Int. Number of pixels of an image. Defaults to `784`.
        activation, num_classes: See `build_encoder`.

    Returns:
        A `keras.Model` that maps z `(batch, latent_dim)` to the means of p(x|z),
        `(batch, output_dim)` in [0, 1].

    Raises:
        ValueError: for an invalid size or number of classes, and for an unknown activation.
    """
    latent_dim, hidden_dims, output_dim = check_sizes(
        latent_dim=latent_dim, hidden_dims=hidden_dims, output_dim=output_dim
    )
    activation = check_identifier("activation", activation, keras.activations.get, "an activation")
    z = keras.Input((latent_dim,), name="z")
    labels = label_input(num_classes)
    h = concat_labels(z, labels, num_classes)
    for units in hidden_dims:
        h = layers.Dense(units, activation=activation)(h)
    x_hat = layers.Dense(output_dim, "sigmoid", name="x_hat", dtype=keras.config.floatx())(h)
    return keras.Model(pack_inputs(z, labels), x_hat, name="decoder")


def check_compatible(encoder, decoder) -> None:
    """Raise ValueError unless the networks match. Images and z may have any shape."""
    check_network("encoder", encoder, ("x",), ("z_mean", "z_log_var"))
    check_network("decoder", decoder, ("z",), ("x_hat",))
    for z in encoder.outputs:
        check_same("decoder", "z of shape", z.shape[1:], decoder.inputs[0].shape[1:])
    x = encoder.inputs[0].shape[1:], decoder.outputs[0].shape[1:]
    check_same("decoder", "images of shape", *x)
    check_same("decoder", "num_classes", count_classes(encoder), count_classes(decoder))


# Models.


def build_vae(encoder, decoder, beta=1.0, likelihood="bernoulli", seed=None) -> keras.Model:
    """Connect encoder and decoder to a functional model with a KL loss, for the stock `fit`.

    Args:
        encoder: `keras.Model` from `build_encoder`.
        decoder: `keras.Model` from `build_decoder`, with the same latent_dim and num_classes.
        beta: Float. Weight of the KL term. 1 is the ELBO; a larger value regularizes z more
            strongly (Higgins et al. 2017). Afterwards, `vae.get_layer("kl_divergence").weight` is
            the weight. Defaults to `1.0`.
        likelihood: `"bernoulli"`, to be compiled with `loss=reconstruction_loss` (nats per image),
            or `"gaussian"` of variance 1, to be compiled with article 2's `loss="mse"`, beside
            which the KL term is weighted by 2 / pixels. Defaults to `"bernoulli"`.
        seed: Int or `None`. Seed of the noise generator. Defaults to `None`.

    Returns:
        A `keras.Model` that maps x, or [x, labels] if conditional, to reconstructions of x's shape.

    Raises:
        ValueError: for incompatible networks or an unknown likelihood.

    Example:
        vae = build_vae(build_encoder(), build_decoder())
        vae.compile("adam", loss=reconstruction_loss)
        vae.fit(x, x)
    """
    check_compatible(encoder, decoder)
    kl_weight = check_scalar("beta", beta, 0) * _kl_scale(likelihood, decoder)
    inputs = pack_inputs(*encoder.inputs)
    z_mean, z_log_var = KLDivergenceLoss(kl_weight, name="kl_divergence")(encoder(inputs))
    z = Sampling(seed, name="sampling")([z_mean, z_log_var])
    x_hat = decoder(pack_inputs(z, *encoder.inputs[1:]))
    return FunctionalVAE(inputs, x_hat, name="vae")


@keras.saving.register_keras_serializable(package="keras_genai")
class FunctionalVAE(ImageModel):
    """The functional model of `build_vae`, whose sample weights apply to the KL term, too."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        # Read first: replicas, which take turns when they communicate, share the layers.
        kl = self.get_layer("kl_divergence").losses  # [(batch,)], a part of the loss
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        if sample_weight is None or not kl:  # Keras builds its loss without calling the model
            return loss
        kl = kl[0] * (ops.reshape(ops.cast(sample_weight, kl[0].dtype), (-1,)) - 1)
        return loss + weight_loss(tf.nn.scale_regularization_loss(ops.sum(kl)), ops.size(kl))


@keras.saving.register_keras_serializable(package="keras_genai")
class VAE(AdjustableNumberMixin, ConfigMixin, CustomLossMixin, GenerativeImageModel):
    """The VAE of `build_vae` with its own `train_step`, which reports both terms of the loss.

    Metrics, per image: `loss`, `reconstruction_loss` and `kl_loss`, the last in nats. With a
    Bernoulli likelihood, loss = reconstruction_loss + beta * kl_loss, all in nats. With a Gaussian
    one, reconstruction_loss is article 2's mean squared error, and
    loss = reconstruction_loss + 2 / pixels * beta * kl_loss. Losses of regularizers and of
    `add_loss` in the networks are added to `loss`. Sample weights apply to both terms; the metrics
    of `compile` compare x with its reconstruction.

    Args:
        encoder: `keras.Model` from `build_encoder`, or another functional model from images to
            [z_mean, z_log_var].
        decoder: `keras.Model` from `build_decoder`, with the same latent_dim and num_classes, or
            another functional model from z to images. With `num_classes`, the VAE is trained by
            `fit(x, labels)`.
        beta: Float. Weight of the KL term; see `build_vae`. It may be set at any time; it is saved.
            Defaults to `1.0`.
        likelihood: `"bernoulli"` or `"gaussian"`; see `build_vae`. Defaults to `"bernoulli"`.
        seed: Int or `None`. Seed of the noise generator. Defaults to `None`.

    Raises:
        ValueError: for incompatible networks or an unknown likelihood.

    Example:
        model = VAE(build_encoder(), build_decoder())
        model.compile("adam")
        model.fit(x)
        digits = model.generate(16)
    """

    def __init__(
        self, encoder, decoder, beta=1.0, likelihood="bernoulli", seed=None, name="vae", **kwargs
    ):
        check_compatible(encoder, decoder)
        beta, kl_scale = check_scalar("beta", beta, 0), _kl_scale(likelihood, decoder)
        inputs, labels = pack_inputs(*encoder.inputs), encoder.inputs[1:]
        sampling = Sampling(seed, name="sampling")
        x_hat = decoder(pack_inputs(sampling(encoder(inputs)), *labels))
        super().__init__(inputs, x_hat, name=name, **kwargs)
        self.encoder, self.decoder, self.sampling = encoder, decoder, sampling
        self.create_number(beta)
        self._kl_scale, self.likelihood, self.seed = kl_scale, likelihood, sampling.seed
        self.num_classes = count_classes(decoder)
        self.latent_dim = decoder.inputs[0].shape[-1]
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.reconstruction_loss_tracker = keras.metrics.Mean(name="reconstruction_loss")
        self.kl_loss_tracker = keras.metrics.Mean(name="kl_loss")

    beta = adjustable_number("beta", 0)

    @property
    def kl_weight(self) -> float:
        """Weight of the KL term in the loss: beta, or 2 / pixels * beta."""
        return self.beta * self._kl_scale

    @kl_weight.setter
    def kl_weight(self, value):
        self.beta = check_scalar("kl_weight", value, 0) / self._kl_scale

    def compute_loss_and_logs(self, data, training):
        """Return the scalar loss of a batch and a dict of metric results."""
        x, labels, sample_weight = self.unpack(data)
        z_mean, z_log_var = self.encoder(pack_inputs(x, labels), training=training)
        z = self.sampling([z_mean, z_log_var], training=training)  # (batch, latent_dim)
        x_hat = self.decoder(pack_inputs(z, labels), training=training)  # (batch, features)

        reconstruction = RECONSTRUCTION_LOSSES[self.likelihood](x, x_hat)  # (batch,)
        kl = self.compute_kl(z, z_mean, z_log_var, labels)  # (batch,)
        losses = reconstruction + ops.cast(self.number * self._kl_scale, kl.dtype) * kl
        terms = {"reconstruction_loss": reconstruction, "kl_loss": kl}
        return self.reduce_and_log(losses, sample_weight, x, x_hat, self.losses, **terms)

    def compute_kl(self, z, z_mean, z_log_var, labels):
        """Return KL(q(z|x) || p(z)) of each image, `(batch,)`; z is a sample of q(z|x)."""
        return kl_divergence(z_mean, z_log_var)

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss, logs = self.compute_loss_and_logs(data, training=True)
            loss = self.optimizer.scale_loss(loss)  # no effect without a LossScaleOptimizer
        gradients = tape.gradient(loss, self.trainable_weights)
        apply_gradients(self.optimizer, gradients, self.trainable_weights)
        return logs

    def encode(self, x, labels=None) -> tuple[np.ndarray, np.ndarray]:
        """Encode images x `(n, features)` to z_mean and z_log_var, each `(n, latent_dim)`.

        Raises:
            ValueError: for pixels outside [0, 1], or invalid labels.
        """
        self.check_data(x, labels)
        return predict_arrays(self.encoder, x, labels)

    def decode(self, z, labels=None) -> np.ndarray:
        """Decode latent vectors z `(n, latent_dim)` to images `(n, features)` in [0, 1]."""
        z = as_numbers("z", z, self.decoder.inputs[0].shape)
        return predict_arrays(self.decoder, z, labels)

    def reconstruct(self, x, labels=None) -> np.ndarray:
        """Decode the z_mean of images x `(n, features)`, without sampling."""
        return self.decode(self.encode(x, labels)[0], labels)

    def generate(self, num_samples=1, labels=None, *, seed=None) -> np.ndarray:
        """Sample z ~ N(0, I) and decode it.

        Args:
            num_samples: Int. Number of images, n. Defaults to `1`.
            labels: Int or int array `(n,)`; `None` for an unconditional model. Defaults to `None`.
            seed: Int or `None`. Seed of z. Training is not affected. Defaults to `None`.

        Returns:
            Float32 array `(n, features)` in [0, 1].
        """
        return self.decode(self.sample_z(num_samples, labels, seed), labels)

    def sample_z(self, num_samples, labels, seed) -> np.ndarray:
        """Return samples of p(z), `(num_samples, latent_dim)`, float32."""
        return sample_prior(num_samples, self.decoder.inputs[0].shape[1:], seed)

    def get_config(self):
        names = ("encoder", "decoder", "beta", "likelihood", "seed")
        options = keras.saving.serialize_keras_object({name: getattr(self, name) for name in names})
        return {**super().get_config(), **options}
