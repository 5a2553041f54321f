"""CNN: the layers of article 4, training on real digits, invalid arguments."""

import keras
import numpy as np
import pytest

from keras_genai.cnn import build_cnn


def compiled_cnn(**arguments):
    model = build_cnn(**arguments)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"], jit_compile=False)
    return model


def test_parameter_count_matches_article_4():
    assert build_cnn().count_params() == 421_642


def test_layers_match_article_4():
    model = build_cnn()
    layer_types = [type(layer).__name__ for layer in model.layers]
    convolutional = ["InputLayer", "Rescaling", "Conv2D", "MaxPooling2D", "Conv2D", "MaxPooling2D"]
    assert layer_types == [*convolutional, "Flatten", "Dense", "Dense"]
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.filters for layer in convolutions] == [32, 64]
    assert all(layer.kernel_size == (3, 3) and layer.padding == "same" for layer in convolutions)
    assert [layer.activation.__name__ for layer in convolutions] == ["relu", "relu"]
    assert [layer.units for layer in model.layers[-2:]] == [128, 10]
    assert [layer.activation.__name__ for layer in model.layers[-2:]] == ["relu", "linear"]


def test_first_layer_scales_pixels_to_minus_one_to_one():
    model = build_cnn()
    rescaling = keras.Model(model.input, model.layers[1].output)
    image = np.full((1, 28, 28, 1), 0.25, "float32")
    np.testing.assert_allclose(rescaling(image), np.full_like(image, -0.5))


def test_image_shape_and_num_classes_set_the_shapes():
    model = build_cnn((5, 9, 3), num_classes=4)
    assert model(np.zeros((2, 5, 9, 3))).shape == (2, 4)


@pytest.mark.slow
def test_training_classifies_real_digits(digits):
    x, y = digits[0].reshape(-1, 28, 28, 1), digits[1]
    model = compiled_cnn()
    model.fit(x[:800], y[:800], epochs=5, verbose=0)
    assert model.evaluate(x[800:], y[800:], verbose=0, return_dict=True)["accuracy"] > 0.75


@pytest.mark.parametrize(
    "x, y, message",
    [
        (np.zeros((3, 784)), [0, 1, 2], r"x: expected shape \(n, 28, 28, 1\), got \(3, 784\)"),
        (np.full((3, 28, 28, 1), 255), [0, 1, 2], "Divide 8-bit pixels by 255"),
        (np.full((3, 28, 28, 1), np.nan), [0, 1, 2], "from nan to nan"),
        (np.zeros((0, 28, 28, 1)), [], "at least one image"),
        (np.zeros((3, 28, 28, 1)), [0, 1, 10], "labels: .* from 0 to 9, got values from 0 to 10"),
        (np.zeros((3, 28, 28, 1)), [0, 1], r"labels: expected shape \(3,\), got \(2,\)"),
    ],
)
def test_invalid_data_raises_in_fit(x, y, message):
    with pytest.raises(ValueError, match=message):
        compiled_cnn().fit(x, np.array(y, "int32"))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"image_shape": (3, 28, 1)}, "height.* at least 4, got 3"),
        ({"image_shape": (28, 3, 1)}, "width.* at least 4, got 3"),
        ({"image_shape": (28, 28, 0)}, "channels.* got 0"),
        (
            {"image_shape": (28, 28)},
            r"image_shape: expected \(height, width, channels\), got \(28, 28\)",
        ),
        ({"num_classes": 1}, "num_classes: .* at least 2, got 1"),
    ],
)
def test_error_messages_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_cnn(**arguments)
