"""What a run found out, in plain words: for someone who decides, and has never heard of a logit."""

from typing import NamedTuple

from distill_run.report.chance import accuracy_interval
from distill_run.report.classes import worst_first
from distill_run.report.figures import Difference
from distill_run.report.run_report import RunReport
from distill_run.units import counted, percent, quantity

MAX_WEAK_CLASSES = 3


class Sentence(NamedTuple):
    """A sentence, and the id of the section of report.html that has the figures behind it."""

    text: str
    section: str


def in_plain_words(report: RunReport) -> str:
    """The paragraph as one text."""
    return " ".join(sentence.text for sentence in sentences(report))


def sentences(report: RunReport) -> list[Sentence]:
    """What was asked, what came out, how sure it is, what it costs, where it fails, whether it knows how sure it is."""
    found = [
        Sentence(_question(report), "configuration"),
        Sentence(_outcome(report), "networks"),
        Sentence(_size(report), "networks"),
        Sentence(_weakness(report), "classes"),
        Sentence(_confidence(report), "reliability"),
        Sentence(_robustness(report), "robustness"),
    ]
    return [sentence for sentence in found if sentence.text]


def _question(report: RunReport) -> str:
    student, teacher = report.student.architecture, report.teacher.architecture
    if report.is_control and report.mode["name"] == "none":
        return f"This run trained {student} without a teacher."
    if report.is_control:
        return f"This run asked what {report.mode['name']}, which needs no teacher, changes for {student}."
    return f"This run asked whether {student} classifies better when it learns from {teacher} as well."


def _outcome(report: RunReport) -> str:
    if report.failures:
        return "It has no answer, because something went wrong: see the warnings."
    student, teacher = _of_thousand(report.student_accuracy), _of_thousand(report.teacher.selected.test.accuracy)
    alone, difference = report.baseline_accuracy, report.difference
    if alone is None or difference is None:
        return (
            f"Of 1,000 new images the student gets about {student} right, the teacher {teacher}. How much of that it "
            "owes to the teacher is not known, for it was not trained alone."
        )
    figures = f"of 1,000 new images it gets about {student} right, alone {_of_thousand(alone)}, the teacher {teacher}"
    if difference.may_be_chance:
        return f"No difference could be shown: {figures}, which may be chance. {_sureness(difference)}"
    return f"{'It gets better' if difference.mean > 0 else 'It gets worse'}: {figures}. {_sureness(difference)}"


def _sureness(difference: Difference) -> str:
    """How sure the difference is, and what that does not cover."""
    low, high = f"{100 * difference.low:+.2f}", f"{100 * difference.high:+.2f}"
    known = f"The true change is probably between {low} and {high} percentage points"
    if difference.over == "seeds":
        return f"{known}, judged by {counted(difference.count, 'repeat')} with other random numbers."
    return (
        f"{known}, judged by {counted(difference.count, 'test image')}; another random start of the training may "
        "change it further (add repeats=5 to see that)."
    )


def _of_thousand(share: float) -> str:
    return f"{round(1000 * share):,}"


def _size(report: RunReport) -> str:
    student, teacher = report.student, report.teacher
    size = f"The student's weights take {quantity(student.bytes)}B instead of {quantity(teacher.bytes)}B"
    if teacher.macs:
        size += f", and an image costs {student.macs / teacher.macs:.1%} of the teacher's multiply-adds"
    return f"{size}."


def _weakness(report: RunReport) -> str:
    """The classes that the student knows worst."""
    weak = []
    for each in worst_first(report)[:MAX_WEAK_CLASSES]:
        recall = each.scores["student"].recall
        if recall is not None and recall < 1:
            weak.append(f"{each.name} ({percent(recall)} of {counted(each.test_images, 'image')})")
    subject = f"The student to ship, of seed {report.shipped_seed}," if len(report.repeats) > 1 else "It"
    return f"{subject} recognises these classes worst: {', '.join(weak)}." if weak else ""


def _confidence(report: RunReport) -> str:
    """Whether the student's mean confidence is its accuracy, as far as the test images can tell."""
    calibration = report.calibration.get("student")
    if calibration is None:
        return ""
    accuracy, sure = report.student.selected.test.accuracy, calibration.before.mean
    low, high = accuracy_interval(accuracy, report.dataset.test_size)
    figures = f"on average it is {sure:.1%} sure, and right in {accuracy:.1%} of the cases"
    if low <= sure <= high:
        mean = f"Its confidence is right on average: {figures}"
        return f"{mean}; in single cases it is off by {calibration.before.ece:.1%} (mean calibration error)."
    verdict = "It is too sure of itself" if sure > high else "It is less sure than it could be"
    remedy = ""
    if not calibration.at_bound and calibration.after.nll < calibration.before.nll:
        remedy = f"; dividing its logits by {calibration.temperature:.2f} brings that closer"
    return f"{verdict}: {figures}{remedy}."


def _robustness(report: RunReport) -> str:
    robustness = report.robustness
    if robustness is None:
        return ""
    others = [stage for stage in robustness.clean if stage != "student"]
    compared = ", ".join(f"the {stage} {robustness.mean(stage):.1%}" for stage in others)
    return (
        f"With noise, blur, weak contrast and JPEG compression it still gets {robustness.mean('student'):.1%} right on "
        f"average ({compared})."
    )
