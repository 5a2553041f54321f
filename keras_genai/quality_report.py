"""Rows of measurements of models, as tables in Markdown, as JSON and as a figure."""

import dataclasses
import json
import math
import re

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import NullFormatter

from keras_genai.plotting import COLORS
from keras_genai.validation import check_methods, check_number

MIN_COPIED = 30  # characters of a run that counts as copied
# Offsets of a label from its point, in points, from the nearest on; the text begins, is centered or
# ends there.
DIRECTIONS = [(1, 0, "left"), (-1, 0, "right"), (0, 1, "center"), (0, -1, "center")]
DIRECTIONS += [(1, 1, "left"), (1, -1, "left"), (-1, 1, "right"), (-1, -1, "right")]
OFFSETS = [(x * d, y * d, side) for d in (8, 16, 28, 44, 64) for x, y, side in DIRECTIONS]
MARKER_SIZE = 8  # points
LEADER = {"arrowstyle": "-", "color": "gray", "linewidth": 0.7, "shrinkA": 0, "shrinkB": 4}
RELATIVE_X = {"left": 0, "center": 0.5, "right": 1}
LINE_OFFSETS = [(0, 8, "right"), (0, -8, "right")]


# Rows.


@dataclasses.dataclass(frozen=True)
class ImageRow:
    """Measurements of a model of MNIST digits; `None` where it has no such value.

    Attributes:
        name: String. Name of the model, or path of its file.
        family: String. Family, a key of `plotting.COLORS` if the package has it.
        parameters: Int. Number of trainable parameters.
        minutes: Float. Minutes of training.
        num_samples: Int. Number of generated images, on which the Fréchet distance depends.
        frechet_distance: Float. Fréchet distance to the test images.
        kernel_distance: Float. Kernel distance (KID) to the test images.
        kernel_distance_error: Float. Its standard error.
        precision: Float. Fraction of the first 2,000 generated images that are among the first
            2,000 test images.
        recall: Float. Fraction of these test images that are among the generated ones.
        digits_covered: Int. Number of digits with at least 1% of the generated images.
        least_frequent: Float. Percentage of the generated images with the least frequent digit.
        most_frequent: Float. Percentage with the most frequent one.
        accuracy: Float. Percentage of the images of a conditional model that are classified as the
            requested digit.
        nats: Float. Negative log-likelihood of the binarized test images, per image, or a bound.
        nats_is_bound: Bool. Whether `nats` is an upper bound.
        seconds_per_1000: Float. Seconds to generate 1,000 images, without compilation.
    """

    name: str
    family: str | None
    parameters: int | None
    minutes: float | None
    num_samples: int
    frechet_distance: float
    kernel_distance: float
    kernel_distance_error: float
    precision: float
    recall: float
    digits_covered: int
    least_frequent: float
    most_frequent: float
    accuracy: float | None = None
    nats: float | None = None
    nats_is_bound: bool = False
    seconds_per_1000: float | None = None


@dataclasses.dataclass(frozen=True)
class TextRow:
    """Measurements of a language model; `None` where it has no such value.

    Attributes:
        name: String. Name of the model, or path of its file.
        parameters: Int. Number of trainable parameters.
        minutes: Float. Minutes of training.
        nats_per_character: Float. Negative log-likelihood of the held-out text.
        training_tokens_per_second: Float. Tokens of training steps per second.
        generated_tokens_per_second: Float. New tokens of one text per second.
        num_characters: Int. Length of the generated text that is compared with the training text;
            runs of white space count as one space in both.
        longest_copy: Int. Length of its longest substring that the training text has.
        copied_percent: Float. Percentage of its characters in such substrings of at least 30.
        copy: String. The longest such substring.
    """

    name: str
    parameters: int
    minutes: float | None
    nats_per_character: float
    training_tokens_per_second: float | None
    generated_tokens_per_second: float
    num_characters: int
    longest_copy: int
    copied_percent: float
    copy: str


@dataclasses.dataclass(frozen=True)
class RecipeRow:
    """The metric of a recipe of another family.

    Attributes:
        name: String. Name of the model, or path of its file.
        parameters: Int. Number of trainable parameters.
        minutes: Float. Minutes of training, or `None`.
        metric: String. Metric of the recipe, with its unit.
        value: Float. Its value on the test data, or `None` if an extra is missing.
    """

    name: str
    parameters: int
    minutes: float | None
    metric: str
    value: float | None


