"""Whether the defaults need tuning: trains a grid of situations with them, each with several seeds.

    python -m distill_run.benchmarks.defaults --cifar10 DIR --cifar100 DIR [--cells REGEX] [--list] [override ...]

A cell, such as digits/few/resnet8/soft,temperature=1,alpha=0.9, fails where a network is at chance, or where the
students are more than 3 points below their baselines on test, beyond the noise of their seeds. With --search, cells
such as digits/few/resnet8/search compare the default learning rate with 0.3 and 3 times as much, by the baselines'
accuracy on validation: the best rate stands in the place of the baseline, the default in that of the student. Results
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
from typing import Any

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
from distill_run.console import Console
from distill_run.data.opening import Feeds
from distill_run.engine.evaluate import measure
from distill_run.engine.interrupt import StopRequest
from distill_run.errors import DivergedError, UserError, first_line, leave, user_error
from distill_run.stages.health import Health
from distill_run.stages.lineup import make_lineup, obtain_teacher
from distill_run.stages.plans import recipe_of
from distill_run.stages.prepare import open_workshop
from distill_run.stages.program import program_identity
from distill_run.stages.student import train_student
from distill_run.stages.watcher import Watcher
from distill_run.stages.workshop import Workshop
from distill_run.store import fingerprint_of

FACTORS = (1.0, 0.3, 3.0)  # of the default learning rate


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
        result = Result(cell, key, 0.0, [], [], [], None)
        work = search if cell.endswith(SEARCH) else distil
        rows = []
        for wanted in several:
            workshop, settings = self._open(wanted)
            result = dataclasses.replace(result, chance=1 / len(workshop.feed.classes))
            health = Health(workshop.feed, workshop.watcher.warned)
            try:
                rows.append(work(settings, workshop, health))
            except DivergedError as error:
                health.failures.append(first_line(error))
            except UserError as error:  # student and mode do not fit each other
                return dataclasses.replace(result, left_out=first_line(error))
            result.failures.extend(health.failures)
        if rows:
            first, *others = (list(column) for column in zip(*rows, strict=True))
            result = dataclasses.replace(result, students=first, baselines=max(others, key=fmean))
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


def distil(settings: Settings, workshop: Workshop, health: Health) -> list[float]:
    """Test accuracies of student and baseline."""
    workshop = dataclasses.replace(workshop, watcher=health)
    lineup = make_lineup(settings, workshop)
    alone, prepared = lineup.pairs[0]
    assert alone is not None
    teacher = obtain_teacher(lineup, workshop)
    baseline = workshop.obtain("baseline", alone)
    student = train_student(prepared, teacher, workshop)
    targets = workshop.feed.test.targets.cpu()
    return [measure(each.selected.test_logits, targets)["accuracy"] for each in (student, baseline)]


def search(settings: Settings, workshop: Workshop, health: Health) -> list[float]:
    """Validation accuracies of the baseline at the default rate, and at all rates; 0 where a training diverges."""
    accuracies = []
    for factor in FACTORS:
        watcher = health if factor == 1.0 else Watcher()
        shop = dataclasses.replace(workshop, watcher=watcher)
        alone = make_lineup(settings, shop).pairs[0].baseline  # a new network for each rate
        assert alone is not None
        training = alone.training.with_rate(factor * alone.training.recipe.optimizer["lr"])
        try:
            accuracies.append(shop.obtain("baseline", alone.at_rate(training, ())).selected.val["accuracy"])
        except DivergedError:
            accuracies.append(0.0)
    return [accuracies[0], *accuracies]


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
    for line in ("", *markdown([result for result in results if result.left_out is None])):
        console.note(line)
    num_failed = sum(result.problem is not None for result in results)
    console.note(f"\n{num_failed} of {len(results)} cells failed; the results are in {grid.path}")
    return num_failed == 0


def _chosen(options: Any, console: Console) -> list[str]:
    """The cells that the options choose; says which are left out because something is not there."""
    cells = [cell for cell in all_cells(with_search=options.search) if options.cells.search(cell)]
    if not cells:
        raise user_error(
            f"--cells={options.cells.pattern} matches no cell", "see the names with --list; add --search for searches"
        )
    sources = _sources(options)
    for name, folder in sources.items():
        check_source(name, folder)
    missing = {data: photos.source for data, photos in PHOTOS.items() if photos.source not in sources}
    for data, source in missing.items():
        console.warn(f"cells of {data} are left out: --{source} is not given")
    if importlib.util.find_spec("timm") is None:
        console.warn("cells of the student timm are left out: pip install 'distill-run[models]'")
        cells = [cell for cell in cells if "/timm/" not in cell]
    return [cell for cell in cells if cell.split("/")[0] not in missing]


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
    try:
        options.cells = re.compile(options.cells)
    except re.error as error:
        raise user_error(
            f"--cells={options.cells} is not a regular expression ({error})",
            "write one such as --cells 'digits/.*/soft'",
        ) from error
    seeds = options.seeds.split(",")
    if len(set(seeds)) < 2 or not all(seed.isdecimal() for seed in seeds):
        raise user_error(
            f"--seeds={options.seeds} is not accepted",
            "write two or more numbers, as in --seeds 0,1,2: they show noise",
        )
    options.seeds = [int(seed) for seed in seeds]
    return options


if __name__ == "__main__":
    leave(lambda: main(sys.argv[1:]))
