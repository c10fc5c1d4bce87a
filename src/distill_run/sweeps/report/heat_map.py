"""A sweep over two keys as heat maps of validation and test accuracy side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from distill_run.report.drawing import FAINT, INK, lay_out
from distill_run.sweeps.report.sweep_report import SettingReport, SweepReport
from distill_run.sweeps.values import order, shown
from distill_run.units import shorten

# Blue with a lightness that falls evenly from 94 to 22: equal steps look equal.
BLUES = LinearSegmentedColormap.from_list(
    "blues", ["#e7eff7", "#c2d7ee", "#9fbee4", "#7ca6dc", "#588ed3", "#2f75c8", "#265ea7", "#1c4887", "#103369"]
)
DARK = 0.55  # the shade above which white text is easier to read than black
TITLES = {"val_accuracy": "validation accuracy, %", "test_accuracy": "test accuracy, %"}
CELL = (0.78, 0.55)  # inches, where there is room
MAX_SIZE = (4.4, 4.4)
MIN_SIZE = (2.2, 1.6)
MIN_FONT_SIZE = 4.5
MAX_TICKS = 30  # on each side: more names do not fit
LEAST_SPAN = 1e-4  # of a colour scale
MAX_CELLS_PER_SETTING = 3  # a grid with more holes is not shown as one

Sides = tuple[list[str], list[str]]  # the values of the rows and of the columns, as they are shown
Index = tuple[int, int]  # row and column of a cell
Cells = Mapping[Index, SettingReport]


def is_grid(report: SweepReport) -> bool:
    """Whether the settings fill a good part of the grid that the values of the two keys span."""
    rows, columns = _sides(report)
    return len(rows) * len(columns) <= MAX_CELLS_PER_SETTING * len(report.settings)


def heat_maps(report: SweepReport) -> Figure:
    """A cell with the mean of each setting. Cells without a completed run are hatched, the recommended is framed."""
    row_key, column_key = side_keys(report)
    rows, columns = _sides(report)
    size = (
        min(max(CELL[0] * len(columns), MIN_SIZE[0]), MAX_SIZE[0]),
        min(max(CELL[1] * len(rows), MIN_SIZE[1]), MAX_SIZE[1]),
    )
    beside, below = (0.09 * max(map(len, map(shorten, names))) for names in (rows, columns))
    upright = below > size[0] / len(columns)
    bottom = 0.5 + (below if upright else 0.1)
    figure, panels = lay_out(2, size, left=0.5 + beside, bottom=bottom, top=0.4, right=0.8, gap=0.95)
    cells = _cells(report, rows, columns)
    for axes, (name, title) in zip(panels, TITLES.items(), strict=True):
        _draw_map(axes, name, cells, (len(rows), len(columns)))
        if report.recommendation is not None:
            _frame(axes, next(iter(cells)))
        axes.set_title(title, fontsize=10, fontweight="bold", color=INK, y=1)  # a fixed height saves a slow layout
        axes.set_xticks(*_ticks(columns), rotation=90 if upright else 0, parse_math=False)
        axes.set_yticks(*_ticks(rows), parse_math=False)
        axes.tick_params(length=0, labelsize=8, labelleft=axes is panels[0])
        axes.set_xlabel(column_key, parse_math=False)
    panels[0].set_ylabel(row_key, parse_math=False)
    return figure


def side_keys(report: SweepReport) -> tuple[str, str]:
    """The keys of the rows and of the columns: the one with more values has the columns."""
    first, second = report.keys
    return (second, first) if len(_names(report, first)) > len(_names(report, second)) else (first, second)


def _sides(report: SweepReport) -> Sides:
    rows, columns = side_keys(report)
    return _names(report, rows), _names(report, columns)


def _names(report: SweepReport, key: str) -> list[str]:
    values = sorted((setting.values[key] for setting in report.settings), key=order)
    return list(dict.fromkeys(map(shown, values)))


def _cells(report: SweepReport, rows: Sequence[str], columns: Sequence[str]) -> Cells:
    """The setting of each cell, the best first."""
    row_key, column_key = side_keys(report)
    row_of, column_of = ({name: index for index, name in enumerate(names)} for names in (rows, columns))
    cells: dict[Index, SettingReport] = {}
    for setting in report.settings:
        place = row_of[shown(setting.values[row_key])], column_of[shown(setting.values[column_key])]
        cells.setdefault(place, setting)
    return cells


def _ticks(names: Sequence[str]) -> tuple[range, list[str]]:
    """The places of the names on a side, and the names; of many, each second, or third, and so on."""
    step = -(-len(names) // MAX_TICKS)
    return range(0, len(names), step), [shorten(name) for name in names[::step]]


def _frame(axes: Axes, cell: Index) -> None:
    row, column = cell
    for colour, width in (("white", 5.0), (INK, 2.2)):
        axes.add_patch(
            Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=colour, linewidth=width, clip_on=False)
        )


def _draw_map(axes: Axes, name: str, cells: Cells, shape: Index) -> None:
    means = np.full(shape, np.nan)
    for cell, setting in cells.items():
        if (found := setting.figure(name)) is not None:
            means[cell] = found.mean
    axes.patch.set(facecolor="#f4f6f9", hatch="////", edgecolor=FAINT)  # visible in cells without a mean
    low, high = np.nanmin(means), np.nanmax(means)
    image = axes.imshow(means, cmap=BLUES, aspect="auto", vmin=low, vmax=max(high, low + LEAST_SPAN))
    shades = (means - low) / max(high - low, LEAST_SPAN)
    _write_means(axes, name, cells, shades)
    axes.spines[:].set_visible(False)
    bar = axes.inset_axes((1.04, 0.0, 0.03, 1.0))
    axes.figure.colorbar(image, bar, format=PercentFormatter(1, symbol=""))
    bar.tick_params(length=0, labelsize=7)
    bar.spines[:].set_visible(False)


def _write_means(axes: Axes, name: str, cells: Cells, shades: NDArray[np.float64]) -> None:
    width, height = _cell_size(axes, shades.shape)
    size = min(9.0, width / 3.9, height / 3.2)  # five digits and a decimal point; two lines
    if size < MIN_FONT_SIZE:
        return
    for (row, column), setting in cells.items():
        if (found := setting.figure(name)) is None:
            continue
        text = f"{100 * found.mean:.2f}" + ("" if found.sd is None else f"\n± {100 * found.sd:.2f}")
        colour = "white" if shades[row, column] > DARK else INK
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour, linespacing=1.25)


def _cell_size(axes: Axes, shape: tuple[int, ...]) -> tuple[float, float]:
    """Width and height of a cell in 1/72 inch, the unit of font sizes."""
    box, figure = axes.get_position(), axes.get_figure()
    assert isinstance(figure, Figure)
    width, height = figure.get_size_inches()
    return 72 * width * box.width / shape[1], 72 * height * box.height / shape[0]
