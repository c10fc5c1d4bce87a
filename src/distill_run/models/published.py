"""What torchvision and timm publish beside their classifiers: weights, and the images that these were trained with."""

from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from distill_run.errors import RejectedValueError, user_error
from distill_run.models.fitting import Published, for_channels

MORE_THAN_LOGITS = ("googlenet", "inception_v3")


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


def published_images(teacher: Mapping[str, Any]) -> Published | None:
    """The images that the weights which a teacher starts from were published with; None where it has none.

    Raises UserError for a name that the library does not know.
    """
    return _published(teacher) if is_published(teacher) and teacher["pretrained"] else None


def published_normalisation(teacher: Mapping[str, Any], in_channels: int) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation of each channel that the published weights of a teacher were trained with.

    None for an architecture that is neither torchvision's nor timm's. Raises UserError as published_images does.
    """
    if not is_published(teacher):
        return None
    found = _published(teacher)
    return for_channels(found.mean, in_channels), for_channels(found.std, in_channels)


def _published(teacher: Mapping[str, Any]) -> Published:
    try:
        return PUBLISHED[teacher["_target_"]](teacher["name"])
    except RejectedValueError as error:
        raise error.under("teacher") from error


def published_by_torchvision(name: str) -> Published:
    """The images that the default weights of a classifier of torchvision were trained with; see check_name."""
    from torchvision import models

    check_name(name, models.list_models(module=models), "torchvision")
    weights = models.get_model_weights(name).DEFAULT
    preset = weights.transforms()
    (side,) = preset.crop_size
    (resized,) = preset.resize_size
    num_classes = len(weights.meta["categories"])
    return Published((side, side), tuple(preset.mean), tuple(preset.std), side / resized, num_classes)


def published_by_timm(name: str) -> Published:
    """The images that the weights which timm takes for a name were trained with; see check_name."""
    timm = timm_library()
    check_name(name, timm_names(), "timm")
    known = timm.get_pretrained_cfg(name)
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


def check_name(name: str, names: Collection[str], library: str) -> None:
    """Raise UserError for a name that is none of the library's classifiers, or one that gives more than logits."""
    if name in MORE_THAN_LOGITS and library == "torchvision":
        raise RejectedValueError("name", name, f"another name; torchvision's {name} gives more than logits in training")
    if name not in names:
        near = get_close_matches(str(name), names, n=3) or ["resnet18"]
        raise RejectedValueError("name", name, f"the name of a classifier of {library}, as in {', '.join(near)}")


def timm_names() -> set[str]:
    """The names of timm's classifiers, also those that choose the weights, as in resnet18.a1_in1k."""
    timm = timm_library()
    return {*timm.list_models(), *timm.list_pretrained()}


def timm_library() -> Any:
    """The package timm; raises UserError where it is not installed."""
    try:
        import timm
    except ImportError as error:
        raise user_error("this architecture needs the package timm", "pip install 'distill-run[models]'") from error
    return timm
