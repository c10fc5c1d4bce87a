"""The table of means of a sweep, a row for each setting: LaTeX for a paper, csv for a program, Markdown for a page."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from distill_run.report.paired import Estimate
from distill_run.report.typesetting import markdown_text
from distill_run.safe_text import csv_lines
from distill_run.sweeps.report.sweep_report import SweepReport
from distill_run.sweeps.report.tables import P_HEADING, Table, baseline_figures, settings_table
from distill_run.sweeps.setting import FIGURES
from distill_run.sweeps.values import shown

SPREAD = "Means over the {}s of a setting, ± their standard deviation in percentage points."
P_NOTE = "p: paired t-test of student and baseline over the seeds, corrected for the number of settings (Holm, 1979)."
LATEX_SIGNS = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''", "±": r"$\pm$", "≈": r"$\approx$",
    "\N{EN DASH}": "--", **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}  # fmt: skip
LATEX_SIGN = re.compile("|".join(map(re.escape, LATEX_SIGNS)))
MINUS = re.compile(r"^-(?=\d)")


def means_csv(report: SweepReport) -> str:
    """A row for each setting and one for the baseline, with mean, standard deviation and interval of each figure.

    Fractions, nats and seconds; a cell is empty where there is no value.
    """
    spreads = [f"{figure}{end}" for figure in FIGURES for end in ("", "_sd", "_low", "_high")]
    rows: list[list[Any]] = [["rank", *report.keys, f"{report.unit}s", *spreads, "p_value", "corrected_p"]]
    for rank, setting in enumerate(report.settings, start=1):
        values = [shown(setting.values[key]) for key in report.keys]
        figures = [number for name in FIGURES for number in _numbers(setting.figure(name))]
        rows.append([rank, *values, setting.replicates, *figures, setting.p_value, setting.corrected_p])
    if report.baseline is not None:
        found = baseline_figures(report.baseline)
        figures = [number for name in FIGURES for number in _numbers(found.get(name))]
        empty = [""] * len(report.keys)
        rows.append(["baseline", *empty, report.baseline.test_accuracy.count, *figures, "", ""])
    return csv_lines(rows)


def _numbers(found: Estimate | None) -> list[float | None]:
    return [None] * 4 if found is None else [found.mean, found.sd, found.low, found.high]


def means_markdown(report: SweepReport) -> str:
    """The table in Markdown, with its notes below it."""
    table = settings_table(report)
    marks = ["---" if column < table.num_texts else "---:" for column in range(len(table.headings))]
    lines = [_bars(map(markdown_text, table.headings)), _bars(marks)]
    lines += [_bars(markdown_text(cell.text) for cell in row) for row in (*table.rows, *table.footer)]
    return "\n".join([*lines, "", _notes(report, table)]) + "\n"


def means_latex(report: SweepReport) -> str:
    """The table in LaTeX, which needs the package booktabs."""
    table = settings_table(report)
    columns = "l" * table.num_texts + "r" * (len(table.headings) - table.num_texts)
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(_notes(report, table))}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _ampersands(table.headings),
        r"\midrule",
        *(_ampersands([cell.text for cell in row]) for row in table.rows),
        *([r"\midrule"] if table.footer else []),
        *(_ampersands([cell.text for cell in row]) for row in table.footer),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


FORMATS: dict[str, Callable[[SweepReport], str]] = {"latex": means_latex, "csv": means_csv, "md": means_markdown}


def latex_text(text: str) -> str:
    """A text that LaTeX shows as it is; the hyphen before a number becomes a minus."""
    return MINUS.sub("$-$", LATEX_SIGN.sub(lambda match: LATEX_SIGNS[match[0]], text))


def _notes(report: SweepReport, table: Table) -> str:
    is_replicated = any(setting.replicates > 1 for setting in report.settings)
    spread = SPREAD.format(report.unit) if is_replicated else "One run for each setting."
    return f"{spread} {P_NOTE}" if P_HEADING in table.headings else spread


def _ampersands(cells: Sequence[str]) -> str:
    return " & ".join(map(latex_text, cells)) + r" \\"


def _bars(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
