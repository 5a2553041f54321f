"""Editing of images in the latent space of a VAE or GAN: directions, interpolation, inversion.

Article 3, section 4: an image is edited by adjusting the generator's latent variable (隐变量).
Article 1, on the future: users specify attributes of the output (增强的可控性). Three parts:

- Directions. Attributes of generated images, such as the measures of `morphology`, are fitted as
  linear functions of z, where Shen et al. 2020 (InterFaceGAN) fit a linear classifier. A step along
  the direction of one attribute leaves the predictions of all others (conditional manipulation,
  section 2.2 of the paper).
- Interpolation, linear or spherical. Samples of N(0, I) in d dimensions have a norm of about √d,
  the midpoint of two has one of about √(d/2), which hardly any sample has: there, the network has
  not been trained (White 2016).
- Inversion. The z of a given image, by gradient descent on the error of the decoded image (Zhu et
  al. 2016; Creswell & Bharath 2018). A GAN has no other way from an image to z; of a VAE it refines
  the z_mean of the encoder.
"""

import dataclasses
import functools

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_genai.conditioning import pack_inputs, predict_arrays, sample_prior
from keras_genai.gan import GAN
from keras_genai.learned_prior import LearnedPriorVAE
from keras_genai.vae import VAE
from keras_genai.validation import (
    as_array,
    as_numbers,
    check_choice,
    check_dict,
    check_images,
    check_labels,
    check_number,
    check_size,
)

BATCH_SIZE = 500  # decoded images

# Samples of z, and their images.


def sample_latents(model, num_samples=1, labels=None, *, seed=None) -> np.ndarray:
    """Sample z from the prior of a model: N(0, I), or the learned prior of a VAE.

    Args:
        model: `VAE`, `LearnedPriorVAE` or `GAN`.
        num_samples: Int. Number of samples, n. Defaults to `1`.
        labels: Int or int array `(n,)` for a conditional model, else `None`. Defaults to `None`.
        seed: Int or `None`. Seed of the samples. Defaults to `None`.

    Returns:
        Float32 array `(n, latent_dim)`. `decode_latents` of it is what `model.generate` returns
        with the same arguments.

    Raises:
        ValueError: for another model, and for an invalid number, seed, or labels.
    """
    decoder = _get_decoder(model)
    num_samples = check_size("num_samples", num_samples)
    labels = check_labels(labels, model.num_classes, num_samples)
    if isinstance(model, VAE):
        return model.sample_z(num_samples, labels, seed)
    return sample_prior(num_samples, decoder.inputs[0].shape[1:], seed)


def decode_latents(model, z, labels=None) -> np.ndarray:
    """Decode latent vectors, by the decoder of a VAE or the generator of a GAN.

    Args:
        model: `VAE`, `LearnedPriorVAE` or `GAN`.
        z: Float array `(n, latent_dim)`.
        labels: Int or int array `(n,)` for a conditional model, else `None`. Defaults to `None`.

    Returns:
        Float array `(n, features)` or `(n, height, width, channels)` in [0, 1].

    Raises:
        ValueError: for another model, and for another z or labels.
    """
    decoder, z = _get_decoder(model), _check_latents("z", z, model)
    labels = check_labels(labels, model.num_classes, len(z))
    parts = [slice(start, start + BATCH_SIZE) for start in range(0, len(z), BATCH_SIZE)]
    rows = [(z[part], None if labels is None else labels[part]) for part in parts]
    return np.concatenate([predict_arrays(decoder, *arrays) for arrays in rows])


def _get_decoder(model) -> keras.Model:
    if isinstance(model, VAE):
        return model.decoder
    if isinstance(model, GAN):
        return model.generator
    raise ValueError(f"model: expected a VAE or a GAN, got {model!r:.200}.")


def _check_latents(name, z, model=None) -> np.ndarray:
    z = as_numbers(name, z, (None, None if model is None else model.latent_dim))
    if z.size == 0:
        raise ValueError(f"{name}: expected at least one vector, got shape {z.shape}.")
    return z.astype("float32")


# Directions.


