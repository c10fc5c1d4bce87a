"""teacher_trains=head: a new last layer learns from the features of a frozen network, which are computed once."""

import dataclasses
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from distill_run.data.batches import Batch, Batches
from distill_run.data.feed import Feed
from distill_run.data.source import EVERYTHING, ImageSet, ImageShape
from distill_run.engine.device import Device, storage_dtype
from distill_run.engine.interrupt import StopRequest
from distill_run.errors import user_error
from distill_run.listener import working
from distill_run.models.features import INPUT, FeatureReader
from distill_run.models.layers import last_linear
from distill_run.models.network import Network
from distill_run.out_of_memory import smaller_images, told_of_no_memory
from distill_run.stages.live_teacher import LiveTeacher
from distill_run.stages.training import Training
from distill_run.stages.watcher import Watcher
from distill_run.units import quantity

POINT = "head"
CHUNK_SIZE = 256  # images at a time; fixed, so that no setting of the training changes the features


class ProbeParts(NamedTuple):
    """What a trainer of a last layer works on instead of the whole network and the images."""

    network: Network
    batches: Batches
    val: ImageSet
    device: Device


def probe_parts(training: Training, network: Network, feed: Feed, watcher: Watcher, stop: StopRequest) -> ProbeParts:
    """A fresh last layer, whose images are the features (N, F, 1, 1) that the frozen network has before its own.

    Batch norm without weights stands before the layer, so that one learning rate suits the features of every network;
    `take_head` folds it into the layer. Source: He et al., "Masked Autoencoders Are Scalable Vision Learners", 2022,
    appendix A.1.
    """
    _, layer = last_linear(network.architecture, training.architecture.key)
    has_bias = layer.bias is not None  # without one, the mean could not be folded
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        head = nn.Linear(layer.in_features, layer.out_features, bias=has_bias)
    norm = [nn.BatchNorm1d(layer.in_features, affine=False, momentum=None)] if has_bias else []
    probe = Network(nn.Sequential(nn.Flatten(), *norm, head), [0.0], [1.0])
    device = Device(dataclasses.replace(training.device, precision="fp32", compile="off"), ())
    features = FrozenFeatures(training, network, feed, watcher, stop)
    size = features.num_views * len(feed.train) * layer.in_features * features.dtype.itemsize
    watcher.noted(
        f"{training.stage}: a new last layer learns from {layer.in_features:,} frozen features of each image; "
        f"those of {quantity(features.num_views)} views are kept ({quantity(size)}B)"
    )
    batches = FeatureBatches(features, training, feed.train.targets)
    return ProbeParts(device.place(probe), batches, FeatureSet(features, feed.val), device)


