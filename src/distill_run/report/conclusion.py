"""The sentence that people remember of a run: what distillation changed, and how sure that is."""

from distill_run.report.figures import Difference
from distill_run.report.run_report import RunReport
from distill_run.units import change, percent


def conclude(report: RunReport) -> str:
    """One sentence: how the student's test accuracy differs from the baseline's, and whether that could be chance.

    Where a training went wrong, it says what, and nothing of distillation.
    """
    if report.failures:
        return f"No verdict on {_subject(report)}: {'; '.join(report.failures)}."
    student, teacher = percent(report.student_accuracy), percent(report.teacher.selected.test.accuracy)
    difference, count = report.difference, len(report.repeats)
    mean = f" (the mean of {count} seeds)" if count > 1 else ""
    if report.is_control and report.mode["name"] == "none":
        return f"Without a teacher (mode=none) the student reaches {student}{mean}; the teacher reaches {teacher}."
    if difference is None:
        return f"The student reaches {student}{mean}, the teacher {teacher}; there is no baseline to compare with."
    return f"{_comparison(report, difference)}; the teacher reaches {teacher}."


def _comparison(report: RunReport, difference: Difference) -> str:
    subject, after = _subject(report), _after(report)
    alone, student = percent(report.baseline_accuracy), percent(report.student_accuracy)
    if difference.may_be_chance:
        return (
            f"No difference that {_evidence(difference)} can show: {alone} alone, {student} {after} "
            f"({change(difference.mean)} percentage points, {interval_text(difference)})"
        )
    points = f"{abs(100 * difference.mean):.2f} percentage points of test accuracy"
    over = _evidence(difference) if difference.over == "seeds" else f"{_evidence(difference)}, one seed"
    from_to = f"from {alone} alone to {student} {after}"
    if difference.mean < 0:
        return f"{_capital(subject)} cost {points} ({interval_text(difference.reversed)}, over {over}): {from_to}"
    gap = f", {report.gap_recovered:.0%} of the gap to the teacher" if report.gap_recovered is not None else ""
    return f"{_capital(subject)} gained {points} ({interval_text(difference)}, over {over}){gap}: {from_to}"


def interval_text(difference: Difference) -> str:
    """The interval of a difference in percentage points."""
    return f"95% interval {100 * difference.low:.2f} to {100 * difference.high:.2f}"


def _evidence(difference: Difference) -> str:
    return f"{difference.count:,} {'seeds' if difference.over == 'seeds' else 'test images'}"


def _subject(report: RunReport) -> str:
    return f"the control {report.mode['name']}" if report.is_control else "distillation"


def _after(report: RunReport) -> str:
    return "with it" if report.is_control else "distilled"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
