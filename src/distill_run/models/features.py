"""Features: activations of a network at named points, read by forward hooks, which every module has.

A point has a name and a place. The place "stages.1" is the output of the module with that path, and "head:input" is
the input of the module `head`. An architecture names its points in `feature_points`; if it does not, a dry pass finds
them. The path of any module may serve as a name, too.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from distill_run.data.source import ImageShape
from distill_run.errors import user_error
from distill_run.models.network import Network, in_eval_mode
from distill_run.models.outputs import Outputs

INPUT = ":input"
Size = tuple[int, int] | None
# All stages, or one of them counted from the last, which is -1; after the activation or before it.
STAGES = re.compile(r"(?:(?P<all>stages)|stage-(?P<from_the_end>\d+))(?P<preact>_preact)?")


def stage_points(places: Sequence[str], preact: Sequence[str] = ()) -> dict[str, str]:
    """The points `stage1`, `stage2`, ... at `places`, and `stage1_preact`, ... (before the activation) at `preact`."""
    points = {f"stage{number}": place for number, place in enumerate(places, start=1)}
    points.update({f"stage{number}_preact": place for number, place in enumerate(preact, start=1)})
    return points


class FeatureReader:
    """Computes a network's logits together with the features at `points`, which map names to places.

    `forward` computes the network in place of the network itself, for example as a compiled function. The hooks are
    active only during a call, and nothing is kept after it.
    """

    def __init__(
        self, network: Network, points: Mapping[str, str], forward: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self.forward = network if forward is None else forward
        self.points = points
        self.values: dict[str, tuple[Tensor, int]] = {}
        self.is_reading = False
        self.handles = [self._hook(network, name, place) for name, place in points.items()]

    def _hook(self, network: Network, name: str, place: str) -> RemovableHandle:
        module = network.architecture.get_submodule(place.removesuffix(INPUT))
        if place.endswith(INPUT):
            return module.register_forward_pre_hook(lambda _, inputs: self._keep(name, inputs[0]))
        return module.register_forward_hook(lambda _, __, output: self._keep(name, output))

    def __enter__(self) -> Self:
        """The reader itself; the hooks are removed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove the hooks from the network."""
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
                    "choose a module whose output is a tensor, or whose input is one (PATH:input)",
                )
            self.values[name] = value, _num_writes(value)

    def _take(self, name: str) -> Tensor:
        """The features at a point; raises UserError if there are none or the network has overwritten them since."""
        if name not in self.values:
            raise user_error(
                f"the features at {self.points[name]} are not computed when the network is asked for logits",
                "choose a module that the forward pass calls",
            )
        value, num_writes = self.values[name]
        if _num_writes(value) != num_writes:
            raise user_error(
                f"the features at {self.points[name]} are overwritten in place by the layer that follows",
                "choose the point after that layer, or build it with inplace=False",
            )
        return value.float()


def _num_writes(value: Tensor) -> int:
    """How often a tensor was written to in place.

    Torch has no public name for this counter, by which autograd finds overwritten tensors. To compare with a copy would
    cost the memory and time of one in every step.
    """
    return value._version


def read_shapes(network: Network, points: Mapping[str, str], shape: ImageShape) -> dict[str, tuple[int, ...]]:
    """The shape of one image's features at each point, (C, H, W) or (C,), found by a dry pass."""
    with FeatureReader(network, points) as reader:
        outputs = dry_pass(reader, network, shape)
    return {name: tuple(value.shape[1:]) for name, value in outputs.features.items()}


def dry_pass(reader: FeatureReader, network: Network, shape: ImageShape) -> Outputs:
    """The outputs for two black images, in eval mode; nothing in the network changes."""
    images = torch.zeros(2, shape.in_channels, *shape.image_size, device=network.mean.device)
    with in_eval_mode(network), torch.no_grad():
        return reader(images)


def feature_points(network: Network, shape: ImageShape) -> dict[str, str]:
    """The points that the architecture names, or those that a dry pass finds, with their places."""
    own: dict[str, str] | None = getattr(network.architecture, "feature_points", None)
    return _find_points(network, shape) if own is None else own


