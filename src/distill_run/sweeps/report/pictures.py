"""The figure of a sweep, with what it shows in words. Importing this module imports matplotlib."""

from collections.abc import Mapping
from typing import Any

from distill_run.report.drawing import Picture, render
from distill_run.sweeps.report.coordinates import parallel_coordinates
from distill_run.sweeps.report.curves import key_curve, seed_strip
from distill_run.sweeps.report.heat_map import heat_maps, is_grid, side_keys
from distill_run.sweeps.report.summary import runs, setting_name

NAME = "sweep"


def draw_sweep(content: Mapping[str, Any]) -> Picture | None:
    """What suits the number of keys: seeds, a curve, heat maps, parallel coordinates; None of a single point."""
    keys = content["keys"]
    completed = [setting for setting in content["settings"] if setting["replicates"]]
    if not keys:
        return _seeds(content) if completed and completed[0]["replicates"] > 1 else None
    if len(completed) < 2:
        return None
    if len(keys) == 1:
        return _curve(content)
    return _heat_maps(content) if len(keys) == 2 and is_grid(content) else _coordinates(content)


def _recommended(content: Mapping[str, Any]) -> str:
    best = content["recommendation"]
    return (
        f"Recommended: {setting_name(best['values'])}, with {best['val_accuracy']['mean']:.2%} on validation and "
        f"{best['test_accuracy']['mean']:.2%} on test. The table below has every setting in figures."
    )


def _seeds(content: Mapping[str, Any]) -> Picture:
    setting = content["settings"][0]
    return Picture(
        NAME,
        "Run by run",
        f"Validation and test accuracy of {runs(setting['replicates'])} that differ in "
        f"{' and '.join(content['replicate_keys'])} only. The table below has them in figures.",
        "Each mark is one run's selected epoch; where there is a baseline, a line joins it to the student that was "
        "trained with the same seed. Dashed lines are the means.",
        render(seed_strip(content)),
    )


def _curve(content: Mapping[str, Any]) -> Picture:
    [key] = content["keys"]
    return Picture(
        NAME,
        f"Accuracy by {key}",
        f"Validation and test accuracy against {key}. {_recommended(content)}",
        "The band is the 95% interval of the mean over the runs of a setting, and needs at least two of them. The ring "
        "is the setting that is best on validation; test accuracy took no part in the choice.",
        render(key_curve(content, key)),
    )


def _heat_maps(content: Mapping[str, Any]) -> Picture:
    rows, columns = side_keys(content)
    return Picture(
        NAME,
        f"Accuracy by {rows} and {columns}",
        f"Heat maps of validation and test accuracy: {rows} down, {columns} across. {_recommended(content)}",
        "Each cell is a setting: the mean over its runs and, of several, their standard deviation in points. Darker is "
        "better, each map on its own scale; hatched cells have no completed run. The frame is the setting that is "
        "best on validation; test accuracy took no part in the choice.",
        render(heat_maps(content)),
    )


def _coordinates(content: Mapping[str, Any]) -> Picture:
    return Picture(
        NAME,
        "All settings at a glance",
        f"Parallel coordinates of {', '.join(content['keys'])} and the validation accuracy. {_recommended(content)}",
        "A line is a setting: it crosses each axis at its value and ends at its validation accuracy, the mean over its "
        "runs. Darker is better; the black line is the setting that is best on validation.",
        render(parallel_coordinates(content)),
    )
