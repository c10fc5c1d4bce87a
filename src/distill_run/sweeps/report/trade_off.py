"""Accuracy against what a network costs: its size, and its latency where the runs measured it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, PercentFormatter

from distill_run.report.drawing import COLOURS, INK, MARKERS, MUTED, add_legend, dress, lay_out, ring
from distill_run.sweeps.report.curves import scale_of
from distill_run.sweeps.report.sweep_report import NetworkCost, SweepReport
from distill_run.sweeps.values import setting_name
from distill_run.units import shorten

MAX_NAME_LENGTH = 22  # characters
ROOM = 0.3  # of the panel's width, left of the marks, for the names


class Axis(NamedTuple):
    """A kind of cost: its name, its unit, and a network's cost in it."""

    name: str
    unit: str
    of: Callable[[NetworkCost], float]


SIZE = Axis("size of the weights", "MB", lambda network: network.bytes / 1e6)
MACS = Axis("multiply-adds per image", "million", lambda network: network.macs / 1e6)
LATENCY = Axis("latency of one image, 1 thread", "ms", lambda network: 1000 * (network.latency_seconds or 0.0))


def has_trade_off(report: SweepReport) -> bool:
    """Whether the accuracies can be compared, and the students differ in size or work."""
    students = {(network.bytes, network.macs) for network in report.networks if network.stage == "student"}
    return report.recommendation is not None and len(students) > 1


def axes_of(report: SweepReport) -> tuple[Axis, Axis]:
    """The two costs that are shown: multiply-adds where not every network was timed."""
    is_timed = all(network.latency_seconds is not None for network in report.networks)
    return SIZE, LATENCY if is_timed else MACS


def pareto_front(networks: Sequence[NetworkCost], axis: Axis) -> list[NetworkCost]:
    """The networks that are better on validation than all that cost as little or less, the cheapest first."""
    front: list[NetworkCost] = []
    for network in sorted(networks, key=lambda each: (axis.of(each), -each.val_accuracy)):
        if not front or network.val_accuracy > front[-1].val_accuracy:
            front.append(network)
    return front


def network_name(network: NetworkCost, report: SweepReport) -> str:
    """The architecture, or the setting where students of several sizes have the same."""
    kinds = {(each.architecture, each.bytes, each.macs) for each in report.networks if each.stage == "student"}
    is_telling = [architecture for architecture, _, _ in kinds].count(network.architecture) == 1
    if network.setting is None or is_telling:
        return network.architecture
    return setting_name(report.settings[network.setting].values)


def trade_off(report: SweepReport) -> Figure:
    """Validation accuracy by each of two costs, with the Pareto front."""
    figure, panels = lay_out(2, (4.2, 2.95), left=0.8, bottom=0.55, top=0.45, gap=0.85)
    for panel, axis in zip(panels, axes_of(report), strict=True):
        _draw_networks(panel, report, axis)
        dress(panel, "validation accuracy", f"{axis.name} ({axis.unit})")
        panel.yaxis.set_major_formatter(PercentFormatter(1))
    add_legend(figure, panels[0], [ring("recommended", INK)])
    return figure


def _draw_networks(panel: Axes, report: SweepReport, axis: Axis) -> None:
    front = pareto_front(report.networks, axis)
    _set_scale(panel, sorted(axis.of(network) for network in report.networks))
    points = _points(front, axis)
    panel.plot(*points, drawstyle="steps-post", color=MUTED, linewidth=1.2, zorder=1, label="Pareto front")
    for stage in COLOURS:
        marks = [network for network in report.networks if network.stage == stage]
        if marks:
            style: dict[str, Any] = {"markersize": 6, "color": COLOURS[stage], "label": stage}
            panel.plot(*_points(marks, axis), MARKERS[stage], **style)
    best = ring("_recommended", INK)  # a leading underscore keeps it out of the legend
    best.set_data(*_points([network for network in report.networks if network.setting == 0], axis))
    panel.add_line(best)
    for network in front:
        name = shorten(network_name(network, report), MAX_NAME_LENGTH)
        at = (axis.of(network), network.val_accuracy)
        # There is no mark above and left of a network on the front.
        style = {"xytext": (-5, 4), "textcoords": "offset points", "ha": "right", "fontsize": 8}
        panel.annotate(name, at, color=COLOURS[network.stage], parse_math=False, **style)


def _points(networks: Sequence[NetworkCost], axis: Axis) -> tuple[list[float], list[float]]:
    return [axis.of(network) for network in networks], [network.val_accuracy for network in networks]


def _set_scale(panel: Axes, costs: Sequence[float]) -> None:
    """A logarithmic axis for costs that differ much, with room for names at its left end."""
    low, high = costs[0], costs[-1]
    if scale_of(costs) == "log":
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 500 * low else (1.0,)))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter("{x:g}")
        panel.set_xlim(low * (low / high) ** ROOM, high * (high / low) ** 0.06)
    else:
        panel.set_xlim(low - ROOM * (high - low), high + 0.06 * (high - low))
