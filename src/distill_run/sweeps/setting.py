"""A setting of a sweep: runs that differ in seeds only, and estimates of what they measured."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from statistics import fmean
from typing import Any

from distill_run.report.paired import ANY_NUMBER, SHARE, Estimate, estimate, gap_recovered, p_value
from distill_run.sweeps.points import Figures, Point, Replicate

REPLICATE_KEYS = ("seed", "teacher_seed", "training.view_seed", "dataset.split_seed")
REPEATS = "repeats"  # how many seeds a run has; it tells no settings apart
FIGURES = tuple(field.name for field in fields(Figures))


@dataclass(frozen=True)
class Setting:
    """Runs that differ in replicate keys only.

    `replicates` holds one seed of a completed run for each combination of replicate values; `num_asked` counts the
    combinations of all runs, completed or not. `figures` are estimates over the replicates; one is None where no
    replicate has it. `p_value` is that of the paired t-test of student and baseline on test; None without two pairs.
    """

    values: dict[str, Any]
    points: tuple[Point, ...]
    replicates: dict[str, Replicate]
    num_asked: int
    figures: dict[str, Estimate | None]
    p_value: float | None

    @property
    def select_by(self) -> str | None:
        """The validation figure that selected in its runs, the same in all; None where no run is completed."""
        return next((replicate.report.select_by for replicate in self.replicates.values()), None)

    @property
    def goodness(self) -> float:
        """The mean of that figure over the replicates, larger is better; only of a setting with a completed run."""
        return fmean(replicate.report.val_goodness for replicate in self.replicates.values())

    @property
    def has_failures(self) -> bool:
        """Whether a training went wrong in one of its runs, so that the run gives no verdict."""
        return any(replicate.report.failures for replicate in self.replicates.values())

    def mean(self, figure: str) -> float | None:
        """The mean of a figure over the replicates."""
        found = self.figures[figure]
        return None if found is None else found.mean


def has_repeats(points: Iterable[Point]) -> bool:
    """Whether a run has several seeds."""
    return any(len(point.seeds) > 1 for point in points)


def make_setting(points: Sequence[Point], keys: Sequence[str], replicate_keys: Sequence[str]) -> Setting:
    """The setting of these runs. Where several completed runs have the same replicate, the first counts."""
    replicates: dict[str, Replicate] = {}
    asked: set[str] = set()
    for point in points:
        names = _replicate_names(point, replicate_keys)
        asked.update(names)
        for name, replicate in zip(names, point.replicates, strict=False):  # only a completed run has replicates
            replicates.setdefault(name, replicate)
    values = {key: points[0].value(key) for key in keys}
    figures = {figure: estimate_figure(figure, replicates.values()) for figure in FIGURES}
    figures["gap_recovered"] = _gap_recovered(replicates.values())
    changes = [each.figures.difference for each in replicates.values() if each.figures.difference is not None]
    p = p_value(changes) if len(changes) > 1 else None
    return Setting(values, tuple(points), replicates, len(asked), figures, p)


def _replicate_names(point: Point, replicate_keys: Sequence[str]) -> list[str]:
    """A text for each seed of a run; equal for equal seeds of runs that have the other keys in common."""
    others = [point.value(key) for key in replicate_keys if key != "seed"]
    return [json.dumps([seed, *others], sort_keys=True) for seed in point.seeds]


def estimate_figure(figure: str, replicates: Iterable[Replicate]) -> Estimate | None:
    """The estimate of a figure over replicates; None where none of them has it."""
    found = [replicate for replicate in replicates if getattr(replicate.figures, figure) is not None]
    if not found:
        return None
    is_share = figure.endswith(("accuracy", "agreement")) or (
        figure == "val_selection" and all(replicate.report.select_by != "nll" for replicate in found)
    )
    return estimate([getattr(each.figures, figure) for each in found], SHARE if is_share else ANY_NUMBER)


def _gap_recovered(replicates: Iterable[Replicate]) -> Estimate | None:
    paired = [replicate for replicate in replicates if replicate.figures.baseline_test_accuracy is not None]
    if not paired:
        return None
    return gap_recovered(
        [replicate.figures.test_accuracy for replicate in paired],
        [replicate.figures.baseline_test_accuracy or 0.0 for replicate in paired],
        [replicate.figures.teacher_test_accuracy for replicate in paired],
        one_image=1 / paired[0].report.dataset.test_size,
    )
