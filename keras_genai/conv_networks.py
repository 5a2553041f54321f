"""Convolutional networks of a VAE and of a GAN, which the articles' dense ones are compared with.

After Radford et al. 2016 (DCGAN): strided convolutions halve the image, transposed ones double it,
and there is no pooling. `vae` and `gan` re-export the builders of their family.
"""

import math

import keras
from keras import layers

from keras_genai.conditioning import OneHot, concat_labels, label_input, pack_inputs
from keras_genai.validation import (
    check_choice,
    check_identifier,
    check_image_shape,
    check_size,
    check_sizes,
)

KERNEL_SIZE = 4  # a multiple of the stride, so that transposed convolutions cover pixels evenly


def build_conv_encoder(
    image_shape=(28, 28, 1),
    widths=(32, 64),
    hidden_dim=256,
    latent_dim=20,
    activation="relu",
    num_classes=None,
) -> keras.Model:
    """Build a convolutional encoder q(z|x).

    Args:
        image_shape: Tuple of ints (height, width, channels). Defaults to `(28, 28, 1)`.
        widths: Tuple of ints. Channels of the convolutions, each of which halves the image; three
            or four for images of 64 pixels. Defaults to `(32, 64)`.
        hidden_dim: Int. Width of the dense layer after the convolutions. Defaults to `256`.
        latent_dim: Int. Size of z. Defaults to `20`.
        activation: String or callable. Activation of the hidden layers. Defaults to `"relu"`.
        num_classes: Int, at least 2, or `None`. If given, the model takes integer labels `(batch,)`
            as a second input. Defaults to `None`.

    Returns:
        A `keras.Model` that maps x `(batch, height, width, channels)` to [z_mean, z_log_var], each
        `(batch, latent_dim)`.

    Raises:
        ValueError: for an invalid size or number of classes, and for an unknown activation.
    """
    image_shape, widths = check_image_shape(image_shape), _check_widths(widths)
    hidden_dim, latent_dim = check_sizes(hidden_dim=hidden_dim, latent_dim=latent_dim)
    activation = check_identifier("activation", activation, keras.activations.get, "an activation")
    x = keras.Input(image_shape, name="x")
    labels = label_input(num_classes)
    h = x
    for width in widths:
        h = layers.Conv2D(width, KERNEL_SIZE, 2, "same", activation=activation)(h)
    h = concat_labels(layers.Flatten()(h), labels, num_classes)
    h = layers.Dense(hidden_dim, activation)(h)
    dtype = keras.config.floatx()  # of the outputs, also under mixed precision
    z_mean = layers.Dense(latent_dim, name="z_mean", dtype=dtype)(h)
    z_log_var = layers.Dense(latent_dim, name="z_log_var", dtype=dtype)(h)
    return keras.Model(pack_inputs(x, labels), [z_mean, z_log_var], name="encoder")


def build_conv_decoder(
    latent_dim=20,
    hidden_dim=256,
    widths=(64, 32),
    image_shape=(28, 28, 1),
    activation="relu",
    num_classes=None,
) -> keras.Model:
    """Build a convolutional decoder p(x|z).

    Args:
        latent_dim: Int. Size of z. Defaults to `20`.
        hidden_dim: Int. Width of the first dense layer. Defaults to `256`.
        widths: Tuple of ints. Channels before each of the transposed convolutions, which double the
            image. Defaults to `(64, 32)`.
        image_shape: Tuple of ints (height, width, channels). Height and width are multiples of
            2^len(widths). Defaults to `(28, 28, 1)`.
        activation, num_classes: See `build_conv_encoder`.

    Returns:
        A `keras.Model` that maps z `(batch, latent_dim)` to the means of p(x|z),
        `(batch, height, width, channels)` in [0, 1].

    Raises:
        ValueError: for an invalid size or number of classes, and for an unknown activation.
    """
    image_shape, widths = check_image_shape(image_shape), _check_widths(widths)
    latent_dim, hidden_dim = check_sizes(latent_dim=latent_dim, hidden_dim=hidden_dim)
    activation = check_identifier("activation", activation, keras.activations.get, "an activation")
    z = keras.Input((latent_dim,), name="z")
    labels = label_input(num_classes)
    h = layers.Dense(hidden_dim, activation)(concat_labels(z, labels, num_classes))
    smallest = _smallest_shape(image_shape, widths)
    h = layers.Dense(math.prod(smallest), activation)(concat_labels(h, labels, num_classes))
    h = layers.Reshape(smallest)(h)
    for width in widths[1:]:
        h = layers.Conv2DTranspose(width, KERNEL_SIZE, 2, "same", activation=activation)(h)
    x_hat = layers.Conv2DTranspose(
        image_shape[-1], KERNEL_SIZE, 2, "same", activation="sigmoid", name="x_hat",
        dtype=keras.config.floatx(),
    )(h)  # fmt: skip
    return keras.Model(pack_inputs(z, labels), x_hat, name="decoder")


