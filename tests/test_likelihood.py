"""Likelihood: a linear VAE in closed form, integrals over z on a grid, units by hand."""

import math

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
from helpers import set_random_weights
from keras import layers

from keras_genai import metrics
from keras_genai.gan import build_generator
from keras_genai.learned_prior import LearnedPriorVAE, MixturePrior
from keras_genai.vae import VAE, build_decoder, build_encoder

# A linear decoder: x = z W + b + noise of variance 1, z ~ N(0, I), so that x ~ N(b, W^T W + I). The
# rows of W are orthogonal, and the posterior of z given x is a Gaussian with a diagonal covariance.
W = np.array([[0.6, 0.8, 0.0, 0.0, 0.3], [0.8, -0.6, 0.5, 0.5, 0.0]])
B = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
VARIANCES = 1 / (1 + np.sum(W**2, axis=1))


def linear_vae(z_variances=VARIANCES, shift=0.0, beta=1.0):
    """The VAE of W and B; its q(z|x) is the true posterior, or another Gaussian."""
    x, z = keras.Input((5,)), keras.Input((2,))
    z_mean, z_log_var = layers.Dense(2), layers.Dense(2, kernel_initializer="zeros")
    encoder = keras.Model(x, [z_mean(x), z_log_var(x)])
    x_hat = layers.Dense(5)
    decoder = keras.Model(z, x_hat(z))
    x_hat.set_weights([W, B])
    z_mean.set_weights([W.T * VARIANCES, shift - B @ W.T * VARIANCES])
    z_log_var.set_weights([np.zeros((5, 2)), np.log(z_variances)])
    return VAE(encoder, decoder, likelihood="gaussian", beta=beta)


def exact_log_prob(x):
    return scipy.stats.multivariate_normal(B, W.T @ W + np.eye(5)).logpdf(x)


def posterior_kl(z_variances, shift):
    """Return KL(q(z|x) || p(z|x)), by which the ELBO is below log p(x)."""
    ratio = z_variances / VARIANCES
    return 0.5 * np.sum(ratio - 1 - np.log(ratio) + shift**2 / VARIANCES)


@pytest.fixture
def x():
    return np.random.default_rng(0).uniform(size=(20, 5))


@pytest.mark.parametrize("num_samples", [1, 3, 100])
def test_importance_weights_of_the_true_posterior_are_all_equal(x, num_samples):
    # p(x|z) p(z) / p(z|x) = p(x) for every z.
    result = metrics.importance_weighted_log_likelihood(
        linear_vae(), x, num_samples=num_samples, seed=0
    )
    assert result.shape == (20,) and result.dtype == "float64"
    np.testing.assert_allclose(result, exact_log_prob(x), atol=1e-5)


@pytest.mark.parametrize("factor, shift", [(1.5, 0.0), (1.2, 0.4), (0.8, -0.2)])
def test_importance_weighting_closes_the_gap_of_the_elbo(x, factor, shift):
    model = linear_vae(factor * VARIANCES, shift)
    elbo = metrics.elbo(model, x, num_samples=5000, seed=0)
    expected = exact_log_prob(x) - posterior_kl(factor * VARIANCES, shift)
    np.testing.assert_allclose(elbo, expected, atol=0.1)
    assert abs(np.mean(elbo - expected)) < 0.02
    result = metrics.importance_weighted_log_likelihood(model, x, num_samples=5000, seed=0)
    np.testing.assert_allclose(result, exact_log_prob(x), atol=0.06)
    assert np.all(elbo < result)


