"""What report.json holds: the figures of a run, all fractions. It is written and read here. No torch."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from distill_run.engine.selection import goodness
from distill_run.engine.timing import Inference
from distill_run.files import RunFiles, write_json
from distill_run.report.figures import AgreementByTeacher, Calibration, Robustness
from distill_run.report.paired import Estimate
from distill_run.typed_json import decode, encode, read_object

FORMAT = 1


@dataclass(frozen=True)
class Scores:
    """How good a network is on one split: fractions, and the negative log-likelihood in nats.

    The last three are None in the files of versions that did not measure them.
    """

    accuracy: float
    top5_accuracy: float
    nll: float
    ece: float
    balanced_accuracy: float | None = None
    macro_f1: float | None = None
    brier: float | None = None


@dataclass(frozen=True)
class Moment:
    """A network's scores after one epoch. The epoch is None for a network that was not trained by this program."""

    epoch: int | None
    val: Scores
    test: Scores


@dataclass(frozen=True, kw_only=True)
class NetworkReport:
    """One network: its size, its scores, and its cost. `selected` is the best epoch on validation, `last` the last.

    `steps` is the number of the optimizer's steps in its training; None where that is not known. `reused` says that
    nothing was trained for it in this run; `origin` says where it comes from, in words. `speed` is empty where it
    was not measured.
    """

    architecture: str
    params: int
    macs: int
    bytes: int
    fingerprint: str
    selected: Moment
    last: Moment
    train_seconds: float
    images_per_second: float | None
    data_share: float | None = None
    peak_memory_bytes: int | None = None
    steps: int | None = None
    learning_rate: float | None = None
    lr_search: tuple[dict[str, float | None], ...] = ()
    precision: str | None = None
    reused: bool = False
    origin: str = "trained"
    speed: tuple[Inference, ...] = ()


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
class RepeatReport:
    """The baseline and the student of one seed. The first files with repeats lack the fidelity."""

    seed: int
    baseline: NetworkReport | None
    student: NetworkReport
    fidelity: Fidelity | None = None

    @property
    def change(self) -> float | None:
        """The student's test accuracy minus the baseline's; None without a baseline."""
        if self.baseline is None:
            return None
        return self.student.selected.test.accuracy - self.baseline.selected.test.accuracy


@dataclass(frozen=True)
class Means:
    """Test accuracies over the repeats."""

    baseline: Estimate | None
    student: Estimate


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


class NamedNetwork(NamedTuple):
    """A network and what it was in the run: "teacher", "assistant", "baseline" or "student"."""

    stage: str
    network: NetworkReport


