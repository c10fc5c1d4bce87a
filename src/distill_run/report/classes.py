"""How well each network knows each class: for report.json, and the table of the pages, the worst class first."""

import math
from collections.abc import Mapping

from torch import Tensor

from distill_run.data.feed import Feed
from distill_run.data.splits import class_counts
from distill_run.engine.evaluate import class_figures
from distill_run.report.run_report import ClassReport, ClassScores, RunReport
from distill_run.stages.trained import Trained
from distill_run.units import percent

MAX_OPEN_CLASSES = 20  # on report.html; the table of more is folded away
NUM_WORST = 10  # in report.md


def class_reports(networks: Mapping[str, Trained], feed: Feed) -> tuple[ClassReport, ...]:
    """Each class of the test split, with the scores of the selected networks by their stages."""
    targets = feed.test.targets.cpu()
    scores = {stage: _scores(trained.selected.test_logits, targets) for stage, trained in networks.items()}
    counts = class_counts(feed.test, len(feed.classes)).tolist()
    reports = []
    for index, (name, count) in enumerate(zip(feed.classes, counts, strict=True)):
        reports.append(ClassReport(name, count, {stage: each[index] for stage, each in scores.items()}))
    return tuple(reports)


def _scores(logits: Tensor, targets: Tensor) -> list[ClassScores]:
    columns = []
    for figure in class_figures(logits, targets):
        columns.append([None if math.isnan(value) else value for value in figure.tolist()])
    return [ClassScores(*row) for row in zip(*columns, strict=True)]


def class_columns(report: RunReport) -> list[str]:
    """The headings of `class_rows`."""
    recalls = [f"{stage}'s recall" for stage in report.classes[0].scores]
    return ["class", "test images", *recalls, "student's precision", "student's F1"]


def class_rows(report: RunReport) -> list[list[str]]:
    """A row for each class: the one of which the student recognises the smallest share comes first."""
    return [_row(each) for each in sorted(report.classes, key=_student_recall)]


def _student_recall(each: ClassReport) -> float:
    recall = each.scores["student"].recall
    return math.inf if recall is None else recall  # a class without test images comes last


def _row(each: ClassReport) -> list[str]:
    student = each.scores["student"]
    recalls = [percent(scores.recall) for scores in each.scores.values()]
    return [each.name, f"{each.test_images:,}", *recalls, percent(student.precision), percent(student.f1)]
