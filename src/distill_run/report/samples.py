"""Which test images to show, with the class that each network gives them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from distill_run.report.png import data_uri, png_of
from distill_run.report.summary import Findings

NUM_SAMPLES = 12
MADE_WORSE, MENDED = "made worse", "mended"
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
    """A test image, (C, H, W) of uint8, its index in the split, its path or index as it is shown, and its class.

    `decisions` are those of the networks; `effect` is how the student's differs from the baseline's, where one of the
    two is right and the other wrong: MADE_WORSE or MENDED.
    """

    index: int
    name: str
    image: Tensor
    target: str
    effect: str
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


def effects(logits: Mapping[str, Tensor], targets: Tensor) -> dict[str, list[int]]:
    """The indices of the images that the student alone gets wrong (made worse) or right (mended), not the baseline."""
    if "baseline" not in logits:
        return {MADE_WORSE: [], MENDED: []}
    student, baseline = (logits[stage].argmax(1) == targets for stage in ("student", "baseline"))
    return {
        MADE_WORSE: (baseline & ~student).nonzero().flatten().tolist(),
        MENDED: (student & ~baseline).nonzero().flatten().tolist(),
    }


def choose(logits: Mapping[str, Tensor], targets: Tensor) -> list[int]:
    """Up to 12 indices of images: those made worse, those mended, then where networks disagree, err, or any others.

    Where there are many of the first two, each gets half. Within each kind the classes take turns.
    """
    worse, mended = (spread(indices, targets) for indices in effects(logits, targets).values())
    half = NUM_SAMPLES // 2
    worse = worse[: max(half, NUM_SAMPLES - len(mended))]
    chosen = [*worse, *mended[: NUM_SAMPLES - len(worse)]]
    wrong = torch.stack([each.argmax(1) != targets for each in logits.values()]).any(0)
    rank = 2 - wrong.long()
    rank[disagreements(list(logits.values()))] = 0
    rank[chosen] = -1
    for kind in (0, 1, 2):
        chosen += spread((rank == kind).nonzero().flatten().tolist(), targets)
    return chosen[:NUM_SAMPLES]


def spread(indices: Iterable[int], targets: Tensor) -> list[int]:
    """The same indices in an order in which the classes take turns: the first image of each class, then the second."""
    classes, seen = targets.tolist(), Counter[int]()
    turns = []
    for index in indices:
        target = classes[index]
        turns.append((seen[target], index))
        seen[target] += 1
    return [index for _, index in sorted(turns)]


def pick_samples(findings: Findings) -> list[Sample]:
    """The test images that show best how the networks differ."""
    test, classes = findings.feed.test, findings.feed.classes
    targets = test.targets.cpu()
    logits = {stage: trained.selected.test_logits for stage, trained in findings.networks.items()}
    probabilities = {stage: each.double().softmax(1) for stage, each in logits.items()}
    effect_of = {index: effect for effect, indices in effects(logits, targets).items() for index in indices}
    samples = []
    for index in choose(logits, targets):
        target = int(targets[index])
        decisions = tuple(_decision(stage, each[index], target, classes) for stage, each in probabilities.items())
        effect = effect_of.get(index, "")
        samples.append(Sample(index, test.name(index), test.image(index), classes[target], effect, decisions))
    return samples


def _decision(stage: str, probabilities: Tensor, target: int, classes: tuple[str, ...]) -> Decision:
    answer = int(probabilities.argmax())
    return Decision(stage, classes[answer], probabilities[answer].item(), answer == target)