@dataclass(frozen=True, kw_only=True, repr=False)
class RunReport:
    """The content of report.json, and the directory where it lies. The baseline may be left out.

    `student` is the one that validation prefers among the `repeats`, `baseline` that of the same seed. `select_by` is
    the validation figure that selected, one of engine.selection. `failures` say
    what went wrong in a training, so that the run cannot tell what distillation changed. The fields with defaults were
    added to the format later: old files do not have them.
    """

    format: int = FORMAT
    status: str = "completed"
    seed: int
    dataset: DatasetFacts
    mode: dict[str, Any]
    select_by: str = "accuracy"
    guided_by: str | None = None
    teacher: NetworkReport
    baseline: NetworkReport | None
    student: NetworkReport
    assistants: tuple[NetworkReport, ...] = ()
    repeats: tuple[RepeatReport, ...] = ()
    means: Means | None = None
    difference: Difference | None = None
    fidelity: Fidelity
    agreement_by_teacher: AgreementByTeacher | None = None
    calibration: dict[str, Calibration] = field(default_factory=dict)
    robustness: Robustness | None = None
    classes: tuple[ClassReport, ...] = ()
    gap_recovered: float | None
    gap_interval: tuple[float, ...] | None = None
    failures: tuple[str, ...] = ()
    exports: tuple[ExportReport, ...] = ()
    conclusion: str
    in_plain_words: str = ""
    warnings: tuple[str, ...]
    run_dir: Path

    @property
    def val_accuracy(self) -> float:
        """The selected student's validation accuracy, the mean of all repeats."""
        return fmean(student.selected.val.accuracy for student in self.students)

    @property
    def val_goodness(self) -> float:
        """The validation figure that selects, the mean of all repeats, larger is better: what a search may optimise."""
        return fmean(goodness(vars(student.selected.val), self.select_by) for student in self.students)

    @property
    def shipped_seed(self) -> int:
        """The seed of `student`."""
        return next((repeat.seed for repeat in self.repeats if repeat.student == self.student), self.seed)

    @property
    def students(self) -> list[NetworkReport]:
        """The students of all repeats."""
        return [repeat.student for repeat in self.repeats] or [self.student]

    @property
    def baselines(self) -> list[NetworkReport]:
        """The baselines of all repeats; empty where the run has none."""
        found = [repeat.baseline for repeat in self.repeats] or [self.baseline]
        return [baseline for baseline in found if baseline is not None]

    @property
    def student_accuracy(self) -> float:
        """The selected student's test accuracy, the mean of all repeats."""
        return fmean(student.selected.test.accuracy for student in self.students)

    @property
    def baseline_accuracy(self) -> float | None:
        """The selected baseline's test accuracy, the mean of all repeats; None without a baseline."""
        found = [baseline.selected.test.accuracy for baseline in self.baselines]
        return fmean(found) if found else None

    @property
    def change(self) -> float | None:
        """By how much distillation changed the test accuracy: student - baseline; None without a baseline."""
        alone = self.baseline_accuracy
        return None if alone is None else self.student_accuracy - alone

    @property
    def is_control(self) -> bool:
        """Whether the student learns without a teacher, to show what a gain owes to the teacher."""
        return self.guided_by == "nothing"

    @property
    def networks(self) -> list[NamedNetwork]:
        """The networks of the run in the order of their training."""
        baseline = [] if self.baseline is None else [NamedNetwork("baseline", self.baseline)]
        assistants = [NamedNetwork("assistant", network) for network in self.assistants]
        return [NamedNetwork("teacher", self.teacher), *assistants, *baseline, NamedNetwork("student", self.student)]

    @property
    def summary(self) -> dict[str, Any]:
        """What `to_dict` returns; it was called so up to version 0.4."""
        return self.to_dict()

    def to_dict(self) -> dict[str, Any]:
        """The content of report.json as plain containers."""
        return {each.name: encode(getattr(self, each.name)) for each in FIELDS_IN_FILE}

    def __repr__(self) -> str:
        return f"<RunReport of {self.run_dir}: {self.conclusion}>"

    def __str__(self) -> str:
        from distill_run.report.shown import as_text  # it needs this module

        return as_text(self)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from distill_run.report.shown import as_html

        return as_html(self)

    @classmethod
    def from_json(cls, content: dict[str, Any], run_dir: Path) -> "RunReport":
        """Read the content of report.json; raises ValueError that names what is wrong or absent."""
        if content.get("format") != FORMAT:
            raise ValueError(f"report.json has format {content.get('format')!r}; format {FORMAT} can be read")
        try:
            return decode(cls, {**content, "run_dir": str(run_dir)})
        except ValueError as error:
            raise ValueError(f"report.json is damaged ({error})") from None


FIELDS_IN_FILE = [each for each in dataclasses.fields(RunReport) if each.name != "run_dir"]


def write_report(report: RunReport) -> None:
    """Write report.json into the run's directory, whole or not at all."""
    write_json(RunFiles(report.run_dir).report, report.to_dict())


def read_report(run_dir: Path) -> RunReport:
    """The report of a completed run; raises ValueError that says what is wrong with its report.json."""
    return RunReport.from_json(read_object(RunFiles(run_dir).report), run_dir)