def build_conv_generator(
    latent_dim=64, widths=(128, 64), image_shape=(28, 28, 1), num_classes=None
) -> keras.Model:
    """Build a convolutional generator (Radford et al. 2016, section 3).

    Args:
        latent_dim: Int. Size of the noise vector. Defaults to `64`.
        widths: Tuple of ints. Channels before each of the transposed convolutions, which double the
            image; three or four for images of 64 pixels. Defaults to `(128, 64)`.
        image_shape: Tuple of ints (height, width, channels). Height and width are multiples of
            2^len(widths). Defaults to `(28, 28, 1)`.
        num_classes: Int or `None`. Number of classes of a conditional network, which has integer
            labels `(batch,)` as a second input. Defaults to `None`.

    Returns:
        A `keras.Model` from noise `(batch, latent_dim)` to images
        `(batch, height, width, channels)` in [0, 1].

    Raises:
        ValueError: for an invalid size or number of classes.
    """
    image_shape, widths = check_image_shape(image_shape), _check_widths(widths)
    latent_dim = check_size("latent_dim", latent_dim)
    noise = keras.Input((latent_dim,), name="noise")
    labels = label_input(num_classes)
    x = concat_labels(noise, labels, num_classes)
    smallest = _smallest_shape(image_shape, widths)
    x = layers.Dense(math.prod(smallest), use_bias=False)(x)
    x = layers.Reshape(smallest)(_normalize(x))
    for width in widths[1:]:
        x = layers.Conv2DTranspose(width, KERNEL_SIZE, 2, "same", use_bias=False)(x)
        x = _normalize(x)
    dtype = keras.config.floatx()  # of the output, also under mixed precision
    x = layers.Conv2DTranspose(
        image_shape[-1], KERNEL_SIZE, 2, "same", activation="tanh", dtype=dtype
    )(x)
    x = layers.Rescaling(0.5, offset=0.5, dtype=dtype)(x)  # [-1, 1] to [0, 1]
    return keras.Model(pack_inputs(noise, labels), x, name="generator")


def build_conv_discriminator(
    image_shape=(28, 28, 1), widths=(32, 64, 128), num_classes=None, output_activation="sigmoid"
) -> keras.Model:
    """Build a convolutional discriminator (Radford et al. 2016, section 3).

    It has no batch normalization, with which the gradient penalty of `loss="wasserstein_gp"` is not
    that of single images (Gulrajani et al. 2017, section 4).

    Args:
        image_shape: Tuple of ints (height, width, channels). Defaults to `(28, 28, 1)`.
        widths: Tuple of ints. Channels of the convolutions, each of which halves the image.
            Defaults to `(32, 64, 128)`.
        num_classes: Int or `None`. Number of classes of a conditional network, which has integer
            labels `(batch,)` as a second input. Defaults to `None`.
        output_activation: String. `"sigmoid"` for `GAN(loss="non_saturating")`, `"linear"` for the
            other losses. Defaults to `"sigmoid"`.

    Returns:
        A `keras.Model` from images `(batch, height, width, channels)` in [0, 1] to D(x)
        `(batch, 1)`: probabilities that they are real, or a score of any size.

    Raises:
        ValueError: for an invalid size or number of classes, and for another output activation.
    """
    image_shape, widths = check_image_shape(image_shape), _check_widths(widths)
    check_choice("output_activation", output_activation, ("sigmoid", "linear"))
    image = keras.Input(image_shape, name="image")
    labels = label_input(num_classes)
    x = layers.Rescaling(2.0, offset=-1.0)(image)  # [0, 1] to [-1, 1]
    if labels is not None:  # one more channel, an image of each class
        height, width, _ = image_shape
        class_image = layers.Dense(height * width)(OneHot(num_classes)(labels))
        x = layers.Concatenate()([x, layers.Reshape((height, width, 1))(class_image)])
    for width in widths:
        x = layers.Conv2D(width, KERNEL_SIZE, 2, "same")(x)
        x = layers.LeakyReLU(negative_slope=0.2)(x)
    dtype = keras.config.floatx()  # of the output, also under mixed precision
    output = layers.Dense(1, output_activation, dtype=dtype)(layers.Flatten()(x))
    return keras.Model(pack_inputs(image, labels), output, name="discriminator")


def _normalize(x):
    return layers.Activation("relu")(layers.BatchNormalization()(x))


def _check_widths(widths) -> tuple[int, ...]:
    if not isinstance(widths, (list, tuple)) or not widths:
        raise ValueError(f"widths: expected a sequence of whole numbers, got {widths!r:.200}.")
    return tuple(check_size("widths", width) for width in widths)


def _smallest_shape(image_shape, widths) -> tuple[int, int, int]:
    """Return the shape that the transposed convolutions double to the size of the image."""
    height, width, _ = image_shape
    factor = 2 ** len(widths)
    if height % factor or width % factor:
        raise ValueError(
            f"image_shape: expected multiples of {factor} for {len(widths)} transposed "
            f"convolutions, got {height} x {width}."
        )
    return height // factor, width // factor, widths[0]
