"""Where the points of a sweep lie: in its folder, under their numbers, or where hydra.sweep.subdir puts them.

A point that begins elsewhere writes down where, in points/NUMBER.json of the sweep's folder: so the sweep and its
report find the point whatever the pattern is, and whichever process runs it.
"""

import shutil
from pathlib import Path

from filelock import FileLock

from distill_run.errors import user_error
from distill_run.files import RunFiles, write_json
from distill_run.typed_json import read_object

POINTS = "points"
LOCK = ".lock"


def take_place(sweep_dir: Path, number: int, folder: Path) -> Path:
    """The folder of a point that begins.

    It is `folder`, which Hydra has made, or that of an earlier try, where a pattern with the time gives a new one.
    Raises UserError where another run has this folder.
    """
    sweep_dir, folder = sweep_dir.resolve(), folder.resolve()
    if folder == sweep_dir / str(number):
        return folder
    (sweep_dir / POINTS).mkdir(parents=True, exist_ok=True)
    with FileLock(sweep_dir / POINTS / LOCK):
        places = recorded_places(sweep_dir)
        if number in places:
            return places[number]
        if folder in places.values() or holds_run(folder):
            raise user_error(
                f"hydra.sweep.subdir puts this point into {folder}, which has another run",
                "write a pattern that differs between the points, as in 'hydra.sweep.subdir=${hydra.job.num}'",
            )
        shutil.rmtree(refused_place(sweep_dir, number), ignore_errors=True)
        write_json(sweep_dir / POINTS / f"{number}.json", {"run_dir": _movable(folder, sweep_dir)})
    return folder


def refused_place(sweep_dir: Path, number: int) -> Path:
    """The folder that says why a point could not begin in its own."""
    return sweep_dir / POINTS / str(number)


def recorded_places(sweep_dir: Path) -> dict[int, Path]:
    """The folders of the points that lie elsewhere, by their numbers; a damaged record counts as none."""
    places = {}
    for path in (sweep_dir / POINTS).glob("*.json"):
        try:
            places[int(path.stem)] = (sweep_dir / str(read_object(path)["run_dir"])).resolve()
        except (ValueError, KeyError):
            continue
    return places


def point_folders(sweep_dir: Path) -> dict[str, Path]:
    """The folders of all points that have begun, by their numbers in order."""
    folders = {str(number): place for number, place in recorded_places(sweep_dir).items()}
    recorded = set(folders.values())
    for parent in (sweep_dir, sweep_dir / POINTS):
        for path in parent.resolve().iterdir() if parent.is_dir() else ():
            if path.name.isdecimal() and path.is_dir() and path not in recorded:
                folders.setdefault(path.name, path)
    return dict(sorted(folders.items(), key=lambda item: int(item[0])))


def holds_run(folder: Path) -> bool:
    """Whether a run has left something in a folder."""
    files = RunFiles(folder)
    return any(path.exists() for path in (files.status, files.environment, files.last, files.report))


def _movable(folder: Path, sweep_dir: Path) -> str:
    """The folder relative to the sweep's, if it lies in it: both may be moved together."""
    return str(folder.relative_to(sweep_dir) if folder.is_relative_to(sweep_dir) else folder)
