"""Whether the defaults need tuning: trains a grid of situations with them, each with several seeds.

    python -m distill_run.benchmarks.defaults --cifar10 DIR --cifar100 DIR [--cells REGEX] [--list] [override ...]

A cell, such as digits/few/resnet8/soft,temperature=1,alpha=0.9, fails where a network is at chance, or where the
students are more than 3 points below their baselines on test, beyond the noise of their seeds. With --search, cells
such as digits/few/resnet8/search train baselines at the default learning rate, at 0.3 and at 3 times as much: there the
"student" is the default, and the "baseline" is the rate that is best on validation; both are compared on test. Results
are kept in the folder's results.jsonl: what stands there is not computed again.
"""

import argparse
import dataclasses
import importlib.util
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from distill_run.benchmarks.situations import (
    NUM_CLASSES,
    PHOTOS,
    SEARCH,
    all_cells,
    check_source,
    make_photos,
    overrides_of,
)
from distill_run.benchmarks.verdicts import HEADINGS, Result, markdown
from distill_run.config.schema import Settings
from distill_run.config.settings import compose_config
from distill_run.console.console import Console
from distill_run.data.opening import Feeds
from distill_run.engine.evaluate import measure
from distill_run.engine.interrupt import StopRequest
from distill_run.errors import DivergedError, first_line, leave, user_error
from distill_run.fingerprints import fingerprint_of
from distill_run.stages.assembly import Prepared
from distill_run.stages.health import Health
from distill_run.stages.lineup import Lineup, make_lineup, obtain_teacher
from distill_run.stages.plans import recipe_of
from distill_run.stages.prepare import open_workshop
from distill_run.stages.program import program_identity
from distill_run.stages.student import guided
from distill_run.stages.trained import Trained
from distill_run.stages.watcher import Watcher
from distill_run.stages.workshop import Workshop

FACTORS = (0.3, 3.0)  # of the default learning rate


class Accuracies(NamedTuple):
    """Of a network, on two splits."""

    val: float
    test: float


