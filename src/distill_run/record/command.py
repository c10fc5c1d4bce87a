"""The commands of a run: the one in its environment.json, which repeats it, and the one that goes on with it."""

import shlex
from pathlib import Path

from distill_run.build import OWN_PACKAGES
from distill_run.config.schema import Settings
from distill_run.errors import user_error
from distill_run.files import RunFiles
from distill_run.quoting import bracketed, typed
from distill_run.typed_json import read_object


def read_command(run_dir: Path) -> str:
    """The command that repeats the run; raises ValueError that says why it cannot be read."""
    path = RunFiles(run_dir).environment
    command = read_object(path).get("command")
    if not isinstance(command, str):
        raise ValueError(f"{path.name} has no command")
    return command


def command_of(run_dir: Path) -> str:
    """The command of a run that goes on; raises UserError where it cannot be read."""
    try:
        return read_command(run_dir)
    except ValueError as damage:
        raise user_error(f"resume={run_dir}: {damage}", "start a new run, without resume=") from damage


def resume_command(run_dir: Path, settings: Settings | None = None) -> str:
    """The command that goes on with a run, as one types it in any folder.

    With the run's `settings`, it names the code that the user has trusted.
    """
    words = ["distill-run"]
    if settings is not None and settings.code_dir:
        words.append(f"--config-dir {shlex.quote(str(Path(settings.code_dir).absolute()))}")
    words.append(typed("resume", run_dir.absolute()))
    if settings is not None and tuple(settings.trusted_packages) != OWN_PACKAGES:
        words.append(f"trusted_packages={shlex.quote(bracketed(settings.trusted_packages))}")
    return " ".join(words)
