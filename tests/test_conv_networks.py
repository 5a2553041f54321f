"""Convolutional networks of VAE and GAN: shapes, sizes by hand, conditions, training."""

import keras
import numpy as np
import pytest

from keras_genai.gan import GAN, build_conv_discriminator, build_conv_generator
from keras_genai.vae import VAE, build_conv_decoder, build_conv_encoder, build_vae

SHAPES = [((28, 28, 1), (4, 6)), ((32, 48, 3), (4, 6, 8)), ((64, 64, 3), (4, 4, 4, 4))]


def conv_weights(channels, widths, bias=True):
    """Return the number of weights of convolutions with 4 x 4 kernels."""
    pairs = zip((channels, *widths[:-1]), widths, strict=True)
    return sum(16 * a * b + b * bias for a, b in pairs)


@pytest.mark.parametrize("image_shape, widths", SHAPES)
def test_sizes_of_the_networks_are_those_by_hand(image_shape, widths):
    height, width, channels = image_shape
    smallest = height * width // 4 ** len(widths)
    encoder = build_conv_encoder(image_shape, widths, hidden_dim=5, latent_dim=3)
    dense = 5 * (smallest * widths[-1] + 1) + 2 * 3 * (5 + 1)
    assert encoder.count_params() == conv_weights(channels, widths) + dense

    reverse = widths[::-1]
    decoder = build_conv_decoder(3, 5, reverse, image_shape)
    dense = 5 * (3 + 1) + smallest * reverse[0] * (5 + 1)
    convolutions = conv_weights(reverse[0], (*reverse[1:], channels))
    assert decoder.count_params() == dense + convolutions

    generator = build_conv_generator(3, reverse, image_shape)
    normalizations = 4 * (smallest * reverse[0] + sum(reverse[1:]))
    convolutions = conv_weights(reverse[0], (*reverse[1:], channels), bias=False) + channels
    assert generator.count_params() == smallest * reverse[0] * 3 + normalizations + convolutions

    discriminator = build_conv_discriminator(image_shape, widths)
    expected = conv_weights(channels, widths) + smallest * widths[-1] + 1
    assert discriminator.count_params() == expected


def test_discriminator_and_encoder_halve_odd_sizes_too():
    # 28, 14, 7, 4 pixels
    assert build_conv_discriminator().layers[-2].output.shape == (None, 4 * 4 * 128)
    assert build_conv_encoder((7, 5, 1), (2, 2)).inputs[0].shape == (None, 7, 5, 1)


@pytest.mark.parametrize("num_classes", [None, 3])
def test_models_train_on_color_images_and_generate_them(num_classes):
    rng = np.random.default_rng(0)
    x, labels = rng.random((6, 16, 8, 3), "float32"), np.array([0, 1, 2, 0, 1, 2])
    data = (x,) if num_classes is None else (x, labels)
    options = {"image_shape": (16, 8, 3), "num_classes": num_classes}
    vae = VAE(
        build_conv_encoder(widths=(2, 3), hidden_dim=4, latent_dim=2, **options),
        build_conv_decoder(2, 4, (3, 2), **options),
    )
    gan = GAN(build_conv_generator(2, (3, 2), **options), build_conv_discriminator(**options))
    for model in (vae, gan):
        model.compile(*["sgd"] * (2 if model is gan else 1))
        model.fit(*data, batch_size=3, verbose=0)
        images = model.generate(3, *([0, 1, 2],) if num_classes else (), seed=0)
        assert images.shape == (3, 16, 8, 3)
        assert 0 <= images.min() < images.max() <= 1


def test_functional_vae_of_convolutional_networks_is_saved(tmp_path):
    vae = build_vae(
        build_conv_encoder((8, 8, 1), (2,), 4, 2), build_conv_decoder(2, 4, (2,), (8, 8, 1)), seed=0
    )
    x = np.random.default_rng(0).random((3, 8, 8, 1), "float32")
    vae.save(tmp_path / "vae.keras")
    loaded = keras.saving.load_model(tmp_path / "vae.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), vae.predict(x, verbose=0))


def test_labels_change_the_outputs_of_all_networks():
    rng = np.random.default_rng(0)
    x, z = rng.random((1, 28, 28, 1), "float32"), rng.normal(size=(1, 3)).astype("float32")
    for network, inputs in [
        (build_conv_encoder(latent_dim=3, num_classes=2), x),
        (build_conv_decoder(3, num_classes=2), z),
        (build_conv_generator(3, num_classes=2), z),
        (build_conv_discriminator(num_classes=2), x),
    ]:
        outputs = [
            np.asarray(keras.tree.flatten(network([inputs, np.array([label])]))[0])
            for label in range(2)
        ]
        assert np.abs(outputs[0] - outputs[1]).max() > 1e-6


@pytest.mark.parametrize(
    "build, options, message",
    [
        (build_conv_decoder, {"image_shape": (30, 28, 1)}, "image_shape: expected multiples of 4"),
        (build_conv_generator, {"widths": (2, 2, 2)}, "image_shape: expected multiples of 8"),
        (build_conv_encoder, {"widths": ()}, "widths: expected a sequence of whole numbers"),
        (build_conv_encoder, {"widths": (2, 0)}, "widths: expected"),
        (build_conv_discriminator, {"image_shape": (28, 28)}, "image_shape: expected"),
        (build_conv_discriminator, {"output_activation": "tanh"}, "output_activation: expected"),
        (build_conv_generator, {"latent_dim": 0}, "latent_dim: expected"),
        (build_conv_encoder, {"activation": "no"}, "activation: expected"),
        (build_conv_encoder, {"num_classes": 1}, "num_classes: expected"),
    ],
)
def test_invalid_arguments_are_named(build, options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)