class Grid:
    """Computes cells in a folder, which keeps results, teachers, baselines and logits."""

    def __init__(self, options: Any, stop: StopRequest) -> None:
        self.options = options
        self.stop = stop
        self.feeds = Feeds()
        self.path: Path = options.folder / "results.jsonl"
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        self.results = {result.key: result for result in (Result(**json.loads(line)) for line in lines)}

    def obtain(self, cell: str) -> Result:
        """The result of a cell, from the file where it stands there."""
        overrides = [*overrides_of(cell, self.options.folder), *self.options.overrides]
        settings = [compose_config([*overrides, f"seed={seed}"]) for seed in self.options.seeds]
        inputs = {"settings": [dataclasses.asdict(each) for each in settings], "is_search": cell.endswith(SEARCH)}
        key = fingerprint_of({**inputs, "max_steps": self.options.max_steps, "program": program_identity()})
        if key not in self.results:
            self.results[key] = self._compute(cell, key, settings)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(dataclasses.asdict(self.results[key])) + "\n")
        return dataclasses.replace(self.results[key], cell=cell)  # mode=soft has the settings of another cell

    def _compute(self, cell: str, key: str, several: Sequence[Settings]) -> Result:
        result = Result(cell, key, self.options.seeds, 0.0, [], [], [])
        work = search if cell.endswith(SEARCH) else distil
        rows = []
        for wanted in several:
            workshop, settings = self._open(wanted)
            result = dataclasses.replace(result, chance=1 / len(workshop.feed.classes))
            health = Health(workshop.feed, workshop.watcher.warned)
            lineup = make_lineup(settings, workshop)
            try:
                rows.append(work(lineup, dataclasses.replace(workshop, watcher=health)))
            except DivergedError as error:
                health.failures.append(first_line(error))
            result.failures.extend(health.failures)
        if rows:
            judged, *others = zip(*rows, strict=True)
            best = max(others, key=lambda column: fmean(each.val for each in column))
            students, baselines = ([each.test for each in column] for column in (judged, best))
            result = dataclasses.replace(result, students=students, baselines=baselines)
        return result

    def _open(self, wanted: Settings) -> tuple[Workshop, Settings]:
        """The workshop of a run and its settings, whose epochs `max_steps` limits; one epoch is the least."""
        run_dir = self.options.folder / "run"
        workshop, settings = open_workshop(wanted, run_dir, run_dir / "last.pt", "", Watcher(), self.stop, self.feeds)
        if self.options.max_steps is None:
            return workshop, settings
        recipes = [recipe_of(settings, "teacher"), recipe_of(settings, "student")]
        for index, recipe in enumerate(recipes):
            num_steps = max(len(workshop.feed.train) // recipe.batch_size, 1)
            epochs = min(recipe.epochs, max(self.options.max_steps // num_steps, 1))
            recipes[index] = dataclasses.replace(recipe, epochs=epochs)
        training = dataclasses.replace(settings.training, teacher=recipes[0], student=recipes[1])
        return workshop, dataclasses.replace(settings, training=training)


def distil(lineup: Lineup, workshop: Workshop) -> list[Accuracies]:
    """Of student and baseline."""
    alone, prepared = lineup.pairs[0]
    assert alone is not None
    teacher = obtain_teacher(lineup, workshop)
    baseline = workshop.obtain("baseline", alone)
    return [_measure(each, workshop) for each in (workshop.train(guided(prepared, teacher, workshop)), baseline)]


def search(lineup: Lineup, workshop: Workshop) -> list[Accuracies]:
    """Of the baseline at the default rate, and then at all rates; 0 where another rate than the default diverges."""
    alone = lineup.pairs[0].baseline
    assert alone is not None
    found = [_measure(workshop.obtain("baseline", alone), workshop)]
    unwatched = dataclasses.replace(workshop, watcher=Watcher())  # another rate may go wrong
    for factor in FACTORS:
        trial = alone.training.with_rate(factor * alone.training.recipe.optimizer["lr"])
        try:
            trained = unwatched.obtain("baseline", Prepared(trial, workshop.assembler.assemble(trial)))
            found.append(_measure(trained, workshop))
        except DivergedError:
            found.append(Accuracies(0.0, 0.0))
    return [found[0], *found]


def _measure(trained: Trained, workshop: Workshop) -> Accuracies:
    test = measure(trained.selected.test_logits, workshop.feed.test.targets.cpu())
    return Accuracies(trained.selected.val["accuracy"], test["accuracy"])


def main(arguments: Sequence[str]) -> bool:
    """Compute the cells and print a line of each, then the worst; returns whether all are well."""
    options = _read(arguments)
    console = Console()
    cells = _chosen(options, console)
    if options.list:
        for cell in cells:
            console.note(cell)
        return True
    for data in dict.fromkeys(cell.split("/")[0] for cell in cells):
        if data in PHOTOS:
            make_photos(data, _sources(options), options.folder)
    options.folder.mkdir(parents=True, exist_ok=True)
    results = []
    with StopRequest() as stop:
        grid = Grid(options, stop)
        console.note("  ".join(HEADINGS))
        for cell in cells:
            results.append(grid.obtain(cell))
            console.note("  ".join(results[-1].row))
    for line in ("", *markdown(results)):
        console.note(line)
    num_failed = sum(result.problem is not None for result in results)
    console.note(f"\n{num_failed} of {len(results)} cells failed; the results are in {grid.path}")
    return num_failed == 0


def _chosen(options: Any, console: Console) -> list[str]:
    """The cells that the options choose; says which are left out because something is not there."""
    for name, folder in _sources(options).items():
        check_source(name, folder)
    cells = [cell for cell in all_cells(with_search=options.search) if options.cells.search(cell)]
    missing = {
        f"{data}/": f"give --{photos.source} DIR"
        for data, photos in PHOTOS.items()
        if photos.source not in _sources(options)
    }
    if importlib.util.find_spec("timm") is None:
        missing["/timm/"] = "pip install 'distill-run[models]'"
    for part, remedy in missing.items():
        if any(part in cell for cell in cells):
            console.warn(f"the cells of {part.strip('/')} are left out: {remedy}")
            cells = [cell for cell in cells if part not in cell]
    if not cells:
        raise user_error(
            f"--cells={options.cells.pattern} leaves no cell",
            "see the names with --list; --search adds DATA/.../search",
        )
    return cells


def _sources(options: Any) -> dict[str, Path]:
    return {name: vars(options)[name] for name in NUM_CLASSES if vars(options)[name] is not None}


def _read(arguments: Sequence[str]) -> Any:
    parser = argparse.ArgumentParser(prog="python -m distill_run.benchmarks.defaults", allow_abbrev=False)
    for name in NUM_CLASSES:
        parser.add_argument(f"--{name}", type=Path, metavar="DIR", help="train/<class>/* and test/<class>/*")
    parser.add_argument("--folder", type=Path, default="outputs/defaults", help="photographs, store and results")
    parser.add_argument("--cells", default="", metavar="REGEX", help="only cells whose name matches: digits/.*/soft")
    parser.add_argument("--list", action="store_true", help="only show the names of the cells")
    parser.add_argument("--seeds", default="0,1,2", help="two or more, as in 0,1,2")
    parser.add_argument("--max-steps", type=int, help="of each training, but at least one epoch")
    parser.add_argument("--search", action="store_true", help="also compare learning rates of the baselines")
    parser.add_argument("overrides", nargs="*", help="of all cells, as in training.student.clip_norm=1.0")
    options = parser.parse_intermixed_args(arguments)
    options.folder = options.folder.resolve()
    options.cells, options.seeds = _read_cells(options.cells), _read_seeds(options.seeds)
    return options


def _read_cells(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise user_error(
            f"--cells={text} is not a regular expression ({error})", "write one such as --cells 'digits/.*/soft'"
        ) from error


def _read_seeds(text: str) -> list[int]:
    seeds = text.split(",")
    if len(set(seeds)) < 2 or not all(seed.isdecimal() for seed in seeds):
        raise user_error(f"--seeds={text} is not accepted", "write two or more numbers, as in --seeds 0,1,2")
    return [int(seed) for seed in seeds]


if __name__ == "__main__":
    leave(lambda: main(sys.argv[1:]))
