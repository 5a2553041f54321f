"""Log-likelihood of images under a VAE, and the units in which likelihoods are published.

A VAE has no closed form of log p(x) = log ∫ p(x|z) p(z) dz. `elbo` and
`importance_weighted_log_likelihood` are lower bounds of it, estimated with samples from the
encoder's q(z|x). A Bernoulli decoder's p(x|z) is a likelihood of pixels that are 0 or 1 (see
`datasets.binarize`); of gray pixels it is the cross-entropy that the model minimizes, and the
results are no likelihoods of 8-bit images. A Gaussian decoder's is a density of variance 1.
"""

import functools
import math

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_genai.conditioning import pack_inputs, predict_arrays
from keras_genai.learned_prior import LearnedPriorVAE
from keras_genai.random_state import random_generator
from keras_genai.replicas import run_on_replicas, take_rows
from keras_genai.vae import VAE, kl_divergence, reconstruction_loss, squared_error
from keras_genai.validation import (
    as_array,
    as_numbers,
    check_labels,
    check_outputs,
    check_size,
    check_type,
)

__all__ = ["bits_per_dimension", "elbo", "importance_weighted_log_likelihood", "perplexity"]


def elbo(model, x, labels=None, *, num_samples=1, batch_size=2000, seed=None) -> np.ndarray:
    """Return the evidence lower bound of log p(x), in nats.

    E_q[log p(x|z)] - KL(q(z|x) || p(z)) (Kingma & Welling 2014, equation 3), the first term as a
    mean over samples of z, the second in closed form, or from the same samples for a learned prior.
    The KL divergence has weight 1, whatever the `beta` of the model. The estimate of the bound is
    unbiased; the bound is below log p(x) by the KL divergence of q(z|x) and the true posterior.

    Args:
        model: `vae.VAE`, or `learned_prior.LearnedPriorVAE`.
        x: Float array `(n, features)` or `(n, height, width, channels)`. Images in [0, 1].
        labels: Int or int array `(n,)`; `None` for an unconditional model. Defaults to `None`.
        num_samples: Int. Number of samples of z for each image. Defaults to `1`.
        batch_size: Int. Number of images that are decoded at a time, which bounds the memory and
            does not change the samples. Defaults to `2000`.
        seed: Int or `None`. Seed of the samples. Defaults to `None`.

    Returns:
        Float64 array `(n,)`, nats of each image. Minus the mean is the loss of a Bernoulli VAE with
        beta = 1.

    Raises:
        ValueError: for another model, pixels outside [0, 1], or invalid labels.
    """
    posterior = _Posterior(model, x, labels, num_samples, batch_size, seed)
    has_closed_form = not isinstance(model, LearnedPriorVAE)
    total = np.zeros(len(posterior.x))
    for images, starts, log_likelihood, log_ratio in posterior.samples():
        terms = log_likelihood if has_closed_form else log_likelihood + log_ratio
        total[images] += np.add.reduceat(terms, starts)
    bound = total / posterior.num_samples
    if has_closed_form:
        bound -= ops.convert_to_numpy(kl_divergence(posterior.z_mean, posterior.z_log_var))
    return bound


def importance_weighted_log_likelihood(
    model, x, labels=None, *, num_samples=5000, batch_size=2000, seed=None
) -> np.ndarray:
    """Return an estimate of log p(x) by importance sampling from q(z|x), in nats.

    log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x), z_k ~ q(z|x) (Burda et al. 2016, equation 8). Its
    expectation is a lower bound of log p(x), which is the ELBO for K = 1 and rises with K; the bias
    falls about as 1/K if the weights have a finite variance, and may remain large if q(z|x) misses
    a part of the posterior. The memory does not depend on K.

    Args:
        model, x, labels, batch_size, seed: As in `elbo`.
        num_samples: Int. Number K of samples of z for each image. Defaults to `5000`.

    Returns:
        Float64 array `(n,)`, nats of each image.

    Raises:
        ValueError: as `elbo`.
    """
    posterior = _Posterior(model, x, labels, num_samples, batch_size, seed)
    total = np.full(len(posterior.x), -np.inf)
    for images, starts, log_likelihood, log_ratio in posterior.samples():
        log_weights = np.logaddexp.reduceat(log_likelihood + log_ratio, starts)
        total[images] = np.logaddexp(total[images], log_weights)
    return total - math.log(posterior.num_samples)


