"""The questions that people ask about a run, with their answers."""

from distill_run.engine.selection import FIGURE_NAMES
from distill_run.report.chance import compare, counts
from distill_run.report.run_report import RunReport
from distill_run.report.summary import Findings, is_right

SHOWN_FINGERPRINT = 12  # characters
GUIDED_BY = {
    "logit bank": "The student learned from its logits, which were worked out once and kept on disk (the logit bank).",
    "live teacher": "It ran in every training step of the student.",
    "nothing": "The student's mode does not use it.",
}


def answers(findings: Findings) -> list[tuple[str, str]]:
    """The questions that people ask next, once they have read the conclusion, with their answers."""
    ship = "checkpoints/student.pt: the selected student alone, with its normalisation and its class names."
    return [
        *_evidence(findings),
        ("Was the teacher really loaded?", teacher_origin(findings.report)),
        ("Last epoch or best epoch?", _epochs(findings.report)),
        ("Which file do I ship?", ship),
    ]


def _evidence(findings: Findings) -> list[tuple[str, str]]:
    """What the conclusion rests on: the seeds where there are several, else the test images."""
    report, question = findings.report, "What does the conclusion rest on?"
    if report.baseline is None or report.failures:
        return []
    if len(report.repeats) > 1:
        return [(question, _seeds(report))]
    targets = findings.feed.test.targets.cpu()
    student, baseline = (is_right(findings.networks[stage], targets) for stage in ("student", "baseline"))
    return [(question, counts(compare(student, baseline), len(targets)))]


def _seeds(report: RunReport) -> str:
    pairs = list(zip(report.students, report.baselines, strict=True))
    above = sum(student.selected.test.accuracy > alone.selected.test.accuracy for student, alone in pairs)
    return (
        f"The student is above its baseline with {above} of {len(pairs)} seeds. The interval shows what other seeds "
        "would change with this teacher; it does not show what another teacher or other test images would change."
    )


def teacher_origin(report: RunReport) -> str:
    """Where the teacher comes from, how good it is, and how it taught."""
    teacher, scores = report.teacher, report.teacher.selected
    origin = "trained in this run" if teacher.origin == "trained" else teacher.origin
    sentences = [
        f"{teacher.architecture} was {origin}; its fingerprint, a hash of all that it depends on, begins with "
        f"{teacher.fingerprint[:SHOWN_FINGERPRINT]}.",
        f"It reaches {scores.val.accuracy:.2%} on validation and {scores.test.accuracy:.2%} on test.",
    ]
    if report.assistants:
        sentences.append(f"The student's own teacher is the last assistant, {report.assistants[-1].architecture}.")
    if report.guided_by is not None:
        sentences.append(GUIDED_BY[report.guided_by])
    return " ".join(sentences)


def _epochs(report: RunReport) -> str:
    selected, last = report.student.selected, report.student.last
    best = f"the best on validation, by {FIGURE_NAMES[report.select_by]}"
    if selected.epoch == last.epoch:
        return f"They are the same here: the last epoch, {last.epoch}, is also {best}."
    return (
        f"Epoch {selected.epoch} is {best}, and its weights are kept: they reach "
        f"{selected.test.accuracy:.2%} on test. The last epoch, {last.epoch}, reaches {last.test.accuracy:.2%}."
    )
