"""The figures of a run's report. drawing.py has what all figures share."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from matplotlib.ticker import FixedLocator, MaxNLocator, PercentFormatter
from matplotlib.transforms import Affine2D, IdentityTransform
from torch import Tensor

from distill_run.data.corruptions import SEVERITIES
from distill_run.engine.evaluate import NUM_BINS, confusion, measure, reliability
from distill_run.engine.selection import FIGURE_NAMES
from distill_run.report.drawing import COLOURS, INK, MARKERS, MUTED, STEPS, add_legend, dress, lay_out, ring
from distill_run.report.figures import Robustness
from distill_run.stages.trained import Trained
from distill_run.units import shorten

MAX_NAMED_CLASSES = 20
MAX_COUNTED_CLASSES = 12
MATRIX_SIZE = 3.1  # inches
NAME_MARGIN = 0.016  # between a matrix and the names of its classes, as a share of its size
MAX_RATE_GAPS = 8


def learning_curves(networks: Mapping[str, Trained]) -> Figure:
    """Validation accuracy and training loss by epoch; a network that was loaded is a horizontal line."""
    figure, (accuracy, loss) = lay_out(2, (4.2, 2.95), left=0.75, bottom=0.55, top=0.45, gap=0.75)
    for stage, trained in networks.items():
        if trained.history:
            _draw_history(accuracy, loss, stage, trained)
        else:
            level = trained.selected.val["accuracy"]
            accuracy.axhline(level, color=COLOURS[stage], linestyle="--", label=f"{stage} (loaded)")
    dress(accuracy, "validation accuracy", "epoch")
    dress(loss, "training loss", "epoch")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    for axes in (accuracy, loss):
        axes.xaxis.set_major_locator(MaxNLocator(7, steps=STEPS, integer=True))
    add_legend(figure, accuracy, [ring("selected epoch", INK)])
    return figure


def _draw_history(accuracy: Axes, loss: Axes, stage: str, trained: Trained) -> None:
    epochs = [row["epoch"] for row in trained.history]
    style: dict[str, Any] = {"color": COLOURS[stage], "marker": MARKERS[stage], "markersize": 4}
    style["markevery"] = max(len(epochs) // 25, 1)
    accuracy.plot(epochs, [row["val"]["accuracy"] for row in trained.history], label=stage, **style)
    loss.plot(epochs, [row["train"]["loss"] for row in trained.history], label=stage, **style)
    epoch: Any = trained.selected.epoch
    mark = ring("_selected", COLOURS[stage])  # a leading underscore keeps it out of the legend
    mark.set_data([epoch], [trained.selected.val["accuracy"]])
    accuracy.add_line(mark)


def lr_search_curve(networks: Mapping[str, Trained]) -> Figure:
    """The validation figure of each learning rate that was tried; crosses at the bottom are rates that diverged.

    It is the figure that selects, the same for all networks.
    """
    figure, [axes] = lay_out(1, (6, 2.75), left=0.75, bottom=0.55, top=0.45)
    axes.set_xscale("log", subs=[])  # no minor ticks
    for stage, trained in networks.items():
        # Baseline and student share one search; it is drawn once.
        if trained.lr_search and not (stage == "baseline" and "student" in networks):
            _draw_search(axes, stage, trained)
    rates = {trial["lr"] for trained in networks.values() for trial in trained.lr_search if trial["lr"]}
    axes.set_xticks(_apart(sorted(rates)))
    axes.xaxis.set_major_formatter("{x:g}")
    select_by = networks["student"].select_by
    assert select_by is not None
    if select_by != "nll":
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    dress(axes, f"validation {FIGURE_NAMES[select_by]}", "learning rate")
    add_legend(figure, axes, [ring("chosen", INK), _cross("diverged", INK)])
    return figure


def _apart(rates: list[float]) -> list[float]:
    """The sorted rates without those whose labels would overlap on a logarithmic axis."""
    step = (rates[-1] / rates[0]) ** (1 / MAX_RATE_GAPS)
    kept = rates[:1]
    for rate in rates:
        if rate > kept[-1] * step:
            kept.append(rate)
    return kept


def _draw_search(axes: Axes, stage: str, trained: Trained) -> None:
    trials: list[dict[str, Any]] = sorted(trained.lr_search, key=lambda trial: trial["lr"] or 0.0)
    figure = f"val_{trained.select_by}"
    tried = {trial["lr"]: trial[figure] for trial in trials if trial[figure] is not None}
    diverged = [trial["lr"] for trial in trials if trial[figure] is None]
    style: dict[str, Any] = {"color": COLOURS[stage], "marker": MARKERS[stage], "markersize": 4}
    axes.plot(list(tried), list(tried.values()), label=stage, **style)
    chosen = ring("_chosen", COLOURS[stage])
    rate: Any = trained.learning_rate
    chosen.set_data([rate], [tried[rate]])
    axes.add_line(chosen)
    crosses = _cross("_diverged", COLOURS[stage])
    crosses.set_transform(axes.get_xaxis_transform())  # heights are shares of the panel
    crosses.set_data(diverged, [0.03] * len(diverged))
    axes.add_line(crosses)


def confusion_matrix(
    stage: str, logits: Tensor, targets: Tensor, classes: tuple[str, ...], *, is_first: bool, is_last: bool
) -> Figure:
    """The matrix of a network's logits (N, K): rows are targets (N,), columns are decisions.

    The shade is the square root of the share of the row, so that rare mistakes can be seen. The first of several, side
    by side, has the names of the rows, the last one the scale.
    """
    # The margins grow with the class names, so that the matrix keeps its size.
    room = 0.08 + 0.068 * max(map(len, map(shorten, classes))) if len(classes) <= MAX_NAMED_CLASSES else 0.0
    label_pad = 3 + 72 * room  # points
    left, right = 0.4 + room if is_first else 0.075, 1.05 if is_last else 0.075
    size = (MATRIX_SIZE, MATRIX_SIZE)
    figure, [axes] = lay_out(1, size, left=left, bottom=0.35 + room, top=0.35, right=right)
    counts = confusion(logits, targets)
    shares = counts / counts.sum(1, keepdim=True).clamp_min(1)
    image = axes.imshow(shares.numpy(), cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    _title(axes, stage, stage)
    _name_classes(axes, classes, with_rows=is_first)
    axes.set_xlabel("decision", labelpad=label_pad)
    if len(classes) <= MAX_COUNTED_CLASSES:
        _write_counts(axes, counts, shares)
    if is_first:
        axes.set_ylabel("target", labelpad=label_pad)
    if is_last:
        beside = axes.inset_axes((1.06, 0.1, 0.04, 0.8))
        figure.colorbar(image, beside, format=PercentFormatter(1, 0), ticks=[0, 0.05, 0.25, 0.5, 1])
    return figure


def _name_classes(axes: Axes, classes: tuple[str, ...], *, with_rows: bool) -> None:
    """Write the names as texts: a tick of an axis takes ten times as long."""
    axes.set_xticks([])
    axes.set_yticks([])
    names = [shorten(name) for name in classes] if len(classes) <= MAX_NAMED_CLASSES else []
    style: dict[str, Any] = {"fontsize": 8, "parse_math": False}
    rotation = 90 if max(map(len, names), default=0) > 2 else 0
    below, beside = axes.get_xaxis_transform(), axes.get_yaxis_transform()
    for place, name in enumerate(names):
        axes.text(place, -NAME_MARGIN, name, transform=below, ha="center", va="top", rotation=rotation, **style)
        if with_rows:
            axes.text(-NAME_MARGIN, place, name, transform=beside, ha="right", va="center", **style)


def _write_counts(axes: Axes, counts: Tensor, shares: Tensor) -> None:
    """Write the numbers as outlines, all at once: as texts they would take half the time of a report."""
    cell, digits = 72 * MATRIX_SIZE / len(counts), len(str(int(counts.max())))
    size = min(8.0, 1.4 * cell / digits)  # a digit is 0.64 of its height wide
    cells = counts.nonzero().tolist()
    numbers = PathCollection(
        [outline(str(int(counts[row, column])), size) for row, column in cells],
        sizes=[1.0],
        transform=IdentityTransform(),
        offsets=[(column, row) for row, column in cells],
        offset_transform=axes.transData,
        facecolors=["white" if shares[row, column] > 0.4 else INK for row, column in cells],
        linewidths=0,
    )
    axes.add_collection(numbers, autolim=False)


@lru_cache(maxsize=1000)
def outline(number: str, size: float) -> Path:
    """The outline of a number, with its middle at 0; `size` is the height of the font in points."""
    path = TextPath((0, 0), number, size)
    box = path.get_extents()
    return path.transformed(Affine2D().translate(-(box.x0 + box.x1) / 2, -(box.y0 + box.y1) / 2))


def reliability_diagram(stage: str, logits: Tensor, targets: Tensor, *, is_first: bool, is_last: bool) -> Figure:
    """Accuracy by mean confidence in 15 bins, for logits (N, K); bars show each bin's share of the images.

    The first of several, side by side, has the labels of the vertical axis.
    """
    right = 0.25 if is_last else 0.2
    figure, [axes] = lay_out(1, (3.0, 3.0), left=0.75 if is_first else 0.05, bottom=0.55, top=0.35, right=right)
    _draw_reliability(axes, stage, logits, targets)
    dress(axes, "accuracy; bars: share of images" if is_first else "", "confidence")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
        axis.set_major_formatter(PercentFormatter(1, 0))
    axes.set(xlim=(-0.04, 1.04), ylim=(0, 1.05))
    axes.tick_params(labelleft=is_first)
    return figure


def _draw_reliability(axes: Axes, stage: str, logits: Tensor, targets: Tensor) -> None:
    confidence, accuracy, share = reliability(logits, targets)
    filled = share > 0
    x, y = confidence[filled].tolist(), accuracy[filled].tolist()
    width, margin = 1 / NUM_BINS, 0.05 / NUM_BINS
    corners = [_bar(i * width + margin, (i + 1) * width - margin, height) for i, height in enumerate(share.tolist())]
    axes.add_collection(PolyCollection(corners, facecolors=COLOURS[stage], alpha=0.25), autolim=False)
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1)
    axes.plot(x, y, color=COLOURS[stage], linewidth=1, alpha=0.5)
    sizes = (15 + 150 * share[filled]).tolist()  # a bin with many images has a large mark
    axes.scatter(x, y, sizes, color=COLOURS[stage], marker=MARKERS[stage], clip_on=False, zorder=3)
    _title(axes, stage, f"{stage}: ECE {measure(logits, targets)['ece']:.3f}")


def _bar(left: float, right: float, height: float) -> list[tuple[float, float]]:
    return [(left, 0), (left, height), (right, height), (right, 0)]


def robustness_curves(robustness: Robustness) -> Figure:
    """Accuracy by severity, a panel for each corruption; severity 0 is the images as they are."""
    figure, panels = lay_out(len(robustness.corrupted), (2.15, 2.2), left=0.75, bottom=0.55, top=0.7, gap=0.2)
    every = [share for each in robustness.corrupted.values() for shares in each.values() for share in shares]
    lowest = min([*every, *robustness.clean.values()])
    for axes, (name, accuracies) in zip(panels, robustness.corrupted.items(), strict=True):
        for stage, shares in accuracies.items():
            style: dict[str, Any] = {"color": COLOURS[stage], "marker": MARKERS[stage], "markersize": 4}
            axes.plot([0, *SEVERITIES], [robustness.clean[stage], *shares], label=stage, **style)
        dress(axes, "", "severity")
        axes.set_title(name, fontweight="bold", y=1)
        axes.set_xticks([0, *SEVERITIES])
        axes.set_ylim(max(lowest - 0.05, -0.02), 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
        axes.tick_params(labelleft=axes is panels[0])
    panels[0].set_ylabel("accuracy")
    add_legend(figure, panels[0], [])
    return figure


def _cross(label: str, colour: str) -> Line2D:
    """A mark for a training that diverged."""
    return Line2D([], [], linestyle="", marker="x", markersize=8, markeredgewidth=2, color=colour, label=label)


def _title(axes: Axes, stage: str, text: str) -> None:
    axes.set_title(text, color=COLOURS[stage], fontweight="bold", y=1)  # a fixed height saves a slow layout
