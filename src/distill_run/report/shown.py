"""A run's report as Python shows it: a table of text where it is printed, one of HTML in a notebook."""

from collections.abc import Sequence
from pathlib import Path

from distill_run.report.cells import NETWORK_COLUMNS, network_rows
from distill_run.report.network_report import NamedNetwork
from distill_run.report.typesetting import templates
from distill_run.units import shown_path


def as_text(networks: Sequence[NamedNetwork], conclusion: str, page: Path) -> str:
    """The networks, the conclusion and the place of the page."""
    table = [["", *NETWORK_COLUMNS.values()], *network_rows(networks)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for first, *cells in table:
        figures = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *figures]))
    return "\n".join([*lines, conclusion, shown_path(page)])


def as_html(networks: Sequence[NamedNetwork], conclusion: str, page: Path) -> str:
    """The same for a notebook, with a link to the page."""
    return (
        templates()
        .get_template("shown.html")
        .render(
            columns=NETWORK_COLUMNS.values(),
            rows=network_rows(networks),
            conclusion=conclusion,
            page=shown_path(page),
        )
    )
