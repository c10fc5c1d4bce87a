"""Architectures: what they cost, by hand; that all of them run; that a seed decides their weights."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from distill_run.build import Builder
from distill_run.config.compose import config_dir, option_names
from distill_run.config.settings import compose_config
from distill_run.data.source import ImageShape
from distill_run.models.cnn import CNN
from distill_run.models.mlp import MLP
from distill_run.models.network import Network, build_network, count_bytes, count_macs, count_params
from helpers import message_of

LIBRARIES = ("torchvision", "timm")  # test_pretrained.py has them
MODELS = [name for name in option_names("model") if name not in LIBRARIES]
CIFAR = ImageShape(3, (32, 32), 10)


def node_of(name: str) -> dict[str, Any]:
    node: dict[str, Any] = yaml.safe_load((config_dir() / "model" / f"{name}.yaml").read_text(encoding="utf-8"))
    return node


def network_of(node: Mapping[str, Any], shape: ImageShape = CIFAR, seed: int = 0) -> Network:
    mean, std = [0.5] * shape.in_channels, [0.25] * shape.in_channels
    return build_network(node, "student", shape, mean, std, seed, Builder())


def cnn(widths: list[int], hidden: list[int], *, batch_norm: bool, dropout: float = 0.0) -> dict[str, Any]:
    target = "distill_run.models.cnn.CNN"
    return {"_target_": target, "widths": widths, "hidden": hidden, "batch_norm": batch_norm, "dropout": dropout}


def founding_convolutions() -> int:
    """3x3 kernels and biases of the widths 64, 128, 256, 512 over three channels."""
    return (3 * 64 * 9 + 64) + (64 * 128 * 9 + 128) + (128 * 256 * 9 + 256) + (256 * 512 * 9 + 512)


def test_the_founding_teacher_has_26_765_962_parameters() -> None:
    """Four pools leave 2x2 pixels of 512 channels; then 2048 -> 4096 -> 4096 -> 10."""
    by_hand = founding_convolutions() + (2048 * 4096 + 4096) + (4096 * 4096 + 4096) + (4096 * 10 + 10)
    assert by_hand == 26_765_962
    founding = compose_config(["experiment=founding_cifar10"])
    assert count_params(network_of(founding.teacher)) == by_hand


def test_the_founding_student_has_9_984_650_parameters() -> None:
    by_hand = founding_convolutions() + (2048 * 4096 + 4096) + (4096 * 10 + 10)
    assert by_hand == 9_984_650
    founding = compose_config(["experiment=founding_cifar10"])
    assert count_params(network_of(founding.student)) == by_hand


def test_batch_norm_replaces_the_bias_of_a_convolution() -> None:
    plain = network_of(cnn([4], [], batch_norm=False), ImageShape(1, (8, 8), 10))
    normed = network_of(cnn([4], [], batch_norm=True), ImageShape(1, (8, 8), 10))
    head = 4 * 4 * 4 * 10 + 10
    assert count_params(plain) == 4 * 9 + 4 + head
    assert count_params(normed) == 4 * 9 + 2 * 4 + head


def test_the_operations_of_a_small_cnn_by_hand() -> None:
    """Each output pixel of a 3x3 convolution costs 9 x channels in x channels out."""
    network = network_of(cnn([4, 8], [], batch_norm=True), ImageShape(3, (8, 8), 10))
    first, second, head = 8 * 8 * 9 * 3 * 4, 4 * 4 * 9 * 4 * 8, 2 * 2 * 8 * 10
    assert count_macs(network, ImageShape(3, (8, 8), 10)) == first + second + head == 11_840


def test_pools_round_odd_sides_up() -> None:
    """5x7 becomes 3x4, then 2x2."""
    shape = ImageShape(1, (5, 7), 3)
    network = network_of(cnn([2, 6], [], batch_norm=False), shape)
    assert count_macs(network, shape) == 5 * 7 * 9 * 2 + 3 * 4 * 9 * 2 * 6 + 2 * 2 * 6 * 3


def test_the_cost_of_an_mlp_by_hand() -> None:
    node = {"_target_": "distill_run.models.mlp.MLP", "hidden": [20, 7], "dropout": 0.1}
    shape = ImageShape(2, (3, 5), 4)
    network = network_of(node, shape)
    assert count_params(network) == (30 * 20 + 20) + (20 * 7 + 7) + (7 * 4 + 4)
    assert count_macs(network, shape) == 30 * 20 + 20 * 7 + 7 * 4


def test_the_bytes_are_those_of_weights_and_buffers() -> None:
    network = network_of(cnn([4], [], batch_norm=True), ImageShape(1, (2, 2), 2))
    weights = 4 * 9 + 2 * 4 + (4 * 2 + 2)
    running_statistics, batches_seen, normalisation = 2 * 4, 1, 2
    assert count_bytes(network) == 4 * (weights + running_statistics + normalisation) + 8 * batches_seen


def test_counting_operations_leaves_the_network_as_it_was() -> None:
    shape = ImageShape(1, (4, 4), 2)
    for is_training in (True, False):
        network = network_of(cnn([4], [], batch_norm=True, dropout=0.5), shape).train(is_training)
        before = {key: value.clone() for key, value in network.state_dict().items()}
        count_macs(network, shape)
        assert network.training is is_training
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_of_every_model_learns(name: str) -> None:
    network = network_of(node_of(name)).train()
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.autograd.backward(nn.functional.cross_entropy(network(images), torch.arange(4)))
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert [
        name for name, each in gradients.items() if each is None or not each.any() or not each.isfinite().all()
    ] == []


def test_a_plain_network_takes_images_of_any_size() -> None:
    """test_zoo.py has the networks of the literature; a map of one pixel has no variance in a batch of one image."""
    for name in ("cnn_tiny", "cnn_small", "cnn_medium", "mlp"):
        for channels, size in ((1, (1, 1)), (3, (1, 1)), (1, (28, 28)), (3, (33, 47))):
            network = network_of(node_of(name), ImageShape(channels, size, 7)).train()
            assert network(torch.rand(3, channels, *size)).shape == (3, 7)
            assert network.eval()(torch.rand(1, channels, *size)).shape == (1, 7)


def test_the_seed_alone_decides_the_first_weights() -> None:
    """A network of each family; all are built by one function."""
    for name in ("mlp", "cnn_tiny", "resnet8", "wrn_16_1", "vgg8", "mobilenet_v2", "shufflenet_v1", "shufflenet_v2"):
        node, shape = node_of(name), ImageShape(1, (8, 8), 10)
        before = torch.get_rng_state()
        first = network_of(node, shape, seed=3).state_dict()
        assert torch.equal(torch.get_rng_state(), before), name
        torch.manual_seed(99)
        same, other = network_of(node, shape, seed=3).state_dict(), network_of(node, shape, seed=4).state_dict()
        assert all(torch.equal(value, same[key]) for key, value in first.items()), name
        assert any(not torch.equal(value, other[key]) for key, value in first.items()), name


def test_a_network_normalises_with_its_own_mean_and_deviation() -> None:
    network = Network(nn.Flatten(), [0.5, 0.25], [0.5, 0.125])
    images = torch.tensor([[[[1.0]], [[0.5]]]])
    assert network(images).tolist() == [[1.0, 2.0]]


def test_the_normalisation_travels_with_the_weights_and_is_not_learnt() -> None:
    network = Network(nn.Flatten(), [0.5], [0.25])
    assert network.state_dict().keys() == {"mean", "std"}
    assert list(network.parameters()) == []


def test_dropout_stands_before_each_linear_layer_and_only_where_asked() -> None:
    with_dropout = MLP(in_channels=1, image_size=(2, 2), num_classes=2, hidden=[3], dropout=0.5)
    without = MLP(in_channels=1, image_size=(2, 2), num_classes=2, hidden=[3], dropout=0.0)
    assert [type(layer).__name__ for layer in with_dropout.head] == ["Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    assert [type(layer).__name__ for layer in without.head] == ["Linear", "ReLU", "Linear"]


def test_a_cnn_refuses_what_it_cannot_be_built_of() -> None:
    sizes = "a list of whole numbers of at least 1, as in"
    for name, value, words in (
        ("widths", [], f"{sizes} [16,32]"),
        ("widths", [8, 0], f"{sizes} [16,32]"),
        ("hidden", [1.5], f"{sizes} [512], or []"),
        ("dropout", 1, "a number from 0 to below 1"),
    ):
        node = {**cnn([4], [], batch_norm=True), name: value}
        assert message_of(network_of, node) == f"student.{name}={value} is not accepted\n  write {words}"


def test_in_eval_mode_the_logits_of_an_image_do_not_depend_on_its_batch() -> None:
    network = CNN(
        in_channels=1, image_size=(8, 8), num_classes=4, widths=[4, 8], hidden=[6], batch_norm=True, dropout=0.5
    ).eval()
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(network(images)[2:3], network(images[2:3]), atol=1e-6)