def take_head(probe: Network, network: Network, key: str) -> None:
    """Load what a probe has learnt into the last layer of the whole network."""
    _, layer = last_linear(network.architecture, key)
    *_, norm, head = probe.architecture.children()
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        scale: Tensor | float = 1.0
        if isinstance(norm, nn.BatchNorm1d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = (norm.running_var + norm.eps).rsqrt()
            layer.bias.copy_(head.bias - (head.weight * scale) @ norm.running_mean)
        layer.weight.copy_(head.weight * scale)


def check_head(network: Network, key: str, shape: ImageShape) -> None:
    """Raise UserError unless the last linear layer of a network gives its logits."""
    path, layer = last_linear(network.architecture, key)
    weight = layer.weight
    images = torch.linspace(0, 1, shape.in_channels * shape.image_size[0] * shape.image_size[1], device=weight.device)
    with torch.no_grad(), FeatureReader(network.eval(), {POINT: f"{path}{INPUT}"}) as read:
        outputs = read(images.view(1, shape.in_channels, *shape.image_size))
    features = outputs.features[POINT]
    if features.ndim != 2 or not torch.allclose(linear(features, weight, layer.bias), outputs.logits, atol=1e-4):
        raise user_error(
            f"teacher_trains=head, but the last linear layer of {key}, {path}, does not give its logits",
            "write teacher_trains=all, or choose another architecture",
        )


class FrozenFeatures:
    """The features of a frozen network, each view's computed when it is first asked for, and kept."""

    def __init__(self, training: Training, network: Network, feed: Feed, watcher: Watcher, stop: StopRequest) -> None:
        path, _ = last_linear(network.architecture, training.architecture.key)
        device = Device(training.device, ())
        self.ask = LiveTeacher(network, device, {POINT: f"{path}{INPUT}"})
        self.dtype = storage_dtype(training.device)
        self.stage, self.views = training.stage, training.views
        self.num_views = len(training.views.views_of(training.recipe.epochs))
        self.feed, self.watcher, self.stop = feed, watcher, stop
        self.kept: dict[int, Batch] = {}

    def of_view(self, view: int) -> Batch:
        """All training samples of a view, in their order, with their features in place of the images."""
        if view not in self.kept:
            with self.stop.at_once():
                self.kept[view] = self._compute(view)
        return self.kept[view]

    @cached_property
    def of_val(self) -> Tensor:
        """The features of the validation split (N, F), computed as its logits are: in float32."""
        with torch.no_grad(), self._told_of_no_memory("the validation images"):
            chunks = [self.ask.read(chunk).features[POINT] for chunk in self.feed.val.chunks(CHUNK_SIZE)]
        return torch.cat(chunks)

    def _told_of_no_memory(self, images: str) -> AbstractContextManager[None]:
        remedy = f"keep those of fewer views, as in teacher_head_views=1; or {smaller_images(self.feed.train.shape)}"
        return told_of_no_memory(f"the {self.stage}'s features of {images}", remedy)

    def _compute(self, view: int) -> Batch:
        parts, features = [], []
        what = f"the {self.stage}'s features of view {view}"
        with self._told_of_no_memory(f"view {view}"), working(self.watcher, what, len(self.feed.train)) as advance:
            for batch in self.feed.view_in_order(self.views, view, CHUNK_SIZE):
                features.append(self.ask(batch).features[POINT].to(self.dtype))
                parts.append(dataclasses.replace(batch, images=features[-1]))
                advance(CHUNK_SIZE * len(parts))
        whole = torch.cat(features)
        if not whole.isfinite().all():
            raise user_error(f"{what} do not fit into half precision", "write device.precision=fp32")
        return dataclasses.replace(
            parts[0],
            indices=torch.cat([part.indices for part in parts]),
            images=whole,
            targets=torch.cat([part.targets for part in parts]),
            partner_targets=_joined([part.partner_targets for part in parts]),
            shares=_joined([part.shares for part in parts]),
        )


class FeatureBatches(Batches):
    """Batches of features, in the order and the views in which the training would be given images."""

    def __init__(self, features: FrozenFeatures, training: Training, targets: Tensor) -> None:
        super().__init__(targets, training.recipe.batch_size, training.seed)
        self.features, self.views = features, training.views

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """See Batches."""
        view = self.views.view_of(epoch)
        whole = self.features.of_view(view)
        batches = self.own_shares(self.order(epoch).to(whole.targets.device))
        for step in range(first_step, self.num_steps):
            indices = batches[step]
            yield dataclasses.replace(
                whole,
                indices=indices,
                images=_as_images(whole.images[indices]),
                targets=whole.targets[indices],
                epoch=epoch,
                step=step,
                partner_targets=None if whole.partner_targets is None else whole.partner_targets[indices],
                shares=None if whole.shares is None else whole.shares[indices],
            )


@dataclass(frozen=True)
class FeatureSet:
    """The validation split, whose images are their features: an ImageSet."""

    features: FrozenFeatures
    images: ImageSet

    def __len__(self) -> int:
        return len(self.images)

    @property
    def targets(self) -> Tensor:
        """See ImageSet."""
        return self.images.targets

    @property
    def shape(self) -> tuple[int, int, int]:
        """See ImageSet."""
        return self.features.of_val.shape[1], 1, 1

    def name(self, index: int) -> str:
        """See ImageSet."""
        return self.images.name(index)

    def chunks(self, size: int, part: slice = EVERYTHING) -> Iterator[Tensor]:
        """See ImageSet."""
        yield from map(_as_images, torch.split(self.features.of_val, size)[part])

    def image(self, index: int) -> Tensor:
        """See ImageSet."""
        return self.images.image(index)


def _as_images(features: Tensor) -> Tensor:
    return features.float()[:, :, None, None]


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    there = [part for part in parts if part is not None]
    return torch.cat(there) if there else None
