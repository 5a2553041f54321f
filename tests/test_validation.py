"""Checks of arguments and arrays: valid values pass, errors name the argument and its value."""

import numpy as np
import pytest

from keras_genai.cnn import build_cnn
from keras_genai.gan import build_discriminator, build_generator
from keras_genai.rnn import build_forecaster, build_language_model
from keras_genai.vae import build_decoder, build_encoder
from keras_genai.validation import (
    check_choice,
    check_fraction,
    check_images,
    check_labels,
    check_range,
    check_same,
    check_size,
    check_sizes,
    check_tokens,
)

# Sizes.


@pytest.mark.parametrize(
    "build",
    [
        lambda n: build_encoder(n, (n,), n, num_classes=n),
        lambda n: build_decoder(n, (n,), n, num_classes=n),
        lambda n: build_generator(n, (n,), n, num_classes=n),
        lambda n: build_discriminator(n, (n,), num_classes=n),
        lambda n: build_cnn((n, n, n), n),
        lambda n: build_language_model(n, "gru", n, n, num_layers=n),
        lambda n: build_forecaster(n, n, units=n),
    ],
)
def test_builders_accept_numpy_sizes(build):
    # Such as labels.max() + 1. Keras rejects them as sizes and cannot serialize them.
    model = build(np.int64(4))
    assert "4" in model.to_json() and model.count_params() == build(4).count_params()


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_check_size_returns_a_python_int(value):
    size = check_size("units", value, minimum=3)
    assert type(size) is int and size == 3


@pytest.mark.parametrize("value", [2, 0, -1, 3.0, "3", None, True, np.float32(3)])
def test_check_size_raises(value):
    with pytest.raises(ValueError) as error:
        check_size("units", value, minimum=3)
    assert str(error.value) == f"units: expected a whole number of at least 3, got {value!r}."


def test_check_sizes_returns_ints_and_tuples_in_order():
    sizes = check_sizes(latent_dim=np.int64(2), hidden_dims=[np.int64(4), 3], units=5)
    assert sizes == [2, (4, 3), 5]
    assert type(sizes[0]) is int and type(sizes[1][0]) is int
    assert check_sizes(hidden_dims=()) == [()]


@pytest.mark.parametrize(
    "sizes, message",
    [
        (dict(latent_dim=0), "latent_dim: expected a whole number of at least 1, got 0"),
        (dict(hidden_dims=(4, 0)), "hidden_dims: expected a whole number of at least 1, got 0"),
        (dict(hidden_dims=4), "hidden_dims: expected a sequence of whole numbers, got 4"),
    ],
)
def test_check_sizes_raises(sizes, message):
    with pytest.raises(ValueError, match=message):
        check_sizes(**sizes)


# Single values.


def test_check_choice():
    check_choice("method", "ddim", ("ddim", "ddpm"))
    with pytest.raises(ValueError, match="method: expected one of 'ddim', 'ddpm', got 'euler'"):
        check_choice("method", "euler", ("ddim", "ddpm"))


@pytest.mark.parametrize("value", [0, 0.0, 0.5, 1 - 2**-53])
def test_check_fraction_accepts_zero_to_below_one(value):
    check_fraction("dropout", value)


@pytest.mark.parametrize("value", [1, 1.0, -0.1, float("nan"), float("inf"), "0.5", None])
def test_check_fraction_raises(value):
    with pytest.raises(ValueError) as error:
        check_fraction("dropout", value)
    expected = f"dropout: expected a fraction from 0 to less than 1, got {value!r}."
    assert str(error.value) == expected


def test_check_same():
    check_same("decoder", "latent_dim", 20, 20)
    with pytest.raises(ValueError, match="decoder: expected latent_dim 20, .* got 10"):
        check_same("decoder", "latent_dim", 20, 10)


# Arrays.


def test_check_range_accepts_all_integer_dtypes_and_empty_arrays():
    for dtype in ("int8", "uint8", "int64"):
        check_range("labels", np.array([0, 9], dtype), 10)
    check_range("labels", np.array([], int), 10)


