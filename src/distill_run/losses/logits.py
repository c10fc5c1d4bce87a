"""The mathematics of distillation: pure functions of tensors, computed in float32 or wider.

N is the batch, K the number of classes. Logits are outputs before softmax; targets are class indices. A loss is
averaged over the batch; those that read targets give each sample's (N,) with `reduction="none"`, for mixed samples.
"""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, cat, finfo, float32, promote_types, stack
from torch.linalg import vector_norm
from torch.nn.functional import one_hot

from distill_run.rules import BELOW_ONE, INSIDE_UNIT, POSITIVE, one_of

DIVERGENCES = ("forward", "reverse", "jensen_shannon")


def cross_entropy(
    student_logits: Tensor, targets: Tensor, label_smoothing: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """Cross-entropy of (N, K) logits against (N,) targets, in nats."""
    return F.cross_entropy(_wide(student_logits), targets, label_smoothing=label_smoothing, reduction=reduction)


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


def decoupled_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor,
    temperature: float,
    target_weight: float,
    non_target_weight: float,
    reduction: str = "mean",
) -> Tensor:
    """target_weight * TCKD + non_target_weight * NCKD, times temperature squared, in nats.

    TCKD is the divergence of the two-way distributions (target class, all others), NCKD that of the distributions
    among the other classes; with weights 1 and 1 - p, p the teacher's probability of the target, their sum is
    KL(teacher || student). Source: Zhao et al., "Decoupled Knowledge Distillation", 2022, equations 6 and 7. Logits are
    (N, K) with K of at least 2, targets (N,); no gradient flows to the teacher.
    """
    POSITIVE.check("temperature", temperature)
    student, teacher = (
        _split_off_target(F.log_softmax(_wide(logits) / temperature, dim=1), targets)
        for logits in (student_logits, teacher_logits.detach())
    )
    target_part = kl_divergence(teacher[0], student[0], reduction)
    non_target_part = kl_divergence(teacher[1], student[1], reduction)
    return temperature**2 * (target_weight * target_part + non_target_weight * non_target_part)


def _split_off_target(log_p: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of (target, any other) (N, 2), and of the others among themselves (N, K - 1)."""
    num_samples, num_classes = log_p.shape
    is_other = ~one_hot(targets, num_classes).bool()
    others = log_p[is_other].view(num_samples, num_classes - 1)
    log_rest = others.logsumexp(dim=1, keepdim=True)
    return cat([log_p.gather(1, targets.unsqueeze(1)), log_rest], dim=1), others - log_rest


def correlation_loss(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, inter_weight: float, intra_weight: float
) -> Tensor:
    """Pearson's distance of the softened probabilities of each sample and of each class, times temperature squared.

    inter_weight * (1 - mean over samples of the correlation across the classes) + intra_weight * (1 - mean over classes
    of the correlation across the batch). Source: Huang et al., "Knowledge Distillation from A Stronger Teacher"
    (DIST), 2022, equations 8 to 10. Logits are (N, K); returns a scalar from 0 to 2 * (both weights) * temperature^2.
    """
    POSITIVE.check("temperature", temperature)
    student, teacher = (
        F.softmax(_wide(logits) / temperature, dim=1) for logits in (student_logits, teacher_logits.detach())
    )
    between_classes = 1 - _correlation(student, teacher).mean()
    within_classes = 1 - _correlation(student.T, teacher.T).mean()
    return temperature**2 * (inter_weight * between_classes + intra_weight * within_classes)


def _correlation(left: Tensor, right: Tensor) -> Tensor:
    """Pearson's correlation of the rows of two matrices; 0 for a row without any variation."""
    left, right = (_directions(rows - rows.mean(dim=1, keepdim=True)) for rows in (left, right))
    return (left * right).sum(dim=1)


def _directions(rows: Tensor) -> Tensor:
    """Rows divided by their lengths; one that is 0 but for rounding stays so, and has no gradient of 1e7."""
    length = vector_norm(rows, dim=1, keepdim=True)
    directions: Tensor = rows / length.where(length > 1e-7, 1)
    return directions


def virtual_teacher_loss(
    student_logits: Tensor,
    targets: Tensor,
    temperature: float,
    correct_probability: float,
    reduction: str = "mean",
) -> Tensor:
    """temperature^2 * KL(virtual teacher || student), both softened: a teacher by design, which is always right.

    It gives `correct_probability` to the target and the same share of the rest to every other class. Source: Yuan et
    al., "Revisiting Knowledge Distillation via Label Smoothing Regularization" (Tf-KD_reg), 2020, equations 9 and 10.
    """
    POSITIVE.check("temperature", temperature)
    INSIDE_UNIT.check("correct_probability", correct_probability)
    num_classes = student_logits.shape[1]
    wanted = one_hot(targets, num_classes).to(promote_types(student_logits.dtype, float32))
    rest = (1 - correct_probability) / (num_classes - 1)
    designed = wanted * correct_probability + (1 - wanted) * rest
    student, teacher = (F.log_softmax(_wide(x) / temperature, dim=1) for x in (student_logits, designed.log()))
    return temperature**2 * kl_divergence(teacher, student, reduction)


def standardized(logits: Tensor) -> Tensor:
    """Each row of logits (N, K) with mean 0 and standard deviation 1 (that of the population).

    Source: Sun et al., "Logit Standardization in Knowledge Distillation", 2024, algorithm 1.
    """
    wide = _wide(logits)
    centred = wide - wide.mean(dim=1, keepdim=True)
    deviation = centred.std(dim=1, keepdim=True, correction=0)
    # A row without variation but rounding's stays as it is, and has no gradient of 1e7.
    rounding = 8 * finfo(logits.dtype).eps * logits.detach().abs().amax(dim=1, keepdim=True)
    return centred / deviation.where(deviation > rounding, 1)


def averaged_logits(members: Sequence[tuple[float, Tensor]], temperature: float) -> Tensor:
    """Logits (N, K) of several networks as one's: softened, they are the weighted mean of the members' probabilities.

    `members` are weights, whose sum is 1, and logits (N, K): softmax(result / temperature) is sum of weight *
    softmax(logits / temperature).
    """
    softened = [F.log_softmax(_wide(logits) / temperature, dim=1) + math.log(weight) for weight, logits in members]
    return temperature * stack(softened).logsumexp(dim=0)


def kl_divergence(log_p: Tensor, log_q: Tensor, reduction: str = "mean") -> Tensor:
    """KL(p || q) of (N, K) log-probabilities, summed over classes, in nats."""
    if reduction == "none":
        return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def _wide(logits: Tensor) -> Tensor:
    """At least float32: a softmax in half precision loses the small probabilities that carry the teacher."""
    return logits.to(promote_types(logits.dtype, float32))
