"""The words and figures of a sweep's pages, drawn from the content of sweep.json: what is said, not how it is set."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill_run.report.typesetting import Tile
from distill_run.sweeps.report.answers import ALIKE, Content, listed
from distill_run.sweeps.report.summary import runs, short_keys
from distill_run.sweeps.typed import shown
from distill_run.units import NONE, change, duration, percent, with_spread

MAX_OPEN_ROWS = 30
MAX_ERROR_LENGTH = 400
MAX_NAMES = 3
BACKGROUNDS = ("datasets", "teachers", "students")

# The columns of figures: heading, how a mean is shown, whether with its spread. One that no setting has is left out.
COLUMNS: dict[str, tuple[str, Callable[[float], str], bool]] = {
    "val_accuracy": ("validation", percent, True),
    "test_accuracy": ("test", percent, True),
    "difference": ("change", change, True),
    "gap_recovered": ("gap recovered", "{:.0%}".format, False),
    "agreement": ("agreement", percent, False),
    "teacher_test_accuracy": ("teacher's test", percent, False),
    "train_seconds": ("trained in", duration, False),
}
RUN_COLUMNS = {
    "val_accuracy": "validation",
    "test_accuracy": "test",
    "baseline_test_accuracy": "baseline's test",
    "difference": "change",
    "agreement": "agreement",
}


@dataclass(frozen=True)
class Cell:
    """What a table says in one place, with a smaller note below it, and where it leads to."""

    text: str
    note: str = ""
    link: str | None = None


@dataclass(frozen=True)
class Table:
    """Headings and rows; the first `num_texts` columns are words, the others are figures."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    num_texts: int


def title(content: Content) -> str:
    """What was varied, in one line."""
    if content["keys"]:
        return f"Sweep over {listed(content['keys'])}"
    if content["replicate_keys"]:
        return f"One setting, repeated over {listed(content['replicate_keys'])}"
    return runs(len(content["runs"])).capitalize() if content["runs"] else "No runs"


def labels(content: Content) -> list[str]:
    """How many settings and runs there are, and what they have in common."""
    counts = {status: count for status, count in content["counts"].items() if count}
    num_settings = len(content["settings"])
    return [
        *([f"{num_settings} settings"] if num_settings > 1 else []),
        *(f"{count} {status}" for status, count in counts.items()),
        *(f"{kind.removesuffix('s')} {_few(names)}" for kind in BACKGROUNDS if (names := content[kind])),
    ]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= MAX_NAMES else f"{len(names)} different ones"


def tiles(content: Content) -> list[Tile]:
    """The key figures of the recommended setting; none where nothing is recommended."""
    if content["recommendation"] is None:
        return []
    best = content["settings"][0]
    difference, gap, agreement = best["difference"], best["gap_recovered"], best["agreement"]
    shown_tiles = [
        Tile("Validation accuracy", percent(best["val_accuracy"]["mean"]), _span(best["val_accuracy"], percent)),
        Tile("Test accuracy", percent(best["test_accuracy"]["mean"]), _span(best["test_accuracy"], percent)),
    ]
    if difference is not None:
        note = f"points, from {best['baseline_test_accuracy']['mean']:.2%} alone; {_span(difference, change)}"
        shown_tiles.append(Tile("Change by distillation", change(difference["mean"]), note))
    if gap is not None:
        shown_tiles.append(Tile("Gap recovered", f"{gap['mean']:.0%}", "of the way from baseline to teacher"))
    return [*shown_tiles, Tile("Teacher agreement", percent(agreement["mean"]), "of test images decided alike")]


def _span(found: Mapping[str, Any], show: Callable[[float], str]) -> str:
    """An estimate's interval in words, or that there is none."""
    if found["low"] is None:
        return f"one run; 95% interval {NONE}"
    return f"{runs(found['count'])}; 95% interval {show(found['low'])} to {show(found['high'])}"


def settings_table(content: Content) -> Table:
    """A row for each setting, the recommended one first, then the others by validation."""
    keys = content["keys"]
    shown_figures = [
        figure for figure in COLUMNS if any(setting[figure] is not None for setting in content["settings"])
    ]
    headings = ["", *short_keys(keys).values(), "runs", *(COLUMNS[figure][0] for figure in shown_figures)]
    is_replicated = any(setting["replicates"] > 1 for setting in content["settings"])
    without_interval = NONE if is_replicated else ""  # a column of dashes says nothing
    rows = [
        [
            Cell(_rank(place, content)),
            *(Cell(shown(setting["values"][key])) for key in keys),
            Cell(_replicates(setting)),
            *(_estimate(setting[figure], *COLUMNS[figure][1:], without_interval) for figure in shown_figures),
        ]
        for place, setting in enumerate(content["settings"])
    ]
    return Table("Settings, ranked by validation", headings, rows, 1 + len(keys))


def _rank(place: int, content: Content) -> str:
    if not content["settings"][place]["replicates"]:
        return NONE
    is_alike = place in content["recommendation"]["alternatives"]
    return f"{place + 1} {ALIKE}" if is_alike else str(place + 1)


def _replicates(setting: Content) -> str:
    done, asked = setting["replicates"], setting["asked"]
    return str(done) if done == asked else f"{done} of {asked}"


def _estimate(
    found: Mapping[str, Any] | None, show: Callable[[float], str], is_spread: bool, without_interval: str
) -> Cell:
    if found is None:
        return Cell(NONE)
    if not is_spread:
        return Cell(show(found["mean"]))
    span = without_interval if found["low"] is None else f"{show(found['low'])} to {show(found['high'])}"
    return Cell(with_spread(show(found["mean"]), found["sd"]), span)


def runs_table(content: Content) -> Table:
    """A row for each run."""
    keys = [*content["keys"], *content["replicate_keys"]]
    figures = [name for name in RUN_COLUMNS if any(run[name] is not None for run in content["runs"])]
    headings = ["run", "status", *short_keys(keys).values(), *(RUN_COLUMNS[name] for name in figures)]
    rows = []
    for run in content["runs"]:
        name, is_completed = run["directory"], run["status"] == "completed"
        numbers = [change(run[figure]) if figure == "difference" else percent(run[figure]) for figure in figures]
        rows.append(
            [
                Cell(name, link=f"{name}/report.html" if is_completed else None),
                *map(Cell, [run["status"], *(shown(run["values"][key]) for key in keys), *numbers]),
            ]
        )
    return Table("Runs", headings, rows, 2 + len(keys))


def troubles_table(content: Content) -> Table | None:
    """The runs that did not complete, with the reason; None where all did."""
    keys = [*content["keys"], *content["replicate_keys"]]
    rows = [
        [
            *map(Cell, [run["directory"], run["status"], *(shown(run["values"][key]) for key in keys)]),
            Cell(_cut(run["error"])),
        ]
        for run in content["runs"]
        if run["status"] != "completed"
    ]
    return (
        Table("Runs without a result", ["run", "status", *short_keys(keys).values(), "reason"], rows, len(keys) + 3)
        if rows
        else None
    )


def _cut(error: str) -> str:
    return error if len(error) <= MAX_ERROR_LENGTH else error[: MAX_ERROR_LENGTH - 1] + "…"
