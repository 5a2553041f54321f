"""Shape of handwritten digits, measured from their pixels: thickness, slant and width of strokes.

After Morpho-MNIST (Castro et al. 2019), whose measures follow the skeleton of a digit. Here, each
is a formula of the gray pixels, taken as shares of ink:

- Slant and width from the moments of the ink (Hu 1962). Shearing an image by an angle moves each
  row sideways in proportion to its height, so that the slope of the mean column over the rows is
  the tangent of the angle.
- Thickness from the area of the ink and the length of its outline: a stroke of length L and
  thickness d << L has the area L d, and an outline of 2 L, so that d = 2 area / outline. The length
  of the outline is the total variation of the image (coarea formula).
"""

import numpy as np

from keras_genai.validation import as_numbers, check_images


def thickness(images) -> np.ndarray:
    """Return the mean thickness of the strokes of images, in pixels.

    Args:
        images: Float array `(n, height, width)` or `(n, height, width, 1)`. White strokes on black,
            in [0, 1].

    Returns:
        Float64 array `(n,)`; 0 for a black image.

    Raises:
        ValueError: for another shape, and for pixels outside [0, 1].
    """
    ink = np.pad(_as_ink(images), [(0, 0), (1, 1), (1, 1)])  # strokes may reach the border
    rows, columns = np.diff(ink, axis=1)[:, :, :-1], np.diff(ink, axis=2)[:, :-1]
    outline = np.hypot(rows, columns).sum(axis=(1, 2))
    return _ratio(2 * ink.sum(axis=(1, 2)), outline)


def slant(images) -> np.ndarray:
    """Return the angle of the digits to the vertical, in degrees; positive leans to the right.

    Args, Raises: See `thickness`.

    Returns:
        Float64 array `(n,)`; 0 for a black image.
    """
    _, vertical, mixed = _moments(images)
    return np.degrees(np.arctan(-_ratio(mixed, vertical)))  # rows count downward


def width(images) -> np.ndarray:
    """Return the width of the digits, without their slant, as a fraction of their height.

    Both are four standard deviations of the ink.

    Args, Raises: See `thickness`.

    Returns:
        Float64 array `(n,)`; 0 for a black image.
    """
    horizontal, vertical, mixed = _moments(images)
    upright = horizontal - _ratio(mixed**2, vertical)  # variance of the columns after the shear
    return np.sqrt(np.maximum(_ratio(upright, vertical), 0))


MEASURES = {"thickness": thickness, "slant": slant, "width": width}


def _as_ink(images) -> np.ndarray:
    images = as_numbers("images", images)
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if images.ndim != 3:
        raise ValueError(
            "images: expected shape (n, height, width) or (n, height, width, 1), got "
            f"{images.shape}."
        )
    check_images("images", images, images.shape[1:])
    return images.astype("float64")


def _moments(images) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the variances of the columns and of the rows of the ink, and their covariance."""
    ink = _as_ink(images)
    mass = ink.sum(axis=(1, 2))
    row, column = np.indices(ink.shape[1:], "float64")

    def mean(values):
        return _ratio((ink * values).sum(axis=(1, 2)), mass)[:, None, None]

    row, column = row - mean(row), column - mean(column)
    return tuple(mean(product)[:, 0, 0] for product in (column**2, row**2, row * column))


def _ratio(numerator, denominator) -> np.ndarray:
    """Return numerator / denominator, and 0 where both are 0."""
    return numerator / np.where(denominator > 0, denominator, 1)
