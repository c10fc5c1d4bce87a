"""The command `distill-report`: one report of all runs below some directories, of one sweep or of several.

No torch: a report is built from files, also on a machine where nothing can be trained.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from distill_run.commands.arguments import Parser
from distill_run.commands.watch import watch
from distill_run.console.console import Console
from distill_run.errors import Mistake, UserError
from distill_run.files import told_of_no_room, write_text
from distill_run.safe_text import for_terminal, write_out
from distill_run.sweeps.points import find_runs
from distill_run.sweeps.report.exports import FORMATS
from distill_run.sweeps.report.pages import read_sweep, write_sweep_report
from distill_run.sweeps.report.results import tell_sweep_results
from distill_run.sweeps.report.sweep_report import SweepReport

ABOUT = "One report of all runs below some directories, of one sweep or of several."
USAGE = "distill-report DIR... [--output DIR] [--format latex|csv|md] [--watch [--port N]]"
PORT = 8000


def run_command(words: Sequence[str]) -> bool:
    """Do what the words after `distill-report` say."""
    options = _read_arguments(words)
    directories, output = options.directories, options.output or options.directories[0]
    if options.watch:
        watch(directories, output, PORT if options.port is None else options.port, Console())
        return True
    if options.format is not None:
        _tell_means(read_sweep(directories, output), options)
        return True
    with told_of_no_room("--output", output):
        report = write_sweep_report(directories, output)
    tell_sweep_results(Console(), report, output)
    return True


def _tell_means(report: SweepReport, options: Namespace) -> None:
    """Write the table of means into a file, or to stdout where none is given; warnings go to stderr."""
    for warning in report.warnings:
        sys.stderr.write(f"warning: {for_terminal(warning)}\n")
    table = FORMATS[options.format](report)
    if options.output is None:
        write_out(table)
    else:
        with told_of_no_room("--output", options.output):
            write_text(options.output, table)


def _read_arguments(arguments: Sequence[str]) -> Namespace:
    """The directories to read, what to write and where; raises UserError with every mistake."""
    parser = Parser(prog="distill-report", usage=USAGE, description=ABOUT)
    parser.add_argument("directories", metavar="DIR", nargs="+", type=Path, help="run or sweep directories")
    parser.add_argument("--output", metavar="DIR", type=Path, help="where the report goes; by default, the only DIR")
    about_format = "only the table of means, to stdout or into the file --output: for a paper, a program or a README"
    parser.add_argument("--format", choices=list(FORMATS), help=about_format)
    parser.add_argument("--watch", action="store_true", help="serve the report to this machine, and keep it up to date")
    parser.add_argument("--port", metavar="N", type=int, help=f"with --watch, the port ({PORT}); 0: a free one")
    options = parser.parse_args(arguments)
    mistakes = [*_check_places(options), *_check_watching(options)]
    if mistakes:
        raise UserError(mistakes)
    return options


def _check_places(options: Namespace) -> list[Mistake]:
    """The mistakes in what is read and where the report goes."""
    directories, output, writes_pages = options.directories, options.output, options.format is None
    mistakes = []
    if writes_pages and output is None and len(directories) > 1:
        given = " ".join(map(str, directories))
        mistakes.append(Mistake(f"{len(directories)} directories give one report", f"add --output DIR to {given}"))
    for directory in directories:
        mistakes += _check_directory(directory)
    if not writes_pages and output is not None and output.is_dir():
        mistakes.append(Mistake(f"--output {output} is a folder", f"with --format, give a file, as in {output}/means"))
    if writes_pages and output is not None and output.exists() and not output.is_dir():
        mistakes.append(Mistake(f"--output {output} is not a folder", "give a folder, which may be a new one"))
    return mistakes


def _check_watching(options: Namespace) -> list[Mistake]:
    mistakes = []
    if options.watch and options.format is not None:
        mistakes.append(Mistake("--watch shows the pages, --format writes a table", "leave one of them out"))
    if options.port is not None and not options.watch:
        mistakes.append(Mistake(f"--port {options.port} is for --watch", f"add --watch to --port {options.port}"))
    if options.port is not None and not 0 <= options.port <= 65535:
        mistakes.append(Mistake(f"--port {options.port} is not accepted", "write a whole number from 0 to 65535"))
    return mistakes


def _check_directory(directory: Path) -> list[Mistake]:
    if not directory.exists():
        return [Mistake(f"{directory} does not exist", "give the directory of a sweep or of a run")]
    if not directory.is_dir():
        return [Mistake(f"{directory} is not a folder", "give the directory of a sweep or of a run")]
    if not find_runs([directory]):
        return [Mistake(f"{directory} holds no run", "give a folder with a status.json in it or in a folder below it")]
    return []
