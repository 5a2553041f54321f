"""Distances between real and generated images, in the features of a network.

Features are those of `pretrained.load("article4-cnn")`, a LeNet-like classifier of MNIST digits, or
of any Keras model. The values depend on the network: those of one network are compared with each
other only, and never with published values, whose features are those of an Inception network. They
also depend on the number of images, through the bias of each estimate, and are compared for equal
numbers only.
"""

import functools
import math

import keras
import numpy as np

from keras_genai import pretrained
from keras_genai.conditioning import check_network
from keras_genai.random_state import random_generator
from keras_genai.replicas import run_on_replicas
from keras_genai.validation import as_array, as_numbers, check_images, check_outputs, check_size

__all__ = [
    "density_coverage",
    "frechet_distance",
    "image_features",
    "kernel_distance",
    "precision_recall",
]

BATCH_SIZE = 500  # images
MAX_PAIRS = 2**22  # distances or kernel values in memory
# Rounding error of |x - y|^2 = |x|^2 + |y|^2 - 2 x·y, as a fraction of |x|^2 + |y|^2.
ROUNDING = 1e-12


def image_features(images, network=None) -> np.ndarray:
    """Return the features of images, the outputs of a network.

    Args:
        images: Float array `(n, height, width, channels)`, or `(n, features)`, which is reshaped to
            the input of the network. Images in [0, 1].
        network: `keras.Model` with one input, the images, and one output, which is flattened. A
            model of other pixels, such as one of [-1, 1], begins with a `Rescaling` layer. Defaults
            to `None`: the 128 units before the logits of `pretrained.load("article4-cnn")`, for
            images of 28 × 28 pixels.

    Returns:
        Float64 array `(n, d)`.

    Raises:
        ValueError: for images of another shape, for pixels outside [0, 1], for a network of another
            form, and for an output of NaN or infinity.
    """
    network = _digit_features() if network is None else network
    check_network("network", network, ("images",), ("features",))
    if len(network.inputs) != 1:
        raise ValueError(f"network: expected one input, the images, got {len(network.inputs)}.")
    shape = tuple(network.inputs[0].shape[1:])
    images = as_array("images", images)
    flat = images.ndim > 1 and 1 in (images.ndim - 1, len(shape)) and None not in shape
    if flat and math.prod(images.shape[1:]) == math.prod(shape):
        images = images.reshape(-1, *shape)
    if images.ndim != len(shape) + 1 or not all(
        size in (None, found) for size, found in zip(shape, images.shape[1:], strict=True)
    ):
        raise ValueError(
            f"images: expected shape {(None, *shape)}, the input of the network, got "
            f"{images.shape}."
        )
    check_images("images", images, images.shape[1:])
    images = images.astype(keras.config.floatx())
    # Not `predict`, where a replica may have no row of the last batch, with which many layers fail.
    outputs = [
        run_on_replicas(network.distribute_strategy, network, images[start : start + BATCH_SIZE])
        for start in range(0, len(images), BATCH_SIZE)
    ]
    # A model may have a list or a dict of one output.
    features = np.concatenate([np.asarray(y, "float64") for y in keras.tree.flatten(outputs)])
    check_outputs(network, features)
    return features.reshape(len(images), -1)


@functools.cache
def _digit_features() -> keras.Model:
    """Return the network from images to the units before the logits of article 4's classifier."""
    classifier = pretrained.load("article4-cnn")
    return keras.Model(classifier.inputs[0], classifier.get_layer("logits").input)


def frechet_distance(real, generated) -> float:
    """Return the Fréchet distance of two Gaussians with the moments of the features.

    |mu_1 - mu_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)) (Heusel et al. 2017, equation 6). It is that
    paper's FID with Inception's features only; other features give other numbers. Means and
    covariances of few images differ by chance: the distance of two samples of one distribution is
    positive, and falls as 1/n. For n of each, and d independent features of variance 1, it is about
    (2d + d(d + 1)/2) / n.

    Args:
        real: Float array `(n, d)`. Features of real images, n at least 2.
        generated: Float array `(m, d)`. Features of generated images, m at least 2.

    Raises:
        ValueError: for arrays of other shapes, and for NaN or infinity.
    """
    real, generated = _check_features(real, generated, minimum=2)
    factors = [_covariance_factor(x) for x in (real, generated)]
    # The nuclear norm, the sum of the singular values, is the trace of (C_1 C_2)^(1/2), also for
    # singular covariances, where a root of the product itself would be inaccurate and complex.
    root_trace = np.linalg.norm(factors[0] @ factors[1].T, "nuc")
    traces = np.sum(factors[0] ** 2) + np.sum(factors[1] ** 2)
    mean_term = np.sum((real.mean(axis=0) - generated.mean(axis=0)) ** 2)
    return max(0.0, float(mean_term + traces - 2 * root_trace))


