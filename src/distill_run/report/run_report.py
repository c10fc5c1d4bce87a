"""What report.json holds: the figures of a run, all fractions. It is written and read here. No torch."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from distill_run.files import RunFiles, write_json
from distill_run.typed_json import decode, encode, read_object

FORMAT = 1


@dataclass(frozen=True)
class Scores:
    """How good a network is on one split: fractions, and the negative log-likelihood in nats."""

    accuracy: float
    top5_accuracy: float
    nll: float
    ece: float


@dataclass(frozen=True)
class Moment:
    """A network's scores after one epoch. The epoch is None for a network that was not trained by this program."""

    epoch: int | None
    val: Scores
    test: Scores


@dataclass(frozen=True, kw_only=True)
class NetworkReport:
    """One network: its size, its scores, and its cost. `selected` is the best epoch on validation, `last` the last.

    `reused` says that nothing was trained for it in this run; `origin` says where it comes from, in words.
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
    learning_rate: float | None = None
    lr_search: tuple[dict[str, float | None], ...] = ()
    reused: bool = False
    origin: str = "trained"


@dataclass(frozen=True)
class DatasetFacts:
    """The dataset's name, its sizes in images, and the hash of its content."""

    name: str
    num_classes: int
    train_size: int
    val_size: int
    test_size: int
    content: str = ""


@dataclass(frozen=True)
class Fidelity:
    """How well the student copies the teacher on the test split: see engine.evaluate.fidelity."""

    agreement: float
    disagreement: float
    kl: float


class NamedNetwork(NamedTuple):
    """A network and what it was in the run: "teacher", "assistant", "baseline" or "student"."""

    stage: str
    network: NetworkReport


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """The content of report.json, and the directory where it lies. The baseline may be left out.

    The fields with defaults were added to the format later: old files do not have them.
    """

    format: int = FORMAT
    status: str = "completed"
    seed: int
    dataset: DatasetFacts
    mode: dict[str, Any]
    guided_by: str | None = None
    teacher: NetworkReport
    baseline: NetworkReport | None
    student: NetworkReport
    assistants: tuple[NetworkReport, ...] = ()
    fidelity: Fidelity
    gap_recovered: float | None
    conclusion: str
    warnings: tuple[str, ...]
    run_dir: Path

    @property
    def val_accuracy(self) -> float:
        """The selected student's accuracy on the validation split: what a search may optimise."""
        return self.student.selected.val.accuracy

    @property
    def change(self) -> float | None:
        """By how much distillation changed the test accuracy: student - baseline; None without a baseline."""
        if self.baseline is None:
            return None
        return self.student.selected.test.accuracy - self.baseline.selected.test.accuracy

    @property
    def is_control(self) -> bool:
        """Whether the student's mode uses no teacher, as label smoothing: what it changes is not distillation's."""
        return self.guided_by == "nothing"

    @property
    def networks(self) -> list[NamedNetwork]:
        """The networks of the run in the order of their training."""
        baseline = [] if self.baseline is None else [NamedNetwork("baseline", self.baseline)]
        assistants = [NamedNetwork("assistant", network) for network in self.assistants]
        return [NamedNetwork("teacher", self.teacher), *assistants, *baseline, NamedNetwork("student", self.student)]

    @property
    def summary(self) -> dict[str, Any]:
        """The content of report.json as plain containers."""
        return self.to_json()

    def to_json(self) -> dict[str, Any]:
        """The content of report.json as plain containers."""
        return {field.name: encode(getattr(self, field.name)) for field in FIELDS_IN_FILE}

    @classmethod
    def from_json(cls, content: dict[str, Any], run_dir: Path) -> "RunReport":
        """Read the content of report.json; raises ValueError that names what is wrong or absent."""
        if content.get("format") != FORMAT:
            raise ValueError(f"report.json has format {content.get('format')!r}; format {FORMAT} can be read")
        try:
            return decode(cls, {**content, "run_dir": str(run_dir)})
        except ValueError as error:
            raise ValueError(f"report.json is damaged ({error})") from None


FIELDS_IN_FILE = [field for field in dataclasses.fields(RunReport) if field.name != "run_dir"]


def write_report(report: RunReport) -> None:
    """Write report.json into the run's directory, whole or not at all."""
    write_json(RunFiles(report.run_dir).report, report.to_json())


def read_report(run_dir: Path) -> RunReport:
    """The report of a completed run; raises ValueError that says what is wrong with its report.json."""
    return RunReport.from_json(read_object(RunFiles(run_dir).report), run_dir)
