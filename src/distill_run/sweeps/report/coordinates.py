"""A sweep over many keys as parallel coordinates: an axis for each key, a line for each setting."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import NDArray

from distill_run.report.drawing import INK, MUTED, STEPS, lay_out, spread
from distill_run.sweeps.report.curves import scale_of
from distill_run.sweeps.report.heat_map import BLUES
from distill_run.sweeps.report.sweep_report import SweepReport
from distill_run.sweeps.values import order, short_keys, shown
from distill_run.units import shorten

MAX_NAMED_VALUES = 12
NUM_TICKS = 5
MAX_WIDTH = 11.0  # inches, of the panel
FAINTEST = 0.25  # of the colour map: a line must be visible on white
SPREAD = 0.05  # distance between lines through the same value, as a share of the axis
BEST: dict[str, Any] = {
    "color": INK, "linewidth": 2.4, "zorder": 4, "clip_on": False,
    "marker": "o", "markersize": 7, "markerfacecolor": "white", "markeredgewidth": 2,
}  # fmt: skip


def parallel_coordinates(report: SweepReport) -> Figure:
    """A line for each setting, through its values to its validation accuracy; the darker, the higher that is."""
    keys = report.keys
    settings = sorted(spread(report.completed_settings), key=lambda setting: setting.mean("val_accuracy"))
    accuracies = np.array([setting.mean("val_accuracy") for setting in settings])
    shares, ticks = _scale(accuracies, {f"{tick:.1%}": tick for tick in _even_ticks(accuracies)})
    size = (min(1.9 * len(keys), MAX_WIDTH), 3.3)
    figure, [axes] = lay_out(1, size, left=0.75, bottom=0.35, top=0.35, right=0.95)
    heights = []
    for x, key in enumerate(keys):
        at, ticks_of_key = _axis_of([setting.values[key] for setting in settings])
        _draw_axis(axes, x, ticks_of_key, short_keys(keys)[key])
        heights.append(at)
    _draw_axis(axes, len(keys), ticks, "validation accuracy")
    lines = np.array([*heights, shares]).T
    for line in lines:
        colour = BLUES(FAINTEST + (1 - FAINTEST) * line[-1])
        axes.plot(line, color=colour, linewidth=1.1, alpha=0.8)
    if report.recommendation is not None:
        axes.plot(lines[settings.index(report.settings[0])], **BEST)
    axes.set(xlim=(-0.02, len(keys) + 0.02), ylim=(-0.06, 1.06))
    axes.axis("off")
    return figure


def _axis_of(values: list[Any]) -> tuple[list[float], dict[str, float]]:
    """The heights of the values on an axis from 0 to 1, and the heights of its ticks by name."""
    distinct = sorted({shown(value): value for value in values}.values(), key=order)
    if len(distinct) <= MAX_NAMED_VALUES or scale_of(distinct) == "categories":
        return _even_axis(values, list(map(shown, distinct)))
    numbers = np.array(values, dtype=float)
    if scale_of(distinct) == "log":
        ticks = LogLocator(subs=(1, 2, 5)).tick_values(distinct[0], distinct[-1])
        return _scale(np.log(numbers), dict(zip(map("{:g}".format, ticks), np.log(ticks), strict=True)))
    return _scale(numbers, {f"{tick:g}": tick for tick in _even_ticks(numbers)})


def _even_axis(values: list[Any], names: list[str]) -> tuple[list[float], dict[str, float]]:
    """An axis with its names in equal steps; values that share a name lie a little apart."""
    levels = dict(zip(names, np.linspace(0, 1, len(names)).tolist() if len(names) > 1 else [0.0], strict=True))
    apart = np.linspace(-SPREAD / 2, SPREAD / 2, len(values))
    heights = apart + [levels[shown(value)] for value in values]
    step = -(-len(names) // MAX_NAMED_VALUES)
    return heights.tolist(), {name: levels[name] for name in names[::step]}


def _even_ticks(values: NDArray[np.float64]) -> list[float]:
    return list(MaxNLocator(NUM_TICKS, steps=STEPS).tick_values(values.min(), values.max()))


def _scale(values: NDArray[np.float64], ticks: Mapping[str, float]) -> tuple[list[float], dict[str, float]]:
    """Values as shares of their span, and the ticks within the span likewise."""
    low, span = values.min(), values.max() - values.min() or 1.0
    shares = {name: float((tick - low) / span) for name, tick in ticks.items()}
    return ((values - low) / span).tolist(), {name: share for name, share in shares.items() if 0 <= share <= 1}


def _draw_axis(axes: Axes, x: int, ticks: Mapping[str, float], title: str) -> None:
    axes.plot([x, x], [-0.03, 1.03], color=MUTED, linewidth=1, zorder=1)
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
    for name, height in ticks.items():
        style: dict[str, Any] = {"fontsize": 8, "color": INK, "va": "center", "bbox": box, "zorder": 5}
        axes.text(x + 0.04, height, shorten(name), parse_math=False, **style)
    axes.text(x, 1.1, title, ha="center", va="bottom", fontsize=9, fontweight="bold", color=INK, parse_math=False)
