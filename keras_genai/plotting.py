"""Pictures of images, histories, latent spaces, forecasts, gates and attention.

Every function returns a matplotlib Figure and shows nothing by itself; none needs a display.
"""

import math

import numpy as np
from matplotlib.figure import Figure

from keras_genai.inputs import check_size

# One for each model, in every picture: those of Okabe & Ito 2008, which the colour-blind can tell
# apart, and three that stand no nearer to those than they do to each other.
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


def plot_images(images, columns: int | None = None, titles=None) -> Figure:
    """Draw images in a grid, row by row.

    Args:
        images: (n, features) of square images, (n, height, width) or (n, height, width, channels),
            in [0, 1].
        columns: of the grid; None makes it square.
        titles: n texts to stand above the images.

    Raises:
        ValueError: if the images have none of these shapes, or if their number is not that of
            titles.
    """
    images = _as_grey_or_colour(images)
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"titles: expected {len(images)}, got {len(titles)}.")
    columns = columns or math.ceil(math.sqrt(len(images)))
    check_size("columns", columns)
    rows = math.ceil(len(images) / columns)
    width, height = 0.8, 0.8 if titles is None else 1.0  # of a place in the grid, in inches
    figure = Figure(figsize=(width * columns, height * rows))
    # All in one coordinate system of inches: to lay out and draw one for each takes a second.
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width * columns), ylim=(height * rows, 0))
    axes.axis("off")
    scale = 0.76 / max(images.shape[1:3])  # inches of a pixel
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        middle, bottom = (column + 0.5) * width, (row + 1) * height - 0.02
        side, top = 0.5 * scale * image.shape[1], bottom - scale * image.shape[0]
        extent = (middle - side, middle + side, bottom, top)
        axes.imshow(image, cmap="gray", vmin=0, vmax=1, extent=extent)
        if titles is not None:
            axes.text(middle, top - 0.03, titles[i], fontsize=8, ha="center")
    return figure


def plot_pixel_nats(images, nats) -> Figure:
    """Draw images, and below each what its pixels cost: where the model was surprised.

    Args:
        images: (n, height, width, 1) in [0, 1].
        nats: (n, height, width), minus the log-likelihood of each pixel.

    Raises:
        ValueError: if there are not as many of one as of the other.
    """
    if len(images) != len(nats):
        raise ValueError(f"nats: expected {len(images)} maps, one an image, got {len(nats)}.")
    figure = Figure(figsize=(1.2 * len(images) + 1, 2.6), layout="constrained")
    rows = figure.subplots(2, len(images), squeeze=False)
    for image, cost, upper, lower in zip(_as_grey_or_colour(images), nats, *rows):
        upper.imshow(image, cmap="gray", vmin=0, vmax=1)
        picture = lower.imshow(cost, cmap="magma", vmin=0, vmax=np.max(nats))
        lower.set_title(f"{cost.sum():.0f} nats", fontsize=9)
        for axes in (upper, lower):
            axes.axis("off")
    figure.colorbar(picture, ax=rows[1, :], pad=0.1 / rows.shape[1], label="nats")
    return figure


