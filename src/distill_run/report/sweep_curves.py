"""A sweep over one key, or over seeds alone, as curves of validation and test accuracy side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator, PercentFormatter

from distill_run.report.commands import order, shown
from distill_run.report.drawing import COLOURS, INK, MARKERS, add_legend, dress, lay_out, ring, shorten

SPLITS = {"validation accuracy": "val_accuracy", "test accuracy": "test_accuracy"}
WIDE_SPAN = 20  # values that span more stand on a logarithmic axis
MAX_TICKS = 12


def key_curve(content: Mapping[str, Any], key: str) -> Figure:
    """Means over the replicates against the values of the only key, with the interval and the single runs."""
    settings = [setting for setting in content["settings"] if setting["replicates"]]
    settings.sort(key=lambda setting: order(setting["values"][key]))
    values = [setting["values"][key] for setting in settings]
    places, is_log = axis_places(values)
    runs = {run["directory"]: run for run in content["runs"]}
    figure, panels = _panels(_room(values))
    for axes, (label, figure_name) in zip(panels, SPLITS.items(), strict=True):
        _draw_means(axes, places, settings, figure_name)
        for place, setting in zip(places, settings, strict=True):
            singles = [runs[name][figure_name] for name in setting["runs"] if runs[name][figure_name] is not None]
            if len(singles) > 1:
                axes.plot([place] * len(singles), singles, ".", color=COLOURS["student"], alpha=0.45, markersize=5)
        best = settings.index(content["settings"][0])
        mark = ring("_recommended", INK)  # a leading underscore keeps it out of the legend
        mark.set_data([places[best]], [settings[best][figure_name]["mean"]])
        axes.add_line(mark)
        dress(axes, label, key)
        _name_values(axes, places, [shown(value) for value in values], is_log=is_log)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    more = [ring("recommended", INK)]
    if any(setting["replicates"] > 1 for setting in settings):
        more.append(Line2D([], [], linestyle="", marker=".", color=COLOURS["student"], alpha=0.45, label="one run"))
    add_legend(figure, panels[0], more)
    return figure


def seed_strip(content: Mapping[str, Any]) -> Figure:
    """Student and baseline of each replicate of the only setting; dashed lines are the means."""
    keys = content["replicate_keys"]
    runs = [run for run in content["runs"] if run["status"] == "completed"]
    runs.sort(key=lambda run: [order(run["values"][key]) for key in keys])
    names = [", ".join(shown(run["values"][key]) for key in keys) for run in runs]
    places = [float(place) for place in range(len(runs))]
    figure, panels = _panels(_room(names))
    for axes, (label, figure_name) in zip(panels, SPLITS.items(), strict=True):
        for stage, name in (("baseline", f"baseline_{figure_name}"), ("student", figure_name)):
            points = [(place, run[name]) for place, run in zip(places, runs, strict=True) if run[name] is not None]
            if not points:
                continue
            style: dict[str, Any] = {"color": COLOURS[stage], "marker": MARKERS[stage], "markersize": 7}
            axes.plot(*zip(*points, strict=True), linestyle="", label=stage, **style)
            mean = content["settings"][0][name]["mean"]
            axes.axhline(mean, color=COLOURS[stage], linestyle="--", linewidth=1)
        for place, run in zip(places, runs, strict=True):
            pair = [run[f"baseline_{figure_name}"], run[figure_name]]
            if pair[0] is not None:
                axes.plot([place, place], pair, color=COLOURS["student"], linewidth=1, alpha=0.5, zorder=1)
        dress(axes, label, ", ".join(keys))
        _name_values(axes, places, names, is_log=False)
        axes.set_xlim(-0.5, len(runs) - 0.5)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    add_legend(figure, panels[0], [Line2D([], [], color=INK, linestyle="--", linewidth=1, label="means")])
    return figure


def axis_places(values: Sequence[Any]) -> tuple[list[float], bool]:
    """Where sorted values stand on an axis, and whether it is logarithmic: numbers by size, all else in order."""
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        return [float(place) for place in range(len(values))], False
    return [float(value) for value in values], values[0] > 0 and values[-1] > WIDE_SPAN * values[0]


def _panels(room: float) -> tuple[Figure, list[Axes]]:
    return lay_out(2, (4.2, 2.95), left=0.8, bottom=0.55 + room, top=0.45, gap=0.85)


def _room(values: Sequence[Any]) -> float:
    """Inches below an axis for names that stand upright."""
    longest = max(len(shorten(shown(value))) for value in values)
    return 0.07 * longest if longest > 5 else 0.0


def _draw_means(axes: Axes, places: list[float], settings: list[dict[str, Any]], figure_name: str) -> None:
    means = [setting[figure_name]["mean"] for setting in settings]
    style: dict[str, Any] = {"color": COLOURS["student"], "marker": MARKERS["student"], "markersize": 4}
    axes.plot(places, means, label="student, mean", **style)
    spans = [(place, setting[figure_name]) for place, setting in zip(places, settings, strict=True)]
    spans = [(place, span) for place, span in spans if span["low"] is not None]
    if spans:
        low, high = ([span[end] for _, span in spans] for end in ("low", "high"))
        band: dict[str, Any] = {"color": COLOURS["student"], "alpha": 0.15, "linewidth": 0, "label": "95% interval"}
        axes.fill_between([place for place, _ in spans], low, high, **band)
    alone = [(place, setting[f"baseline_{figure_name}"]) for place, setting in zip(places, settings, strict=True)]
    alone = [(place, level["mean"]) for place, level in alone if level is not None]
    if alone:
        axes.plot(*zip(*alone, strict=True), "--", color=COLOURS["baseline"], label="baseline, mean")


def _name_values(axes: Axes, places: list[float], names: list[str], *, is_log: bool) -> None:
    if is_log:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    step = -(-len(names) // MAX_TICKS)
    texts = [shorten(name) for name in names]
    rotation = 90 if max(map(len, texts)) > 5 else 0
    axes.set_xticks(places[::step], texts[::step], rotation=rotation, parse_math=False)