def _covariance_factor(x) -> np.ndarray:
    """Return R with the covariance C = R^T R of x `(n, d)`, of shape `(min(n, d), d)`."""
    centered = (x - x.mean(axis=0)) / math.sqrt(len(x) - 1)
    return np.asarray(np.linalg.qr(centered, mode="r"))


def kernel_distance(
    real, generated, num_subsets=100, subset_size=None, seed=0
) -> tuple[float, float]:
    """Return the kernel distance (KID) of features, and its standard error.

    Mean over random subsets of the unbiased squared maximum mean discrepancy with the kernel
    (x·y/d + 1)^3 (Bińkowski et al. 2018). Its expectation is 0 for two samples of one distribution,
    whatever their number; single values may be negative.

    Args:
        real: Float array `(n, d)`. Features of real images, n at least 2.
        generated: Float array `(m, d)`. Features of generated images, m at least 2.
        num_subsets: Int. Number of subsets, at least 2. Defaults to `100`.
        subset_size: Int. Number of real and of generated images of a subset, sampled without
            replacement, at least 2. Defaults to `None`: 1,000, or all if there are fewer.
        seed: Int or `None`. Seed of the subsets. Defaults to `0`.

    Returns:
        Tuple of the distance and its standard error, the standard deviation over the subsets
        divided by the root of their number. The error covers the choice of the subsets, not that of
        the images from which they are taken; the more the subsets overlap, the more it is below
        that of new images. It is NaN if every subset is all images.

    Raises:
        ValueError: for arrays of other shapes, for NaN or infinity, and for a subset larger than
            the real or the generated images.
    """
    real, generated = _check_features(real, generated, minimum=2)
    num_subsets = check_size("num_subsets", num_subsets, minimum=2)
    smaller = min(len(real), len(generated))
    if subset_size is None:
        subset_size = min(1000, smaller)
    subset_size = check_size("subset_size", subset_size, minimum=2, maximum=smaller)
    generator = random_generator(seed)
    if subset_size == len(real) == len(generated):
        return _squared_mmd(real, generated), math.nan
    distances = [
        _squared_mmd(
            *(x[generator.choice(len(x), subset_size, replace=False)] for x in (real, generated))
        )
        for _ in range(num_subsets)
    ]
    error = np.std(distances, ddof=1) / math.sqrt(num_subsets)
    return float(np.mean(distances)), float(error)


def _squared_mmd(x, y) -> float:
    """Return the unbiased squared maximum mean discrepancy of x and y, each `(m, d)`."""
    m = len(x)
    within = sum(
        _sum_kernel(z, z) - np.sum((np.sum(z**2, axis=1) / z.shape[1] + 1) ** 3) for z in (x, y)
    )
    return float(within / (m * (m - 1)) - 2 * _sum_kernel(x, y) / m**2)


def _sum_kernel(x, y) -> float:
    """Return the sum of the kernel (x_i·y_j/d + 1)^3 over all pairs."""
    total = 0.0
    for rows in _chunks(len(x), len(y)):
        kernel = x[rows] @ y.T / x.shape[1] + 1
        total += np.sum(kernel * kernel * kernel)
    return total


def precision_recall(real, generated, k=3) -> tuple[float, float]:
    """Return the fractions of generated images near real ones, and of real near generated ones.

    The manifold of a set is the union of balls around its points, with the distance of the k-th
    nearest other point as radius (Kynkäänniemi et al. 2019, equations 1 and 2). Precision is the
    fraction of generated images in the real manifold, recall the fraction of real images in the
    generated one. Both are below 1 for two samples of one distribution, and change with n. One
    outlier has a large ball; see `density_coverage`.

    Args:
        real: Float array `(n, d)`. Features of real images, n above k.
        generated: Float array `(m, d)`. Features of generated images, m above k.
        k: Int. Number of neighbors. Defaults to `3`.

    Raises:
        ValueError: for arrays of other shapes, for NaN or infinity, and for k without as many other
            points.
    """
    real, generated = _center(*_check_features(real, generated))
    k = _check_k(k, real=real, generated=generated)
    real_radii, generated_radii = (_squared_radii(x, k) for x in (real, generated))
    precise, recalled = [], np.zeros(len(real), bool)
    for rows in _chunks(len(generated), len(real)):
        distances = _squared_distances(generated[rows], real, ROUNDING)
        precise.append(np.any(distances <= real_radii, axis=1))
        recalled |= np.any(distances <= generated_radii[rows, None], axis=0)
    return float(np.mean(np.concatenate(precise))), float(np.mean(recalled))


