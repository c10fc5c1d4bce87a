"""The names that RepDistiller and mdistiller give to the tensors of the networks that this program has, too.

Source: models/*.py of RepDistiller, whose names mdistiller keeps. A family is one table: what stands outside the
blocks, how a block is called, and what stands within it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from distill_run.models.mobilenet_v2 import STAGES, MobileNetV2
from distill_run.models.resnet import ResNet
from distill_run.models.shufflenet import ShuffleNetV1, ShuffleNetV2
from distill_run.models.vgg import VGG
from distill_run.models.wrn import WideResNet

Block = Callable[[int, int], str]  # of stage and place, both from 0


@dataclass(frozen=True)
class Names:
    """Their names of modules by ours: `outside` the blocks, of a `block`, and `inside` it; {} keeps what is inside."""

    outside: Mapping[str, str]
    block: Block
    inside: Mapping[str, str]

    def of(self, key: str) -> str:
        """Their name of one of our tensors; ours where the table does not have it."""
        module, _, tensor = key.rpartition(".")
        if module in self.outside:
            return f"{self.outside[module]}.{tensor}"
        found = re.fullmatch(r"(?:stages|blocks)\.(\d+)\.(\d+)(?:\.(.+))?", module)
        if found is None:
            return key
        within = f".{self.inside.get(found[3], found[3])}" if found[3] else ""
        return f"{self.block(int(found[1]), int(found[2]))}{within}.{tensor}"


def _layer(stage: int, place: int) -> str:
    return f"layer{stage + 1}.{place}"


def _counted(branch: str, places: Iterable[int], first: int = 1) -> dict[str, str]:
    """Our convolutions at those places of a branch, each followed by a batch norm: conv1 and bn1, conv2 and bn2, ..."""
    names: dict[str, str] = {}
    for number, place in enumerate(places, start=first):
        names |= {f"{branch}.{place}": f"conv{number}", f"{branch}.{place + 1}": f"bn{number}"}
    return names


STEM = {"stem.0": "conv1", "stem.1": "bn1"}
RESIDUAL = _counted("residual", (0, 3, 6))
RESNET = Names({**STEM, "head": "fc"}, _layer, {**RESIDUAL, "shortcut.0": "downsample.0", "shortcut.1": "downsample.1"})
RESNET_V2 = Names({**STEM, "head": "linear"}, _layer, RESIDUAL)  # of ResNet18 and ResNet50
WRN = Names(
    {"stem": "conv1", "norm": "bn1", "head": "fc"},
    lambda stage, place: f"block{stage + 1}.layer.{place}",
    {
        **{"norm": "bn1", "residual.0": "conv1", "residual.1": "bn2", "shortcut": "convShortcut"},
        **{"residual.3": "conv2", "residual.4": "conv2"},  # the latter where there is dropout
    },
)
VGG_BN = Names({"head": "classifier"}, lambda block, place: f"block{block}.{place}", {})


def _group(stage: int, place: int) -> str:
    """MobileNetV2: they count the groups of blocks through all stages, and the blocks within a group."""
    group = sum(len(groups) for groups in STAGES[:stage])
    for _, count, _ in STAGES[stage]:
        if place < count:
            break
        group, place = group + 1, place - count
    return f"blocks.{group}.{place}"


MOBILENET_V2 = Names(
    {"stem.0": "conv1.0", "stem.1": "conv1.1", "last.0": "conv2.0", "last.1": "conv2.1", "head": "classifier.0"},
    _group,
    {f"residual.{place}": f"conv.{place}" for place in range(8)},
)
SHUFFLENET_V1 = Names({**STEM, "head": "linear"}, _layer, _counted("residual", (0, 4, 7)))
SHUFFLENET_V2 = Names(
    {**STEM, "last.0": "conv2", "last.1": "bn2", "head": "linear"},
    _layer,
    {
        **_counted("residual", (0, 3, 5)),
        **_counted("left", (0, 2)),
        **_counted("right", (0, 3, 5), first=3),
    },
)
FAMILIES: dict[type[nn.Module], tuple[Names, ...]] = {
    ResNet: (RESNET, RESNET_V2),
    WideResNet: (WRN,),
    VGG: (VGG_BN,),
    MobileNetV2: (MOBILENET_V2,),
    ShuffleNetV1: (SHUFFLENET_V1,),
    ShuffleNetV2: (SHUFFLENET_V2,),
}


def foreign_names(architecture: nn.Module) -> list[dict[str, str]]:
    """Our names of all tensors by theirs, once for each way in which they name them."""
    return [{names.of(key): key for key in architecture.state_dict()} for names in FAMILIES.get(type(architecture), ())]
