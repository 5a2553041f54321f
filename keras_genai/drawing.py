"""Boxes, arrows and labels of the diagrams. All lengths are in inches."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle
from matplotlib.path import Path

from keras_genai.plotting import COLORS

GRAY = "#777777"


class Box(NamedTuple):
    """The center of a box, and the middles of its sides, where arrows start and end."""

    x: float
    y: float
    left: tuple[float, float]
    right: tuple[float, float]
    bottom: tuple[float, float]
    top: tuple[float, float]


def sides(x, y, width, height) -> Box:
    """Return a box by its center and size, without drawing it."""
    w, h = width / 2, height / 2
    return Box(x, y, (x - w, y), (x + w, y), (x, y - h), (x, y + h))


def canvas(width, height):
    """Return the Axes of a new figure. All lengths are in inches."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return axes


def patch_style(color, strength, edge=None, zorder=3, linewidth=1.0) -> dict:
    """Return the options of a patch: filled with a tint of a color, of strength 0 to 1."""
    tint = tuple(1 - strength * (1 - np.array(to_rgb(color))))
    return {
        "facecolor": tint, "edgecolor": edge or color, "zorder": zorder, "linewidth": linewidth
    }  # fmt: skip


def write(axes, x, y, text, width=0.4, height=0.3, **options) -> Box:
    """Write a text in a box of the given size, which is not drawn: arrows end at its sides."""
    options = {"ha": "center", "va": "center", "fontsize": 9.5, "zorder": 5, **options}
    axes.text(x, y, text, **options)
    return sides(x, y, width, height)


def box(axes, x, y, text, color, width=1.2, height=0.5, strength=0.25) -> Box:
    """Draw a rounded box with a text."""
    corner, style = (x - width / 2, y - height / 2), "round,pad=0,rounding_size=0.06"
    options = patch_style(color, strength)
    axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle=style, **options))
    return write(axes, x, y, text, width, height)


def circle(axes, x, y, text, color, radius=0.13) -> Box:
    """Draw a white circle with a text, such as an operator."""
    axes.add_patch(Circle((x, y), radius, **patch_style(color, 0, zorder=4)))
    return write(axes, x, y, text, 2 * radius, 2 * radius)


def rectangle(axes, left, bottom, width, height, *style, **options):
    """Draw a rectangle in the style of `patch_style`."""
    axes.add_patch(Rectangle((left, bottom), width, height, **patch_style(*style, **options)))


def arrow(axes, *points, color="black", dashed=False, head=True, linewidth=1.0):
    """Draw an arrow through points."""
    options = {"arrowstyle": "-|>,head_length=4,head_width=2" if head else "-", "zorder": 2}
    options |= {"linestyle": (0, (4, 2.5)) if dashed else "-", "linewidth": linewidth}
    options |= {"joinstyle": "miter", "capstyle": "butt", "color": color}
    axes.add_patch(FancyArrowPatch(path=Path(points), **options))


def connect(axes, *boxes):
    """Draw arrows from each box to the next, which is beside, above or below."""
    for start, end in pairwise(boxes):
        if abs(start.y - end.y) < 0.01:
            arrow(axes, *((start.right, end.left) if start.x < end.x else (start.left, end.right)))
        else:
            arrow(axes, *((start.top, end.bottom) if start.y < end.y else (start.bottom, end.top)))


def bar(axes, x, y, height, name, size, color) -> Box:
    """Draw a dense layer as a bar, with its name above and its number of units below."""
    rectangle(axes, x - 0.11, y - height / 2, 0.22, height, color, 0.4)
    write(axes, x, y + height / 2 + 0.15, name)
    write(axes, x, y - height / 2 - 0.15, size)
    return sides(x, y, 0.22, height)


def connect_bars(axes, *bars):
    """Fill the space between bars: every unit is connected with every unit of the next bar."""
    for start, end in pairwise(bars):
        ends = ((start.right[0], start), (end.left[0], end))
        corners = [(x, bar.top[1]) for x, bar in ends]
        corners += [(x, bar.bottom[1]) for x, bar in ends[::-1]]
        axes.add_patch(Polygon(corners, **patch_style(COLORS["VAE"], 0.12, "none", zorder=1)))


def grid(axes, left, bottom, side, strengths, color):
    """Draw square cells, filled with tints of the given strengths `(rows, columns)`."""
    for (row, column), strength in np.ndenumerate(strengths[::-1]):
        corner = left + side * column, bottom + side * row
        rectangle(axes, *corner, side, side, color, strength, GRAY, linewidth=0.7)


def cuboid(axes, x, y, width, height, depth, color):
    """Draw a cuboid with the given center in oblique projection."""
    corner = np.array((x - (width + depth) / 2, y - (height + depth) / 2))
    w, h, d = np.array(((width, 0), (0, height), (depth, depth)))
    faces = ((corner, w, h, 0.15), (corner + h, w, d, 0.07), (corner + w, d, h, 0.3))
    for start, first, second, strength in faces:
        corners = (start, start + first, start + first + second, start + second)
        axes.add_patch(Polygon(corners, **patch_style(color, strength, linewidth=0.8)))


def pre_norm_layers(axes, start, sublayers, number, color, side=-1):
    """Draw the sublayers of pre-norm layers above a sum; return their boxes, and the final norm."""
    boxes, plus, x = [], start, start.x
    for name in sublayers:
        bend, edge = plus.y + 0.24, x + 1.25 * side
        norm = box(axes, x, plus.y + 0.47, "LayerNorm", color, 2.1, 0.26, 0.08)
        boxes.append(box(axes, x, plus.y + 0.98, name, color, 2.1, 0.46))
        before, plus = plus, circle(axes, x, plus.y + 1.5, "+", color)
        connect(axes, before, norm, boxes[-1], plus)
        end = plus.left if side < 0 else plus.right
        arrow(axes, (x, bend), (edge, bend), (edge, plus.y), end)
    bottom = start.y + 0.18
    rectangle(axes, x - 1.4, bottom, 2.8, plus.y + 0.2 - bottom, color, 0.07, zorder=1)
    write(axes, x + 1.65 * side, (bottom + plus.y) / 2, f"{number} ×")
    final_norm = box(axes, x, plus.y + 0.5, "LayerNorm", color, 1.7, 0.26, 0.08)
    connect(axes, plus, final_norm)
    return boxes, final_norm
