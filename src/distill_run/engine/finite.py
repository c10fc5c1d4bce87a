"""Numbers that are not finite: where in a step they appear first, and what may help."""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from distill_run.data.batches import Batch
from distill_run.data.source import ImageSet
from distill_run.errors import user_error
from distill_run.models.network import Network
from distill_run.models.outputs import Outputs
from distill_run.tensor_files import some_of

CALMER = "lower its optimizer.lr, set its clip_norm=1.0, or add schedule.warmup_epochs=1"
MEND_IMAGES = "mend the augmentation that gives them, or set another dataset.mean and dataset.std"
MEND_TEACHER = "train that teacher again, or write device.precision=fp32"


def first_not_finite(
    images: Tensor, network: Network, student: Outputs, teacher: Outputs | None, parts: Mapping[str, Tensor]
) -> tuple[str, str] | None:
    """What is not finite first on the way from the images of a step to its loss, and what may help; None if all is.

    `parts` are the terms of the loss by their names.
    """
    for what, remedy, values in _on_the_way(images, network, student, teacher, parts):
        if not values.isfinite().all():
            return what, remedy
    return None


def _on_the_way(
    images: Tensor, network: Network, student: Outputs, teacher: Outputs | None, parts: Mapping[str, Tensor]
) -> Iterator[tuple[str, str, Tensor]]:
    yield "the images", MEND_IMAGES, images
    yield "the images after their normalisation", MEND_IMAGES, (images - network.mean) / network.std
    for point, features in student.features.items():
        yield f"its features at {point}", CALMER, features
    yield "its logits", CALMER, student.logits
    if teacher is not None:
        for point, features in teacher.features.items():
            yield f"the teacher's features at {point}", MEND_TEACHER, features
        yield "the teacher's logits", MEND_TEACHER, teacher.logits
    for name, part in parts.items():
        yield f"the term {name}", CALMER, part


def evidence_of(batch: Batch, loss: Tensor, parts: Mapping[str, Tensor], gradients: list[Tensor]) -> str:
    """What the loss of a batch consists of, how large the gradients are, and the samples."""
    norm = nn.utils.get_total_norm(gradients).item()
    shown = ", ".join(f"{name}={value.item():.4g}" for name, value in {"loss": loss, **parts}.items())
    return f"{shown}; gradient norm {norm:.4g}; samples {batch.indices.tolist()[:8]}..."


def faulty_gradients(named: Iterable[tuple[str, nn.Parameter]]) -> str:
    """The weights whose gradients are not finite; where each is, their sum of squares is too large."""
    faulty = [name for name, weight in named if weight.grad is not None and not weight.grad.isfinite().all()]
    return f"those of {some_of(faulty)}" if faulty else "the length of all of them"


def total_norm(gradients: list[Tensor], *, is_exact: bool) -> Tensor:
    """The length of all gradients together, a scalar; without `is_exact`, only whether it is finite can be relied on.

    On a CPU torch's own takes as long as a twentieth of a small network's step; a dot product takes a tenth of that.
    """
    if is_exact or not gradients or gradients[0].device.type != "cpu":
        return nn.utils.get_total_norm(gradients)
    return torch.stack([torch.dot(flat, flat) for flat in map(torch.flatten, gradients)]).sum().sqrt()


def check_logits_of(who: str, split: str, logits: Tensor, images: ImageSet) -> None:
    """Raise UserError where logits (N, K) of a trained network are not finite; an image of theirs is named."""
    bad = (~logits.isfinite().all(1)).nonzero().flatten().tolist()
    if bad:
        raise user_error(
            f"{who} gives logits that are not finite for {len(bad):,} of the {len(logits):,} {split} images, "
            f"first for {images.name(bad[0])}",
            "look at that image; or train the network again with a lower optimizer.lr or in device.precision=fp32",
        )
