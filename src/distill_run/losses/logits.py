"""Losses that compare logits: pure functions of tensors, computed in float32 or wider.

N is the batch size, K the number of classes. Logits are outputs before softmax; targets are class indices. A loss is
averaged over the batch. With `reduction="none"`, a loss that reads targets returns one value for each sample (N,),
which mixed images need.
"""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, arange, cat, finfo, float32, promote_types, stack
from torch.linalg import vector_norm

from distill_run.losses.numerics import wide
from distill_run.rules import BELOW_ONE, INSIDE_UNIT, POSITIVE, one_of

DIVERGENCES = ("forward", "reverse", "jensen_shannon")


def cross_entropy(
    student_logits: Tensor,
    targets: Tensor,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    class_weights: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of logits (N, K) against targets (N,), in nats; with a weight for each class (K,), if given."""
    logits = wide(student_logits)
    weight = None if class_weights is None else class_weights.to(logits.dtype)
    return F.cross_entropy(logits, targets, weight, label_smoothing=label_smoothing, reduction=reduction)


def soft_target_loss(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, divergence: str = "forward"
) -> Tensor:
    """The divergence between the softened distributions of student and teacher, times temperature squared.

    Both logits (N, K) are divided by the temperature before softmax. The divergence is summed over classes and
    averaged over the batch, in nats; the factor temperature^2 keeps the size of the gradient (Hinton, Vinyals
    and Dean, 2015, section 2). `divergence` is "forward": KL(teacher || student); "reverse": KL(student ||
    teacher); or "jensen_shannon": the mean of both distributions' KL to their mixture. Returns a scalar of at least
    0; no gradient flows to the teacher. Raises ValueError for a temperature that is not above 0 and for an unknown
    divergence.
    """
    POSITIVE.check("temperature", temperature)
    one_of(*DIVERGENCES).check("divergence", divergence)
    student = F.log_softmax(wide(student_logits) / temperature, dim=1)
    teacher = F.log_softmax(wide(teacher_logits.detach()) / temperature, dim=1)
    if divergence == "forward":
        distance = kl_divergence(teacher, student)
    elif divergence == "reverse":
        distance = kl_divergence(student, teacher)
    else:
        mixture = ((student.exp() + teacher.exp()) / 2).clamp_min(finfo(student.dtype).tiny).log()
        distance = (kl_divergence(student, mixture) + kl_divergence(teacher, mixture)) / 2
    return temperature**2 * distance


def hard_target_loss(student_logits: Tensor, teacher_logits: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of the student's logits (N, K) against the argmax of the teacher's, in nats.

    It stands in for the share of images on which the two networks disagree, which has no gradient. Returns a scalar
    averaged over the batch. Raises ValueError unless the label smoothing is at least 0 and below 1.
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

    TCKD is the divergence between the distributions over two outcomes, "the target class" and "any other class". NCKD
    is the divergence between the distributions over the other classes alone. With the weights 1 and 1 - p, where p is
    the teacher's probability of the target, the sum is KL(teacher || student). Logits are (N, K) with K at least 2,
    targets (N,); no gradient flows to the teacher. Source: Zhao et al., "Decoupled Knowledge Distillation", 2022,
    equations 6 and 7.
    """
    POSITIVE.check("temperature", temperature)
    student, teacher = (
        _split_off_target(F.log_softmax(wide(logits) / temperature, dim=1), targets)
        for logits in (student_logits, teacher_logits.detach())
    )
    target_part = kl_divergence(teacher[0], student[0], reduction)
    non_target_part = kl_divergence(teacher[1], student[1], reduction)
    return temperature**2 * (target_weight * target_part + non_target_weight * non_target_part)


def _split_off_target(log_p: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Two log-distributions: over target and any other class (N, 2), and over the other classes alone (N, K - 1)."""
    num_classes = log_p.shape[1]
    columns = arange(num_classes - 1, device=targets.device)
    # By place: of a mask, the host would have to be told how many are true, and wait for a GPU.
    others = log_p.gather(1, columns + (columns >= targets.unsqueeze(1)))
    log_rest = others.logsumexp(dim=1, keepdim=True)
    return cat([log_p.gather(1, targets.unsqueeze(1)), log_rest], dim=1), others - log_rest


def correlation_loss(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, inter_weight: float, intra_weight: float
) -> Tensor:
    """Pearson's distance between the softened probabilities of student and teacher, times temperature squared.

    inter_weight * (1 - the correlation across the classes, averaged over samples) + intra_weight * (1 - the
    correlation across the batch, averaged over classes). Logits are (N, K); returns a scalar from 0 to
    2 * (inter_weight + intra_weight) * temperature^2. Source: Huang et al., "Knowledge Distillation from A Stronger
    Teacher" (DIST), 2022, equations 8 to 10.
    """
    POSITIVE.check("temperature", temperature)
    student, teacher = (
        F.softmax(wide(logits) / temperature, dim=1) for logits in (student_logits, teacher_logits.detach())
    )
    between_classes = 1 - _correlation(student, teacher).mean()
    within_classes = 1 - _correlation(student.T, teacher.T).mean()
    return temperature**2 * (inter_weight * between_classes + intra_weight * within_classes)


def _correlation(left: Tensor, right: Tensor) -> Tensor:
    """Pearson's correlation between each row of one matrix and the same row of the other; 0 for a constant row."""
    left, right = (_directions(rows - rows.mean(dim=1, keepdim=True)) for rows in (left, right))
    return (left * right).sum(dim=1)


def _directions(rows: Tensor) -> Tensor:
    """Rows divided by their lengths. A row of zeros and rounding errors stays as it is."""
    # Divided by its length, such a row would have a gradient of 1e7.
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
    """temperature^2 * KL(virtual teacher || student), both softened.

    The virtual teacher is a formula, not a network: it gives `correct_probability` to the target, and divides the rest
    equally among the other classes. Logits are (N, K), targets (N,). Source: Yuan et al., "Revisiting Knowledge
    Distillation via Label Smoothing Regularization" (Tf-KD_reg), 2020, equations 9 and 10.
    """
    POSITIVE.check("temperature", temperature)
    INSIDE_UNIT.check("correct_probability", correct_probability)
    num_classes = student_logits.shape[1]
    is_target = arange(num_classes, device=targets.device) == targets.unsqueeze(1)
    wanted = is_target.to(promote_types(student_logits.dtype, float32))
    rest = (1 - correct_probability) / (num_classes - 1)
    designed = wanted * correct_probability + (1 - wanted) * rest
    student, teacher = (F.log_softmax(wide(x) / temperature, dim=1) for x in (student_logits, designed.log()))
    return temperature**2 * kl_divergence(teacher, student, reduction)


def standardized(logits: Tensor, correction: int = 0) -> Tensor:
    """Logits (N, K) shifted and scaled so that each row has the mean 0 and the standard deviation 1.

    The variance is the sum of squares divided by K - `correction`. Source: Sun et al., "Logit Standardization in
    Knowledge Distillation", 2024, algorithm 1, whose deviation is that of the population (0); its authors' program
    takes torch's `std` (1), which is larger by the root of K / (K - 1): by 0.5% for 100 classes, by 5% for 10.
    """
    values = wide(logits)
    centred = values - values.mean(dim=1, keepdim=True)
    deviation = centred.std(dim=1, keepdim=True, correction=correction)
    # A row that varies by rounding errors alone is not scaled: its gradient would be 1e7.
    rounding = 8 * finfo(logits.dtype).eps * logits.detach().abs().amax(dim=1, keepdim=True)
    return centred / deviation.where(deviation > rounding, 1)


def averaged_logits(members: Sequence[tuple[float, Tensor]], temperature: float) -> Tensor:
    """Logits (N, K) whose softened distribution is the weighted mean of the members' softened distributions.

    `members` are pairs of a weight and logits (N, K); the weights sum to 1. In short: softmax(result / temperature) is
    the sum of weight * softmax(logits / temperature).
    """
    softened = [F.log_softmax(wide(logits) / temperature, dim=1) + math.log(weight) for weight, logits in members]
    return temperature * stack(softened).logsumexp(dim=0)


def kl_divergence(log_p: Tensor, log_q: Tensor, reduction: str = "mean") -> Tensor:
    """KL(p || q) of two log-distributions (N, K), summed over classes, in nats."""
    if reduction == "none":
        return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
