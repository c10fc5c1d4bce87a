"""ONNX: writing a network, writing it with 8-bit numbers, and running a file."""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from distill_run.deploy.deployable import Deployable
from distill_run.errors import first_line, user_error

CALIBRATION_BATCH = 64  # images
NETWORK = "distill_run.models.network.Network"  # in the place of a node: what comes after the preprocessing


class OnnxModel(NamedTuple):
    """A model of the package onnx, and the names of its nodes that are the network's: what int8 may change."""

    proto: Any
    network_nodes: list[str]


def trace(deployable: Deployable, channels: int) -> torch.export.ExportedProgram:
    """The graph of a network with its preprocessing, for any number and size of images.

    Raises UserError where its code cannot be followed.
    """
    height, width = deployable.image_size
    dtype = torch.uint8 if deployable.takes_bytes else torch.float32
    images = torch.zeros(2, channels, height + 3, width + 5, dtype=dtype)  # sizes that differ from one another
    sizes = {0: torch.export.Dim("N"), 2: torch.export.Dim("H"), 3: torch.export.Dim("W")}
    with quietly(), torch.no_grad():
        try:
            return torch.export.export(deployable, (images,), dynamic_shapes={"images": sizes})
        except Exception as error:  # torch raises anything, also what the code of a user's own network raises
            raise user_error(
                f"the network cannot be traced by torch.export: {first_line(error)}",
                "choose a format that needs no trace: safetensors or state_dict",
            ) from error


def to_onnx(program: torch.export.ExportedProgram, facts: Mapping[str, Any]) -> OnnxModel:
    """The graph as an ONNX model with the `facts` in its metadata; raises UserError where ONNX lacks an operator."""
    with quietly():
        try:
            exported = torch.onnx.export(
                program, dynamo=True, verbose=False, input_names=["images"], output_names=["logits"]
            )
        except torch.onnx.OnnxExporterError as error:
            raise user_error(
                f"the network cannot be written as ONNX: {first_line(error)}", "choose another format, as torch_export"
            ) from error
    assert exported is not None
    proto = exported.model_proto
    nodes = proto.graph.node
    network_nodes = [node.name for node in nodes if any(NETWORK in each.value for each in node.metadata_props)]
    _name_sizes(proto.graph)
    for node in nodes:
        del node.metadata_props[:]  # the lines of this program's source, which take more room than small weights
    for key, value in facts.items():
        proto.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    return OnnxModel(proto, network_nodes)


def _name_sizes(graph: Any) -> None:
    """Call the sizes of the images N, H and W; the exporter calls them s14 and the like."""
    sizes = graph.input[0].type.tensor_type.shape.dim
    names = {sizes[axis].dim_param: name for axis, name in {0: "N", 2: "H", 3: "W"}.items()}
    for value in (*graph.input, *graph.output, *graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param in names:
                size.dim_param = names[size.dim_param]


def write_int8(model: OnnxModel, images: Tensor, path: Path) -> None:
    """Write an ONNX model whose network computes with 8-bit weights and activations; the preprocessing stays in float.

    The weights have a scale for each channel. The ranges of the activations are those of the `images` (N, C, H, W), in
    the form that the model takes.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(torch.split(images, CALIBRATION_BATCH))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch.numpy()}

    with quietly():
        quantize_static(
            model.proto,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=model.network_nodes,
        )


class OnnxRunner:
    """Runs an ONNX file on the CPU: images (N, C, H, W) to logits (N, K)."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors alone
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def __call__(self, images: Tensor) -> Tensor:
        """See the class."""
        (logits,) = self.session.run(None, {"images": images.numpy()})
        return torch.from_numpy(logits)


@contextmanager
def quietly() -> Iterator[None]:
    """Within the block, the exporters say nothing on the terminal but their errors."""
    before, handlers = logging.root.manager.disable, list(logging.root.handlers)
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)
        logging.root.handlers = handlers  # a first logging.warning(...) gives the root a handler of its own