@dataclasses.dataclass(frozen=True)
class LatentDirections:
    """Directions of attributes in a latent space, from `latent_directions`.

    Attributes:
        names: Tuple of k strings, the attributes.
        vectors: Float64 array `(k, latent_dim)`. Step of z for a change of one unit of an attribute
            and of none of the others, as predicted.
        gradients: Float64 array `(k, latent_dim)`. Coefficients of the predictions.
        r_squared: Float64 array `(k,)`. Share of the variance of an attribute that z predicts.
    """

    names: tuple[str, ...]
    vectors: np.ndarray
    gradients: np.ndarray
    r_squared: np.ndarray

    def edit(self, z, changes: dict) -> np.ndarray:
        """Return z moved by changes of attributes.

        Args:
            z: Float array `(n, latent_dim)`.
            changes: Dict of names of attributes to changes in their units, floats or arrays `(n,)`.

        Returns:
            Float32 array `(n, latent_dim)`.

        Raises:
            ValueError: for an unknown attribute, and for another shape.
        """
        z = as_numbers("z", z, (None, self.vectors.shape[1])).astype("float64")
        check_dict("changes", changes)
        for name, change in changes.items():
            check_choice("changes", name, self.names)
            change = as_numbers(f"changes: {name}", change)
            if change.shape not in ((), (len(z),)):
                raise ValueError(
                    f"changes: {name}: expected a number or shape ({len(z)},), got {change.shape}."
                )
            z = z + np.multiply.outer(change, self.vectors[self.names.index(name)])
        return z.astype("float32")


def latent_directions(z, attributes: dict, labels=None) -> LatentDirections:
    """Fit attributes as linear functions of z, and return the direction of each.

    The prediction of attribute i is w_i·z + b_i, by least squares. The directions d_j are the
    shortest vectors with w_i·d_j = 1 for i = j and 0 otherwise: the rows of the transposed
    pseudoinverse of the matrix of all w_i. For two attributes of unit gradients, d_1 is along
    w_1 - (w_1·w_2) w_2, as in Shen et al. 2020, section 2.2.

    Args:
        z: Float array `(n, latent_dim)`, n above latent_dim.
        attributes: Dict of names to float arrays `(n,)`, such as `morphology.MEASURES` of the
            decoded images.
        labels: Int array `(n,)` or `None`. Classes with an intercept b of their own each, so that
            differences between the classes, such as the slant of a 7, do not count. Defaults to
            `None`.

    Returns:
        `LatentDirections`.

    Raises:
        ValueError: for too few samples, for an attribute that does not vary with z, and for
            attributes whose gradients are linearly dependent.

    Example:
        z = sample_latents(vae, 5000, seed=0)
        images = decode_latents(vae, z).reshape(-1, 28, 28)
        measured = {name: measure(images) for name, measure in morphology.MEASURES.items()}
        directions = latent_directions(z, measured)
        bolder = decode_latents(vae, directions.edit(z, {"thickness": 1.0}))  # by a pixel
    """
    z = as_numbers("z", z, (None, None)).astype("float64")
    _check_num_samples(z, 1)
    check_dict("attributes", attributes)
    if not attributes:
        raise ValueError("attributes: expected at least one, got none.")
    names, shape = tuple(map(str, attributes)), (len(z),)
    columns = [as_numbers(f"attributes: {n}", v, shape) for n, v in attributes.items()]
    values = np.stack(columns, axis=1).astype("float64")  # (n, k)
    classes = np.zeros(shape, int)
    if labels is not None:
        classes = np.unique(as_numbers("labels", labels, shape), return_inverse=True)[1]
        _check_num_samples(z, classes.max() + 1)
    for label in np.unique(classes):  # an intercept for each class
        members = classes == label
        z[members] -= z[members].mean(axis=0)
        values[members] -= values[members].mean(axis=0)
    gradients = np.linalg.lstsq(z, values, rcond=None)[0].T  # (k, latent_dim)
    sizes = np.linalg.norm(gradients, axis=1)
    for name, size, column in zip(names, sizes, values.T, strict=True):
        if not size > 1e-9 * np.abs(column).max(initial=0) or not np.any(column):
            raise ValueError(f"attributes: {name}: expected values that vary with z.")
    if np.linalg.matrix_rank(gradients / sizes[:, None], tol=1e-6) < len(names):
        raise ValueError(
            f"attributes: expected linearly independent ones, got {', '.join(names)}, of which one "
            "follows from the others."
        )
    residuals = values - z @ gradients.T
    r_squared = 1 - np.sum(residuals**2, axis=0) / np.sum(values**2, axis=0)
    return LatentDirections(names, np.linalg.pinv(gradients).T, gradients, r_squared)


