"""Features: what a network computes at named points, read by hooks that any module takes.

A point is a name of the architecture's `feature_points`, or the path of one of its modules: "stages.1" is what that
module gives, "head:input" what it is given. An architecture that names no points has them found by a dry pass.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from distill_run.data.source import ImageShape
from distill_run.errors import user_error
from distill_run.models.network import Network
from distill_run.models.outputs import Outputs

INPUT = ":input"
Size = tuple[int, int] | None
STAGES = re.compile(r"stage(s|-\d+)(_preact)?$")  # words for several points, or for one counted from the last


class FeatureReader:
    """A network that gives its Outputs, with the features at `points`: places by the names to give them.

    `forward` computes the network, where that is not the network itself, as when it is compiled. The hooks rest but for
    the time of a call, and nothing is kept after it.
    """

    def __init__(
        self, network: Network, points: Mapping[str, str], forward: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self.forward = network if forward is None else forward  # a compiled module has no truth value
        self.points = points
        self.values: dict[str, tuple[Tensor, int]] = {}
        self.is_reading = False
        self.handles = [self._hook(network, name, place) for name, place in points.items()]

    def _hook(self, network: Network, name: str, place: str) -> RemovableHandle:
        module = network.architecture.get_submodule(place.removesuffix(INPUT))
        if place.endswith(INPUT):
            return module.register_forward_pre_hook(lambda _, inputs: self._keep(name, inputs[0]))
        return module.register_forward_hook(lambda _, __, output: self._keep(name, output))

    def remove(self) -> None:
        """Take the hooks out of the network."""
        for handle in self.handles:
            handle.remove()

    def __call__(self, images: Tensor) -> Outputs:
        """Logits and features, in float32, of images (N, C, H, W) in 0..1."""
        self.is_reading = True
        try:
            logits = self.forward(images)
            features = {name: self._take(name) for name in self.points}
        finally:
            self.is_reading = False
            self.values.clear()
        return Outputs(logits.float(), features)

    def _keep(self, name: str, value: Any) -> None:
        if self.is_reading:
            if not isinstance(value, Tensor):
                raise user_error(
                    f"the features at {self.points[name]} are not a tensor, but a {type(value).__name__}",
                    "choose a module that gives one, or whose input is one (PATH:input)",
                )
            self.values[name] = value, value._version

    def _take(self, name: str) -> Tensor:
        """The features at a point; raises UserError where there are none, or the network has overwritten them since."""
        if name not in self.values:
            raise user_error(
                f"the features at {self.points[name]} are not computed when the network is asked for logits",
                "choose a module that the forward pass calls",
            )
        value, version = self.values[name]
        if value._version != version:
            raise user_error(
                f"the features at {self.points[name]} are overwritten in place by the layer that follows",
                "choose the point after that layer, or build it with inplace=False",
            )
        return value.float()


def read_shapes(network: Network, points: Mapping[str, str], shape: ImageShape) -> dict[str, tuple[int, ...]]:
    """The shape of one sample's features at each point, (C, H, W) or (C,), found by a dry pass."""
    reader = FeatureReader(network, points)
    outputs = dry_pass(reader, network, shape)
    reader.remove()
    return {name: tuple(value.shape[1:]) for name, value in outputs.features.items()}


def dry_pass(reader: FeatureReader, network: Network, shape: ImageShape) -> Outputs:
    """The outputs for two black images, in eval mode; it leaves no trace in the network."""
    was_training = network.training
    network.eval()
    with torch.no_grad():
        outputs = reader(torch.zeros(2, shape.in_channels, *shape.image_size, device=network.mean.device))
    network.train(was_training)
    return outputs


def feature_points(network: Network, shape: ImageShape) -> dict[str, str]:
    """The names and places of the architecture's own points, or of those that a dry pass finds."""
    own: dict[str, str] | None = getattr(network.architecture, "feature_points", None)
    return _find_points(network, shape) if own is None else own


def choose_points(wanted: Sequence[str], available: Mapping[str, str], network: Network, key: str) -> dict[str, str]:
    """The points that `wanted` names, with their places: "stages" is every stage, "stage-1" the last one.

    "stages_preact" and "stage-1_preact" are the same before the activation, where the network names such points;
    "unpooled" is what is pooled to what the classifier is given, and that itself where nothing is.
    Raises UserError for a name that is neither a point nor a module of the network.
    """
    return {name: place for word in wanted for name, place in _points_of(word, available, network, key)}


def _points_of(word: str, available: Mapping[str, str], network: Network, key: str) -> Iterator[tuple[str, str]]:
    counted = STAGES.match(word)
    stages = _stages(available, counted[2] or "") if counted else []
    if counted and counted[1] == "s" and stages:
        yield from ((name, available[name]) for name in stages)
    elif counted and counted[1] != "s" and 1 <= -int(counted[1]) <= len(stages):
        name = stages[int(counted[1])]
        yield name, available[name]
    elif word == "unpooled" and word not in available and "pooled" in available:
        yield "pooled", available["pooled"]
    elif word in available:
        yield word, available[word]
    elif word and word.removesuffix(INPUT) in dict(network.architecture.named_modules()):
        yield word, word
    else:
        names = ", ".join(available)
        raise user_error(f"{key} has no point {word}", f"choose of {names}, or the path of one of its modules")


def _stages(available: Mapping[str, str], suffix: str) -> list[str]:
    """The names of the stages, or of those before the activation, which are the same where the network names none."""
    return [name for name in available if re.fullmatch(rf"stage\d+{suffix}", name)] or (
        _stages(available, "") if suffix else []
    )


def _find_points(network: Network, shape: ImageShape) -> dict[str, str]:
    """Points of a foreign architecture: the last map of each resolution, and what the last linear layer is given.

    Within a block that goes on to halve its maps, those that are not halved yet belong to no stage: the one before is
    complete without them.
    """
    architecture = network.architecture
    finished: list[tuple[str, Size, Size]] = []  # path, and size of the map before and after

    def record(path: str, inputs: Any, output: Any) -> None:
        finished.append((path, _map_size(inputs[0] if inputs else None, shape), _map_size(output, shape)))

    handles = [
        module.register_forward_hook(lambda _, inputs, output, path=path: record(path, inputs, output))
        for path, module in architecture.named_modules()
        if path
    ]
    dry_pass(FeatureReader(network, {}), network, shape)
    for handle in handles:
        handle.remove()
    halving = {
        path: before
        for path, before, after in finished
        if before and after and 2 * max(after) <= max(before) + 1 < 4 * max(after)
    }
    maps = {
        size: path
        for path, _, size in finished
        if size
        and min(size) > 1
        and not any(path.startswith(f"{block}.") and size == given for block, given in halving.items())
    }
    points = {f"stage{number}": path for number, path in enumerate(maps.values(), start=1)}
    linear = [path for path, module in architecture.named_modules() if isinstance(module, nn.Linear)]
    return {**points, "pooled": f"{linear[-1]}{INPUT}"} if linear else points


def _map_size(value: Any, shape: ImageShape) -> Size:
    """The (height, width) of a map, as high to wide as the images are; None for anything else, as tokens are."""
    if not isinstance(value, Tensor) or value.ndim != 4:
        return None
    (height, width), sides = value.shape[2:], shape.image_size
    is_alike = abs(height / sides[0] - width / sides[1]) * min(sides) < 1
    return (height, width) if is_alike else None
