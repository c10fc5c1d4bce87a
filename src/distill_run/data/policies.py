"""TrivialAugment and RandAugment: operations with magnitudes, drawn for each sample."""

from typing import final

import torch
from torch import Tensor

from distill_run.data.augment import Augmentation
from distill_run.data.draws import Draws
from distill_run.data.operations import OPERATIONS, apply_operations
from distill_run.rules import FLAG, Rule, whole

NUM_LEVELS = 31  # magnitudes of an operation, from the weakest to the strongest
LEVEL = Rule(
    lambda v: whole(0).accepts(v) and v < NUM_LEVELS, f"a whole number from 0 to {NUM_LEVELS - 1}, the strongest"
)
MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
COLOURS = ("brightness", "color", "contrast", "sharpness")
IS_SIGNED = torch.tensor([name in MOVES + COLOURS for name in OPERATIONS])


@final
class TrivialAugment(Augmentation):
    """One of 14 operations for each sample, with a magnitude of 31 and a sign, all drawn uniformly.

    Source: Mueller and Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation", 2021; as
    torchvision's TrivialAugmentWide.
    """

    def __init__(self, *, enabled: bool) -> None:
        FLAG.check("enabled", enabled)
        self.enabled = enabled

    @property
    def does_nothing(self) -> bool:
        """See Augmentation."""
        return not self.enabled

    def __call__(self, images: Tensor, draw: Draws) -> Tensor:
        """See Augmentation."""
        magnitudes = magnitude_table(0.99, (32.0, 32.0), 135.0, 0.99, 6)
        return _apply(images, magnitudes, draw.on_cpu(len(OPERATIONS)), draw.on_cpu(NUM_LEVELS), draw.on_cpu(2))


@final
class RandAugment(Augmentation):
    """`num_ops` of 14 operations in turn, drawn for each sample, all with level `magnitude` of 31, in either direction.

    Source: Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space", 2019; as
    torchvision's RandAugment.
    """

    def __init__(self, *, num_ops: int, magnitude: int) -> None:
        whole(0).check("num_ops", num_ops)
        LEVEL.check("magnitude", magnitude)
        self.num_ops = num_ops
        self.magnitude = magnitude

    @property
    def does_nothing(self) -> bool:
        """See Augmentation."""
        return self.num_ops == 0

    def __call__(self, images: Tensor, draw: Draws) -> Tensor:
        """See Augmentation."""
        height, width = images.shape[2:]
        magnitudes = magnitude_table(0.3, (150 / 331 * width, 150 / 331 * height), 30.0, 0.9, 4)
        for _ in range(self.num_ops):
            names, signs = draw.on_cpu(len(OPERATIONS)), draw.on_cpu(2)
            images = _apply(images, magnitudes, names, torch.full_like(names, self.magnitude), signs)
        return images


def magnitude_table(
    shear: float, pixels: tuple[float, float], degrees: float, factor: float, bits: int
) -> dict[str, Tensor]:
    """The magnitudes (31,) of each operation, in float64, from the largest of each kind.

    `pixels` are those of translations across and down, `factor` those of the colours and the sharpness; `bits` is how
    many bits the strongest posterization takes away.
    """
    largest = dict(zip(MOVES, (shear, shear, *pixels, degrees), strict=True)) | dict.fromkeys(COLOURS, factor)
    table = {name: torch.linspace(0.0, largest.get(name, 0.0), NUM_LEVELS) for name in OPERATIONS}
    table["posterize"] = (8 - torch.arange(NUM_LEVELS) / ((NUM_LEVELS - 1) / bits)).round()
    table["solarize"] = torch.linspace(1.0, 0.0, NUM_LEVELS)
    return {name: magnitudes.double() for name, magnitudes in table.items()}


def _apply(images: Tensor, table: dict[str, Tensor], names: Tensor, levels: Tensor, signs: Tensor) -> Tensor:
    """Images after the operations `names` (N,) with magnitudes of these levels and signs (N,), 1 for negative.

    All but the images are on the CPU.
    """
    magnitudes = torch.stack(list(table.values()))[names, levels]
    magnitudes = torch.where(IS_SIGNED[names] & (signs == 1), -magnitudes, magnitudes)
    return apply_operations(images, names, magnitudes)
