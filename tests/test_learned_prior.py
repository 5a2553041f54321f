"""Learned prior of a VAE: density and samples of the mixture, KL divergence, training, files."""

import keras
import numpy as np
import pytest
from scipy import stats

from keras_genai import load_model
from keras_genai.learned_prior import LearnedPriorVAE, MixturePrior
from keras_genai.vae import VAE, build_decoder, build_encoder, kl_divergence


def random_prior(num_classes=None, latent_dim=2, num_components=3):
    prior = MixturePrior(latent_dim, num_components, num_classes)
    prior.build()
    rng = np.random.default_rng(0)
    for weight in prior.weights:
        weight.assign(rng.normal(size=weight.shape))
    return prior


def build_model(prior, num_classes=None, **options):
    keras.utils.set_random_seed(0)
    encoder = build_encoder(8, (4,), 2, num_classes=num_classes)
    return LearnedPriorVAE(
        encoder, build_decoder(2, (4,), 8, num_classes=num_classes), prior, seed=0, **options
    )


def scipy_density(prior, z, label):
    logits, means, log_vars = (w.astype("float64")[label] for w in prior.get_weights())
    weights = np.exp(logits) / np.exp(logits).sum()
    return sum(
        weight * stats.multivariate_normal(mean, np.diag(np.exp(log_var))).pdf(z)
        for weight, mean, log_var in zip(weights, means, log_vars, strict=True)
    )


def test_density_is_that_of_scipy():
    z = np.random.default_rng(1).normal(size=(6, 2)).astype("float32")
    prior = random_prior()
    np.testing.assert_allclose(prior(z), np.log(scipy_density(prior, z, 0)), rtol=1e-5)
    prior, labels = random_prior(2), np.array([0, 1, 1, 0, 1, 0])
    expected = [scipy_density(prior, row, label) for row, label in zip(z, labels, strict=True)]
    np.testing.assert_allclose(prior(z, labels), np.log(expected), rtol=1e-5)


@pytest.mark.parametrize("label", [None, 1])
def test_samples_have_the_moments_of_the_mixture(label):
    prior = random_prior(None if label is None else 2)
    samples = prior.sample(40_000, label, seed=0).astype("float64")
    logits, means, log_vars = (w.astype("float64")[label or 0] for w in prior.get_weights())
    weights = np.exp(logits) / np.exp(logits).sum()
    mean = weights @ means
    variance = weights @ (np.exp(log_vars) + means**2) - mean**2
    np.testing.assert_allclose(samples.mean(0), mean, atol=0.05)
    np.testing.assert_allclose(samples.var(0), variance, rtol=0.05)
    np.testing.assert_array_equal(prior.sample(5, label, seed=3), prior.sample(5, label, seed=3))


def test_kl_divergence_to_one_gaussian_is_the_closed_form_on_average():
    prior = MixturePrior(2, 1)
    prior.build()
    prior.means.assign(np.zeros((1, 1, 2)))
    model = build_model(prior)
    z_mean, z_log_var = np.array([[0.5, -1.0]], "float32"), np.array([[-0.5, 0.3]], "float32")
    rng = np.random.default_rng(0)
    z = (z_mean + np.exp(z_log_var / 2) * rng.normal(size=(40_000, 2))).astype("float32")
    estimates = np.asarray(model.compute_kl(z, z_mean, z_log_var, None))
    expected = float(kl_divergence(z_mean, z_log_var)[0])
    assert estimates.mean() == pytest.approx(expected, abs=4 * float(estimates.std()) / 200)


@pytest.mark.parametrize("num_classes", [None, 2])
def test_training_moves_the_prior_and_lowers_the_loss(num_classes):
    rng = np.random.default_rng(0)
    x, labels = rng.integers(0, 2, (64, 8)).astype("float32"), rng.integers(0, 2, 64)
    model = build_model(random_prior(num_classes), num_classes)
    assert len(model.trainable_weights) == len(model.encoder.weights + model.decoder.weights) + 3
    before = model.prior.get_weights()
    model.compile(keras.optimizers.Adam(1e-2))
    data = (x,) if num_classes is None else (x, labels)
    history = model.fit(*data, batch_size=16, epochs=20, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] - 0.5
    for old, new in zip(before, model.prior.get_weights(), strict=True):
        assert np.abs(old - new).max() > 1e-3


def test_samples_are_those_of_the_prior_decoded():
    model = build_model(random_prior(2), 2)
    labels = np.array([1, 0, 1])
    z = model.prior.sample(3, labels, seed=5)
    expected = model.decoder.predict([z, labels], verbose=0)
    np.testing.assert_allclose(model.generate(3, labels, seed=5), expected, rtol=1e-5)


def test_saved_model_has_the_prior_and_trains_on(tmp_path):
    x = np.random.default_rng(0).random((8, 8), "float32")
    model = build_model(random_prior())
    model.compile("adam")
    model.fit(x, verbose=0)
    model.save(tmp_path / "vae.keras")
    loaded = load_model(tmp_path / "vae.keras")
    for each in (model, loaded):
        each.fit(x, verbose=0)
    for old, new in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-6)
    np.testing.assert_allclose(loaded.generate(3, seed=1), model.generate(3, seed=1), atol=1e-6)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: MixturePrior(0), "latent_dim: expected"),
        (lambda: MixturePrior(2, 0), "num_components: expected"),
        (lambda: MixturePrior(2, 3, 1), "num_classes: expected"),
        (lambda: build_model(None), "prior: expected"),
        (lambda: build_model(VAE), "prior: expected"),
        (lambda: build_model(random_prior(latent_dim=3)), r"prior: expected z of shape \(2,\)"),
        (lambda: build_model(random_prior(2)), "prior: expected num_classes None"),
        (lambda: random_prior().sample(2, labels=[0, 1]), "labels: expected None"),
        (lambda: random_prior(2).sample(2), "labels: expected"),
        (lambda: random_prior(2).sample(2, [0, 2]), "labels: expected"),
        (lambda: random_prior().sample(0), "num_samples: expected"),
    ],
)
def test_invalid_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
