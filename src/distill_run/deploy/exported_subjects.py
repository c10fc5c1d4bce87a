"""Exported networks that can be measured: an ONNX file in onnxruntime, a file of torch.export in PyTorch."""

import importlib.util
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from distill_run.engine.speed import Place, TorchSubject
from distill_run.engine.timing import Call
from distill_run.errors import first_line, user_error

METADATA = "metadata.json"  # in a file of torch.export
REMEDY = "give a file that distill-export wrote"


@dataclass(frozen=True)
class OnnxSubject:
    """An ONNX file; its `input` has random pixels of the images that it takes."""

    path: Path
    input: TorchSubject

    @classmethod
    def read(cls, path: Path) -> Self:
        """The network in a file; raises UserError where it, or what reads it, is not there."""
        if missing := [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]:
            raise user_error(f"{path} needs {' and '.join(missing)}", "write pip install 'distill-run[export]'")
        try:
            metadata = _session(path, threads=1).get_modelmeta().custom_metadata_map
        except Exception as error:  # onnxruntime's own have no other base
            raise user_error(f"{path} is no ONNX file that can be run: {first_line(error)}", REMEDY) from error
        return cls(path, torch_subject(torch.nn.Identity(), metadata, path))

    @property
    def num_parameters(self) -> int:
        """How many numbers the file stores in tensors; a batch norm that was merged into a convolution has none."""
        import onnx

        stored = onnx.load(self.path, load_external_data=False).graph.initializer
        return sum(math.prod(each.dims) for each in stored if each.dims and each.data_type != onnx.TensorProto.INT64)

    def runs_on(self, device: str) -> bool:
        """See Subject."""
        return device == "cpu"

    def start(self, place: Place, num_images: int) -> Call:
        """See Subject."""
        assert place.threads is not None
        session, images = _session(self.path, place.threads), self.input.images(num_images).numpy()
        return lambda: session.run(None, {"images": images})

    def memory_bytes(self, place: Place, num_images: int) -> int | None:  # noqa: ARG002
        """None: onnxruntime does not tell."""
        return None


def _session(path: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Its threads would go on spinning, for a while, when it is another network's turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def read_exported(path: Path) -> TorchSubject:
    """The network in a file that torch.export.save wrote; raises UserError where it cannot be read."""
    extra = {METADATA: ""}
    try:
        zipfile.ZipFile(path).close()  # torch logs a traceback of what is no zip file
        network = torch.export.load(path, extra_files=extra).module()
        metadata = json.loads(extra[METADATA] or "{}")
    except Exception as error:  # whatever a zip file, a pickle or an unknown operator raises
        raise user_error(f"{path} is no exported program: {first_line(error)}", REMEDY) from error
    return torch_subject(network, metadata, path)


def torch_subject(network: torch.nn.Module, metadata: Mapping[str, Any], path: Path) -> TorchSubject:
    """A network with the images that the file's metadata describe; raises UserError where they do not."""
    try:
        size = metadata["image_size"]
        height, width = json.loads(size) if isinstance(size, str) else size
        shape = (int(metadata["channels"]), int(height), int(width))
        is_uint8 = metadata["input"] == "uint8"
    except (KeyError, TypeError, ValueError) as error:
        raise user_error(f"the metadata of {path} do not say which images it takes", REMEDY) from error
    return TorchSubject(network, shape, is_uint8, is_movable=False)
