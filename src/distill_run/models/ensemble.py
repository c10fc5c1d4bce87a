"""Several networks that act as one."""

from collections.abc import Sequence
from typing import final

from torch import Tensor, nn

from distill_run.losses.logits import averaged_logits
from distill_run.models.network import Network


@final
class Ensemble(nn.Module):
    """Images (N, C, H, W) in 0..1 to logits (N, K): their softmax is the weighted mean of the members'."""

    def __init__(self, networks: Sequence[Network], weights: Sequence[float]) -> None:
        super().__init__()
        self.members = nn.ModuleList(networks)
        self.weights = tuple(weights)

    @property
    def networks(self) -> list[Network]:
        """The members."""
        return [member for member in self.members if isinstance(member, Network)]

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        logits = [member(images) for member in self.members]
        return averaged_logits(list(zip(self.weights, logits, strict=True)), temperature=1.0)