# Output.


def to_table(rows) -> str:
    """Return rows as Markdown: one table for images, one for texts, one for other recipes.

    Args:
        rows: Sequence of `ImageRow`, `TextRow` and `RecipeRow`.

    Raises:
        ValueError: for other rows.
    """
    tables = []
    for row_type, columns in COLUMNS.items():
        cells = [[cell(row) for cell in columns.values()] for row in _select(rows, row_type)]
        if cells:
            lines = [list(columns), ["---"] * len(columns), *cells]
            tables.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(tables) + "\n"


def to_json(rows) -> str:
    """Return rows as a JSON object of the lists `images`, `texts` and `recipes`.

    Args:
        rows: Sequence of `ImageRow`, `TextRow` and `RecipeRow`. NaN and infinity become null.

    Raises:
        ValueError: for other rows.
    """
    lists = {"images": ImageRow, "texts": TextRow, "recipes": RecipeRow}
    content = {
        key: [_to_valid_json(row) for row in _select(rows, row_type)]
        for key, row_type in lists.items()
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _select(rows, row_type) -> list:
    """Return the rows of a type, after a check of all."""
    if not isinstance(rows, (list, tuple)) or any(type(row) not in COLUMNS for row in rows):
        raise ValueError(f"rows: expected a list of rows of evaluation, got {rows!r:.200}.")
    return [row for row in rows if type(row) is row_type]


def _to_valid_json(row) -> dict:
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in dataclasses.asdict(row).items()
    }


def _format(value, digits: int | None = None) -> str:
    """Return a number with a fixed number of decimals, or with three significant digits."""
    if value is None:
        return ""
    if digits is None:
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,.{digits}f}"


def _format_nats(row) -> str:
    return ("≤ " if row.nats_is_bound else "") + _format(row.nats, 1)


def _quote(text: str) -> str:
    """Return a text on one line of at most 80 characters, without the syntax of Markdown."""
    text = " ".join(text.split())
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", text if len(text) <= 80 else f"{text[:79]}…")


# Header and cell of each column.
_TRAINING = {
    "model": lambda row: f"`{row.name}`" if row.parameters is not None else row.name,
    "parameters": lambda row: _format(row.parameters, 0),
    "minutes of training": lambda row: _format(row.minutes, 1),
}
COLUMNS: dict = {
    ImageRow: {
        **_TRAINING,
        "samples": lambda row: _format(row.num_samples, 0),
        "Fréchet distance": lambda row: _format(row.frechet_distance),
        "KID": lambda row: (
            f"{_format(row.kernel_distance, 2)} ± {_format(row.kernel_distance_error, 2)}"
        ),
        "precision": lambda row: _format(row.precision, 3),
        "recall": lambda row: _format(row.recall, 3),
        "digits covered": lambda row: str(row.digits_covered),
        "rarest and commonest digit, %": lambda row: (
            f"{_format(row.least_frequent, 1)}, {_format(row.most_frequent, 1)}"
        ),
        "accuracy, %": lambda row: _format(row.accuracy, 1),
        "nats per image": _format_nats,
        "seconds for 1,000": lambda row: _format(row.seconds_per_1000),
    },
    TextRow: {
        **_TRAINING,
        "nats per character": lambda row: _format(row.nats_per_character, 3),
        "tokens per second, training": lambda row: _format(row.training_tokens_per_second, 0),
        "tokens per second, generation": lambda row: _format(row.generated_tokens_per_second, 0),
        "longest copy, characters": lambda row: str(row.longest_copy),
        f"in copies of {MIN_COPIED} or more, %": lambda row: _format(row.copied_percent, 1),
        "the longest": lambda row: _quote(row.copy),
    },
    RecipeRow: {
        **_TRAINING,
        "metric": lambda row: row.metric,
        "value": lambda row: "" if row.value is None else f"{row.value:.4g}",
    },
}


# Figure.


