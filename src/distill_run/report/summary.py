"""From trained networks to a run's report: its figures, its conclusion, and the warnings that only figures can give."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from distill_run.config.schema import Settings
from distill_run.data.feed import Feed
from distill_run.engine.evaluate import fidelity, measure
from distill_run.models.network import count_bytes, count_macs, count_params
from distill_run.report.chance import SIGNIFICANCE, compare, difference_interval
from distill_run.report.classes import class_reports
from distill_run.report.conclusion import conclude
from distill_run.report.figures import DatasetFacts, Difference, Fidelity
from distill_run.report.measures import agreement_by_teacher, calibrations, robustness
from distill_run.report.network_report import Means, Moment, NetworkReport, RepeatReport, Scores
from distill_run.report.paired import SHARE, Estimate, estimate, gap_recovered, paired_difference
from distill_run.report.plain_words import in_plain_words
from distill_run.report.run_report import RunReport
from distill_run.stages.trained import Measured, Outcome, Repeat, Trained


@dataclass(frozen=True)
class Findings:
    """All that the pages show. `networks` holds what was trained by its stage; the baseline may be left out."""

    report: RunReport
    networks: dict[str, Trained]
    feed: Feed
    settings: Settings
    config: str
    environment: dict[str, Any]


def summarise(
    settings: Settings, feed: Feed, outcome: Outcome, warnings: list[str], failures: list[str], run_dir: Path
) -> RunReport:
    """The report of a run from what was trained; the test split is measured here, once.

    `failures` say what went wrong in a training: then the report gives no verdict.
    """
    targets, shape = feed.test.targets.cpu(), feed.shape
    teacher = _network(outcome.teacher, feed)
    repeats = [_repeat(repeat, outcome.teacher, feed) for repeat in outcome.repeats]
    shipped = repeats[outcome.repeats.index(outcome.preferred)]
    gap = _gap(outcome, targets)
    report = RunReport(
        seed=settings.seed,
        dataset=DatasetFacts(
            name=settings.names.dataset,
            num_classes=shape.num_classes,
            train_size=len(feed.train),
            val_size=len(feed.val),
            test_size=len(feed.test),
            content=feed.content,
            unlabelled_size=feed.num_unlabelled,
        ),
        mode={"name": settings.names.mode, **settings.mode},
        select_by=settings.training.select_by,
        guided_by=outcome.preferred.student.guided_by,
        teacher=teacher,
        baseline=shipped.baseline,
        student=shipped.student,
        assistants=tuple(_network(assistant, feed) for assistant in outcome.assistants),
        repeats=tuple(repeats),
        means=_means(repeats),
        difference=_difference(outcome.repeats, targets),
        fidelity=_fidelity(outcome.preferred.student, outcome.teacher),
        agreement_by_teacher=agreement_by_teacher(outcome.networks, targets),
        calibration=calibrations(outcome.networks, feed),
        robustness=robustness(outcome.networks, feed.test, settings.robustness_images),
        classes=class_reports(outcome.networks, feed),
        gap_recovered=None if gap is None else gap.mean,
        gap_interval=None if gap is None or gap.low is None or gap.high is None else (gap.low, gap.high),
        conclusion="",
        failures=(*failures, *_worse_teacher(outcome, targets)),
        warnings=tuple(warnings),
        run_dir=run_dir,
    )
    return replace(report, conclusion=conclude(report), in_plain_words=in_plain_words(report))


def _repeat(repeat: Repeat, teacher: Trained, feed: Feed) -> RepeatReport:
    baseline = None if repeat.baseline is None else _network(repeat.baseline, feed)
    student = _network(repeat.student, feed)
    return RepeatReport(repeat.seed, baseline, student, _fidelity(repeat.student, teacher))


def _fidelity(student: Trained, teacher: Trained) -> Fidelity:
    return Fidelity(**fidelity(student.selected.test_logits, teacher.selected.test_logits))


def _means(repeats: list[RepeatReport]) -> Means:
    students = [repeat.student.selected.test.accuracy for repeat in repeats]
    baselines = [repeat.baseline.selected.test.accuracy for repeat in repeats if repeat.baseline is not None]
    return Means(estimate(baselines, SHARE) if baselines else None, estimate(students, SHARE))


def _difference(repeats: list[Repeat], targets: Tensor) -> Difference | None:
    """Student - baseline: with several seeds the t interval of their mean, else an interval over the test images."""
    pairs = []
    for _, baseline, student in repeats:
        if baseline is None:
            return None
        pairs.append((is_right(student, targets), is_right(baseline, targets)))
    if len(pairs) == 1:
        paired, count = compare(*pairs[0]), len(targets)
        low, high = difference_interval(*pairs[0])
        return Difference((paired.only_first - paired.only_second) / count, low, high, "images", count)
    found = paired_difference(*([_share(right) for right in side] for side in zip(*pairs, strict=True)))
    assert found.low is not None
    assert found.high is not None
    return Difference(found.mean, found.low, found.high, "seeds", found.count)


def _gap(outcome: Outcome, targets: Tensor) -> Estimate | None:
    """The gap recovered: over the seeds where there are several, else over the test images."""
    teacher = is_right(outcome.teacher, targets)
    rights = []
    for _, baseline, student in outcome.repeats:
        if baseline is None:
            return None
        rights.append((is_right(student, targets), is_right(baseline, targets), teacher))
    if len(rights) > 1:
        sides = [[_share(right) for right in side] for side in zip(*rights, strict=True)]
    else:
        sides = [right.double().tolist() for right in rights[0]]
    students, baselines, teachers = sides
    return gap_recovered(students, baselines, teachers, one_image=1 / len(targets))


def is_right(trained: Trained, targets: Tensor) -> Tensor:
    """For each test image whether the selected network is right: (N,), bool."""
    return trained.selected.test_logits.argmax(1) == targets


def _share(right: Tensor) -> float:
    return right.double().mean().item()


def _network(trained: Trained, feed: Feed) -> NetworkReport:
    targets = feed.test.targets.cpu()
    return NetworkReport(
        architecture=trained.name,
        params=count_params(trained.network),
        macs=feed.kept.get(("macs", trained.fingerprint), lambda: count_macs(trained.network, feed.shape)),
        bytes=count_bytes(trained.network),
        fingerprint=trained.fingerprint,
        selected=_moment(trained.selected, targets),
        last=_moment(trained.last, targets),
        train_seconds=trained.cost.train_seconds,
        images_per_second=trained.cost.images_per_second,
        data_share=trained.cost.data_share,
        peak_memory_bytes=trained.cost.peak_memory_bytes,
        steps=trained.cost.steps,
        learning_rate=trained.learning_rate,
        lr_search=tuple(trained.lr_search),
        precision=trained.precision,
        reused=trained.reused,
        origin=trained.origin_text,
        speed=trained.speed,
    )


def _moment(measured: Measured, targets: Tensor) -> Moment:
    return Moment(measured.epoch, Scores(**measured.val), Scores(**measure(measured.test_logits, targets)))


def _worse_teacher(outcome: Outcome, targets: Tensor) -> list[str]:
    """A failure where the teacher is worse than the student alone, by more than other test images would change."""
    alone = outcome.preferred.baseline
    if alone is None:
        return []
    paired = compare(is_right(outcome.teacher, targets), is_right(alone, targets))
    is_worse = paired.only_first < paired.only_second and paired.p_value < SIGNIFICANCE
    return ["the teacher is worse than the student alone"] if is_worse else []
