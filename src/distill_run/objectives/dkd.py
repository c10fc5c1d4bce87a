"""Decoupled distillation: one loss for the target class, another for the other classes."""

from typing import final

from torch import Tensor

from distill_run.data.batches import Batch
from distill_run.losses.logits import decoupled_loss
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import LogitObjective
from distill_run.rules import NOT_NEGATIVE, POSITIVE


@final
class Decoupled(LogitObjective):
    """Cross-entropy + weight * temperature^2 * (target_weight * TCKD + non_target_weight * NCKD).

    The weight rises from 0 over the first `warmup_epochs`. Source: Zhao et al., "Decoupled Knowledge Distillation",
    2022, equation 7; the weights are the paper's alpha and beta.
    """

    needs_targets = True

    def __init__(
        self,
        *,
        temperature: float,
        target_weight: float,
        non_target_weight: float,
        weight: float,
        warmup_epochs: float,
        standardize_logits: bool | str,
    ) -> None:
        super().__init__()
        self.standardize(standardize_logits)
        POSITIVE.check("temperature", temperature)
        weights = {"target_weight": target_weight, "non_target_weight": non_target_weight, "weight": weight}
        for name, value in {**weights, "warmup_epochs": warmup_epochs}.items():
            NOT_NEGATIVE.check(name, value)
        self.temperature = temperature
        self.target_weight = target_weight
        self.non_target_weight = non_target_weight
        self.weight = weight
        self.warmup_epochs = warmup_epochs

    def distillation(self, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """See LogitObjective."""
        logits = student.logits, teacher.logits_at(self.temperature)
        how = self.temperature, self.target_weight, self.non_target_weight
        return batch.mean_over_targets(lambda targets: decoupled_loss(*logits, targets, *how, reduction="none"))