def density_coverage(real, generated, k=5) -> tuple[float, float]:
    """Return the density and the coverage of generated images among real ones.

    Density is the mean number of balls of real images that a generated one is in, divided by k;
    coverage is the fraction of real images with a generated one in their ball (Naeem et al. 2020,
    section 3). The balls are those of `precision_recall`. For two samples of n points of one
    distribution, the expectation of density is 1, and that of coverage is
    1 - (n - 1) … (n - k) / ((2n - 1) … (2n - k)), about 1 - 2^-k. Density may be above 1.

    Args:
        real: Float array `(n, d)`. Features of real images, n above k.
        generated: Float array `(m, d)`. Features of generated images, m at least 1.
        k: Int. Number of neighbors. Defaults to `5`.

    Raises:
        ValueError: as `precision_recall`.
    """
    real, generated = _center(*_check_features(real, generated))
    k = _check_k(k, real=real)
    radii, num_inside, covered = _squared_radii(real, k), 0, np.zeros(len(real), bool)
    for rows in _chunks(len(generated), len(real)):
        inside = _squared_distances(generated[rows], real, ROUNDING) <= radii
        num_inside += int(np.count_nonzero(inside))
        covered |= np.any(inside, axis=0)
    return float(num_inside / (k * len(generated))), float(np.mean(covered))


def _squared_radii(x, k: int) -> np.ndarray:
    """Return the squared distance of each point of x `(n, d)` to its k-th nearest other point."""
    radii = np.empty(len(x))
    for rows in _chunks(len(x), len(x)):
        distances = _squared_distances(x[rows], x)
        radii[rows] = np.partition(distances, k, axis=1)[:, k]  # after that to the point itself
    return np.maximum(radii, 0)


def _squared_distances(x, y, rounding=0.0) -> np.ndarray:
    """Return the squared distances `(n, m)` of x `(n, d)` and y `(m, d)`.

    With `rounding`, they are smaller by the possible rounding error, so that a point on the surface
    of a ball, or a copy of a point whose ball is that point alone, counts as inside.
    """
    squares = np.sum(x**2, axis=1)[:, None] + np.sum(y**2, axis=1)
    return (1 - rounding) * squares - 2 * x @ y.T


def _chunks(num_rows: int, num_columns: int) -> list[slice]:
    """Return the parts of the rows of a matrix whose values are in memory at the same time."""
    size = max(1, MAX_PAIRS // num_columns)
    return [slice(start, start + size) for start in range(0, num_rows, size)]


def _check_features(real, generated, minimum=1) -> tuple[np.ndarray, np.ndarray]:
    """Return features `(n, d)` and `(m, d)` as float64 arrays of at least `minimum` rows."""
    arrays = []
    for name, value in {"real": real, "generated": generated}.items():
        array = as_numbers(name, value, (None, None)).astype("float64")
        if len(array) < minimum or array.shape[1] == 0:
            raise ValueError(
                f"{name}: expected features (n, d), n at least {minimum}, got {array.shape}."
            )
        arrays.append(array)
    if arrays[0].shape[1] != arrays[1].shape[1]:
        raise ValueError(
            f"generated: expected {arrays[0].shape[1]} features, as real, got {arrays[1].shape[1]}."
        )
    return arrays[0], arrays[1]


def _check_k(k, **arrays) -> int:
    """Return the number of neighbors; each array has more rows."""
    k = check_size("k", k)
    for name, array in arrays.items():
        if len(array) <= k:
            raise ValueError(f"{name}: expected more than k = {k} rows, got {len(array)}.")
    return k


def _center(real, generated) -> tuple[np.ndarray, np.ndarray]:
    """Move the origin to the mean of the real features: far from it, distances are inexact."""
    mean = real.mean(axis=0)
    return real - mean, generated - mean
