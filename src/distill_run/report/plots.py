"""A report's figures, drawn without pyplot: no window, no state between two of them."""

import itertools
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from distill_run.evaluate import NUM_BINS, confusion, measure, reliability
from distill_run.report.samples import Decision, Sample
from distill_run.stages.training import Trained

COLOURS = {"teacher": "#667080", "baseline": "#b85c00", "student": "#1565c0"}
MARKERS = {"teacher": "s", "baseline": "^", "student": "o"}
INK, MUTED, FAINT = "#1f2733", "#98a1ae", "#d9dee6"
MAX_NAMED_CLASSES = 20
MAX_COUNTED_CLASSES = 12
MAX_NAME_LENGTH = 14
SHEET_COLUMNS = 6


def learning_curves(networks: Mapping[str, Trained]) -> Figure:
    """Validation accuracy and training loss against epochs; a network that came trained is a level line."""
    figure = _figure(10, 4.2)
    accuracy, loss = figure.subplots(1, 2)
    for stage, trained in networks.items():
        if trained.history:
            _draw_history(accuracy, loss, stage, trained)
        else:
            level = trained.selected["val"]["accuracy"]
            accuracy.axhline(level, color=COLOURS[stage], linestyle="--", label=f"{stage} (came trained)")
    _dress(accuracy, "validation accuracy", "epoch")
    _dress(loss, "training loss", "epoch")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    for axes in (accuracy, loss):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure, accuracy, [_ring("selected epoch", INK)])
    return figure


def _draw_history(accuracy: Axes, loss: Axes, stage: str, trained: Trained) -> None:
    epochs = [row["epoch"] for row in trained.history]
    style: dict[str, Any] = {"color": COLOURS[stage], "marker": MARKERS[stage], "markersize": 4}
    style["markevery"] = max(len(epochs) // 25, 1)
    accuracy.plot(epochs, [row["val"]["accuracy"] for row in trained.history], label=stage, **style)
    loss.plot(epochs, [row["train"]["loss"] for row in trained.history], label=stage, **style)
    selected = trained.selected
    ring = _ring("_selected", COLOURS[stage])  # a leading underscore keeps it out of the legend
    ring.set_data([selected["epoch"]], [selected["val"]["accuracy"]])
    accuracy.add_line(ring)


def lr_search_curve(networks: Mapping[str, Trained]) -> Figure:
    """Validation accuracy of each learning rate that was tried; crosses at the foot have diverged."""
    figure = _figure(7, 3.8)
    axes = figure.subplots()
    for stage, trained in networks.items():
        # The students share one search; it is drawn once.
        if trained.lr_search and not (stage == "baseline" and "student" in networks):
            _draw_search(axes, stage, trained)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    _dress(axes, "validation accuracy", "learning rate")
    _legend(figure, axes, [_ring("chosen", INK), _cross("diverged", INK)])
    return figure


def _draw_search(axes: Axes, stage: str, trained: Trained) -> None:
    points: list[dict[str, Any]] = sorted(trained.lr_search, key=lambda point: point["lr"] or 0.0)
    tried = {point["lr"]: point["val_accuracy"] for point in points if point["val_accuracy"] is not None}
    diverged = [point["lr"] for point in points if point["val_accuracy"] is None]
    style: dict[str, Any] = {"color": COLOURS[stage], "marker": MARKERS[stage], "markersize": 4}
    axes.plot(list(tried), list(tried.values()), label=stage, **style)
    chosen = _ring("_chosen", COLOURS[stage])
    rate: Any = trained.learning_rate
    chosen.set_data([rate], [tried[rate]])
    axes.add_line(chosen)
    crosses = _cross("_diverged", COLOURS[stage])
    crosses.set_transform(axes.get_xaxis_transform())  # heights are shares of the axes
    crosses.set_data(diverged, [0.03] * len(diverged))
    axes.add_line(crosses)


def confusion_matrices(logits: Mapping[str, Tensor], targets: Tensor, classes: tuple[str, ...]) -> Figure:
    """A matrix for each network's logits (N, K): rows are targets (N,), columns decisions.

    The shades follow the square root of the share of the row, so that rare mistakes can be seen.
    """
    # Names stand upright below a matrix; it is to be as large with long ones as with short ones.
    room = 0.09 * max(map(len, map(shorten, classes))) if len(classes) <= MAX_NAMED_CLASSES else 0.0
    figure = _figure(4 * len(logits) + 0.4 + room, 4.4 + room)
    panels = figure.subplots(1, len(logits), squeeze=False, sharey=True)[0]
    for axes, (stage, each) in zip(panels, logits.items(), strict=True):
        counts = confusion(each, targets)
        shares = counts / counts.sum(1, keepdim=True).clamp_min(1)
        image = axes.imshow(shares.numpy(), cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
        axes.set_title(stage, color=COLOURS[stage], fontweight="bold")
        axes.set_xlabel("decision")
        _name_classes(axes, classes)
        if len(classes) <= MAX_COUNTED_CLASSES:
            _write_counts(axes, counts, shares)
    panels[0].set_ylabel("target")
    figure.colorbar(image, ax=list(panels), format=PercentFormatter(1, 0), shrink=0.75, ticks=[0, 0.05, 0.25, 0.5, 1])
    return figure


def _name_classes(axes: Axes, classes: tuple[str, ...]) -> None:
    axes.tick_params(length=0, labelsize=8)
    if len(classes) > MAX_NAMED_CLASSES:
        axes.set_xticks([])
        axes.set_yticks([])
        return
    names = [shorten(name) for name in classes]
    rotation = 90 if max(map(len, names)) > 2 else 0
    axes.set_xticks(range(len(names)), names, rotation=rotation, parse_math=False)
    axes.set_yticks(range(len(names)), names, parse_math=False)


def _write_counts(axes: Axes, counts: Tensor, shares: Tensor) -> None:
    for row, column in counts.nonzero().tolist():
        colour = "white" if shares[row, column] > 0.4 else INK
        axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=colour, fontsize=7)


def reliability_diagrams(logits: Mapping[str, Tensor], targets: Tensor) -> Figure:
    """Accuracy against mean confidence in 15 bins of logits (N, K); below, each bin's share of the images."""
    figure = _figure(3.6 * len(logits), 4.6)
    panels = figure.subplots(2, len(logits), squeeze=False, sharex=True, sharey="row", height_ratios=[4, 1])
    for upper, lower, (stage, each) in zip(*panels, logits.items(), strict=True):
        _draw_reliability(upper, lower, stage, each, targets)
        _dress(upper, "", "")
        _dress(lower, "", "confidence")
        for axis in (upper.yaxis, lower.yaxis, lower.xaxis):
            axis.set_major_formatter(PercentFormatter(1, 0))
    panels[0][0].set_ylabel("accuracy")
    panels[1][0].set_ylabel("images")
    return figure


def _draw_reliability(upper: Axes, lower: Axes, stage: str, logits: Tensor, targets: Tensor) -> None:
    confidence, accuracy, share = reliability(logits, targets)
    filled = share > 0
    x, y = confidence[filled].tolist(), accuracy[filled].tolist()
    upper.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1)
    upper.plot(x, y, color=COLOURS[stage], linewidth=1, alpha=0.5)
    sizes = (15 + 150 * share[filled]).tolist()  # a bin of many images weighs more
    upper.scatter(x, y, sizes, color=COLOURS[stage], marker=MARKERS[stage])
    centres = [(i + 0.5) / NUM_BINS for i in range(NUM_BINS)]
    lower.bar(centres, share.tolist(), width=0.9 / NUM_BINS, color=COLOURS[stage])
    ece = measure(logits, targets)["ece"]
    upper.set_title(f"{stage}: ECE {ece:.3f}", color=COLOURS[stage], fontweight="bold")


