"""Metrics in feature space: values by hand, in closed form, and of SciPy and scikit-learn."""

import math

import keras
import numpy as np
import pytest
import scipy.linalg
from keras import layers
from sklearn.metrics.pairwise import polynomial_kernel
from sklearn.neighbors import NearestNeighbors

from keras_genai import datasets, feature_metrics, metrics, pretrained
from keras_genai.vae import build_decoder


def normal(n, d, seed=0, scale=1.0, shift=0.0):
    return np.random.default_rng(seed).normal(shift, scale, (n, d))


def with_moments(mean, covariance, seed):
    """Return 50 points with exactly these moments."""
    z = normal(50, len(mean), seed)
    z -= z.mean(axis=0)
    whitened = z @ np.linalg.inv(np.linalg.cholesky(np.cov(z, rowvar=False))).T
    return whitened @ np.linalg.cholesky(covariance).T + mean


# Features.


def test_features_are_those_that_the_logits_of_the_classifier_are_computed_from(digits):
    images = digits[0][:501]  # more than a batch
    features = metrics.image_features(images)
    classifier = pretrained.load("article4-cnn")
    kernel, bias = classifier.get_layer("logits").get_weights()
    logits = classifier.predict(images.reshape(-1, 28, 28, 1), verbose=0)
    assert features.shape == (501, 128) and features.dtype == "float64"
    np.testing.assert_allclose(features @ kernel + bias, logits, atol=1e-3)
    np.testing.assert_array_equal(features, metrics.image_features(images.reshape(-1, 28, 28, 1)))


@pytest.mark.parametrize("output", ["tensor", "list", "dict"])
@pytest.mark.parametrize("input_shape", [(2, 3, 1), (6,)])
@pytest.mark.parametrize("shape", [(4, 2, 3, 1), (4, 6)])
def test_features_of_any_network_have_one_row_for_each_image(shape, input_shape, output):
    images = np.linspace(0, 1, 24).reshape(shape)
    x = keras.Input(input_shape)
    y = layers.Rescaling(2.0)(x)
    network = keras.Model(x, {"tensor": y, "list": [y], "dict": {"y": y}}[output])
    features = metrics.image_features(images, network)
    np.testing.assert_allclose(features, 2 * images.reshape(4, 6), rtol=1e-6)


def test_features_of_a_network_for_images_of_any_size():
    images = np.random.default_rng(0).uniform(size=(3, 5, 4, 2))
    network = keras.Sequential([keras.Input((None, None, 2)), layers.GlobalAveragePooling2D()])
    features = metrics.image_features(images, network)
    np.testing.assert_allclose(features, images.mean(axis=(1, 2)), rtol=1e-5)


def test_all_pixels_may_be_0_or_1():
    images = np.array([[True, False], [True, True]])
    network = keras.Sequential([keras.Input((2,)), layers.Rescaling(3.0)])
    assert metrics.image_features(images, network).tolist() == [[3, 0], [3, 3]]


# Fréchet distance.


def test_frechet_distance_of_known_moments_in_closed_form():
    real = with_moments([0, 0], [[2, 1], [1, 2]], seed=0)
    generated = with_moments([1, 2], [[1, 0], [0, 4]], seed=1)
    # The product of the covariances M has trace 10 and determinant 12. For two positive
    # eigenvalues, tr M^(1/2) = (tr M + 2 (det M)^(1/2))^(1/2).
    expected = (1 + 4) + (4 + 5) - 2 * math.sqrt(10 + 2 * math.sqrt(12))
    assert metrics.frechet_distance(real, generated) == pytest.approx(expected, rel=1e-12)