def choose_points(wanted: Sequence[str], available: Mapping[str, str], network: Network, key: str) -> dict[str, str]:
    """The points that the words in `wanted` name, with their places.

    A word is one of `available`, the path of a module, or one of these: "stages" is every stage, and "stage-1" the
    last stage; "stages_preact" and "stage-1_preact" are the same before the activation, if the network has such points;
    "unpooled" is the map that is pooled for the classifier, or the classifier's input if nothing is pooled.
    Raises UserError for any other word.
    """
    chosen: dict[str, str] = {}
    for word in wanted:
        points = _points_of(word, available, network)
        if not points:
            names = ", ".join(available)
            remedy = f"choose from {names}, the path of one of its modules, or another network"
            raise user_error(f"{key} has no point {word}", remedy)
        chosen.update(points)
    return chosen


def _points_of(word: str, available: Mapping[str, str], network: Network) -> dict[str, str]:
    """The points that a word names, with their places; empty if it names none."""
    stages = _stages_of(word, available)
    if stages:
        return {name: available[name] for name in stages}
    if word in available:
        return {word: available[word]}
    if word == "unpooled" and "pooled" in available:
        return {"pooled": available["pooled"]}
    paths = dict(network.architecture.named_modules())
    if word and word.removesuffix(INPUT) in paths:
        return {word: word}
    return {}


def _stages_of(word: str, available: Mapping[str, str]) -> list[str]:
    """The names of the stages that "stages" or "stage-N" means; empty for any other word, or without such a stage."""
    match = STAGES.fullmatch(word)
    if match is None:
        return []
    suffix = match["preact"] or ""
    stages = [name for name in available if re.fullmatch(rf"stage\d+{suffix}", name)]
    if not stages:  # a network without points before the activations: take those after them
        stages = [name for name in available if re.fullmatch(r"stage\d+", name)]
    if match["all"]:
        return stages
    from_the_end = int(match["from_the_end"])
    return [stages[-from_the_end]] if 1 <= from_the_end <= len(stages) else []


class Call(NamedTuple):
    """A module that a forward pass has called, with the (height, width) of its map before and after."""

    path: str
    before: Size
    after: Size


def _find_points(network: Network, shape: ImageShape) -> dict[str, str]:
    """The points of an architecture that names none: the last map of each size, and the last linear layer's input.

    A block that halves its maps still holds some of the old resolution. They belong to no stage: the stage before is
    complete without them.
    """
    calls = _calls_of(network, shape)
    sizes_in_halving_blocks = {call.path: call.before for call in calls if _halves(call)}
    last_of_size: dict[tuple[int, int], str] = {}
    for call in calls:
        if call.after is None or min(call.after) == 1:
            continue
        is_not_halved_yet = any(
            call.path.startswith(f"{block}.") and call.after == before
            for block, before in sizes_in_halving_blocks.items()
        )
        if not is_not_halved_yet:
            last_of_size[call.after] = call.path
    points = stage_points(list(last_of_size.values()))
    linear = [path for path, module in network.architecture.named_modules() if isinstance(module, nn.Linear)]
    if linear:
        points["pooled"] = f"{linear[-1]}{INPUT}"
    return points


def _calls_of(network: Network, shape: ImageShape) -> list[Call]:
    """The calls of all modules but the architecture itself, in the order in which they end in a dry pass."""
    calls: list[Call] = []

    def record(path: str, inputs: Any, output: Any) -> None:
        given = inputs[0] if inputs else None
        calls.append(Call(path, _map_size(given, shape), _map_size(output, shape)))

    handles = [
        module.register_forward_hook(lambda _, inputs, output, path=path: record(path, inputs, output))
        for path, module in network.architecture.named_modules()
        if path
    ]
    try:
        dry_pass(FeatureReader(network, {}), network, shape)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _halves(call: Call) -> bool:
    """Whether the larger side of the map after the call is half of that before; odd sizes may be rounded up."""
    if call.before is None or call.after is None:
        return False
    before, after = max(call.before), max(call.after)
    return 2 * after <= before + 1 < 4 * after


def _map_size(value: Any, shape: ImageShape) -> Size:
    """The (height, width) of a map in the proportions of the images; None for anything else, such as tokens."""
    if not isinstance(value, Tensor) or value.ndim != 4:
        return None
    (height, width), sides = value.shape[2:], shape.image_size
    is_alike = abs(height / sides[0] - width / sides[1]) * min(sides) < 1
    return (height, width) if is_alike else None
