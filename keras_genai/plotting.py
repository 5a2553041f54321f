"""Figures of images, sounds, training histories, latent spaces, forecasts, gates and attention.

Every function returns a matplotlib `Figure` without displaying it; none needs a display.
"""

import math
import warnings

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import EngFormatter

from keras_genai.datasets import data_path
from keras_genai.latent_editing import interpolate_latents
from keras_genai.validation import (
    as_array,
    as_numbers,
    check_dict,
    check_images,
    check_methods,
    check_number,
    check_size,
    check_strings,
    check_type,
)

# One color per model, the same in all figures: the palette of Okabe & Ito 2008, which is safe for
# color-blind readers, and three colors at least as far from these as these are from each other.
COLORS = {
    "data": "#000000",
    "VAE": "#0072B2",
    "GAN": "#E69F00",
    "Transformer": "#009E73",
    "GPT-2": "#00563F",
    "RNN": "#56B4E9",
    "LSTM": "#D55E00",
    "PixelCNN": "#CC79A7",
    "WaveNet": "#771100",
    "diffusion": "#8833EE",
}

LABEL_WIDTH = 0.075  # inches per character of a row's label
MAX_PIXEL = 10  # noisy images of a diffusion process exceed [0, 1], but not this limit
MAX_CELLS = 500  # rows or columns of a figure


def plot_images(
    images, columns: int | None = None, titles=None, image_shape=None, row_labels=None
) -> Figure:
    """Plot images in a grid, row by row.

    Args:
        images: Array `(n, features)`, `(n, height, width)` or `(n, height, width, channels)`, in
            [0, 1], or integers from 0 to 255.
        columns: Int or `None`. Number of columns; `None` makes the grid square. Defaults to `None`.
        titles: List of n strings above the images, or `None`. Defaults to `None`.
        image_shape: Tuple of ints, `(height, width)` or `(height, width, channels)`, of images
            `(n, features)`, or `None` for square images. A number of features that is also that of
            a 16:9 image, such as 144, causes a warning. Defaults to `None`.
        row_labels: List of strings to the left of all rows, or `None`. Defaults to `None`.

    Raises:
        ValueError: for images of another shape or range, and another number of titles or labels.
    """
    images = _to_image_batch(images, image_shape)
    if titles is not None:
        titles = check_strings("titles", titles, len(images))
    columns = math.ceil(math.sqrt(len(images))) if columns is None else columns
    columns = check_size("columns", columns, maximum=MAX_CELLS)
    rows = math.ceil(len(images) / columns)
    cell_width, cell_height = 0.8, 0.8 if titles is None else 1.0  # inches
    row_labels = [] if row_labels is None else check_strings("row_labels", row_labels, rows)
    longest = max((len(line) for label in row_labels for line in label.split("\n")), default=0)
    margin = 0.1 + LABEL_WIDTH * longest if row_labels else 0  # inches
    width, height = margin + cell_width * columns, cell_height * rows
    figure = Figure(figsize=(width, height))
    # One Axes in inches for all images: one Axes per image would take a second to render.
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-margin, cell_width * columns), ylim=(height, 0))
    axes.axis("off")
    for row, label in enumerate(row_labels):
        middle = (row + 1) * cell_height - 0.4
        axes.text(-0.06, middle, label, fontsize=9, ha="right", va="center")
    pixel_size = 0.76 / max(images.shape[1:3])  # inches
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        center = (column + 0.5) * cell_width
        left = center - 0.5 * pixel_size * image.shape[1]
        right = center + 0.5 * pixel_size * image.shape[1]
        bottom = (row + 1) * cell_height - 0.02
        top = bottom - pixel_size * image.shape[0]
        extent = (left, right, bottom, top)
        axes.imshow(image, "gray", vmin=0, vmax=1, extent=extent, interpolation="nearest")
        if titles is not None:
            axes.text(center, top - 0.03, titles[i], fontsize=8, ha="center")
    return figure


