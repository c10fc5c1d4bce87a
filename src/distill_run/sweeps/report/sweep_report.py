"""What sweep.json holds: settings, runs and the recommended setting of a sweep. It is written and read here."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_run.files import write_json
from distill_run.report.paired import Estimate
from distill_run.typed_json import decode, encode, read_object

FORMAT = 1
FILE_NAME = "sweep.json"


@dataclass(frozen=True, kw_only=True)
class SettingReport:
    """Runs that differ in seeds only, with estimates of their figures (see points.Figures).

    A figure is None where no run has it. `runs` are the directories of the runs, `replicates` is how many seeds of them
    are completed, and `asked` how many there should be; most runs have one seed. `p_value` is that of the paired t-test
    of student and baseline over the seeds, `corrected_p` the same corrected for the number of settings (Holm); None
    without two pairs. `is_control` says that its mode uses no teacher. The fields with defaults were added to the
    format later.
    """

    values: dict[str, Any]
    runs: tuple[str, ...]
    replicates: int
    asked: int
    val_accuracy: Estimate | None
    val_nll: Estimate | None
    test_accuracy: Estimate | None
    teacher_test_accuracy: Estimate | None
    baseline_val_accuracy: Estimate | None
    baseline_test_accuracy: Estimate | None
    difference: Estimate | None
    gap_recovered: Estimate | None
    agreement: Estimate | None
    train_seconds: Estimate | None
    val_selection: Estimate | None = None
    p_value: float | None = None
    corrected_p: float | None = None
    is_control: bool = False

    def figure(self, name: str) -> Estimate | None:
        """The estimate of a figure by its name."""
        found: Estimate | None = getattr(self, name)
        return found

    def mean(self, name: str) -> float:
        """The mean of a figure that the setting has."""
        found = self.figure(name)
        assert found is not None
        return found.mean


@dataclass(frozen=True)
class BaselineReport:
    """The student alone, over the seeds of the sweep."""

    val_accuracy: Estimate
    test_accuracy: Estimate


@dataclass(frozen=True)
class NetworkCost:
    """How good a network is and what it costs: a student of a setting, or the teachers or baselines of a kind.

    `val_accuracy` is a mean; so is `latency_seconds`, of one image with one thread of the CPU, which is None where no
    run measured it. `setting` is the index of a student's setting in `SweepReport.settings`.
    """

    stage: str
    architecture: str
    setting: int | None
    val_accuracy: float
    bytes: int
    macs: int
    latency_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class RunEntry:
    """One run, with its figures (see points.Figures). `directory` is relative to the folder of sweep.json.

    `seed` is the first of its `seeds`, which are counted up; the figures of several are means.
    """

    directory: str
    status: str
    error: str | None
    values: dict[str, Any]
    seed: Any
    command: str | None
    val_accuracy: float | None
    val_nll: float | None
    test_accuracy: float | None
    teacher_test_accuracy: float | None
    baseline_val_accuracy: float | None
    baseline_test_accuracy: float | None
    difference: float | None
    gap_recovered: float | None
    agreement: float | None
    train_seconds: float | None
    val_selection: float | None = None
    seeds: int = 1

    def figure(self, name: str) -> float | None:
        """A figure by its name."""
        found: float | None = getattr(self, name)
        return found


def unit_of(runs: Iterable[RunEntry]) -> str:
    """What the replicates of a setting are called: "run", or "seed" where a run has several."""
    return "seed" if any(run.seeds > 1 for run in runs) else "run"


@dataclass(frozen=True)
class RecommendedSetting:
    """The setting that is best on validation. Other settings are given by their index in `SweepReport.settings`.

    `alternatives` may be as good; `compared` is how many settings could be compared with it; `incomplete` settings have
    fewer completed seeds and were not considered. `ties` are within one validation image of it. `command` repeats the
    runs of the recommended setting.
    """

    setting: int
    values: dict[str, Any]
    val_accuracy: Estimate
    test_accuracy: Estimate
    difference: Estimate | None
    alternatives: tuple[int, ...]
    compared: int
    incomplete: tuple[int, ...]
    command: str
    ties: tuple[int, ...] = ()

    @property
    def peers(self) -> tuple[int, ...]:
        """The settings that may be as good on validation."""
        return tuple(sorted({*self.alternatives, *self.ties}))


@dataclass(frozen=True)
class SweepReport:
    """The content of sweep.json: fractions, nats and seconds. `settings` are ranked, the recommended one is the first.

    `keys` tell settings apart, `replicate_keys` tell the runs of one setting apart. `counts` has the number of runs by
    status, and of those that are not begun. `baseline` is None unless all settings have the same. `select_by` are the
    validation figures that selected in the completed runs (see engine.selection); nothing is recommended unless it is
    one, by which the settings are ranked: its values are the `val_selection` of settings and runs.
    """

    format: int
    directories: tuple[str, ...]
    keys: tuple[str, ...]
    replicate_keys: tuple[str, ...]
    datasets: tuple[str, ...]
    teachers: tuple[str, ...]
    students: tuple[str, ...]
    counts: dict[str, int]
    settings: tuple[SettingReport, ...]
    runs: tuple[RunEntry, ...]
    recommendation: RecommendedSetting | None
    conclusion: str
    warnings: tuple[str, ...]
    baseline: BaselineReport | None = None
    select_by: tuple[str, ...] = ("accuracy",)
    networks: tuple[NetworkCost, ...] = ()

    @property
    def completed_settings(self) -> list[SettingReport]:
        """The settings with at least one completed run."""
        return [setting for setting in self.settings if setting.replicates]

    @property
    def unit(self) -> str:
        """See `unit_of`."""
        return unit_of(self.runs)

    def to_json(self) -> dict[str, Any]:
        """The content of sweep.json as plain containers."""
        content: dict[str, Any] = encode(self)
        return content

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "SweepReport":
        """Read the content of sweep.json; raises ValueError that names what is wrong or absent."""
        if content.get("format") != FORMAT:
            raise ValueError(f"{FILE_NAME} has format {content.get('format')!r}; format {FORMAT} can be read")
        try:
            return decode(cls, content)
        except ValueError as error:
            raise ValueError(f"{FILE_NAME} is damaged ({error})") from None


def write_sweep_json(report: SweepReport, folder: Path) -> None:
    """Write sweep.json into a folder, whole or not at all."""
    write_json(folder / FILE_NAME, report.to_json())


def read_sweep_json(folder: Path) -> SweepReport:
    """The report in a folder's sweep.json; raises ValueError that says what is wrong with it."""
    return SweepReport.from_json(read_object(folder / FILE_NAME))
