"""The table of a student's exported files, for the console and the pages."""

from collections.abc import Sequence

from distill_run.report.figures import ExportReport
from distill_run.units import NONE, change, percent, quantity

COLUMNS = (
    *("file", "size", "images", "largest difference", "decisions changed", "test acc", "95% interval", "change"),
    *("ms a batch of 1", "of 64"),
)
SPARE = ("of 64", "ms a batch of 1", "images", "95% interval", "change")  # a narrow terminal leaves them out, in turn


def export_rows(reports: Sequence[ExportReport]) -> list[list[str]]:
    """A row for each file; the change is in percentage points, with its interval."""
    return [_row(report) for report in reports]


def _row(report: ExportReport) -> list[str]:
    interval, span = NONE, ""
    if report.accuracy_interval is not None and report.change_interval is not None:
        interval = "{:.1%} to {:.1%}".format(*report.accuracy_interval)
        span = " ({:+.2f} to {:+.2f})".format(*(100 * bound for bound in report.change_interval))
    times = [f"{report.milliseconds[size]:.2f}" if size in report.milliseconds else NONE for size in ("1", "64")]
    return [
        report.file,
        quantity(report.bytes) + "B",
        f"{report.images:,}",
        f"{report.largest_difference:.2g}",
        f"{report.decisions_changed:,}",
        percent(report.accuracy),
        interval,
        change(report.change) + span,
        *times,
    ]
