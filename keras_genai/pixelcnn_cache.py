"""Cached steps of the gated PixelCNN: one row or one pixel, without the rest of the image.

`pixelcnn` defines the two stacks by convolutions of whole images. To generate an image pixel by
pixel, the functions below compute the vertical stack once per row (`step_row`) and the horizontal
stack once per pixel (`step_pixel`). They take a `GatedPixelCNNLayer` or a `PixelCNN` as their first
argument.

The cache of a layer at pixel (row, column) is a dict of the inputs that its kernels cover, where
p = layer.padding:

    rows_above           (batch, p, width, channels)      vertical input, rows row - p … row - 1
    vertical_projection  (batch, width, 2 * num_filters)  vertical output of row - 1 after
                                                          `layer.vertical_to_horizontal`
    pixels_left          (batch, p, channels)             horizontal input, columns
                                                          column - p … column - 1 of the row

The tokens of an image are a start token, which stands for no pixel, and its pixels in raster order:
the token at position t > 0 is pixel t - 1, and its logits are those of pixel t. The last token, at
position height * width, has no pixel to predict.
"""

import numpy as np
import tensorflow as tf
from keras import ops


def initial_cache(layer, batch_size, width):
    """Return the cache of a layer at the first pixel: zeros, like the padding of the image."""
    vertical_channels = layer.vertical_conv.kernel.shape[2]
    horizontal_channels = layer.horizontal_conv.kernel.shape[2]
    dtype = layer.compute_dtype
    return {
        "rows_above": ops.zeros((batch_size, layer.padding, width, vertical_channels), dtype),
        "vertical_projection": ops.zeros((batch_size, width, 2 * layer.num_filters), dtype),
        "pixels_left": ops.zeros((batch_size, layer.padding, horizontal_channels), dtype),
    }


def cache_after(layer, vstack, hstack, next_vstack, row, column):
    """Return the cache of a layer after pixel (row, column), from the stacks of a whole image.

    Args:
        layer: `GatedPixelCNNLayer`.
        vstack: Float tensor `(batch, height, width, channels)`. Vertical input of the layer.
        hstack: Float tensor `(batch, height, width, channels)`. Horizontal input of the layer.
        next_vstack: Float tensor `(batch, height, width, num_filters)`. Vertical output.
        row: Int or int tensor.
        column: Int or int tensor.
    """
    padding = layer.padding
    rows = ops.pad(vstack, ((0, 0), (padding, 0), (0, 0), (0, 0)))
    next_rows = ops.pad(next_vstack, ((0, 0), (1, 0), (0, 0), (0, 0)))
    pixels = ops.pad(hstack, ((0, 0), (0, 0), (padding, 0), (0, 0)))
    row_above = slice_axis(next_rows, 1, row, 1)[:, 0]
    pixels = slice_axis(pixels, 1, row, 1)[:, 0]
    return {
        "rows_above": slice_axis(rows, 1, row, padding),
        "vertical_projection": layer.vertical_to_horizontal(row_above),
        "pixels_left": slice_axis(pixels, 1, column + 1, padding),
    }


def step_row(layer, vstack, cache, labels=None):
    """Compute the vertical stack of one row.

    Args:
        layer: `GatedPixelCNNLayer`.
        vstack: Float tensor `(batch, width, channels)`. Vertical input of the row.
        cache: Cache of the layer in this row.
        labels: One-hot labels `(batch, num_classes)` or `None`.

    Returns:
        The vertical output of the row, `(batch, width, num_filters)`, and the cache of the layer at
        the first pixel of the next row.
    """
    rows = ops.concatenate([cache["rows_above"], vstack[:, None]], axis=1)
    padded = ops.pad(rows, ((0, 0), (0, 0), (layer.padding, layer.padding), (0, 0)))
    width, dilation_rate = vstack.shape[1], layer.dilation_rate
    patches = [
        padded[:, i * dilation_rate, j * dilation_rate : j * dilation_rate + width]
        for i, j in np.ndindex(layer.vertical_conv.kernel_size)
    ]
    vertical_bias, _ = layer.project_labels(labels, num_spatial_axes=1)
    vstack = layer.gate(conv_as_matmul(patches, layer.vertical_conv) + vertical_bias)
    return vstack, {
        "rows_above": rows[:, 1:],
        "vertical_projection": layer.vertical_to_horizontal(vstack),
        "pixels_left": ops.zeros_like(cache["pixels_left"]),
    }


def step_pixel(layer, hstack, cache, column, labels=None):
    """Compute the horizontal stack of one pixel.

    Args:
        layer: `GatedPixelCNNLayer`.
        hstack: Float tensor `(batch, channels)`. Horizontal input of the pixel.
        cache: Cache of the layer at this pixel.
        column: Int or int tensor. Column of the pixel.
        labels: One-hot labels `(batch, num_classes)` or `None`.

    Returns:
        The horizontal output of the pixel, `(batch, num_filters)`, and the cache of the layer at
        the pixel to its right.
    """
    pixels = ops.concatenate([cache["pixels_left"], hstack[:, None]], axis=1)
    patches = [pixels[:, j] for j in range(0, layer.padding + 1, layer.dilation_rate)]
    vertical_projection = slice_axis(cache["vertical_projection"], 1, column, 1)[:, 0]
    _, horizontal_bias = layer.project_labels(labels, num_spatial_axes=0)
    x = conv_as_matmul(patches, layer.horizontal_conv) + vertical_projection + horizontal_bias
    return layer.add_residual(hstack, layer.gate(x)), {**cache, "pixels_left": pixels[:, 1:]}


