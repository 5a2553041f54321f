"""Sizes, checked for every builder."""

import numpy as np
import pytest

from keras_genai.cnn import build_cnn
from keras_genai.gan import build_discriminator, build_generator
from keras_genai.rnn import build_forecaster, build_language_model
from keras_genai.vae import build_decoder, build_encoder


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
def test_sizes_may_be_numpys(build):
    # As of labels.max() + 1. Keras takes none for a size, and writes none to a file.
    model = build(np.int64(4))
    assert "4" in model.to_json() and model.count_params() == build(4).count_params()