def test_likelihood_of_a_learned_prior_is_that_of_the_mixture(x):
    # p(x) of a linear decoder is a mixture of Gaussians, too.
    prior = MixturePrior(2, 2)
    prior.build()
    weights, means, variances = [0.3, 0.7], [[0.5, -0.5], [-0.2, 0.4]], [[0.6, 1.2], [0.9, 0.5]]
    prior.logits.assign([np.log(weights)])
    prior.means.assign([means])
    prior.log_vars.assign([np.log(variances)])
    plain = linear_vae(1.2 * VARIANCES)
    model = LearnedPriorVAE(plain.encoder, plain.decoder, prior, likelihood="gaussian")
    density = sum(
        weight * scipy.stats.multivariate_normal(B + mean @ W, W.T * v @ W + np.eye(5)).pdf(x)
        for weight, mean, v in zip(weights, np.array(means), np.array(variances), strict=True)
    )
    result = metrics.importance_weighted_log_likelihood(model, x, num_samples=5000, seed=0)
    np.testing.assert_allclose(result, np.log(density), atol=0.06)
    elbo = metrics.elbo(model, x, num_samples=2000, seed=0)
    assert np.all(elbo < result + 0.02) and np.mean(result - elbo) < 0.5


def test_bias_of_the_importance_weighted_bound_falls_with_the_number_of_samples(x):
    variances, shift = 1.5 * VARIANCES, 0.2
    model, copies = linear_vae(variances, shift), np.repeat(x[:1], 40_000, axis=0)

    def bias(num_samples):
        estimates = [
            metrics.importance_weighted_log_likelihood(
                model, copies, num_samples=num_samples, seed=seed, batch_size=20_000
            )
            for seed in range(4)
        ]
        return exact_log_prob(x[0]) - np.mean(estimates)

    # With one sample it is the ELBO; with many, var(w / E w) / 2K to first order.
    assert bias(1) == pytest.approx(posterior_kl(variances, shift), rel=0.03)
    expected = relative_variance_of_weights(variances, shift) / (2 * 16)
    assert bias(16) == pytest.approx(expected, rel=0.15)


def relative_variance_of_weights(z_variances, shift):
    """Return E[p(z|x)^2 / q(z|x)] - 1 for z ~ q, from its integral on a grid of each dimension."""
    z, product = np.linspace(-8, 8, 20_001), 1.0
    for q_variance, p_variance in zip(z_variances, VARIANCES, strict=True):
        q = scipy.stats.norm(shift, math.sqrt(q_variance)).pdf(z)
        p = scipy.stats.norm(0, math.sqrt(p_variance)).pdf(z)
        product *= np.sum(p**2 / q) * (z[1] - z[0])
    return product - 1


def test_elbo_has_weight_one_for_the_kl_divergence_whatever_the_beta(x):
    results = [metrics.elbo(linear_vae(beta=beta), x, seed=0) for beta in (0.0, 1.0, 7.0)]
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


# Bernoulli decoders, flat, conditional and of image-shaped networks.


def bernoulli_vae(kind):
    if kind == "images":
        image, z = keras.Input((2, 2, 1)), keras.Input((1,))
        h = layers.Flatten()(image)
        encoder = keras.Model(image, [layers.Dense(1)(h), layers.Dense(1)(h)])
        x_hat = layers.Reshape((2, 2, 1))(layers.Dense(4, "sigmoid")(z))
        model = VAE(encoder, keras.Model(z, x_hat))
    else:
        num_classes = 3 if kind == "conditional" else None
        encoder = build_encoder(4, (3,), 1, num_classes=num_classes)
        model = VAE(encoder, build_decoder(1, (3,), 4, num_classes=num_classes))
    set_random_weights(model)
    model.decoder.set_weights([3 * w for w in model.decoder.get_weights()])
    return model


