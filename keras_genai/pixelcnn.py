"""Gated PixelCNN of article 3, section 5 (van den Oord et al. 2016b, after 2016a).

2016a is "Pixel Recurrent Neural Networks", 2016b "Conditional Image Generation with PixelCNN
Decoders". An image is generated pixel by pixel in raster order (2016b, equation 1):

    p(x) = p(x_1) p(x_2 | x_1) … p(x_n | x_1, …, x_(n-1))

In training, one pass of a convolutional network computes all factors, since its output at each
pixel depends on earlier pixels only. Two stacks of convolutions cover all of them, without the
blind spot of a single stack of masked convolutions (2016b, section 2.2):

    v v v v v    v: rows above, vertical stack
    v v v v v
    h h x . .    h: pixels to the left, horizontal stack;  x: predicted pixel
    . . . . .    .: later pixels, covered by neither stack

    image ---+-------------------> vstack ---> +---------+ ---> +---------+ ---> …
             |                                 | layer 1 |      | layer 2 |
             +--- shift right ---> hstack ---> +---------+ ---> +---------+ ---> … ---> logits

No kernel is masked: each is cropped to the positions that a mask would keep, and its input is
padded above and to the left. The image is shifted right once, and in each layer the vertical stack
is shifted down on its way to the horizontal one (drawing in `GatedPixelCNNLayer`). Most layers are
dilated, as in WaveNet and unlike 2016b, so that a few small kernels cover most of a digit.

Corrected from the article: according to the second paragraph of its section 5, autoregressive
models (it names PixelCNN and WaveNet) optimize their parameters by maximizing
观测数据与潜在变量的后验概率, "the posterior probability of the observed data and latent variables",
so that they generate new samples that match the features of the input data. A PixelCNN has no
latent variable and hence no posterior: training maximizes the log-likelihood log p(x), which
`log_prob` returns. The section's first paragraph, a joint distribution by way of conditional
probabilities (条件概率), is right.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from keras_genai import autoregressive, pixelcnn_cache
from keras_genai.autoregressive import Sampler
from keras_genai.conditioning import OneHot, count_classes, label_input, pack_inputs
from keras_genai.layer_state import LayerStateMixin
from keras_genai.models import ConfigMixin, CustomLossMixin, GenerativeImageModel
from keras_genai.replicas import apply_gradients
from keras_genai.validation import (
    as_numbers,
    check_image_shape,
    check_images,
    check_labels,
    check_size,
    check_sizes,
)

DILATION_RATES = (2, 4, 8, 1)  # of the layers after the first, in turn


def shift_right(x):
    """Shift images `(batch, height, width, channels)` right by one pixel, filling with zeros."""
    return ops.pad(x[:, :, :-1], ((0, 0), (0, 0), (1, 0), (0, 0)))


def shift_down(x):
    """Shift images `(batch, height, width, channels)` down by one row, filling with zeros."""
    return ops.pad(x[:, :-1], ((0, 0), (1, 0), (0, 0), (0, 0)))


@keras.saving.register_keras_serializable(package="keras_genai")
class GatedPixelCNNLayer(LayerStateMixin, layers.Layer):
    """One layer of both stacks (2016b, figure 2).

    With k = kernel_size // 2 + 1:

        vstack --- conv k x kernel_size --- gate ---+-----------------------------> vstack
                                                    |
                                               shift down
                                                  1 x 1
                                                    |
        hstack -+- conv 1 x k ----------------------+--- gate --- 1 x 1 ---+------> hstack
                |                                                          |
                +------------------------ residual ------------------------+

    The vertical kernel covers its own row and the rows above, the horizontal one its own pixel and
    the pixels to the left. Labels, if any, add a bias to both gates. Unlike figure 2, the
    horizontal stack reads the vertical stack after the gate; this halves the cost of the 1 x 1
    convolution between the stacks. The first layer has no residual: its input, the image, has
    another number of channels.

    Args:
        num_filters: Int. Number of channels of each stack.
        kernel_size: Int, odd. Size of the uncropped kernel, as in the paper. Defaults to `3`.
        dilation_rate: Int. Dilation rate of both convolutions. Defaults to `1`.
    """

    def __init__(self, num_filters, kernel_size=3, dilation_rate=1, **kwargs):
        super().__init__(**kwargs)
        self.num_filters, self.kernel_size, self.dilation_rate = check_sizes(
            num_filters=num_filters, kernel_size=kernel_size, dilation_rate=dilation_rate
        )
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: expected an odd number, got {kernel_size}.")
        half = self.kernel_size // 2
        self.padding = half * self.dilation_rate
        # Each has 2 * num_filters channels, the two halves of a gate.
        self.vertical_conv = layers.Conv2D(
            2 * self.num_filters,
            (half + 1, self.kernel_size),
            dilation_rate=self.dilation_rate,
            dtype=self.dtype_policy,
            name="vertical_conv",
        )
        self.horizontal_conv = layers.Conv2D(
            2 * self.num_filters,
            (1, half + 1),
            dilation_rate=self.dilation_rate,
            dtype=self.dtype_policy,
            name="horizontal_conv",
        )
        self.vertical_to_horizontal = layers.Dense(
            2 * self.num_filters, use_bias=False, dtype=self.dtype_policy,
            name="vertical_to_horizontal",
        )  # fmt: skip
        self.horizontal_residual = layers.Dense(
            self.num_filters, dtype=self.dtype_policy, name="horizontal_residual"
        )
        self.label_projection = layers.Dense(
            4 * self.num_filters, use_bias=False, dtype=self.dtype_policy, name="label_projection"
        )

    def build(self, vstack_shape, hstack_shape, labels_shape=None):
        # The convolutions are applied to padded stacks and to single rows.
        self.vertical_conv.build((None, None, None, vstack_shape[-1]))
        self.horizontal_conv.build((None, None, None, hstack_shape[-1]))
        output_shape = (*vstack_shape[:-1], self.num_filters)
        self.vertical_to_horizontal.build(output_shape)
        self.horizontal_residual.build(output_shape)
        if labels_shape is not None:
            self.label_projection.build(labels_shape)
        self.built = True

    def call(self, vstack, hstack, labels=None):
        """Return both stacks of the next layer, `(batch, height, width, num_filters)` each.

        Args:
            vstack: Float tensor `(batch, height, width, channels)`.
            hstack: Float tensor `(batch, height, width, channels)`.
            labels: One-hot labels `(batch, num_classes)` or `None`.
        """
        vertical_bias, horizontal_bias = self.project_labels(labels, num_spatial_axes=2)
        padding = self.padding
        rows = ops.pad(vstack, ((0, 0), (padding, 0), (padding, padding), (0, 0)))
        pixels = ops.pad(hstack, ((0, 0), (0, 0), (padding, 0), (0, 0)))
        vstack = self.gate(self.vertical_conv(rows) + vertical_bias)
        x = self.horizontal_conv(pixels) + self.vertical_to_horizontal(shift_down(vstack))
        return vstack, self.add_residual(hstack, self.gate(x + horizontal_bias))

    @staticmethod
    def gate(x):
        """Return tanh(a) * sigmoid(b) of the halves a, b of the channels (2016b, equation 2)."""
        a, b = ops.split(x, 2, axis=-1)
        return ops.tanh(a) * ops.sigmoid(b)

    def add_residual(self, hstack, x):
        """Return the horizontal stack of the next layer, given the output x of the gate."""
        x = self.horizontal_residual(x)
        return x + hstack if hstack.shape[-1] == self.num_filters else x

    def project_labels(self, labels, num_spatial_axes):
        """Return the label terms of both gates, V^T h in 2016b, equation 4; 0 without labels.

        Args:
            labels: One-hot labels `(batch, num_classes)` or `None`.
            num_spatial_axes: Int. Number of axes of size 1 between batch and channels.
        """
        if labels is None:
            return 0.0, 0.0
        x = self.label_projection(labels)
        x = ops.reshape(x, (-1, *[1] * num_spatial_axes, 4 * self.num_filters))
        return ops.split(x, 2, axis=-1)

    def compute_output_shape(self, vstack_shape, hstack_shape, labels_shape=None):
        shape = (*vstack_shape[:-1], self.num_filters)
        return shape, shape

    def get_config(self):
        return {
            **super().get_config(),
            "num_filters": self.num_filters,
            "kernel_size": self.kernel_size,
            "dilation_rate": self.dilation_rate,
        }


@keras.saving.register_keras_serializable(package="keras_genai")
class Quantize(layers.Layer):
    """Rounding of pixels in [0, 1] to the nearest of equally spaced levels.

    Args:
        num_levels: Int, at least 2. Number of levels, 0 and 1 included.
    """

    def __init__(self, num_levels, **kwargs):
        super().__init__(**kwargs)
        self.num_levels = check_size("num_levels", num_levels, minimum=2)

    def call(self, x):
        return ops.round(x * (self.num_levels - 1)) / (self.num_levels - 1)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "num_levels": self.num_levels}


def pixel_nll(levels, logits):
    """Return the negative log-likelihood of each pixel in nats, `(batch, height, width)`.

    Args:
        levels: Int tensor `(batch, height, width)`. True level of each pixel.
        logits: Float tensor `(batch, height, width, num_levels)`.
    """
    return keras.losses.sparse_categorical_crossentropy(levels, logits, from_logits=True)


@keras.saving.register_keras_serializable(package="keras_genai")
class PixelCNN(ConfigMixin, CustomLossMixin, GenerativeImageModel):
    """Gated PixelCNN: a network from images to the logits of each pixel's level.

    Images are `(batch, height, width, 1)` in [0, 1] and are rounded to `num_levels` levels; the
    logits are `(batch, height, width, num_levels)`. A conditional model is trained by
    `fit(x, labels)`. Metrics are `loss`, in nats per image, and `bits_per_dim`, in bits per pixel.

    Args:
        image_shape: Tuple of ints, `(height, width, 1)`. Defaults to `(28, 28, 1)`.
        num_filters: Int. Number of channels of each stack. Defaults to `32`.
        num_layers: Int. Number of layers: the first with kernel size 7, the others with 3 and
            dilation rates 2, 4, 8, 1, 2, … Defaults to `8`, which covers 33 rows above a pixel.
        num_levels: Int from 2 to 256. Number of levels of a pixel. Defaults to `2`, black and
            white.
        num_classes: Int, at least 2, or `None`. If given, integer labels `(batch,)` are a second
            input. Defaults to `None`.

    Example:
        model = PixelCNN()
        model.compile(keras.optimizers.Adam(1e-3))
        model.fit(datasets.binarize(x))
        images = model.generate(16)

    Raises:
        ValueError: for more than one channel, for a size below 1, and for a number of levels
            outside 2 … 256.
    """

    def __init__(
        self,
        image_shape=(28, 28, 1),
        num_filters=32,
        num_layers=8,
        num_levels=2,
        num_classes=None,
        name="pixelcnn",
        **kwargs,
    ):
        height, width, channels = check_image_shape(image_shape, channels="1")
        if channels != 1:
            raise ValueError(f"image_shape: expected (height, width, 1), got {image_shape!r}.")
        num_filters, num_layers = check_sizes(num_filters=num_filters, num_layers=num_layers)
        num_levels = check_size("num_levels", num_levels, minimum=2)
        if num_levels > 256:
            raise ValueError(f"num_levels: expected at most 256, got {num_levels}.")

        # Layers.
        gated_layers = [GatedPixelCNNLayer(num_filters, kernel_size=7, name="layer_1")]
        for i in range(num_layers - 1):
            dilation_rate = DILATION_RATES[i % len(DILATION_RATES)]
            gated_layers.append(
                GatedPixelCNNLayer(num_filters, 3, dilation_rate, name=f"layer_{i + 2}")
            )
        hidden = layers.Dense(num_filters, activation="relu", name="hidden")
        head = layers.Dense(num_levels, dtype=keras.config.floatx(), name="logits")

        # Functional graph.
        x = keras.Input((height, width, 1), name="x")
        labels = label_input(num_classes)
        one_hot = None if labels is None else OneHot(num_classes)(labels)
        vstack, hstack = self.input_stacks(Quantize(num_levels)(x))
        for layer in gated_layers:
            vstack, hstack = layer(vstack, hstack, one_hot)
        logits = head(hidden(ops.relu(hstack)))
        super().__init__(pack_inputs(x, labels), logits, name=name, **kwargs)

        # Config.
        self.gated_layers, self.hidden, self.head = gated_layers, hidden, head
        self.height, self.width, self.num_levels = height, width, num_levels
        self.num_classes = num_classes = count_classes(self)
        self.config = {
            "image_shape": (height, width, 1),
            "num_filters": num_filters,
            "num_layers": num_layers,
            "num_levels": num_levels,
            "num_classes": num_classes,
        }
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.bits_per_dim_tracker = keras.metrics.Mean(name="bits_per_dim")

    @staticmethod
    def input_stacks(image):
        """Return the inputs of the first layer: the image, and the image shifted right."""
        return image, shift_right(image)

    def compute_logits(self, hstack):
        """Return logits `(…, num_levels)` from the last horizontal stack `(…, num_filters)`."""
        return self.head(self.hidden(ops.relu(hstack)))

    def to_levels(self, x):
        """Convert images `(batch, height, width, 1)` in [0, 1] to levels, without the last axis."""
        return ops.cast(ops.round(x[..., 0] * (self.num_levels - 1)), "int32")

    def to_pixels(self, levels):
        """Convert levels `(…)` to pixels `(…, 1)` in [0, 1]."""
        return ops.cast(levels, self.compute_dtype)[..., None] / (self.num_levels - 1)

    def compute_loss_and_logs(self, data, training):
        """Return the scalar loss of a batch, in nats per image, and a dict of metric results.

        Args:
            data: Images, or a tuple of images, labels and sample weights.
            training: Bool.
        """
        x, labels, sample_weight = self.unpack(data)
        levels = self.to_levels(x)
        logits = self(pack_inputs(x, labels), training=training)
        nll = ops.sum(pixel_nll(levels, logits), axis=(1, 2))  # (batch,)
        bits_per_dim = nll / (self.height * self.width * np.log(2))
        return self.reduce_and_log(
            nll, sample_weight, levels, logits, self.losses, bits_per_dim=bits_per_dim
        )

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss, logs = self.compute_loss_and_logs(data, training=True)
            loss = self.optimizer.scale_loss(loss)  # no effect without a LossScaleOptimizer
        gradients = tape.gradient(loss, self.trainable_weights)
        apply_gradients(self.optimizer, gradients, self.trainable_weights)
        return logs

    def log_prob(self, x, labels=None):
        """Return the exact log-likelihood of images.

        Args:
            x: Float array `(n, height, width, 1)` in [0, 1], rounded to `num_levels` levels.
            labels: Int or int array `(n,)` for a conditional model, else `None`.

        Returns:
            Two arrays in nats: log p(x) of each image, `(n,)`, and the log-probability of each
            pixel given the pixels before it, `(n, height, width)`.

        Raises:
            ValueError: for invalid images or labels.
        """
        self.check_data(x, labels)
        x, labels = np.asarray(x, "float32"), check_labels(labels, self.num_classes, len(x))
        pixels = []
        for start in range(0, len(x), 100):  # logits take num_levels times the memory of images
            batch = slice(start, start + 100)
            logits = self.predict_on_batch(
                pack_inputs(x[batch], None if labels is None else labels[batch])
            )
            pixels.append(-np.asarray(pixel_nll(self.to_levels(x[batch]), logits)))
        pixels = np.concatenate(pixels)
        return pixels.sum(axis=(1, 2), dtype="float64"), pixels

    def generate(
        self, num_samples=1, labels=None, *, upper_rows=None, sampler=Sampler(), seed=None
    ) -> np.ndarray:
        """Generate images pixel by pixel, or complete images from their upper rows.

        Args:
            num_samples: Int. Number of images. Defaults to `1`.
            labels: Int or int array `(num_samples,)` for a conditional model, else `None`.
            upper_rows: Float array `(num_samples, rows, width, 1)` in [0, 1], or `(rows, width, 1)`
                for all images, or `None`.
            sampler: `autoregressive.Sampler`. Defaults to `Sampler()`, the model's distribution.
            seed: Int or `None`. Seed of the sampling; the state of training does not change.

        Returns:
            Images, float32 `(num_samples, height, width, 1)` in [0, 1].

        Raises:
            ValueError: for a size below 1, and for an invalid sampler, labels or upper rows.
        """
        num_samples = check_size("num_samples", num_samples)
        labels = check_labels(labels, self.num_classes, num_samples)
        prompt = np.zeros((num_samples, 1), "int32")  # the start token stands for no pixel
        if upper_rows is not None:
            upper_tokens = self._upper_tokens(upper_rows, num_samples)
            prompt = np.concatenate([prompt, upper_tokens], axis=1)
        tokens = autoregressive.generate(
            self,
            prompt,
            self.context_length - prompt.shape[1],
            sampler=sampler,
            seed=seed,
            conditioning=labels,
        )
        levels = tokens[:, 1:].reshape(num_samples, *self.image_shape)
        return (levels / (self.num_levels - 1)).astype("float32")

    def _upper_tokens(self, upper_rows, num_samples):
        """Return upper rows as tokens `(num_samples, rows * width)`."""
        upper_rows = as_numbers("upper_rows", upper_rows)
        if upper_rows.ndim == 3:
            upper_rows = np.repeat(upper_rows[None], num_samples, axis=0)
        rows = upper_rows.shape[1] if upper_rows.ndim == 4 else 0
        if upper_rows.shape != (num_samples, rows, self.width, 1) or not 0 < rows < self.height:
            raise ValueError(
                f"upper_rows: expected shape ({num_samples}, 1 to {self.height - 1}, "
                f"{self.width}, 1), got {upper_rows.shape}."
            )
        check_images("upper_rows", upper_rows, upper_rows.shape[1:])
        levels = self.to_levels(upper_rows.astype("float32"))
        return np.asarray(levels).reshape(num_samples, -1)

    # The contract of `autoregressive.AutoregressiveModel`; tokens are levels.

    @property
    def vocab_size(self) -> int:
        return self.num_levels

    @property
    def context_length(self) -> int:
        """Number of tokens of an image: a start token and one for each pixel."""
        return 1 + self.height * self.width

    def initial_state(self, batch_size, max_length=None, conditioning=None):
        """Return the state before the first token; `max_length` is not used."""
        return pixelcnn_cache.initial_state(self, batch_size, conditioning)

    def step(self, tokens, state, position, length=None):
        """Process tokens `(batch, n)`; see `autoregressive.AutoregressiveModel`."""
        return pixelcnn_cache.step(self, tokens, state, position, length)

    def get_config(self):
        return {**super().get_config(), **self.config}


build_pixelcnn = PixelCNN  # under a builder's name, like `build_vae`
