"""Which batch norms are folded into convolutions; test_zoo.py checks that no logit changes."""

import pytest
import torch
from torch import nn

from distill_run.models.folding import fold_batch_norm


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