@pytest.mark.parametrize(
    "values, message",
    [
        ([0, 10], "labels: expected integers from 0 to 9, got values from 0 to 10"),
        ([-1, 3], "labels: expected integers from 0 to 9, got values from -1 to 3"),
        ([1.0], "labels: expected integers, got an array of float64"),
        ([True], "labels: expected integers, got an array of bool"),
    ],
)
def test_check_range_raises(values, message):
    with pytest.raises(ValueError, match=message):
        check_range("labels", np.array(values), 10)


@pytest.mark.parametrize(
    "images",
    [
        np.linspace(0, 1, 12).reshape(2, 2, 3),
        np.ones((1, 2, 3), "uint8"),
        np.zeros((4, 2, 3), bool),
    ],
)
def test_check_images_accepts_pixels_from_0_to_1(images):
    check_images("x", images, (2, 3))


@pytest.mark.parametrize(
    "images, message",
    [
        (np.zeros((2, 3)), r"x: expected shape \(n, 2, 3\), got \(2, 3\)"),
        (np.float32(0), r"x: expected shape \(n, 2, 3\), got \(\)"),
        ([np.zeros((1, 2, 3))] * 2, r"x: expected one array \(n, 2, 3\), got a list of 2"),
        (np.zeros((0, 2, 3)), "x: expected at least one image, got an empty array"),
        (np.full((1, 2, 3), "a"), "x: expected numbers, got an array of <U1"),
        (np.full((1, 2, 3), -0.1), r"x: expected pixels scaled to \[0, 1\], got values from -0.1"),
        (np.full((1, 2, 3), 255, "uint8"), "from 255 to 255. Divide 8-bit pixels by 255"),
        (np.full((1, 2, 3), np.nan), "got values from nan to nan"),
    ],
)
def test_check_images_raises(images, message):
    with pytest.raises(ValueError, match=message):
        check_images("x", images, (2, 3))


def test_check_labels_returns_one_int32_label_per_sample():
    assert check_labels(None, None, 3) is None
    for labels in (2, np.int64(2), [2, 2, 2], np.full(3, 2, "uint8")):
        checked = check_labels(labels, 10, 3)
        assert checked.dtype == "int32" and checked.tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    "labels, num_classes, message",
    [
        (1, None, "labels: expected None, since the model was built without num_classes"),
        (None, 10, "labels: expected integers from 0 to 9, got None"),
        ([1, 2], 10, r"labels: expected shape \(3,\), got \(2,\)"),
        ([[1], [2], [3]], 10, r"labels: expected shape \(3,\), got \(3, 1\)"),
        ([1, 2, 10], 10, "labels: expected integers from 0 to 9, got values from 1 to 10"),
        ([0.5, 1, 2], 10, "labels: expected integers, got an array of float64"),
    ],
)
def test_check_labels_raises(labels, num_classes, message):
    with pytest.raises(ValueError, match=message):
        check_labels(labels, num_classes, 3)


def test_check_tokens_returns_int32_rows_of_arrays_and_lists():
    for tokens in (np.array([[1, 2], [3, 4]]), [[1, 2], np.array([3, 4])]):
        rows = check_tokens("prompt", tokens, 5, minimum=2)
        assert [row.tolist() for row in rows] == [[1, 2], [3, 4]]
        assert all(row.dtype == "int32" for row in rows)
    rows = check_tokens("prompt", [[1], [2, 3, 4]], 5, minimum=1)
    assert [row.tolist() for row in rows] == [[1], [2, 3, 4]]


@pytest.mark.parametrize(
    "tokens, message",
    [
        ([], "prompt: expected at least one sequence, got none"),
        (np.array([1, 2]), r"prompt: expected an array \(batch, n\) or a list of sequences, got"),
        ([[1, 2], [1]], r"prompt: expected sequences of at least 2 token ids, got shape \(1,\)"),
        ([[[1, 2]]], r"prompt: expected sequences of at least 2 token ids, got shape \(1, 2\)"),
        ([[1, 5]], "prompt: expected token ids from 0 to 4, got values from 1 to 5"),
        ([[1, -1]], "prompt: expected token ids from 0 to 4, got values from -1 to 1"),
        ([[1.0, 2.0]], "prompt: expected token ids, got an array of float64"),
    ],
)
def test_check_tokens_raises(tokens, message):
    with pytest.raises(ValueError, match=message):
        check_tokens("prompt", tokens, 5, minimum=2)