@pytest.mark.parametrize("kind", ["flat", "conditional", "images"])
def test_bernoulli_likelihood_equals_the_integral_over_z(kind):
    model = bernoulli_vae(kind)
    x = np.array([[0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0], [0.2, 0.9, 0.5, 1]])
    x = x.reshape(4, *model.image_shape)
    labels = np.array([2, 0, 0, 1]) if kind == "conditional" else None
    z = np.linspace(-6, 6, 601)[:, None]
    expected, bounds = [], []
    for i in range(4):
        row_labels = None if labels is None else np.full(601, labels[i])
        x_hat = model.decode(z, row_labels).reshape(601, 4).astype("float64")
        pixels = x[i].reshape(4)
        log_likelihood = np.log(x_hat) @ pixels + np.log(1 - x_hat) @ (1 - pixels)
        prior = scipy.stats.norm.pdf(z[:, 0])
        expected.append(np.log(np.sum(np.exp(log_likelihood) * prior) * 0.02))
        mean, log_var = (
            float(value[0, 0])
            for value in model.encode(x[i : i + 1], None if labels is None else labels[i : i + 1])
        )
        q = scipy.stats.norm.pdf(z[:, 0], mean, math.exp(0.5 * log_var))
        kl = 0.5 * (math.exp(log_var) + mean**2 - 1 - log_var)
        bounds.append(np.sum(q * log_likelihood) * 0.02 - kl)
    result = metrics.importance_weighted_log_likelihood(
        model, x, labels, num_samples=20_000, seed=0
    )
    np.testing.assert_allclose(result, expected, atol=0.02)
    elbo = metrics.elbo(model, x, labels, num_samples=20_000, seed=0)
    np.testing.assert_allclose(elbo, bounds, atol=0.02)


def test_binary_images_have_probabilities_that_sum_to_one():
    images = np.array([[i >> bit & 1 for bit in range(4)] for i in range(16)])
    log_probs = metrics.importance_weighted_log_likelihood(
        bernoulli_vae("flat"), images, num_samples=20_000, seed=0
    )
    assert scipy.special.logsumexp(log_probs) == pytest.approx(0, abs=0.01)


def test_elbo_of_gray_images_is_minus_the_loss_of_the_model(digits):
    model = VAE(build_encoder(), build_decoder())
    model.compile("adam")
    loss = model.evaluate(digits[0], verbose=0, return_dict=True)["loss"]
    assert -np.mean(metrics.elbo(model, digits[0])) == pytest.approx(loss, rel=0.002)


# Memory, random numbers and compilation.


@pytest.mark.parametrize("batch_size", [1, 7, 30, 1000])
@pytest.mark.parametrize("metric", [metrics.elbo, metrics.importance_weighted_log_likelihood])
def test_batches_do_not_change_the_samples(x, metric, batch_size):
    model = linear_vae(1.5 * VARIANCES, 0.3)
    expected = metric(model, x[:3], num_samples=11, seed=4)
    result = metric(model, x[:3], num_samples=11, seed=4, batch_size=batch_size)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_no_more_images_than_a_batch_are_decoded_at_a_time(x):
    shapes = []

    class Recorder(layers.Layer):
        def call(self, inputs):
            shapes.append(inputs.shape[0])
            return inputs

    model = linear_vae()
    z = keras.Input((2,))
    model = VAE(model.encoder, keras.Model(z, model.decoder(Recorder()(z))), likelihood="gaussian")
    shapes.clear()
    metrics.importance_weighted_log_likelihood(model, x, num_samples=100, batch_size=64)
    # Compiled for whole batches, and once more for the last one of 16, not for each of 32 batches.
    assert shapes == [64, None]


