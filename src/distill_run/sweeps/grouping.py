"""Groups the runs of a sweep into settings, from the best on validation down.

Runs that differ only in seeds (REPLICATE_KEYS) are of one setting, and each seed of a run with several `repeats` is a
replicate of it. Every other key whose value differs between the runs tells settings apart. Runs on different data are
different settings, which are not compared; nor are runs whose epochs were selected by different figures
(training.select_by).
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill_run.report.run_report import RunReport
from distill_run.sweeps.points import Point, Replicate
from distill_run.sweeps.recommendation import Recommendation, rank, recommend
from distill_run.sweeps.request import count_not_begun
from distill_run.sweeps.setting import REPEATS, REPLICATE_KEYS, Setting, has_repeats, make_setting
from distill_run.sweeps.values import order

CUTS = ("dataset.split_seed", "dataset.val_fraction", "dataset.train_fraction", "dataset.image_size")


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
    replicate_keys = tuple(key for key in REPLICATE_KEYS if key in swept or (key == "seed" and has_repeats(known)))
    reports = {point.run_dir: point.report for point in known if point.report is not None}
    data = {run_dir: (_data_of(report, swept), report.select_by) for run_dir, report in reports.items()}
    places = {each: place for place, each in enumerate(sorted(set(data.values())))}
    groups: dict[tuple[str, int], list[Point]] = {}
    for point in known:
        place = places[data[point.run_dir]] if len(places) > 1 and point.run_dir in data else len(places)
        groups.setdefault((_identity(point, keys), place), []).append(point)
    placed = [(place, make_setting(group, keys, replicate_keys)) for (_, place), group in groups.items()]
    placed.sort(key=lambda each: [order(each[1].values[key]) for key in sorted(keys)])
    most = max((len(setting.replicates) for _, setting in placed), default=0)
    placed.sort(key=lambda each: (each[0], rank(each[1], most)))
    settings = [setting for _, setting in placed]
    return Sweep(
        directories=tuple(directories),
        keys=keys,
        replicate_keys=replicate_keys,
        points=tuple(points),
        settings=tuple(settings),
        baseline=_common_baseline(settings),
        recommendation=recommend(settings, replicate_keys) if len(places) == 1 else None,
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


def _identity(point: Point, keys: Iterable[str]) -> str:
    """A text that is equal for runs with equal values of these keys."""
    return json.dumps([point.value(key) for key in keys], sort_keys=True)


def _swept_keys(points: Sequence[Point]) -> list[str]:
    """The keys that any command sets and whose values differ, in the order in which they were typed."""
    keys: dict[str, None] = {}  # a set that keeps its order
    for point in points:
        if point.command is not None:
            keys.update(dict.fromkeys(point.command.values))
    return [key for key in keys if len({_identity(point, [key]) for point in points}) > 1]


def _common_baseline(settings: Iterable[Setting]) -> tuple[Replicate, ...]:
    """A replicate for each baseline, where equal replicates of all settings have the same baseline; otherwise none."""
    found: dict[str, Replicate] = {}
    for setting in settings:
        for name, replicate in setting.replicates.items():
            first, alone = found.setdefault(name, replicate).report.baseline, replicate.report.baseline
            if first is None or alone is None or first.fingerprint != alone.fingerprint:
                return ()
    return tuple(found.values())
