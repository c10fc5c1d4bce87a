"""What `distill-report --watch` shows: the report of runs that may still go on. No torch."""

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_run.files import RunFiles
from distill_run.report.typesetting import MAX_OPEN_ROWS, Head, templates
from distill_run.sweeps.points import Point, find_runs, read_point
from distill_run.sweeps.progress import last_epoch
from distill_run.sweeps.report.pages import report_points
from distill_run.units import shown_path

REFRESH_SECONDS = 5
WIDTH, HEIGHT = 320, 100  # of the picture of a run's curves, in its own units

Times = list[int | None]  # in nanoseconds


@dataclass(frozen=True)
class Curve:
    """The validation accuracy of a stage after each epoch, as the points of an SVG line."""

    stage: str
    colour: str
    points: str


@dataclass(frozen=True)
class LiveRun:
    """A run that is not completed: where it lies, how far it is, and its curves."""

    name: str
    state: str
    curves: list[Curve]


class LiveReport:
    """The page of the runs below some directories, made again when their files have changed."""

    def __init__(self, directories: Sequence[Path], output: Path) -> None:
        self.directories = directories
        self.output = output
        self._lock = threading.Lock()  # two browsers may ask at once
        self._seen: dict[Path, Times] = {}
        self._points: dict[Path, Point] = {}
        self._page = ""

    def page(self) -> str:
        """The page as it is now, in HTML; of several runs, their report is written, too."""
        with self._lock:
            seen = {run_dir: _changed(run_dir) for run_dir in find_runs(self.directories)}
            if seen != self._seen or not self._page:
                # Of thousands of runs, only those that have changed are read again.
                self._points = {run_dir: self._point(run_dir, times) for run_dir, times in seen.items()}
                self._seen, self._page = seen, ""  # after an error the page is made again
                self._page = self._make(list(self._points.values()))
            return self._page

    def _point(self, run_dir: Path, times: Times) -> Point:
        is_known = run_dir in self._points and self._seen[run_dir] == times
        return self._points[run_dir] if is_known else read_point(run_dir)

    def _make(self, points: Sequence[Point]) -> str:
        is_single = len(points) == 1 and points[0].run_dir == self.directories[0].resolve()
        if not is_single:
            report_points(points, self.directories, self.output)
            report = (self.output / "sweep.html").read_text(encoding="utf-8")
            unfinished = [point for point in points if point.status == "unfinished"]
            return _refreshing(report, [live_run(point) for point in unfinished[-MAX_OPEN_ROWS:]], len(unfinished))
        [point] = points
        if point.status == "completed":
            return RunFiles(point.run_dir).report_page.read_text(encoding="utf-8")  # nothing changes any more
        run = live_run(point)
        head = Head(title=f"Run {run.name}", conclusion=run.state, labels=(), warnings=(), tiles=(), answers=())
        return _refreshing(_render("live.html", head=head, max_open_rows=MAX_OPEN_ROWS), [run], 1)


def live_run(point: Point) -> LiveRun:
    """What is shown of a run that is not completed."""
    state = f"{last_epoch(point.run_dir)} ({point.error or point.status})"
    return LiveRun(shown_path(point.run_dir), state, _curves(RunFiles(point.run_dir).metrics))


def _curves(metrics: Path) -> list[Curve]:
    """A line for each stage, on the same axes: epochs to the right, accuracies from 0 to 1 upwards."""
    rows = map(json.loads, metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else [])
    stages: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        stages.setdefault(row["stage"], []).append(row)
    last = max((row["epoch"] for rows_of_stage in stages.values() for row in rows_of_stage), default=1)
    curves = []
    for stage, rows_of_stage in stages.items():
        places = [(row["epoch"] / last * WIDTH, (1 - row["val"]["accuracy"]) * HEIGHT) for row in rows_of_stage]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        kind = stage.split()[0]
        curves.append(Curve(stage, kind if kind in ("teacher", "baseline", "student") else "muted", points))
    return curves


def _refreshing(page: str, runs: Sequence[LiveRun], num_unfinished: int) -> str:
    """A page that loads itself again, and shows first which runs go on; its file stays as it is."""
    charset = '<meta charset="utf-8">'
    refresh = f'{charset}\n<meta http-equiv="refresh" content="{REFRESH_SECONDS}">'
    page = page.replace(charset, refresh, 1)
    if not runs:
        return page
    section = _render("live_runs.html", runs=runs, count=num_unfinished)
    return page.replace("</header>", f"</header>\n{section}", 1)


def _render(name: str, **content: Any) -> str:
    return templates().get_template(name).render(width=WIDTH, height=HEIGHT, **content)


def _changed(run_dir: Path) -> Times:
    """When each file that the page shows was written; None for one that is not there."""
    files = RunFiles(run_dir)
    shown = (files.status, files.metrics, files.report, files.report_page, files.environment)
    return [path.stat().st_mtime_ns if path.is_file() else None for path in shown]
