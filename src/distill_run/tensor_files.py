"""Files of tensors: plain containers, written whole or not at all, and read without running any code in them."""

import io
import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill_run.errors import user_error
from distill_run.files import atomic_path

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


def load_weights(architecture: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    """Load the whole state dict of an architecture; raises UserError that names the first tensors that do not fit."""
    expected = architecture.state_dict()
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
    architecture.load_state_dict(weights)


def plain_state_dict(content: object, given: str) -> dict[str, Tensor]:
    """The tensors of a state dict, also where others wrapped it; raises UserError for anything else.

    `given` is the key with its value, as in teacher_checkpoint=my_weights.pt.
    """
    if isinstance(content, dict):
        for wrapper in ("state_dict", "model"):
            content = content.get(wrapper, content) if isinstance(content, dict) else content
    if isinstance(content, dict) and "architecture" in content:
        raise user_error(f"{given} holds a network of distill-run", "write teacher_checkpoint= with that file")
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise user_error(
            f"{given} is neither a network of distill-run nor a state dict",
            "save one with torch.save(network.state_dict(), path)",
        )
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _some(keys: set[str]) -> str:
    shown = sorted(keys)
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")


def _first_line(error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0]
    return text if " " in text else f"{type(error).__name__} {text}".strip()
