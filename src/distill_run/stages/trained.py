"""What came of a training: the network, what was measured, what it cost, where it comes from."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from distill_run.engine.selection import rank
from distill_run.engine.timing import Inference
from distill_run.models.ensemble import Ensemble
from distill_run.models.network import Network

Curve = tuple[
    dict[str, float | None], ...
]  # a learning-rate search: {"lr", "val_accuracy", "val_nll", ...} of each rate


class Origin(Enum):
    """Where a network comes from."""

    TRAINED = "trained"  # in this run
    REUSED = "reused from the store"
    LOADED = "loaded"  # from a file that the user gave
    AVERAGED = "averaged"  # of several teachers


@dataclass(frozen=True)
class Measured:
    """A network after an epoch: its figures on validation, and its test logits (N, K) in the order of the test split.

    The epoch is None for a network that came trained.
    """

    epoch: int | None
    val: dict[str, float]
    test_logits: Tensor


@dataclass(frozen=True)
class Cost:
    """What a training took; None where it was not measured."""

    train_seconds: float = 0.0
    images_per_second: float | None = None
    data_share: float | None = None  # of the time, spent waiting for data
    peak_memory_bytes: int | None = None
    steps: int | None = None  # of the optimizer


@dataclass(frozen=True)
class Trained:
    """A trained network with all that is known of it. `node` is the YAML of its architecture.

    `history` holds its lines of metrics.jsonl, `lr_search` the curve of the search that found `learning_rate`.
    `members` are (weight, teacher) of each of several teachers, `path` is the file of a network that was loaded.
    `select_by` is the validation figure by which the epoch was selected, `num_epochs` the most that were to be trained;
    None for a network that was not trained here.
    `guided_by` is what gave a student the teacher's outputs: "logit bank", "live teacher" or "nothing". `speed` is
    empty where inference was not measured.
    """

    stage: str
    name: str
    node: dict[str, Any]
    network: Network | Ensemble
    fingerprint: str
    selected: Measured
    last: Measured
    origin: Origin
    select_by: str | None = None
    num_epochs: int | None = None
    history: tuple[dict[str, Any], ...] = ()
    cost: Cost = Cost()
    learning_rate: float | None = None
    lr_search: Curve = ()
    members: tuple[tuple[float, "Trained"], ...] = ()
    path: Path | None = None
    guided_by: str | None = None
    precision: str | None = None
    speed: tuple[Inference, ...] = ()

    @property
    def reused(self) -> bool:
        """Whether nothing was trained for it in this run."""
        if self.members:
            return all(member.reused for _, member in self.members)
        return self.origin is not Origin.TRAINED

    @property
    def origin_text(self) -> str:
        """Its origin in words, as it follows on "the teacher was"."""
        if self.origin is Origin.LOADED:
            return f"loaded from {self.path}" if self.path else "used with the weights that it brings"
        if self.origin is Origin.AVERAGED:
            return f"averaged over {len(self.members)} teachers"
        return str(self.origin.value)

    @property
    def rank(self) -> tuple[float, float]:
        """What trainings of one kind are sorted by, the best on validation last."""
        assert self.select_by is not None
        return rank(self.selected.val, self.select_by)

    @property
    def own_network(self) -> Network:
        """The network, where it is one: several teachers together have no network of their own."""
        assert isinstance(self.network, Network)
        return self.network


class Repeat(NamedTuple):
    """The baseline and the student of one seed; the baseline may be left out."""

    seed: int
    baseline: Trained | None
    student: Trained


@dataclass(frozen=True)
class Outcome:
    """All that was trained in a run; the assistants stand between teacher and student."""

    teacher: Trained
    assistants: list[Trained]
    repeats: list[Repeat]

    @property
    def preferred(self) -> Repeat:
        """The repeat whose student validation prefers: it is the one to ship."""
        return max(self.repeats, key=lambda repeat: repeat.student.rank)

    @property
    def networks(self) -> dict[str, Trained]:
        """The teacher, the preferred student and its baseline, by their stages."""
        _, baseline, student = self.preferred
        alone = {} if baseline is None else {"baseline": baseline}
        return {"teacher": self.teacher, **alone, "student": student}
