"""What a network, or several together, give for a batch."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from distill_run.losses.logits import averaged_logits, standardized


@dataclass(frozen=True)
class Outputs:
    """What a network says of a batch: `logits` (N, K), and by name the features at the points that were asked for.

    Features are maps (N, C, H, W) or vectors (N, C). Of several teachers, `members` holds the weight and the logits of
    each, and `logits` those of their mean probabilities.
    """

    logits: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)
    members: tuple[tuple[float, Tensor], ...] = ()

    @classmethod
    def of_several(cls, members: tuple[tuple[float, Tensor], ...]) -> "Outputs":
        """The outputs of several teachers together, from weights, whose sum is 1, and logits."""
        return cls(averaged_logits(members, 1.0), {}, members)

    def logits_at(self, temperature: float) -> Tensor:
        """Logits (N, K) for use at a temperature: there, those of several teachers give the mean of what each gives."""
        return averaged_logits(self.members, temperature) if self.members else self.logits

    def standardized(self) -> "Outputs":
        """The same with standardised logits, each member's by itself."""
        if self.members:
            return Outputs.of_several(tuple((weight, standardized(logits)) for weight, logits in self.members))
        return Outputs(standardized(self.logits), self.features)
