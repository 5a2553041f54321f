"""A claim with its measurements: verdict, table in Markdown and figure with error bars."""

import dataclasses
import math

import numpy as np
from matplotlib.figure import Figure

from keras_genai.plotting import COLORS
from keras_genai.validation import as_numbers, check_dict, check_type

# A difference counts from this number of standard errors: 95% by Student's t from five seeds on.
NUM_ERRORS = 3
SUPPORTED, REFUTED, NOT_SHOWN = "Supported", "Refuted", "Not shown"
MAX_PANELS = 4  # in a row of the figure


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim of an article, with what was measured of it.

    Attributes:
        source: String. Article and section.
        statement: String. The claim in our own words.
        measurements: Dict. Setting, such as the name of a model, to a dict of measures, each a
            float array `(seeds,)`. All settings have the same measures.
        verdict: String. One line: whether the figures support the claim, by the rule of the
            function that measured them.
        families: Dict. Setting to family, a key of `plotting.COLORS`; others are black. Defaults to
            none.
        label: String. What the settings are, beside their names in table and figure. Defaults to
            `"setting"`.

    Raises:
        ValueError: for other texts, for settings of different measures, and for measures that are
            not finite or have different numbers of seeds, or fewer than 2.
    """

    source: str
    statement: str
    measurements: dict
    verdict: str
    families: dict = dataclasses.field(default_factory=dict)
    label: str = "setting"

    def __post_init__(self):
        for name in ("source", "statement", "verdict", "label"):
            check_type(name, getattr(self, name), str)
        if "\n" in self.verdict:
            raise ValueError(f"verdict: expected one line, got {self.verdict!r:.200}.")
        check_type("families", self.families, dict)
        checked = check_measurements(self.measurements)
        object.__setattr__(self, "measurements", checked)  # the dataclass is frozen

    @property
    def measures(self) -> list[str]:
        """Names of the measures."""
        return list(next(iter(self.measurements.values())))

    @property
    def num_seeds(self) -> int:
        """Number of values of each measure."""
        return len(next(iter(self.measurements.values()))[self.measures[0]])

    def table(self) -> str:
        """Return a table in Markdown: a row for each setting, mean ± standard error of a measure.

        The standard error is that of the mean over the seeds.
        """
        lines = [[self.label, *self.measures], ["---"] * (1 + len(self.measures))]
        for setting, values in self.measurements.items():
            lines.append([setting, *(format_mean(x) for x in values.values())])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"

    def plot(self, measures=None) -> Figure:
        """Plot a panel for each measure: mean, standard error and all values of each setting.

        Args:
            measures: List of names of measures, or `None` for all. Defaults to `None`.

        Raises:
            ValueError: for an unknown measure.
        """
        measures = self.measures if measures is None else measures
        known = isinstance(measures, (list, tuple)) and measures
        if not known or any(measure not in self.measures for measure in measures):
            raise ValueError(
                f"measures: expected a list of {', '.join(self.measures)}, got {measures!r:.200}."
            )
        columns = min(len(measures), MAX_PANELS)
        rows = math.ceil(len(measures) / columns)
        labels = list(self.measurements)
        height = 0.9 + 0.27 * len(labels)  # inches
        width = 1.6 + 2.3 * columns
        figure = Figure(figsize=(width, rows * height + 0.4), layout="constrained")
        panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
        for panel, measure in zip(panels, measures, strict=False):
            self._plot_measure(panel, measure)
            panel.set_yticks(range(len(labels)), labels)
        if self.label != "setting":
            for panel in panels[::columns]:
                panel.set_ylabel(self.label, fontsize=9)
        panels[0].set_ylim(len(labels) - 0.5, -0.5)  # the first setting is the topmost one
        for panel in panels[len(measures) :]:
            panel.axis("off")
        figure.suptitle(
            f"{self.source}: mean ± standard error of {self.num_seeds} seeds; dots: single values",
            fontsize=10,
        )
        return figure

    def _plot_measure(self, axes, measure) -> None:
        for i, (setting, values) in enumerate(self.measurements.items()):
            x, color = values[measure], COLORS.get(str(self.families.get(setting)), COLORS["data"])
            axes.plot(x, np.full(len(x), i), "o", color=color, alpha=0.3, markersize=3)
            axes.errorbar(
                np.mean(x), i, xerr=standard_error(x), fmt="|", color=color, capsize=4, markersize=9
            )
        axes.set_xlabel(measure, fontsize=9)
        axes.tick_params(labelsize=9)
        axes.locator_params(axis="x", nbins=4)  # more labels would overlap
        axes.grid(axis="y", linewidth=0.4, alpha=0.5)
        axes.margins(x=0.12)


def check_measurements(measurements) -> dict:
    """Return measurements with float64 arrays, those of `Claim`.

    Raises:
        ValueError: as `Claim`.
    """
    check_dict("measurements", measurements)
    checked: dict = {}
    for setting, measures in measurements.items():
        name = f"measurements: {setting}"
        check_dict(name, measures)
        checked[setting] = {
            measure: as_numbers(f"{name}: {measure}", values, (None,)).astype("float64")
            for measure, values in measures.items()
        }
    names = {tuple(measures) for measures in checked.values()}
    sizes = {len(x) for measures in checked.values() for x in measures.values()}
    if len(names) != 1 or len(sizes) != 1 or min(sizes) < 2:
        raise ValueError(
            "measurements: expected the same measures for all settings, each of the same number of "
            f"seeds, at least 2, got measures {sorted(names)} and numbers {sorted(sizes)}."
        )
    return checked


# Statistics over seeds.


def standard_error(values) -> float:
    """Return the standard error of the mean of values `(seeds,)`, seeds at least 2."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


def sign_of_mean(values) -> int:
    """Return 1 if the mean of values `(seeds,)` is above 0, -1 if below, 0 if neither is shown.

    It is shown by a mean of more than three standard errors.
    """
    mean, margin = float(np.mean(values)), NUM_ERRORS * standard_error(values)
    return 0 if abs(mean) <= margin else int(np.sign(mean))


def format_mean(values) -> str:
    """Return mean ± standard error of values `(seeds,)`, with decimals that the error justifies."""
    mean, error = float(np.mean(values)), standard_error(values)
    digits = 3
    if error > 0:
        exponent = math.floor(math.log10(error))
        # One digit of the error, two if the first one is 1 or 2.
        digits = min(max(0, (error < 3 * 10.0**exponent) - exponent), 4)
    return f"{mean:,.{digits}f} ± {error:,.{digits}f}"
