"""Exporting a network: its files are written, compared with it on real images, and only then get their names."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill_run.build import Builder
from distill_run.checkpoint import HUB_WEIGHTS, read_content, rebuild
from distill_run.data.feed import Feed
from distill_run.data.views import ViewChoice
from distill_run.deploy.checking import (
    Compared,
    accuracy_figures,
    compare,
    is_exact,
    latency,
    logits_of,
    photographs_of,
    some_of,
)
from distill_run.deploy.deployable import LEVELS, Deployable
from distill_run.deploy.staging import publish, staging
from distill_run.deploy.writers import ENDINGS, Exported, as_taken, companions, open_run, write
from distill_run.errors import Mistake, UserError, first_line, user_error
from distill_run.files import size_on_disk, write_json
from distill_run.report.figures import ExportReport
from distill_run.typed_json import encode, read_object

TABLE = "export.json"
NUM_COMPARED = 1000  # test images, where int8 does not ask for all of them
NUM_CALIBRATION = 512  # training images, in one view
RUNS_BY_ITSELF = ("onnx", "onnx_int8", "torch_export")


@dataclass(frozen=True)
class ExportRequest:
    """What is to be written, where, and what is refused.

    `formats` are those of config.export_formats, and "onnx_int8". `tolerance` is the largest difference of logits that
    a file may have whose numbers are floats. `command` is what writes the files, and `card` a model card; empty where
    there is none yet.
    """

    formats: Sequence[str]
    output: Path
    command: str
    takes_bytes: bool
    tolerance: float
    overwrites: bool
    card: str = ""

    def paths(self, source: Path) -> dict[str, Path]:
        """The file of each format, or its folder."""
        return {each: self.output / f"{source.stem}{ENDINGS[each]}" for each in self.formats}

    def check_free(self, source: Path) -> None:
        """Raise UserError where a file would be overwritten."""
        wanted = [place for each, path in self.paths(source).items() for place in companions(path, each)]
        if not self.overwrites and (taken := [place for place in wanted if place.exists()]):
            remedy = "add --force, or choose another folder with --output DIR"
            raise UserError(Mistake(f"{place} exists already", remedy) for place in taken)


def export_network(
    source: Path, builder: Builder, request: ExportRequest, compared: Compared, calibration: Tensor | None = None
) -> list[ExportReport]:
    """Write the network in the file `source` in the formats of the request; all of its files, or none.

    The files are compared on the images of `compared`; `calibration` are training images (N, C, H, W) of bytes, for
    int8. Raises UserError where a file would be overwritten, or where its logits differ by more than the tolerance.
    """
    request.check_free(source)
    content = read_content(source)
    network = rebuild(content, builder).eval()
    deployable = Deployable(network, takes_bytes=request.takes_bytes).eval()
    facts = _facts(source, content, deployable, request.command)
    card = request.card or _short_card(content, facts)
    exported = Exported(content, builder, deployable, facts, card)
    images = as_taken(photographs_of(compared.images, network.crop_ratio), deployable)
    wanted = logits_of(deployable, images)
    if is_exact(compared.images, network.crop_ratio):  # then it is also compared without the preprocessing inside
        wanted = logits_of(lambda chunk: network(chunk.float() / LEVELS), compared.images)
    if calibration is not None:
        calibration = as_taken(photographs_of(calibration, network.crop_ratio), deployable)
    targets = None if calibration is None else compared.targets
    reports = []
    with staging(request.output) as folder:
        for file_format, place in request.paths(source).items():
            path = folder / place.name
            with _told_of_format(file_format):
                write(exported, file_format, path, calibration)
                report = _measure(exported, file_format, path, images, wanted, targets)
            _check(report, request.tolerance)
            reports.append(report)
        new = {report.file for report in reports}
        kept = [row for row in _earlier_rows(request.output / TABLE) if row["file"] not in new]
        write_json(folder / TABLE, {"facts": facts, "exports": [*kept, *encode(reports)]})
        for file_format, place in request.paths(source).items():
            for final in companions(place, file_format):
                publish(folder / final.name, final)
        publish(folder / TABLE, request.output / TABLE)
    return reports


@contextmanager
def _told_of_format(file_format: str) -> Iterator[None]:
    """Turn what an exporter or a runtime raises into a UserError that names the format; not that of a full disk."""
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:
        raise user_error(
            f"{file_format}: the network cannot be written in this format: {first_line(error)}",
            "choose another format: safetensors and state_dict need no trace of the network",
        ) from error


def _earlier_rows(table: Path) -> list[dict[str, Any]]:
    """The rows of an earlier export into the same folder; raises UserError for a file that is none."""
    if not table.exists():
        return []
    try:
        rows: list[dict[str, Any]] = read_object(table)["exports"]
        return [row for row in rows if (table.parent / row["file"]).exists()]
    except (ValueError, LookupError, TypeError) as error:
        raise user_error(f"{table} is no table of exports", "choose another folder with --output DIR") from error


def _measure(
    exported: Exported, file_format: str, path: Path, images: Tensor, wanted: Tensor, targets: Tensor | None
) -> ExportReport:
    run = open_run(exported, file_format, path)
    given = logits_of(run, images)
    report = compare(file_format, wanted, given)
    figures: dict[str, Any] = {} if targets is None else accuracy_figures(given, targets, wanted)
    if file_format in RUNS_BY_ITSELF:
        figures["milliseconds"] = latency(run, images)
    return replace(report, file=path.name, bytes=size_on_disk(path), **figures)


def _check(report: ExportReport, tolerance: float) -> None:
    """Raise UserError for a file whose logits differ too much; int8 is known to change them."""
    if report.format != "onnx_int8" and not report.largest_difference <= tolerance:  # NaN is refused, too
        raise user_error(
            f"{report.format}: the logits differ from the network's by up to {report.largest_difference:.2g} on "
            f"{report.images:,} images, more than {tolerance:g}: nothing is written",
            "choose another format; or, if that is little beside the logits, allow it with --logits-tolerance",
        )


def images_to_compare(feed: Feed, *, int8: bool) -> Compared:
    """The test images on which the files are compared: all of them for int8, else some."""
    return some_of(feed.test, None if int8 else NUM_COMPARED)


def calibration_images(feed: Feed, views: ViewChoice) -> Tensor:
    """Training images (N, C, H, W) of bytes, drawn with a seed and augmented as in the training."""
    chosen = torch.randperm(len(feed.train), generator=torch.Generator().manual_seed(0))[:NUM_CALIBRATION]
    return (feed.render(views, chosen, 0) * LEVELS).round().to(torch.uint8).cpu()


def accuracy_lost(reports: Sequence[ExportReport], tolerance: float) -> str | None:
    """A warning where int8 costs more test accuracy than the tolerance; None where it does not."""
    for report in reports:
        if report.format == "onnx_int8" and report.change is not None and report.change < -tolerance:
            return (
                f"int8 costs {-100 * report.change:.2f} percentage points of test accuracy, more than "
                f"{100 * tolerance:g}: {report.file} reaches {report.accuracy:.2%}; "
                "ship the float file, or train with more images"
            )
    return None


def _facts(source: Path, content: dict[str, Any], deployable: Deployable, command: str) -> dict[str, Any]:
    weights = source / HUB_WEIGHTS if source.is_dir() else source
    return {
        "classes": content["classes"],
        "image_size": content["image_size"],
        "channels": content["in_channels"],
        "crop_ratio": deployable.crop_ratio,
        "input": "uint8" if deployable.takes_bytes else "float",
        "source_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "command": command,
        "program": f"distill-run {metadata.version('distill-run')}",
    }


def _short_card(content: dict[str, Any], facts: dict[str, Any]) -> str:
    height, width = content["image_size"]
    return (
        f"# {content['name']}\n\n"
        f"An image classifier of {len(content['classes'])} classes for images of {height}x{width} pixels, written by "
        f"{facts['program']}.\n\n"
        "    from distill_run import load_network\n\n"
        '    network = load_network("THIS FOLDER")  # images (N, C, H, W) in 0..1 to logits (N, K)\n\n'
        "`config.json` has the architecture, the normalisation and the names of the classes.\n"
    )