def plot_sounds(waveforms, sample_rate: int, titles, color="black") -> Figure:
    """Draw sounds: the waveform of each, and below it the spectrogram, the same scale for all.

    Args:
        waveforms: (n, samples) in [-1, 1], or a list of arrays of any lengths.
        sample_rate: samples a second.
        titles: n texts to stand above the sounds.
        color: of the waveforms, such as `COLORS["WaveNet"]` of what it drew.

    Raises:
        ValueError: if the number of sounds is not that of titles.
    """
    if len(titles) != len(waveforms):
        raise ValueError(f"titles: expected {len(waveforms)}, got {len(titles)}.")
    figure = Figure(figsize=(2.4 * len(waveforms) + 0.6, 3.6), layout="constrained")
    rows = figure.subplots(2, len(waveforms), squeeze=False, sharex=True, sharey="row")
    seconds = max(map(len, waveforms)) / sample_rate
    for waveform, title, upper, lower in zip(waveforms, titles, *rows):
        upper.plot(np.arange(len(waveform)) / sample_rate, waveform, linewidth=0.5, color=color)
        upper.set(title=title, xlim=(0, seconds), ylim=(-1, 1))
        # Windows of 32 ms, half of which overlap; a short sound is continued by silence.
        size = max(16, round(0.032 * sample_rate))
        padded = np.pad(waveform, (0, max(0, size - len(waveform))))
        frames = np.lib.stride_tricks.sliding_window_view(padded, size)[:: size // 2]
        power = np.abs(np.fft.rfft(frames * np.hanning(size))) ** 2
        decibels = 10 * np.log10(power / (size / 4) ** 2 + 1e-10)
        end, top = size * (len(frames) + 1) / 2 / sample_rate, sample_rate / 2000
        extent = (0, end, 0, top)
        picture = lower.imshow(
            decibels.T, origin="lower", aspect="auto", extent=extent, vmin=-80, vmax=0
        )
        lower.set(xlabel="seconds", xlim=(0, seconds))
    rows[0, 0].set_ylabel("amplitude")
    rows[1, 0].set_ylabel("kHz")
    figure.colorbar(picture, ax=rows[1, :], pad=0.1 / rows.shape[1], label="dB of full scale")
    return figure


def plot_history(history, color="black", unit: str | None = None) -> Figure:
    """Draw each metric of a training over its epochs, held-out values dashed.

    Args:
        history: what `fit` or `train_gan` returned, or its `history`: name to one value an epoch.
        color: of the lines, such as `COLORS["VAE"]` for those of a VAE.
        unit: of all metrics, to stand beside the first.

    Raises:
        ValueError: if it is empty.
    """
    history = getattr(history, "history", history)
    names = [name for name in history if not name.startswith("val_")]
    if not names:
        raise ValueError("history: expected at least one metric, got none.")
    figure = Figure(figsize=(3.2 * len(names), 2.8), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False).flat, names):
        for key, label, style in ((name, "training", "-"), (f"val_{name}", "held out", "--")):
            if key in history:
                epochs = np.arange(1, len(history[key]) + 1)
                axes.plot(
                    epochs,
                    history[key],
                    style,
                    color=color,
                    label=label,
                    marker="." if len(epochs) < 30 else None,
                )
        axes.set(title=name.replace("_", " "), xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        if f"val_{name}" in history:
            axes.legend()
    figure.axes[0].set_ylabel(unit)
    return figure


def plot_latent_space(vae, x=None, labels=None, size: int = 20, extent: float = 2.5) -> Figure:
    """Draw a VAE's latent space: what it decodes over a plane, and where it puts images.

    Args:
        vae: a `VAE` without classes. Of more than two latent dimensions, the first two are drawn;
            the others are zero in the manifold.
        x: images (n, features) in [0, 1] to encode, or None to draw the manifold alone.
        labels: integers (n,) that colour the encodings; each is written amid its own.
        size: images along each side of the manifold.
        extent: the plane goes from -extent to extent, in standard deviations of the prior.

    Raises:
        ValueError: if the VAE has one latent dimension only, or classes.
    """
    if vae.latent_dim < 2 or vae.num_classes is not None:
        raise ValueError(
            "vae: expected at least two latent dimensions and no classes, "
            f"got latent_dim {vae.latent_dim} and num_classes {vae.num_classes}."
        )
    check_size("size", size)
    axis = np.linspace(-extent, extent, size, dtype="float32")
    z = np.zeros((size * size, vae.latent_dim), "float32")
    z[:, 0], z[:, 1] = np.tile(axis, size), np.repeat(axis[::-1], size)  # z_2 grows upwards
    images = _as_grey_or_colour(vae.decode(z))
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
        # Ten colours are too many to tell apart by a legend.
        for label in [] if labels is None else np.unique(labels):
            middle = np.median(z_mean[np.equal(labels, label), :2], axis=0)
            axes[1].text(*middle, label, weight="bold", backgroundcolor=(1, 1, 1, 0.7))
    return figure


def plot_interpolation(vae, start, end, steps: int = 10, labels=None) -> Figure:
    """Draw the way from one image to another, along a straight line between their encodings.

    Args:
        vae: a `VAE`.
        start, end: images (features,) or (n, features) in [0, 1]; one row of the figure for each
            pair.
        steps: images in a row, both ends' reconstructions included, at least 2.
        labels: an integer or integers (n,) if the VAE is conditional.
    """
    check_size("steps", steps, minimum=2)
    start, end = np.atleast_2d(start), np.atleast_2d(end)
    if start.shape != end.shape:
        raise ValueError(f"end: expected shape {start.shape}, that of start, got {end.shape}.")
    z_start, z_end = vae.encode(start, labels)[0], vae.encode(end, labels)[0]  # (n, latent_dim)
    weights = np.linspace(0, 1, steps, dtype="float32")[None, :, None]
    z = (1 - weights) * z_start[:, None] + weights * z_end[:, None]  # (n, steps, latent_dim)
    if labels is not None:
        labels = np.repeat(np.broadcast_to(labels, len(start)), steps)
    return plot_images(vae.decode(z.reshape(-1, z.shape[-1]), labels), columns=steps)


def _as_grey_or_colour(images) -> np.ndarray:
    """Return images as (n, height, width, channels)."""
    images = np.asarray(images)
    if images.ndim == 2 and math.isqrt(images.shape[1]) ** 2 == images.shape[1]:
        side = math.isqrt(images.shape[1])
        images = images.reshape(-1, side, side)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or len(images) == 0 or images.shape[-1] not in (1, 3, 4):
        raise ValueError(
            "images: expected at least one, (n, features) of a square, (n, height, width) or "
            f"(n, height, width, channels), got {images.shape}."
        )
    return images


def plot_forecasts(series, first: int, forecasts: dict) -> Figure:
    """Draw the end of a series and what was forecast of it.

    Args:
        series: values (n,).
        first: index of the first value that was forecast.
        forecasts: name to forecasts (n - first,). A name of `COLORS` is drawn in its color.

    Raises:
        ValueError: if a forecast has another length.
    """
    series = np.asarray(series)
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    axes = figure.subplots()
    time = np.arange(len(series))
    start = max(0, first - (len(series) - first) // 2)
    axes.plot(time[start:], series[start:], color="black", linewidth=1, label="measured")
    for name, values in forecasts.items():
        if len(values) != len(series) - first:
            raise ValueError(f"{name}: expected {len(series) - first} values, got {len(values)}.")
        axes.plot(time[first:], values, linewidth=1, color=COLORS.get(name), label=name)
    axes.axvline(first, color="gray", linestyle=":")
    axes.legend()
    return figure


def plot_gates(text, gates: dict, units: int = 24) -> Figure:
    """Draw what an LSTM's gates do while it reads a text: a column a character, a row a unit.

    From top to bottom, memory changes faster; it is the same units in each part. Bright gates are
    open. Of the cell state, its tanh is drawn, as the output gate shows it: red below 0, blue
    above.

    Args:
        text: of n characters.
        gates: from `rnn.lstm_gates`: "input", "forget", "output" and "cell", each (n, units).
        units: how many of them to draw at most, evenly from the slowest to the fastest.

    Raises:
        ValueError: if the gates are those of another text, or for units below 1.
    """
    if len(gates["cell"]) != len(text):
        raise ValueError(f"text: expected {len(gates['cell'])} characters, got {len(text)}.")
    shown = {**gates, "cell": np.tanh(gates["cell"])}
    changes = np.abs(np.diff(shown["cell"], axis=0)).sum(axis=0)
    units = min(check_size("units", units), len(changes))
    places = np.linspace(0, len(changes) - 1, units).round().astype(int)
    drawn = np.argsort(changes)[places]
    figure = Figure(figsize=(0.16 * len(text) + 1, 1.8 * len(shown)), layout="constrained")
    for axes, (name, values) in zip(figure.subplots(len(shown), 1), shown.items()):
        low, colours = (-1, "RdBu") if name == "cell" else (0, "viridis")
        axes.imshow(values[:, drawn].T, vmin=low, vmax=1, cmap=colours, aspect="auto")
        axes.set(ylabel=name, yticks=[], xticks=range(len(text)), xticklabels=list(text))
        axes.tick_params(length=0)
    return figure


def plot_attention(maps: dict, layer: int = -1, head: int | None = None) -> Figure:
    """Draw where a translation looks in its source: a row a token written, a column a token read.

    Args:
        maps: from `Seq2SeqTransformer.attention_maps`: "source" (m texts), "target" (n texts) and
            "weights" (num_layers, num_heads, n, m).
        layer: of the decoder.
        head: of this layer; None draws the mean of all.
    """
    weights = maps["weights"][layer]
    weights = weights.mean(axis=0) if head is None else weights[head]
    height, width = weights.shape
    figure = Figure(figsize=(0.35 * width + 2.5, 0.35 * height + 1.5), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(weights, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    figure.colorbar(picture, label="weight")
    axes.set(xlabel="token read", ylabel="token written")
    # Spaces stand at the ends of many tokens.
    names = [[token.strip() for token in maps[side]] for side in ("source", "target")]
    font = chinese_font()
    axes.set_xticks(range(width), names[0], rotation=90, fontproperties=font)
    axes.set_yticks(range(height), names[1], fontproperties=font)
    axes.tick_params(length=0)
    return figure


def chinese_font():
    """Return a font that ships: matplotlib's own have no Chinese characters."""
    from matplotlib.font_manager import FontProperties

    from keras_genai.datasets import shipped

    return FontProperties(fname=shipped("noto_sans_cjk_sc.otf"))
