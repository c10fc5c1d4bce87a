"""Networks in files, with all that is needed to build them again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from distill_run.build import OWN_PACKAGES, Builder
from distill_run.data.source import ImageShape
from distill_run.errors import user_error
from distill_run.files import RunFiles
from distill_run.models.network import Network, build_network
from distill_run.models.published import without_fetching
from distill_run.tensor_files import REPLACE, load, load_weights, save
from distill_run.typed_json import decode, read_object

NETWORK_FORMAT = 1
NETWORK_KEYS = {"format", "name", "architecture", "in_channels", "image_size", "classes", "mean", "std", "weights"}

HUB_CONFIG, HUB_WEIGHTS = "config.json", "model.safetensors"  # the names that model hubs expect


def network_content(network: Network, node: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The content of a file from which `rebuild` builds the network again, and nothing else is needed."""
    assert network.image_size is not None
    return {
        "format": NETWORK_FORMAT,
        "name": name,
        "architecture": without_fetching(node),
        "in_channels": network.mean.numel(),
        "image_size": list(network.image_size),
        "crop_ratio": network.crop_ratio,
        "classes": list(network.classes),
        "mean": network.mean.flatten().tolist(),
        "std": network.std.flatten().tolist(),
        "weights": {key: value.detach().cpu() for key, value in network.architecture.state_dict().items()},
    }


def save_network(path: Path, network: Network, node: Mapping[str, Any], name: str) -> None:
    """Write a network with all that is needed to build it again from the file alone."""
    save(path, network_content(network, node, name))


def is_network(content: Any) -> bool:
    """Whether a loaded file is a network that this program saved."""
    return isinstance(content, dict) and content.keys() >= NETWORK_KEYS


def load_network(
    path: str | Path, code_dir: str | Path | None = None, trusted_packages: Sequence[str] = OWN_PACKAGES
) -> Network:
    """The network in a run's student.pt, a store entry's weights.pt or a model hub's folder, in eval mode on the CPU.

    It takes images (N, C, H, W) in 0..1 and returns logits (N, K); `network.classes` are the names of the K classes,
    `network.image_size` is the (height, width) that it was trained with, and `network.crop_ratio` the share of a
    photograph's centre that is resized to that. `code_dir` is the folder of Python files that
    defines an architecture of your own; other architectures must be in one of the `trusted_packages`. Raises UserError
    if the file does not hold such a network.
    """
    content = read_content(Path(path))
    network = rebuild(content, Builder(trusted_packages, Path(code_dir) if code_dir else None))
    return network.eval()


def read_content(path: Path) -> dict[str, Any]:
    """The content of a network's file, or of its folder for a model hub; raises UserError for anything else."""
    if path.suffix in (".onnx", ".pt2"):
        raise user_error(
            f"{path} is an export for other programs", "give a run's checkpoints/student.pt, or its folder"
        )
    if path.is_dir() and not (path / HUB_CONFIG).is_file():
        inside = [name for name in (RunFiles(path).student, RunFiles(path / "0").student) if name.is_file()]
        remedy = f"give {inside[0]}" if inside else "give a run's folder, its student.pt, or an export to safetensors"
        raise user_error(f"{path} is the folder of no network", remedy)
    if path.is_dir():
        content = _read_hub_config(path / HUB_CONFIG) | {"weights": load(path / HUB_WEIGHTS)}
    else:
        content = load(path)
    if not is_network(content):
        raise user_error(f"{path} holds no network of distill-run", "give a run's checkpoints/student.pt")
    return dict(content)


def _read_hub_config(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except ValueError as error:
        raise user_error(
            f"{path.parent} holds no network of distill-run: {error}", "give the folder of an export to safetensors"
        ) from error


def rebuild(content: dict[str, Any], builder: Builder) -> Network:
    """The network that `network_content` described, with its weights.

    Raises UserError for an unknown format, and for what no network can have.
    """
    if content["format"] != NETWORK_FORMAT:
        raise user_error(
            f"the network file has format {content['format']}, this program reads {NETWORK_FORMAT}",
            "use the version of distill-run that wrote it",
        )
    try:
        about = decode(_About, content)
        about.check(content["weights"])
    except ValueError as error:
        raise user_error(f"the network file is damaged: {error}", REPLACE) from error
    shape = ImageShape(about.in_channels, about.image_size, len(about.classes))
    network = build_network(about.architecture, "architecture", shape, about.mean, about.std, 0, builder)
    load_weights(network.architecture, content["weights"], about.name)
    network.classes, network.crop_ratio = about.classes, about.crop_ratio
    return network


@dataclass(frozen=True)
class _About:
    """What the file of a network holds beside its weights. A field with a default is absent in the first files."""

    name: str
    architecture: dict[str, Any]
    in_channels: int
    image_size: tuple[int, int]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_ratio: float = 1.0

    def check(self, weights: Any) -> None:
        """Raise ValueError for what decode cannot see."""
        if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
            raise ValueError("its weights are not tensors by their names")
        if len(self.image_size) != 2 or min(*self.image_size, self.in_channels, len(self.classes)) < 1:
            raise ValueError("its images or its classes are none")
        if (
            not len(self.mean) == len(self.std) == self.in_channels
            or min(self.std) <= 0
            or not 0 < self.crop_ratio <= 1
        ):
            raise ValueError("its normalisation does not fit its images")
        if not isinstance(self.architecture.get("_target_"), str):
            raise ValueError("its architecture has no name")


def load_given(network: Network, given: Mapping[str, Tensor]) -> None:
    """Load weights for a part of an architecture; the rest keeps its values.

    The keys are those of the architecture's state dict. Raises UserError that names a key which the architecture does
    not have, or whose tensor has another shape; then nothing is loaded.
    """
    expected = network.architecture.state_dict()
    for key, tensor in given.items():
        if key not in expected:
            raise user_error(f"the network has no weights {key}", "give weights by the keys of its state_dict()")
        if tensor.shape != expected[key].shape:
            raise user_error(
                f"{key} is given with the shape {tuple(tensor.shape)}, the network needs {tuple(expected[key].shape)}",
                "give weights of the shape that they have in its state_dict()",
            )
    network.architecture.load_state_dict(given, strict=False)
