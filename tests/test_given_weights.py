"""Weights from anywhere: what other programs wrap around a state dict, how they name tensors, and what is refused."""

import argparse
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from distill_run.build import Builder
from distill_run.config.compose import config_dir
from distill_run.data.source import ImageShape
from distill_run.models.given_weights import WRAPPERS, take_weights
from distill_run.models.network import build_network
from distill_run.tensor_files import load, load_weights
from helpers import examples, message_of

Weights = dict[str, Tensor]
GIVEN = "teacher_checkpoint=x.pt"
RENAMED = "read the names of RepDistiller and mdistiller"


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))


def under(prefix: str, weights: Weights) -> Weights:
    return {f"{prefix}{key}": value for key, value in weights.items()}


def compiled(network: nn.Module) -> nn.Module:
    result: nn.Module = torch.compile(network)  # type: ignore[assignment]
    return result


class Lightning(nn.Module):
    """What a module of Lightning looks like from outside: the network, and the weights of its loss."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.model = network
        self.criterion = nn.CrossEntropyLoss(weight=torch.ones(5))


def lightning(network: nn.Module) -> dict[str, Any]:
    options = argparse.Namespace(lr=0.1)
    return {"state_dict": Lightning(network).state_dict(), "hyper_parameters": options, "loops": {"epoch": 3}}


def averaged(network: nn.Module) -> dict[str, Any]:
    average = torch.optim.swa_utils.AveragedModel(network)
    average.update_parameters(network)
    return {"model": small().state_dict(), "model_ema": average.state_dict(), "best": np.float64(0.9)}


def mixed(network: nn.Module) -> dict[str, Any]:
    return {"net": under("module.", {key: tensor.half() for key, tensor in network.state_dict().items()}), "epoch": 1}


@pytest.mark.parametrize(
    ("wrap", "note"),
    [
        (lambda network: network.state_dict(), None),
        (lambda network: nn.DataParallel(network).state_dict(), "dropped 'module.' from the names"),
        (lambda network: compiled(network).state_dict(), "dropped '_orig_mod.' from the names"),
        (lambda network: nn.ModuleDict({"backbone": compiled(network)}).state_dict(),
         "dropped 'backbone.' and '_orig_mod.' from the names"),
        (lambda network: {"model": {"state_dict": under("net.", network.state_dict())}},
         "took 'model.state_dict', dropped 'net.' from the names"),
        (lambda network: compiled(nn.DataParallel(network)).state_dict(),
         "dropped 'module.' and '_orig_mod.' from the names"),
        (lambda network: nn.DataParallel(compiled(network)).state_dict(),
         "dropped 'module.' and '_orig_mod.' from the names"),
        (lambda network: {"module": {f"_fsdp_wrapped_module.{key[:2]}_checkpoint_wrapped_module.{key[2:]}": tensor
                                     for key, tensor in network.state_dict().items()}},
         "took 'module', dropped '_fsdp_wrapped_module.' and '_checkpoint_wrapped_module.' from the names"),
        (lambda network: {"state_dict_ema": under("module.model.", network.state_dict()), "state_dict": {}},
         "took 'state_dict_ema', dropped 'module.model.' from the names"),
        (lightning, "took 'state_dict', dropped 'model.' from the names, left out criterion.weight"),
        (averaged, "took 'model_ema', dropped 'module.' from the names"),
        (mixed, "took 'net', dropped 'module.' from the names"),
        (lambda network: {"architecture": "small", "state_dict": network.state_dict()}, "took 'state_dict'"),
    ],
)  # fmt: skip
def test_what_others_wrap_around_weights_is_taken_off(
    wrap: Callable[[nn.Module], Any], note: str | None, tmp_path: Path
) -> None:
    """Half precision rounds to three digits; a file of torch and the network do not change."""
    theirs, ours = small().eval(), small().eval()
    torch.save(wrap(theirs), tmp_path / "weights.pt")
    taken = take_weights(load(tmp_path / "weights.pt"), ours, GIVEN)
    assert taken.note == note
    load_weights(ours, taken.weights, "small")
    images = torch.rand(2, 3, 4, 4)
    assert all(tensor.dtype == torch.float32 for tensor in ours.parameters())
    torch.testing.assert_close(ours(images), theirs(images), atol=5e-3 if wrap is mixed else 0, rtol=0)


def test_a_file_of_safetensors_is_read(tmp_path: Path) -> None:
    path, network = tmp_path / "weights.safetensors", small()
    save_file(network.state_dict(), path)
    taken = take_weights(load(path), network, GIVEN)
    assert taken.note is None
    assert all(torch.equal(tensor, network.state_dict()[key]) for key, tensor in taken.weights.items())
    path.write_bytes(path.read_bytes()[:-1])
    assert message_of(load, path).startswith(f"{path} is not a readable checkpoint: ")
    path.write_bytes(b"\xff" * 8 + b"{}")
    assert message_of(load, path).startswith(f"{path} is not a readable checkpoint: ")


def test_what_holds_no_state_dict_or_two_networks_is_told(tmp_path: Path) -> None:
    network = small()
    for content in ([1, 2], {"model": {"epoch": 3}}, {"state_dict": [torch.ones(1)]}):
        assert message_of(take_weights, content, network, GIVEN) == (
            f"{GIVEN} is neither a network of distill-run nor a state dict\n"
            "  save one with torch.save(network.state_dict(), path)"
        )
    both = under("student.", network.state_dict()) | under("teacher.", network.state_dict())
    assert message_of(take_weights, both, network, GIVEN) == (
        f"{GIVEN} holds more than one such network: student., teacher.\n  save the state dict of one of them"
    )
    scripted = tmp_path / "scripted.pt"
    torch.jit.script(network).save(str(scripted))  # type: ignore[no-untyped-call]
    assert message_of(load, scripted) == (
        f"{scripted} is a TorchScript archive, which holds code\n"
        f"  save its tensors alone: torch.save(torch.jit.load('{scripted}').state_dict(), 'weights.pt')"
    )


# RepDistiller's names, written down a second time from the forward passes of its models/*.py: theirs, ours.


def their_resnet(blocks: list[int], shortcut: str, head: str, num_convs: int = 2) -> list[tuple[str, str]]:
    pairs = [("conv1", "stem.0"), ("bn1", "stem.1"), (head, "head")]
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            theirs, ours = f"layer{stage}.{block}", f"stages.{stage - 1}.{block}"
            for number in range(1, num_convs + 1):  # a ReLU stands between two pairs of ours
                pairs.append((f"{theirs}.conv{number}", f"{ours}.residual.{3 * (number - 1)}"))
                pairs.append((f"{theirs}.bn{number}", f"{ours}.residual.{3 * (number - 1) + 1}"))
            pairs += [(f"{theirs}.{shortcut}.{part}", f"{ours}.shortcut.{part}") for part in (0, 1)]
    return pairs


def their_wrn(num_blocks: int, last: int) -> list[tuple[str, str]]:
    pairs = [("conv1", "stem"), ("bn1", "norm"), ("fc", "head")]
    for stage in (1, 2, 3):
        for block in range(num_blocks):
            theirs, ours = f"block{stage}.layer.{block}", f"stages.{stage - 1}.{block}"
            pairs += [(f"{theirs}.bn1", f"{ours}.norm"), (f"{theirs}.conv1", f"{ours}.residual.0")]
            pairs += [(f"{theirs}.bn2", f"{ours}.residual.1"), (f"{theirs}.conv2", f"{ours}.residual.{last}")]
            pairs.append((f"{theirs}.convShortcut", f"{ours}.shortcut"))
    return pairs


def their_vgg(blocks: list[int]) -> list[tuple[str, str]]:
    layers = [(f"block{block}.{layer}", f"blocks.{block}.{layer}")
              for block, count in enumerate(blocks) for layer in range(3 * count - 1)]  # fmt: skip
    return [("classifier", "head"), *layers]


def their_mobilenet() -> list[tuple[str, str]]:
    """Seven groups of 1, 2, 3, 4, 3, 3 and 1 blocks, in our four stages of 1 + 2, 3, 4 + 3 and 3 + 1."""
    pairs = [
        (f"conv{number}.{part}", f"{ours}.{part}") for number, ours in ((1, "stem"), (2, "last")) for part in (0, 1)
    ]
    ours = ["0.0", "0.1", "0.2", "1.0", "1.1", "1.2", "2.0", "2.1", "2.2", "2.3", "2.4", "2.5", "2.6", "3.0", "3.1",
            "3.2", "3.3"]  # fmt: skip
    theirs = ["0.0", "1.0", "1.1", "2.0", "2.1", "2.2", "3.0", "3.1", "3.2", "3.3", "4.0", "4.1", "4.2", "5.0", "5.1",
              "5.2", "6.0"]  # fmt: skip
    for place, other in zip(ours, theirs, strict=True):
        pairs += [(f"blocks.{other}.conv.{part}", f"stages.{place}.residual.{part}") for part in range(8)]
    return [("classifier.0", "head"), *pairs]


def their_shuffle_v1() -> list[tuple[str, str]]:
    pairs = [("conv1", "stem.0"), ("bn1", "stem.1"), ("linear", "head")]
    for stage, count in ((1, 4), (2, 8), (3, 4)):
        for block in range(count):
            theirs, ours = f"layer{stage}.{block}", f"stages.{stage - 1}.{block}.residual"
            pairs += [(f"{theirs}.conv1", f"{ours}.0"), (f"{theirs}.bn1", f"{ours}.1")]
            pairs += [(f"{theirs}.conv2", f"{ours}.4"), (f"{theirs}.bn2", f"{ours}.5")]  # after ReLU and shuffle
            pairs += [(f"{theirs}.conv3", f"{ours}.7"), (f"{theirs}.bn3", f"{ours}.8")]
    return pairs


def their_shuffle_v2() -> list[tuple[str, str]]:
    pairs = [("conv1", "stem.0"), ("bn1", "stem.1"), ("conv2", "last.0"), ("bn2", "last.1"), ("linear", "head")]
    down = ["left.0", "left.1", "left.2", "left.3", "right.0", "right.1", "right.3", "right.4", "right.5", "right.6"]
    for stage, count in ((1, 4), (2, 8), (3, 4)):
        for block in range(count):
            theirs, ours = f"layer{stage}.{block}", f"stages.{stage - 1}.{block}"
            places = down if block == 0 else [f"residual.{place}" for place in (0, 1, 3, 4, 5, 6)]
            names = [name for number in range(1, 6) for name in (f"conv{number}", f"bn{number}")]
            pairs += [(f"{theirs}.{name}", f"{ours}.{place}") for name, place in zip(names, places, strict=False)]
    return pairs


ZOO = {
    "resnet8": their_resnet([1, 1, 1], "downsample", "fc"),
    "resnet110": their_resnet([18, 18, 18], "downsample", "fc"),
    "resnet32x4": their_resnet([5, 5, 5], "downsample", "fc"),
    "resnet18": their_resnet([2, 2, 2, 2], "shortcut", "linear"),
    "resnet50": their_resnet([3, 4, 6, 3], "shortcut", "linear", num_convs=3),
    "wrn_40_2": their_wrn(6, 3),
    "wrn_16_2 dropout=0.3": their_wrn(2, 4),
    "vgg13": their_vgg([2, 2, 2, 2, 2]),
    "mobilenet_v2": their_mobilenet(),
    "shufflenet_v1": their_shuffle_v1(),
    "shufflenet_v2": their_shuffle_v2(),
}


def of_the_zoo(option: str) -> nn.Module:
    model, _, changes = option.partition(" ")
    node = yaml.safe_load((config_dir() / "model" / f"{model}.yaml").read_text(encoding="utf-8"))
    node |= {key: float(value) for key, value in (change.split("=") for change in changes.split())}
    return build_network(node, "teacher", ImageShape(3, (32, 32), 7), [0.5] * 3, [0.25] * 3, 0, Builder()).architecture


@pytest.mark.parametrize("option", ZOO)
def test_files_of_repdistiller_and_mdistiller_are_read(option: str) -> None:
    """Every tensor finds its place: each has other values, so that a mistaken place shows in the logits."""
    network = of_the_zoo(option)
    theirs_of = {ours: theirs for theirs, ours in ZOO[option]}
    renamed = {}
    for key, tensor in network.state_dict().items():
        module, _, name = key.rpartition(".")
        renamed[f"{theirs_of[module]}.{name}"] = tensor
    again = copy.deepcopy(network)
    for tensor in again.state_dict().values():
        tensor.zero_()
    taken = take_weights({"epoch": 240, "model": under("module.", renamed)}, again, GIVEN)
    assert taken.note == f"took 'model', dropped 'module.' from the names, {RENAMED}"
    load_weights(again, taken.weights, option)
    assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in network.state_dict().items())
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.eval()(images), network.eval()(images))


@examples
@given(
    prefix=st.lists(st.sampled_from(["module", "model", "net", "0", "student", "encoder_q"]), max_size=3),
    inserted=st.sampled_from(["", "_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."]),
    place=st.integers(0, 4),
    wrappers=st.lists(st.sampled_from(WRAPPERS), max_size=3),
    beside=st.booleans(),
)
def test_weights_are_found_in_any_nest_of_wrappers(
    prefix: list[str], inserted: str, place: int, wrappers: list[str], beside: bool
) -> None:
    """Prefixes of any length, what libraries insert at any depth, dictionaries in dictionaries, tensors beside."""
    network = small()
    held: Any = {}
    for key, tensor in network.state_dict().items():
        parts = [*prefix, *key.split(".")]
        where = min(place, len(parts) - 1)
        held[".".join(parts[:where] + [""] * (where > 0)) + inserted + ".".join(parts[where:])] = tensor
    if beside:
        held["criterion.weight"] = torch.ones(5)
    for wrapper in reversed(wrappers):
        held = {wrapper: held, "epoch": 3}
    taken = take_weights(held, network, GIVEN)
    assert all(torch.equal(taken.weights[key], tensor) for key, tensor in network.state_dict().items())
    load_weights(network, {key: taken.weights[key] for key in network.state_dict()}, "small")
