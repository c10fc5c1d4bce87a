"""The content of sweep.json and sweep.csv, all fractions, and the sentences that are drawn from it."""

import csv
import dataclasses
import io
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill_run.sweeps.grouping import FIGURES, Recommendation, Setting, Sweep
from distill_run.sweeps.points import STATUSES, Point
from distill_run.sweeps.typed import DEFAULT, shown

FORMAT = 1
NUMBER = re.compile(r"\d+(\.\d+)?")


def summarise_sweep(sweep: Sweep, folder: Path) -> dict[str, Any]:
    """The content of sweep.json (format 1) in `folder`; fractions, nats and seconds, null where there is no number.

    {"format": 1, "directories": [absolute paths], "keys": [...], "replicate_keys": [...],
     "datasets" | "teachers" | "students": [names],
     "counts": {"completed", "pruned", "failed", "unfinished", "unreadable"},
     "settings": [ranked, the recommended one first:
         {"values": {key: value}, "runs": [ids], "replicates": how many completed, "asked": how many there should be,
          <figure>: {"count", "mean", "sd", "low", "high"} | null, ...}],
     "runs": [{"directory": id, relative to the folder of sweep.json, "status", "error",
               "values": {key: value}, "seed", "command", <figure>: number | null, ...}],
     "recommendation": {"setting": its place in settings, "values", "val_accuracy", "test_accuracy", "difference",
         "alternatives" | "incomplete": [places], "compared": number, "command"} | null,
     "conclusion": sentence, "warnings": [sentences]}

    The figures are those of points.Figures; `low` and `high` are the 95% interval over the replicates.
    """
    names = {id(point): os.path.relpath(point.run_dir, folder.resolve()) for point in sweep.points}
    content: dict[str, Any] = {
        "format": FORMAT,
        "directories": [str(directory.resolve()) for directory in sweep.directories],
        "keys": list(sweep.keys),
        "replicate_keys": list(sweep.replicate_keys),
        **_backgrounds(sweep),
        "counts": {status: sum(point.status == status for point in sweep.points) for status in STATUSES},
        "settings": [_setting(setting, names) for setting in sweep.settings],
        "runs": [_run(point, sweep, names[id(point)]) for point in sweep.points],
        "recommendation": _recommendation(sweep.recommendation, sweep.settings),
    }
    return {**content, "conclusion": conclude(content), "warnings": _warnings(sweep, content)}


def _backgrounds(sweep: Sweep) -> dict[str, list[str]]:
    found = [point.findings for point in sweep.points if point.findings is not None]
    return {
        "datasets": sorted({str(each.dataset.get("name")) for each in found}),
        "teachers": sorted({each.architectures[0] for each in found}),
        "students": sorted({each.architectures[1] for each in found}),
    }


def _setting(setting: Setting, names: Mapping[int, str]) -> dict[str, Any]:
    figures = {name: found and dataclasses.asdict(found) for name, found in setting.figures.items()}
    return {
        "values": setting.values,
        "runs": [names[id(point)] for point in setting.points],
        "replicates": len(setting.replicates),
        "asked": setting.num_asked,
        **figures,
    }


def _run(point: Point, sweep: Sweep, name: str) -> dict[str, Any]:
    seed = point.findings.seed if point.findings is not None else point.value("seed")
    return {
        "directory": name,
        "status": point.status,
        "error": point.error,
        "values": {key: point.value(key) for key in (*sweep.keys, *sweep.replicate_keys)},
        "seed": None if seed == DEFAULT else seed,
        "command": point.command and point.command.text,
        **{figure: point.findings and getattr(point.figures, figure) for figure in FIGURES},
    }


def _recommendation(best: Recommendation | None, settings: tuple[Setting, ...]) -> dict[str, Any] | None:
    if best is None:
        return None
    places = {id(setting): place for place, setting in enumerate(settings)}
    estimates = {name: best.setting.figures[name] for name in ("val_accuracy", "test_accuracy", "difference")}
    return {
        "setting": places[id(best.setting)],
        "values": best.setting.values,
        **{name: found and dataclasses.asdict(found) for name, found in estimates.items()},
        "alternatives": [places[id(setting)] for setting in best.alternatives],
        "compared": best.num_compared,
        "incomplete": [places[id(setting)] for setting in best.incomplete],
        "command": best.command,
    }