def plot_quality(rows) -> Figure:
    """Plot the Fréchet distance of image models over the seconds for 1,000 images.

    Both axes are logarithmic: better models are further down, faster ones further to the left. A
    row without seconds, such as that of the training images, is a dashed line.

    Args:
        rows: Sequence of objects with `name`, `family`, `frechet_distance` and `seconds_per_1000`,
            such as `evaluation.ImageRow`; at least one.

    Raises:
        ValueError: for no row, and for a distance or time that is not a positive number.
    """
    if not isinstance(rows, (list, tuple)) or not rows:
        raise ValueError(f"rows: expected a list of at least one image model, got {rows!r:.200}.")
    names = ("name", "family", "frechet_distance", "seconds_per_1000")
    for row in rows:
        check_methods("rows", row, "rows of image models", *names)
        check_number("frechet_distance", row.frechet_distance, above=0)
        if row.seconds_per_1000 is not None:
            check_number("seconds_per_1000", row.seconds_per_1000, above=0)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set(
        xlabel="seconds for 1,000 images",
        ylabel="Fréchet distance, features of article 4's CNN",
    )
    for row in rows:
        if row.seconds_per_1000 is None:
            axes.axhline(row.frechet_distance, color=COLORS["data"], linestyle="--", linewidth=1)
        else:
            color = COLORS.get(row.family, "black")
            x, y = row.seconds_per_1000, row.frechet_distance
            axes.plot(x, y, "o", color=color, markersize=MARKER_SIZE)
    seconds = [row.seconds_per_1000 for row in rows if row.seconds_per_1000 is not None]
    distances = [row.frechet_distance for row in rows]
    with_room = [*seconds, 10 * max(seconds)] if seconds else [1]  # for labels on the right
    axes.set(xscale="log", xlim=_whole_decades(with_room))
    axes.set(yscale="log", ylim=_whole_decades(distances))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    _add_labels(figure, axes, rows)
    return figure


def _whole_decades(values) -> tuple[float, float]:
    """Return powers of ten around values, with some room."""
    return (
        10.0 ** math.floor(math.log10(0.7 * min(values))),
        10.0 ** math.ceil(math.log10(1.4 * max(values))),
    )


def _add_labels(figure, axes, rows) -> None:
    """Label every point, where the label overlaps no other one and is nearest to its own point."""
    figure.draw_without_rendering()  # positions of the layout
    figure.set_layout_engine("none")
    renderer = figure.canvas.get_renderer()
    occupied = [line.get_window_extent(renderer) for line in axes.lines]
    points = [line.get_window_extent(renderer) for line in axes.lines if line.get_marker() == "o"]
    frame = axes.get_window_extent(renderer)
    for row in sorted(rows, key=lambda row: -len(row.name)):  # short labels fit into gaps
        is_line = row.seconds_per_1000 is None
        position = (0.98 if is_line else row.seconds_per_1000, row.frechet_distance)
        for i, (x, y, side) in enumerate(LINE_OFFSETS if is_line else OFFSETS):
            has_leader = i >= len(DIRECTIONS)
            label = axes.annotate(
                row.name,
                position,
                (x, y),
                xycoords=axes.get_yaxis_transform() if is_line else "data",
                textcoords="offset points",
                ha=side,
                va="center",
                fontsize=9,
                arrowprops=LEADER | {"relpos": (RELATIVE_X[side], 0.5)} if has_leader else None,
            )
            label.update_positions(renderer)
            extent = Text.get_window_extent(label, renderer)  # without the leader line
            own = axes.transData.transform(position)
            nearest = min(points, key=lambda point: _gap(extent, _center(point)), default=None)
            is_nearest = is_line or has_leader or np.allclose(_center(nearest), own)
            inside = frame.x0 <= extent.x0 and extent.x1 <= frame.x1
            if is_nearest and inside and not any(map(extent.overlaps, occupied)):
                break
            label.remove()
        else:
            axes.add_artist(label)  # more points than there is room for
        occupied.append(extent)


def _center(extent) -> tuple[float, float]:
    return (extent.x0 + extent.x1) / 2, (extent.y0 + extent.y1) / 2


def _gap(extent, point) -> float:
    """Return the distance of a point from a rectangle."""
    x, y = point
    return math.hypot(max(extent.x0 - x, 0, x - extent.x1), max(extent.y0 - y, 0, y - extent.y1))
