"""Published rows beside ours: runs experiments with several seeds, in several precisions, and prints a table.

    python -m distill_run.benchmarks.published [--rows cifar100/resnet20_from_resnet56_soft,...]
        [--precisions fp32,bf16] [--seeds 3] [--list] dataset.root=DIR device=cuda [override ...]

Each run stands in a folder of its own below --folder, and shares its teacher with the others of its precision. What is
completed there is not run again, what was interrupted goes on. With --list, the commands are only printed.
"""

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from distill_run.config.compose import option_paths
from distill_run.console.console import Console
from distill_run.errors import leave, user_error
from distill_run.files import RunFiles
from distill_run.report.network_report import NetworkReport
from distill_run.report.run_report import RunReport, read_report
from distill_run.units import percent, with_spread

ROWS = "cifar100/resnet20_from_resnet56_soft,cifar100/resnet8x4_from_resnet32x4_soft"
NETWORKS = ("teacher", "student alone", "distilled")
FIGURES = re.compile(
    r"# Source: (.+)\n"
    r"# Published test accuracy, %: teacher ([\d.]+), student alone ([\d.]+), distilled ([\d.]+)\."
)


@dataclass(frozen=True)
class Row:
    """An experiment, what was published of it (fractions, in the order of NETWORKS), and whether of the last epoch."""

    name: str
    published: tuple[float, ...]
    is_of_last_epoch: bool

    @classmethod
    def of(cls, name: str) -> "Row":
        """The row that an experiment's file tells of; raises UserError where it tells of none."""
        paths = option_paths("experiment", None)
        found = FIGURES.search(paths[name].read_text(encoding="utf-8")) if name in paths else None
        if found is None:
            raise user_error(
                f"--rows={name} is not an experiment with published figures",
                f"choose files of conf/experiment, as in --rows {ROWS}",
            )
        source, *figures = found.groups()
        return cls(name, tuple(float(figure) / 100 for figure in figures), "the last epoch" in source)

    def cells(self, precision: str, report: RunReport | None) -> list[str]:
        """The row of the table: the published figures, or ours with the standard deviation over the seeds."""
        if report is None:
            return [self.name, "published", *map(percent, self.published), ""]
        several = ([report.teacher], report.baselines, report.students)
        shown = [self._accuracy(networks) for networks in several]
        return [self.name, precision, *shown, str(len(report.students))]

    def _accuracy(self, networks: Sequence[NetworkReport]) -> str:
        moments = [network.last if self.is_of_last_epoch else network.selected for network in networks]
        found = [moment.test.accuracy for moment in moments]
        if not found:
            return percent(None)
        return with_spread(percent(fmean(found)), stdev(found) if len(found) > 1 else None)


def main(arguments: Sequence[str]) -> bool:
    """Run what is not there yet, and print the table; returns whether all runs came to their end."""
    options = _read(arguments)
    console = Console()
    rows = [Row.of(name) for name in options.rows]
    reports = {}
    for row in rows:
        for precision in options.precisions:
            run_dir = options.folder / row.name / precision
            command = _command(row, precision, run_dir, options)
            if options.list:
                console.note(shlex.join(["distill-run", *command]))
            elif not RunFiles(run_dir).report.is_file():
                subprocess.run([sys.executable, "-m", "distill_run", *command], check=False)
            if RunFiles(run_dir).report.is_file():
                reports[row.name, precision] = read_report(run_dir)
    if options.list:
        return True
    for line in table(rows, reports):
        console.note(line)
    return len(reports) == len(rows) * len(options.precisions)


def table(rows: Sequence[Row], reports: dict[tuple[str, str], RunReport]) -> list[str]:
    """The lines of a table in Markdown: of each row, the published figures and then ours."""
    cells = [["experiment", "", *NETWORKS, "seeds"], ["---", "---", *["---:"] * 4]]
    for row in rows:
        cells.append(row.cells("", None))
        cells += [row.cells(precision, report) for (name, precision), report in reports.items() if name == row.name]
    return [f"| {' | '.join(line)} |" for line in cells]


def _command(row: Row, precision: str, run_dir: Path, options: Any) -> list[str]:
    """The arguments of `distill-run` for a run that begins, or that goes on."""
    if RunFiles(run_dir).last.is_file():
        return [f"resume={run_dir}"]
    words = [f"experiment={row.name}", f"device.precision={precision}", f"repeats={options.seeds}"]
    return [*words, f"store_dir={options.folder / 'store'}", f"hydra.run.dir={run_dir}", *options.overrides]


def _read(arguments: Sequence[str]) -> Any:
    parser = argparse.ArgumentParser(prog="python -m distill_run.benchmarks.published", allow_abbrev=False)
    parser.add_argument("--rows", default=ROWS, help="experiments with published figures, separated by commas")
    parser.add_argument("--precisions", default="fp32,bf16", help="separated by commas")
    parser.add_argument("--seeds", type=int, default=3, help="of baseline and student")
    parser.add_argument("--folder", type=Path, default="outputs/published", help="runs and store")
    parser.add_argument("--list", action="store_true", help="only print the commands")
    parser.add_argument("overrides", nargs="*", help="of all runs, as in dataset.root=data device=cuda")
    options = parser.parse_intermixed_args(arguments)
    options.rows, options.precisions = options.rows.split(","), options.precisions.split(",")
    return options


if __name__ == "__main__":
    leave(lambda: main(sys.argv[1:]))
