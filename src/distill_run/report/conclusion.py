"""The sentence that people remember of a run: what distillation changed, and how sure that is."""

from distill_run.report.run_report import Difference, RunReport
from distill_run.units import change, percent


def conclude(report: RunReport) -> str:
    """One sentence: how the student's test accuracy differs from the baseline's, and whether that could be chance.

    Where a training went wrong, it says what, and nothing of distillation.
    """
    if report.failures:
        return f"No verdict on {_subject(report)}: {'; '.join(report.failures)}."
    student, teacher = percent(report.student_accuracy), percent(report.teacher.selected.test.accuracy)
    difference = report.difference
    if difference is None:
        return f"The student reaches {student}, the teacher {teacher}; there is no baseline to compare with."
    return f"{_comparison(report, difference)}; the teacher reaches {teacher}."


def _comparison(report: RunReport, difference: Difference) -> str:
    subject, after = _subject(report), _after(report)
    alone, student = percent(report.baseline_accuracy), percent(report.student_accuracy)
    if difference.is_nothing:
        return f"{_capital(subject)} changed nothing: {alone} with it and without it"
    if difference.may_be_chance:
        return (
            f"No difference that {_evidence(difference)} can show: {alone} alone, {student} {after} "
            f"({change(difference.mean)} percentage points, {interval_text(difference)})"
        )
    verb = "gained" if difference.mean > 0 else "cost"
    points = f"{abs(100 * difference.mean):.2f} percentage points of test accuracy"
    gap = f", {report.gap_recovered:.0%} of the gap to the teacher" if report.gap_recovered is not None else ""
    span = interval_text(difference) if difference.mean > 0 else interval_text(difference.reversed)
    over = f", over {_evidence(difference)}" if difference.over == "seeds" else ""
    return f"{_capital(subject)} {verb} {points} ({span}{over}){gap}: from {alone} alone to {student} {after}"


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
