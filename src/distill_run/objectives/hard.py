"""Hard targets: the teacher's decision."""

from typing import ClassVar, Literal, final

from torch import Tensor

from distill_run.accept import BELOW_ONE, FRACTION
from distill_run.data.batches import Batch
from distill_run.losses import cross_entropy, hard_target_loss
from distill_run.objectives.base import Objective, Outputs, mix


@final
class HardTargets(Objective):
    """(1 - alpha) * cross-entropy with the targets + alpha * cross-entropy with the teacher's argmax.

    The label smoothing is that of both cross-entropies. Source: Touvron et al., "Training data-efficient image
    transformers", 2021, equation 3, with alpha in place of one half.
    """

    needs: ClassVar[Literal["nothing", "logits"]] = "logits"

    def __init__(self, *, alpha: float, label_smoothing: float) -> None:
        super().__init__()
        FRACTION.check("alpha", alpha)
        BELOW_ONE.check("label_smoothing", label_smoothing)
        self.alpha = alpha
        self.label_smoothing = label_smoothing

    def losses(
        self, batch: Batch, student_outputs: Outputs, teacher_outputs: Outputs | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See Objective."""
        assert teacher_outputs is not None
        task = cross_entropy(student_outputs.logits, batch.targets, self.label_smoothing)
        distillation = hard_target_loss(student_outputs.logits, teacher_outputs.logits, self.label_smoothing)
        return mix(task, distillation, self.alpha)
