"""What all figures share: their colours, their panels, and the way to a PNG. Importing this module imports matplotlib.

Figures are drawn without pyplot: no window, no state between two of them. Every margin is set in inches: a layout
engine would draw each figure twice, and take longer than a short training.
"""

import base64
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image

from distill_run.files import atomic_path

DOTS_PER_INCH = 160
COLOURS = {"teacher": "#667080", "baseline": "#b85c00", "student": "#1565c0"}
MARKERS = {"teacher": "s", "baseline": "^", "student": "o"}
INK, MUTED, FAINT = "#1f2733", "#98a1ae", "#d9dee6"
MAX_NAME_LENGTH = 14
STEPS = [1, 2, 2.5, 5, 10]  # between the ticks of an axis


@dataclass(frozen=True)
class Picture:
    """A PNG, its file's name, and what it says to those who cannot see it (`alt`) and to those who can."""

    name: str
    title: str
    alt: str
    caption: str
    png: bytes

    @property
    def uri(self) -> str:
        """The PNG in a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()

    def save(self, folder: Path) -> None:
        """Write the PNG as <name>.png, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / f"{self.name}.png") as temporary:
            temporary.write_bytes(self.png)


def render(figure: Figure) -> bytes:
    """The figure as a PNG; the same figure gives the same bytes, without a date or a version."""
    canvas: Any = FigureCanvasAgg(figure)
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        canvas.draw()  # warns of class names in a script that the font lacks: the page's text has them right
    return png(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))


def png(image: Image.Image) -> bytes:
    """The image as a file's bytes."""
    file = io.BytesIO()
    image.save(file, format="PNG", compress_level=3)  # a third of the default's time, little larger
    return file.getvalue()


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
    """A figure of axes of one size side by side; margins too are in inches."""
    width, height = left + count * size[0] + (count - 1) * gap + right, bottom + size[1] + top
    figure = Figure((width, height), DOTS_PER_INCH, facecolor="white")
    place = (bottom / height, size[0] / width, size[1] / height)
    return figure, [figure.add_axes(((left + i * (size[0] + gap)) / width, *place)) for i in range(count)]


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
    """One line above the panels: what is labelled in `axes`, and the marks in `more`."""
    handles = [*axes.get_legend_handles_labels()[0], *more]
    figure.legend(handles=handles, loc="upper center", ncols=len(handles), frameon=False)


def ring(label: str, colour: str) -> Line2D:
    """A mark around a point that was chosen."""
    style: dict[str, Any] = {"marker": "o", "markersize": 11, "markeredgewidth": 1.8}
    return Line2D([], [], linestyle="", markerfacecolor="none", markeredgecolor=colour, label=label, **style)


def shorten(name: str) -> str:
    """A class name that fits beside others."""
    return name if len(name) <= MAX_NAME_LENGTH else name[: MAX_NAME_LENGTH - 1] + "…"
