"""The questions that people ask about a sweep, with their answers."""

from collections.abc import Sequence

from distill_run.report.paired import CONFIDENCE, Estimate
from distill_run.sweeps.report.sweep_report import RecommendedSetting, SettingReport, SweepReport
from distill_run.units import change, p_value

ALIKE = "\N{ALMOST EQUAL TO}"  # marks settings that may be as good as the recommended one


def answers(report: SweepReport) -> list[tuple[str, str]]:
    """The questions that people ask first, with their answers; none where nothing is recommended."""
    best = report.recommendation
    if best is None:
        return []
    found = [("How sure is the choice?", _certainty(best, len(report.settings)))]
    if best.difference is not None:
        setting = report.settings[best.setting]
        question = "What did the control change?" if setting.is_control else "Was distillation worth it?"
        found.append((question, _worth(best.difference, setting, _num_tests(report))))
    found.append(("Can I trust the test accuracy?", _honesty(len(report.settings))))
    found.append(("What do the intervals cover?", _coverage(best, report.replicate_keys, report.unit)))
    if best.incomplete:
        found.append(("What was left out?", _left_out(best, report.unit)))
    return found


def _certainty(best: RecommendedSetting, num_settings: int) -> str:
    if num_settings == 1:
        return "There was no choice: all runs have the same setting."
    if best.val_accuracy.count == 1:
        return (
            "This cannot be said from one run for each setting: the best may only be lucky. "
            f"{_tied(best)}Add seed=0,1,2 to the sweep's command."
        )
    if not best.compared:
        return "This cannot be said: no other setting shares two completed seeds with it."
    others = f"{best.compared} other setting{'' if best.compared == 1 else 's'}"
    if not best.alternatives:
        return (
            f"Of {others}, none is as good on validation: compared seed by seed, no 95% interval of a difference "
            f"contains zero. {_tied(best)}".rstrip()
        )
    return (
        f"Of {others}, {len(best.alternatives)} may be as good on validation ({ALIKE} in the table): compared seed by "
        f"seed, the 95% interval of the difference contains zero. {_tied(best)}This does not prove that they are "
        "equal; more seeds give narrower intervals."
    )


def _tied(best: RecommendedSetting) -> str:
    """A sentence on the settings that are as good to within one validation image; empty without any."""
    count = len(best.ties)
    if not count:
        return ""
    subject = "1 other setting is" if count == 1 else f"{count} other settings are"
    return f"{subject} within one validation image of it ({ALIKE} in the table). "


def _num_tests(report: SweepReport) -> int:
    return sum(setting.p_value is not None for setting in report.settings)


def _worth(difference: Estimate, setting: SettingReport, num_tests: int) -> str:
    subject = "the control" if setting.is_control else "distillation"
    note = " It is a control: its mode uses no teacher." if setting.is_control else ""
    mean = change(difference.mean)
    if difference.low is None or difference.high is None:
        return (
            f"In this one run the student changed by {mean} percentage points against the baseline. "
            f"Add seed=0,1,2 to see whether other seeds agree.{note}"
        )
    verdict = f"it contains zero: these runs do not show that {subject} helps or harms"
    if difference.low > 0:
        verdict = f"it lies above zero: {subject} helped"
    elif difference.high < 0:
        verdict = f"it lies below zero: {subject} did harm"
    return (
        f"Compared with the baseline of the same seed, the student changed by {mean} percentage points. "
        f"The 95% interval is {change(difference.low)} to {change(difference.high)}: {verdict}."
        f"{_corrected(setting.corrected_p, num_tests)}{note}"
    )


def _corrected(p: float | None, num_tests: int) -> str:
    """What is left of the verdict when all settings are compared with the baseline; empty where there is one."""
    if p is None or num_tests < 2:
        return ""
    outcome = "is larger than chance would explain" if p < 1 - CONFIDENCE else "could be chance"
    return (
        f" The interval does not allow for the {num_tests} settings that were compared with the baseline. The p-value "
        f"that does (paired t-test, Holm, 1979) is {p_value(p)}: the change {outcome}."
    )


def _honesty(num_settings: int) -> str:
    if num_settings == 1:
        return "Yes: validation selected the epoch, and the test split was read once, at the end."
    return (
        "Yes: settings are chosen by validation only. The validation accuracy of the best setting is a little too "
        f"high, because it is the best of {num_settings}; its test accuracy is not. Do not choose by test accuracy: "
        "then it would be too high as well."
    )


def _coverage(best: RecommendedSetting, replicate_keys: Sequence[str], unit: str) -> str:
    if best.val_accuracy.count == 1:
        return "There are none: they need two or more runs for each setting, as with seed=0,1,2."
    caveat = " Runs that share one of these values are not independent: the intervals are then too narrow."
    return (
        f"How much the mean over the completed {unit}s of a setting could change with another {listed(replicate_keys)} "
        "(Student's t interval). They do not cover another choice of test images."
        f"{caveat if len(replicate_keys) > 1 else ''}"
    )


def _left_out(best: RecommendedSetting, unit: str) -> str:
    count = len(best.incomplete)
    return (
        f"{count} setting{'' if count == 1 else 's'} with fewer than {best.val_accuracy.count} completed {unit}s: "
        f"the missing {unit}s could change the mean."
    )


def listed(names: Sequence[str]) -> str:
    """Names as a sentence lists them: a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
