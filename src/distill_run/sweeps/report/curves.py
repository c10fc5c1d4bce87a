"""A sweep over one key, or over seeds alone: validation and test accuracy side by side."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator, PercentFormatter

from distill_run.report.drawing import COLOURS, INK, MARKERS, add_legend, dress, lay_out, ring, shorten
from distill_run.sweeps.typed import order, shown

SPLITS = {"val_accuracy": "validation accuracy", "test_accuracy": "test accuracy"}
WIDE_SPAN = 20  # numbers that span more stand on a logarithmic axis
MAX_TICKS = 12
MAX_LEVEL_NAME = 5  # characters; longer names stand upright
STUDENT: dict[str, Any] = {"color": COLOURS["student"]}
ONE_RUN: dict[str, Any] = {**STUDENT, "linestyle": "", "marker": ".", "markersize": 5, "alpha": 0.45}

Scale = Literal["linear", "log", "categories"]
Places = dict[float, Mapping[str, Any]]  # along the axis, with the setting or the run that stands there


def scale_of(values: Sequence[Any]) -> Scale:
    """How sorted values stand on an axis: numbers by size, all else beside each other."""
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        return "categories"
    return "log" if values[0] > 0 and values[-1] > WIDE_SPAN * values[0] else "linear"


def key_curve(content: Mapping[str, Any], key: str) -> Figure:
    """Means over the replicates against the values of the only key, with their intervals and the single runs."""
    settings = [setting for setting in content["settings"] if setting["replicates"]]
    settings.sort(key=lambda setting: order(setting["values"][key]))
    values = [setting["values"][key] for setting in settings]
    scale, names = scale_of(values), [shown(value) for value in values]
    places: Places = dict(zip(range(len(values)) if scale == "categories" else values, settings, strict=True))
    figure, panels = _panels(names)
    for axes, (name, label) in zip(panels, SPLITS.items(), strict=True):
        draw = _draw_categories if scale == "categories" else _draw_lines
        draw(axes, places, name)
        _draw_runs(axes, places, content, name)
        _ring_best(axes, places, content, name)
        dress(axes, label, key)
        if scale == "log":
            axes.set_xscale("log")
            axes.xaxis.set_minor_locator(NullLocator())
        _name_places(axes, list(places), names)
    more = [ring("recommended", INK)]
    if any(setting["replicates"] > 1 for setting in settings):
        more.append(Line2D([], [], label="one run", **ONE_RUN))
    add_legend(figure, panels[0], more)
    return figure


def _draw_lines(axes: Axes, places: Places, name: str) -> None:
    axes.plot(*_means(places, name), marker=MARKERS["student"], markersize=4, label="student, mean", **STUDENT)
    spans = {place: setting[name] for place, setting in places.items() if setting[name]["low"] is not None}
    if spans:
        low, high = ([span[end] for span in spans.values()] for end in ("low", "high"))
        axes.fill_between(list(spans), low, high, alpha=0.15, linewidth=0, label="95% interval", **STUDENT)
    _draw_baseline(axes, places, name, "--")


def _draw_categories(axes: Axes, places: Places, name: str) -> None:
    """Nothing lies between two categories: no line joins them."""
    axes.plot(*_means(places, name), MARKERS["student"], label="student, mean", **STUDENT)
    spans = {place: setting[name] for place, setting in places.items() if setting[name]["low"] is not None}
    if spans:
        low, high = ([span[end] for span in spans.values()] for end in ("low", "high"))
        axes.vlines(list(spans), low, high, alpha=0.35, linewidth=6, label="95% interval", **STUDENT)
    _draw_baseline(axes, places, name, MARKERS["baseline"])
    axes.set_xlim(-0.5, len(places) - 0.5)


def _draw_baseline(axes: Axes, places: Places, name: str, style: str) -> None:
    found, means = _means(places, f"baseline_{name}")
    if found:
        axes.plot(found, means, style, color=COLOURS["baseline"], label="baseline, mean")


def _means(places: Places, name: str) -> tuple[list[float], list[float]]:
    found = [(place, setting[name]["mean"]) for place, setting in places.items() if setting[name] is not None]
    return [place for place, _ in found], [mean for _, mean in found]


def _draw_runs(axes: Axes, places: Places, content: Mapping[str, Any], name: str) -> None:
    accuracies = {run["directory"]: run[name] for run in content["runs"] if run[name] is not None}
    for place, setting in places.items():
        singles = [accuracies[run] for run in setting["runs"] if run in accuracies]
        if len(singles) > 1:
            axes.plot([place] * len(singles), singles, **ONE_RUN)


def _ring_best(axes: Axes, places: Places, content: Mapping[str, Any], name: str) -> None:
    best = content["settings"][0]
    mark = ring("_recommended", INK)  # a leading underscore keeps it out of the legend
    mark.set_data([place for place, setting in places.items() if setting is best], [best[name]["mean"]])
    axes.add_line(mark)


def seed_strip(content: Mapping[str, Any]) -> Figure:
    """Student and baseline of each replicate of the only setting; dashed lines are the means."""
    keys = content["replicate_keys"]
    runs = [run for run in content["runs"] if run["status"] == "completed"]
    runs.sort(key=lambda run: [order(run["values"][key]) for key in keys])
    names = [", ".join(shown(run["values"][key]) for key in keys) for run in runs]
    figure, panels = _panels(names)
    for axes, (name, label) in zip(panels, SPLITS.items(), strict=True):
        stages = {"student": name, "baseline": f"baseline_{name}"}
        for stage, figure_name in stages.items():
            if (found := content["settings"][0][figure_name]) is not None:
                accuracies = [run[figure_name] for run in runs]
                axes.plot(accuracies, MARKERS[stage], markersize=7, color=COLOURS[stage], label=stage)
                axes.axhline(found["mean"], color=COLOURS[stage], linestyle="--", linewidth=1)
        pairs = {x: [run[each] for each in stages.values()] for x, run in enumerate(runs)}
        for x, pair in pairs.items():
            if None not in pair:
                axes.plot([x, x], pair, linewidth=1, alpha=0.5, zorder=1, **STUDENT)
        dress(axes, label, ", ".join(keys))
        _name_places(axes, range(len(runs)), names)
        axes.set_xlim(-0.5, len(runs) - 0.5)
    add_legend(figure, panels[0], [Line2D([], [], color=INK, linestyle="--", linewidth=1, label="means")])
    return figure


def _panels(names: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """Two panels, with room below for names that stand upright."""
    longest = max(len(shorten(name)) for name in names)
    room = 0.07 * longest if longest > MAX_LEVEL_NAME else 0.0
    return lay_out(2, (4.2, 2.95), left=0.8, bottom=0.55 + room, top=0.45, gap=0.85)


def _name_places(axes: Axes, places: Sequence[float], names: Sequence[str]) -> None:
    step = -(-len(names) // MAX_TICKS)
    texts = [shorten(name) for name in names]
    rotation = 90 if max(map(len, texts)) > MAX_LEVEL_NAME else 0
    axes.set_xticks(places[::step], texts[::step], rotation=rotation, parse_math=False)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
