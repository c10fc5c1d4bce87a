"""Exporting the student of a run, at its end or later."""

import logging
from collections.abc import Sequence
from pathlib import Path

from distill_run.build import Builder
from distill_run.config.export_formats import INT8_TOLERANCE, LOGITS_TOLERANCE
from distill_run.config.schema import Settings
from distill_run.data.feed import Feed
from distill_run.data.views import ViewChoice
from distill_run.deploy.export_files import (
    ExportRequest,
    accuracy_lost,
    calibration_images,
    export_network,
    images_to_compare,
)
from distill_run.deploy.writers import ENDINGS, write_card
from distill_run.errors import UserError, first_line
from distill_run.files import RunFiles, told_of_no_room
from distill_run.report.figures import ExportReport
from distill_run.stages.watcher import Watcher
from distill_run.stages.workshop import Workshop

log = logging.getLogger(__name__)


def export_student(
    files: RunFiles, settings: Settings, workshop: Workshop, command: str, watcher: Watcher
) -> list[ExportReport]:
    """Export the student that a run is about to report, as `settings.export` says; a failure is a warning."""
    if not settings.export_formats:
        return []
    formats = with_int8(settings.export_formats, int8=settings.export_int8)
    request = ExportRequest(
        formats, files.exports, command, takes_bytes=True, tolerance=LOGITS_TOLERANCE, overwrites=True, card=card(files)
    )
    try:
        with told_of_no_room("hydra.run.dir", files.run_dir):
            reports = export_from_feed(files.student, settings, workshop.builder, workshop.feed, request)
    except Exception as error:  # whatever an exporter raises: the run is trained, and gets its report
        log.info("the export failed", exc_info=True)
        why = error.mistakes[0].what if isinstance(error, UserError) else first_line(error)
        watcher.warned(f"the student is not exported: {why}")
        return []
    if warning := accuracy_lost(reports, INT8_TOLERANCE):
        watcher.warned(warning)
    return reports


def export_from_feed(
    source: Path, settings: Settings, builder: Builder, feed: Feed, request: ExportRequest
) -> list[ExportReport]:
    """Export the network of a run, compared on its test images and, for int8, calibrated on its training images."""
    int8 = "onnx_int8" in request.formats
    views = ViewChoice(settings.training.view_seed, settings.training.views, mixup=0, cutmix=0)
    calibration = calibration_images(feed, views) if int8 else None
    return export_network(source, builder, request, images_to_compare(feed, int8=int8), calibration)


def add_card(files: RunFiles) -> None:
    """Put the model card of a run into the hub's folder that was written before it, where there is one."""
    hub = files.exports / f"{files.student.stem}{ENDINGS['safetensors']}"
    if hub.is_dir() and (text := card(files)):
        write_card(hub, text)


def with_int8(formats: Sequence[str], *, int8: bool) -> list[str]:
    """The formats without repetition, and int8 after onnx where it is wanted."""
    found = list(dict.fromkeys(formats))
    if int8:
        found.insert(found.index("onnx") + 1, "onnx_int8")
    return found


def card(files: RunFiles) -> str:
    """The run's model card; empty where it has none."""
    return files.model_card.read_text(encoding="utf-8") if files.model_card.is_file() else ""
