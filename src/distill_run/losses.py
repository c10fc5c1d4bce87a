"""The mathematics of distillation: pure functions of tensors, computed in float32 or wider.

N is the batch, K the number of classes. Logits are outputs before softmax; targets are class indices.
"""

import torch.nn.functional as F
from torch import Tensor, finfo, float32, promote_types

from distill_run.accept import BELOW_ONE, POSITIVE, one_of

DIVERGENCES = ("forward", "reverse", "jensen_shannon")


def cross_entropy(student_logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of (N, K) logits against (N,) targets, averaged over the batch, in nats."""
    return F.cross_entropy(_wide(student_logits), targets, label_smoothing=label_smoothing)


def soft_target_loss(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, divergence: str = "forward"
) -> Tensor:
    """Divergence between the softened distributions of student and teacher, times temperature squared.

    Both (N, K) logits are divided by the temperature before softmax. The divergence is summed over classes and
    averaged over the batch, in nats; the factor temperature^2 keeps the size of its gradient (Hinton, Vinyals
    and Dean, 2015, section 2). `divergence` is "forward", KL(teacher || student); "reverse", KL(student ||
    teacher); or "jensen_shannon", the mean of the two KL to their mixture. Returns a scalar of at least 0; no
    gradient flows to the teacher. Raises ValueError for a temperature that is not above 0 or another divergence.
    """
    POSITIVE.check("temperature", temperature)
    one_of(*DIVERGENCES).check("divergence", divergence)
    student = F.log_softmax(_wide(student_logits) / temperature, dim=1)
    teacher = F.log_softmax(_wide(teacher_logits.detach()) / temperature, dim=1)
    if divergence == "forward":
        distance = kl_divergence(teacher, student)
    elif divergence == "reverse":
        distance = kl_divergence(student, teacher)
    else:
        mixture = ((student.exp() + teacher.exp()) / 2).clamp_min(finfo(student.dtype).tiny).log()
        distance = (kl_divergence(student, mixture) + kl_divergence(teacher, mixture)) / 2
    return temperature**2 * distance


def hard_target_loss(student_logits: Tensor, teacher_logits: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of the student's (N, K) logits against the argmax of the teacher's, in nats.

    It is the usual surrogate of the 0/1 disagreement of their decisions, which has no gradient. Returns a scalar
    averaged over the batch. Raises ValueError for a label smoothing outside 0 to below 1.
    """
    BELOW_ONE.check("label_smoothing", label_smoothing)
    return cross_entropy(student_logits, teacher_logits.argmax(dim=1), label_smoothing)


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) of (N, K) log-probabilities, summed over classes and averaged over the batch, in nats."""
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def _wide(logits: Tensor) -> Tensor:
    """At least float32: a softmax in half precision loses the small probabilities that carry the teacher."""
    return logits.to(promote_types(logits.dtype, float32))
