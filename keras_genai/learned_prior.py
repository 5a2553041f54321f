"""VAE with a learned prior: a mixture of Gaussians in place of N(0, I), for each class its own.

The ELBO averages KL(q(z|x) || p(z)) over the images, which leaves the aggregated posterior,
q(z) = E_x[q(z|x)], free to differ from p(z) (Hoffman & Johnson 2016). Where p(z) has mass and q(z)
has none, the decoder has never been trained: samples from there are blends of several digits. In a
conditional VAE, q(z|y) differs from class to class, and p(z) ignores it: a z of one digit is
decoded with the label of another. A large beta closes both gaps at the price of nearly all variety.

Here the prior is trained with the networks, and moves to the aggregated posterior: p(z|y) is a
mixture of Gaussians (Dilokthanakul et al. 2016; Tomczak & Welling 2018, section 2, for why it is
the aggregated posterior that maximizes the ELBO). The KL divergence to a mixture has no closed
form; log q(z|x) - log p(z|y) of the sample z that is decoded estimates it without bias.

None of it is in the articles.
"""

import math

import keras
import numpy as np
from keras import layers, ops

from keras_genai.random_state import random_generator
from keras_genai.vae import VAE
from keras_genai.validation import check_labels, check_same, check_size, check_type


@keras.saving.register_keras_serializable(package="keras_genai")
class MixturePrior(layers.Layer):
    """A mixture of Gaussians with diagonal covariances, one for each class.

    The layer maps z `(batch, latent_dim)`, and labels `(batch,)` if conditional, to log p(z) or
    log p(z|y) in nats, `(batch,)`. Weights, means and variances of the components are trained.

    Args:
        latent_dim: Int. Size of z.
        num_components: Int. Number of Gaussians, for each class if conditional. Defaults to `100`.
        num_classes: Int, at least 2, or `None`. Number of classes. Defaults to `None`.

    Raises:
        ValueError: for an invalid size.
    """

    def __init__(self, latent_dim, num_components=100, num_classes=None, **kwargs):
        super().__init__(**kwargs)
        self.latent_dim = check_size("latent_dim", latent_dim)
        self.num_components = check_size("num_components", num_components)
        if num_classes is not None:
            num_classes = check_size("num_classes", num_classes, minimum=2)
        self.num_classes = num_classes

    def build(self, input_shape=None):
        shape = (self.num_classes or 1, self.num_components)
        options = {"dtype": keras.config.floatx()}  # also under mixed precision
        self.logits = self.add_weight(name="logits", shape=shape, initializer="zeros", **options)
        shape = (*shape, self.latent_dim)
        self.means = self.add_weight(
            name="means", shape=shape, initializer=keras.initializers.RandomNormal(), **options
        )
        self.log_vars = self.add_weight(
            name="log_vars", shape=shape, initializer="zeros", **options
        )
        self.built = True

    def call(self, z, labels=None):
        labels = ops.zeros(ops.shape(z)[:1], "int32") if labels is None else labels
        z = ops.cast(z, self.means.dtype)[:, None]  # (batch, 1, latent_dim)
        means, log_vars, log_weights = (
            ops.take(values, labels, axis=0)  # (batch, components, …)
            for values in (self.means, self.log_vars, ops.log_softmax(self.logits))
        )
        return ops.logsumexp(log_weights + gaussian_log_prob(z, means, log_vars), axis=-1)

    def compute_output_shape(self, input_shape, labels_shape=None):
        return input_shape[:1]

    def sample(self, num_samples, labels=None, seed=None) -> np.ndarray:
        """Sample from the mixture. The random state of training does not change.

        Args:
            num_samples: Int. Number of samples, n.
            labels: Int or int array `(n,)` for a conditional prior, else `None`.
            seed: Int or `None`. Seed of the samples. Defaults to `None`.

        Returns:
            Float32 array `(n, latent_dim)`.

        Raises:
            ValueError: for an invalid number, seed, or labels.
        """
        num_samples = check_size("num_samples", num_samples)
        labels = check_labels(labels, self.num_classes, num_samples)
        rng = random_generator(seed)
        rows = np.zeros(num_samples, int) if labels is None else np.asarray(labels)
        weights = ops.convert_to_numpy(ops.softmax(self.logits)).astype("float64")
        ends = np.cumsum(weights, axis=-1)[rows]  # (n, components)
        components = (rng.random((num_samples, 1)) * ends[:, -1:] >= ends).sum(axis=-1)
        means, log_vars = (
            ops.convert_to_numpy(values)[rows, components] for values in (self.means, self.log_vars)
        )
        noise = rng.standard_normal(means.shape)
        return (means + np.exp(0.5 * log_vars) * noise).astype("float32")

    def get_config(self):
        names = ("latent_dim", "num_components", "num_classes")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def gaussian_log_prob(z, mean, log_var):
    """Return log N(z; mean, exp(log_var)), summed over the last axis, in nats."""
    squares = ops.square(z - mean) * ops.exp(-log_var)
    return -0.5 * ops.sum(squares + log_var + math.log(2 * math.pi), axis=-1)


@keras.saving.register_keras_serializable(package="keras_genai")
class LearnedPriorVAE(VAE):
    """A `VAE` whose prior is trained, too.

    `kl_loss` is an estimate from one sample for each image, which may be negative for a small
    batch.

    Args:
        encoder, decoder, beta, likelihood, seed: See `VAE`.
        prior: `MixturePrior` for the decoder's z and classes.

    Raises:
        ValueError: as `VAE`, and for a prior of another z or of other classes.

    Example:
        model = LearnedPriorVAE(build_encoder(), build_decoder(), MixturePrior(20))
        model.compile("adam")
        model.fit(x)
        digits = model.generate(16)
    """

    def __init__(
        self, encoder, decoder, prior, beta=1.0, likelihood="bernoulli", seed=None, **kwargs
    ):
        super().__init__(encoder, decoder, beta, likelihood, seed, **kwargs)
        check_type("prior", prior, MixturePrior)
        check_same("prior", "z of shape", self.decoder.inputs[0].shape[1:], (prior.latent_dim,))
        check_same("prior", "num_classes", self.num_classes, prior.num_classes)
        if not prior.built:
            prior.build()
        self.prior = prior
        if not any(layer is prior for layer in self._layers):  # older Keras
            self._layers = [*self._layers, prior]

    def compute_kl(self, z, z_mean, z_log_var, labels):
        z, z_mean, z_log_var = (ops.cast(x, keras.config.floatx()) for x in (z, z_mean, z_log_var))
        return gaussian_log_prob(z, z_mean, z_log_var) - self.prior(z, labels)

    def sample_z(self, num_samples, labels, seed):
        return self.prior.sample(num_samples, labels, seed)

    def get_config(self):
        return {**super().get_config(), "prior": keras.saving.serialize_keras_object(self.prior)}
