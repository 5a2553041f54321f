"""Shared by several tests: real digits, double precision, fixed seeds, comparison of weights."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# One thread per worker process: several would compete for the same cores.
for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import keras
import pytest

from keras_genai import datasets

# Compiled functions are many objects and little garbage, which took an eighth of the time to find.
gc.freeze()
gc.set_threshold(100_000, 20, 20)


@pytest.fixture(scope="session")
def digits():
    """1,000 real digits: images (1000, 784) in [0, 1], labels (1000,)."""
    (x, y), _ = datasets.load_mnist()
    return x[:1000].reshape(1000, 784).astype("float32") / 255, y[:1000].astype("int32")


@pytest.fixture
def double_precision():
    """Compute in float64, where rounding neither hides nor causes a difference of 1e-5.

    Adam divides each gradient by its own magnitude, so that in float32 the rounding error of a tiny
    gradient is visible in the weights.
    """
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


@pytest.fixture(autouse=True)
def fixed_seed():
    keras.utils.set_random_seed(0)
