"""What the console says at the end of a run."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from distill_run.report.cells import network_cells
from distill_run.report.run_report import RunReport
from distill_run.units import shown_path

if TYPE_CHECKING:
    from distill_run.console import Console

COLUMNS = {
    "accuracy": "test acc",
    "top5_accuracy": "top-5",
    "nll": "nll",
    "ece": "ece",
    "params": "params",
    "macs": "MACs",
    "bytes": "size",
    "train_time": "trained in",
}


def tell_results(console: "Console", report: RunReport, command: str, told: Sequence[str]) -> None:
    """Show a row for each network, the conclusion, and what to do next.

    `command` is what repeats the run; `told` are the warnings that were shown before.
    """
    rows = []
    for stage, network in report.networks:
        cells = network_cells(network)
        rows.append([f"{stage} {network.architecture}", *(cells[name] for name in COLUMNS)])
    console.table(["", *COLUMNS.values()], rows, num_texts=1)
    for warning in report.warnings:
        if warning not in told:
            console.warn(warning)
    console.conclude(report.conclusion)
    run_dir = shown_path(report.run_dir)
    student = f"{run_dir}/checkpoints/student.pt"
    console.note(f"report   {run_dir}/report.html")
    console.note(f"student  {student}")
    if command:  # a run that Python code started has none
        console.note(f"repeat   {command}")
    console.note(f"use it   from distill_run import load_network; network = load_network('{student}')")
