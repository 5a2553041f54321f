"""U-Net of diffusion: predicts the noise, or the velocity, from a noisy image and its timestep.

After Ho et al. 2020, appendix B: residual blocks conditioned on the timestep, skip connections
between the two halves, and self-attention. It is smaller: one residual block per level by default,
attention at the lowest resolution only, average pooling, one skip connection per block, no dropout.
"""

import math

import keras
import numpy as np
from keras import layers, ops

from keras_genai.conditioning import OneHot, check_network, label_input
from keras_genai.normalization import GroupNormalization
from keras_genai.validation import check_image_shape, check_size


@keras.saving.register_keras_serializable(package="keras_genai")
class SinusoidalTimeEmbedding(layers.Layer):
    """Embedding of integer timesteps `(batch,)` as sines and cosines `(batch, dim)`.

    The frequencies are 10000^(-i / (dim / 2)), as for positions in a Transformer (Vaswani et al.
    2017, section 3.5); sines and cosines are concatenated, not interleaved.

    Args:
        dim: Int. Even size of the embedding.

    Raises:
        ValueError: for an odd size.
    """

    def __init__(self, dim, **kwargs):
        super().__init__(**kwargs)
        self.dim = check_size("dim", dim, minimum=2)
        if self.dim % 2:
            raise ValueError(f"dim: expected an even number, got {dim}.")

    def call(self, t):
        half = self.dim // 2
        frequencies = np.exp(-np.log(10_000) * np.arange(half) / half).astype("float32")
        angles = ops.cast(t, "float32")[:, None] * frequencies
        embedding = ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)
        return ops.cast(embedding, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (*input_shape, self.dim)

    def get_config(self):
        return {**super().get_config(), "dim": self.dim}


def build_unet(
    image_shape=(28, 28, 1),
    widths=(32, 64, 96),
    block_depth=1,
    num_classes=None,
    text_encoder=None,
) -> keras.Model:
    """Build the U-Net.

    The image is downsampled by 2 between the levels and upsampled on the way back, where each level
    concatenates the features of the same level of the first half (skip connections).

    Args:
        image_shape: Tuple of ints, `(height, width, channels)`. Defaults to `(28, 28, 1)`.
        widths: Tuple of ints, at least 2 each. Channels of each level, from the highest resolution
            to the lowest. Defaults to `(32, 64, 96)`.
        block_depth: Int. Residual blocks per level in each half, and on each side of the attention.
            Defaults to `1`.
        num_classes: Int, at least 2, or `None`. If given, the network takes integer labels
            `(batch,)` as a third input; -1 is the null label of classifier-free guidance. Defaults
            to `None`.
        text_encoder: `keras.Model` from tokens `(batch, n)` to vectors `(batch, dim)`, such as
            `text_to_image.build_text_encoder`, or `None`. If given, it is a part of the network,
            whose third input are tokens. Defaults to `None`.

    Returns:
        A `keras.Model` that maps [x_t, t], [x_t, t, labels] or [x_t, t, tokens], noisy images
        `(batch, height, width, channels)`, timesteps and labels `(batch,)`, to the noise in x_t or
        the velocity v, of x_t's shape.

    Raises:
        ValueError: if a size is not a whole number of at least 1 (a width, of at least 2), if the
            images cannot be downsampled that many times, and for both classes and a text encoder.
    """
    height, width, channels, widths, block_depth = _check_arguments(
        image_shape, widths, block_depth
    )
    noisy_images = keras.Input((height, width, channels), name="x_t")
    t = keras.Input((), dtype="int32", name="t")
    emb = layers.Dense(4 * widths[0])(SinusoidalTimeEmbedding(2 * widths[0])(t))
    condition, vector = _embed_condition(num_classes, text_encoder)
    if condition is not None:
        emb = layers.Add()([emb, layers.Dense(4 * widths[0], use_bias=False)(vector)])
    emb = layers.Activation("silu")(emb)  # (batch, 4 * widths[0])

    # Downsampling.
    x = layers.Conv2D(widths[0], 3, padding="same")(noisy_images)
    skips = []
    for level_width in widths[:-1]:
        for _ in range(block_depth):
            x = _residual_block(x, emb, level_width)
            skips.append(x)
        x = layers.AveragePooling2D(2)(x)
    # Lowest resolution.
    for _ in range(block_depth):
        x = _residual_block(x, emb, widths[-1])
    x = _attention_block(x)
    for _ in range(block_depth):
        x = _residual_block(x, emb, widths[-1])
    # Upsampling.
    for level_width in reversed(widths[:-1]):
        x = layers.UpSampling2D(2)(layers.Conv2D(level_width, 1)(x))
        for _ in range(block_depth):
            x = _residual_block(layers.Concatenate()([x, skips.pop()]), emb, level_width)

    x = _group_norm(x, "silu")
    # Zero-initialized: an untrained network predicts 0, the mean of the noise.
    noise = layers.Conv2D(
        channels, 3, padding="same", kernel_initializer="zeros", dtype=keras.config.floatx(),
        name="noise",
    )(x)  # fmt: skip
    inputs = [noisy_images, t] if condition is None else [noisy_images, t, condition]
    return keras.Model(inputs, noise, name="unet")


def _embed_condition(num_classes, text_encoder):
    """Return the third input and its vector, zeros for the null label or text, or two `None`."""
    if text_encoder is None:
        labels = label_input(num_classes)
        return labels, None if labels is None else OneHot(num_classes)(labels)
    if num_classes is not None:
        raise ValueError(f"num_classes: expected None with a text encoder, got {num_classes!r}.")
    check_network("text_encoder", text_encoder, ("tokens",), ("vector",))
    shape = text_encoder.inputs[0].shape
    if len(text_encoder.inputs) != 1 or len(shape) != 2 or shape[1] is None:
        raise ValueError(
            f"text_encoder: expected one input of tokens (batch, max_words), got {shape}."
        )
    max_words = shape[1]
    tokens = keras.Input((max_words,), dtype="int32", name="tokens")
    return tokens, text_encoder(tokens)


def _check_arguments(image_shape, widths, block_depth):
    height, width, channels = check_image_shape(image_shape)
    block_depth = check_size("block_depth", block_depth)
    if not isinstance(widths, (list, tuple)) or not widths:
        raise ValueError(f"widths: expected a sequence of whole numbers, got {widths!r}.")
    widths = [check_size("widths", level_width, minimum=2) for level_width in widths]
    factor = 2 ** (len(widths) - 1)
    if height % factor or width % factor:
        raise ValueError(
            f"image_shape: expected multiples of {factor} for {len(widths) - 1} downsamplings, "
            f"got {height} x {width}."
        )
    return height, width, channels, widths, block_depth


def _residual_block(x, emb, width):
    """Two convolutions with a residual connection; the embedding is added between the two."""
    h = _group_norm(x, "silu")
    h = layers.Conv2D(width, 3, padding="same")(h)
    h = layers.Add()([h, layers.Reshape((1, 1, width))(layers.Dense(width)(emb))])
    h = _group_norm(h, "silu")
    h = layers.Conv2D(width, 3, padding="same")(h)
    if x.shape[-1] != width:
        x = layers.Conv2D(width, 1)(x)
    return layers.Add()([x, h])  # (batch, height, width, channels)


def _attention_block(x):
    """Self-attention over all positions of the image, with a residual connection."""
    height, width, channels = x.shape[1:]
    tokens = layers.Reshape((height * width, channels))(_group_norm(x))
    attention_output = layers.MultiHeadAttention(num_heads=1, key_dim=channels)(tokens, tokens)
    return layers.Add()([x, layers.Reshape((height, width, channels))(attention_output)])


def _group_norm(x, activation=None):
    # Keras's default of 32 groups does not divide every width. With one channel per group,
    # normalization would remove the added embedding, so each group has at least two channels.
    width = x.shape[-1]
    return GroupNormalization(math.gcd(8, width, width // 2), activation)(x)
