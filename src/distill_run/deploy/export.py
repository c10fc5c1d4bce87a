"""Exporting the student of a run that has ended, or any file of a network."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from distill_run.build import Builder
from distill_run.config.export_formats import LOGITS_TOLERANCE, check_export
from distill_run.deploy.export_files import ExportRequest, export_network
from distill_run.deploy.image_files import read_images
from distill_run.deploy.shipped import Shipped, open_shipped
from distill_run.deploy.student_export import card, export_from_feed, with_int8
from distill_run.errors import user_error
from distill_run.files import RunFiles, told_of_no_room
from distill_run.report.figures import ExportReport


class Exports(NamedTuple):
    """The folder of exported files, and how each of them differs from the network."""

    folder: Path
    reports: list[ExportReport]


def export(
    place: str | Path,
    formats: str | Sequence[str],
    output: str | Path | None = None,
    *,
    int8: bool = False,
    takes_bytes: bool = True,
    images: str | Path | None = None,
    logits_tolerance: float = LOGITS_TOLERANCE,
    overwrites: bool = False,
    code_dir: str | Path | None = None,
    trusts: bool = False,
    command: str = "",
) -> Exports:
    """Write the network that `place` names, a run's directory or a file, in other formats; compared on real images.

    `formats` are one or some of "onnx", "torch_export", "safetensors" and "state_dict"; with `int8`, "onnx" is written
    twice. The files go into the folder `output`, by default the run's exports. They take images as bytes, or else as
    floats in 0..1. `images` is a folder of photographs to compare on, by default the test images of the run.
    `logits_tolerance` is the largest difference of logits that is allowed. `code_dir` is the folder of your own
    architectures; with `trusts`, the code that a run names is run. Raises UserError, with nothing written,
    where a file differs more or would be overwritten.
    """
    formats = [formats] if isinstance(formats, str) else formats
    check_export(formats, key="export=", int8="int8=True" if int8 else None)
    if images is not None and int8:
        raise user_error("--int8 is measured on the test images of the run, not on --images", "leave one of them out")
    shipped = open_shipped(Path(place), None if code_dir is None else Path(code_dir), trusts=trusts)
    files = None if shipped.run is None else RunFiles(shipped.run.run_dir)
    if output is None and files is None:
        raise user_error(f"{place} belongs to no run, which would have a folder for its exports", "add --output DIR")
    request = ExportRequest(
        formats=with_int8(formats, int8=int8),
        output=Path(output) if output is not None else files.exports if files else Path(),
        command=command,
        takes_bytes=takes_bytes,
        tolerance=logits_tolerance,
        overwrites=overwrites,
        card=card(files) if files else "",
    )
    request.check_free(shipped.path)
    with told_of_no_room("--output", request.output):
        if images is None:
            return Exports(request.output, _compared_on_the_run(shipped, request, int8=int8))
        own = Builder(code_dir=Path(code_dir) if code_dir else None)
        compared = read_images(Path(images), shipped.network)
        builder = shipped.run.builder if shipped.run else own
        return Exports(request.output, export_network(shipped.path, builder, request, compared))


def _compared_on_the_run(shipped: Shipped, request: ExportRequest, *, int8: bool) -> list[ExportReport]:
    """Export a network that is compared on the test images of its run; raises UserError where it has none."""
    run = shipped.run
    if run is None:
        what = f"{shipped.path} belongs to no run, whose test images the files could be compared on"
        if int8:
            raise user_error(what, "give the directory of the run: int8 also needs its training images")
        raise user_error(what, "add --images DIR with some photographs")
    feed = run.open_feed(torch.device("cpu"))
    return export_from_feed(shipped.path, run.settings, run.builder, feed, request)
