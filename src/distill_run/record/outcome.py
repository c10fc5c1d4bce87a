"""How a point of a sweep or a trial of a search has ended, in its files."""

import json
from pathlib import Path

from distill_run.errors import UserError
from distill_run.files import write_json
from distill_run.record.files import RunFiles
from distill_run.record.status import RunStatus, read_status, write_status


def completed_accuracy(run_dir: Path) -> float | None:
    """The student's validation accuracy of a completed run; None where the run is not completed or not readable."""
    try:
        status = read_status(run_dir)
        if status is None or status.status != "completed":
            return None
        report = json.loads(RunFiles(run_dir).report.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    accuracy: float = report["student"]["selected"]["val"]["accuracy"]
    return accuracy


def record_failure(run_dir: Path, error: UserError, command: str) -> None:
    """Write a run's error and its command to its files, where the report of a sweep looks for them."""
    environment = RunFiles(run_dir).environment
    if not environment.is_file():  # the run failed before it wrote anything
        write_json(environment, {"command": command})
    write_status(run_dir, RunStatus("failed", str(error)))