def _check_num_samples(z, num_classes) -> None:
    num_needed = z.shape[1] + num_classes + 1  # one more than there are coefficients
    if len(z) < num_needed:
        raise ValueError(f"z: expected at least {num_needed} samples, got {len(z)}.")


# Interpolation.


def interpolate_latents(start, end, steps: int = 10, method: str = "linear") -> np.ndarray:
    """Return points of a path between latent vectors.

    Args:
        start: Float array `(n, latent_dim)`. First point of each path.
        end: Float array of the same shape. Last point of each path.
        steps: Int. Number of points of a path with both ends, at least 2. Defaults to `10`.
        method: `"linear"`, or `"spherical"` (White 2016), along the great circle between the two
            directions, by equal angles. The norm changes evenly from that of the start to that of
            the end; between vectors of one norm it is constant. Defaults to `"linear"`.

    Returns:
        Float32 array `(n, steps, latent_dim)`.

    Raises:
        ValueError: for other shapes, for fewer than 2 steps, and, if spherical, for a vector of
            zeros or two opposite vectors, between which no great circle is defined.
    """
    start, end = _check_latents("start", start), _check_latents("end", end)
    if start.shape != end.shape:
        raise ValueError(f"end: expected shape {start.shape}, that of start, got {end.shape}.")
    steps = check_size("steps", steps, minimum=2)
    check_choice("method", method, ("linear", "spherical"))
    t = np.linspace(0, 1, steps)[None, :, None]
    start, end = start[:, None].astype("float64"), end[:, None].astype("float64")
    if method == "linear":
        return ((1 - t) * start + t * end).astype("float32")
    norms = [np.linalg.norm(z, axis=-1, keepdims=True) for z in (start, end)]  # (n, 1, 1)
    for name, norm in zip(("start", "end"), norms, strict=True):
        if not np.all(norm > 0):
            raise ValueError(f"{name}: expected vectors other than 0 for a spherical path.")
    start, end = start / norms[0], end / norms[1]
    angle = np.arccos(np.clip(np.sum(start * end, axis=-1, keepdims=True), -1, 1))
    if np.any(angle > np.pi - 1e-3):
        raise ValueError("end: expected no vector opposite to start for a spherical path.")
    sine = np.sin(angle)
    # sin((1-t)θ) / sin θ and sin(tθ) / sin θ, with the limits for one direction, 1 - t and t.
    near = sine < 1e-6
    weights = [
        np.where(near, part, np.sin(part * angle) / np.where(near, 1, sine)) for part in (1 - t, t)
    ]
    norm = (1 - t) * norms[0] + t * norms[1]
    return (norm * (weights[0] * start + weights[1] * end)).astype("float32")


# Inversion.


