"""Latent editing: directions of a linear decoder, paths on a sphere, inversion of known images."""

import keras
import numpy as np
import pytest

from keras_genai import latent_editing, plotting
from keras_genai.gan import GAN, build_discriminator, build_generator
from keras_genai.latent_editing import interpolate_latents, invert, latent_directions
from keras_genai.learned_prior import LearnedPriorVAE, MixturePrior
from keras_genai.vae import VAE, build_decoder, build_encoder

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(200, 4))


def build_model(kind, num_classes=None):
    keras.utils.set_random_seed(0)
    if kind == "GAN":
        generator = build_generator(3, (16,), 9, num_classes=num_classes)
        return GAN(generator, build_discriminator(9, (8,), num_classes=num_classes))
    encoder = build_encoder(9, (8,), 3, num_classes=num_classes)
    decoder = build_decoder(3, (16,), 9, num_classes=num_classes)
    if kind == "VAE":
        return VAE(encoder, decoder)
    return LearnedPriorVAE(encoder, decoder, MixturePrior(3, 5, num_classes))


all_models = pytest.mark.parametrize("kind", ["VAE", "LearnedPriorVAE", "GAN"])


# Samples and images.


@all_models
@pytest.mark.parametrize("num_classes", [None, 3])
def test_decoded_samples_are_what_generate_returns(kind, num_classes, monkeypatch):
    model, labels = build_model(kind, num_classes), None if num_classes is None else [0, 2, 1, 2, 0]
    z = latent_editing.sample_latents(model, 5, labels, seed=1)
    expected = model.generate(5, labels, seed=1)
    monkeypatch.setattr(latent_editing, "BATCH_SIZE", 2)
    np.testing.assert_allclose(
        latent_editing.decode_latents(model, z, labels), expected, rtol=1e-6, atol=1e-7
    )


def test_other_models_and_latents_are_refused():
    with pytest.raises(ValueError, match="^model: expected a VAE or a GAN"):
        latent_editing.sample_latents(keras.Sequential())
    with pytest.raises(ValueError, match="^z: expected shape"):
        latent_editing.decode_latents(build_model("GAN"), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="^z: expected at least one"):
        latent_editing.decode_latents(build_model("GAN"), np.zeros((0, 3)))
    with pytest.raises(ValueError, match="^labels: expected None"):
        latent_editing.sample_latents(build_model("GAN"), 2, [0, 1])


# Directions.


def test_directions_of_linear_attributes_are_exact():
    gradients = np.array([[2.0, 0, 0, 0], [1, 1, 0, 0]])
    attributes = dict(zip(("size", "tilt"), gradients @ Z.T + [[3.0], [-1]], strict=True))
    directions = latent_directions(Z, attributes)
    np.testing.assert_allclose(directions.gradients, gradients, atol=1e-12)
    # By hand: d_1 is orthogonal to (1, 1), d_2 to (1, 0), each with a product of 1 with its own.
    np.testing.assert_allclose(directions.vectors, [[0.5, -0.5, 0, 0], [0, 1, 0, 0]], atol=1e-12)
    np.testing.assert_allclose(directions.r_squared, 1)


def test_an_edit_changes_one_attribute_by_its_units_and_leaves_the_other():
    gradients = RNG.normal(size=(2, 4))
    attributes = dict(zip("ab", gradients @ Z.T, strict=True))
    directions = latent_directions(Z, attributes)
    moved = directions.edit(Z[:3], {"a": 2.5})
    np.testing.assert_allclose(gradients @ (moved - Z[:3]).T, [[2.5] * 3, [0] * 3], atol=1e-5)
    moved = directions.edit(Z[:3], {"a": [1, 2, 3], "b": -1})
    np.testing.assert_allclose(gradients @ (moved - Z[:3]).T, [[1, 2, 3], [-1] * 3], atol=1e-5)


def test_direction_of_two_unit_gradients_is_the_projection_of_the_paper():
    w = RNG.normal(size=(2, 4))
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    directions = latent_directions(Z, dict(zip("ab", w @ Z.T, strict=True)))
    projected = w[0] - (w[0] @ w[1]) * w[1]  # Shen et al. 2020, section 2.2
    cosine = directions.vectors[0] @ projected / np.linalg.norm(projected)
    assert cosine == pytest.approx(np.linalg.norm(directions.vectors[0]))