def contact_sheet(samples: list[Sample]) -> Figure:
    """The images with their targets and what each network said; a tick is right, a cross is wrong."""
    num_rows = -(-len(samples) // SHEET_COLUMNS)
    figure = _figure(11, 2.9 * num_rows)
    panels = figure.subplots(num_rows, SHEET_COLUMNS, squeeze=False).flat
    for axes, sample in itertools.zip_longest(panels, samples):
        axes.set_axis_off()
        if sample is None:
            continue
        axes.imshow(sample.picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_title(f"target: {shorten(sample.target)}", fontsize=10, fontweight="bold", parse_math=False)
        for line, decision in enumerate(sample.decisions):
            _write_decision(axes, line, decision)
    return figure


def _write_decision(axes: Axes, line: int, decision: Decision) -> None:
    mark = "✓" if decision.is_right else "✗"
    text = f"{mark} {decision.stage}: {shorten(decision.answer)} ({decision.confidence:.0%})"
    height = -0.1 - 0.13 * line  # in heights of the image, from its foot
    style: dict[str, Any] = {"color": COLOURS[decision.stage], "fontsize": 8, "parse_math": False}
    axes.text(0, height, text, transform=axes.transAxes, **style)


def shorten(name: str) -> str:
    """A class name that fits beside others."""
    return name if len(name) <= MAX_NAME_LENGTH else name[: MAX_NAME_LENGTH - 1] + "…"


def _figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, whose parts make room for each other."""
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def _dress(axes: Axes, y_label: str, x_label: str) -> None:
    axes.set_ylabel(y_label)
    axes.set_xlabel(x_label)
    axes.grid(color=FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(color=MUTED, labelsize=9)


def _legend(figure: Figure, axes: Axes, more: list[Line2D]) -> None:
    handles = [*axes.get_legend_handles_labels()[0], *more]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)


def _ring(label: str, colour: str) -> Line2D:
    """A mark around a point that was chosen."""
    style: dict[str, Any] = {"marker": "o", "markersize": 11, "markeredgewidth": 1.8}
    return Line2D([], [], linestyle="", markerfacecolor="none", markeredgecolor=colour, label=label, **style)


def _cross(label: str, colour: str) -> Line2D:
    """A mark for what went wrong."""
    return Line2D([], [], linestyle="", marker="x", markersize=8, markeredgewidth=2, color=colour, label=label)
