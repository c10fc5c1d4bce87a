"""What all figures share: colours, panels, and drawing. Importing this module imports matplotlib.

Figures are drawn without pyplot: no window opens, and no state is kept between two figures. Every margin is set in
inches: a layout engine would draw each figure twice, and take longer than a short training.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image

from distill_run.files import write_bytes
from distill_run.report.png import data_uri, png_of

T = TypeVar("T")

DOTS_PER_INCH = 160
COLOURS = {"teacher": "#667080", "baseline": "#b85c00", "student": "#1565c0"}
MARKERS = {"teacher": "s", "baseline": "^", "student": "o"}
INK, MUTED, FAINT = "#1f2733", "#98a1ae", "#d9dee6"
MAX_MARKS = 200  # more settings or runs cannot be told apart
STEPS = [1, 2, 2.5, 5, 10]  # between the ticks of an axis


@dataclass(frozen=True)
class Picture:
    """A PNG with its file's name, its title, a text for readers who cannot see it (`alt`), and a caption."""

    name: str
    title: str
    alt: str
    caption: str
    png: bytes

    @property
    def uri(self) -> str:
        """The PNG in a data URI."""
        return data_uri(self.png)

    def save(self, folder: Path) -> None:
        """Write the PNG as <name>.png, whole or not at all."""
        write_bytes(folder / f"{self.name}.png", self.png)


def render(figure: Figure) -> bytes:
    """The figure as a PNG without date and version: the same figure gives the same bytes."""
    return png_of(image_of(figure))


def image_of(figure: Figure) -> Image.Image:
    """The figure as pixels in RGB."""
    canvas: Any = FigureCanvasAgg(figure)
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        canvas.draw()  # warns of characters that the font lacks; the text of the page shows them
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """Images of one height in one."""
    whole = Image.new("RGB", (sum(image.width for image in images), images[0].height))
    left = 0
    for image in images:
        whole.paste(image, (left, 0))
        left += image.width
    return whole


def lay_out(
    count: int,
    size: tuple[float, float],
    *,
    left: float,
    bottom: float,
    top: float,
    right: float = 0.25,
    gap: float = 0.0,
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels of one size side by side. All sizes and margins are in inches."""
    width, height = left + count * size[0] + (count - 1) * gap + right, bottom + size[1] + top
    figure = Figure((width, height), DOTS_PER_INCH, facecolor="white")
    panels = []
    for index in range(count):
        x = left + index * (size[0] + gap)
        panels.append(figure.add_axes((x / width, bottom / height, size[0] / width, size[1] / height)))
    return figure, panels


def spread(items: Sequence[T]) -> Sequence[T]:
    """The items, or MAX_MARKS of them at most: the first and others in equal steps."""
    return items[:: max(1, -(-len(items) // MAX_MARKS))]


def dress(axes: Axes, y_label: str, x_label: str) -> None:
    """Give axes their labels, a faint grid and no frame."""
    axes.set_ylabel(y_label)
    axes.set_xlabel(x_label, parse_math=False)
    axes.grid(color=FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(length=0, pad=5, labelsize=9)
    axes.yaxis.set_major_locator(MaxNLocator(7, steps=STEPS))


def add_legend(figure: Figure, axes: Axes, more: list[Line2D]) -> None:
    """Put a legend above the panels: the labelled lines of `axes`, and the marks in `more`."""
    handles = [*axes.get_legend_handles_labels()[0], *more]
    figure.legend(handles=handles, loc="upper center", ncols=len(handles), frameon=False)


def ring(label: str, colour: str) -> Line2D:
    """A ring around what was chosen."""
    style: dict[str, Any] = {"marker": "o", "markersize": 11, "markeredgewidth": 1.8}
    return Line2D([], [], linestyle="", markerfacecolor="none", markeredgecolor=colour, label=label, **style)
