"""The contract between an objective, the networks and the training loop."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from distill_run.data.batches import Batch
from distill_run.models.outputs import Outputs
from distill_run.rules import FRACTION, NOT_NEGATIVE

Needs = Literal["nothing", "logits", "features"]


@dataclass(frozen=True)
class Pair:
    """What an objective is fitted to: the shapes of one sample's features, point by point, and the training set.

    `student` and `teacher` hold (C, H, W) or (C,) in the order of the objective's points. `targets` (M,) are those of
    the training split, of `num_classes`; `seed` is that of the student's training.
    """

    student: list[tuple[int, ...]]
    teacher: list[tuple[int, ...]]
    targets: Tensor
    num_classes: int
    seed: int


class Objective(nn.Module, ABC):
    """A distillation term with the weights that it and the task's cross-entropy have in the loss.

    `needs` is what it asks of the teacher: "nothing" (then the teacher's outputs are None), "logits", or "features",
    which it names in `student_points` and `teacher_points`: names of models/features.py, as in "stage-1" and "stages";
    once it is fitted to a pair, the points themselves. `warmup_epochs` is the time in which its weight rises from 0.
    Where `standardize_logits` is set, the logits of both networks come standardised.
    """

    needs: Needs = "logits"
    part: str = "distillation"  # what the record calls the term
    task_weight: float = 1.0
    weight: float = 1.0
    warmup_epochs: float = 0
    standardize_logits: bool = False
    student_points: list[str]
    teacher_points: list[str]

    def __init__(self) -> None:
        super().__init__()
        self.student_points, self.teacher_points = [], []

    def weigh(self, alpha: float, weight: float = 1.0) -> None:
        """Take the weight alpha * weight, and leave 1 - alpha to the task's cross-entropy."""
        FRACTION.check("alpha", alpha)
        NOT_NEGATIVE.check("weight", weight)
        self.task_weight, self.weight = 1 - alpha, alpha * weight

    def student_node(self, student: dict[str, Any], teacher: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """The architecture that learns, as YAML describes it, from those of both networks: the student's own."""
        return student

    def given_weights(self, teacher: nn.Module) -> dict[str, Tensor]:  # noqa: ARG002
        """The tensors of that architecture, by their names, that come from the trained teacher's: none."""
        return {}

    def fit_to(self, pair: Pair) -> None:
        """Make the parameters whose shapes follow from the pair; raises UserError where it cannot be paired."""

    @abstractmethod
    def distillation(self, batch: Batch, student: Outputs, teacher: Outputs | None) -> Tensor:
        """The distillation term of a batch, a scalar, without its weight."""

    def features(self, student: Outputs, teacher: Outputs) -> Iterator[tuple[Tensor, Tensor]]:
        """The features of student and teacher at each pair of points; no gradient flows to the teacher."""
        for ours, theirs in zip(self.student_points, self.teacher_points, strict=True):
            yield student.features[ours], teacher.features[theirs].detach()


def total(terms: Iterable[Tensor]) -> Tensor:
    """The sum of the terms of several points."""
    first, *others = terms
    return sum(others, first)