def test_r_squared_is_the_share_of_the_variance_without_the_noise():
    z, noise = RNG.normal(size=(20_000, 3)), RNG.normal(size=20_000)
    directions = latent_directions(z, {"a": z @ [0.6, 0, 0.8] + 0.5 * noise})
    assert directions.r_squared[0] == pytest.approx(1 / 1.25, abs=0.01)


def test_classes_have_intercepts_of_their_own():
    labels = np.arange(len(Z)) % 2
    z = Z + 5 * labels[:, None]  # z and attribute both depend on the class
    attribute = z @ [1.0, 2, 0, 0] - 40 * labels
    directions = latent_directions(z, {"a": attribute}, labels)
    np.testing.assert_allclose(directions.gradients, [[1, 2, 0, 0]], atol=1e-10)
    np.testing.assert_allclose(directions.r_squared, 1)
    assert np.abs(latent_directions(z, {"a": attribute}).gradients - [[1, 2, 0, 0]]).max() > 1


@pytest.mark.parametrize(
    ("message", "z", "attributes"),
    [
        ("z: expected at least 6 samples", Z[:5], {"a": Z[:5, 0]}),
        ("attributes: expected at least one", Z, {}),
        ("attributes: a: expected shape", Z, {"a": Z}),
        ("attributes: a: expected values that vary", Z, {"a": np.ones(200)}),
        ("attributes: expected linearly independent", Z, {"a": Z[:, 0], "b": 3 - 2 * Z[:, 0]}),
        ("labels: expected shape", Z, None),
    ],
)
def test_directions_that_cannot_be_fitted_are_refused(message, z, attributes):
    labels = np.zeros(3) if attributes is None else None
    with pytest.raises(ValueError, match=f"^{message}"):
        latent_directions(z, {"a": Z[:, 0]} if attributes is None else attributes, labels)


def test_edits_that_do_not_fit_are_refused():
    directions = latent_directions(Z, {"a": Z[:, 0]})
    for message, changes in {
        "changes: expected one of 'a'": {"b": 1},
        "changes: expected a dict": [1],
        "changes: a: expected a number or shape": {"a": [1, 2]},
    }.items():
        with pytest.raises(ValueError, match=f"^{message}"):
            directions.edit(Z, changes)


# Interpolation.


def test_linear_path_is_that_of_numpy():
    path = interpolate_latents(Z[:3], Z[3:6], 5)
    np.testing.assert_allclose(path, np.linspace(Z[:3], Z[3:6], 5, axis=1), atol=1e-6)


def test_spherical_path_keeps_the_norm_and_turns_by_equal_angles():
    start, end = ([[3.0, 0, 0, 0]], [[0, 3.0, 0, 0]])
    angles = np.linspace(0, np.pi / 2, 7)
    expected = 3 * np.stack([np.cos(angles), np.sin(angles), 0 * angles, 0 * angles], axis=1)
    np.testing.assert_allclose(
        interpolate_latents(start, end, 7, "spherical")[0], expected, atol=1e-6
    )


def test_spherical_path_of_any_vectors_ends_at_the_ends_with_a_norm_between():
    path = interpolate_latents(Z[:20], Z[20:40], 9, "spherical")
    np.testing.assert_allclose(path[:, 0], Z[:20], atol=1e-6)
    np.testing.assert_allclose(path[:, -1], Z[20:40], atol=1e-6)
    norms = np.linalg.norm(path, axis=-1)
    np.testing.assert_allclose(norms, np.linspace(norms[:, 0], norms[:, -1], 9, axis=1), rtol=1e-5)


def test_spherical_path_between_parallel_vectors_is_straight():
    path = interpolate_latents([[1.0, 2]], [[2.0, 4]], 3, "spherical")
    np.testing.assert_allclose(path[0], [[1, 2], [1.5, 3], [2, 4]], rtol=1e-6)


@pytest.mark.parametrize(
    ("message", "start", "end", "options"),
    [
        ("end: expected shape", Z[:2], Z[:3], {}),
        ("steps: expected a whole number of at least 2", Z, Z, {"steps": 1}),
        ("method: expected one of", Z, Z, {"method": "cubic"}),
        ("end: expected no vector opposite", Z[:2], -Z[:2], {"method": "spherical"}),
        ("start: expected vectors other than 0", 0 * Z, Z, {"method": "spherical"}),
        ("start: expected finite", np.full((1, 2), np.nan), np.zeros((1, 2)), {}),
    ],
)
def test_paths_that_do_not_exist_are_refused(message, start, end, options):
    with pytest.raises(ValueError, match=f"^{message}"):
        interpolate_latents(start, end, **options)


