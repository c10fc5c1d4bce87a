"""What a sweep and a search have in common: a directory of their own, a display, and a report at the end."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from distill_run.console import Console
from distill_run.sweeps.progress import SweepProgress
from distill_run.sweeps.report.pages import write_sweep_report
from distill_run.sweeps.report.results import tell_sweep_results
from distill_run.sweeps.request import Request, dated_directory, named_directory


@contextmanager
def hosted(
    request: Request, place: Path, *, is_named: bool, num_points: int | None, keys: Sequence[str]
) -> Iterator[SweepProgress]:
    """The progress of the runs that the block starts; afterwards their report is written, however the block ends.

    `place` is the directory that the user names, or a new dated one: then the directory of the same request is
    preferred, if it was cut short. `keys` are those whose values differ between the runs.
    """
    console = Console()
    with (named_directory if is_named else dated_directory)(place, request) as folder:
        progress = SweepProgress(folder, num_points, keys, console)
        try:
            yield progress
        except KeyboardInterrupt:
            console.note(f"interrupted; the same command goes on with it: {request.command}")
            raise
        finally:
            if progress.ended:
                tell_sweep_results(console, write_sweep_report([folder], folder), folder)
