"""The files of an exported network: how each format is written, and how it is run to compare it."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import torch as safetensors
from torch import Tensor

from distill_run.build import Builder
from distill_run.checkpoint import HUB_CONFIG, HUB_WEIGHTS, read_content, rebuild
from distill_run.deploy.checking import Run
from distill_run.deploy.deployable import LEVELS, Deployable
from distill_run.deploy.onnx_files import OnnxModel, OnnxRunner, quietly, to_onnx, trace, write_int8
from distill_run.files import write_bytes, write_json, write_text
from distill_run.tensor_files import load, save

ENDINGS = {
    "onnx": ".onnx",
    "onnx_int8": "_int8.onnx",
    "torch_export": ".pt2",
    "safetensors": "_hub",
    "state_dict": "_state_dict.pt",
}  # of the names of files; that of safetensors is a folder


@dataclass(frozen=True)
class Exported:
    """A network to export: the content of its file, what builds it, how it is run, and what the files say of it.

    `card` is the text of README.md in a model hub's folder.
    """

    content: Mapping[str, Any]
    builder: Builder
    deployable: Deployable
    facts: Mapping[str, Any]
    card: str

    @cached_property
    def program(self) -> torch.export.ExportedProgram:
        """The traced graph, which two formats share."""
        return trace(self.deployable, self.content["in_channels"])

    @cached_property
    def onnx(self) -> OnnxModel:
        """The ONNX model, with and without int8."""
        return to_onnx(self.program, self.facts)


def companions(path: Path, file_format: str) -> list[Path]:
    """The files that an export at `path` consists of."""
    return [path, path.with_suffix(".json")] if file_format == "state_dict" else [path]


def write(exported: Exported, file_format: str, path: Path, calibration: Tensor | None) -> None:
    """Write one format; `calibration` are the images for int8, in the form that the file takes."""
    if file_format == "onnx":
        write_bytes(path, exported.onnx.proto.SerializeToString())
    elif file_format == "onnx_int8":
        assert calibration is not None
        write_int8(exported.onnx, calibration, path)
    elif file_format == "torch_export":
        _write_program(exported, path)
    elif file_format == "safetensors":
        _write_hub(exported, path)
    else:
        save(path, exported.content["weights"])
        write_json(path.with_suffix(".json"), _description(exported))


def open_run(exported: Exported, file_format: str, path: Path) -> Run:
    """What runs a written file on images in the form that it takes."""
    if file_format in ("onnx", "onnx_int8"):
        return OnnxRunner(path)
    if file_format == "torch_export":
        with quietly():
            run: Run = torch.export.load(path).module()
        return run
    content = read_content(path) if file_format == "safetensors" else {**exported.content, "weights": load(path)}
    network = rebuild(content, exported.builder).eval()
    return Deployable(network, takes_bytes=exported.deployable.takes_bytes)


def as_taken(images: Tensor, deployable: Deployable) -> Tensor:
    """Images of bytes in the form that the exported network takes."""
    return images if deployable.takes_bytes else images.float() / LEVELS


def _write_program(exported: Exported, path: Path) -> None:
    for node in exported.program.graph.nodes:
        node.meta.pop("stack_trace", None)  # the lines of this program's source, with their places on this machine
    buffer = io.BytesIO()  # torch.export.save into a file hides why it could not be written
    with quietly():
        torch.export.save(exported.program, buffer, extra_files={"metadata.json": json.dumps(exported.facts)})
    write_bytes(path, buffer.getbuffer())


def _write_hub(exported: Exported, path: Path) -> None:
    path.mkdir()
    weights = {key: value.contiguous().clone() for key, value in exported.content["weights"].items()}
    write_bytes(path / HUB_WEIGHTS, safetensors.save(weights, metadata={"format": "pt"}))
    write_json(path / HUB_CONFIG, _description(exported))
    write_card(path, exported.card)


def write_card(hub: Path, card: str) -> None:
    """Write a model card into a hub's folder, whose network is loaded by the name of the folder."""
    write_text(hub / "README.md", card.replace('load_network("student.pt")', f'load_network("{hub.name}")'))


def _description(exported: Exported) -> dict[str, Any]:
    """All of a network but its weights."""
    about = {key: value for key, value in exported.content.items() if key != "weights"}
    return {**about, **{key: exported.facts[key] for key in ("source_sha256", "command", "program")}}
