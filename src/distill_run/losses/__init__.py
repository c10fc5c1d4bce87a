"""The mathematics of distillation: pure functions of tensors, which import nothing of this program but its rules.

A loss returns a scalar, averaged over the batch; no gradient flows to the teacher. All compute in float32 or wider.
"""

from distill_run.losses.contrast import noise_contrastive_loss
from distill_run.losses.features import attention_loss, hierarchical_context_loss, hint_loss, variational_loss
from distill_run.losses.logits import (
    averaged_logits,
    correlation_loss,
    cross_entropy,
    decoupled_loss,
    hard_target_loss,
    kl_divergence,
    soft_target_loss,
    standardized,
    virtual_teacher_loss,
)
from distill_run.losses.relations import angle_loss, distance_loss, probability_loss, similarity_loss

__all__ = [
    "angle_loss",
    "attention_loss",
    "averaged_logits",
    "correlation_loss",
    "cross_entropy",
    "decoupled_loss",
    "distance_loss",
    "hard_target_loss",
    "hierarchical_context_loss",
    "hint_loss",
    "kl_divergence",
    "noise_contrastive_loss",
    "probability_loss",
    "similarity_loss",
    "soft_target_loss",
    "standardized",
    "variational_loss",
    "virtual_teacher_loss",
]
