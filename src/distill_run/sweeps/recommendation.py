"""Ranks the settings of a sweep by validation, and recommends one."""

from collections.abc import Sequence
from dataclasses import dataclass

from distill_run.report.paired import ROUNDING, Estimate, contains, estimate
from distill_run.sweeps.command_lines import repeat
from distill_run.sweeps.setting import REPEATS, Setting, has_repeats
from distill_run.sweeps.values import order

DIGITS = 12  # means that are equal to so many digits count as equal: they differ by rounding


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


def rank(setting: Setting, most: int) -> tuple[int, float, float]:
    """A sorting key: complete settings first, then those with fewer replicates or failed trainings; by validation."""
    if not setting.replicates:
        return 2, 0.0, 0.0
    is_complete = len(setting.replicates) == most and not setting.has_failures
    nll = setting.mean("val_nll") or 0.0
    return 0 if is_complete else 1, -round(setting.goodness, DIGITS), round(nll, DIGITS)


def recommend(ranked: Sequence[Setting], replicate_keys: Sequence[str]) -> Recommendation:
    """The first of the ranked settings, and those that may be as good."""
    best = ranked[0]
    differences = [(other, _validation_difference(best, other)) for other in ranked[1:]]
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
    keys = [*replicate_keys, REPEATS] if has_repeats(points) else replicate_keys
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


def _validation_difference(first: Setting, second: Setting) -> Estimate | None:
    """How much better the first is on validation, over the replicates that both have: see RunReport.val_goodness."""
    shared = [key for key in first.replicates if key in second.replicates]
    found = [first.replicates[key].report.val_goodness - second.replicates[key].report.val_goodness for key in shared]
    return estimate(found) if found else None