def invert(
    model,
    images,
    labels=None,
    *,
    num_steps=200,
    learning_rate=0.1,
    num_restarts=None,
    prior_weight=0.1,
    batch_size=250,
    seed=None,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the z of given images by gradient descent on z, with Adam.

    The loss of an image is its squared error, summed over the pixels, plus prior_weight times
    -log p(z). A descent starts from the z_mean of the encoder of a VAE; from a sample of the prior
    for a GAN, and for all other restarts. The best z of all steps and restarts is returned.

    Args:
        model: `VAE`, `LearnedPriorVAE` or `GAN`.
        images: Float array `(n, *model.image_shape)` in [0, 1].
        labels: Int or int array `(n,)` for a conditional model, else `None`. Defaults to `None`.
        num_steps: Int. Number of steps of each descent. Defaults to `200`.
        learning_rate: Float above 0. Learning rate of Adam, which falls to 0 along a cosine.
            Defaults to `0.1`.
        num_restarts: Int or `None`. Number of descents for each image. The loss of a GAN has many
            local minima. Defaults to `None`: 4 for a GAN, 1 for a VAE.
        prior_weight: Float of at least 0. Weight of -log p(z), which keeps z where the model has
            been trained; far outside, a step along a direction changes an attribute by less than
            it should. Defaults to `0.1`.
        batch_size: Int. Number of descents at a time, which bounds the memory and does not change
            the results. Defaults to `250`.
        seed: Int or `None`. Seed of the samples of the prior. Defaults to `None`.

    Returns:
        Tuple of z, a float32 array `(n, latent_dim)`, and the mean squared error of a pixel of each
        image, a float32 array `(n,)`.

    Raises:
        ValueError: for another model, for images of another shape or range, for invalid labels, and
            for an option out of range.
    """
    _get_decoder(model)
    images = as_array("images", images)
    check_images("images", images, model.image_shape)
    images = images.astype("float32")
    labels = check_labels(labels, model.num_classes, len(images))
    num_steps = check_size("num_steps", num_steps)
    learning_rate = float(check_number("learning_rate", learning_rate, above=0))
    if num_restarts is None:
        num_restarts = 1 if isinstance(model, VAE) else 4
    num_restarts = check_size("num_restarts", num_restarts)
    prior_weight = float(check_number("prior_weight", prior_weight, 0))
    batch_size = check_size("batch_size", batch_size)

    rows = np.tile(np.arange(len(images)), num_restarts)  # the image of each descent
    row_labels = None if labels is None else labels[rows]
    starts = sample_latents(model, len(rows), row_labels, seed=seed)
    if isinstance(model, VAE):
        starts[: len(images)] = model.encode(images, labels)[0]
    results = []
    for start in range(0, len(rows), batch_size):
        part = slice(start, start + batch_size)
        z = keras.Variable(starts[part])
        optimizer = keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(learning_rate, num_steps)
        )
        optimizer.build([z])
        # A partial per batch: TensorFlow counts traces by function and would warn after five.
        descend = tf.function(
            functools.partial(_descend, model, z, optimizer, num_steps, prior_weight)
        )
        batch_labels = None if row_labels is None else row_labels[part]
        outputs = descend(images[rows[part]], batch_labels)
        results.append([output.numpy() for output in outputs])
    z, losses, errors = (np.concatenate(parts) for parts in zip(*results, strict=True))
    best = losses.reshape(num_restarts, -1).argmin(axis=0)
    best = best * len(images) + np.arange(len(images))
    return z[best], errors[best]


def _descend(model, z, optimizer, num_steps, prior_weight, images, labels):
    """Return the best z of a descent, its loss and the squared error of a pixel, by image."""
    decoder, pixels = _get_decoder(model), tuple(range(1, len(images.shape)))

    def compute_losses():
        decoded = ops.cast(decoder(pack_inputs(z.value, labels), training=False), images.dtype)
        errors = ops.sum(ops.square(decoded - images), axis=pixels)
        if prior_weight == 0:
            return errors, errors
        return errors - prior_weight * _log_prior(model, z.value, labels), errors

    def keep_best(best, losses, errors):
        better = losses < best[1]
        found = (tf.identity(z.value), losses, errors)
        masks = (better[:, None], better, better)
        return tuple(tf.where(*rows) for rows in zip(masks, found, best, strict=True))

    infinite = tf.fill(tf.shape(images)[:1], np.inf)
    best = tf.zeros_like(z.value), infinite, infinite
    for _ in tf.range(num_steps):
        with tf.GradientTape() as tape:
            losses, errors = compute_losses()
        best = keep_best(best, losses, errors)
        optimizer.apply([tape.gradient(losses, z.value)], [z])
    best = keep_best(best, *compute_losses())
    return best[0], best[1], best[2] / tf.cast(tf.size(images[0]), images.dtype)


def _log_prior(model, z, labels):
    """Return log p(z), up to a constant, `(batch,)`."""
    if isinstance(model, LearnedPriorVAE):
        return model.prior(z, labels)
    return -0.5 * ops.sum(ops.square(z), axis=-1)
