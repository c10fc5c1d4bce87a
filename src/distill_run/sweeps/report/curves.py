"""A sweep over one key, or over seeds only: validation and test accuracy side by side."""

from collections.abc import Sequence
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator, PercentFormatter

from distill_run.report.drawing import COLOURS, INK, MARKERS, add_legend, dress, lay_out, ring, spread
from distill_run.sweeps.report.sweep_report import SettingReport, SweepReport
from distill_run.sweeps.values import order, shown
from distill_run.units import shorten

SPLITS = {"val_accuracy": "validation accuracy", "test_accuracy": "test accuracy"}
WIDE_SPAN = 20  # the ratio of largest to smallest above which an axis is logarithmic
MAX_TICKS = 12
MAX_LEVEL_NAME = 5  # characters; longer names are turned upright
STUDENT: dict[str, Any] = {"color": COLOURS["student"]}
ONE_RUN: dict[str, Any] = {**STUDENT, "linestyle": "", "marker": ".", "markersize": 5, "alpha": 0.45}

Scale = Literal["linear", "log", "categories"]
Positions = dict[float, SettingReport]  # the settings by their position along the axis


def scale_of(values: Sequence[Any]) -> Scale:
    """The scale of an axis for sorted values: numbers by size, anything else in equal steps."""
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        return "categories"
    return "log" if values[0] > 0 and values[-1] > WIDE_SPAN * values[0] else "linear"


def key_curve(report: SweepReport, key: str) -> Figure:
    """Means over the runs of each setting, with their intervals and the single runs, by the value of the only key."""
    settings = sorted(spread(report.completed_settings), key=lambda setting: order(setting.values[key]))
    values = [setting.values[key] for setting in settings]
    scale, names = scale_of(values), [shown(value) for value in values]
    positions: Positions = dict(zip(range(len(values)) if scale == "categories" else values, settings, strict=True))
    figure, panels = _panels(names)
    for axes, (name, label) in zip(panels, SPLITS.items(), strict=True):
        draw = _draw_categories if scale == "categories" else _draw_lines
        draw(axes, positions, name)
        _draw_runs(axes, positions, report, name)
        if report.recommendation is not None:
            _ring_best(axes, positions, report.settings[0], name)
        dress(axes, label, key)
        if scale == "log":
            axes.set_xscale("log")
            axes.xaxis.set_minor_locator(NullLocator())
        _name_positions(axes, list(positions), names)
    add_legend(figure, panels[0], [ring("recommended", INK)])
    return figure


def _draw_lines(axes: Axes, positions: Positions, name: str) -> None:
    axes.plot(*_means(positions, name), marker=MARKERS["student"], markersize=4, label="student, mean", **STUDENT)
    at, low, high = _intervals(positions, name)
    if at:
        axes.fill_between(at, low, high, alpha=0.15, linewidth=0, label="95% interval", **STUDENT)
    _draw_baseline(axes, positions, name, "--")


def _draw_categories(axes: Axes, positions: Positions, name: str) -> None:
    """Draw marks without lines: there is nothing between two categories."""
    axes.plot(*_means(positions, name), MARKERS["student"], label="student, mean", **STUDENT)
    at, low, high = _intervals(positions, name)
    if at:
        axes.vlines(at, low, high, alpha=0.35, linewidth=6, label="95% interval", **STUDENT)
    _draw_baseline(axes, positions, name, MARKERS["baseline"])
    axes.set_xlim(-0.5, len(positions) - 0.5)


def _draw_baseline(axes: Axes, positions: Positions, name: str, style: str) -> None:
    at, means = _means(positions, f"baseline_{name}")
    if at:
        axes.plot(at, means, style, color=COLOURS["baseline"], label="baseline, mean")


def _means(positions: Positions, name: str) -> tuple[list[float], list[float]]:
    """Positions and means of the settings that have the figure."""
    found = [(position, setting.figure(name)) for position, setting in positions.items()]
    means = {position: estimate.mean for position, estimate in found if estimate is not None}
    return list(means), list(means.values())


def _intervals(positions: Positions, name: str) -> tuple[list[float], list[float], list[float]]:
    """Positions, lower and upper ends of the intervals of the settings that have one."""
    at, lows, highs = [], [], []
    for position, setting in positions.items():
        estimate = setting.figure(name)
        if estimate is not None and estimate.low is not None and estimate.high is not None:
            at.append(position)
            lows.append(estimate.low)
            highs.append(estimate.high)
    return at, lows, highs


def _draw_runs(axes: Axes, positions: Positions, report: SweepReport, name: str) -> None:
    runs = {run.directory: run for run in report.runs}
    at, accuracies = [], []
    for position, setting in positions.items():
        singles = [found for each in setting.runs if (found := runs[each].figure(name)) is not None]
        if len(singles) > 1:
            at += [position] * len(singles)
            accuracies += singles
    if at:
        axes.plot(at, accuracies, label="one run", **ONE_RUN)


def _ring_best(axes: Axes, positions: Positions, best: SettingReport, name: str) -> None:
    mark = ring("_recommended", INK)  # a leading underscore keeps it out of the legend
    mark.set_data([position for position, setting in positions.items() if setting is best], [best.mean(name)])
    axes.add_line(mark)


def seed_strip(report: SweepReport) -> Figure:
    """Student and baseline of each run of the only setting; dashed lines are the means."""
    keys, setting = report.replicate_keys, report.settings[0]
    runs = list(spread([run for run in report.runs if run.status == "completed"]))
    runs.sort(key=lambda run: [order(run.values[key]) for key in keys])
    names = [", ".join(shown(run.values[key]) for key in keys) for run in runs]
    figure, panels = _panels(names)
    for axes, (name, label) in zip(panels, SPLITS.items(), strict=True):
        stages = {"student": name, "baseline": f"baseline_{name}"}
        for stage, figure_name in stages.items():
            if setting.figure(figure_name) is not None:
                accuracies: Any = [run.figure(figure_name) for run in runs]
                axes.plot(accuracies, MARKERS[stage], markersize=7, color=COLOURS[stage], label=stage)
                axes.axhline(setting.mean(figure_name), color=COLOURS[stage], linestyle="--", linewidth=1)
        pairs: Any = [(x, *map(run.figure, stages.values())) for x, run in enumerate(runs)]
        joined = [pair for pair in pairs if None not in pair]
        if joined:
            axes.vlines(*zip(*joined, strict=True), linewidth=1, alpha=0.5, zorder=1, **STUDENT)
        dress(axes, label, ", ".join(keys))
        _name_positions(axes, range(len(runs)), names)
        axes.set_xlim(-0.5, len(runs) - 0.5)
    add_legend(figure, panels[0], [Line2D([], [], color=INK, linestyle="--", linewidth=1, label="means")])
    return figure


def _panels(names: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """Two panels, with room below for names that are turned upright."""
    longest = max(len(shorten(name)) for name in names)
    room = 0.07 * longest if longest > MAX_LEVEL_NAME else 0.0
    return lay_out(2, (4.2, 2.95), left=0.8, bottom=0.55 + room, top=0.45, gap=0.85)


def _name_positions(axes: Axes, positions: Sequence[float], names: Sequence[str]) -> None:
    step = -(-len(names) // MAX_TICKS)
    texts = [shorten(name) for name in names]
    rotation = 90 if max(map(len, texts)) > MAX_LEVEL_NAME else 0
    axes.set_xticks(positions[::step], texts[::step], rotation=rotation, parse_math=False)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
