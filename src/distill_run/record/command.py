"""The commands of a run: the one in its environment.json, which repeats it, and the one that goes on with it."""

from pathlib import Path

from distill_run.errors import user_error
from distill_run.files import RunFiles
from distill_run.quoting import typed
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


def resume_command(run_dir: Path) -> str:
    """The command that goes on with a run, as one types it in any folder."""
    return f"distill-run {typed('resume', run_dir.absolute())}"
