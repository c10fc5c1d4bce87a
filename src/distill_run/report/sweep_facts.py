"""The words and figures of a sweep's pages, drawn from the content of sweep.json: what is said, not how it is set."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill_run.report.commands import shown
from distill_run.report.sweep_summary import runs, short_keys
from distill_run.report.typesetting import Tile
from distill_run.units import NONE, change, duration, percent, with_spread

MAX_OPEN_ROWS = 30
MAX_ERROR_LENGTH = 400
MAX_NAMES = 3
BACKGROUNDS = ("datasets", "teachers", "students")
ALIKE = "\N{ALMOST EQUAL TO}"  # marks what cannot be told from the recommended setting

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

Content = Mapping[str, Any]


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
        return f"Sweep over {_listed(content['keys'])}"
    if content["replicate_keys"]:
        return f"One setting, repeated over {_listed(content['replicate_keys'])}"
    return runs(len(content["runs"])).capitalize() if content["runs"] else "No runs"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


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


def answers(content: Content) -> list[tuple[str, str]]:
    """What people ask of a sweep, in the order in which they ask it."""
    best = content["recommendation"]
    if best is None:
        return []
    found = [("How sure is the choice?", _certainty(content))]
    if best["difference"] is not None:
        found.append(("Was distillation worth it?", _worth(best["difference"])))
    return [
        *found,
        ("May the test accuracy be believed?", _honesty(content)),
        ("What do the intervals cover?", _coverage(content)),
        *([("What was left out?", _left_out(content))] if best["incomplete"] else []),
    ]


def _certainty(content: Content) -> str:
    best = content["recommendation"]
    if len(content["settings"]) == 1:
        return "There was nothing to choose from: all runs have the same setting."
    if best["val_accuracy"]["count"] == 1:
        return (
            "That cannot be said: one run a setting does not tell a better setting from a luckier one. "
            "Add seed=0,1,2 to the sweep's command."
        )
    if not best["compared"]:
        return "That cannot be said: no other setting shares two completed runs with it."
    alike, compared = len(best["alternatives"]), best["compared"]
    share = {0: "None", compared: "All"}.get(alike, str(alike))
    return (
        f"{share} of {compared} other settings cannot be told from it on validation: paired by seed, the 95% interval "
        f"of their difference contains zero ({ALIKE} in the table). That does not prove them equal: more seeds tell "
        "more apart."
    )


def _worth(difference: Mapping[str, Any]) -> str:
    mean = change(difference["mean"])
    if difference["low"] is None:
        return (
            f"In this one run the student gained {mean} points over the baseline. Add seed=0,1,2 to see if that lasts."
        )
    low, high = change(difference["low"]), change(difference["high"])
    verdict = "it contains zero, so that these runs do not show that distillation helps or harms"
    if difference["low"] > 0:
        verdict = "it lies above zero: distillation helped"
    elif difference["high"] < 0:
        verdict = "it lies below zero: distillation did harm"
    return (
        f"Paired with the baseline of the same seed, the student differs by {mean} points, "
        f"95% interval {low} to {high}: {verdict}."
    )


def _honesty(content: Content) -> str:
    if len(content["settings"]) == 1:
        return "Yes: validation selected the epoch, and the test split was read once, at the end."
    return (
        "Yes: settings are chosen by validation alone, the test accuracy took no part in it. The validation accuracy "
        f"of the best is flattered by the choice among {len(content['settings'])}; its test accuracy is not. To choose "
        "by the column of test accuracies would undo that."
    )


def _coverage(content: Content) -> str:
    keys = content["replicate_keys"]
    if content["recommendation"]["val_accuracy"]["count"] == 1:
        return "There are none: they need two or more runs of a setting, as seed=0,1,2 gives them."
    caveat = " Runs that share one of these are not independent: the intervals are then too narrow."
    return (
        f"What another {_listed(keys)} would change: Student's t interval of the mean over the completed runs of a "
        f"setting. Another choice of test images they do not cover.{caveat if len(keys) > 1 else ''}"
    )


def _left_out(content: Content) -> str:
    best = content["recommendation"]
    count = len(best["incomplete"])
    return (
        f"{count} setting{'' if count == 1 else 's'} with fewer than {best['val_accuracy']['count']} completed runs: "
        "what the missing runs would have said might have changed the mean."
    )


def settings_table(content: Content) -> Table:
    """A row for each setting, the recommended one first, then the others by validation."""
    keys = content["keys"]
    shown_figures = [
        figure for figure in COLUMNS if any(setting[figure] is not None for setting in content["settings"])
    ]
    headings = ["", *short_keys(keys).values(), "runs", *(COLUMNS[figure][0] for figure in shown_figures)]
    rows = [
        [
            Cell(_rank(place, content)),
            *(Cell(shown(setting["values"][key])) for key in keys),
            Cell(_replicates(setting)),
            *(_estimate(setting[figure], *COLUMNS[figure][1:]) for figure in shown_figures),
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


def _estimate(found: Mapping[str, Any] | None, show: Callable[[float], str], is_spread: bool) -> Cell:
    if found is None:
        return Cell(NONE)
    if not is_spread:
        return Cell(show(found["mean"]))
    span = "" if found["low"] is None else f"{show(found['low'])} to {show(found['high'])}"
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
