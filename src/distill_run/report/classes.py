"""How well each network knows each class, and which classes distillation changed: for report.json and the pages."""

import math
from collections.abc import Mapping

from torch import Tensor

from distill_run.data.feed import Feed
from distill_run.data.splits import class_counts
from distill_run.engine.evaluate import class_figures
from distill_run.report.chance import SIGNIFICANCE, compare, difference_interval
from distill_run.report.figures import ClassReport, ClassScores, Difference
from distill_run.report.paired import holm
from distill_run.report.run_report import RunReport
from distill_run.stages.trained import Trained
from distill_run.units import NONE, change, percent

MAX_OPEN_CLASSES = 20  # on report.html; the table of more is folded away
NUM_WORST = 10  # in report.md


def class_reports(networks: Mapping[str, Trained], feed: Feed) -> tuple[ClassReport, ...]:
    """Each class of the test split, with the scores of the selected networks by their stages."""
    targets = feed.test.targets.cpu()
    scores = {stage: _scores(trained.selected.test_logits, targets) for stage, trained in networks.items()}
    counts = class_counts(feed.test, len(feed.classes)).tolist()
    changes = _changes(networks, targets)
    reports = []
    for index, (name, count) in enumerate(zip(feed.classes, counts, strict=True)):
        difference, p_value = changes.get(index, (None, None))
        of_class = {stage: each[index] for stage, each in scores.items()}
        reports.append(ClassReport(name, count, of_class, difference, p_value))
    return tuple(reports)


def _changes(networks: Mapping[str, Trained], targets: Tensor) -> dict[int, tuple[Difference, float]]:
    """For each class with test images: by how much its recall changed, and the corrected p-value."""
    if "baseline" not in networks:
        return {}
    student, baseline = (networks[stage].selected.test_logits.argmax(1) == targets for stage in ("student", "baseline"))
    differences, p_values = {}, []
    for index in sorted(set(targets.tolist())):
        first, second = student[targets == index], baseline[targets == index]
        paired, count = compare(first, second), len(first)
        mean, interval = (paired.only_first - paired.only_second) / count, difference_interval(first, second)
        differences[index] = Difference(mean, *interval, "images", count)
        p_values.append(paired.p_value)
    corrected = zip(differences.items(), holm(p_values), strict=True)
    return {index: (difference, p_value) for (index, difference), p_value in corrected}


def _scores(logits: Tensor, targets: Tensor) -> list[ClassScores]:
    columns = []
    for figure in class_figures(logits, targets):
        columns.append([None if math.isnan(value) else value for value in figure.tolist()])
    return [ClassScores(*row) for row in zip(*columns, strict=True)]


def class_columns(report: RunReport) -> list[str]:
    """The headings of `class_rows`."""
    recalls = [f"{stage}'s recall" for stage in report.classes[0].scores]
    changes = [] if report.baseline is None else ["change of recall"]
    return ["class", "test images", *recalls, *changes, "student's precision", "student's F1"]


def class_rows(report: RunReport) -> list[list[str]]:
    """A row for each class: the one of which the student recognises the smallest share comes first."""
    return [_row(each, report) for each in worst_first(report)]


def worst_first(report: RunReport) -> list[ClassReport]:
    """The classes: the one of which the student recognises the smallest share comes first."""
    return sorted(report.classes, key=_student_recall)


def changed_classes(report: RunReport) -> str:
    """A sentence that names the classes that the student clearly knows better, or worse, than its baseline."""
    clear = [each for each in report.classes if each.p_value is not None and each.p_value < SIGNIFICANCE]
    gained = [each.name for each in clear if each.change is not None and each.change.mean > 0]
    lost = [each.name for each in clear if each.name not in gained]
    told = [f"{what}: {', '.join(names)}" for what, names in (("gained", gained), ("lost", lost)) if names]
    return f"Clearly {'; '.join(told)}." if told else "No class clearly gained or lost."


def _student_recall(each: ClassReport) -> float:
    recall = each.scores["student"].recall
    return math.inf if recall is None else recall  # a class without test images comes last


def _row(each: ClassReport, report: RunReport) -> list[str]:
    student = each.scores["student"]
    recalls = [percent(scores.recall) for scores in each.scores.values()]
    changes = [] if report.baseline is None else [_change(each.change)]
    return [each.name, f"{each.test_images:,}", *recalls, *changes, percent(student.precision), percent(student.f1)]


def _change(difference: Difference | None) -> str:
    """The change of a class's recall in percentage points, with its interval."""
    if difference is None:
        return NONE
    return f"{change(difference.mean)} ({100 * difference.low:.2f} to {100 * difference.high:.2f})"
