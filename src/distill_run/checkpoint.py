"""Files of weights: plain containers, written atomically, read without running code that they might carry."""

import io
import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from distill_run.build import OWN_PACKAGES, Builder
from distill_run.data.source import ImageShape
from distill_run.errors import user_error
from distill_run.files import atomic_path
from distill_run.models.network import Network, build_network
from distill_run.models.pretrained import without_fetching

NETWORK_FORMAT = 1
NETWORK_KEYS = {"format", "name", "architecture", "in_channels", "image_size", "classes", "mean", "std", "weights"}

REPLACE = "copy it anew; if it lies in the store, remove its folder, and it is made again"

# What torch.load may raise for bytes that are no checkpoint.
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
    """Read what `save` wrote, onto the CPU; raises UserError for a file that is absent, damaged, or would run code."""
    if not path.is_file():
        raise user_error(f"there is no checkpoint {path}", "check the path")
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


def network_content(
    network: Network, node: Mapping[str, Any], name: str, shape: ImageShape, classes: tuple[str, ...]
) -> dict[str, Any]:
    """Weights and all that is needed to build the network again from this file alone."""
    return {
        "format": NETWORK_FORMAT,
        "name": name,
        "architecture": without_fetching(node),
        "in_channels": shape.in_channels,
        "image_size": list(shape.image_size),
        "classes": list(classes),
        "mean": network.mean.flatten().tolist(),
        "std": network.std.flatten().tolist(),
        "weights": {key: value.detach().cpu() for key, value in network.architecture.state_dict().items()},
    }


def is_network(content: Any) -> bool:
    """Whether a loaded file is a network that this program saved."""
    return isinstance(content, dict) and content.keys() >= NETWORK_KEYS


def load_network(
    path: str | Path, code_dir: str | Path | None = None, trusted_packages: Sequence[str] = OWN_PACKAGES
) -> Network:
    """The network in a run's student.pt or a store entry's weights.pt, in eval mode on the CPU.

    It takes images (N, C, H, W) in 0..1 and gives logits (N, K). `code_dir` is the folder of Python files where
    an architecture of your own is defined; `trusted_packages` are those that may define one otherwise. Raises
    UserError for a file that is not such a network.
    """
    path = Path(path)
    content = load(path)
    if not is_network(content):
        raise user_error(f"{path} holds no network of distill-run", "give a run's checkpoints/student.pt")
    network = rebuild(content, Builder(trusted_packages, Path(code_dir) if code_dir else None))
    return network.eval()


def rebuild(content: dict[str, Any], builder: Builder) -> Network:
    """The network that `network_content` described, with its weights; raises UserError for another format."""
    if content["format"] != NETWORK_FORMAT:
        raise user_error(
            f"the network file has format {content['format']}, this program reads {NETWORK_FORMAT}",
            "use the version of distill-run that wrote it",
        )
    shape = ImageShape(content["in_channels"], tuple(content["image_size"]), len(content["classes"]))
    node, mean, std = content["architecture"], content["mean"], content["std"]
    network = build_network(node, "architecture", shape, mean, std, 0, builder)
    load_weights(network, content["weights"], content["name"])
    return network


def load_weights(network: Network, weights: Mapping[str, Any], name: str) -> None:
    """Load an architecture's state dict; raises UserError that names the first tensors that do not fit."""
    expected = network.architecture.state_dict()
    if absent := expected.keys() - weights.keys():
        raise user_error(f"the checkpoint lacks {_some(absent)} of {name}", "choose the architecture it was made with")
    if surplus := weights.keys() - expected.keys():
        raise user_error(f"the checkpoint has {_some(surplus)}, {name} has not", "choose its architecture")
    for key, tensor in expected.items():
        if tuple(weights[key].shape) != tuple(tensor.shape):
            raise user_error(
                f"{key} has the shape {tuple(weights[key].shape)} in the checkpoint, {tuple(tensor.shape)} in {name}",
                "choose the architecture, the number of classes and the image size it was made with",
            )
    network.architecture.load_state_dict(weights)


def _some(keys: set[str]) -> str:
    shown = sorted(keys)
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")


def _first_line(error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0]
    return text if " " in text else f"{type(error).__name__} {text}".strip()