def test_plotted_interpolation_is_the_linear_path(monkeypatch):
    vae, decoded = build_model("VAE"), []
    monkeypatch.setattr(
        VAE, "decode", lambda self, z, labels: decoded.append(z) or np.zeros((len(z), 9))
    )
    x = RNG.uniform(size=(2, 9))
    plotting.plot_interpolation(vae, x[0], x[1], 4)
    ends = vae.encode(x)[0]
    np.testing.assert_allclose(decoded[0], np.linspace(*ends, 4), atol=1e-6)


# Inversion.


@all_models
@pytest.mark.parametrize("num_classes", [None, 2])
def test_inversion_finds_the_latents_of_generated_images(kind, num_classes):
    model, labels = build_model(kind, num_classes), None if num_classes is None else [0, 1, 1]
    images = model.generate(3, labels, seed=5)
    options = dict(num_steps=300, num_restarts=8, prior_weight=0, seed=0)
    z, errors = invert(model, images, labels, **options)
    assert errors.max() < 1e-5
    decoded = latent_editing.decode_latents(model, z, labels)
    np.testing.assert_allclose(np.mean((decoded - images) ** 2, axis=1), errors, atol=1e-7)


def test_refinement_is_never_worse_than_the_encoder():
    model, images = build_model("VAE"), RNG.uniform(size=(4, 9)).astype("float32")
    encoded = np.mean((model.reconstruct(images) - images) ** 2, axis=1)
    for learning_rate in (0.1, 1e3):  # which overshoots in all steps
        options = dict(num_steps=3, learning_rate=learning_rate, prior_weight=0)
        errors = invert(model, images, **options)[1]
        assert np.all(errors <= encoded + 1e-6)


def test_batches_do_not_change_the_result():
    model, images = build_model("GAN"), RNG.uniform(size=(3, 9))
    whole, parts = (
        invert(model, images, num_steps=5, num_restarts=2, batch_size=size, seed=0)[0]
        for size in (100, 4)
    )
    np.testing.assert_allclose(whole, parts, rtol=1e-4, atol=1e-5)


def test_more_restarts_find_a_smaller_loss():
    model, images = build_model("GAN"), RNG.uniform(size=(8, 9))
    one, four = (
        invert(model, images, num_steps=20, num_restarts=n, prior_weight=0, seed=0)[1]
        for n in (1, 4)
    )
    assert np.all(four <= one + 1e-6) and np.any(four < one - 1e-4)


@pytest.mark.parametrize("kind", ["VAE", "LearnedPriorVAE"])
def test_a_large_weight_of_the_prior_leads_to_its_mode(kind):
    model, mode = build_model(kind), np.zeros(3)
    if kind == "LearnedPriorVAE":  # all Gaussians at one place
        mode = np.array([1.0, -2, 0.5])
        model.prior.means.assign(np.broadcast_to(mode, (1, 5, 3)))
    images = RNG.uniform(size=(2, 9))
    z, _ = invert(model, images, num_steps=300, prior_weight=1e4)
    np.testing.assert_allclose(z, [mode, mode], atol=0.01)


def test_inversion_takes_images_with_channels():
    keras.utils.set_random_seed(0)
    decoder = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(4, "sigmoid"), keras.layers.Reshape((2, 2, 1))]
    )
    x = keras.Input((2, 2, 1))
    h = keras.layers.Flatten()(x)
    encoder = keras.Model(x, [keras.layers.Dense(2)(h), keras.layers.Dense(2)(h)])
    model = VAE(encoder, decoder)
    z, errors = invert(model, model.generate(2, seed=0), num_steps=300, prior_weight=0)
    assert z.shape == (2, 2) and errors.max() < 1e-6


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("images: expected pixels", {"images": np.full((1, 9), 2.0)}),
        ("images: expected shape", {"images": np.zeros((1, 3, 3))}),
        ("labels: expected None", {"labels": [0]}),
        ("num_steps: expected", {"num_steps": 0}),
        ("learning_rate: expected", {"learning_rate": 0}),
        ("num_restarts: expected", {"num_restarts": 0}),
        ("prior_weight: expected", {"prior_weight": -1}),
        ("batch_size: expected", {"batch_size": 0}),
        ("seed: expected", {"seed": -1}),
        ("model: expected", {"model": None}),
    ],
)
def test_inversions_that_do_not_fit_are_refused(message, options):
    arguments = {"model": build_model("GAN"), "images": np.zeros((1, 9)), **options}
    with pytest.raises(ValueError, match=f"^{message}"):
        invert(**arguments)
