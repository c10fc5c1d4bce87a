"""Soft targets: the teacher's softened distribution."""

from typing import ClassVar, Literal, final

from torch import Tensor

from distill_run.accept import BELOW_ONE, FRACTION, POSITIVE, one_of
from distill_run.data.batches import Batch
from distill_run.losses import DIVERGENCES, cross_entropy, soft_target_loss
from distill_run.objectives.base import Objective, Outputs, mix


@final
class SoftTargets(Objective):
    """(1 - alpha) * cross-entropy + alpha * temperature^2 * divergence of the softened distributions.

    Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2.
    """

    needs: ClassVar[Literal["nothing", "logits"]] = "logits"

    def __init__(self, *, temperature: float, alpha: float, divergence: str, label_smoothing: float) -> None:
        super().__init__()
        POSITIVE.check("temperature", temperature)
        FRACTION.check("alpha", alpha)
        one_of(*DIVERGENCES).check("divergence", divergence)
        BELOW_ONE.check("label_smoothing", label_smoothing)
        self.temperature = temperature
        self.alpha = alpha
        self.divergence = divergence
        self.label_smoothing = label_smoothing

    def losses(
        self, batch: Batch, student_outputs: Outputs, teacher_outputs: Outputs | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See Objective."""
        assert teacher_outputs is not None
        task = cross_entropy(student_outputs.logits, batch.targets, self.label_smoothing)
        distillation = soft_target_loss(
            student_outputs.logits, teacher_outputs.logits, self.temperature, self.divergence
        )
        return mix(task, distillation, self.alpha)
