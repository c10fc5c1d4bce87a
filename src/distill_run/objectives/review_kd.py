"""ReviewKD: each of the teacher's features is compared with the student's at the same depth and deeper."""

from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from distill_run.data.batches import Batch
from distill_run.losses.features import hierarchical_context_loss
from distill_run.losses.numerics import as_maps
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import FeatureObjective, Pair, total
from distill_run.objectives.projections import map_shape
from distill_run.rules import NOT_NEGATIVE, whole


@final
class Review(FeatureObjective):
    """Cross-entropy + weight * the sum over the pairs of points of the hierarchical context loss.

    The points stand in order of depth. Starting with the deepest, the student's features are fused with the result of
    the next deeper fusion (see Fusion). Fused maps have as many channels as the deepest point, but at most
    `mid_channels`; a vector counts as a map of one pixel. The weight rises from 0 over the first `warmup_epochs`.
    Source: Chen et al., "Distilling Knowledge via Knowledge Review", 2021, sections 3.2 and 3.3; sizes, initial weights
    and the warm-up are those of its authors' code.
    """

    def __init__(
        self,
        *,
        weight: float,
        student_points: list[str],
        teacher_points: list[str],
        mid_channels: int,
        warmup_epochs: float,
    ) -> None:
        super().__init__(weight=weight, student_points=student_points, teacher_points=teacher_points)
        whole(1).check("mid_channels", mid_channels)
        NOT_NEGATIVE.check("warmup_epochs", warmup_epochs)
        self.mid_channels = mid_channels
        self.warmup_epochs = warmup_epochs

    def fit_to(self, pair: Pair) -> None:
        """See FeatureObjective."""
        ours = [map_shape("student", shape)[0] for shape in pair.student]
        theirs = [map_shape("teacher", shape)[0] for shape in pair.teacher]
        mid_channels = min(self.mid_channels, ours[-1])
        deepest = len(ours) - 1
        self.fusions = nn.ModuleList(
            Fusion(before, mid_channels, after, is_deepest=depth == deepest)
            for depth, (before, after) in enumerate(zip(ours, theirs, strict=True))
        )

    def distillation(self, _: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """See FeatureObjective."""
        pairs = [(as_maps(ours), as_maps(theirs)) for ours, theirs in self.features(student, teacher)]
        terms = []
        deeper: Tensor | None = None
        for fusion, (ours, theirs) in zip(reversed(self.fusions), reversed(pairs), strict=True):
            compared, deeper = fusion(ours, deeper, theirs.shape[2:])
            terms.append(hierarchical_context_loss(compared, theirs))
        return total(terms)


class Fusion(nn.Module):
    """Attention-based fusion of a student's map with the result of the next deeper fusion.

    Both have `mid_channels` channels. They are added with weights for each position, which a convolution computes from
    both together; the deepest map is not fused with anything. A 3x3 convolution then gives the teacher's number of
    channels. Source: Chen et al., 2021, figure 3 (a).
    """

    def __init__(self, in_channels: int, mid_channels: int, out_channels: int, *, is_deepest: bool) -> None:
        super().__init__()
        self.reduce = _convolution(in_channels, mid_channels, kernel_size=1)
        self.attend = None if is_deepest else nn.Sequential(nn.Conv2d(2 * mid_channels, 2, kernel_size=1), nn.Sigmoid())
        self.expand = _convolution(mid_channels, out_channels, kernel_size=3)

    def forward(self, student: Tensor, deeper: Tensor | None, size: torch.Size) -> tuple[Tensor, Tensor]:
        """The map to compare with the teacher's, both of `size` (H, W), and the fused map for the next fusion."""
        fused: Tensor = self.reduce(student)
        if self.attend is not None:
            assert deeper is not None
            deeper = _resized(deeper, fused.shape[2:])
            weights = self.attend(torch.cat([fused, deeper], dim=1))
            fused = fused * weights[:, :1] + deeper * weights[:, 1:]
        fused = _resized(fused, size)
        return self.expand(fused), fused


def _convolution(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
    nn.init.kaiming_uniform_(convolution.weight, a=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels))


def _resized(maps: Tensor, size: torch.Size) -> Tensor:
    return maps if maps.shape[2:] == size else interpolate(maps, size=size, mode="nearest")
