"""Batch norm folded into convolutions: the same function."""

import pytest
import torch
from torch import nn

from distill_run.models.cnn import CNN
from distill_run.models.folding import fold_batch_norm
from distill_run.models.network import Network


def trained_network() -> Network:
    torch.manual_seed(0)
    cnn = CNN(in_channels=3, image_size=(9, 9), num_classes=4, widths=[6, 8], hidden=[5], batch_norm=True, dropout=0.0)
    for module in cnn.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.1, 3)
            module.weight.data.normal_()
            module.bias.data.normal_()
    return Network(cnn, [0.5] * 3, [0.2] * 3).eval()


def test_a_folded_network_gives_the_same_logits_with_no_batch_norm_left() -> None:
    network = trained_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    folded = fold_batch_norm(network)
    images = torch.rand(16, 3, 9, 9)
    torch.testing.assert_close(folded(images), network(images), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())


def test_a_batch_norm_that_no_convolution_precedes_stays() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)).eval()
    folded = fold_batch_norm(network)
    assert [type(module) for module in folded.children()] == [nn.BatchNorm2d, nn.Conv2d, nn.ReLU, nn.BatchNorm2d]


def test_what_is_no_plain_chain_or_no_fixed_map_stays() -> None:
    class Residual(nn.Sequential):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            change: torch.Tensor = super().forward(images)  # type: ignore[no-untyped-call]
            return images + change

    block = Residual(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).eval()
    batchwise = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)).eval()
    for network in (block, batchwise):
        assert isinstance(fold_batch_norm(network)[1], nn.BatchNorm2d)


def test_a_network_that_trains_is_not_folded() -> None:
    with pytest.raises(AssertionError):
        fold_batch_norm(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
