"""Which test images to show, with the class that each network gives them."""

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from distill_run.report.png import data_uri, png_of
from distill_run.report.summary import Findings

NUM_SAMPLES = 12
THUMBNAIL_SIZE = 192  # pixels: twice the size on the page, for screens with many pixels


@dataclass(frozen=True)
class Decision:
    """The class that one network gives an image, and its confidence (a fraction)."""

    stage: str
    answer: str
    confidence: float
    is_right: bool


@dataclass(frozen=True)
class Sample:
    """A test image, (C, H, W) of uint8, its index in the split, its class, and the networks' decisions."""

    index: int
    image: Tensor
    target: str
    decisions: tuple[Decision, ...]

    @property
    def picture(self) -> Image.Image:
        """The image to look at. Where the channels are neither grey nor RGB, only the first is shown."""
        if self.image.shape[0] == 3:
            return Image.fromarray(self.image.permute(1, 2, 0).contiguous().numpy())
        return Image.fromarray(self.image[0].contiguous().numpy())

    @property
    def uri(self) -> str:
        """The image as a PNG in a data URI, no larger than the page needs."""
        picture = self.picture
        picture.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
        return data_uri(png_of(picture))


def disagreements(logits: list[Tensor]) -> Tensor:
    """For each image whether the networks with these logits (N, K) give it different classes: (N,), bool."""
    decisions = torch.stack([each.argmax(1) for each in logits])
    return (decisions != decisions[0]).any(0)


def choose(logits: list[Tensor], targets: Tensor) -> list[int]:
    """Up to 12 indices of images: first where networks disagree, then where one is wrong, then any others."""
    wrong = torch.stack([each.argmax(1) != targets for each in logits]).any(0)
    rank = 2 - wrong.long()
    rank[disagreements(logits)] = 0
    return torch.argsort(rank, stable=True)[:NUM_SAMPLES].tolist()


def pick_samples(findings: Findings) -> list[Sample]:
    """The test images that show best how the networks differ."""
    test, classes = findings.feed.test, findings.feed.classes
    targets = test.targets.cpu()
    logits = {stage: trained.selected.test_logits for stage, trained in findings.networks.items()}
    probabilities = {stage: each.double().softmax(1) for stage, each in logits.items()}
    samples = []
    for index in choose(list(logits.values()), targets):
        target = int(targets[index])
        decisions = [_decision(stage, each[index], target, classes) for stage, each in probabilities.items()]
        samples.append(Sample(index, test.image(index), classes[target], tuple(decisions)))
    return samples


def _decision(stage: str, probabilities: Tensor, target: int, classes: tuple[str, ...]) -> Decision:
    answer = int(probabilities.argmax())
    return Decision(stage, classes[answer], probabilities[answer].item(), answer == target)
