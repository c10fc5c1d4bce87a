"""What networks say of images, one image after the other, and how often they are right."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from distill_run.deploy.photographs import Block
from distill_run.models.network import Network
from distill_run.units import counted, percent


class Answer(NamedTuple):
    """A class and the probability that a network gives it, a fraction."""

    name: str
    probability: float


class Prediction(NamedTuple):
    """An image's name, its class where it is known, and the most probable classes by each network, best first.

    `image` (C, H, W) is what the networks saw, float32 in 0..1; `remarks` are those of data/pixels.py on it. Where the
    file cannot be read, `problem` says why, and there are no answers.
    """

    name: str
    target: str | None
    answers: dict[str, list[Answer]]
    image: Tensor | None
    problem: str = ""
    remarks: Sequence[str] = ()

    def is_right(self, stage: str) -> bool:
        """Whether a network gives the image its class."""
        return self.answers[stage][0].name == self.target


@dataclass
class Tally:
    """How many images there were, of how many of them the class is known, and how many each network gets right.

    `agreed` counts the images that all networks give the same class, `failed` the files that could not be read;
    `remarks` has the names of the images with each remark.
    """

    images: int = 0
    failed: int = 0
    known: int = 0
    agreed: int = 0
    right: Counter[str] = field(default_factory=Counter)
    remarks: dict[str, list[str]] = field(default_factory=dict)

    def add(self, prediction: Prediction) -> None:
        """Count one more image."""
        self.images += 1
        if prediction.problem:
            self.failed += 1
            return
        for remark in prediction.remarks:
            self.remarks.setdefault(remark, []).append(prediction.name)
        self.agreed += len({answers[0].name for answers in prediction.answers.values()}) == 1
        if prediction.target is not None:
            self.known += 1
            self.right.update(stage for stage in prediction.answers if prediction.is_right(stage))

    def share(self, number: int) -> float | None:
        """A number of images as a share of those whose class is known; None where there is none."""
        return number / self.known if self.known else None

    def sentences(self, stages: Iterable[str]) -> Iterator[str]:
        """What people are told at the end."""
        stages = list(stages)
        if self.known:
            shares = " and ".join(f"the {stage} on {percent(self.share(self.right[stage]))}" for stage in stages)
            yield f"right: {shares} of {counted(self.known, 'image')}"
        read = self.images - self.failed
        if len(stages) > 1 and read:
            yield f"{' and '.join(stages)} give the same class to {self.agreed:,} of {counted(read, 'image')}"
        if self.failed:
            yield f"{counted(self.failed, 'file')} of {self.images:,} could not be read"


@torch.no_grad()
def predict_blocks(
    networks: Mapping[str, Network], blocks: Iterable[Block], top: int, device: torch.device
) -> Iterator[Prediction]:
    """The `top` classes of every image by each network, by their stages; the networks share their classes."""
    classes = networks["student"].classes
    for block in blocks:
        best = {stage: _best(network, block.images.to(device), top) for stage, network in networks.items()}
        row = 0
        for name, target in block.photographs:
            known = None if target is None else classes[target]
            if name in block.problems:
                yield Prediction(name, known, {}, None, block.problems[name])
                continue
            answers = {
                stage: [Answer(classes[place], value) for place, value in rows[row]] for stage, rows in best.items()
            }
            yield Prediction(name, known, answers, block.images[row], remarks=block.remarks.get(name, ()))
            row += 1


def _best(network: Network, images: Tensor, top: int) -> list[list[tuple[int, float]]]:
    """Of each image, the indices of the most probable classes with their probabilities."""
    if not len(images):
        return []
    values, places = network(images).double().softmax(1).topk(top)
    return [list(zip(*row, strict=True)) for row in zip(places.tolist(), values.tolist(), strict=True)]
