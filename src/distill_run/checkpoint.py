"""Files of weights: plain containers, written whole or not at all, and read without running any code in them."""

import io
import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill_run.build import OWN_PACKAGES, Builder
from distill_run.data.source import ImageShape
from distill_run.errors import user_error
from distill_run.files import atomic_path
from distill_run.models.network import Network, build_network
from distill_run.models.pretrained import without_fetching

NETWORK_FORMAT = 1
NETWORK_KEYS = {"format", "name", "architecture", "in_channels", "image_size", "classes", "mean", "std", "weights"}

REPLACE = "copy it again; if it is in the store, remove its folder, and it will be made again"

# What torch.load may raise for a file that is not a checkpoint.
DAMAGE = (
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OSError,
    struct.error,
    zipfile.BadZipFile,
)


def save(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain containers, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()  # torch.save into a file hides why it could not be written
    torch.save(content, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load(path: Path) -> Any:
    """The content of a file of `save`, on the CPU; raises UserError if it is absent, damaged, or would run code."""
    check_exists(path)
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # torch's remarks on foreign pickles
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise user_error(
            f"{path} is damaged, or holds Python objects that could run code when loaded: refused",
            "save tensors alone, as in torch.save(network.state_dict(), path)",
        ) from error
    except DAMAGE as error:
        raise user_error(f"{path} is not a readable checkpoint: {_first_line(error)}", REPLACE) from error


def check_exists(path: Path) -> None:
    """Raise UserError where there is no such file."""
    if not path.is_file():
        raise user_error(f"there is no checkpoint {path}", "check the path")


def network_content(network: Network, node: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The content of a file from which `rebuild` builds the network again, and nothing else is needed."""
    assert network.image_size is not None
    return {
        "format": NETWORK_FORMAT,
        "name": name,
        "architecture": without_fetching(node),
        "in_channels": network.mean.numel(),
        "image_size": list(network.image_size),
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
    """The network in a run's student.pt or a store entry's weights.pt, in eval mode on the CPU.

    It takes images (N, C, H, W) in 0..1 and returns logits (N, K); `network.classes` are the names of the K classes and
    `network.image_size` is the (height, width) that it was trained with. `code_dir` is the folder of Python files that
    defines an architecture of your own; other architectures must be in one of the `trusted_packages`. Raises UserError
    if the file does not hold such a network.
    """
    path = Path(path)
    content = load(path)
    if not is_network(content):
        raise user_error(f"{path} holds no network of distill-run", "give a run's checkpoints/student.pt")
    network = rebuild(content, Builder(trusted_packages, Path(code_dir) if code_dir else None))
    return network.eval()


def rebuild(content: dict[str, Any], builder: Builder) -> Network:
    """The network that `network_content` described, with its weights; raises UserError for an unknown format."""
    if content["format"] != NETWORK_FORMAT:
        raise user_error(
            f"the network file has format {content['format']}, this program reads {NETWORK_FORMAT}",
            "use the version of distill-run that wrote it",
        )
    shape = ImageShape(content["in_channels"], tuple(content["image_size"]), len(content["classes"]))
    node, mean, std = content["architecture"], content["mean"], content["std"]
    network = build_network(node, "architecture", shape, mean, std, 0, builder)
    load_weights(network, content["weights"], content["name"])
    network.classes = tuple(content["classes"])
    return network


def load_weights(network: Network, weights: Mapping[str, Tensor], name: str) -> None:
    """Load the whole state dict of an architecture; raises UserError that names the first tensors that do not fit."""
    expected = network.architecture.state_dict()
    if absent := expected.keys() - weights.keys():
        raise user_error(f"the checkpoint lacks {_some(absent)} of {name}", "choose the architecture it was made with")
    if surplus := weights.keys() - expected.keys():
        raise user_error(
            f"the checkpoint has {_some(surplus)}, which {name} does not have",
            "choose the architecture it was made with",
        )
    for key, tensor in expected.items():
        if weights[key].shape != tensor.shape:
            raise user_error(
                f"{key} has the shape {tuple(weights[key].shape)} in the checkpoint, {tuple(tensor.shape)} in {name}",
                "choose the architecture, the number of classes and the image size it was made with",
            )
    network.architecture.load_state_dict(weights)


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


def _some(keys: set[str]) -> str:
    shown = sorted(keys)
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")


def _first_line(error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0]
    return text if " " in text else f"{type(error).__name__} {text}".strip()
