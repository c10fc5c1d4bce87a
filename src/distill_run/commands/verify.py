"""`distill-run verify=DIR`: trains a run again from its record, reusing nothing, and says whether it is the same."""

import dataclasses
import sys
import tempfile
from pathlib import Path

from distill_run.config.schema import Settings
from distill_run.console.console import Console
from distill_run.files import RunFiles
from distill_run.pipeline import run
from distill_run.record.command import command_of
from distill_run.record.comparison import Recorded, first_difference, other_environment
from distill_run.record.console_watcher import ConsoleWatcher


class _Progress(ConsoleWatcher):
    """Shows the trainings; the run has no results of its own, and nobody goes on with it."""

    def run_ended(self, error: BaseException | None) -> None:
        """See Watcher."""


def verify(settings: Settings, run_dir: Path) -> bool:
    """Train the run of these settings again in a temporary folder; whether it is that in `run_dir`, to the bit.

    Says what differs first, and what differs in the environment. Nothing in `run_dir` is changed. Raises UserError
    where a file of the run cannot be read.
    """
    before = Recorded.read(RunFiles(run_dir))
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder, "run")
        store_dir = str(Path(folder, "store"))
        alone = dataclasses.replace(
            settings, verify=None, store_dir=store_dir, measure_speed=False, export=None, watchers={}, tracker={}
        )
        watcher = _Progress(Console(), again)
        run(alone, again, command=command_of(run_dir), console=Console(quiet=True), watchers=[watcher])
        now = Recorded.read(RunFiles(again))
    difference, environment = first_difference(before, now), other_environment(before, now)
    if difference is None:
        sys.stdout.write(
            "identical: the weights of student.pt, all epochs of metrics.jsonl, the figures of report.json\n"
        )
        return True
    sys.stdout.write(f"not identical. The first difference:\n  {difference}\n")
    where = environment or ["nothing in environment.json differs: the files of the run may have been changed"]
    sys.stdout.write("What differs in the environment:\n" + "".join(f"  {line}\n" for line in where))
    return False
