"""Groups the runs of a sweep into settings, ranks the settings by validation, and recommends one.

Runs that differ only in seeds (REPLICATE_KEYS) are of one setting, and each seed of a run with several `repeats` is a
replicate of it. Every other key whose value differs between the runs tells settings apart. Runs on different data are
different settings, which are not compared; nor are runs whose epochs were selected by different figures
(training.select_by).
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import Any

from distill_run.report.paired import ANY_NUMBER, ROUNDING, SHARE, Estimate, contains, estimate, gap_recovered, p_value
from distill_run.report.run_report import RunReport
from distill_run.sweeps.command_lines import repeat
from distill_run.sweeps.points import Figures, Point, Replicate
from distill_run.sweeps.request import count_not_begun
from distill_run.sweeps.values import order

REPLICATE_KEYS = ("seed", "teacher_seed", "training.view_seed", "dataset.split_seed")
REPEATS = "repeats"  # how many seeds a run has; it tells no settings apart
CUTS = ("dataset.split_seed", "dataset.val_fraction", "dataset.train_fraction", "dataset.image_size")
FIGURES = tuple(field.name for field in fields(Figures))
DIGITS = 12  # means that are equal to so many digits count as equal: they differ by rounding


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


@dataclass(frozen=True)
class Recommendation:
    """The setting that is best on validation, and the settings that may be as good.

    `alternatives` are the settings whose paired difference to it on validation may be zero, `ties` those whose mean is
    within one validation image of its own. `num_compared` counts the settings that share at least two replicates with
    it. `incomplete` settings have fewer replicates than it; they were not considered. `command` repeats its runs.
    """

    setting: Setting
    alternatives: tuple[Setting, ...]
    ties: tuple[Setting, ...]
    num_compared: int
    incomplete: tuple[Setting, ...]
    command: str


@dataclass(frozen=True)
class Sweep:
    """All runs below some directories. `settings` are ranked: the recommended one is the first.

    `baseline` is empty unless all settings have the same baselines; it then holds a replicate for each of them.
    Where the runs used several datasets (`num_datasets`), or were selected by several figures (`select_by`), the
    settings of each are ranked and none is recommended.
    `num_not_begun` counts the runs that a sweep asked for and that have no folder yet.
    """

    directories: tuple[Path, ...]
    keys: tuple[str, ...]
    replicate_keys: tuple[str, ...]
    points: tuple[Point, ...]
    settings: tuple[Setting, ...]
    baseline: tuple[Replicate, ...]
    recommendation: Recommendation | None
    num_not_begun: int
    num_datasets: int
    select_by: tuple[str, ...]


def gather_sweep(directories: Sequence[Path], points: Sequence[Point]) -> Sweep:
    """Group the runs, rank the settings, and recommend one if a run is completed."""
    known = [point for point in points if point.command is not None or point.config]
    swept = _swept_keys(known)
    keys = tuple(key for key in swept if key not in (*REPLICATE_KEYS, REPEATS))
    replicate_keys = tuple(key for key in REPLICATE_KEYS if key in swept or (key == "seed" and _has_repeats(known)))
    reports = {point.run_dir: point.report for point in known if point.report is not None}
    data = {run_dir: (_data_of(report, swept), report.select_by) for run_dir, report in reports.items()}
    places = {each: place for place, each in enumerate(sorted(set(data.values())))}
    groups: dict[tuple[str, int], list[Point]] = {}
    for point in known:
        place = places[data[point.run_dir]] if len(places) > 1 and point.run_dir in data else len(places)
        groups.setdefault((identity(point, keys), place), []).append(point)
    placed = [(place, _make_setting(group, keys, replicate_keys)) for (_, place), group in groups.items()]
    placed.sort(key=lambda each: [order(each[1].values[key]) for key in sorted(keys)])
    most = max((len(setting.replicates) for _, setting in placed), default=0)
    placed.sort(key=lambda each: (each[0], _rank(each[1], most)))
    settings = [setting for _, setting in placed]
    return Sweep(
        directories=tuple(directories),
        keys=keys,
        replicate_keys=replicate_keys,
        points=tuple(points),
        settings=tuple(settings),
        baseline=_common_baseline(settings),
        recommendation=_recommend(settings, replicate_keys) if len(places) == 1 else None,
        num_not_begun=count_not_begun(directories, [point.run_dir for point in points]),
        num_datasets=len({content for content, _ in places}),
        select_by=tuple(sorted({figure for _, figure in places})),
    )


def _data_of(report: RunReport, swept: Sequence[str]) -> tuple[str | int, ...]:
    """What tells the data of a run from those of others; other cuts of the same images are the same data, if swept."""
    data = report.dataset
    if any(key in CUTS for key in swept) and "dataset.root" not in swept:
        return data.name, data.num_classes, data.test_size
    return dataclasses.astuple(data)


def identity(point: Point, keys: Iterable[str]) -> str:
    """A text that is equal for runs with equal values of these keys."""
    return json.dumps([point.value(key) for key in keys], sort_keys=True)


def _has_repeats(points: Iterable[Point]) -> bool:
    """Whether a run has several seeds."""
    return any(len(point.seeds) > 1 for point in points)


def _swept_keys(points: Sequence[Point]) -> list[str]:
    """The keys that any command sets and whose values differ, in the order in which they were typed."""
    keys: dict[str, None] = {}  # a set that keeps its order
    for point in points:
        if point.command is not None:
            keys.update(dict.fromkeys(point.command.values))
    return [key for key in keys if len({identity(point, [key]) for point in points}) > 1]


def _make_setting(points: Sequence[Point], keys: Sequence[str], replicate_keys: Sequence[str]) -> Setting:
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


def _common_baseline(settings: Iterable[Setting]) -> tuple[Replicate, ...]:
    """A replicate for each baseline, where equal replicates of all settings have the same baseline; otherwise none."""
    found: dict[str, Replicate] = {}
    for setting in settings:
        for name, replicate in setting.replicates.items():
            first, alone = found.setdefault(name, replicate).report.baseline, replicate.report.baseline
            if first is None or alone is None or first.fingerprint != alone.fingerprint:
                return ()
    return tuple(found.values())


def _rank(setting: Setting, most: int) -> tuple[int, float, float]:
    """A sorting key: complete settings first, then those with fewer replicates or failed trainings; by validation."""
    if not setting.replicates:
        return 2, 0.0, 0.0
    is_complete = len(setting.replicates) == most and not setting.has_failures
    nll = setting.mean("val_nll") or 0.0
    return 0 if is_complete else 1, -round(setting.goodness, DIGITS), round(nll, DIGITS)


def _recommend(ranked: Sequence[Setting], replicate_keys: Sequence[str]) -> Recommendation:
    best = ranked[0]
    differences = [(other, validation_difference(best, other)) for other in ranked[1:]]
    compared = [(other, found) for other, found in differences if found is not None and found.count > 1]
    return Recommendation(
        setting=best,
        alternatives=tuple(other for other, found in compared if contains(found, 0.0)),
        ties=tuple(other for other in ranked[1:] if _is_tie(best, other)),
        num_compared=len(compared),
        incomplete=tuple(other for other in ranked if 0 < len(other.replicates) < len(best.replicates)),
        command=_repeat(best, replicate_keys),
    )


def _repeat(setting: Setting, replicate_keys: Sequence[str]) -> str:
    """The command that repeats the runs of a setting."""
    points = list({replicate.point.run_dir: replicate.point for replicate in setting.replicates.values()}.values())
    points.sort(key=lambda point: [order(point.value(key)) for key in replicate_keys])
    # In a multirun a run has one seed, unless its command says how many.
    keys = [*replicate_keys, REPEATS] if _has_repeats(points) else replicate_keys
    commands = [point.command for point in points if point.command is not None]
    if sum(len(point.seeds) for point in points) > len(setting.replicates):  # a sweep refuses seeds that runs share
        return "\n".join(command.text for command in commands)
    return repeat(commands, [{key: point.value(key) for key in keys} for point in points])


def _is_tie(best: Setting, other: Setting) -> bool:
    """Whether the means of two settings with as many replicates are within one validation image of each other.

    An image is a fixed amount of accuracy alone, not of the other figures that may select.
    """
    first, second = best.mean("val_accuracy"), other.mean("val_accuracy")
    if first is None or second is None or len(best.replicates) != len(other.replicates):
        return False
    if best.select_by != "accuracy":
        return False
    [replicate, *_] = best.replicates.values()
    return first - second <= 1 / replicate.report.dataset.val_size + ROUNDING


def validation_difference(first: Setting, second: Setting) -> Estimate | None:
    """How much better the first is on validation, over the replicates that both have: see RunReport.val_goodness."""
    shared = [key for key in first.replicates if key in second.replicates]
    found = [first.replicates[key].report.val_goodness - second.replicates[key].report.val_goodness for key in shared]
    return estimate(found) if found else None
