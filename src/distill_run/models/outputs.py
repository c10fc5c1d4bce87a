"""The outputs of a network, or of several teachers together, for a batch."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from distill_run.losses.logits import averaged_logits, standardized


@dataclass(frozen=True)
class Outputs:
    """The `logits` (N, K) of a network for a batch, and its `features` by the names of the chosen points.

    Features are maps (N, C, H, W) or vectors (N, C). For several teachers, `members` holds the weight and the logits of
    each, and the softmax of `logits` is the weighted mean of their probabilities.
    """

    logits: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)
    members: tuple[tuple[float, Tensor], ...] = ()

    @classmethod
    def of_several(cls, members: tuple[tuple[float, Tensor], ...]) -> "Outputs":
        """The outputs of several teachers together; `members` are weights, which sum to 1, and logits."""
        return cls(averaged_logits(members, 1.0), {}, members)

    def logits_at(self, temperature: float) -> Tensor:
        """Logits (N, K) for this temperature.

        For several teachers, their softened distribution is the weighted mean of the members' softened distributions.
        """
        return averaged_logits(self.members, temperature) if self.members else self.logits

    def standardized(self, correction: int) -> "Outputs":
        """The same outputs with standardised logits; those of several teachers are standardised one by one."""
        if self.members:
            members = tuple((weight, standardized(logits, correction)) for weight, logits in self.members)
            return Outputs.of_several(members)
        return Outputs(standardized(self.logits, correction), self.features)
