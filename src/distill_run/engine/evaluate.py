"""How good a network is: one alone (accuracy, nll, calibration, each class), or a pair (fidelity)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_run.data.source import ImageSet
from distill_run.losses.logits import kl_divergence
from distill_run.out_of_memory import smaller_images, told_of_no_memory
from distill_run.processes import ALONE, Processes

CHUNK_SIZE = 500  # images at a time; fixed, so that no setting of a training changes what is measured
NUM_BINS = 15


@torch.no_grad()
def predict(network: nn.Module, images: ImageSet, processes: Processes = ALONE) -> Tensor:
    """Logits (N, K) of images as they are, without augmentation, in float32 on the CPU.

    Each of several processes computes those of its share of the images.
    """
    was_training = network.training
    network.eval()
    chunks = []
    what = f"an evaluation, with {min(CHUNK_SIZE, len(images))} images at a time,"
    with told_of_no_memory(what, smaller_images(images.shape)):
        for chunk in images.chunks(CHUNK_SIZE, processes.share(-(-len(images) // CHUNK_SIZE))):
            chunks.append(network(chunk).float())
    network.train(was_training)
    return processes.gather(torch.cat(chunks).cpu(), processes.share_sizes(len(images), CHUNK_SIZE))


def measure(logits: Tensor, targets: Tensor) -> dict[str, float]:
    """Accuracy, top-5 accuracy, nll (nats), Brier score, calibration error, balanced accuracy and macro F1.

    They are those of logits (N, K) against targets (N,). The last two give every class the same weight, however many
    images it has: balanced accuracy is the mean recall, macro F1 the mean F1, of the classes that have one.
    """
    logits, targets = logits.double(), targets.to(logits.device)
    hits = logits.topk(min(5, logits.shape[1]), dim=1).indices == targets.unsqueeze(1)
    confidence, accuracy, share = reliability(logits, targets)
    classes = class_figures(logits, targets)
    return {
        "accuracy": (logits.argmax(1) == targets).double().mean().item(),
        "top5_accuracy": hits.any(1).double().mean().item(),
        "nll": F.cross_entropy(logits, targets).item(),
        "brier": brier_score(logits, targets),
        "ece": (share * (confidence - accuracy).abs()).sum().item(),
        "balanced_accuracy": classes.recall.nanmean().item(),
        "macro_f1": classes.f1.nanmean().item(),
    }


def brier_score(logits: Tensor, targets: Tensor) -> float:
    """The squared error of the probabilities, summed over classes and averaged over samples: 0 is best, 2 worst.

    Of logits (N, K) against targets (N,). Source: Brier, "Verification of forecasts expressed in terms of probability",
    1950.
    """
    probabilities = logits.double().softmax(1)
    of_targets = probabilities.gather(1, targets.unsqueeze(1)).squeeze(1)
    return (probabilities.square().sum(1) - 2 * of_targets + 1).mean().item()


class ClassFigures(NamedTuple):
    """Figures of each class (K,), float64 fractions; NaN where there is nothing to divide by.

    `recall` is the share of a class's images that are given it: NaN without images. `precision` is the share of the
    decisions for a class that are right: NaN where it is never decided for. `f1` is the harmonic mean of the two, 0
    where one of them is 0 or NaN: NaN where both are.
    """

    precision: Tensor
    recall: Tensor
    f1: Tensor


def class_figures(logits: Tensor, targets: Tensor) -> ClassFigures:
    """Precision, recall and F1 of each class, of logits (N, K) against targets (N,)."""
    decisions = logits.argmax(1)
    counts = [torch.bincount(each, minlength=logits.shape[1]) for each in (targets, decisions)]
    hits = torch.bincount(targets[decisions == targets], minlength=logits.shape[1]).double()
    num_images, num_decisions = counts
    return ClassFigures(hits / num_decisions, hits / num_images, 2 * hits / (num_images + num_decisions))


def commonest_share(logits: Tensor) -> float:
    """The share of the images that are given the commonest decision; 1 where logits (N, K) decide for one class."""
    return (torch.bincount(logits.argmax(1)).max() / len(logits)).item()


def reliability(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean confidence, accuracy and share of samples in each of 15 equal bins of confidence, (15,) each.

    Empty bins hold zeros. Source: Guo et al., "On Calibration of Modern Neural Networks", 2017, section 2.
    """
    confidences, decisions = logits.double().softmax(1).max(1)
    bins = (confidences * NUM_BINS).ceil().long().clamp(1, NUM_BINS) - 1
    counts = torch.bincount(bins, minlength=NUM_BINS).double()
    confidence = torch.bincount(bins, confidences, NUM_BINS) / counts.clamp_min(1)
    accuracy = torch.bincount(bins, (decisions == targets).double(), NUM_BINS) / counts.clamp_min(1)
    return confidence, accuracy, counts / counts.sum()


def confusion(logits: Tensor, targets: Tensor) -> Tensor:
    """How often (K, K) target i (row) was taken for class j (column)."""
    num_classes = logits.shape[1]
    pairs = targets * num_classes + logits.argmax(1)
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def fidelity(student_logits: Tensor, teacher_logits: Tensor) -> dict[str, float]:
    """How well the student copies the teacher: agreement and disagreement of decisions, KL(teacher || student).

    The disagreement is the 0/1 indicator that the founding document meant to minimise. KL is in nats, at
    temperature 1.
    """
    agreement = (student_logits.argmax(1) == teacher_logits.argmax(1)).double().mean().item()
    log_p, log_q = (logits.double().log_softmax(1) for logits in (teacher_logits, student_logits))
    return {"agreement": agreement, "disagreement": 1 - agreement, "kl": kl_divergence(log_p, log_q).item()}
