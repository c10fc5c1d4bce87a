"""The loss of a training: the task's cross-entropy and the terms of one objective or of several."""

from collections.abc import Mapping
from typing import final

from torch import Tensor, nn

from distill_run.data.batches import Batch
from distill_run.errors import user_error
from distill_run.losses.logits import cross_entropy
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import Needs, Objective

NEEDS: tuple[Needs, ...] = ("nothing", "logits", "features")


@final
class TotalLoss(nn.Module):
    """task_weight * cross-entropy + the sum of weight * distillation term, where a weight of 0 leaves its term out.

    The first of `objectives` is the mode: the weight of the cross-entropy with the targets, which has the recipe's
    label smoothing, is its. The others add their terms alone.
    """

    def __init__(self, objectives: Mapping[str, Objective], label_smoothing: float) -> None:
        super().__init__()
        self.objectives = nn.ModuleDict(objectives)
        first = next(iter(objectives.values()))
        if first.task_weight == 0 and all(term.weight == 0 for term in objectives.values()):
            raise user_error("every weight of the loss is 0", "give mode.alpha or mode.weight another value")
        self.label_smoothing = label_smoothing

    @property
    def terms(self) -> dict[str, Objective]:
        """The objectives by the names of their parts: that of the mode itself, and the group's option of the others."""
        return {name: module for name, module in self.objectives.items() if isinstance(module, Objective)}

    @property
    def needs(self) -> Needs:
        """The most that any of the objectives asks of the teacher."""
        return max((term.needs for term in self.terms.values()), key=NEEDS.index)

    @property
    def student_points(self) -> list[str]:
        """Every point of the student that an objective reads, once."""
        return list(dict.fromkeys(point for term in self.terms.values() for point in term.student_points))

    @property
    def teacher_points(self) -> list[str]:
        """Every point of the teacher that an objective reads, once."""
        return list(dict.fromkeys(point for term in self.terms.values() for point in term.teacher_points))

    def losses(self, batch: Batch, student: Outputs, teacher: Outputs | None) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to minimise and its named parts, unweighted, for the record."""
        task = batch.mean_over_targets(
            lambda targets: cross_entropy(student.logits, targets, self.label_smoothing, reduction="none")
        )
        parts = {"cross_entropy": task}
        weighted = []
        for place, (name, term) in enumerate(self.terms.items()):
            if place == 0:
                weighted.append((term.task_weight, task))
            parts[name] = term.distillation(batch, *_as_wanted(term, student, teacher))
            rise = min(batch.epoch / term.warmup_epochs, 1) if term.warmup_epochs else 1
            weighted.append((term.weight * rise, parts[name]))
        total = [weight * part for weight, part in weighted if weight != 0]
        return sum(total[1:], total[0]), parts


def _as_wanted(term: Objective, student: Outputs, teacher: Outputs | None) -> tuple[Outputs, Outputs | None]:
    if not term.standardize_logits:
        return student, teacher
    assert teacher is not None
    return student.standardized(), teacher.standardized()
