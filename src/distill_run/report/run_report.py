"""What report.json holds: the figures of a run, all fractions. It is written and read here. No torch."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from distill_run.engine.selection import goodness
from distill_run.files import RunFiles, write_json
from distill_run.report.figures import (
    AgreementByTeacher,
    Calibration,
    ClassReport,
    DatasetFacts,
    Difference,
    ExportReport,
    Fidelity,
    Robustness,
)
from distill_run.report.network_report import Means, NamedNetwork, NetworkReport, RepeatReport
from distill_run.report.shown import as_html, as_text
from distill_run.typed_json import decode, encode, read_object

FORMAT = 1


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
        return as_text(self.networks, self.conclusion, RunFiles(self.run_dir).report_page)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return as_html(self.networks, self.conclusion, RunFiles(self.run_dir).report_page)

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
