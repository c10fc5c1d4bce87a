"""Figures of a run beside those of its networks, as report.json holds them. No torch."""

from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class DatasetFacts:
    """The dataset's name, its sizes in images, and the hash of its content.

    `unlabelled_size` is the number of images without a target that the student learned from, too.
    """

    name: str
    num_classes: int
    train_size: int
    val_size: int
    test_size: int
    content: str = ""
    unlabelled_size: int = 0


@dataclass(frozen=True)
class Fidelity:
    """How well the student copies the teacher on the test split: see engine.evaluate.fidelity."""

    agreement: float
    disagreement: float
    kl: float


@dataclass(frozen=True)
class ClassScores:
    """How well a network knows one class, on the test split: fractions; None where there is nothing to divide by.

    `recall` is None for a class without test images, `precision` for one that the network never decides for, and `f1`
    for one that is both.
    """

    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class Difference:
    """The student's test accuracy, or recall of a class, minus the baseline's, with its 95% interval.

    `over` says what the interval covers: another choice of "seeds", of which there are `count`, or of test "images".
    """

    mean: float
    low: float
    high: float
    over: str
    count: int

    @property
    def may_be_chance(self) -> bool:
        """Whether the interval includes 0."""
        return self.low <= 0 <= self.high

    @property
    def reversed(self) -> "Difference":
        """The baseline's accuracy minus the student's."""
        return Difference(-self.mean, -self.high, -self.low, self.over, self.count)


@dataclass(frozen=True)
class ClassReport:
    """A class, the number of its test images, and the scores of the selected networks by their stages.

    `change` is the recall of the student to ship minus that of its baseline; None without a baseline or without images.
    `p_value` is that of the exact McNemar test of the two, corrected for the number of classes (Holm, 1979).
    """

    name: str
    test_images: int
    scores: dict[str, ClassScores]
    change: Difference | None = None
    p_value: float | None = None


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """The student in another format, and how it differs from the student itself on `images` test images.

    `file` lies in the folder exports. The accuracies are None where int8 was not asked for: then all test images are
    used, and `change` is the file's accuracy minus the student's. Intervals are those of 95%, over the test images.
    `milliseconds` are those of a batch on the CPU, by the number of its images; empty for a format that only holds
    weights.
    """

    format: str
    file: str
    bytes: int
    images: int
    largest_difference: float
    decisions_changed: int
    accuracy: float | None = None
    accuracy_interval: tuple[float, ...] | None = None
    change: float | None = None
    change_interval: tuple[float, ...] | None = None
    milliseconds: dict[str, float] = field(default_factory=dict)