def _to_image_batch(images, image_shape=None) -> np.ndarray:
    """Return images as an array `(n, height, width, channels)`, 8-bit images in [0, 1]."""
    images = as_array("images", images)
    if image_shape is not None:
        sizes = image_shape if isinstance(image_shape, (list, tuple)) else ()
        if len(sizes) not in (2, 3):
            raise ValueError(f"image_shape: expected (height, width), got {image_shape!r:.200}.")
        image_shape = [check_size("image_shape", size) for size in sizes]
        shapes = (tuple(image_shape), (math.prod(image_shape),))
        if images.ndim < 2 or images.shape[1:] not in shapes:
            raise ValueError(f"image_shape: expected that of the images, got {sizes}.")
        images = images.reshape(len(images), *image_shape)
    elif images.ndim == 2 and images.size and math.isqrt(images.shape[1]) ** 2 == images.shape[1]:
        side = math.isqrt(images.shape[1])
        if side and side % 12 == 0:  # 16:9 is the common format that has as many pixels
            warnings.warn(
                f"images: {images.shape[1]} pixels are plotted as {side} × {side}; "
                f"for {side * 3 // 4} × {side * 4 // 3}, pass image_shape.",
                stacklevel=3,
            )
        images = images.reshape(-1, side, side)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.size == 0 or images.shape[-1] not in (1, 3, 4):
        raise ValueError(
            "images: expected at least one, (n, features) of a square, (n, height, width) or "
            f"(n, height, width, channels), got {images.shape}."
        )
    if images.dtype.kind not in "fiub":
        raise ValueError(f"images: expected numbers, got an array of {images.dtype}.")
    integers = images.dtype.kind in "iu"
    low, high = (0, 255) if integers else (-MAX_PIXEL, MAX_PIXEL)
    if not (images.min() >= low and images.max() <= high):  # NaN compares false
        raise ValueError(
            "images: expected pixels in [0, 1] or integers from 0 to 255, got values from "
            f"{images.min()} to {images.max()}."
        )
    # Integers 0 and 1 are black and white.
    return images / 255 if integers and images.max(initial=0) > 1 else images


def plot_pixel_nll(images, nll) -> Figure:
    """Plot images, and below each one a map of the negative log-likelihood of its pixels.

    Args:
        images: Array `(n, height, width, 1)` in [0, 1].
        nll: Array `(n, height, width)`. Negative log-likelihood of each pixel in nats.

    Raises:
        ValueError: if the number of maps is not that of the images.
    """
    images = _to_image_batch(images)
    nll = as_numbers("nll", nll, images.shape[:3])
    figure = Figure(figsize=(1.2 * len(images) + 1, 2.6), layout="constrained")
    rows = figure.subplots(2, len(images), squeeze=False)
    for image, pixel_nll, upper, lower in zip(images, nll, *rows, strict=True):
        upper.imshow(image, cmap="gray", vmin=0, vmax=1)
        nll_map = lower.imshow(pixel_nll, cmap="magma", vmin=0, vmax=np.max(nll))
        lower.set_title(f"{pixel_nll.sum():.0f} nats", fontsize=9)
        for axes in (upper, lower):
            axes.axis("off")
    figure.colorbar(nll_map, ax=rows[1, :], pad=0.1 / rows.shape[1], label="nats")
    return figure


def plot_sounds(waveforms, sample_rate: int, titles, color="black") -> Figure:
    """Plot the waveform of each sound, and below it the spectrogram, on the same scales.

    Args:
        waveforms: Array `(n, samples)` in [-1, 1], or a list of arrays of any lengths.
        sample_rate: Int. Samples per second.
        titles: List of n strings above the sounds.
        color: Color of the waveforms, such as `COLORS["WaveNet"]` for generated sounds. Defaults to
            `"black"`.

    Raises:
        ValueError: for invalid sounds, sample rate or color, or another number of titles.
    """
    if not isinstance(waveforms, (list, tuple, np.ndarray)):
        raise ValueError(f"waveforms: expected a list of arrays, got {waveforms!r:.200}.")
    waveforms = [as_numbers("waveforms", waveform, (None,)) for waveform in list(waveforms)]
    if not waveforms or not all(map(len, waveforms)):
        raise ValueError("waveforms: expected at least one sound of at least one sample.")
    titles = check_strings("titles", titles, len(waveforms))
    sample_rate = check_size("sample_rate", sample_rate)
    _check_color(color)
    figure = Figure(figsize=(2.4 * len(waveforms) + 0.6, 3.6), layout="constrained")
    rows = figure.subplots(2, len(waveforms), squeeze=False, sharex=True, sharey="row")
    seconds = max(map(len, waveforms)) / sample_rate
    window = max(16, round(0.032 * sample_rate))  # 32 ms
    cmap = colormaps["viridis"]
    cmap = cmap.with_extremes(bad=cmap(0))  # digital silence is -inf dB, a masked value
    for waveform, title, upper, lower in zip(waveforms, titles, *rows, strict=True):
        upper.plot(np.arange(len(waveform)) / sample_rate, waveform, linewidth=0.5, color=color)
        upper.set(title=title, xlim=(0, seconds), ylim=(-1, 1))
        # `specgram` needs more samples than one window. Its magnitude of a sine is half the
        # amplitude: with the factor of 2, a sine of full scale has 0 dB.
        padded = 2 * np.pad(waveform, (0, max(0, window + 1 - len(waveform))))
        with np.errstate(divide="ignore"):
            *_, spectrogram = lower.specgram(
                padded, NFFT=window, noverlap=window // 2, Fs=sample_rate, mode="magnitude",
                cmap=cmap, vmin=-80, vmax=0,
            )  # fmt: skip
        lower.set(xlabel="seconds", xlim=(0, seconds), ylim=(0, sample_rate / 2))
    rows[0, 0].set_ylabel("amplitude")
    rows[1, 0].set_ylabel("frequency")
    rows[1, 0].yaxis.set_major_formatter(EngFormatter(unit="Hz"))
    figure.colorbar(spectrogram, ax=rows[1, :], pad=0.1 / rows.shape[1], label="dB of full scale")
    return figure


