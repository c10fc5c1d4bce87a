"""Figures of a run beyond its accuracies, as report.json holds them: whether distillation really helped. No torch."""

from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True)
class Agreement:
    """Some test images, and on which share of them each network decides as the teacher does, by its stage.

    `shares` is empty where there are no images.
    """

    images: int
    shares: dict[str, float]


@dataclass(frozen=True)
class AgreementByTeacher:
    """The agreement with the teacher apart for the test images on which the teacher is right, and wrong.

    To agree where it is wrong is to make the very same mistake.
    """

    teacher_right: Agreement
    teacher_wrong: Agreement


@dataclass(frozen=True)
class Confidence:
    """How well a network's confidence fits on the test split: its mean, a fraction, beside what Scores says of it."""

    mean: float
    ece: float
    nll: float
    brier: float


@dataclass(frozen=True)
class Calibration:
    """The temperature that suits a network best on validation, and its confidence on test before and after it.

    `at_bound` says that no temperature that is tried is best: see engine.calibration.
    """

    temperature: float
    at_bound: bool
    before: Confidence
    after: Confidence


@dataclass(frozen=True)
class Robustness:
    """Accuracies on some test images as they are, and with each corruption at severities 1 to 5; by the stages.

    `corrupted` has a tuple of accuracies for each corruption and stage. See data.corruptions.
    """

    images: int
    clean: dict[str, float]
    corrupted: dict[str, dict[str, tuple[float, ...]]]

    def mean(self, stage: str) -> float:
        """A network's accuracy, the mean of all corruptions and severities."""
        return fmean(fmean(accuracies[stage]) for accuracies in self.corrupted.values())
