"""PixelCNN: article 3, section 5 (van den Oord et al. 2016a; gated, 2016b, "Conditional PixelCNN").

An image is drawn pixel after pixel, row by row from the upper left, each given all before it:

    p(x) = p(x_1) p(x_2 | x_1) … p(x_n | x_1 … x_(n-1))

One network gives all factors at once, because its convolutions see no pixel that comes later. Two
stacks of them do so without a blind spot (2016b, section 2.2): the vertical one sees the rows
above, the horizontal one what stands to the left, and takes over what the other saw. No kernel is
masked: each is only as large as what it may see, and the image is padded above and to the left.
Most are dilated, as WaveNet's are, so that a few small ones see most of a digit.

Corrected from the article: it has PixelCNN maximise "the posterior of data and latent variables".
There is no latent variable. What is maximised is the likelihood itself, which `log_prob` returns.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from keras_genai import autoregressive
from keras_genai.autoregressive import Sampler
from keras_genai.inputs import (
    GenerativeImageModel,
    OneHot,
    check_images,
    check_labels,
    check_size,
    check_sizes,
    label_input,
    with_labels,
)
from keras_genai.training import OwnLoss

DILATIONS = (2, 4, 8, 1)  # of the layers after the first, over and over


@keras.saving.register_keras_serializable(package="keras_genai")
class GatedLayer(layers.Layer):
    """One layer of both stacks (2016b, figure 2), with tanh(a) * sigmoid(b) for activation.

    Called on the vertical and the horizontal stack, and one-hot labels if there are any, it returns
    both stacks, (batch, height, width, num_filters) each. The first layer is called on an image and
    the same image moved right by a pixel. Then the vertical stack sees at each place the rows from
    the top to its own, and the horizontal one the pixels before it: what it takes from the vertical
    one is a row further up. Other than in the figure it takes it after the gate, at half the cost.

    `row` and `pixel` compute the same for one row and one pixel, from what `initial_state` and
    `state_at` return: the rows and pixels before them that the kernels still need.

    Args:
        num_filters: of each stack.
        kernel_size: odd; the vertical kernel has (kernel_size // 2 + 1) x kernel_size places, the
            horizontal one 1 x (kernel_size // 2 + 1).
        dilation: distance between these places.
    """

    def __init__(self, num_filters, kernel_size=3, dilation=1, **kwargs):
        super().__init__(**kwargs)
        self.num_filters, self.kernel_size, self.dilation = check_sizes(
            num_filters=num_filters, kernel_size=kernel_size, dilation=dilation
        )
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: expected an odd number, got {kernel_size}.")
        half, num_filters = self.kernel_size // 2, self.num_filters
        self.reach = half * self.dilation
        self.vertical, self.horizontal = (
            layers.Conv2D(2 * num_filters, size, dilation_rate=self.dilation)
            for size in ((half + 1, self.kernel_size), (1, half + 1))
        )
        self.downwards = layers.Dense(2 * num_filters, use_bias=False)
        self.outwards = layers.Dense(num_filters)
        self.condition = layers.Dense(4 * num_filters, use_bias=False)

    def build(self, vertical_shape, horizontal_shape, labels_shape=None):
        # Of padded stacks, which are larger.
        self.vertical.build((None, None, None, vertical_shape[-1]))
        self.horizontal.build((None, None, None, horizontal_shape[-1]))
        hidden = (*vertical_shape[:-1], self.num_filters)
        self.downwards.build(hidden)
        self.outwards.build(hidden)
        if labels_shape is not None:
            self.condition.build(labels_shape)
        self.built = True

    def call(self, vertical, horizontal, labels=None):
        for_vertical, for_horizontal = self._conditions(labels, 2)
        reach = self.reach
        above = ops.pad(vertical, ((0, 0), (reach, 0), (reach, reach), (0, 0)))
        before = ops.pad(horizontal, ((0, 0), (0, 0), (reach, 0), (0, 0)))
        vertical = _gate(self.vertical(above) + for_vertical)
        row_above = ops.pad(vertical[:, :-1], ((0, 0), (1, 0), (0, 0), (0, 0)))
        x = self.horizontal(before) + self.downwards(row_above) + for_horizontal
        return vertical, self._add(horizontal, x)

    def _add(self, horizontal, x):
        """Return the horizontal stack with what this layer has to add; the first begins it."""
        x = self.outwards(_gate(x))
        return x + horizontal if horizontal.shape[-1] == self.num_filters else x

    def _conditions(self, labels, num_axes):
        """Return what labels (batch, classes) add to the stacks, with axes for the places."""
        if labels is None:
            return 0.0, 0.0
        condition = self.condition(labels)
        condition = ops.reshape(condition, (-1, *[1] * num_axes, 4 * self.num_filters))
        return ops.split(condition, 2, axis=-1)

    def initial_state(self, batch_size, width):
        """Return what is known above the first row: nothing, which counts as zeros."""
        vertical, horizontal = (conv.kernel.shape[2] for conv in (self.vertical, self.horizontal))
        dtype = self.compute_dtype
        return {
            "rows": ops.zeros((batch_size, self.reach, width, vertical), dtype),
            "above": ops.zeros((batch_size, width, 2 * self.num_filters), dtype),
            "before": ops.zeros((batch_size, self.reach, horizontal), dtype),
        }

    def state_at(self, stacks, vertical, row, column):
        """Return the state after a pixel of whole stacks, (vertical, horizontal), as `call` took.

        Args:
            vertical: what `call` returned.
            row, column: of the pixel.
        """
        reach = self.reach
        rows = ops.pad(stacks[0], ((0, 0), (reach, 0), (0, 0), (0, 0)))
        above = ops.pad(vertical, ((0, 0), (1, 0), (0, 0), (0, 0)))
        before = ops.pad(stacks[1], ((0, 0), (0, 0), (reach, 0), (0, 0)))
        above = _slice(above, 1, row, 1)[:, 0]
        before = _slice(_slice(before, 1, row, 1)[:, 0], 1, column + 1, reach)
        return {
            "rows": _slice(rows, 1, row, reach),
            "above": self.downwards(above),
            "before": before,
        }

    def row(self, vertical, state, labels=None):
        """Return the vertical stack (batch, width, filters) of a whole row, and the state below."""
        rows = ops.concatenate([state["rows"], vertical[:, None]], axis=1)
        padded = ops.pad(rows, ((0, 0), (0, 0), (self.reach, self.reach), (0, 0)))
        width = vertical.shape[1]
        places = [
            padded[:, i * self.dilation, j * self.dilation : j * self.dilation + width]
            for i, j in np.ndindex(self.vertical.kernel_size)
        ]
        for_vertical, _ = self._conditions(labels, 1)
        vertical = _gate(_product(places, self.vertical) + for_vertical)
        before = ops.zeros_like(state["before"])
        return vertical, {
            "rows": rows[:, 1:],
            "above": self.downwards(vertical),
            "before": before,
        }

    def pixel(self, horizontal, state, column, labels=None):
        """Return the horizontal stack (batch, filters) at a column, and the state to its right."""
        before = ops.concatenate([state["before"], horizontal[:, None]], axis=1)
        _, for_horizontal = self._conditions(labels, 0)
        above = _slice(state["above"], 1, column, 1)[:, 0]
        places = [before[:, i] for i in range(0, self.reach + 1, self.dilation)]
        x = _product(places, self.horizontal) + above + for_horizontal
        return self._add(horizontal, x), {**state, "before": before[:, 1:]}

    def compute_output_shape(self, vertical_shape, horizontal_shape, labels_shape=None):
        shape = (*vertical_shape[:-1], self.num_filters)
        return shape, shape

    def get_config(self):
        return {
            **super().get_config(),
            "num_filters": self.num_filters,
            "kernel_size": self.kernel_size,
            "dilation": self.dilation,
        }


def _product(places, convolution):
    """Return a convolution's output where its kernel sees these places, (…, channels) each.

    XLA is slow at dilated convolutions, and more so at those of one place.
    """
    x = ops.concatenate(places, axis=-1)
    kernel = ops.reshape(convolution.kernel, (x.shape[-1], -1))
    return ops.matmul(x, ops.cast(kernel, x.dtype)) + ops.cast(convolution.bias, x.dtype)


def _gate(x):
    a, b = ops.split(x, 2, axis=-1)
    return ops.tanh(a) * ops.sigmoid(b)


def _slice(x, axis, start, size):
    """Return `size` places of x from `start` on, which may be a tensor."""
    starts = [0] * len(x.shape)
    starts[axis] = start
    shape = list(x.shape)
    shape[axis] = size
    return ops.slice(x, starts, shape)


@keras.saving.register_keras_serializable(package="keras_genai")
class Quantize(layers.Layer):
    """Round pixels in [0, 1] to the nearest of so many levels, 0 and 1 among them."""

    def __init__(self, levels, **kwargs):
        super().__init__(**kwargs)
        self.levels = levels

    def call(self, x):
        return ops.round(x * (self.levels - 1)) / (self.levels - 1)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "levels": self.levels}


def pixel_nats(levels, logits):
    """Return minus the log-likelihood of each pixel, in nats (batch, height, width).

    Args:
        levels: integers (batch, height, width), the true level of each pixel.
        logits: (batch, height, width, levels).
    """
    return keras.losses.sparse_categorical_crossentropy(levels, logits, from_logits=True)


def build_pixelcnn(
    image_shape=(28, 28, 1), num_filters=32, num_layers=8, levels=2, num_classes=None
) -> "PixelCNN":
    """Build a gated PixelCNN.

        model = build_pixelcnn()
        model.compile(keras.optimizers.Adam(1e-3))
        model.fit(datasets.binarize(x))
        model.generate(16)

    Args:
        image_shape: (height, width, 1).
        num_filters: of each stack.
        num_layers: the first one sees 7 x 7 pixels, less those that come later; the others 3 x 3,
            with 1, 3, 7, 0, 1, 3, … pixels between them: eight layers see 33 rows up.
        levels: that a pixel can have: 2 for black and white (Bernoulli), up to 256.
        num_classes: if given, the model takes integer labels (batch,) as a second input.

    Returns:
        A model from images (batch, height, width, 1) in [0, 1], rounded to the levels, to the
        logits of each pixel's level, (batch, height, width, levels).

    Raises:
        ValueError: for more than one channel, a size below 1, or levels outside 2 … 256.
    """
    return PixelCNN(image_shape, num_filters, num_layers, levels, num_classes)


@keras.saving.register_keras_serializable(package="keras_genai")
class PixelCNN(OwnLoss, GenerativeImageModel):
    """The model of `build_pixelcnn`, whose arguments it has, with its own `train_step`.

    Conditional, it takes its labels in `fit(x, labels)`. Reported are `loss`, in nats per image,
    and `bits_per_dim`, the same in bits per pixel.
    """

    def __init__(
        self,
        image_shape=(28, 28, 1),
        num_filters=32,
        num_layers=8,
        levels=2,
        num_classes=None,
        name="pixelcnn",
        **kwargs,
    ):
        expected = isinstance(image_shape, (list, tuple)) and len(image_shape) == 3
        if not expected or image_shape[-1] != 1:
            raise ValueError(f"image_shape: expected (height, width, 1), got {image_shape!r}.")
        height, width, num_filters, num_layers = check_sizes(
            height=image_shape[0],
            width=image_shape[1],
            num_filters=num_filters,
            num_layers=num_layers,
        )
        levels = check_size("levels", levels, minimum=2)
        if levels > 256:
            raise ValueError(f"levels: expected at most 256, got {levels}.")

        x = keras.Input((height, width, 1), name="x")
        labels = label_input(num_classes)
        one_hot = None if labels is None else OneHot(int(num_classes))(labels)
        gated_layers = [GatedLayer(num_filters, kernel_size=7, name="layer_1")]
        for i in range(num_layers - 1):
            dilation = DILATIONS[i % len(DILATIONS)]
            gated_layers.append(GatedLayer(num_filters, 3, dilation, name=f"layer_{i + 2}"))
        hidden = layers.Dense(num_filters, activation="relu", name="hidden")
        head = layers.Dense(levels, dtype="float32", name="logits")
        vertical = Quantize(levels)(x)
        horizontal = _move_right(vertical)
        for layer in gated_layers:
            vertical, horizontal = layer(vertical, horizontal, one_hot)
        logits = head(hidden(ops.relu(horizontal)))
        super().__init__(with_labels(x, labels), logits, name=name, **kwargs)

        self.gated_layers, self.hidden, self.head = gated_layers, hidden, head
        self.height, self.width, self.levels = height, width, levels
        self.num_classes = num_classes
        self.settings = {
            "image_shape": (height, width, 1),
            "num_filters": num_filters,
            "num_layers": num_layers,
            "levels": levels,
            "num_classes": num_classes,
        }
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.bits_tracker = keras.metrics.Mean(name="bits_per_dim")

    @property
    def metrics(self):
        return [self.loss_tracker, self.bits_tracker]

    @property
    def vocab_size(self) -> int:
        return self.levels

    @property
    def context_length(self) -> int:
        """Tokens of an image: one that begins it, whatever it is, and its pixels."""
        return 1 + self.height * self.width

    def batch_loss(self, data, training):
        x, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x = ops.cast(x, keras.config.floatx())
        nats = pixel_nats(self._levels_of(x), self(with_labels(x, labels), training=training))
        nats = ops.sum(nats, axis=(1, 2))  # (batch,)
        self.bits_tracker.update_state(nats / (self.height * self.width * np.log(2)), sample_weight)
        return self.average(nats, sample_weight)

    def _levels_of(self, x):
        """Return the levels (batch, height, width), integers, of images in [0, 1]."""
        return ops.cast(ops.round(x[..., 0] * (self.levels - 1)), "int32")

    def log_prob(self, x, labels=None):
        """Return the log-likelihood of images, exactly.

        Args:
            x: (n, height, width, 1) in [0, 1], rounded to the levels.
            labels: an integer or integers (n,) if the model is conditional, else None.

        Returns:
            (images, pixels), in nats: log p(x) (n,), and the part of each pixel, given those before
            it, (n, height, width).
        """
        self.check_data(x, labels)
        x, labels = np.asarray(x, "float32"), check_labels(labels, self.num_classes, len(x))
        pixels = []
        for start in range(0, len(x), 100):  # the logits of all would take levels times the memory
            part = slice(start, start + 100)
            logits = self.predict_on_batch(
                with_labels(x[part], None if labels is None else labels[part])
            )
            pixels.append(-np.asarray(pixel_nats(self._levels_of(x[part]), logits)))
        pixels = np.concatenate(pixels)
        return pixels.sum(axis=(1, 2), dtype="float64"), pixels

    def generate(self, num_samples=1, labels=None, seed=None, given=None, sampler=Sampler()):
        """Draw images pixel after pixel, or complete images whose upper rows are given.

        Args:
            num_samples: how many, n.
            labels: an integer or integers (n,) if the model is conditional, else None.
            seed: the same seed gives the same images; training is not touched.
            given: upper rows, (n, rows, width, 1) in [0, 1], or (rows, width, 1) for all samples.
            sampler: as `autoregressive.generate` takes it.

        Returns:
            Images (n, height, width, 1) in [0, 1].

        Raises:
            ValueError: for labels or rows that do not suit the model.
        """
        num_samples = check_size("num_samples", num_samples)
        labels = check_labels(labels, self.num_classes, num_samples)
        prompt = np.zeros((num_samples, 1), "int32")
        if given is not None:
            prompt = np.concatenate([prompt, self._given_tokens(given, num_samples)], axis=1)
        tokens = autoregressive.generate(
            self, prompt, self.context_length - prompt.shape[1], sampler, seed, conditioning=labels
        )
        images = tokens[:, 1:].reshape(num_samples, *self.image_shape)
        return (images / (self.levels - 1)).astype("float32")

    def _given_tokens(self, given, num_samples):
        given = np.asarray(given)
        if given.ndim == 3:
            given = np.repeat(given[None], num_samples, axis=0)
        rows = given.shape[1] if given.ndim == 4 else 0
        if given.shape != (num_samples, rows, self.width, 1) or not 0 < rows < self.height:
            raise ValueError(
                f"given: expected upper rows, ({num_samples}, 1 to {self.height - 1}, "
                f"{self.width}, 1), got shape {given.shape}."
            )
        check_images("given", given, given.shape[1:])
        return np.asarray(self._levels_of(given.astype("float32"))).reshape(num_samples, -1)

    def initial_state(self, batch_size, max_length=None, conditioning=None):
        """Return the pixels that are known, none, and what each layer needs of those above.

        Args:
            batch_size, max_length: as in `autoregressive`; there is always room for a whole image.
            conditioning: labels (batch_size,) if the model is conditional.
        """
        labels = None
        if self.num_classes is not None:
            labels = ops.one_hot(conditioning, self.num_classes, dtype=self.compute_dtype)
        return {
            "tokens": ops.zeros((batch_size, self.context_length), "int32"),
            "layers": [layer.initial_state(batch_size, self.width) for layer in self.gated_layers],
            **({} if labels is None else {"labels": labels}),
        }

    def step(self, tokens, state, position, length=None):
        """Read tokens (batch, n), the first of which stands for no pixel; see `autoregressive`.

        One is read with the help of the rows and pixels before it, which the state has: the
        vertical stack once a row. Several are read by the whole network at once.
        """
        state = {
            **state,
            "tokens": ops.slice_update(state["tokens"], [0, position], tokens),
        }
        if tokens.shape[1] == 1:
            return self._read_one(state, position)
        return self._read_many(state, position, tokens.shape[1], length)

    def _read_one(self, state, position):
        labels = state.get("labels")
        row, column = position // self.width, position % self.width

        def next_row(_, layer_states):
            """Read the row that has just become whole."""
            pixels = _slice(state["tokens"], 1, 1 + (row - 1) * self.width, self.width)
            vertical, new_states = self._pixels(pixels), []
            for layer, old in zip(self.gated_layers, layer_states):
                vertical, new = layer.row(vertical, old, labels)
                new_states.append(new)
            return tf.constant(False), new_states

        # Once or never. Where a condition would copy the rows for each pixel, a loop leaves them.
        begins = (column == 0) & (row > 0)
        loop = tf.while_loop(lambda begins, _: begins, next_row, (begins, state["layers"]))
        layer_states = loop[1]
        before = self._pixels(_slice(state["tokens"], 1, position, 1)[:, 0])
        horizontal = ops.where(column > 0, before, 0.0)  # nothing stands before a row
        new_states = []
        for layer, old in zip(self.gated_layers, layer_states):
            horizontal, new = layer.pixel(horizontal, old, column, labels)
            new_states.append(new)
        return self._logits(horizontal)[:, None], {**state, "layers": new_states}

    def _read_many(self, state, position, count, length):
        # The pixel that the last token's logits are of; after the last pixel of all, there is none.
        last = position + (count if length is None else length) - 1
        last = ops.minimum(last, self.height * self.width - 1)
        row, column = last // self.width, last % self.width
        labels = state.get("labels")
        image = self._pixels(state["tokens"][:, 1:])
        vertical = ops.reshape(image, (-1, *self.image_shape))
        horizontal, new_states = _move_right(vertical), []
        for layer in self.gated_layers:
            stacks = vertical, horizontal
            vertical, horizontal = layer(*stacks, labels)
            new_states.append(layer.state_at(stacks, vertical, row, column))
        logits = ops.reshape(self._logits(horizontal), (-1, self.height * self.width, self.levels))
        # No pixel follows the last one; its token has logits all the same.
        logits = ops.pad(logits, ((0, 0), (0, 1), (0, 0)))
        return _slice(logits, 1, position, count), {**state, "layers": new_states}

    def _logits(self, horizontal):
        return self.head(self.hidden(ops.relu(horizontal)))

    def _pixels(self, levels):
        """Return integer levels (…) as pixels (…, 1) in [0, 1]."""
        return ops.cast(levels, self.compute_dtype)[..., None] / (self.levels - 1)

    def get_config(self):
        return {"name": self.name, **self.settings}


def _move_right(image):
    """Return images (batch, height, width, 1) with each row moved by a pixel, 0 in front."""
    return ops.pad(image[:, :, :-1], ((0, 0), (0, 0), (1, 0), (0, 0)))
