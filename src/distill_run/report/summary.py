"""report.json: the figures of a run, all fractions, and the sentences that are drawn from them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from distill_run.config.schema import Settings
from distill_run.data.source import ImageShape
from distill_run.data.splits import Dataset
from distill_run.engine.evaluate import fidelity, measure
from distill_run.models.network import count_bytes, count_macs, count_params
from distill_run.stages.trained import Measured, Trained

FORMAT = 1
STAGES = ("teacher", "baseline", "student")


class Accuracies(NamedTuple):
    """Test accuracies of the selected networks."""

    teacher: float
    baseline: float | None
    student: float


@dataclass(frozen=True)
class Findings:
    """All that the pages show. `networks` holds what was trained by its stage; the baseline may be left out."""

    summary: dict[str, Any]
    networks: dict[str, Trained]
    dataset: Dataset
    settings: Settings
    config: str
    environment: dict[str, Any]
    run_dir: Path


def summarise(
    settings: Settings,
    dataset: Dataset,
    shape: ImageShape,
    networks: dict[str, Trained],
    assistants: list[Trained],
    warnings: list[str],
) -> dict[str, Any]:
    """The content of report.json (format 1); absent networks are null."""
    student, teacher = networks["student"], networks["teacher"]
    figures: dict[str, Any] = {
        stage: _network(networks[stage], dataset, shape) if stage in networks else None for stage in STAGES
    }
    accuracies = Accuracies(*(figures[stage] and figures[stage]["selected"]["test"]["accuracy"] for stage in STAGES))
    return {
        "format": FORMAT,
        "status": "completed",
        "seed": settings.seed,
        "dataset": {
            "name": settings.names.dataset,
            "num_classes": shape.num_classes,
            "train_size": len(dataset.train),
            "val_size": len(dataset.val),
            "test_size": len(dataset.test),
            "content": dataset.content,
        },
        "mode": {"name": settings.names.mode, **settings.mode},
        "guided_by": student.guided_by,
        **figures,
        "assistants": [_network(assistant, dataset, shape) for assistant in assistants],
        "fidelity": fidelity(student.selected.test_logits, teacher.selected.test_logits),
        "gap_recovered": gap_recovered(accuracies),
        "conclusion": conclusion(accuracies),
        "warnings": [*warnings, *_comparisons(accuracies)],
    }


def networks_of(summary: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The figures of each network of report.json by its stage: teacher, assistants, baseline, student."""
    chain = [("assistant", network) for network in summary["assistants"]]
    teacher, *others = ((stage, summary[stage]) for stage in STAGES if summary[stage] is not None)
    return [teacher, *chain, *others]


def _network(trained: Trained, dataset: Dataset, shape: ImageShape) -> dict[str, Any]:
    targets = dataset.test.targets.cpu()
    return {
        "architecture": trained.name,
        "params": count_params(trained.network),
        "macs": count_macs(trained.network, shape),
        "bytes": count_bytes(trained.network),
        "fingerprint": trained.fingerprint,
        "selected": _moment(trained.selected, targets),
        "last": _moment(trained.last, targets),
        "train_seconds": trained.cost.train_seconds,
        "images_per_second": trained.cost.images_per_second,
        "data_share": trained.cost.data_share,
        "peak_memory_bytes": trained.cost.peak_memory_bytes,
        "learning_rate": trained.learning_rate,
        "lr_search": list(trained.lr_search),
        "reused": trained.reused,
        "origin": trained.origin_text,
    }


def _moment(measured: Measured, targets: Tensor) -> dict[str, Any]:
    return {"epoch": measured.epoch, "val": measured.val, "test": measure(measured.test_logits, targets)}


def gap_recovered(accuracies: Accuracies) -> float | None:
    """(student - baseline) / (teacher - baseline) of test accuracy; None where the teacher is not the better."""
    teacher, baseline, student = accuracies
    if baseline is None or teacher <= baseline:
        return None
    return (student - baseline) / (teacher - baseline)


def conclusion(accuracies: Accuracies) -> str:
    """One sentence: what distillation bought on the test split."""
    teacher, baseline, student = accuracies
    if baseline is None:
        return f"The student reaches {student:.2%}, the teacher {teacher:.2%}; there is no baseline to compare with."
    change = 100 * (student - baseline)
    alone = f"from {baseline:.2%} alone to {student:.2%}; the teacher reaches {teacher:.2%}."
    if change == 0:
        return f"Distillation changed nothing: {student:.2%} with and without the teacher, which reaches {teacher:.2%}."
    if change < 0:
        return f"Distillation cost {-change:.2f} points of test accuracy: {alone}"
    gap = gap_recovered(accuracies)
    share = f", {gap:.0%} of the gap to the teacher" if gap is not None else ""
    return f"Distillation bought {change:.2f} points of test accuracy{share}: {alone}"


def _comparisons(accuracies: Accuracies) -> list[str]:
    """Warnings that only the finished figures can give."""
    teacher, baseline, _ = accuracies
    if baseline is not None and teacher < baseline:
        return [
            f"the teacher ({teacher:.2%}) is worse than the student alone ({baseline:.2%}): train it longer, "
            "search its learning rate, or choose a larger one before distilling from it"
        ]
    return []
