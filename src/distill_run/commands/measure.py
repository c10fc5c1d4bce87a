"""The command `distill-measure`: size, latency, throughput and memory of networks in any form, side by side.

No torch at module level: mistakes in the arguments are told without it.
"""

import json
import os
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distill_run import rules
from distill_run.commands.arguments import ABOUT_TRUST, Parser, check_config_dir
from distill_run.commands.preflight import LOADING, announce
from distill_run.config.settings import compose_config
from distill_run.console.console import Console
from distill_run.errors import Mistake, UserError, tell, told_if_interrupted
from distill_run.safe_text import csv_lines, write_out
from distill_run.typed_json import encode

if TYPE_CHECKING:
    from distill_run.deploy.measured import Candidate, Measured

ABOUT = "Size, latency, throughput and memory of networks in any form, side by side."
ABOUT_FILE = "a run's directory, a student.pt, the store's weights.pt, or an exported .onnx or .pt2"
QUARTILES = "quartiles"
NOTE = (
    "Medians after a warm-up, with quartiles where there is room for them; ms is for one image, images/s for {} at a "
    "time where no other number is given. The networks took turns."
)


def run_command(words: Sequence[str]) -> bool:
    """Do what the words after `distill-measure` say; false where a place holds no network."""
    options = _read_arguments(words)
    if options.format == "table":
        announce(LOADING)

    import torch

    from distill_run.deploy.measured import measure_candidates
    from distill_run.engine.device import choose_device

    device = choose_device(compose_config().device).torch_device
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    candidates, mistakes = _open_all(options)
    with told_if_interrupted("nothing was measured to the end"):
        found = measure_candidates(candidates, device)
    FORMATS[options.format](found)
    if mistakes:
        tell(UserError(mistakes))
    return not mistakes


def _open_all(options: Namespace) -> tuple[list["Candidate"], list[Mistake]]:
    """The networks to measure, and the mistakes of the places that hold none; raises UserError where all are such."""
    from distill_run.deploy.measured import open_candidates

    candidates, mistakes = [], dict[Mistake, None]()
    for place in dict.fromkeys(options.places):
        try:
            candidates += open_candidates(place, options.all, options.config_dir, trusts=options.trust)
        except UserError as error:
            mistakes.update(dict.fromkeys(error.mistakes))
    if not candidates:
        raise UserError(mistakes)
    return candidates, list(mistakes)


def _read_arguments(arguments: Sequence[str]) -> Namespace:
    """What to measure and how to tell it; raises UserError with every mistake."""
    parser = Parser(prog="distill-measure", description=ABOUT)
    parser.add_argument("places", metavar="RUN_OR_FILE", nargs="+", type=Path, help=ABOUT_FILE)
    parser.add_argument("--all", action="store_true", help="of a run, the teacher and the baseline as well")
    parser.add_argument("--threads", metavar="N", type=int, help="of the CPU, beside one; by default, as many as cores")
    parser.add_argument("--format", choices=list(FORMATS), default="table", help="for people, or for programs")
    parser.add_argument("--config-dir", metavar="DIR", type=Path, help="the folder of your own architectures")
    parser.add_argument("--trust", action="store_true", help=ABOUT_TRUST)
    options = parser.parse_args(arguments)
    missing = [
        Mistake(f"{place} does not exist", f"give {ABOUT_FILE}") for place in options.places if not place.exists()
    ]
    if missing:
        raise UserError(missing)
    check_config_dir(options.config_dir)
    if options.threads is not None:
        rules.whole(1).check("--threads", options.threads)
    return options


def tell_table(found: Sequence["Measured"]) -> None:
    """Show a row for each network."""
    from distill_run.engine.timing import BATCH_SIZE
    from distill_run.report.cells import speed_figures
    from distill_run.units import NONE, quantity

    columns = []
    for each in found:
        cells = {}
        for figure in speed_figures(each.speed):
            cells[figure.heading] = figure.median + figure.note
            if figure.quartiles:
                cells[f"{QUARTILES} of {figure.heading}"] = figure.quartiles
        columns.append(cells)
    headings = list(dict.fromkeys(heading for cells in columns for heading in cells))
    rows = []
    for name, each, cells in zip(short_names(found), found, columns, strict=True):
        macs = NONE if each.macs is None else quantity(each.macs)
        fixed = [name, each.form, f"{each.parameters:,}", macs, quantity(each.bytes) + "B"]
        rows.append([*fixed, *(cells.get(heading, NONE) for heading in headings)])
    quartiles = [heading for heading in headings if heading.startswith(QUARTILES)]
    fixed_headings = ["", "form", "parameters", "MACs", "size"]
    spare = [*quartiles, "MACs", "memory", "parameters", "form"]
    console = Console()
    console.table([*fixed_headings, *headings], rows, num_texts=2, spare=spare)
    console.note(NOTE.format(BATCH_SIZE))


def short_names(found: Sequence["Measured"]) -> list[str]:
    """The paths from the folder that all have in common, with the stages."""
    paths = [Path(each.file).absolute() for each in found]
    common = os.path.commonpath([path.parent for path in paths])
    return [f"{path.relative_to(common)} {each.stage}".strip() for path, each in zip(paths, found, strict=True)]


def tell_json(found: Sequence["Measured"]) -> None:
    """Write a list with an object for each network."""
    write_out(json.dumps(encode(list(found)), indent=2) + "\n")


def tell_csv(found: Sequence["Measured"]) -> None:
    """Write a row for each network and each kind of batch that it was given."""
    rows = [{**encode(each), **encode(inference)} for each in found for inference in each.speed]
    names = [name for name in rows[0] if name != "speed"]
    write_out(csv_lines([names, *([row[name] for name in names] for row in rows)]))


FORMATS: dict[str, Callable[[Sequence["Measured"]], None]] = {"table": tell_table, "json": tell_json, "csv": tell_csv}
