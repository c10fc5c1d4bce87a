"""The content of sweep.csv: one row for each run."""

import csv
import io

from distill_run.sweeps.grouping import FIGURES
from distill_run.sweeps.report.sweep_report import SweepReport
from distill_run.sweeps.values import shown


def to_csv(report: SweepReport) -> str:
    """One row for each run, below a header; a cell is empty where there is no value."""
    keys = [key for key in (*report.keys, *report.replicate_keys) if key != "seed"]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["directory", "status", "error", *keys, "seed", *FIGURES, "command"])
    for run in report.runs:
        values = [shown(run.values[key]) for key in keys]
        figures = [run.figure(name) for name in FIGURES]
        writer.writerow([run.directory, run.status, run.error, *values, run.seed, *figures, run.command])
    return file.getvalue()
