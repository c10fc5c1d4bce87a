"""What the console says at the end of a run."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from distill_run.build import OWN_PACKAGES
from distill_run.config.schema import Settings
from distill_run.engine.selection import FIGURE_NAMES
from distill_run.files import RunFiles
from distill_run.report.cells import NETWORK_COLUMNS, REPEAT_COLUMNS, network_rows, repeat_rows
from distill_run.report.export_table import COLUMNS, export_rows
from distill_run.report.export_table import SPARE as SPARE_OF_EXPORTS
from distill_run.report.run_report import RunReport
from distill_run.units import shown_path

if TYPE_CHECKING:
    from distill_run.console.console import Console

SPARE = ("size", "MACs", "top-5", "nll", "ece", "trained in", "params")  # a narrow terminal leaves them out, in turn


def load_call(path: str, settings: Settings) -> str:
    """The Python expression that loads a network from its file; it names the user's own code and packages, if any."""
    arguments = [json.dumps(path, ensure_ascii=False)]
    if settings.code_dir is not None:
        arguments.append(f"code_dir={json.dumps(settings.code_dir, ensure_ascii=False)}")
    if tuple(settings.trusted_packages) != OWN_PACKAGES:
        arguments.append(f"trusted_packages={json.dumps(settings.trusted_packages, ensure_ascii=False)}")
    return f"load_network({', '.join(arguments)})"


def tell_results(console: "Console", report: RunReport, settings: Settings, command: str, told: Sequence[str]) -> None:
    """Show a row for each network, the conclusion, and what to do next.

    `command` is what repeats the run; `told` are the warnings that were shown before.
    """
    console.table(["", *NETWORK_COLUMNS.values()], network_rows(report.networks), num_texts=1, spare=SPARE)
    if len(report.repeats) > 1 and report.means is not None:
        console.note(
            f"Validation {FIGURE_NAMES[report.select_by]} prefers the student of seed {report.shipped_seed}, shown "
            "above. Test accuracy of all:"
        )
        console.table(REPEAT_COLUMNS, repeat_rows(report.repeats, report.means), num_texts=1)
    if report.exports:
        console.table(["exported", *COLUMNS[1:]], export_rows(report.exports), num_texts=1, spare=SPARE_OF_EXPORTS)
    for warning in report.warnings:
        if warning not in told:
            console.warn(warning)
    console.conclude(report.conclusion)
    files = RunFiles(report.run_dir)
    console.note(f"report   {shown_path(files.report_page)}")
    console.note(f"student  {shown_path(files.student)}")
    if report.exports:
        console.note(f"exports  {shown_path(files.exports)}")
    if command:  # a run that Python code started has none
        console.note(f"repeat   {command}")
    call = load_call(str(files.student.absolute()), settings)  # it may be typed in another folder
    console.note(f"use it   from distill_run import load_network; network = {call}")
