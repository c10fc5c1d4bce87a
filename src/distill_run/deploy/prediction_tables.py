"""Predictions as texts, written while they come: a table for people, csv, or JSON."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from distill_run.deploy.predictions import Prediction
from distill_run.safe_text import csv_lines, for_terminal
from distill_run.units import percent

DIGITS = 6  # of a probability, after the point
WIDEST = 24  # characters for the name of a class in the table; longer ones push their line to the right


class Layout(NamedTuple):
    """What the rows have: the networks by their stages, so many classes of each, the names of all classes.

    `has_targets` says whether the right class of an image may be known.
    """

    stages: Sequence[str]
    top: int
    classes: Sequence[str]
    has_targets: bool


def as_table(predictions: Iterable[Prediction], layout: Layout) -> Iterator[str]:
    """A line for each image that can be read, below a heading; the name stands last, for its length is not known."""
    width = min(max(map(len, [*layout.classes, *layout.stages])), WIDEST)
    cell = f"{'':{width}}  {'':7}"
    heading = ["target".ljust(width)] if layout.has_targets else []
    heading += [stage.ljust(layout.top * (len(cell) + 2) - 2) for stage in layout.stages]
    yield "  ".join([*heading, "image"]) + "\n"
    for prediction in predictions:
        if prediction.problem:
            continue
        cells = [(prediction.target or "").ljust(width)] if layout.has_targets else []
        for answers in prediction.answers.values():
            cells += [f"{answer.name:<{width}}  {percent(answer.probability):>7}" for answer in answers]
        yield for_terminal("  ".join([*cells, prediction.name])) + "\n"


def as_csv(predictions: Iterable[Prediction], layout: Layout) -> Iterator[str]:
    """A row for each image, below a heading; the second class of a network stands in columns of its own."""
    heading = ["image", *(["target"] if layout.has_targets else [])]
    for stage in layout.stages:
        for place in range(1, layout.top + 1):
            column = stage if place == 1 else f"{stage}_{place}"
            heading += [column, f"{column}_probability"]
    yield csv_lines([[*heading, "error"]])
    for prediction in predictions:
        cells = [prediction.name, *([prediction.target or ""] if layout.has_targets else [])]
        for stage in layout.stages:
            for answer in prediction.answers.get(stage, [None] * layout.top):
                cells += ["", ""] if answer is None else [answer.name, f"{answer.probability:.{DIGITS}f}"]
        yield csv_lines([[*cells, prediction.problem]])


def as_json(predictions: Iterable[Prediction], layout: Layout) -> Iterator[str]:
    """One array, with an object for each image on a line of its own."""
    before = "[\n"
    for prediction in predictions:
        yield before + json.dumps(_json_row(prediction, layout))
        before = ",\n"
    yield "\n]\n"


FORMATS: dict[str, Callable[[Iterable[Prediction], Layout], Iterator[str]]] = {
    "table": as_table,
    "csv": as_csv,
    "json": as_json,
}


def _json_row(prediction: Prediction, layout: Layout) -> dict[str, Any]:
    row: dict[str, Any] = {"image": prediction.name}
    if layout.has_targets:
        row["target"] = prediction.target
    for stage, answers in prediction.answers.items():
        row[stage] = [{"class": answer.name, "probability": round(answer.probability, DIGITS)} for answer in answers]
    return row | ({"error": prediction.problem} if prediction.problem else {})
