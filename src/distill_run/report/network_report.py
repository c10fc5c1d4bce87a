"""What report.json says of one network, and of the networks of one seed. No torch."""

from dataclasses import dataclass
from typing import NamedTuple

from distill_run.engine.timing import Inference
from distill_run.report.figures import Fidelity
from distill_run.report.paired import Estimate


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


class NamedNetwork(NamedTuple):
    """A network and what it was in the run: "teacher", "assistant", "baseline" or "student"."""

    stage: str
    network: NetworkReport