def test_seed_alone_governs_the_samples_and_training_is_not_affected(x):
    model = linear_vae(1.5 * VARIANCES)
    generators = [model.sampling.get_seed_generator(training) for training in (True, False)]
    states = [keras.ops.convert_to_numpy(generator.state.value) for generator in generators]
    a, b, c = (metrics.elbo(model, x, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).min() > 1e-4
    assert np.abs(a - metrics.elbo(model, x)).min() > 1e-4
    for generator, state in zip(generators, states, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(generator.state.value), state)


def test_each_image_and_sample_has_noise_of_its_own():
    model = linear_vae(1.5 * VARIANCES)
    result = metrics.elbo(model, np.zeros((6, 5)), seed=0)
    assert len(set(result.tolist())) == 6
    more = metrics.elbo(model, np.zeros((3, 5)), num_samples=2, seed=0)
    np.testing.assert_allclose(more, result.reshape(3, 2).mean(axis=1), rtol=1e-5)


def test_dropout_is_off(x):
    z, model = keras.Input((2,)), linear_vae()
    decoder = keras.Model(z, model.decoder(layers.Dropout(0.9)(z)))
    model = VAE(model.encoder, decoder, likelihood="gaussian")
    result = metrics.importance_weighted_log_likelihood(model, x, num_samples=2)
    np.testing.assert_allclose(result, exact_log_prob(x), atol=1e-5)


def test_double_precision(double_precision, x):
    result = metrics.importance_weighted_log_likelihood(linear_vae(), x, num_samples=2)
    np.testing.assert_allclose(result, exact_log_prob(x), atol=1e-12)


# Units.


def test_bits_per_dimension_by_hand():
    # A fair coin for each of 784 pixels.
    assert metrics.bits_per_dimension(784 * math.log(2), 784) == pytest.approx(1)
    result = metrics.bits_per_dimension([[math.log(16), -math.log(2)]], np.int64(2))
    np.testing.assert_allclose(result, [[2, -0.5]])


def test_perplexity_is_the_number_of_equally_likely_tokens():
    assert metrics.perplexity(math.log(50)) == pytest.approx(50)
    assert metrics.perplexity(0) == 1
    np.testing.assert_allclose(metrics.perplexity([math.log(2), 0]), [2, 1])
    assert metrics.perplexity(np.float32(800)) == math.inf  # without a warning


# Errors.


@pytest.mark.parametrize("metric", [metrics.elbo, metrics.importance_weighted_log_likelihood])
@pytest.mark.parametrize(
    "change, message",
    [
        ({"model": build_generator(2, (3,), 5)}, "model: expected a VAE"),
        ({"model": VAE}, "model: expected a VAE"),
        ({"x": np.full((2, 5), 1.5)}, r"x: expected pixels scaled to \[0, 1\]"),
        ({"x": np.zeros((2, 4))}, r"x: expected shape \(n, 5\), got \(2, 4\)"),
        ({"x": np.zeros((0, 5))}, "x: expected at least one image"),
        ({"labels": [1, 2]}, "labels: expected None, since the model was built without"),
        ({"num_samples": 0}, "num_samples: expected a whole number of at least 1"),
        ({"batch_size": 0}, "batch_size: expected a whole number of at least 1"),
        ({"seed": -1}, "seed: expected None or a whole number"),
    ],
)
def test_invalid_arguments_raise(metric, change, message):
    arguments = {"model": linear_vae(), "x": np.zeros((2, 5)), **change}
    with pytest.raises(ValueError, match=message):
        metric(**arguments)


def test_one_label_is_that_of_all_images():
    model, x = bernoulli_vae("conditional"), np.eye(4)
    results = [metrics.elbo(model, x, labels, seed=0) for labels in (2, [2, 2, 2, 2], [0] * 4)]
    np.testing.assert_array_equal(results[0], results[1])
    assert np.abs(results[0] - results[2]).min() > 1e-3


@pytest.mark.parametrize("labels", [None, [0, 3], [0]])
def test_invalid_labels_of_a_conditional_model_raise(labels):
    with pytest.raises(ValueError, match="labels: expected"):
        metrics.elbo(bernoulli_vae("conditional"), np.zeros((2, 4)), labels)


def test_a_model_of_infinite_variance_raises(x):
    with pytest.raises(ValueError, match="vae: expected finite weights, got NaN or infinity"):
        metrics.elbo(linear_vae(np.exp([700.0, 0.0])), x)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: metrics.bits_per_dimension(1.0, 0), "num_dimensions: .* at least 1, got 0"),
        (lambda: metrics.bits_per_dimension("1", 3), "nats: expected numbers"),
        (lambda: metrics.bits_per_dimension(np.nan, 3), "nats: expected finite numbers"),
        (lambda: metrics.perplexity([2.0, -1.0]), "nats_per_token: .* at least 0, got -1.0"),
        (lambda: metrics.perplexity(None), "nats_per_token: expected numbers"),
    ],
)
def test_invalid_numbers_raise(call, message):
    with pytest.raises(ValueError, match=message):
        call()
