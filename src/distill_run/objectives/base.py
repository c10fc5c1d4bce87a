"""What an objective is: the contract between a mode, the two networks and the training loop.

A new objective derives from one of three classes, by what it asks of the teacher: TargetObjective (nothing),
LogitObjective (logits) or FeatureObjective (features at chosen points). It implements `distillation`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, final

from torch import Tensor, nn

from distill_run.data.batches import Batch
from distill_run.models.outputs import Outputs
from distill_run.rules import FRACTION, NOT_NEGATIVE, POINTS, STANDARDIZATION

Needs = Literal["nothing", "logits", "features"]


class Objective(nn.Module, ABC):
    """A term of the loss, its weight, and the weight that it leaves to the cross-entropy with the targets.

    `needs` says what the teacher has to give: nothing, logits or features. `part` is the name of the term in the
    metrics, `task_weight` the weight of the cross-entropy and `weight` that of the term. The term's weight rises
    linearly from 0 during the first `warmup_epochs`. `needs_targets` says whether the term reads the targets of a
    batch: then it cannot be trained with unlabelled images.
    """

    needs: Needs
    needs_targets: bool = False
    part: str = "distillation"
    task_weight: float = 1.0
    weight: float = 1.0
    warmup_epochs: float = 0

    def weigh(self, alpha: float, weight: float = 1.0) -> None:
        """Set the weight to alpha * weight, and that of the cross-entropy to 1 - alpha; alpha is from 0 to 1."""
        FRACTION.check("alpha", alpha)
        NOT_NEGATIVE.check("weight", weight)
        self.task_weight, self.weight = 1 - alpha, alpha * weight

    @abstractmethod
    def term(self, batch: Batch, student: Outputs, teacher: Outputs | None, /) -> Tensor:
        """The term of a batch: a scalar, without its weight. `teacher` is None where no objective needs one."""


class TargetObjective(Objective):
    """An objective that works without a teacher: from the student's logits and the targets."""

    needs: Needs = "nothing"
    needs_targets = True

    @final
    def term(self, batch: Batch, student: Outputs, _: Outputs | None, /) -> Tensor:
        """See Objective."""
        return self.distillation(batch, student)

    @abstractmethod
    def distillation(self, batch: Batch, student: Outputs, /) -> Tensor:
        """The term of a batch: a scalar, without its weight."""


class LogitObjective(Objective):
    """An objective that compares the logits of student and teacher.

    With `standardize_logits`, it is given the logits of both networks with mean 0 and standard deviation 1 in each row.
    """

    needs: Needs = "logits"
    correction: int | None = None  # K - correction is what the variance of K logits is divided by; None: as they are

    def standardize(self, standardize_logits: bool | str) -> None:
        """Choose whether `distillation` is given standardised logits: true, by the deviation of the population.

        That is what the paper says (Sun et al., 2024); "sample" is what its program computes, torch's `std`.
        """
        STANDARDIZATION.check("standardize_logits", standardize_logits)
        self.correction = {False: None, True: 0, "sample": 1}[standardize_logits]

    @final
    def term(self, batch: Batch, student: Outputs, teacher: Outputs | None, /) -> Tensor:
        """See Objective."""
        assert teacher is not None
        if self.correction is not None:
            student, teacher = student.standardized(self.correction), teacher.standardized(self.correction)
        return self.distillation(batch, student, teacher)

    @abstractmethod
    def distillation(self, batch: Batch, student: Outputs, teacher: Outputs, /) -> Tensor:
        """The term of a batch: a scalar, without its weight."""


@dataclass(frozen=True)
class Pair:
    """The two networks and the training set that a feature objective is fitted to.

    `student` and `teacher` hold the shape of one sample's features at each point, (C, H, W) or (C,), in the order of
    the objective's points. `targets` (M,) are those of the training split, of `num_classes` classes. `seed` is the seed
    of the student's training.
    """

    student: list[tuple[int, ...]]
    teacher: list[tuple[int, ...]]
    targets: Tensor
    num_classes: int
    seed: int


class FeatureObjective(Objective):
    """An objective that compares the features of student and teacher at pairs of points.

    `student_points` and `teacher_points` are names as models/features.py explains them, such as "stage-1" or "stages".
    Before the training, the program replaces them by the names of single points and calls `fit_to`.
    """

    needs: Needs = "features"

    def __init__(self, *, weight: float, student_points: list[str], teacher_points: list[str]) -> None:
        super().__init__()
        NOT_NEGATIVE.check("weight", weight)
        POINTS.check("student_points", student_points)
        POINTS.check("teacher_points", teacher_points)
        self.weight = weight
        self.student_points, self.teacher_points = student_points, teacher_points

    def fit_to(self, pair: Pair) -> None:
        """Make the layers whose shapes follow from the pair, in place of those of an earlier call.

        The default makes none. Raises UserError where the objective cannot compare the two networks.
        """

    @abstractmethod
    def distillation(self, batch: Batch, student: Outputs, teacher: Outputs, /) -> Tensor:
        """The term of a batch: a scalar, without its weight."""

    @final
    def term(self, batch: Batch, student: Outputs, teacher: Outputs | None, /) -> Tensor:
        """See Objective."""
        assert teacher is not None
        return self.distillation(batch, student, teacher)

    def features(self, student: Outputs, teacher: Outputs) -> Iterator[tuple[Tensor, Tensor]]:
        """The features of student and teacher at each pair of points; the teacher's are detached."""
        for ours, theirs in zip(self.student_points, self.teacher_points, strict=True):
            yield student.features[ours], teacher.features[theirs].detach()

    def sum_over_points(
        self, compare: Callable[..., Tensor], student: Outputs, teacher: Outputs, *layers: Iterable[nn.Module | Tensor]
    ) -> Tensor:
        """The sum of `compare(student_features, teacher_features, *layers)` over the pairs of points.

        Each of `layers` holds one layer or parameter for each pair of points.
        """
        pairs = zip(self.features(student, teacher), *layers, strict=True)
        return total([compare(*features, *own) for features, *own in pairs])


class ReplacesStudent(ABC):
    """A second base class, for an objective that replaces the architecture of the student.

    This is the only place where an objective may change the student's architecture or its initial weights.
    """

    @abstractmethod
    def student_node(self, student: dict[str, Any], teacher: dict[str, Any]) -> dict[str, Any]:
        """The YAML of the architecture that learns, made from the YAML of both architectures."""

    @abstractmethod
    def given_weights(self, teacher: nn.Module) -> dict[str, Tensor]:
        """Initial weights taken from the trained teacher's architecture, by their names in the new architecture."""


def total(terms: list[Tensor]) -> Tensor:
    """The sum of one term or several."""
    return sum(terms[1:], terms[0])