def conv_as_matmul(patches, conv):
    """Return the output of a convolution as one matrix product (im2col).

    XLA on a CPU is slow at dilated convolutions, and slowest at those of a single position.

    Args:
        patches: List of float tensors `(…, channels)`, the inputs at each kernel position, in
            row-major order.
        conv: `keras.layers.Conv2D`.

    Returns:
        A float tensor `(…, filters)`.
    """
    x = ops.concatenate(patches, axis=-1)
    kernel = ops.reshape(conv.kernel, (x.shape[-1], -1))
    return ops.matmul(x, ops.cast(kernel, x.dtype)) + ops.cast(conv.bias, x.dtype)


def slice_axis(x, axis, start, size):
    """Return x[start : start + size] along an axis; `start` may be a tensor."""
    starts = [0] * len(x.shape)
    starts[axis] = start
    shape = list(x.shape)
    shape[axis] = size
    return ops.slice(x, starts, shape)


def initial_state(model, batch_size, conditioning=None):
    """Return the state of a `PixelCNN` before the first token.

    Args:
        model: `PixelCNN`.
        batch_size: Int. Number of images.
        conditioning: Int tensor `(batch_size,)`, labels of a conditional model, or `None`.

    Returns:
        A dict: `tokens` `(batch_size, 1 + height * width)`, the tokens so far; `caches`, one for
        each layer; and `labels`, one-hot, if the model is conditional.
    """
    state = {
        "tokens": ops.zeros((batch_size, model.context_length), "int32"),
        "caches": [initial_cache(layer, batch_size, model.width) for layer in model.gated_layers],
    }
    if model.num_classes is not None:
        state["labels"] = ops.one_hot(conditioning, model.num_classes, dtype=model.compute_dtype)
    return state


def step(model, tokens, state, position, length=None):
    """Return the logits after tokens `(batch, n)` and the new state.

    A single token is processed from the caches, a block of tokens by the whole network at once.
    Arguments are those of `autoregressive.AutoregressiveModel.step`.
    """
    state = {**state, "tokens": ops.slice_update(state["tokens"], [0, position], tokens)}
    num_tokens = tokens.shape[1]
    if num_tokens == 1:
        return step_token(model, state, position)
    return step_block(model, state, position, num_tokens, length)


def step_token(model, state, position):
    """Return the logits `(batch, 1, num_levels)` after the token at `position`, and the state."""
    labels = state.get("labels")
    row, column = position // model.width, position % model.width

    def process_completed_row(_, caches):
        """Compute the vertical stack of the row above, whose last pixel is the current token."""
        levels = slice_axis(state["tokens"], 1, 1 + (row - 1) * model.width, model.width)
        vstack, new_caches = model.to_pixels(levels), []
        for layer, cache in zip(model.gated_layers, caches, strict=True):
            vstack, new_cache = step_row(layer, vstack, cache, labels)
            new_caches.append(new_cache)
        return tf.constant(False), new_caches

    # A while loop of at most one iteration instead of a conditional, for which XLA would copy the
    # caches at every pixel.
    row_completed = (column == 0) & (row > 0)
    _, caches = tf.while_loop(
        lambda pending, _: pending, process_completed_row, (row_completed, state["caches"])
    )
    pixel = model.to_pixels(slice_axis(state["tokens"], 1, position, 1)[:, 0])
    hstack, new_caches = ops.where(column > 0, pixel, 0.0), []  # shifted right: 0 starts a row
    for layer, cache in zip(model.gated_layers, caches, strict=True):
        hstack, new_cache = step_pixel(layer, hstack, cache, column, labels)
        new_caches.append(new_cache)
    return model.compute_logits(hstack)[:, None], {**state, "caches": new_caches}


def step_block(model, state, position, num_tokens, length=None):
    """Return the logits `(batch, num_tokens, num_levels)` from `position` on, and the state.

    If `length` is given, tokens from position + length on are padding.
    """
    last = position + (num_tokens if length is None else length) - 1
    last = ops.minimum(last, model.height * model.width - 1)  # no pixel follows the last one
    row, column = last // model.width, last % model.width
    labels = state.get("labels")
    pixels = model.to_pixels(state["tokens"][:, 1:])
    vstack, hstack = model.input_stacks(ops.reshape(pixels, (-1, *model.image_shape)))
    caches = []
    for layer in model.gated_layers:
        next_vstack, next_hstack = layer(vstack, hstack, labels)
        caches.append(cache_after(layer, vstack, hstack, next_vstack, row, column))
        vstack, hstack = next_vstack, next_hstack
    logits = model.compute_logits(hstack)
    logits = ops.reshape(logits, (-1, model.height * model.width, model.num_levels))
    logits = ops.pad(logits, ((0, 0), (0, 1), (0, 0)))  # of the last token
    return slice_axis(logits, 1, position, num_tokens), {**state, "caches": caches}