def _check_color(color) -> None:
    try:
        to_rgba(color)
    except (ValueError, TypeError) as error:
        raise ValueError(f"color: expected a color of matplotlib, got {color!r:.200}.") from error


def plot_history(history, color="black", unit: str | None = None) -> Figure:
    """Plot each metric of a training history over the epochs, with dashed validation values.

    Args:
        history: `keras.callbacks.History`, or a dict of metric names to one value per epoch.
        color: Color of the lines, such as `COLORS["VAE"]`. Defaults to `"black"`.
        unit: String or `None`. Unit of all metrics, on the y-axis of the first. Defaults to `None`.

    Raises:
        ValueError: if there is no metric, and for values that are not numbers.
    """
    history = getattr(history, "history", history)
    check_dict("history", history)
    history = {name: as_array(f"history: {name}", values) for name, values in history.items()}
    for name, values in history.items():
        if values.ndim != 1 or values.dtype.kind not in "fiub":
            raise ValueError(f"history: {name}: expected numbers, one per epoch, got {values!r}.")
    _check_color(color)
    if unit is not None:
        check_type("unit", unit, str)
    names = [name for name in history if not name.startswith("val_")]
    if not names:
        raise ValueError("history: expected at least one metric, got none.")
    figure = Figure(figsize=(3.2 * len(names), 2.8), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False).flat, names, strict=True):
        for key, label, style in ((name, "training", "-"), (f"val_{name}", "validation", "--")):
            if key in history:
                epochs = np.arange(1, len(history[key]) + 1)
                marker = "." if len(epochs) < 30 else None
                axes.plot(epochs, history[key], style, color=color, label=label, marker=marker)
        axes.set(title=name.replace("_", " "), xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        if f"val_{name}" in history:
            axes.legend()
    figure.axes[0].set_ylabel(unit or "")
    return figure


def plot_latent_space(vae, x=None, labels=None, size: int = 20, extent: float = 2.5) -> Figure:
    """Plot the latent space of a VAE: the decoded manifold, and the encodings of images.

    Args:
        vae: `VAE` without classes and with at least two latent dimensions. The first two are
            plotted; the others are zero in the manifold.
        x: Array of images `(n, features)` in [0, 1] to encode, or `None` for the manifold alone.
            Defaults to `None`.
        labels: Int array `(n,)` or `None`. Labels that color the encodings; each label is also
            printed at the median of its encodings. Defaults to `None`.
        size: Int. Number of images along each side of the manifold. Defaults to `20`.
        extent: Float. Range of the manifold, from -extent to extent, in standard deviations of the
            prior. Defaults to `2.5`.

    Raises:
        ValueError: if the VAE has fewer than two latent dimensions, or classes; for a size or
            extent out of range, and for another number of labels.
    """
    check_methods("vae", vae, "a VAE", "encode", "decode", "latent_dim", "image_shape")
    if vae.latent_dim < 2 or vae.num_classes is not None:
        raise ValueError(
            "vae: expected at least two latent dimensions and no classes, "
            f"got latent_dim {vae.latent_dim} and num_classes {vae.num_classes}."
        )
    size = check_size("size", size, maximum=MAX_CELLS)
    extent = float(check_number("extent", extent, maximum=1e6, above=0))
    if x is not None:
        check_images("x", x, vae.image_shape)
    if labels is not None:
        labels = as_numbers("labels", labels, (None if x is None else len(x),))
    axis = np.linspace(-extent, extent, size, dtype="float32")
    z = np.zeros((size * size, vae.latent_dim), "float32")
    z[:, 0], z[:, 1] = np.tile(axis, size), np.repeat(axis[::-1], size)  # z_2 increases upward
    images = _to_image_batch(vae.decode(z))
    height, width, channels = images.shape[1:]
    manifold = images.reshape(size, size, height, width, channels).swapaxes(1, 2)
    manifold = manifold.reshape(size * height, size * width, channels)

    panels = 1 if x is None else 2
    figure = Figure(figsize=(5.5 * panels, 5), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    axes[0].imshow(manifold, cmap="gray", vmin=0, vmax=1, extent=(-extent, extent) * 2)
    axes[0].set(title="decoded", xlabel="$z_1$", ylabel="$z_2$")
    if x is not None:
        z_mean, _ = vae.encode(x)
        axes[1].scatter(z_mean[:, 0], z_mean[:, 1], c=labels, s=2, cmap="tab10")
        axes[1].set(title="encoded (mean)", xlabel="$z_1$", ylabel="$z_2$", aspect="equal")
        # Ten colors are hard to match to a legend.
        for label in [] if labels is None else np.unique(labels):
            median = np.median(z_mean[np.equal(labels, label), :2], axis=0)
            axes[1].text(*median, label, weight="bold", backgroundcolor=(1, 1, 1, 0.7))
    return figure


def plot_interpolation(vae, start, end, steps: int = 10, labels=None) -> Figure:
    """Plot the decoded points of a straight line between the encodings of two images.

    Args:
        vae: `VAE`.
        start: Array `(features,)` or `(n, features)` in [0, 1]. First image of each of n rows.
        end: Array of the same shape. Last image of each row.
        steps: Int. Number of images in a row, with the reconstructions of both ends; at least 2.
            Defaults to `10`.
        labels: Int or int array `(n,)` for a conditional VAE, else `None`. Defaults to `None`.

    Raises:
        ValueError: if start and end have different shapes, or for fewer than two steps.
    """
    check_methods("vae", vae, "a VAE", "encode", "decode", "latent_dim", "image_shape")
    steps = check_size("steps", steps, 2, MAX_CELLS)
    start, end = (np.atleast_2d(as_array(*x)) for x in (("start", start), ("end", end)))
    check_images("start", start, vae.image_shape)
    if start.shape != end.shape:
        raise ValueError(f"end: expected shape {start.shape}, that of start, got {end.shape}.")
    check_images("end", end, vae.image_shape)
    z_start, z_end = vae.encode(start, labels)[0], vae.encode(end, labels)[0]  # (n, latent_dim)
    z = interpolate_latents(z_start, z_end, steps)  # (n, steps, latent_dim)
    if labels is not None:
        labels = np.repeat(np.broadcast_to(labels, len(start)), steps)
    return plot_images(vae.decode(z.reshape(-1, z.shape[-1]), labels), columns=steps)


def plot_forecasts(series, forecast_start: int, forecasts: dict) -> Figure:
    """Plot forecasts of the end of a series, with the observed values.

    Args:
        series: Float array `(n,)`. Observed values.
        forecast_start: Int. Index of the first value of the forecasts.
        forecasts: Dict of names to forecasts `(n - forecast_start,)`. Names in `COLORS` have their
            color.

    Raises:
        ValueError: for invalid numbers, and if a forecast has another length.
    """
    series = as_numbers("series", series, (None,))
    forecast_start = check_size("forecast_start of series", forecast_start, 0, len(series) - 1)
    check_dict("forecasts", forecasts)
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    axes = figure.subplots()
    time = np.arange(len(series))
    horizon = len(series) - forecast_start
    start = max(0, forecast_start - horizon // 2)
    axes.plot(time[start:], series[start:], color="black", linewidth=1, label="observed")
    for name, forecast in forecasts.items():
        forecast = as_numbers(f"forecasts: {name}", forecast, (None,))
        if len(forecast) != horizon:
            raise ValueError(
                f"forecasts: {name}: expected {horizon} values, those from forecast_start on, "
                f"got {len(forecast)}."
            )
        axes.plot(time[forecast_start:], forecast, linewidth=1, color=COLORS.get(name), label=name)
    axes.axvline(forecast_start, color="gray", linestyle=":")
    axes.legend()
    return figure


def plot_gates(text, gates: dict, max_units: int = 24) -> Figure:
    """Plot the gates and the cell state of an LSTM over a text, one column per character.

    Each row is a unit, and the units are the same in all panels: from the slowest cell state at the
    top to the fastest at the bottom. Bright gates are open. The cell state is plotted as its tanh,
    the input of the output gate: red below 0, blue above 0.

    Args:
        text: String of n characters.
        gates: Dict from `rnn.lstm_gates`: `"input"`, `"forget"`, `"output"` and `"cell"`, each
            `(n, units)`.
        max_units: Int. Maximum number of units, evenly spaced from the slowest to the fastest.
            Defaults to `24`.

    Raises:
        ValueError: if the lengths of text and gates differ, or for fewer than one unit.
    """
    check_type("text", text, str)
    check_dict("gates", gates, "cell")
    gates = {name: as_numbers("gates", values, (None, None)) for name, values in gates.items()}
    if len({values.shape for values in gates.values()}) != 1 or not gates["cell"].size:
        raise ValueError("gates: expected arrays (n, units) of one shape, got others.")
    if len(gates["cell"]) != len(text):
        raise ValueError(f"text: expected {len(gates['cell'])} characters, got {len(text)}.")
    panels = {**gates, "cell": np.tanh(gates["cell"])}
    changes = np.abs(np.diff(panels["cell"], axis=0)).sum(axis=0)  # total variation of each unit
    num_units = min(check_size("max_units", max_units), len(changes))
    ranks = np.linspace(0, len(changes) - 1, num_units).round().astype(int)
    units = np.argsort(changes)[ranks]
    figure = Figure(figsize=(0.16 * len(text) + 1, 1.8 * len(panels)), layout="constrained")
    for axes, (name, values) in zip(figure.subplots(len(panels), 1), panels.items(), strict=True):
        vmin, cmap = (-1, "RdBu") if name == "cell" else (0, "viridis")
        axes.imshow(values[:, units].T, vmin=vmin, vmax=1, cmap=cmap, aspect="auto")
        axes.set(ylabel=name, yticks=[], xticks=range(len(text)), xticklabels=list(text))
        axes.tick_params(length=0)
    return figure


def plot_attention(attention_maps: dict, layer: int = -1, head: int | None = None) -> Figure:
    """Plot the cross-attention of a translation: one row per target token, one column per source.

    Args:
        attention_maps: Dict from `attention_maps` of a translation model: `"source"` (m strings),
            `"target"` (n strings) and `"weights"` `(num_layers, num_heads, n, m)`.
        layer: Int. Index of the decoder layer. Defaults to `-1`, the last.
        head: Int or `None`. Index of the head; `None` plots the mean over all heads. Defaults to
            `None`.

    Raises:
        ValueError: for another dict, and for an index out of range.
    """
    check_dict("attention_maps", attention_maps, "source", "target", "weights")
    shape = (None, None, len(attention_maps["target"]), len(attention_maps["source"]))
    weights = as_numbers("attention_maps", attention_maps["weights"], shape)
    num_layers, num_heads = weights.shape[:2]
    layer = check_size("layer", layer, -num_layers, num_layers - 1)
    head = None if head is None else check_size("head", head, -num_heads, num_heads - 1)
    weights = weights[layer].mean(axis=0) if head is None else weights[layer, head]
    height, width = weights.shape
    figure = Figure(figsize=(0.35 * width + 2.5, 0.35 * height + 1.5), layout="constrained")
    axes = figure.subplots()
    heat_map = axes.imshow(weights, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    figure.colorbar(heat_map, label="attention weight")
    axes.set(xlabel="source token", ylabel="target token")
    # Many tokens begin or end with a space.
    source, target = (
        [token.strip() for token in attention_maps[key]] for key in ("source", "target")
    )
    font = chinese_font()
    axes.set_xticks(range(width), source, rotation=90, fontproperties=font)
    axes.set_yticks(range(height), target, fontproperties=font)
    axes.tick_params(length=0)
    return figure


def chinese_font() -> FontProperties:
    """Return the package's font with Chinese characters, which matplotlib's fonts lack."""
    return FontProperties(fname=data_path("noto_sans_cjk_sc.otf"))
