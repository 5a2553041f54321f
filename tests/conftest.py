"""What several tests share: real digits, and double precision to compare two ways with."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest

from keras_genai import datasets


@pytest.fixture(scope="session")
def digits():
    """1,000 real digits: images (1000, 784) in [0, 1], labels (1000,)."""
    (x, y), _ = datasets.load_mnist()
    return x[:1000].reshape(1000, 784).astype("float32") / 255, y[:1000].astype("int32")


@pytest.fixture(scope="session")
def held_out():
    """MNIST's test images (10000, 784) in [0, 1] and labels (10000,)."""
    _, (x, y) = datasets.load_mnist()
    return x.reshape(10000, 784).astype("float32") / 255, y.astype("int32")


@pytest.fixture
def double_precision():
    """Compute in float64, where rounding cannot hide or feign a difference of 1e-5.

    Adam divides a gradient by its own size, so that in float32 the rounding of a tiny one shows.
    """
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


@pytest.fixture(autouse=True)
def fixed_seed():
    keras.utils.set_random_seed(0)


def largest_difference(ours, theirs) -> float:
    """The largest absolute difference between two lists of arrays of equal shapes."""
    assert [np.shape(a) for a in ours] == [np.shape(b) for b in theirs]
    return max(float(np.max(np.abs(np.asarray(a) - b))) for a, b in zip(ours, theirs))
