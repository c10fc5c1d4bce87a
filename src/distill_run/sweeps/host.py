"""What a sweep and a search have in common: a directory of their own, a display, and a report at the end."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from distill_run.console.console import Console
from distill_run.engine.interrupt import GRACE_SECONDS, StopRequest, ask_children
from distill_run.files import told_of_no_room
from distill_run.record.status import read_status
from distill_run.sweeps.points import find_runs
from distill_run.sweeps.progress import SweepProgress
from distill_run.sweeps.report.pages import write_sweep_report
from distill_run.sweeps.report.results import tell_sweep_results
from distill_run.sweeps.request import Request, dated_directory, named_directory, write_record

WELL_ENDED = ("completed", "pruned")
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Place:
    """Where a sweep writes: the key that says so, the folder, and whether the user named it."""

    key: str
    folder: Path
    is_named: bool


def host(request: Request, place: Place, keys: Sequence[str], work: Callable[[SweepProgress], None]) -> bool:
    """Let `work` start the runs; whether all that were asked for are completed or given up, as their folders say.

    The report of the runs is written however the work ends. Where the user did not name a folder, an unfinished
    directory of the same request is used instead, if there is one. `keys` are those whose values differ between the
    runs.
    """
    console = Console()
    directory = named_directory if place.is_named else dated_directory
    with told_of_no_room(place.key, place.folder), directory(place.folder, request) as found:
        folder = found.absolute()  # whatever the working directory of a run is
        write_record(folder, request, is_complete=False)
        try:
            with StopRequest(partial(_stop_points, folder)):
                work(SweepProgress(folder, request.num_points, keys, console))
        except KeyboardInterrupt:
            console.note(f"interrupted; the same command goes on with it: {request.command}")
            raise
        finally:
            is_complete = _report(folder, console)
        write_record(folder, request, is_complete)
    return is_complete


def _report(folder: Path, console: Console) -> bool:
    """Report the runs below a folder; whether there are any, and all that were asked for came to a good end."""
    if not find_runs([folder]):
        console.note("no run has begun")
        return False
    report = write_sweep_report([folder], folder)
    tell_sweep_results(console, report, folder)
    return sum(report.counts.values()) == sum(report.counts[status] for status in WELL_ENDED)


def _stop_points(folder: Path) -> None:
    """Ask the processes of a sweep to stop, and wait until their runs are interrupted: then they may be killed."""
    if not ask_children():
        return
    running, deadline = find_runs([folder]), time.monotonic() + GRACE_SECONDS
    while running and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        running = [run for run in running if _is_running(run)]


def _is_running(run_dir: Path) -> bool:
    try:
        status = read_status(run_dir)
    except ValueError:
        return False
    return status is not None and status.status == "running"