def conclude(content: Mapping[str, Any]) -> str:
    """One sentence: which setting validation picks, and what its student reaches on test."""
    best = content["recommendation"]
    if best is None:
        return "No run is completed: there is nothing to recommend yet."
    count, test = best["test_accuracy"]["count"], best["test_accuracy"]["mean"]
    mean = "" if count == 1 else f", the mean of {runs(count)}"
    reached = f"{test:.2%} on test{mean}{_against_baseline(best)}."
    if not content["keys"]:
        return f"The student reaches {reached}"
    name, considered = setting_name(best["values"]), sum(each["replicates"] == count for each in content["settings"])
    if considered == 1:
        return f"Only {name} has {runs(count)} completed: it reaches {reached}"
    return f"The best of {considered} settings on validation is {name}: it reaches {reached}"


def _against_baseline(best: Mapping[str, Any]) -> str:
    difference = best["difference"]
    if difference is None:
        return ""
    points = 100 * difference["mean"]
    return f", {abs(points):.2f} points {'above' if points >= 0 else 'below'} the student alone"


def runs(count: int) -> str:
    """A number of runs in words."""
    return f"{count} run{'' if count == 1 else 's'}"


def setting_name(values: Mapping[str, Any]) -> str:
    """A setting in words: its keys, as short as they can be told apart, with their values."""
    names = short_keys(list(values))
    return ", ".join(f"{names[key]} {shown(value)}" for key, value in values.items()) or "the only setting"


def short_keys(keys: list[str]) -> dict[str, str]:
    """The last part of each key where no other key ends alike, otherwise the whole key."""
    ends = Counter(key.rpartition(".")[2] for key in keys)
    return {key: end if ends[end := key.rpartition(".")[2]] == 1 else key for key in keys}


def _warnings(sweep: Sweep, content: Mapping[str, Any]) -> list[str]:
    found = [point.findings for point in sweep.points if point.findings is not None]
    told = _told([each.warnings for each in found])
    return [*_different_data(sweep), *_different_folders(sweep), *_repeated(sweep), *_unlucky(content), *told]


def _told(warnings: Sequence[Sequence[str]]) -> list[str]:
    """What the runs warn of, each with the number of runs; of those that differ in numbers only, the first."""
    kinds: dict[str, list[str]] = {}
    for texts in warnings:
        for kind, text in {NUMBER.sub("0", text): text for text in texts}.items():
            kinds.setdefault(kind, []).append(text)
    return [
        f"{texts[0]} ({len(texts)} of {runs(len(warnings))}{', with other numbers in some' * (len(set(texts)) > 1)})"
        for texts in sorted(kinds.values(), key=len, reverse=True)
    ]


def _different_data(sweep: Sweep) -> list[str]:
    keys = ["name", "num_classes", "train_size", "val_size", "test_size"]
    if "dataset.split_seed" not in sweep.replicate_keys:  # another cut is other content, as was asked
        keys.append("content")
    found = [point.findings.dataset for point in sweep.points if point.findings is not None]
    kinds = {json.dumps([dataset.get(key) for key in keys], default=str) for dataset in found}
    if len(kinds) < 2:
        return []
    return [f"the runs used {len(kinds)} different sets of data: their accuracies cannot be compared"]


def _different_folders(sweep: Sweep) -> list[str]:
    folders = {" ".join(point.command.options) for point in sweep.points if point.command is not None}
    if len(folders) < 2:
        return []
    shown_folders = ", ".join(folder or "none" for folder in sorted(folders))
    return [f"the runs were started with different options ({shown_folders}): the same key may mean different things"]


def _repeated(sweep: Sweep) -> list[str]:
    completed = sum(point.findings is not None for point in sweep.points)
    spare = completed - sum(len(setting.replicates) for setting in sweep.settings)
    if not spare:
        return []
    return [f"{runs(spare)} repeated what another had run, seed and all: the first of each counts, the others do not"]


def _unlucky(content: Mapping[str, Any]) -> list[str]:
    """Settings that would have won, had they been complete."""
    best = content["recommendation"]
    incomplete = [content["settings"][place] for place in best["incomplete"]] if best else []
    return [
        f"{setting_name(setting['values'])} has {setting['val_accuracy']['mean']:.2%} on validation, more than what is "
        f"recommended, but only {setting['replicates']} of {best['val_accuracy']['count']} runs: it was not considered"
        for setting in incomplete
        if setting["val_accuracy"]["mean"] > best["val_accuracy"]["mean"]
    ]


def to_csv(content: Mapping[str, Any]) -> str:
    """One row a run, with a header; empty where there is no value."""
    keys = [key for key in (*content["keys"], *content["replicate_keys"]) if key != "seed"]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["directory", "status", "error", *keys, "seed", *FIGURES, "command"])
    for run in content["runs"]:
        head = [run["directory"], run["status"], run["error"]]
        values = [shown(run["values"][key]) for key in keys]
        writer.writerow([*head, *values, run["seed"], *(run[figure] for figure in FIGURES), run["command"]])
    return file.getvalue()
