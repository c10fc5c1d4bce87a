"""What a batch came to in a step, before the weights change: outputs, guidance, loss; and what in it is not finite."""

from typing import NamedTuple

from torch import Tensor

from distill_run.data.batches import Batch
from distill_run.engine.finite import CALMER, evidence_of, first_not_finite
from distill_run.models.network import Network
from distill_run.models.outputs import Outputs


class Scored(NamedTuple):
    """A batch, what network and teacher gave for it, its loss with its parts, and its `share` of the step's images."""

    batch: Batch
    outputs: Outputs
    guidance: Outputs | None
    loss: Tensor
    parts: dict[str, Tensor]
    share: float

    def is_finite(self) -> Tensor:
        """Whether the loss and the teacher's logits are finite, as a tensor of their device."""
        finite = self.loss.isfinite()
        if self.guidance is None:
            return finite
        # The loss may be finite where they are not: the argmax of NaN is a class.
        return finite & self.guidance.logits.isfinite().all()

    def fault(self, place: str, network: Network, gradients: list[Tensor]) -> tuple[str, str]:
        """What is not finite at a `place` in the training, with the evidence, and what may help."""
        what = "teacher's logits are" if self.loss.isfinite() else "loss is"
        faulty = first_not_finite(self.batch.images, network, self.outputs, self.guidance, self.parts)
        where, remedy = faulty or ("the sum of the terms", CALMER)
        evidence = evidence_of(self.batch, self.loss, self.parts, gradients)
        return f"{what} not finite at {place}: {evidence}; the first that is not: {where}", remedy
