"""Thickness, slant and width of strokes, against drawn bars whose measures are known."""

import numpy as np
import pytest

from keras_genai import datasets, morphology


def draw_bar(thickness=3.0, degrees=0.0, size=41, length=25):
    """Return an image of a bar of soft edges, sheared by an angle to the right."""
    rows, columns = np.indices((size, size)) - size // 2
    distance = columns + rows * np.tan(np.radians(degrees))
    bar = np.clip(thickness / 2 + 0.5 - np.abs(distance), 0, 1)
    return bar * (np.abs(rows) <= length // 2)


@pytest.mark.parametrize("thickness", [2.0, 3.0, 4.5])
def test_thickness_of_a_long_bar_is_its_own(thickness):
    image = draw_bar(thickness, length=41)
    outline = 2 * (41 + thickness)  # with the two ends
    expected = 2 * thickness * 41 / outline
    assert morphology.thickness(image[None])[0] == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("degrees", [-30, 0, 12, 30])
def test_slant_is_the_angle_by_which_a_bar_is_sheared(degrees):
    assert morphology.slant(draw_bar(degrees=degrees)[None])[0] == pytest.approx(degrees, abs=0.5)


def test_width_does_not_depend_on_the_slant():
    upright, slanted = (draw_bar(thickness=7, degrees=degrees) for degrees in (0, 25))
    widths = morphology.width(np.stack([upright, slanted]))
    # Standard deviations of uniform distributions of 7 columns and of 25 rows.
    assert widths[0] == pytest.approx(np.sqrt((7**2 - 1) / (25**2 - 1)), rel=0.03)
    assert widths[1] == pytest.approx(widths[0], rel=0.03)


def test_measures_do_not_depend_on_brightness_or_position():
    image = draw_bar(degrees=15)
    moved = np.roll(0.5 * image, (3, -4), axis=(0, 1))
    for measure in morphology.MEASURES.values():
        first, second = measure(np.stack([image, moved])[..., None])
        assert first == pytest.approx(second, rel=1e-6)


def test_a_black_image_has_measures_of_zero():
    for measure in morphology.MEASURES.values():
        assert measure(np.zeros((2, 28, 28))).tolist() == [0, 0]


def test_ones_are_narrower_than_zeros():
    _, (images, labels) = datasets.load_mnist()
    zeros, ones = (morphology.width(images[labels == digit] / 255) for digit in (0, 1))
    assert np.median(ones) < np.median(zeros) / 2


@pytest.mark.parametrize(
    "images", [np.zeros(784), np.zeros((2, 28, 28, 3)), np.full((1, 4, 4), 255), [["a"]]]
)
def test_other_images_are_refused(images):
    for measure in morphology.MEASURES.values():
        with pytest.raises(ValueError, match="^images: expected"):
            measure(images)
