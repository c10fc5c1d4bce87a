"""Files of tensors: plain containers, written whole or not at all, and read without running any code in them."""

import argparse
import io
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from distill_run.errors import UserError, user_error
from distill_run.files import needing, write_bytes

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
    SafetensorError,
)
# What checkpoints of other programs hold beside tensors: a command line's options, an accuracy. Neither runs code.
HARMLESS: list[Any] = [
    argparse.Namespace,
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    np.dtype,
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64")),
]
ZIP = b"PK\x03\x04"  # how a file of `save` begins
FOLDER = 0x10  # the attribute of a part of an archive that is a folder
MOST_NAMED = 5  # tensors of each kind, in an error


def save(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain containers, whole or not at all."""
    buffer = io.BytesIO()  # torch.save into a file hides why it could not be written
    torch.save(content, buffer)
    write_bytes(path, buffer.getbuffer())


def save_arrays(path: Path, **arrays: NDArray[Any]) -> None:
    """Write arrays by their names into an .npz file; to be used where a file may be half written."""
    with needing(sum(array.nbytes for array in arrays.values())), path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # NumPy's stub takes them for its option


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array into an .npy file; to be used where a file may be half written."""
    with needing(array.nbytes), path.open("wb") as file:
        # A file that NumPy knows it writes by itself, and does not say why it could not be written.
        np.save(_Writer(file.write), array)


class _Writer(NamedTuple):
    """What NumPy does not know for a file."""

    write: Callable[[bytes], int]


def load(path: Path) -> Any:
    """The content of a file of `save` or of safetensors, on the CPU.

    Raises UserError if it is absent, damaged, or would run code.
    """
    check_exists(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        _check_bytes(path)
        harmless = torch.serialization.safe_globals(HARMLESS)
        # torch remarks on foreign pickles.
        with harmless, warnings.catch_warnings(action="ignore", category=UserWarning):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused(path, str(error)) from error
    except DAMAGE as error:
        if "TorchScript" in str(error):
            raise user_error(
                f"{path} is a TorchScript archive, which holds code",
                f"save its tensors alone: torch.save(torch.jit.load({str(path)!r}).state_dict(), 'weights.pt')",
            ) from error
        raise user_error(f"{path} is not a readable checkpoint: {_first_line(error)}", REPLACE) from error


def _check_bytes(path: Path) -> None:
    """Raise BadZipFile for an archive of `save` with a byte that has changed: torch.load does not compare checksums.

    What takes more memory than the file has bytes is refused too: `torch.save` compresses nothing.
    """
    with path.open("rb") as file:
        if file.read(len(ZIP)) != ZIP:
            return
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        if any(part.filename.endswith("/constants.pkl") for part in parts):
            return  # a TorchScript archive, which torch.load refuses unread
        is_stored = all(part.compress_type == zipfile.ZIP_STORED for part in parts)
        if not is_stored or sum(part.file_size for part in parts) > path.stat().st_size:
            raise zipfile.BadZipFile("its parts are compressed, which could fill the memory")
        if any(part.external_attr & FOLDER for part in parts):  # torch.load leaves the tensor of such a part empty
            raise zipfile.BadZipFile("one of its parts is a folder")
        if (damaged := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"its part {damaged} has changed since it was written")


def check_exists(path: Path) -> None:
    """Raise UserError where there is no such file."""
    if not path.is_file():
        raise user_error(f"there is no checkpoint {path}", "check the path")


def load_weights(architecture: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    """Load the whole state dict of an architecture, in the precision of its own tensors.

    Raises UserError that names the tensors that do not fit; then nothing is loaded.
    """
    expected = architecture.state_dict()
    absent = [key for key in expected if key not in weights]
    surplus = [key for key in weights if key not in expected]
    others = [
        f"{key} {tuple(weights[key].shape)} instead of {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in weights and weights[key].shape != tensor.shape
    ]
    misfits = {"it lacks": absent, "it has in surplus": surplus, "it has with another shape": others}
    if any(misfits.values()):
        told = "; ".join(f"{what} {some_of(keys)}" for what, keys in misfits.items() if keys)
        remedy = "architecture" if absent or surplus else "architecture, the number of classes and the image size"
        raise user_error(f"the checkpoint does not fit {name}: {told}", f"choose the {remedy} it was made with")
    architecture.load_state_dict(weights)


def _refused(path: Path, reason: str) -> UserError:
    """The error for a pickle with more than plain containers and tensors; torch names the first object."""
    if found := re.search(r"GLOBAL (\S+)", reason):
        return user_error(
            f"{path} holds a Python object ({found[1]}), which could run code when loaded: refused",
            f"if you trust it, save its tensors alone: torch.save(torch.load({str(path)!r}, weights_only=False)"
            "['state_dict'], 'weights.pt'), or .state_dict() instead of ['state_dict'] if it is a whole network",
        )
    return user_error(
        f"{path} is damaged, or holds Python objects that could run code when loaded: refused",
        "save tensors alone, as in torch.save(network.state_dict(), path)",
    )


def some_of(keys: Sequence[str], separator: str = ", ") -> str:
    """The first of several names, and how many more there are."""
    return separator.join(keys[:MOST_NAMED]) + (f" and {len(keys) - MOST_NAMED} more" if len(keys) > MOST_NAMED else "")


def _first_line(error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0]
    return text if " " in text else f"{type(error).__name__} {text}".strip()
