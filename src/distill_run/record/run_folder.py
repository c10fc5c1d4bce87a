"""The folder of a run before the run begins: which it is, and what another run may have left there."""

from pathlib import Path

import yaml

from distill_run.config.schema import Settings
from distill_run.console.console import Console
from distill_run.errors import user_error
from distill_run.files import RunFiles
from distill_run.quoting import typed
from distill_run.record.command import resume_command
from distill_run.record.run_record import remove_finished
from distill_run.record.status import RunStatus, read_status
from distill_run.report.run_report import RunReport, read_report
from distill_run.units import shown_path

ADDED_LATER = ("export", "export_int8", "measure_speed", "robustness_images")  # to a completed run, where asked for


def choose_folder(settings: Settings) -> Path:
    """Where a run writes if nobody says it."""
    if settings.resume:
        return Path(settings.resume)
    from distill_run.config.compose import new_run_dir  # here, so that a run in a given folder needs no Hydra

    return new_run_dir()


def completed_report(files: RunFiles, settings: Settings, console: Console) -> RunReport | None:
    """The report of a completed run that has all that the settings ask for, which is told; None for any other run."""
    try:
        status = read_status(files.run_dir)
        report = read_report(files.run_dir)
    except ValueError:
        return None
    saved = yaml.safe_load(files.config.read_text(encoding="utf-8"))
    is_asked_for = any(key in saved and saved[key] != getattr(settings, key) for key in ADDED_LATER)
    if status != RunStatus("completed") or is_asked_for:
        return None
    remove_finished(files)  # it may have been killed while it ended
    console.note(f"the run is completed; its report is {shown_path(files.report_page)}")
    return report


def check_unused(files: RunFiles, settings: Settings) -> None:
    """Raise UserError where a new run would overwrite what another one has left, or where none is wanted."""
    if settings.verify:
        raise user_error(
            f"verify={settings.verify} is a command, not a run", f"write distill-run {typed('verify', settings.verify)}"
        )
    if not settings.resume and any(file.exists() for file in (files.last, files.student, files.finished, files.report)):
        raise user_error(
            f"{files.run_dir} holds a run already",
            f"give another folder, or go on with that run, as in {resume_command(files.run_dir)}",
        )
