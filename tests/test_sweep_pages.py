"""A sweep's files for people, the plot that suits its keys, and the command `distill-report`."""

import base64
import csv
import dataclasses
import itertools
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from conftest import InProcess
from distill_run.commands import installed
from distill_run.sweeps.report.answers import answers
from distill_run.sweeps.report.coordinates import parallel_coordinates
from distill_run.sweeps.report.curves import key_curve, scale_of, seed_strip
from distill_run.sweeps.report.exports import latex_text
from distill_run.sweeps.report.heat_map import BLUES, heat_maps, is_grid
from distill_run.sweeps.report.pages import write_sweep_report
from distill_run.sweeps.report.pictures import draw_sweep
from distill_run.sweeps.report.sweep_report import SweepReport, read_sweep_json
from distill_run.sweeps.report.tables import settings_table
from distill_run.units import NONE
from helpers import Page
from sweeps import made_up_repeats, write_run

HOSTILE = "<script>alert(1)</script>|$x$`"


def write_grid(folder: Path, seeds: Sequence[int] = (0, 1), **keys: Sequence[Any]) -> SweepReport:
    """A sweep over a grid, with a validation accuracy that grows from setting to setting; returns its report."""
    points = itertools.product(*keys.values(), seeds)
    total = math.prod(map(len, keys.values()))
    for number, (*values, seed) in enumerate(points):
        overrides = [f"{key.replace('__', '.')}={value}" for key, value in zip(keys, values, strict=True)]
        val = 0.5 + 0.4 * (number // len(seeds)) / total
        write_run(folder / str(number), [*overrides, f"seed={seed}"], val=val, test=val - 0.1, seed=seed)
    return write_sweep_report([folder], folder)


def page_of(folder: Path) -> Page:
    return Page((folder / "sweep.html").read_text(encoding="utf-8"))


def markdown(folder: Path) -> str:
    return (folder / "sweep.md").read_text(encoding="utf-8")


def texts(figure: Figure) -> list[str]:
    return [artist.get_text() for artist in figure.findobj(Text) if isinstance(artist, Text)]


# the pages


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep over two keys and two seeds, one run of which failed in a hostile way."""
    folder = tmp_path_factory.mktemp("sweep")
    write_run(folder / "12", ["mode.temperature=1", "mode.alpha=0.1", "seed=2"], status="failed", error=f"no {HOSTILE}")
    write_grid(folder, mode__temperature=(1, 2, 4), mode__alpha=(0.1, 0.9))
    return folder


def test_the_directory_gets_exactly_these_files(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir() if not path.name.isdecimal()) == [
        "plots", "sweep.csv", "sweep.html", "sweep.json", "sweep.md",
    ]  # fmt: skip
    assert [path.name for path in (folder / "plots").iterdir()] == ["sweep.png"]


def test_the_json_is_what_was_returned_and_finite(folder: Path) -> None:
    text = (folder / "sweep.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == write_sweep_report([folder], folder).to_json()
    assert len(list(csv.reader((folder / "sweep.csv").read_text().splitlines()))) == 1 + 13


def test_the_page_needs_nothing_from_outside_and_embeds_the_very_plot_of_the_folder(folder: Path) -> None:
    page = page_of(folder)
    assert not page.all("script")
    assert not page.all("link")
    assert [str(image["src"]).partition(",")[0] for image in page.all("img")] == ["data:image/png;base64"]
    links = [str(link["href"]) for link in page.all("a")]
    assert links == [f"{number}/report.html" for number in range(12)]
    assert "url(" not in (folder / "sweep.html").read_text(encoding="utf-8")
    [image] = page.all("img")
    assert base64.b64decode(str(image["src"]).partition(",")[2]) == (folder / "plots" / "sweep.png").read_bytes()
    assert image["alt"]
    assert "![" in markdown(folder)
    assert "](plots/sweep.png)" in markdown(folder)


def test_both_pages_say_the_figures(folder: Path) -> None:
    report = read_sweep_json(folder)
    best = report.recommendation
    assert best is not None
    for text in (page_of(folder).text, markdown(folder)):
        assert report.conclusion in text
        assert best.command in text
        assert f"{best.val_accuracy.mean:.2%}" in text
        assert "took no part in" in text
        assert "They do not cover another choice of test images." in text
        assert "could change with another seed" in text


def test_hostile_errors_and_values_are_shown_as_they_are(tmp_path: Path) -> None:
    for number in range(2):
        write_run(tmp_path / str(number), [f"mode.name={HOSTILE}{number}"], warnings=[HOSTILE])
    write_run(tmp_path / "2", [f"mode.name={HOSTILE}2"], status="failed", error=HOSTILE)
    write_sweep_report([tmp_path], tmp_path)
    page = page_of(tmp_path)
    assert not page.all("script")
    assert f"{HOSTILE}1" in page.text
    assert f"{HOSTILE} (2 of 2 runs)" in page.text
    outside_code = re.sub(r"`{3,}.*?`{3,}", "", markdown(tmp_path), flags=re.DOTALL)
    assert "<script" not in outside_code.replace("\\<", "")
    blocks = re.findall(r"(?:^\|.*\n)+", outside_code, re.MULTILINE)
    widths = [{len(re.findall(r"(?<!\\)\|", row)) for row in block.splitlines()} for block in blocks]
    assert [len(width) for width in widths] == [1] * len(blocks)


def test_two_hundred_points_stay_readable(tmp_path: Path) -> None:
    write_grid(tmp_path, seeds=[0], mode__temperature=range(1, 21), mode__alpha=[i / 10 for i in range(10)])
    page = page_of(tmp_path)
    assert [details for details in page.all("details") if "open" in details] == []
    assert "The other 170" in page.text
    assert "All 200 runs" in page.text
    assert markdown(tmp_path).count("<details>") == markdown(tmp_path).count("</details>") == 2


def test_one_point_has_no_plot_and_all_else(tmp_path: Path) -> None:
    write_run(tmp_path / "0", ["mode.alpha=0.5"])
    report = write_sweep_report([tmp_path], tmp_path)
    assert not (tmp_path / "plots").exists()
    page = page_of(tmp_path)
    assert report.recommendation is not None
    assert report.recommendation.command == "distill-run mode.alpha=0.5"
    assert "one run; 95% interval –" in page.text  # noqa: RUF001 - the dash is meant
    assert "seed=0,1,2" in page.text
    assert "± " not in re.sub(r"±\s+their", "", page.text)
    assert not page.all("img")
    assert "None" not in page.text.replace("None of", "")


def test_without_a_completed_point_the_page_lists_the_failures(tmp_path: Path) -> None:
    report = write_sweep_report([tmp_path], tmp_path)
    assert (report.runs, report.settings, report.recommendation) == ((), (), None)
    assert "No runs" in page_of(tmp_path).text
    for number in range(2):
        write_run(tmp_path / str(number), [f"mode.alpha=0.{number}"], status="failed", error=f"reason {number}")
    report = write_sweep_report([tmp_path], tmp_path)
    assert report.recommendation is None
    for text in (page_of(tmp_path).text, markdown(tmp_path)):
        assert "No run is completed" in text
        assert "reason 0" in text
        assert "How to repeat" not in text
        assert "Settings" not in text


def test_without_a_baseline_its_columns_are_left_out(tmp_path: Path) -> None:
    for number in range(2):
        write_run(tmp_path / str(number), [f"mode.alpha=0.{number}"], baseline=None)
    report = write_sweep_report([tmp_path], tmp_path)
    assert settings_table(report).headings == [
        "", "alpha", "runs", "validation", "test", "agreement", "teacher's test", "trained in",
    ]  # fmt: skip
    assert "Was distillation worth it?" not in dict(answers(report))
    assert "baseline" not in markdown(tmp_path)


def test_a_report_across_sweeps_leads_to_their_runs(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name / "0", [f"mode={name}"])
    report = write_sweep_report([tmp_path / "a", tmp_path / "b"], tmp_path / "c" / "d")
    assert [run.directory for run in report.runs] == ["../../a/0", "../../b/0"]
    assert [link["href"] for link in page_of(tmp_path / "c" / "d").all("a")] == [
        "../../a/0/report.html", "../../b/0/report.html",
    ]  # fmt: skip


def test_what_distillation_was_worth_follows_the_interval(tmp_path: Path) -> None:
    report = write_grid(tmp_path, mode__alpha=(0.1, 0.9))
    assert report.recommendation is not None
    assert report.recommendation.difference is not None
    for low, high, words in (
        (0.01, 0.05, "it lies above zero: distillation helped"),
        (-0.05, -0.01, "it lies below zero: distillation did harm"),
        (-0.01, 0.05, "these runs do not show that distillation helps or harms"),
    ):
        difference = dataclasses.replace(report.recommendation.difference, low=low, high=high)
        best = dataclasses.replace(report.recommendation, difference=difference)
        assert words in dict(answers(dataclasses.replace(report, recommendation=best)))["Was distillation worth it?"]


def test_replicates_that_share_a_seed_are_said_to_depend(tmp_path: Path) -> None:
    report = write_grid(tmp_path, seeds=[0, 1], teacher_seed=(0, 1))
    assert "are not independent" in dict(answers(report))["What do the intervals cover?"]
    assert report.recommendation is not None
    assert report.recommendation.command == "distill-run -m seed=0,1 teacher_seed=0,1"


def test_the_table_ends_with_the_baseline_that_all_settings_share(tmp_path: Path) -> None:
    report = write_grid(tmp_path, mode__alpha=(0.1, 0.9))
    table = settings_table(report)
    assert table.headings == [
        "", "alpha", "runs", "validation", "test", "change", "gap recovered", "agreement", "teacher's test",
        "trained in", "p (Holm)",
    ]  # fmt: skip
    [row] = [[(cell.text, cell.note) for cell in row] for row in table.footer]
    alone = ("40.00% ± 0.00", "40.00% to 40.00%")
    assert row == [("baseline", ""), ("", ""), ("2", ""), alone, alone, *[("", "")] * 6]
    for text in (page_of(tmp_path).text, markdown(tmp_path)):
        assert "baseline" in text
        assert "the intervals are not corrected" in text


def test_settings_with_baselines_of_their_own_show_them_in_a_column(tmp_path: Path) -> None:
    for number in range(2):
        write_run(tmp_path / str(number), [f"student=net{number}"], baseline_fingerprint=str(number))
    table = settings_table(write_sweep_report([tmp_path], tmp_path))
    assert "baseline's test" in table.headings
    assert list(table.footer) == []


def test_the_verdict_on_one_of_several_settings_is_corrected(tmp_path: Path) -> None:
    for number, (alpha, seed) in enumerate(itertools.product((0.1, 0.9), range(3))):
        test = 0.5 + 0.01 * (seed + 2)  # the changes are 0.02, 0.03, 0.04: p is 0.035, twice that 0.070
        write_run(tmp_path / str(number), [f"mode.alpha={alpha}", f"seed={seed}"], test=test, baseline=0.5)
    report = write_sweep_report([tmp_path], tmp_path)
    assert dict(answers(report))["Was distillation worth it?"] == (
        "Compared with the baseline of the same seed, the student changed by +3.00 percentage points. The 95% interval "
        "is +0.52 to +5.48: it lies above zero: distillation helped. The interval does not allow for the 2 settings "
        "that were compared with the baseline. The p-value that does (paired t-test, Holm, 1979) is 0.07: the change "
        "could be chance."
    )


def test_a_control_is_not_called_distillation(tmp_path: Path) -> None:
    for number in range(2):
        write_run(tmp_path / str(number), ["mode=label_smoothing", f"seed={number}"], guided_by="nothing")
    report = write_sweep_report([tmp_path], tmp_path)
    told = dict(answers(report))["What did the control change?"]
    assert told.endswith("the control helped. It is a control: its mode uses no teacher.")
    assert "Change by the control" in page_of(tmp_path).text
    assert "distillation" not in page_of(tmp_path).text.lower()


def test_the_reason_why_no_gap_is_recovered_is_told(tmp_path: Path) -> None:
    for name, teacher, told in (
        ("below", 0.3, "the teacher is not above the baseline"),
        ("close", 0.5, "teacher and baseline are too close"),
    ):
        write_run(tmp_path / name / "0", teacher=teacher)
        write_sweep_report([tmp_path / name], tmp_path / name)
        assert told in page_of(tmp_path / name).text


def test_ties_are_told_where_one_run_each_cannot_tell_more(tmp_path: Path) -> None:
    for number in range(2):
        write_run(tmp_path / str(number), [f"mode.alpha=0.{number}"])
    assert dict(answers(write_sweep_report([tmp_path], tmp_path)))["How sure is the choice?"] == (
        "This cannot be said from one run for each setting: the best may only be lucky. 1 other setting is within one "
        "validation image of it (≈ in the table). Add seed=0,1,2 to the sweep's command."
    )


# the plots


def test_one_key_gives_a_curve_on_the_axis_that_suits_it() -> None:
    assert scale_of([1, 2.5, 20]) == "linear"
    assert scale_of([0.001, 0.03]) == "log"
    assert scale_of([0, 1, 1000]) == "linear"
    assert scale_of([1, "auto"]) == scale_of([True, 1]) == "categories"


def test_the_curve_shows_means_intervals_baseline_and_runs(tmp_path: Path) -> None:
    report = write_grid(tmp_path, mode__temperature=(1, 2, 10))
    figure = key_curve(report, "mode.temperature")
    lines = {str(line.get_label()): line for line in figure.axes[0].lines}
    assert list(lines["student, mean"].get_xdata()) == [1, 2, 10]  # type: ignore[arg-type]
    assert list(lines["student, mean"].get_ydata()) == pytest.approx([0.5, 0.5 + 0.4 / 3, 0.5 + 0.8 / 3])  # type: ignore[arg-type]
    assert list(lines["baseline, mean"].get_ydata()) == pytest.approx([0.4] * 3)  # type: ignore[arg-type]
    assert list(lines["_recommended"].get_xdata()) == [10]  # type: ignore[arg-type]
    assert len(figure.axes[0].collections) == 1
    assert [axes.get_ylabel() for axes in figure.axes] == ["validation accuracy", "test accuracy"]


def test_categories_are_not_joined(tmp_path: Path) -> None:
    report = write_grid(tmp_path, mode=("soft", "hard"))
    axes = key_curve(report, "mode").axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["hard", "soft"]
    assert {line.get_linestyle() for line in axes.lines} == {"None"}


def test_the_heat_map_has_a_cell_a_setting(folder: Path) -> None:
    report = read_sweep_json(folder)
    assert is_grid(report)
    figure = heat_maps(report)
    shown = np.asarray(figure.axes[0].images[0].get_array())
    means = {tuple(each.values.values()): each.mean("val_accuracy") for each in report.settings}
    assert shown.tolist() == [[means[t, a] for t in (1, 2, 4)] for a in (0.1, 0.9)]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["0.1", "0.9"]
    best = report.settings[0].mean("val_accuracy")
    assert f"{100 * best:.2f}\n± 0.00" in texts(figure)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["validation accuracy, %", "test accuracy, %"]
    [outer, inner] = figure.axes[0].patches
    assert (inner.get_x(), inner.get_y()) == (outer.get_x(), outer.get_y()) == (1.5, 0.5)  # type: ignore[attr-defined]


def test_a_missing_cell_stays_empty(tmp_path: Path) -> None:
    for number, overrides in enumerate((["a=1", "b=1"], ["a=2", "b=1"], ["a=1", "b=2"])):
        write_run(tmp_path / str(number), overrides, val=0.5 + number / 10)
    write_run(tmp_path / "3", ["a=2", "b=2"], status="failed")
    figure = heat_maps(write_sweep_report([tmp_path], tmp_path))
    shown = np.asarray(figure.axes[0].images[0].get_array(), dtype=float)
    assert np.isnan(shown).tolist() == [[False, False], [False, True]]
    assert sum(re.fullmatch(r"\d\d\.\d\d", text) is not None for text in texts(figure)) >= 3


def test_scattered_points_are_no_grid(tmp_path: Path) -> None:
    for number in range(10):
        write_run(tmp_path / str(number), [f"a={number}", f"b={number**2}"])
    report = write_sweep_report([tmp_path], tmp_path)
    assert not is_grid(report)
    assert "Parallel coordinates" in str(page_of(tmp_path).all("img")[0]["alt"])


def test_the_shades_fall_evenly() -> None:
    """Lightness (CIE L*) of the colour map is a straight line."""
    colours = BLUES(np.linspace(0, 1, 33))[:, :3]
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    lightness = 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16
    assert np.abs(lightness - np.linspace(94, 22, 33)).max() < 1.5


def test_many_keys_give_parallel_coordinates(tmp_path: Path) -> None:
    report = write_grid(tmp_path, mode__temperature=(1, 2), student=("a", "b"), lr=[i / 10 for i in range(1, 15)])
    figure = parallel_coordinates(report)
    lines = figure.axes[0].lines
    assert len(lines) == 4 + 2 * 2 * 14 + 1
    assert {"temperature", "student", "lr", "validation accuracy"} <= set(texts(figure))
    best = lines[-1]
    assert list(best.get_ydata()) == pytest.approx([1.025, 1.025, 1.0, 1.0])  # type: ignore[arg-type]
    assert "Parallel coordinates" in str(page_of(tmp_path).all("img")[0]["alt"])


def test_runs_that_cannot_be_ranked_have_their_tables_and_none_is_marked(tmp_path: Path) -> None:
    write_run(tmp_path / "other", ["mode.temperature=8", "mode.alpha=0.1", "seed=0"], content="other images")
    report = write_grid(tmp_path, mode__temperature=(1, 2), mode__alpha=(0.1, 0.9))
    assert report.recommendation is None
    told = markdown(tmp_path)
    assert "## Settings\n" in told
    assert "ranked" not in told
    assert len(re.findall(rf"^\| {NONE} \| [128] \| 0\.[19] \|", told, re.MULTILINE)) == 5
    assert "## Runs" in told
    assert "best on validation" not in told
    assert 'class="ranked"' not in (tmp_path / "sweep.html").read_text(encoding="utf-8")
    assert len(parallel_coordinates(report).axes[0].lines) == 3 + 5


@pytest.mark.parametrize(
    ("keys", "draw"),
    [
        ({"mode__temperature": (1, 2)}, partial(key_curve, key="mode.temperature")),
        ({"mode__temperature": (1, 2), "mode__alpha": (0.1, 0.9)}, heat_maps),
        ({"mode__temperature": (1, 2), "lr": (1, 2), "mode__alpha": (0.1, 0.9)}, parallel_coordinates),
    ],
)
def test_a_picture_marks_the_recommended_setting_and_no_other(
    keys: dict[str, Sequence[Any]], draw: Callable[[SweepReport], Figure], tmp_path: Path
) -> None:
    report = write_grid(tmp_path, **keys)
    unranked = dataclasses.replace(report, recommendation=None)
    marked, unmarked = (len(draw(each).findobj()) for each in (report, unranked))
    assert marked > unmarked
    captions = [picture.caption for each in (report, unranked) if (picture := draw_sweep(each))]
    assert ["best on validation" in caption for caption in captions] == [True, False]


def test_more_keys_than_a_picture_can_name_have_none(tmp_path: Path) -> None:
    write_run(tmp_path / "other", [*(f"key{number}=2" for number in range(9)), "seed=0"])
    report = write_grid(tmp_path, seeds=[0], **{f"key{number}": (1,) for number in range(9)})
    assert len(report.keys) == 9
    assert draw_sweep(report) is None


def test_seeds_alone_give_a_strip(tmp_path: Path) -> None:
    report = write_grid(tmp_path, seeds=[0, 10, 2])
    figure = seed_strip(report)
    assert [label.get_text() for label in figure.axes[1].get_xticklabels()] == ["0", "2", "10"]
    assert "Run by run" in page_of(tmp_path).text


def test_of_very_many_rows_a_page_shows_the_first_and_a_file_has_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill_run.report.typesetting.MAX_ROWS", 32)
    write_grid(tmp_path, seeds=(0,), mode__temperature=range(1, 36))
    page = page_of(tmp_path)
    assert page.text.count("The page ends after 32 of 35 rows; ") == 2
    assert "35 rows; sweep.json has all." in page.text
    assert "35 rows; sweep.csv has all." in page.text
    assert page.all("a")[-1]["href"] == "31/report.html"
    assert "The page ends after 32 of 35 rows; `sweep.csv` has all." in markdown(tmp_path)
    assert len((tmp_path / "sweep.csv").read_text().splitlines()) == 1 + 35


def test_of_very_many_settings_a_picture_shows_some_in_equal_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill_run.report.drawing.MAX_MARKS", 10)
    monkeypatch.setattr("distill_run.sweeps.report.heat_map.MAX_TICKS", 10)
    said = "The picture shows 9 of 25, in equal steps."
    line = write_grid(tmp_path / "line", seeds=(0,), mode__temperature=range(25))
    assert len(key_curve(line, "mode.temperature").axes[0].lines[0].get_xdata()) == 9  # type: ignore[arg-type]
    assert said in page_of(tmp_path / "line").text
    seeds = write_grid(tmp_path / "seeds", seeds=range(25))
    assert len(seed_strip(seeds).axes[0].lines[0].get_xdata()) == 9  # type: ignore[arg-type]
    assert said in page_of(tmp_path / "seeds").text
    write_grid(tmp_path / "many", seeds=(0,), a=range(5), b=range(5), c=(0, 1))
    assert "The picture shows 10 of 50, in equal steps." in page_of(tmp_path / "many").text
    grid = write_grid(tmp_path / "grid", seeds=(0,), a=range(25), b=range(2))
    axes = heat_maps(grid).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "3", "6", "9", "12", "15", "18", "21", "24"]
    assert np.asarray(axes.images[0].get_array()).shape == (2, 25)


def test_key_names_are_never_read_as_formulas(tmp_path: Path) -> None:
    keys = (r"$\frac$", r"$\b$", r"$\c$")
    for num_keys in range(1, 4):
        folder = tmp_path / str(num_keys)
        for number in range(3):
            write_run(folder / str(number), [rf"{key}=$\frac{number}$" for key in keys[:num_keys]], val=number / 4)
        write_sweep_report([folder], folder)
        assert (folder / "plots" / "sweep.png").is_file()


# the command


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(in_process: InProcess) -> Call:
    """Runs distill-report."""
    return partial(in_process, installed.report, "distill-report")


def test_one_directory_is_written_into(tmp_path: Path, call: Call) -> None:
    write_grid(tmp_path / "s", mode__temperature=range(1, 13))
    write_run(tmp_path / "s" / "99", ["mode.temperature=9", "seed=3"], status="failed", error="x")
    status, told, _ = call("s")
    assert status == 0
    assert re.search(r"^12 +2 of 2 +86\.67% ± 0\.00 +76\.67% ± 0\.00 +\+36\.67 ± 0\.00$", told, re.MULTILINE)
    assert re.search(r"^baseline +2 +40\.00% ± 0\.00 +40\.00% ± 0\.00 *$", told, re.MULTILINE)
    assert "± is the standard deviation over the runs of a row, in percentage points" in told
    assert "and 2 more" in told
    assert "24 of 25 runs completed, 1 failed\n" in told
    assert "The best of 11 settings" in told or "The best of 12 settings" in told
    assert "report   s/sweep.html\n" in told
    assert "repeat   distill-run -m mode.temperature=12 seed=0,1\n" in told


def test_a_run_with_repeats_counts_in_seeds(tmp_path: Path, call: Call) -> None:
    figures = made_up_repeats(4, (0.5, 0.75, 0.625), (0.5, 0.5, 0.5), (0.5, 0.75, 0.625))
    write_run(tmp_path / "s" / "0", ["seed=4", "repeats=3"], **figures)
    _, told, _ = call("s")
    assert re.search(r"^ +seeds +val acc +test acc +change *$", told, re.MULTILINE)
    assert re.search(r"^student +3 of 3 +62\.50% ± 12\.50 +62\.50% ± 12\.50 +\+12\.50 ± 12\.50$", told, re.MULTILINE)
    assert "± is the standard deviation over the seeds of a row, in percentage points" in told
    page = page_of(tmp_path / "s").text
    assert "One setting, repeated over seed" in page
    assert "3 seeds; 95% interval 31.45% to 93.55%" in page  # 62.5 +- 4.3027 * 12.5 / sqrt(3)
    assert "mean over the completed seeds of a setting could change with another seed" in page
    assert "Each figure is the mean over the seeds of a setting" in page
    assert "Run by run" not in page  # one run has one mark
    assert "| 0 | completed | 4 | 3 |" in " ".join(markdown(tmp_path / "s").split())
    assert call("s", "--format", "csv")[1].startswith("rank,seeds,val_accuracy,")
    assert "Means over the seeds of a setting, ± their" in call("s", "--format", "md")[1]


def test_several_directories_need_an_output(tmp_path: Path, call: Call) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name / "0", [f"mode={name}"])
    told = "error: 2 directories give one report\n  add --output DIR to a b\n"
    assert call("a", "b") == (1, "", told)
    assert call("a", "b", "--output", "c")[0] == 0
    assert (tmp_path / "c" / "sweep.html").is_file()


def test_all_mistakes_are_told_at_once(tmp_path: Path, call: Call) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    status, out, err = call("absent", "file", "empty", "--output", "file")
    assert (status, out) == (1, "")
    assert [line for line in err.splitlines() if line.startswith("error: ")] == [
        "error: absent does not exist",
        "error: file is not a folder",
        "error: empty holds no run",
        "error: --output file is not a folder",
    ]
    assert len(err.splitlines()) == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]
    for arguments in ([], ["--outptu", "x", "a"], ["a", "--out", "b"]):
        status, _, err = call(*arguments)
        assert status == 1
        assert re.fullmatch(
            r"error: .+\n  write distill-report DIR\.\.\. \[--output DIR\] \[--format latex\|csv\|md\] "
            r"\[--watch \[--port N\]\]\n",
            err,
        )


def write_means(folder: Path) -> None:
    """Two settings that LaTeX must escape; their changes are 0.1 and 0.2, then -0.05 and 0.05."""
    for number, (note, test) in enumerate((("5%_a", 0.5), ("5%_a", 0.6), ("b&c", 0.35), ("b&c", 0.45))):
        overrides = [f"mode.my_note={note}", f"seed={number % 2}"]
        write_run(folder / str(number), overrides, val=0.75 - number // 2 / 4, test=test)


def test_the_table_of_means_in_latex(tmp_path: Path, call: Call) -> None:
    write_means(tmp_path / "s")
    # p of the first: t = 0.15 / 0.05 = 3 with one degree of freedom gives 1 - 2 atan(3) / pi = 0.205; Holm doubles it.
    assert call("s", "--format", "latex") == (
        0,
        r"""% \usepackage{booktabs}
\begin{table}
\centering
\caption{Means over the runs of a setting, $\pm$ their standard deviation in percentage points. p: paired t-test of """
        r"""student and baseline over the seeds, corrected for the number of settings (Holm, 1979).}
\begin{tabular}{llrrrrrrrrr}
\toprule
 & my\_note & runs & validation & test & change & gap recovered & agreement & teacher's test & trained in & p (Holm) \\
\midrule
1 & 5\%\_a & 2 & 75.00\% $\pm$ 0.00 & 55.00\% $\pm$ 7.07 & +15.00 $\pm$ 7.07 & 30\% & 75.00\% & 90.00\% & 2.0s & 0.41 \\
2 & b\&c & 2 & 50.00\% $\pm$ 0.00 & 40.00\% $\pm$ 7.07 & +0.00 $\pm$ 7.07 & 0\% & 75.00\% & 90.00\% & 2.0s & 1 \\
\midrule
baseline &  & 2 & 40.00\% $\pm$ 0.00 & 40.00\% $\pm$ 0.00 &  &  &  &  &  &  \\
\bottomrule
\end{tabular}
\end{table}
""",
        "",
    )
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["0", "1", "2", "3"]


def test_latex_shows_every_sign_as_it_is() -> None:
    assert latex_text(r"a\b ~^<>|{$#} -0.5") == (
        r"a\textbackslash{}b \textasciitilde{}\textasciicircum{}\textless{}\textgreater{}\textbar{}\{\$\#\} -0.5"
    )
    assert latex_text("-0.52 ± 1.00") == r"$-$0.52 $\pm$ 1.00"


def test_the_table_of_means_in_markdown_and_csv_goes_into_a_file(tmp_path: Path, call: Call) -> None:
    write_means(tmp_path / "s")
    assert call("s", "--format", "md", "--output", "deep/means.md") == (0, "", "")
    lines = (tmp_path / "deep" / "means.md").read_text(encoding="utf-8").splitlines()
    assert lines[2] == (
        r"| 1 | 5%\_a | 2 | 75.00% ± 0.00 | 55.00% ± 7.07 | +15.00 ± 7.07 | 30% | 75.00% | 90.00% | 2.0s | 0.41 |"
    )
    assert lines[4] == "| baseline |  | 2 | 40.00% ± 0.00 | 40.00% ± 0.00 |  |  |  |  |  |  |"
    assert lines[6].startswith("Means over the runs of a setting, ± their standard deviation in percentage points. p: ")
    status, told, _ = call("s", "--format", "csv")
    first, _, baseline = csv.DictReader(told.splitlines())
    assert (status, first["rank"], first["mode.my_note"], first["runs"]) == (0, "1", "5%_a", "2")
    found = [float(first[name]) for name in ("test_accuracy", "test_accuracy_sd", "difference_low", "difference_high")]
    half = 12.7062 * 0.05  # Student's t of one degree of freedom, times sd / sqrt(2)
    assert found == pytest.approx([0.55, math.sqrt(0.005), 0.15 - half, 0.15 + half], abs=1e-5)
    assert (baseline["rank"], baseline["mode.my_note"], float(baseline["test_accuracy"])) == ("baseline", "", 0.4)


def test_a_table_of_single_runs_warns_on_stderr_and_wants_no_folder(tmp_path: Path, call: Call) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name / "0", [f"mode={name}"], content=name)
    status, told, err = call("a", "b", "--format", "md")
    assert (status, told.splitlines()[-1]) == (0, "One run for each setting.")
    assert err == "warning: the runs used 2 different datasets: their accuracies cannot be compared\n"
    told = "error: --output a is a folder\n  with --format, give a file, as in a/means\n"
    assert call("a", "--format", "csv", "--output", "a") == (1, "", told)


def test_the_command_runs_on_its_own(tmp_path: Path) -> None:
    write_run(tmp_path / "0", ["mode.alpha=0.5"])
    program = [sys.executable, "-c", "from distill_run.commands.installed import report; report()", str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "repeat   distill-run mode.alpha=0.5"
    assert done.stderr == ""
    assert (tmp_path / "sweep.html").is_file()