def test_frechet_distance_equals_that_of_the_matrix_root_of_scipy():
    mix = normal(6, 6, 2)
    real, generated = normal(300, 6, 0) @ mix, normal(200, 6, 1, 1.5, 0.3) @ mix.T
    covariances = [np.cov(x, rowvar=False) for x in (real, generated)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    expected = np.sum((real.mean(0) - generated.mean(0)) ** 2)
    expected += np.trace(covariances[0] + covariances[1] - 2 * root).real
    assert metrics.frechet_distance(real, generated) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_fewer_points_than_features():
    line = np.zeros((2, 5))
    line[:, 0] = -1, 1  # variance 2
    other = np.zeros((2, 5))
    other[:, 1] = -3, 3  # variance 18 in an orthogonal direction: the product is 0
    assert metrics.frechet_distance(line, other) == pytest.approx(20)
    assert metrics.frechet_distance(line, 3 * line) == pytest.approx(2 + 18 - 2 * 6)
    assert metrics.frechet_distance(line, np.ones((4, 5))) == pytest.approx(5 + 2)


@pytest.mark.parametrize("n", [3, 100])
def test_frechet_distance_of_equal_features_is_zero_and_not_negative(n):
    for seed in range(10):  # rounding would make about a half of them negative
        x = normal(n, 20, seed, scale=100, shift=1e4)
        assert 0 <= metrics.frechet_distance(x, x[::-1]) < 1e-8


@pytest.mark.parametrize("n", [100, 400])
def test_frechet_distance_of_two_samples_of_a_gaussian_falls_as_1_over_n(n):
    d = 4
    distances = [
        metrics.frechet_distance(normal(n, d, 2 * i), normal(n, d, 2 * i + 1)) for i in range(300)
    ]
    # To first order, 2d/n of the means and |C_1 - C_2|^2 / 4 of the covariances.
    expected = (2 * d + d * (d + 1) / 2) / n
    assert np.mean(distances) == pytest.approx(expected, rel=0.08)
    assert min(distances) > 0


# Kernel distance.


def squared_mmd(x, y):
    """Return equation 3 of Gretton et al. 2012 with the loops that it is written with."""
    m, d = x.shape

    def kernel(a, b):
        return (a @ b / d + 1) ** 3

    total = 0.0
    for i in range(m):
        for j in range(m):
            if i != j:
                total += (kernel(x[i], x[j]) + kernel(y[i], y[j])) / (m * (m - 1))
            total -= 2 * kernel(x[i], y[j]) / m**2
    return total


def test_kernel_distance_equals_the_double_sum():
    x, y = normal(9, 3, 0), normal(9, 3, 1, 1.3, 0.4)
    distance, error = metrics.kernel_distance(x, y)
    assert distance == pytest.approx(squared_mmd(x, y), rel=1e-10)
    assert math.isnan(error)  # there is one subset only


def test_kernel_distance_of_subsets_has_the_kernel_of_scikit_learn():
    x, y = normal(30, 4, 0), normal(20, 4, 1, 1.2, 0.5)
    distances = []
    generator = np.random.default_rng(5)
    for _ in range(7):
        a = x[generator.choice(30, 12, replace=False)]
        b = y[generator.choice(20, 12, replace=False)]
        kernels = [polynomial_kernel(p, q, degree=3) for p, q in ((a, a), (b, b), (a, b))]
        off_diagonal = [kernel[~np.eye(12, dtype=bool)].mean() for kernel in kernels[:2]]
        distances.append(sum(off_diagonal) - 2 * kernels[2].mean())
    distance, error = metrics.kernel_distance(x, y, num_subsets=7, subset_size=12, seed=5)
    assert distance == pytest.approx(np.mean(distances), rel=1e-10)
    assert error == pytest.approx(np.std(distances, ddof=1) / math.sqrt(7), rel=1e-10)


def test_standard_error_of_the_kernel_distance_covers_the_choice_of_the_subsets():
    # The mean over all subsets is the distance of all points.
    x, y = normal(40, 3, 0), normal(40, 3, 1, 1.0, 0.5)
    results = [metrics.kernel_distance(x, y, 20, 10, seed=seed) for seed in range(100)]
    distances, errors = np.transpose(results)
    assert np.mean(errors) == pytest.approx(np.std(distances), rel=0.15)
    assert abs(np.mean(distances) - squared_mmd(x, y)) < 3 * np.mean(errors) / math.sqrt(100)


def test_kernel_distance_has_no_bias_even_for_five_points():
    distances = [
        metrics.kernel_distance(normal(5, 3, 2 * i), normal(5, 3, 2 * i + 1))[0]
        for i in range(2000)
    ]
    error = np.std(distances) / math.sqrt(2000)
    assert abs(np.mean(distances)) < 3 * error
    assert min(distances) < 0
    # With the diagonal, the mean would be far from 0: E[k(x, x) - k(x, y)] / n of each.
    norms = normal(10_000, 3) ** 2
    assert 2 / 5 * np.mean((norms.mean(axis=1) + 1) ** 3 - 2) > 20 * error


def test_default_subsets_of_the_kernel_distance_are_a_thousand_points():
    x, y = normal(1100, 2, 0), normal(1200, 2, 1)
    given = metrics.kernel_distance(x, y, num_subsets=2, subset_size=1000)
    assert metrics.kernel_distance(x, y, num_subsets=2) == given
    smaller = metrics.kernel_distance(x, y[:50], num_subsets=2)
    assert smaller == metrics.kernel_distance(x, y[:50], num_subsets=2, subset_size=50)


# Nearest neighbors.

# On a line: for k = 1, the balls of the real points are [-1, 1], [0, 2], [1, 3] and [2, 18], those
# of the generated ones [-2.5, 3.5], [0.5, 6.5], [29, 31] and [30, 32].
REAL, GENERATED = np.array([[0], [1], [2], [10]]), np.array([[0.5], [3.5], [30], [31]])


def test_precision_and_recall_on_a_line():
    # 0.5 and 3.5 are in a real ball; 0, 1 and 2 in a generated one.
    assert metrics.precision_recall(REAL, GENERATED, k=1) == (2 / 4, 3 / 4)
    # For k = 2, the real radii are 2, 1, 2 and 9, the generated ones 29.5, 26.5, 26.5 and 27.5.
    assert metrics.precision_recall(REAL, GENERATED, k=2) == (2 / 4, 1)


def test_density_and_coverage_on_a_line():
    # 0.5 is in the balls of 0 and 1, 3.5 in that of 10.
    assert metrics.density_coverage(REAL, GENERATED, k=1) == (3 / 4, 3 / 4)
    # For k = 2: 0.5 in those of 0, 1 and 2, 3.5 in those of 2 and 10.
    assert metrics.density_coverage(REAL, GENERATED, k=2) == (5 / 8, 1)
    assert metrics.density_coverage(REAL, GENERATED[:1], k=1) == (2, 2 / 4)
    assert metrics.density_coverage(REAL, GENERATED[2:], k=1) == (0, 0)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_neighbors_are_those_of_scikit_learn(k):
    real, generated = normal(200, 8, 0), normal(150, 8, 1, 0.8, 0.2)

    def radii(x):
        return NearestNeighbors(n_neighbors=k).fit(x).kneighbors()[0][:, -1]

    distances = np.linalg.norm(generated[:, None] - real, axis=-1)
    in_real, in_generated = distances <= radii(real), distances.T <= radii(generated)
    precision, recall = in_real.any(axis=1).mean(), in_generated.any(axis=1).mean()
    assert 0.1 < precision < 0.99 and 0.1 < recall < 0.99
    assert metrics.precision_recall(real, generated, k) == (precision, recall)
    expected = in_real.sum() / (k * 150), in_real.any(axis=0).mean()
    assert metrics.density_coverage(real, generated, k) == pytest.approx(expected, rel=1e-12)


def test_a_neighbor_on_the_surface_of_a_ball_is_inside_far_from_the_origin():
    x = normal(60, 16, shift=1e5)
    assert metrics.precision_recall(x, x, k=3) == (1, 1)
    assert metrics.density_coverage(x, x, k=3) == (pytest.approx(4 / 3), 1)
    # One by one, the distances have other rounding errors than the radii.
    densities = [metrics.density_coverage(x, x[i : i + 1], k=3)[0] for i in range(60)]
    assert np.mean(densities) == pytest.approx(4 / 3)


def test_copies_of_one_image_have_a_precision_of_1_and_recall_that_image_only():
    real = normal(200, 32, shift=3)
    copies = np.repeat(real[7:8], 50, axis=0)
    assert metrics.precision_recall(real, copies) == (1, 1 / 200)
    assert metrics.precision_recall(real, copies + 100) == (0, 0)


def test_copies_are_in_balls_of_radius_zero():
    assert metrics.precision_recall(np.ones((5, 2)), np.ones((4, 2))) == (1, 1)
    assert metrics.density_coverage(np.ones((6, 2)), np.ones((4, 2)), k=3) == (6 / 3, 1)
    for seed in range(5):
        real = normal(60, 16, seed, shift=1e5)
        real[:10] = real[0]
        assert metrics.precision_recall(real[:10], real[:5]) == (1, 1)
        assert metrics.precision_recall(real, real[:5]) == (1, 10 / 60)
        assert metrics.density_coverage(real, real[:1], k=3)[0] >= 10 / 3


@pytest.mark.parametrize("n", [10, 100])
def test_density_and_coverage_of_two_samples_of_one_distribution(n):
    k, repeats = 3, 4000 // n
    results = [
        metrics.density_coverage(normal(n, 2, 2 * i), normal(n, 2, 2 * i + 1), k)
        for i in range(repeats)
    ]
    coverage = 1 - math.prod((n - i) / (2 * n - i) for i in range(1, k + 1))
    error = np.std(results, axis=0) / math.sqrt(repeats)
    assert np.all(np.abs(np.mean(results, axis=0) - [1, coverage]) < 3 * error)
    assert np.all(error < 0.05)


def test_precision_and_recall_of_a_faultless_model_are_below_one_in_many_dimensions():
    low, high = (metrics.precision_recall(normal(400, d), normal(400, d, 1)) for d in (2, 64))
    assert 0.93 < min(low) and 0.5 < min(high) and max(high) < 0.8


@pytest.mark.parametrize(
    "metric", [metrics.precision_recall, metrics.density_coverage, metrics.kernel_distance]
)
def test_small_parts_give_the_same_values(metric, monkeypatch):
    real, generated = normal(60, 5, 0), normal(50, 5, 1, 0.9, 0.1)
    expected = metric(real, generated)
    for pairs in (1, 150):  # a row at a time, or two or three
        monkeypatch.setattr(feature_metrics, "MAX_PAIRS", pairs)
        assert metric(real, generated) == pytest.approx(expected, rel=1e-9)


# Digits.


@pytest.mark.slow
def test_digits_generated_by_a_vae_are_further_than_training_images():
    (train, _), (test, _) = datasets.load_mnist()
    reference = metrics.image_features(test[..., None] / 255)
    results = []
    images = {
        "training": train[:10_000, ..., None] / 255,
        "vae": pretrained.load("article4-vae").generate(10_000, seed=0),
        "conditional": pretrained.load("conditional-vae").generate(
            10_000, np.arange(10_000) % 10, seed=0
        ),
    }
    for generated in images.values():
        features = metrics.image_features(generated)
        distance = metrics.frechet_distance(reference, features)
        results.append([distance, *metrics.precision_recall(reference[:2000], features[:2000])])
    expected = [[1.9, 0.85, 0.85], [183, 0.81, 0.315], [185, 0.95, 0.011]]
    np.testing.assert_allclose(results, expected, rtol=0.02, atol=0.005)


# Errors.


X = np.zeros((4, 3))
NETWORK = keras.Sequential([keras.Input((3,)), layers.Rescaling(1.0)])


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: metrics.image_features(np.zeros((2, 27, 28, 1))),
            r"images: expected shape \(None, 28, 28, 1\), the input of the network, got \(2, 27",
        ),
        (lambda: metrics.image_features(np.zeros((2, 783))), "images: expected shape"),
        # As many numbers, in another arrangement.
        (lambda: metrics.image_features(np.zeros((2, 1, 784, 1))), "images: expected shape"),
        (lambda: metrics.image_features(np.zeros((0, 784))), "images: expected at least one"),
        (lambda: metrics.image_features(X - 1, NETWORK), r"images: expected pixels .* from -1"),
        (lambda: metrics.image_features(X + np.nan, NETWORK), r"images: .* from nan to nan"),
        (lambda: metrics.image_features(X, "cnn"), "network: expected a functional keras.Model"),
        (
            lambda: metrics.image_features(X, keras.Sequential([layers.Dense(1)])),
            "network: expected a functional",
        ),
        (
            lambda: metrics.image_features(X, build_decoder(3, (2,), 4, num_classes=2)),
            "network: expected one input, the images, got 2",
        ),
        (
            lambda: metrics.image_features(X, keras.Model(NETWORK.inputs, NETWORK.outputs * 2)),
            "network: expected outputs features, got 2 outputs",
        ),
        (
            lambda: metrics.image_features(
                X, keras.Sequential([keras.Input((3,)), layers.Rescaling(np.nan, name="r")])
            ),
            "expected finite weights, got NaN",
        ),
        (lambda: metrics.frechet_distance(X[0], X), r"real: expected shape \(n, n\), got \(3,\)"),
        (lambda: metrics.frechet_distance(X, X[:, :2]), "generated: expected 3 features, .* got 2"),
        (lambda: metrics.frechet_distance(X, X[:1]), "generated: .* n at least 2, got"),
        (lambda: metrics.frechet_distance(X[:, :0], X[:, :0]), "real: expected features"),
        (lambda: metrics.frechet_distance(X + np.nan, X), "real: expected finite numbers"),
        (lambda: metrics.kernel_distance(X[:1], X), "real: .* n at least 2, got"),
        (lambda: metrics.kernel_distance(X, X, num_subsets=1), "num_subsets: .* at least 2"),
        (lambda: metrics.kernel_distance(X, X[:3], 5, 4), "subset_size: .* at most 3, got 4"),
        (lambda: metrics.kernel_distance(X, X, 5, 1), "subset_size: .* at least 2, got 1"),
        (lambda: metrics.kernel_distance(X, X, 5, 2, seed=-1), "seed: expected"),
        (lambda: metrics.precision_recall(X, X, k=0), "k: expected a whole number"),
        (lambda: metrics.precision_recall(X[:3], X), "real: expected more than k = 3 rows, got 3"),
        (lambda: metrics.precision_recall(X, X[:3]), "generated: expected more than k = 3 rows"),
        (lambda: metrics.density_coverage(X, X), "real: expected more than k = 5 rows, got 4"),
        (lambda: metrics.density_coverage(X, X[:0], 1), "generated: .* n at least 1, got"),
        (lambda: metrics.density_coverage(X, np.full((4, 3), "a")), "generated: expected numbers"),
    ],
)
def test_invalid_arguments_raise(call, message):
    with pytest.raises(ValueError, match=message):
        call()