class _Posterior:
    """Samples of q(z|x) for each image, all those of an image after all those of the one before."""

    def __init__(self, model, x, labels, num_samples, batch_size, seed):
        check_type("model", model, VAE)
        x = as_array("x", x)
        model.check_data(x, labels)
        self.model, self.x = model, x.astype(keras.config.floatx())
        self.labels = check_labels(labels, model.num_classes, len(x))
        self.num_samples = check_size("num_samples", num_samples)
        self.batch_size = check_size("batch_size", batch_size)
        self.generator = random_generator(seed)
        starts = range(0, len(x), self.batch_size)
        batches = [slice(start, start + self.batch_size) for start in starts]
        encoded = [
            predict_arrays(model.encoder, *take_rows([self.x, self.labels], rows))
            for rows in batches
        ]
        self.z_mean, self.z_log_var = map(np.concatenate, zip(*encoded, strict=True))

    def samples(self):
        """Yield the samples in batches.

        Yields:
            Tuple of the images that a batch has samples of, as a slice; the index of the first
            sample of each; and, for each sample, log p(x|z) and log p(z) - log q(z|x).
        """
        arrays = [self.x, self.labels, self.z_mean, self.z_log_var]
        # Traced for the first batch, and for any number of rows with a shorter last one. A partial
        # per call: TensorFlow counts traces by code and would warn after five.
        score = tf.function(
            functools.partial(_score, self.model), autograph=False, reduce_retracing=True
        )
        count = len(self.x) * self.num_samples
        for start in range(0, count, self.batch_size):
            indices = np.arange(start, min(start + self.batch_size, count)) // self.num_samples
            shape = len(indices), *self.z_mean.shape[1:]
            epsilon = self.generator.standard_normal(shape, "float32").astype(self.x.dtype)
            results = run_on_replicas(
                self.model.distribute_strategy, score, *take_rows(arrays, indices), epsilon
            )
            results = [np.asarray(result, "float64") for result in results]
            check_outputs(self.model, results)
            images = slice(indices[0], indices[-1] + 1)
            yield images, np.searchsorted(indices, np.arange(images.start, images.stop)), *results


def _score(model, x, labels, z_mean, z_log_var, epsilon):
    """Return log p(x|z) and log p(z) - log q(z|x), each `(batch,)`, of z from the noise epsilon."""
    z = z_mean + ops.exp(0.5 * z_log_var) * epsilon
    x_hat = model.decoder(pack_inputs(z, labels), training=False)
    if model.likelihood == "bernoulli":
        log_likelihood = -reconstruction_loss(x, x_hat)
    else:
        num_pixels = math.prod(x.shape[1:])
        log_likelihood = -0.5 * num_pixels * (squared_error(x, x_hat) + math.log(2 * math.pi))
    if isinstance(model, LearnedPriorVAE):
        return log_likelihood, -model.compute_kl(z, z_mean, z_log_var, labels)
    log_ratio = 0.5 * (ops.square(epsilon) + z_log_var - ops.square(z))  # 2 pi cancels
    return log_likelihood, ops.sum(log_ratio, axis=tuple(range(1, len(z.shape))))


def bits_per_dimension(nats, num_dimensions):
    """Return nats / (D ln 2): negative log-likelihoods of D dimensions in bits per dimension.

    Args:
        nats: Float or float array. Negative log-likelihood -log p(x) of a whole image or sound,
            such as the minus of `importance_weighted_log_likelihood`.
        num_dimensions: Int. Number D of pixels, times channels, or of samples.

    Returns:
        Float, or float array of the shape of `nats`. A density has other values after a change of
        scale: that of pixels in [0, 1] is not one of 8-bit pixels, from 0 to 255. Nor are the nats
        of gray pixels under a Bernoulli decoder a likelihood of 8-bit images.
    """
    nats = as_numbers("nats", nats).astype("float64")
    return (nats / (check_size("num_dimensions", num_dimensions) * math.log(2)))[()]


def perplexity(nats_per_token):
    """Return exp(nats per token), the effective number of equally likely tokens.

    Args:
        nats_per_token: Float or float array. Mean negative log-likelihood of the tokens, at least
            0, such as the loss of a language model.

    Returns:
        Float, or float array of the same shape; infinity above 709 nats.

    Raises:
        ValueError: for a negative number, such as a log-likelihood.
    """
    nats_per_token = as_numbers("nats_per_token", nats_per_token).astype("float64")
    if np.any(nats_per_token < 0):
        raise ValueError(
            "nats_per_token: expected negative log-likelihoods, of at least 0, got "
            f"{nats_per_token.min()}."
        )
    with np.errstate(over="ignore"):
        return np.exp(nats_per_token)[()]
