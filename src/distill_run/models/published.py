"""What torchvision and timm publish beside their classifiers: weights, and the images that these were trained with."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distill_run.errors import user_error
from distill_run.models.fitting import Published, for_channels


def without_fetching(node: Mapping[str, Any]) -> dict[str, Any]:
    """The same YAML, but it builds the network without fetching published weights; for a file that holds the weights.

    `input_size` then holds the size that the published weights need. A component within the node is treated likewise.
    """
    settled = dict(node)
    for key, value in node.items():
        if isinstance(value, Mapping):
            settled[key] = without_fetching(value)
    published = PUBLISHED.get(settled.get("_target_", ""))
    if published is not None and settled["pretrained"]:
        settled["pretrained"] = False
        if settled["input_size"] is None:
            settled["input_size"] = list(published(settled["name"]).input_size)
    return settled


def weight_files(node: Mapping[str, Any]) -> list[Path]:
    """The files of weights that an architecture, or a component within it, starts from."""
    inner = [path for value in node.values() if isinstance(value, Mapping) for path in weight_files(value)]
    own = node.get("pretrained") if is_published(node) else None
    return [Path(own), *inner] if isinstance(own, str) else inner


def published_classes(node: Mapping[str, Any]) -> int:
    """How many outputs the published weights of an architecture of torchvision or timm have; 0: no head."""
    return PUBLISHED[node["_target_"]](node["name"]).num_classes


def is_published(node: Mapping[str, Any]) -> bool:
    """Whether an architecture is torchvision's or timm's, which publish weights."""
    return node.get("_target_") in PUBLISHED


def published_images(node: Mapping[str, Any]) -> Published | None:
    """The images that the weights which an architecture starts from were published with; None where it has none."""
    return PUBLISHED[node["_target_"]](node["name"]) if is_published(node) and node["pretrained"] else None


def published_normalisation(node: Mapping[str, Any], in_channels: int) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation of each channel that the published weights of an architecture were trained with.

    None for an architecture that is neither torchvision's nor timm's.
    """
    published = PUBLISHED.get(node["_target_"])
    if published is None:
        return None
    found = published(node["name"])
    return for_channels(found.mean, in_channels), for_channels(found.std, in_channels)


def published_by_torchvision(name: str) -> Published:
    """The images that the default weights of a classifier of torchvision were trained with."""
    from torchvision import models

    weights = models.get_model_weights(name).DEFAULT
    preset = weights.transforms()
    (side,) = preset.crop_size
    (resized,) = preset.resize_size
    num_classes = len(weights.meta["categories"])
    return Published((side, side), tuple(preset.mean), tuple(preset.std), side / resized, num_classes)


def published_by_timm(name: str) -> Published:
    """The images that the weights which timm takes for a name were trained with."""
    known = timm_library().get_pretrained_cfg(name)
    _, height, width = known.input_size
    size, mean, std = (height, width), tuple(known.mean), tuple(known.std)
    return Published(size, mean, std, known.crop_pct, known.num_classes)


PUBLISHED: dict[str, Callable[[str], Published]] = {
    "distill_run.models.pretrained.torchvision_model": published_by_torchvision,
    "distill_run.models.pretrained.timm_model": published_by_timm,
}


def network_name(option: str, node: Mapping[str, Any]) -> str:
    """What people call the network of an option of conf/model: its name in torchvision or timm, or else the option."""
    return str(node["name"]) if node.get("_target_") in PUBLISHED else option


def timm_library() -> Any:
    """The package timm; raises UserError where it is not installed."""
    try:
        import timm
    except ImportError as error:
        raise user_error("this architecture needs the package timm", "pip install 'distill-run[models]'") from error
    return timm
