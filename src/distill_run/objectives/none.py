"""Cross-entropy with the targets: a part of every loss, and alone that of networks without a teacher."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from distill_run.data.batches import Batch
from distill_run.losses.logits import cross_entropy
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import TargetObjective
from distill_run.rules import BELOW_ONE


@final
class CrossEntropy(TargetObjective):
    """Cross-entropy with the targets; the teacher, the baseline and the control mode=label_smoothing train with it.

    Source of the smoothing: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2016,
    section 7. With class weights it is torch.nn.CrossEntropyLoss(weight): a mean whose denominator is the sum of the
    targets' weights, or, where images are mixed and have two targets, the number of images.
    """

    part = "cross_entropy"
    task_weight = 0.0
    class_weights: Tensor | None

    def __init__(self, *, label_smoothing: float) -> None:
        super().__init__()
        BELOW_ONE.check("label_smoothing", label_smoothing)
        self.label_smoothing = label_smoothing
        self.register_buffer("class_weights", None)

    def weigh_classes(self, class_weights: Sequence[float] | None) -> None:
        """Set the weight of each class (K,); None: all classes count the same."""
        weights = None if class_weights is None else torch.tensor(class_weights)
        # Not in a checkpoint: the weights follow from the recipe and the training split.
        self.register_buffer("class_weights", weights, persistent=False)

    def distillation(self, batch: Batch, student: Outputs) -> Tensor:
        """See TargetObjective."""
        weights = self.class_weights

        def loss(targets: Tensor) -> Tensor:
            return cross_entropy(student.logits, targets, self.label_smoothing, "none", weights)

        mean = batch.mean_over_targets(loss)
        return mean if weights is None or batch.shares is not None else mean / weights[batch.targets].mean()
