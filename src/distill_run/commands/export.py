"""The command `distill-export`: a trained network in the formats that other programs read."""

import shlex
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from distill_run.commands.arguments import ABOUT_TRUST, Parser, check_config_dir
from distill_run.commands.preflight import LOADING, announce
from distill_run.config.export_formats import EXPORT_FORMATS, INT8_TOLERANCE, LOGITS_TOLERANCE, check_export
from distill_run.console.console import Console
from distill_run.errors import told_if_interrupted, user_error

ABOUT = "Write a trained network in the formats that other programs read, compared with it on real images."
USAGE = "distill-export RUN_OR_FILE --format FORMAT [--format FORMAT ...] [--int8] [--output DIR]"


def run_command(words: Sequence[str]) -> bool:
    """Do what the words after `distill-export` say; false where int8 costs too much accuracy."""
    options = _read_arguments(words)
    announce(LOADING)

    from distill_run.deploy.export import export
    from distill_run.deploy.export_files import accuracy_lost
    from distill_run.report.export_table import COLUMNS, SPARE, export_rows

    with told_if_interrupted("no file was exported"):
        folder, reports = export(
            options.place,
            options.formats,
            options.output,
            int8=options.int8,
            takes_bytes=options.input == "uint8",
            images=options.images,
            logits_tolerance=options.logits_tolerance,
            overwrites=options.force,
            code_dir=options.config_dir,
            trusts=options.trust,
            command=shlex.join(["distill-export", *words]),
        )
    console = Console()
    console.table(list(COLUMNS), export_rows(reports), num_texts=1, spare=SPARE)
    console.note(f"{folder} has the files, and export.json with these figures")
    if warning := accuracy_lost(reports, options.tolerance):
        console.warn(warning)
        return False
    return True


def _read_arguments(arguments: Sequence[str]) -> Namespace:
    """What to export, how and where to; raises UserError for a mistake that can be seen before torch is loaded."""
    parser = Parser(prog="distill-export", usage=USAGE, description=ABOUT)
    parser.add_argument("place", metavar="RUN_OR_FILE", type=Path, help="a run's directory, or the file of a network")
    formats = f"one of {', '.join(EXPORT_FORMATS)}; may be given several times"
    parser.add_argument(
        "--format", dest="formats", action="append", choices=EXPORT_FORMATS, required=True, help=formats
    )
    place = "where the files go; by default RUN/exports"
    parser.add_argument("--output", metavar="DIR", type=Path, help=place)
    about_int8 = "with --format onnx: also a file with 8-bit weights and activations"
    parser.add_argument("--int8", action="store_true", help=about_int8)
    about_input = "what the exported network takes: bytes, or floats in 0..1; by default uint8"
    parser.add_argument("--input", choices=("uint8", "float"), default="uint8", help=about_input)
    about_images = "photographs to compare on; by default the test images of the run"
    parser.add_argument("--images", metavar="DIR", type=Path, help=about_images)
    about_logits = f"the largest difference of logits that is allowed, but for int8; by default {LOGITS_TOLERANCE:g}"
    parser.add_argument("--logits-tolerance", metavar="T", type=float, default=LOGITS_TOLERANCE, help=about_logits)
    about_accuracy = (
        "the test accuracy that int8 may lose, as a fraction: more is a warning, and the exit status 1; "
        f"by default {INT8_TOLERANCE:g}"
    )
    parser.add_argument("--tolerance", metavar="T", type=float, default=INT8_TOLERANCE, help=about_accuracy)
    parser.add_argument("--force", action="store_true", help="overwrite files that exist")
    parser.add_argument("--config-dir", metavar="DIR", type=Path, help="the folder of your own architectures")
    parser.add_argument("--trust", action="store_true", help=ABOUT_TRUST)
    options = parser.parse_args(arguments)
    check_config_dir(options.config_dir)
    check_export(options.formats, key="--format ", int8="--int8" if options.int8 else None)
    if options.output is not None and options.output.exists() and not options.output.is_dir():
        raise user_error(f"--output {options.output} is not a folder", "give a folder, which may be a new one")
    return options
