"""Refuses a pattern of hydra.sweep.subdir that would put two points of a sweep into one folder."""

from pathlib import Path

from distill_run.commands.preflight import check_writable
from distill_run.config.compose import Composed
from distill_run.config.overrides import all_points, swept_keys
from distill_run.config.settings import compose_or_explain
from distill_run.errors import user_error

USUAL = "${hydra.job.num}"
UNIQUE = ("${hydra.job.num}", "${hydra.job.id}")


def check_subdirs(overrides: list[str], extra_dir: Path | None, first: Composed) -> None:
    """Raise UserError where two points would share a folder, or where the first point's folder cannot be made.

    `first` is the configuration of the first point. A pattern with the time is known only when a point begins.
    """
    pattern = first.sweep_patterns["subdir"]
    if pattern == USUAL:
        return
    seen: dict[str, int] = {}
    for number, point in enumerate(all_points(overrides)):
        folder = _subdir(point, number, extra_dir)
        if number == 0:
            _check_first(folder, Path(first.hydra.sweep.dir))
            if _tells_apart(pattern, overrides, first):
                return
        if folder in seen:
            raise user_error(
                f"hydra.sweep.subdir={pattern} puts the points {seen[folder]} and {number} into one folder, {folder}",
                f"add what differs between them, as in 'hydra.sweep.subdir={pattern}/{USUAL}'",
            )
        seen[folder] = number


def _subdir(point: list[str], number: int, extra_dir: Path | None) -> str:
    job = [f"hydra.job.num={number}", f"hydra.job.id={number}"]
    return str(compose_or_explain([*point, *job], extra_dir).hydra.sweep.subdir)


def _check_first(folder: str, sweep_dir: Path) -> None:
    if folder.startswith("~"):
        raise user_error(f"hydra.sweep.subdir={folder} is no home directory", "write the whole path, as in /home/...")
    check_writable("hydra.sweep.subdir", str(sweep_dir / folder))


def _tells_apart(pattern: str, overrides: list[str], first: Composed) -> bool:
    """Whether a glance shows that the pattern differs between all points; composing each takes a second or so."""
    swept = [f"${{{key}}}" for key in swept_keys(overrides)]
    names_all = "${hydra.job.override_dirname}" in pattern and not first.hydra.job.config.override_dirname.exclude_keys
    return names_all or any(each in pattern for each in UNIQUE) or all(key in pattern for key in swept)
