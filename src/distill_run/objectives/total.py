"""The loss of a training: the cross-entropy with the targets and the terms of one or more objectives."""

from collections.abc import Mapping, Sequence
from typing import final

from torch import Tensor, nn

from distill_run.data.batches import Batch
from distill_run.errors import user_error
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import Needs, Objective, total
from distill_run.objectives.none import CrossEntropy

NEEDS: tuple[Needs, ...] = ("nothing", "logits", "features")


@final
class TotalLoss(nn.Module):
    """task_weight * cross-entropy + the sum of weight * term over the objectives; a weight of 0 leaves its term out.

    The first of `objectives` is that of the mode; its `task_weight` is the weight of the cross-entropy with the
    targets. The others only add their terms. `label_smoothing` is that of the recipe. `class_weights` (K,) are those of
    every cross-entropy with the targets; the terms of other objectives stay as they were published.
    """

    def __init__(
        self,
        objectives: Mapping[str, Objective],
        label_smoothing: float,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.objectives = nn.ModuleDict(objectives)
        first = next(iter(objectives.values()))
        if first.task_weight == 0 and all(term.weight == 0 for term in objectives.values()):
            raise user_error("every weight of the loss is 0", "give mode.alpha or mode.weight another value")
        self.task = CrossEntropy(label_smoothing=label_smoothing)
        for term in (self.task, *objectives.values()):
            if isinstance(term, CrossEntropy):
                term.weigh_classes(class_weights)

    @property
    def terms(self) -> dict[str, Objective]:
        """The objectives by their names in the metrics."""
        return {name: module for name, module in self.objectives.items() if isinstance(module, Objective)}

    @property
    def needs(self) -> Needs:
        """The most that any of the objectives needs of the teacher: nothing, logits or features."""
        return max((term.needs for term in self.terms.values()), key=NEEDS.index)

    def losses(self, batch: Batch, student: Outputs, teacher: Outputs | None) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to minimise, and its parts by name, without their weights, for the metrics."""
        task = self.task.distillation(batch, student)
        objectives = self.terms
        first = next(iter(objectives.values()))
        parts, weighted = {"cross_entropy": task}, [(first.task_weight, task)]
        for name, objective in objectives.items():
            parts[name] = objective.term(batch, student, teacher)
            rise = min(batch.epoch / objective.warmup_epochs, 1) if objective.warmup_epochs else 1
            weighted.append((objective.weight * rise, parts[name]))
        return total([weight * part for weight, part in weighted if weight != 0]), parts
