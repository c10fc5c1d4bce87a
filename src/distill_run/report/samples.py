"""Which test images to show, and what each network said of them."""

import base64
import io
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from distill_run.report.summary import Findings

NUM_SAMPLES = 12
THUMBNAIL_SIZE = 192  # pixels: twice of what the page shows, for dense screens


@dataclass(frozen=True)
class Decision:
    """What one network said of an image, and how sure it was (a fraction)."""

    stage: str
    answer: str
    confidence: float
    is_right: bool


@dataclass(frozen=True)
class Sample:
    """A test image, (C, H, W) of uint8, its place in the split, its class, and the networks' decisions."""

    index: int
    image: Tensor
    target: str
    decisions: tuple[Decision, ...]

    @property
    def picture(self) -> Image.Image:
        """The image to look at; of channels that are neither grey nor RGB, the first alone."""
        if self.image.shape[0] == 3:
            return Image.fromarray(self.image.permute(1, 2, 0).contiguous().numpy())
        return Image.fromarray(self.image[0].contiguous().numpy())

    @property
    def uri(self) -> str:
        """The image as a PNG in a data URI, no larger than the page needs."""
        picture, file = self.picture, io.BytesIO()
        picture.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
        picture.save(file, format="PNG")
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def disagreements(logits: list[Tensor]) -> Tensor:
    """On which images (N,), bool, networks with these logits (N, K) do not all decide the same."""
    decisions = torch.stack([each.argmax(1) for each in logits])
    return (decisions != decisions[0]).any(0)


def choose(logits: list[Tensor], targets: Tensor) -> list[int]:
    """Up to 12 images: where networks disagree, then where one is wrong, then any; in the split's order."""
    wrong = torch.stack([each.argmax(1) != targets for each in logits]).any(0)
    rank = 2 - wrong.long()
    rank[disagreements(logits)] = 0
    return torch.argsort(rank, stable=True)[:NUM_SAMPLES].tolist()


def pick_samples(findings: Findings) -> list[Sample]:
    """The test images that tell most about how the networks differ."""
    test, classes = findings.dataset.test, findings.dataset.classes
    targets = test.targets.cpu()
    logits = {stage: trained.selected.test_logits for stage, trained in findings.networks.items()}
    probabilities = {stage: each.double().softmax(1) for stage, each in logits.items()}
    return [
        Sample(
            index,
            test.image(index),
            classes[int(targets[index])],
            tuple(_decision(stage, each[index], int(targets[index]), classes) for stage, each in probabilities.items()),
        )
        for index in choose(list(logits.values()), targets)
    ]


def _decision(stage: str, probabilities: Tensor, target: int, classes: tuple[str, ...]) -> Decision:
    answer = int(probabilities.argmax())
    return Decision(stage, classes[answer], probabilities[answer].item(), answer == target)
