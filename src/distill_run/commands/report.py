"""The command `distill-report`: one report of all runs below some directories, of one sweep or of several.

No torch: a report is built from files, also on a machine where nothing can be trained.
"""

import sys
from pathlib import Path
from typing import NoReturn

from distill_run.commands.arguments import Parser
from distill_run.console import Console
from distill_run.errors import Mistake, UserError, leave, user_error
from distill_run.sweeps.points import find_runs
from distill_run.sweeps.report.pages import write_sweep_report
from distill_run.sweeps.report.results import tell_sweep_results

ABOUT = "One report of all runs below some directories, of one sweep or of several."
USAGE = "distill-report DIR... [--output DIR]"


def main() -> NoReturn:
    """Run the command line in sys.argv; exits with 0, or with 1 after a mistake."""
    leave(_run_command)


def _run_command() -> bool:
    directories, output = _read_arguments(sys.argv[1:])
    try:
        report = write_sweep_report(directories, output)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}"
        raise user_error(what, "give directories that can be read and written") from error
    tell_sweep_results(Console(), report, output)
    return True


def _read_arguments(arguments: list[str]) -> tuple[list[Path], Path]:
    """The directories to read and the one to write into; raises UserError with every mistake."""
    parser = Parser(
        prog="distill-report",
        usage=USAGE,
        description=ABOUT,
    )
    parser.add_argument("directories", metavar="DIR", nargs="+", type=Path, help="run or sweep directories")
    parser.add_argument("--output", metavar="DIR", type=Path, help="where the report goes; by default, the only DIR")
    options = parser.parse_args(arguments)
    directories, output = options.directories, options.output
    mistakes = []
    if output is None and len(directories) > 1:
        given = " ".join(map(str, directories))
        mistakes.append(Mistake(f"{len(directories)} directories give one report", f"add --output DIR to {given}"))
    for directory in directories:
        mistakes += _check_directory(directory)
    if output is not None and output.exists() and not output.is_dir():
        mistakes.append(Mistake(f"--output {output} is not a folder", "give a folder, which may be a new one"))
    if mistakes:
        raise UserError(mistakes)
    return directories, output or directories[0]


def _check_directory(directory: Path) -> list[Mistake]:
    if not directory.exists():
        return [Mistake(f"{directory} does not exist", "give the directory of a sweep or of a run")]
    if not directory.is_dir():
        return [Mistake(f"{directory} is not a folder", "give the directory of a sweep or of a run")]
    if not find_runs([directory]):
        return [Mistake(f"{directory} holds no run", "give a folder with a status.json in it or in a folder below it")]
    return []


if __name__ == "__main__":
    main()
