"""Shows the progress of a sweep by reading its run directories again and again: the runs may be in any process."""

import json
import shlex
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from distill_run.console import HEARTBEAT_SECONDS, Console, SweepDisplay
from distill_run.files import RunFiles
from distill_run.record.command import read_command
from distill_run.record.status import RunStatus, Status, read_status
from distill_run.report.run_report import RunReport, read_report
from distill_run.units import change, duration, percent, shown_path

POLL_SECONDS = 0.3


@dataclass
class SweepProgress:
    """What was shown of a sweep so far; `num_points` is None where it is not known, as with glob(*)."""

    directory: Path
    num_points: int | None
    swept_keys: Sequence[str]
    console: Console
    ended: dict[str, Status] = field(default_factory=dict)  # by the names of the points' folders
    earlier: dict[str, int] = field(default_factory=dict)  # when an earlier, not completed point ended
    warned: set[str] = field(default_factory=set)
    heartbeat: float = field(default_factory=time.monotonic)
    begun: dict[str, float] = field(default_factory=dict)  # when each point was first seen at work
    took: list[float] = field(default_factory=list)  # seconds of each point that has ended
    num_at_once: int = 1  # the most points that were seen at work together

    @property
    def has_failures(self) -> bool:
        """Whether a point has failed."""
        return "failed" in self.ended.values()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show what happens in the directory during the block, in a thread of its own."""
        finished = threading.Event()
        with self.console.sweep() as display:
            display.line(self._beginning())
            thread = threading.Thread(target=self._watch, args=(display, finished), daemon=True)
            thread.start()
            try:
                yield
            finally:
                finished.set()
                thread.join()
                self._count_what_did_not_change()

    def _beginning(self) -> str:
        for folder in self._folders():
            status = _status_of(folder)
            if status is not None and status.status == "completed":
                self.ended[folder.name] = status.status
            elif status is not None:
                self.earlier[folder.name] = _changed(folder)
        earlier = f", {len(self.ended)} of them completed earlier" if self.ended else ""
        count = "" if self.num_points is None else f"{self.num_points} point{'' if self.num_points == 1 else 's'} "
        return f"sweep: {count}in {shown_path(self.directory)}{earlier}"

    def _count_what_did_not_change(self) -> None:
        """Count the points that had ended before and were not run again, as the failed trials of a search."""
        for folder in self._folders():
            status = _status_of(folder)
            if status is not None and status.has_ended:
                self.ended.setdefault(folder.name, status.status)

    def _folders(self) -> list[Path]:
        return sorted((path for path in self.directory.iterdir() if path.is_dir()), key=_by_number)

    def _watch(self, display: SweepDisplay, finished: threading.Event) -> None:
        while not finished.wait(POLL_SECONDS):
            self.look(display)
        self.look(display)

    def look(self, display: SweepDisplay) -> None:
        """Tell which points have ended since the last look, and show what the others do."""
        now = time.monotonic()
        running: dict[str, str] = {}
        for folder in self._folders():
            status = None if folder.name in self.ended else _status_of(folder)
            if status is None or self.earlier.get(folder.name) == _changed(folder):
                continue
            if status.has_ended:
                self.ended[folder.name] = status.status
                if folder.name in self.begun:
                    self.took.append(now - self.begun[folder.name])
                self._tell_end(folder, status, display)
            elif status.status == "running":
                self.begun.setdefault(folder.name, now)
                running[folder.name] = f"{folder.name}: {last_epoch(folder)}"
        self.num_at_once = max(self.num_at_once, len(running))
        state = "   ".join([*self._left([now - self.begun[name] for name in running]), *running.values()])
        display.update(len(self.ended), self.num_points, state)
        if not self.console.is_live and now - self.heartbeat > HEARTBEAT_SECONDS:
            total = "" if self.num_points is None else f" of {self.num_points}"
            display.line(f"     {len(self.ended)}{total} points ended   {state}".rstrip())
            self.heartbeat = now

    def _left(self, running_seconds: Sequence[float]) -> list[str]:
        """How long the rest of the sweep will take, in words; nothing where no point has ended or none is left.

        The first points take longer than the others, because they train the teacher: the median leaves them out.
        """
        if self.num_points is None or not self.took or len(self.ended) >= self.num_points:
            return []
        each = statistics.median_low(self.took)
        num_waiting = max(self.num_points - len(self.ended) - len(running_seconds), 0)
        seconds = each * num_waiting + sum(max(each - spent, 0.0) for spent in running_seconds)
        return [f"about {duration(seconds / self.num_at_once)} left"]

    def _tell_end(self, folder: Path, status: RunStatus, display: SweepDisplay) -> None:
        head = f"{folder.name:>4} {self.values_of(folder)}"
        if status.status == "failed":
            display.line(f"{head}   failed: {(status.error or 'it does not say why').splitlines()[0]}")
            return
        if status.status == "pruned":
            display.line(f"{head}   given up after {last_epoch(folder)}")
            return
        try:
            report = read_report(folder)
        except ValueError as damage:
            display.line(f"{head}   {damage}")
            return
        display.line(f"{head}   {_figures(report)}")
        for warning in report.warnings:
            if warning not in self.warned:
                self.warned.add(warning)
                display.line(f"     warning: {warning}")

    def values_of(self, folder: Path) -> str:
        """The swept values of a point, as one types them."""
        words = shlex.split(read_command(folder))
        return " ".join(word for word in words if word.partition("=")[0] in self.swept_keys)


def _status_of(folder: Path) -> RunStatus | None:
    """The status of a point; None where there is none, or none that can be read."""
    try:
        return read_status(folder)
    except ValueError:
        return None


def _changed(folder: Path) -> int:
    """When the status of a point was written."""
    return RunFiles(folder).status.stat().st_mtime_ns


def _figures(report: RunReport) -> str:
    text = f"val {percent(report.val_accuracy)}  test {percent(report.student_accuracy)}"
    if report.change is not None:
        text += f" ({change(report.change)})"
    return f"{text}  {duration(report.student.train_seconds)}"


def last_epoch(folder: Path) -> str:
    """The last epoch that a point has completed."""
    path = RunFiles(folder).metrics
    rows = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    if not rows:
        return "preparing"
    row = json.loads(rows[-1])
    return f"{row['stage']} epoch {row['epoch']}, val {row['val']['accuracy']:.2%}"


def _by_number(path: Path) -> tuple[int, str]:
    return (int(path.name) if path.name.isdigit() else -1, path.name)
