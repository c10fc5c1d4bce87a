"""From trained networks to a run's report: its figures, its conclusion, and the warnings that only figures can give."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from distill_run.config.schema import Settings
from distill_run.data.feed import Feed
from distill_run.data.source import ImageShape
from distill_run.engine.evaluate import fidelity, measure
from distill_run.models.network import count_bytes, count_macs, count_params
from distill_run.report.run_report import DatasetFacts, Fidelity, Moment, NetworkReport, RunReport, Scores
from distill_run.stages.trained import Measured, Trained


class Accuracies(NamedTuple):
    """Test accuracies of the selected networks."""

    teacher: float
    baseline: float | None
    student: float


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
    settings: Settings,
    feed: Feed,
    networks: dict[str, Trained],
    assistants: list[Trained],
    warnings: list[str],
    run_dir: Path,
) -> RunReport:
    """The report of a run from what was trained, by stage; the test split is measured here, once."""
    targets, shape = feed.test.targets.cpu(), feed.shape
    figures = {stage: _network(trained, targets, shape) for stage, trained in networks.items()}
    accuracies = _test_accuracies(figures)
    student, teacher = networks["student"], networks["teacher"]
    return RunReport(
        seed=settings.seed,
        dataset=DatasetFacts(
            name=settings.names.dataset,
            num_classes=shape.num_classes,
            train_size=len(feed.train),
            val_size=len(feed.val),
            test_size=len(feed.test),
            content=feed.content,
        ),
        mode={"name": settings.names.mode, **settings.mode},
        guided_by=student.guided_by,
        teacher=figures["teacher"],
        baseline=figures.get("baseline"),
        student=figures["student"],
        assistants=tuple(_network(assistant, targets, shape) for assistant in assistants),
        fidelity=Fidelity(**fidelity(student.selected.test_logits, teacher.selected.test_logits)),
        gap_recovered=gap_recovered(accuracies),
        conclusion=conclusion(accuracies),
        warnings=(*warnings, *_comparisons(accuracies)),
        run_dir=run_dir,
    )


def _network(trained: Trained, targets: Tensor, shape: ImageShape) -> NetworkReport:
    return NetworkReport(
        architecture=trained.name,
        params=count_params(trained.network),
        macs=count_macs(trained.network, shape),
        bytes=count_bytes(trained.network),
        fingerprint=trained.fingerprint,
        selected=_moment(trained.selected, targets),
        last=_moment(trained.last, targets),
        train_seconds=trained.cost.train_seconds,
        images_per_second=trained.cost.images_per_second,
        data_share=trained.cost.data_share,
        peak_memory_bytes=trained.cost.peak_memory_bytes,
        learning_rate=trained.learning_rate,
        lr_search=tuple(trained.lr_search),
        reused=trained.reused,
        origin=trained.origin_text,
    )


def _moment(measured: Measured, targets: Tensor) -> Moment:
    return Moment(measured.epoch, Scores(**measured.val), Scores(**measure(measured.test_logits, targets)))


def _test_accuracies(figures: dict[str, NetworkReport]) -> Accuracies:
    found = {stage: network.selected.test.accuracy for stage, network in figures.items()}
    return Accuracies(found["teacher"], found.get("baseline"), found["student"])


def gap_recovered(accuracies: Accuracies) -> float | None:
    """(student - baseline) / (teacher - baseline), of test accuracy; None unless the teacher is above the baseline."""
    teacher, baseline, student = accuracies
    if baseline is None or teacher <= baseline:
        return None
    return (student - baseline) / (teacher - baseline)


def conclusion(accuracies: Accuracies) -> str:
    """One sentence: how distillation changed the test accuracy."""
    teacher, baseline, student = accuracies
    if baseline is None:
        return f"The student reaches {student:.2%}, the teacher {teacher:.2%}; there is no baseline to compare with."
    change = round(100 * (student - baseline), 2)  # as it is shown
    if change == 0:
        return f"Distillation changed nothing: {student:.2%} with and without the teacher, which reaches {teacher:.2%}."
    from_to = f"from {baseline:.2%} alone to {student:.2%}; the teacher reaches {teacher:.2%}."
    if change < 0:
        return f"Distillation cost {-change:.2f} percentage points of test accuracy: {from_to}"
    gap = gap_recovered(accuracies)
    share = "" if gap is None else f", {gap:.0%} of the gap to the teacher"
    return f"Distillation gained {change:.2f} percentage points of test accuracy{share}: {from_to}"


def _comparisons(accuracies: Accuracies) -> list[str]:
    """Warnings that only the finished figures can give."""
    teacher, baseline, _ = accuracies
    if baseline is not None and teacher < baseline:
        return [
            f"the teacher ({teacher:.2%}) is worse than the student alone ({baseline:.2%}): train it longer, "
            "search its learning rate, or choose a larger one before distilling from it"
        ]
    return []
