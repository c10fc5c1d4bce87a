"""The command `distill-predict`: what a student, and beside it its teacher, say of photographs.

No torch at module level: help and mistakes in the arguments are told without it.
"""

import shlex
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from distill_run.commands.arguments import ABOUT_TRUST, Parser, check_config_dir
from distill_run.console.console import Console
from distill_run.errors import Mistake, UserError, told_if_interrupted

ABOUT = "The classes that a student, and beside it its teacher, give to photographs; or a page of its mistakes."
USAGE = (
    "distill-predict RUN_OR_FILE [IMAGE|FOLDER ...] [--format table|csv|json] [--output FILE] [--teacher FILE] "
    "[--top K] [--errors] [--config-dir DIR] [--trust]"
)


def run_command(words: Sequence[str]) -> bool:
    """Do what the words after `distill-predict` say; false where an image cannot be read."""
    options = _read_arguments(words)

    from distill_run.deploy.comparison import compare, open_teacher  # loaded only here: they need torch
    from distill_run.deploy.predicting import write_mistakes, write_rows
    from distill_run.deploy.shipped import open_shipped
    from distill_run.engine.interrupt import StopRequest

    console = Console(stderr=not options.errors)  # rows go to stdout
    with StopRequest(), told_if_interrupted("nothing was written"):
        student = open_shipped(options.place, options.config_dir, trusts=options.trust)
        try:
            teacher = open_teacher(student, options.teacher, options.config_dir, trusts=options.trust)
        except UserError as error:
            if options.errors or options.teacher is not None:
                raise
            teacher = None
            console.note("the student alone: " + "; ".join(error.mistakes[0]))
        compared = compare(student, teacher)
        if options.errors:
            return write_mistakes(compared, options.images, options.output, console)
        return write_rows(
            compared, options.images, options.format or "table", options.top or 1, options.output, console
        )


def _read_arguments(arguments: Sequence[str]) -> Namespace:
    """The network, the images, and what to write; raises UserError with every mistake."""
    parser = Parser(prog="distill-predict", usage=USAGE, description=ABOUT)
    parser.add_argument("place", metavar="RUN_OR_FILE", type=Path, help="a run's folder, or the file of a network")
    parser.add_argument("images", metavar="IMAGE|FOLDER", nargs="*", type=Path, help="photographs, folders of them")
    parser.add_argument("--format", choices=("table", "csv", "json"), help="of the rows; by default, a table")
    parser.add_argument("--output", metavar="FILE", type=Path, help="where the rows or the page go")
    parser.add_argument("--teacher", metavar="FILE", type=Path, help="the file of a teacher; else that of the run")
    parser.add_argument("--top", metavar="K", type=int, help="show so many classes; by default, one")
    parser.add_argument("--errors", action="store_true", help="write a page of what only the teacher gets right")
    parser.add_argument("--config-dir", metavar="DIR", type=Path, help="the folder of your own architectures")
    parser.add_argument("--trust", action="store_true", help=ABOUT_TRUST)
    options = parser.parse_intermixed_args(arguments)
    check_config_dir(options.config_dir)
    mistakes = [
        Mistake(f"{path} does not exist", "give the file of an image or a folder of images")
        for path in options.images
        if not path.exists()
    ]
    if not options.images and not options.errors:
        example = shlex.join(["distill-predict", str(options.place), "photos"])
        remedy = f"name images or folders: {example}; or add --errors"
        mistakes.append(Mistake("no image is named", f"{remedy}, for those of the test split"))
    if options.errors:
        for name in ("format", "top"):
            if getattr(options, name) is not None:
                mistakes.append(Mistake(f"--errors writes a page, which has no --{name}", f"leave out --{name}"))
    if options.top is not None and options.top < 1:
        mistakes.append(Mistake(f"--top {options.top} shows no class", "write 1 or more"))
    if options.output is not None and options.output.is_dir():
        mistakes.append(Mistake(f"--output {options.output} is a folder", f"give a file, as in {options.output}/rows"))
    if mistakes:
        raise UserError(mistakes)
    return options
