"""From run directories to sweep.json: reading, grouping, estimating and recommending."""

import csv
import dataclasses
import errno
import io
import json
import math
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_run.report.run_report import RunReport
from distill_run.sweeps.command_lines import read_command_line, repeat
from distill_run.sweeps.grouping import gather_sweep
from distill_run.sweeps.points import find_runs, read_point
from distill_run.sweeps.report.summary import summarise_sweep
from distill_run.sweeps.report.sweep_report import SweepReport
from distill_run.sweeps.report.tables import settings_table, to_csv
from distill_run.sweeps.values import natural, read_value, setting_name, short_keys, shown
from distill_run.typed_json import decode
from helpers import examples, message_of
from sweeps import made_up_repeats, made_up_report, write_run

T_2 = 4.3027  # Student's t at 97.5% of 2 degrees of freedom, from a printed table


def report_of(*directories: Path) -> SweepReport:
    points = [read_point(run_dir) for run_dir in find_runs(directories)]
    return summarise_sweep(gather_sweep(directories, points), directories[0])


def content_of(*directories: Path) -> dict[str, Any]:
    return report_of(*directories).to_json()


def sweep(folder: Path, runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The content of a sweep whose runs are given by their overrides, with their figures."""
    for number, (overrides, options) in enumerate(runs.items()):
        write_run(folder / str(number), shlex.split(overrides), **options)
    return content_of(folder)


def names(content: Mapping[str, Any]) -> list[str]:
    return [setting_name(setting["values"]) for setting in content["settings"]]


# values and commands


def test_values_are_read_as_hydra_reads_them_and_shown_as_typed() -> None:
    for text, value in (
        ("4", 4), ("-1", -1), ("4.5", 4.5), ("soft", "soft"), ("nan", "nan"), ("inf", "inf"), ("", ""), ("on", "on"),
        ("2024-01-01", "2024-01-01"), ("1:30", "1:30"), ("[8,[a,null]]", [8, ["a", None]]), ("[8", "[8"),
        ("{a: 1}", {"a": 1}), ("#x", "#x"), ("true", True),
    ):  # fmt: skip
        assert read_value(text) == value
        assert type(read_value(text)) is type(value), text
    same = ("4", "4.0"), ("1e-3", "0.001"), ("[8, 16]", "[8,16.0]"), ("'a b'", '"a b"'), ("null", "NULL")
    for one, other in (*same, ("True", "true")):
        assert read_value(one) == read_value(other)
    assert [shown(value) for value in (4, 0.5, None, True, [1, [None]], {"b": 1}, "x")] == [
        "4", "0.5", "null", "true", "[1,[null]]", '{"b": 1}', "x",
    ]  # fmt: skip


def test_commands_are_read_word_by_word() -> None:
    text = "distill-run --config-dir 'my conf' mode=soft +mode.x=1 ++seed=2 '~training.clip' hydra.verbose=true sweep=a"
    command = read_command_line(text)
    assert command.options == ("--config-dir", "my conf")
    assert command.values == {"mode": "soft", "mode.x": 1, "seed": 2, "training.clip": "removed"}
    # What changes no figure is no key.
    text = "distill-run code_dir=a resume=b +sweep=c store_dir=d hydra.sweep.dir=e hydra=f hydration=1"
    assert read_command_line(text).values == {"hydration": 1}


def test_numbers_within_texts_sort_as_numbers() -> None:
    texts = ["run10", "run2", "10", "9", "a", "010", "", "0", "1"]
    assert sorted(texts, key=natural) == ["", "0", "1", "9", "10", "010", "a", "run2", "run10"]


def test_replicates_that_are_a_grid_repeat_in_one_command_and_others_line_by_line() -> None:
    def repeated(texts: list[str], values: list[dict[str, Any]]) -> str:
        return repeat([read_command_line(text) for text in texts], values)

    texts = [f"distill-run --config-dir 'my conf' 'student.hidden=[8,4]' seed={seed} mode.alpha=0.5" for seed in (1, 0)]
    words = ["distill-run", "--config-dir", "my conf", "-m", "student.hidden=[8,4]", "mode.alpha=0.5", "seed=0,1"]
    assert shlex.split(repeated(texts, [{"seed": 1}, {"seed": 0}])) == words
    one = "distill-run 'dataset.root=a b' seed=1"
    assert repeated([one], [{"seed": 1}]) == one
    texts = [f"distill-run seed={seed} teacher_seed={seed}" for seed in (0, 1)]
    assert repeated(texts, [{"seed": seed, "teacher_seed": seed} for seed in (0, 1)]) == "\n".join(texts)
    texts = ["distill-run seed=1", "distill-run"]  # a seed that is not known is not typed
    assert repeated(texts, [{"seed": 1}, {"seed": "default"}]) == "\n".join(texts)


@examples
@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), max_size=4))
def test_commands_come_through_the_shell_unharmed(values: list[str]) -> None:
    words = [f"dataset.k{number}={value}" for number, value in enumerate(values)]
    texts = [shlex.join(["distill-run", *words, f"seed={seed}"]) for seed in (0, 1)]
    commands = [read_command_line(text) for text in texts]
    assert commands[0].overrides == (*words, "seed=0")
    repeated = repeat(commands, [{"seed": 0}, {"seed": 1}])
    assert shlex.split(repeated) == ["distill-run", "-m", *words, "seed=0,1"]


# grouping


def test_seeds_are_replicates_and_all_else_makes_settings(tmp_path: Path) -> None:
    runs = {
        f"mode.temperature={temperature} mode.alpha=0.5 seed={seed}": {"val": 0.5 + seed / 10}
        for temperature in ("4", "4.0", "10", "2")
        for seed in ((0, 1) if temperature != "4.0" else (2,))
    }
    content = sweep(tmp_path, runs)
    assert (content["keys"], content["replicate_keys"]) == (["mode.temperature"], ["seed"])
    four = content["settings"][0]
    assert (four["values"], four["runs"], four["replicates"]) == ({"mode.temperature": 4}, ["0", "1", "2"], 3)
    assert four["val_accuracy"]["mean"] == pytest.approx(0.6)
    assert names(content)[1:] == ["temperature 2", "temperature 10"]


def test_a_key_that_a_run_lacks_is_taken_from_its_configuration(tmp_path: Path) -> None:
    config = {"mode": {"alpha": 0.9}, "names": {"teacher": "cnn_large"}, "seed": 0, "device": {"kind": "cpu"}}
    write_run(tmp_path / "0", ["mode.alpha=0.9", "teacher=cnn_large", "device=cpu"], config=config)
    write_run(tmp_path / "1", ["seed=3"], config=config)
    content = content_of(tmp_path)
    assert (content["keys"], content["replicate_keys"]) == (["device"], ["seed"])
    assert content["runs"][0]["values"] == {"device": "cpu", "seed": 0}
    assert content["runs"][1]["values"] == {"device": "default", "seed": 3}


def test_runs_are_found_anywhere_below_and_sorted_by_number(tmp_path: Path) -> None:
    for name in ("10", "2", "deep/er/0", "2/nested"):
        write_run(tmp_path / name)
    (tmp_path / "empty").mkdir()
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "config.yaml").write_text("")
    assert find_runs([tmp_path, tmp_path / "2"]) == [tmp_path / name for name in ("2", "10", "deep/er/0")]


def test_the_paired_difference_is_worked_out_run_by_run(tmp_path: Path) -> None:
    tests, alone = (0.90, 0.80, 0.70), (0.88, 0.79, 0.64)  # differences 0.02, 0.01, 0.06: mean 0.03
    runs = {f"seed={i}": {"test": tests[i], "baseline": alone[i], "seed": i} for i in range(3)}
    content = sweep(tmp_path, runs)
    sd = math.sqrt((0.01**2 + 0.02**2 + 0.03**2) / 2)
    difference = content["recommendation"]["difference"]
    assert difference["mean"] == pytest.approx(0.03)
    assert difference["sd"] == pytest.approx(sd)
    assert difference["low"] == pytest.approx(0.03 - T_2 * sd / math.sqrt(3), abs=1e-5)
    assert [run["difference"] for run in content["runs"]] == pytest.approx([0.02, 0.01, 0.06])
    assert (content["keys"], content["replicate_keys"], len(content["settings"])) == ([], ["seed"], 1)
    assert content["conclusion"] == (
        "The student reaches 80.00% on test, the mean of 3 runs: no difference to the student alone that 3 runs can "
        "show (+3.00 percentage points, 95% interval -3.57 to +9.57)."
    )


def test_a_difference_that_runs_can_show_stands_with_its_interval(tmp_path: Path) -> None:
    runs = {f"seed={i}": {"test": 0.5 + change, "baseline": 0.5} for i, change in enumerate((0.02, 0.03, 0.04))}
    assert sweep(tmp_path / "gain", runs)["conclusion"] == (  # 3 +- 4.3027 * 1 / sqrt(3)
        "The student reaches 53.00% on test, the mean of 3 runs, 3.00 percentage points above the student alone "
        "(95% interval +0.52 to +5.48)."
    )
    runs = {f"seed={i}": {"test": 0.5 - change, "baseline": 0.5} for i, change in enumerate((0.02, 0.03, 0.04))}
    assert sweep(tmp_path / "loss", runs)["conclusion"].endswith(
        ", 3.00 percentage points below the student alone (95% interval -5.48 to -0.52)."
    )


def test_the_gap_recovered_is_the_mean_gain_over_the_mean_gap(tmp_path: Path) -> None:
    """Gains 0.10 and 0.25 of a gap that is always 0.5: only the gain varies, by 0.075 * T_1 at 95%."""
    runs: dict[str, dict[str, Any]] = {"seed=0": {"test": 0.50}, "seed=1": {"test": 0.65}}
    gap = sweep(tmp_path / "wide", runs)["settings"][0]["gap_recovered"]
    assert (gap["count"], gap["mean"], gap["sd"]) == (2, pytest.approx(0.35), None)
    assert gap["low"] == pytest.approx((0.175 - 12.7062 * 0.075) / 0.5, abs=1e-4)
    assert gap["high"] == pytest.approx((0.175 + 12.7062 * 0.075) / 0.5, abs=1e-4)
    close = {key: {**figures, "teacher": 0.5} for key, figures in runs.items()}  # 0.1: less than one image of eight
    assert sweep(tmp_path / "close", close)["settings"][0]["gap_recovered"] is None


def test_a_baseline_that_all_settings_share_is_estimated_once_over_the_seeds(tmp_path: Path) -> None:
    runs: dict[str, dict[str, Any]] = {}
    for seed, accuracy in enumerate((0.4, 0.5)):
        for alpha in (0.1, 0.9):
            own = {"baseline": accuracy, "baseline_fingerprint": str(seed)}
            runs[f"mode.alpha={alpha} seed={seed}"] = own
    baseline = sweep(tmp_path / "one", runs)["baseline"]
    assert (baseline["test_accuracy"]["count"], baseline["test_accuracy"]["mean"]) == (2, pytest.approx(0.45))
    assert baseline["val_accuracy"] == baseline["test_accuracy"]
    runs["mode.alpha=0.9 seed=1"]["baseline_fingerprint"] = "another"
    assert sweep(tmp_path / "two", runs)["baseline"] is None


def test_settings_that_are_compared_with_one_baseline_are_corrected_for_it(tmp_path: Path) -> None:
    changes = {0.1: (0.02, 0.03, 0.04), 0.5: (0.01, 0.03, 0.05), 0.9: (0.0, 0.0, 0.0)}
    runs = {
        f"mode.alpha={alpha} seed={seed}": {"test": 0.5 + values[seed], "baseline": 0.5, "val": 0.9 - alpha / 2}
        for alpha, values in changes.items()
        for seed in range(3)
    }
    settings = sweep(tmp_path, runs)["settings"]
    # With two degrees of freedom the p-value of t is 1 - t / sqrt(2 + t^2); t is 3 sqrt(3), then half of it.
    first, second = (1 - t / math.sqrt(2 + t * t) for t in (3 * math.sqrt(3), 1.5 * math.sqrt(3)))
    assert [setting["p_value"] for setting in settings] == pytest.approx([first, second, 1.0])
    assert [setting["corrected_p"] for setting in settings] == pytest.approx([3 * first, 2 * second, 1.0])
    one_run = sweep(tmp_path / "single", {"mode.alpha=0.1": {}})["settings"][0]
    assert (one_run["p_value"], one_run["corrected_p"]) == (None, None)


def test_without_a_baseline_there_is_no_difference(tmp_path: Path) -> None:
    content = sweep(tmp_path, {"seed=0": {"baseline": None}})
    assert content["settings"][0]["difference"] is None
    assert content["runs"][0]["baseline_test_accuracy"] is None
    assert content["conclusion"] == "The student reaches 50.00% on test."


def test_what_another_had_run_counts_once(tmp_path: Path) -> None:
    content = sweep(tmp_path, {"mode.alpha=0.5 seed=0": {"val": 0.5}, "mode.alpha=0.50 seed=0": {"val": 0.9}})
    assert content["settings"][0]["val_accuracy"] == {"count": 1, "mean": 0.5, "sd": None, "low": None, "high": None}
    assert content["settings"][0]["asked"] == 1
    assert content["warnings"] == ["1 run repeated another run with the same seed: only the first of each counts"]


def test_each_seed_of_a_run_with_repeats_is_a_replicate(tmp_path: Path) -> None:
    """The differences 0.02 and 0.01 of one run and 0.06 of another: those of the paired test above."""
    write_run(tmp_path / "0", ["seed=0", "repeats=2"], **made_up_repeats(0, (0.90, 0.80), (0.88, 0.79), (0.5, 0.7)))
    write_run(tmp_path / "1", ["seed=2"], test=0.70, baseline=0.64, val=0.9, baseline_fingerprint="2")
    content = content_of(tmp_path)
    [setting] = content["settings"]
    assert (content["keys"], content["replicate_keys"]) == ([], ["seed"])
    assert (setting["replicates"], setting["asked"], setting["runs"]) == (3, 3, ["0", "1"])
    sd, t = math.sqrt((0.01**2 + 0.02**2 + 0.03**2) / 2), 0.03 / math.sqrt(0.0014 / 6)
    difference = setting["difference"]
    assert (difference["count"], difference["mean"], difference["sd"]) == (3, pytest.approx(0.03), pytest.approx(sd))
    assert setting["p_value"] == pytest.approx(1 - t / math.sqrt(2 + t * t))
    assert setting["val_accuracy"]["mean"] == pytest.approx(0.7)  # of 0.5, 0.7 and 0.9, not of the runs' 0.6 and 0.9
    assert (content["baseline"]["test_accuracy"]["count"], setting["agreement"]["count"]) == (3, 3)
    first, second = content["runs"]
    assert (first["seed"], first["seeds"], second["seeds"]) == (0, 2, 1)
    assert first["difference"] == pytest.approx(0.015)
    assert content["conclusion"] == (
        "The student reaches 80.00% on test, the mean of 3 seeds: no difference to the student alone that 3 seeds can "
        "show (+3.00 percentage points, 95% interval -3.57 to +9.57)."
    )
    assert content["recommendation"]["command"] == "distill-run seed=0 repeats=2\ndistill-run seed=2"


def test_the_first_reports_with_repeats_know_the_agreement_of_one_student(tmp_path: Path) -> None:
    figures = made_up_repeats(0, (0.5, 0.5), (0.4, 0.4), (0.6, 0.5))
    for repeat_of_seed in figures["repeats"]:
        del repeat_of_seed["fidelity"]
    write_run(tmp_path / "0", ["seed=0", "repeats=2"], **figures)
    assert content_of(tmp_path)["settings"][0]["agreement"] == {
        "count": 1, "mean": 0.75, "sd": None, "low": None, "high": None,
    }  # fmt: skip


def test_a_seed_that_two_runs_of_a_setting_share_counts_once(tmp_path: Path) -> None:
    three, two = (
        made_up_repeats(0, (0.5,) * 3, (0.4,) * 3, (0.5,) * 3),
        made_up_repeats(2, (0.9,) * 2, (0.4,) * 2, (0.9,) * 2),
    )
    write_run(tmp_path / "0", ["seed=0", "repeats=3"], **three)
    write_run(tmp_path / "1", ["seed=2", "repeats=2"], **two)
    content = content_of(tmp_path)
    assert content["settings"][0]["val_accuracy"]["mean"] == pytest.approx((3 * 0.5 + 0.9) / 4)
    gap = content["settings"][0]["gap_recovered"]  # gains 0.1, 0.1, 0.1 and 0.5 of a gap that is always 0.5
    assert (gap["count"], gap["mean"]) == (4, pytest.approx(0.4))
    assert content["warnings"] == ["1 seed had been run before in the same setting: only the first run of each counts"]
    # One command would be refused: its points would share a seed.
    assert content["recommendation"]["command"] == "distill-run seed=0 repeats=3\ndistill-run seed=2 repeats=2"


def test_settings_with_repeats_are_compared_seed_by_seed(tmp_path: Path) -> None:
    """Differences on validation: 0.01 at every seed for alpha 0.5; -0.2, 0.05, 0.2 and 0.05 for 0.1."""
    accuracies = {0.9: (0.7, 0.8, 0.9, 0.8), 0.5: (0.69, 0.79, 0.89, 0.79), 0.1: (0.9, 0.75, 0.7, 0.75)}
    for alpha, val in accuracies.items():
        for first in (0, 2):
            figures = made_up_repeats(first, (0.5, 0.5), (0.4, 0.4), val[first : first + 2])
            config = {"repeats": 2, "seed": first}  # as a dataset with repeats of its own leaves it
            write_run(tmp_path / f"{alpha}_{first}", [f"mode.alpha={alpha}", f"seed={first}"], config=config, **figures)
    config = {"repeats": 3, "seed": 0}
    write_run(tmp_path / "failed", ["mode.alpha=0.3"], status="failed", error="out of memory", config=config)
    content = content_of(tmp_path)
    best = content["recommendation"]
    assert names(content) == ["alpha 0.9", "alpha 0.5", "alpha 0.1", "alpha 0.3"]
    assert (best["alternatives"], best["compared"]) == ([2], 2)
    assert best["command"] == "distill-run -m mode.alpha=0.9 seed=0,2 repeats=2"
    assert [setting["asked"] for setting in content["settings"]] == [4, 4, 4, 3]
    assert content["baseline"]["val_accuracy"]["count"] == 4


def test_a_setting_with_fewer_seeds_is_told_in_seeds(tmp_path: Path) -> None:
    for alpha, repeats, val in ((0.1, 3, 0.6), (0.9, 2, 0.8)):
        figures = made_up_repeats(0, (0.5,) * repeats, (0.4,) * repeats, (val,) * repeats)
        write_run(tmp_path / str(alpha), [f"mode.alpha={alpha}", f"repeats={repeats}"], **figures)
    content = content_of(tmp_path)
    assert content["keys"] == ["mode.alpha"]
    assert content["warnings"] == [
        "alpha 0.9 has 80.00% accuracy on validation, better than what is recommended, but only 2 of 3 seeds: it was "
        "not considered"
    ]
    assert content["conclusion"].startswith("Only alpha 0.1 has 3 seeds completed: it reaches 50.00% on test, ")


# recommending


def test_validation_recommends_and_test_does_not(tmp_path: Path) -> None:
    content = sweep(
        tmp_path, {"mode.alpha=0.1": {"val": 0.6, "test": 0.9}, "mode.alpha=0.9": {"val": 0.7, "test": 0.5}}
    )
    best = content["recommendation"]
    assert (best["setting"], best["values"]) == (0, {"mode.alpha": 0.9})
    assert (best["test_accuracy"]["mean"], best["command"]) == (0.5, "distill-run mode.alpha=0.9")
    assert (best["alternatives"], best["compared"], best["incomplete"]) == ([], 0, [])
    assert content["conclusion"] == (
        "The best of 2 settings on validation, by accuracy, is alpha 0.9 (1 other may be as good). It reaches 50.00% "
        "on test, 10.00 percentage points above the student alone (one run, so no interval)."
    )


def test_settings_within_one_validation_image_are_ties(tmp_path: Path) -> None:
    accuracies = {0.1: 0.75, 0.3: 0.75, 0.5: 0.625, 0.7: 0.5}  # of eight images: 6, 6, 5 and 4 are right
    content = sweep(tmp_path, {f"mode.alpha={alpha}": {"val": val} for alpha, val in accuracies.items()})
    assert content["recommendation"]["ties"] == [1, 2]
    assert content["conclusion"].startswith(
        "The best of 4 settings on validation, by accuracy, is alpha 0.1 (2 others may be as good). It reaches "
    )


def test_a_setting_with_a_failed_seed_does_not_win_by_luck(tmp_path: Path) -> None:
    content = sweep(
        tmp_path,
        {
            "mode.alpha=0.1 seed=0": {"val": 0.6},
            "mode.alpha=0.1 seed=1": {"val": 0.6},
            "mode.alpha=0.9 seed=0": {"val": 0.8},
            "mode.alpha=0.9 seed=1": {"status": "failed", "error": "out of memory"},
        },
    )
    best = content["recommendation"]
    assert (best["values"], best["incomplete"]) == ({"mode.alpha": 0.1}, [1])
    assert content["settings"][1]["asked"] == 2
    assert content["warnings"] == [
        "alpha 0.9 has 80.00% accuracy on validation, better than what is recommended, but only 1 of 2 runs: it was "
        "not considered"
    ]
    assert content["conclusion"].startswith("Only alpha 0.1 has 2 runs completed: ")


def test_ties_go_to_the_lower_nll_then_to_the_order_of_values(tmp_path: Path) -> None:
    first = sweep(tmp_path / "a", {"mode.alpha=0.5": {"nll": 0.9}, "mode.alpha=0.1": {"nll": 1.0}})
    second = sweep(tmp_path / "b", {"mode.temperature=10": {}, "mode.temperature=2": {}})
    accuracies = {0.1: (0.1, 0.2, 0.3), 0.2: (0.2, 0.2, 0.2)}  # the first mean is 0.19999999999999998
    runs = {
        f"mode.alpha={alpha} seed={seed}": {"val": values[seed], "nll": 1.0 + alpha}
        for alpha, values in accuracies.items()
        for seed in range(3)
    }
    assert first["recommendation"]["values"] == {"mode.alpha": 0.5}
    assert second["recommendation"]["values"] == {"mode.temperature": 2}
    assert sweep(tmp_path / "c", runs)["recommendation"]["values"] == {"mode.alpha": 0.1}


def test_what_cannot_be_told_apart_is_paired_by_seed(tmp_path: Path) -> None:
    accuracies = {
        0.9: (0.70, 0.80, 0.90),
        0.5: (0.69, 0.79, 0.89),  # always one point less: told apart, though its own interval overlaps
        0.1: (0.90, 0.75, 0.65),  # differences -0.20, 0.05, 0.25: mean 0.03, the interval contains zero
    }
    runs = {
        f"mode.alpha={alpha} seed={seed}": {"val": values[seed], "seed": seed}
        for alpha, values in accuracies.items()
        for seed in range(3)
    }
    content = sweep(tmp_path, runs)
    best = content["recommendation"]
    assert names(content) == ["alpha 0.9", "alpha 0.5", "alpha 0.1"]
    assert (best["alternatives"], best["compared"]) == ([2], 2)
    assert best["command"] == "distill-run -m mode.alpha=0.9 seed=0,1,2"


@examples
@given(st.permutations(range(4)), st.lists(st.sampled_from([0.25, 0.5, 0.75]), min_size=8, max_size=8))
def test_the_recommendation_does_not_depend_on_the_order_of_directories(
    tmp_path_factory: pytest.TempPathFactory, order: Sequence[int], accuracies: list[float]
) -> None:
    folder = tmp_path_factory.mktemp("sweeps")
    for number, accuracy in enumerate(accuracies):
        overrides = [f"mode.alpha=0.{number // 2}", f"seed={number % 2}"]
        write_run(folder / str(number // 2) / str(number), overrides, val=accuracy, nll=1 - accuracy)
    sorted_content = content_of(*(folder / str(number) for number in range(4)))
    content = content_of(*(folder / str(number) for number in order))
    for key in ("values", "command", "alternatives", "val_accuracy"):
        assert content["recommendation"][key] == sorted_content["recommendation"][key]


# what went wrong


def test_failed_and_unfinished_runs_are_told(tmp_path: Path) -> None:
    content = sweep(
        tmp_path,
        {
            "mode.alpha=0.1": {"status": "failed", "error": "the loss is nan\n  lower the rate"},
            "mode.alpha=0.2": {"status": "running"},
            "mode.alpha=0.3": {"status": "interrupted"},
            "mode.alpha=0.4": {"status": "pruned"},
            "mode.alpha=0.5": {"status": "failed"},
        },
    )
    assert content["counts"] == {
        "completed": 0,
        "pruned": 1,
        "failed": 2,
        "unfinished": 2,
        "unreadable": 0,
        "not begun": 0,
    }
    assert [run["error"] for run in content["runs"]] == [
        "the loss is nan\n  lower the rate",
        "still running, or killed",
        "interrupted; resume= continues it",
        "the search stopped it: other trials were better after the same number of epochs",
        "no reason is recorded",
    ]
    assert content["recommendation"] is None
    assert content["conclusion"] == "No run is completed: there is nothing to recommend yet."
    assert all(setting["val_accuracy"] is None for setting in content["settings"])


def test_runs_that_a_sweep_has_not_begun_are_counted(tmp_path: Path) -> None:
    for folder, num_points in (("one", 12), ("two", 3), ("glob", None)):
        write_run(tmp_path / folder / "0", ["seed=0"])
        (tmp_path / folder / "sweep_command.json").write_text(json.dumps({"num_points": num_points}))
    write_run(tmp_path / "one" / "1", ["seed=1"], status="interrupted")
    points = [read_point(run_dir) for run_dir in find_runs([tmp_path])]
    assert gather_sweep([tmp_path], points).num_not_begun == 10 + 2
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "sweep_command.json").write_text(json.dumps({"num_points": 4}))
    assert gather_sweep([empty], []).num_not_begun == 4


def test_a_damaged_run_is_unreadable_and_says_why(tmp_path: Path) -> None:
    damages = (
        ("report.json", None, "report.json cannot be read (No such file or directory)"),
        ("report.json", '{"format": 1, "stud', "report.json is damaged (Unterminated string"),
        ("report.json", "[]", "report.json is damaged (it holds no object)"),
        ("report.json", '{"format": 2}', "report.json has format 2; format 1 can be read"),
        ("report.json", '{"format": 1}', "report.json is damaged (seed is absent)"),
        ("report.json", "\ufeff\x00", "report.json is damaged ("),
        ("report.json", "[" * 100_000, "report.json is damaged ("),
        ("status.json", '{"status": "done"}', "status.json has the status 'done', which is not known"),
        ("status.json", '{"status": ["running"]}', "status.json has the status ['running'], which is not known"),
        ("environment.json", None, "environment.json is missing, and with it the command"),
        ("environment.json", "{}", "environment.json has no command"),
        ("environment.json", '{"command": "a \'b"}', "environment.json has a damaged command (No closing quotation)"),
    )
    write_run(tmp_path / "sound", ["seed=1"])
    for number, (name, text, _) in enumerate(damages):
        file = write_run(tmp_path / str(number), ["seed=0"]) / name
        file.unlink()
        if text is not None:
            file.write_text(text)
    content = content_of(tmp_path)
    assert content["counts"]["unreadable"] == len(damages)
    errors = {run["directory"]: run["error"] for run in content["runs"]}
    for number, (_, _, reason) in enumerate(damages):
        assert errors[str(number)].startswith(reason)
    assert content["recommendation"]["command"] == "distill-run seed=1"


def test_a_figure_that_is_no_number_is_refused(tmp_path: Path) -> None:
    path = write_run(tmp_path / "0", val=0.123) / "report.json"
    text = path.read_text()
    for value in ("NaN", "Infinity", "1e999", "true", '"0.5"', "null", "1" + "0" * 400):
        path.write_text(text.replace("0.123", value))
        assert read_point(tmp_path / "0").status == "unreadable", value


def test_a_run_without_any_status_ended_early(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "0", ["seed=0"], config={"seed": 0})
    (run_dir / "status.json").unlink()
    [run] = content_of(tmp_path)["runs"]
    assert (run["status"], run["error"]) == ("unfinished", "it has no status.json: it ended before its first training")


def test_a_run_with_a_status_alone_belongs_to_no_setting(tmp_path: Path) -> None:
    write_run(tmp_path / "0", ["mode.alpha=0.5"])
    lost = write_run(tmp_path / "1", status="failed", error="no space left")
    (lost / "environment.json").unlink()
    content = content_of(tmp_path)
    assert (content["keys"], len(content["settings"]), content["settings"][0]["runs"]) == ([], 1, ["0"])
    assert (content["runs"][1]["error"], content["runs"][1]["command"]) == ("no space left", None)


def test_a_damaged_configuration_tells_nothing(tmp_path: Path) -> None:
    write_run(tmp_path / "0", ["seed=0"])
    write_run(tmp_path / "1")
    for config in ("a: [", "- 1", "seed: 2024-01-01", "seed: .nan", "seed: [{1: a, b: c}]", "\x00"):
        (tmp_path / "1" / "config.yaml").write_text(config)
        content = content_of(tmp_path)
        json.dumps(content, allow_nan=False)
        assert isinstance(content["runs"][1]["values"]["seed"], str), config


# warnings


def test_different_data_are_warned_of_but_not_another_cut(tmp_path: Path) -> None:
    content = sweep(tmp_path / "data", {"mode.alpha=0.1": {}, "mode.alpha=0.2": {"content": "c1"}})
    assert content["warnings"] == ["the runs used 2 different datasets: their accuracies cannot be compared"]
    assert content["recommendation"] is None
    assert content["conclusion"] == "Nothing is recommended: accuracies on 2 different datasets cannot be compared."
    content = sweep(tmp_path / "cut", {"dataset.split_seed=0": {}, "dataset.split_seed=1": {"content": "c1"}})
    assert (content["warnings"], content["replicate_keys"]) == ([], ["dataset.split_seed"])
    assert content["recommendation"] is not None


def test_settings_are_ranked_among_those_of_their_own_data(tmp_path: Path) -> None:
    for name, content, accuracies in (("a", "c0", (0.3, 0.4)), ("b", "c1", (0.9, 0.8))):
        for number, accuracy in enumerate(accuracies):
            overrides = [f"mode.alpha=0.{number}"]  # the same words in both folders, whose images differ
            write_run(tmp_path / name / str(number), overrides, val=accuracy, content=content)
    report = report_of(tmp_path / "a", tmp_path / "b")
    assert [setting.mean("val_accuracy") for setting in report.settings] == [0.4, 0.3, 0.9, 0.8]
    assert [setting.replicates for setting in report.settings] == [1, 1, 1, 1]
    assert report.recommendation is None


def scored(macro_f1: float, nll: float) -> dict[str, Any]:
    """The student of a report that has these figures on validation, with the same accuracy as every other."""
    student: dict[str, Any] = made_up_report()["student"]
    student["selected"]["val"] |= {"macro_f1": macro_f1, "nll": nll}
    return student


@pytest.mark.parametrize(
    ("select_by", "best", "words", "heading", "cell"),
    [
        ("macro_f1", 1, "macro F1", "validation macro F1", "90.00%"),
        ("nll", 0, "negative log-likelihood", "validation negative log-likelihood", "0.500"),
    ],
)
def test_settings_are_ranked_by_the_figure_that_selected(
    tmp_path: Path, select_by: str, best: int, words: str, heading: str, cell: str
) -> None:
    for number, student in enumerate((scored(0.2, 0.5), scored(0.9, 0.7))):
        write_run(tmp_path / str(number), [f"mode.temperature={number}"], select_by=select_by, student=student)
    report = report_of(tmp_path)
    assert report.recommendation is not None
    assert report.recommendation.values == {"mode.temperature": best}
    assert report.recommendation.ties == ()  # the accuracies, which are equal, do not select
    assert report.conclusion.startswith(f"The best of 2 settings on validation, by {words}, is temperature {best}.")
    table = settings_table(report)
    assert table.rows[0][table.headings.index(heading)].text == cell
    assert heading not in settings_table(dataclasses.replace(report, select_by=("accuracy",))).headings


def test_runs_that_other_figures_selected_are_ranked_apart_and_none_is_recommended(tmp_path: Path) -> None:
    """The accuracies 0.2 and 0.1 are those of accuracy, 0.9 and 0.8 those of runs that macro F1 selected."""
    for number, accuracy in enumerate((0.1, 0.2)):
        write_run(tmp_path / f"a{number}", [f"mode.alpha=0.{number}"], val=accuracy)
    for number, macro_f1 in enumerate((0.8, 0.9)):
        overrides = [f"mode.alpha=0.{number}", "training.select_by=macro_f1"]
        write_run(tmp_path / f"b{number}", overrides, select_by="macro_f1", student=scored(macro_f1, 1.0))
    report = report_of(tmp_path)
    assert report.recommendation is None
    assert [setting.mean("val_selection") for setting in report.settings] == [0.2, 0.1, 0.9, 0.8]
    assert report.warnings == (
        "the runs were selected by different figures (accuracy, macro F1): they are ranked apart; give all of them "
        "one training.select_by",
    )
    assert report.conclusion == (
        "Nothing is recommended: the runs were selected by different figures (accuracy, macro F1)."
    )


def test_different_folders_of_own_files_are_warned_of(tmp_path: Path) -> None:
    write_run(tmp_path / "0", ["mode.alpha=0.1"], options=["--config-dir", "mine"])
    write_run(tmp_path / "1", ["mode.alpha=0.2"])
    [warning] = content_of(tmp_path)["warnings"]
    assert warning.startswith("the runs were started with different options (none, --config-dir mine)")


def test_warnings_are_told_once_with_their_number(tmp_path: Path) -> None:
    content = sweep(
        tmp_path,
        {
            "seed=0": {"warnings": ["odd sizes"]},
            "seed=1": {"warnings": ["the teacher (13.5%) is worse", "odd sizes"]},
            "seed=2": {"warnings": ["the teacher (14%) is worse", "odd sizes"]},
        },
    )
    assert content["warnings"] == [
        "odd sizes (3 of 3 runs)",
        "the teacher (13.5%) is worse (2 of 3 runs, with other numbers in some)",
    ]


def test_a_failure_is_not_told_beside_the_warning_that_says_what_helps(tmp_path: Path) -> None:
    few, cure = "the teacher has 9 steps", "the teacher has 9 steps: set training.teacher.epochs=7"
    runs = {"seed=0": {"warnings": [cure], "failures": [few]}, "seed=1": {"failures": ["the student is at chance"]}}
    content = sweep(tmp_path, runs)
    assert content["warnings"] == [f"{cure} (1 of 2 runs)", "the student is at chance (1 of 2 runs)"]


# what is written


def test_keys_are_as_short_as_can_be_told_apart() -> None:
    keys = ["mode.alpha", "training.teacher.epochs", "training.student.epochs", "seed"]
    assert list(short_keys(keys).values()) == ["alpha", "training.teacher.epochs", "training.student.epochs", "seed"]
    assert setting_name({"student.hidden": [8, 4], "baseline": True}) == "hidden [8,4], baseline true"


def test_the_csv_has_a_row_a_run(tmp_path: Path) -> None:
    write_run(tmp_path / "0", ["mode.alpha=0.5", "seed=0", 'x=a,"b'], val=0.25)
    write_run(tmp_path / "1", ["mode.alpha=0.9", "seed=1", "x=c"], status="failed", error="first\nsecond, third")
    first, second = csv.DictReader(io.StringIO(to_csv(report_of(tmp_path))))
    assert list(first) == [
        "directory", "status", "error", "mode.alpha", "x", "seed", "val_accuracy", "val_nll", "test_accuracy",
        "teacher_test_accuracy", "baseline_val_accuracy", "baseline_test_accuracy", "difference", "gap_recovered",
        "agreement", "train_seconds", "val_selection", "command",
    ]  # fmt: skip
    assert (first["status"], first["mode.alpha"], first["x"], first["seed"]) == ("completed", "0.5", 'a,"b', "0")
    assert float(first["val_accuracy"]) == 0.25
    assert (second["status"], second["error"], second["test_accuracy"]) == ("failed", "first\nsecond, third", "")


def test_the_content_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    write_run(tmp_path / "0", ["mode.alpha=0.5", "x=[1,{a: b}]"])
    write_run(tmp_path / "1", ["mode.alpha=0.9"], status="failed")
    report = report_of(tmp_path)
    assert SweepReport.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_a_damaged_sweep_json_says_what_is_wrong(tmp_path: Path) -> None:
    write_run(tmp_path / "0", ["mode.alpha=0.5"])
    content = content_of(tmp_path)
    content["settings"][0]["val_accuracy"]["mean"] = "high"
    with pytest.raises(ValueError, match=r'damaged \(settings\[0\].val_accuracy.mean is "high", not a finite number\)'):
        SweepReport.from_json(content)
    with pytest.raises(ValueError, match=r"sweep\.json has format None; format 1 can be read"):
        SweepReport.from_json({})


def test_a_damaged_report_says_which_key_is_wrong() -> None:
    for path, value, reason in (
        ("teacher", None, "teacher is null, not an object"),
        ("student.selected.epoch", 1.5, "student.selected.epoch is 1.5, not a whole number"),
        ("student.lr_search", {}, "student.lr_search is {}, not a list"),
        ("student.reused", 1, "student.reused is 1, not true or false"),
        ("dataset.name", 3, "dataset.name is 3, not a text"),
        ("warnings", ["a", None], "warnings[1] is null, not a text"),
        ("fidelity", {}, "fidelity.agreement is absent"),
    ):
        content = node = made_up_report()
        *parents, last = path.split(".")
        for name in parents:
            node = node[name]
        node[last] = value
        with pytest.raises(ValueError, match=re.escape(f"report.json is damaged ({reason})")):
            RunReport.from_json(content, Path("run"))


def test_a_report_keeps_its_content_and_gains_the_keys_that_were_added_later() -> None:
    old = made_up_report()
    report = RunReport.from_json({**old, "added_by_a_later_version": 1}, Path("run"))
    content = report.to_dict()
    assert RunReport.from_json(content, Path("run")) == report
    assert {key: content[key] for key in old if key not in ("teacher", "baseline", "student", "dataset")} == {
        key: value for key, value in old.items() if key not in ("teacher", "baseline", "student", "dataset")
    }
    for moment in ("selected", "last"):
        for split in ("val", "test"):
            old["student"][moment][split] |= {"balanced_accuracy": None, "macro_f1": None, "brier": None}
    assert content["student"] == {
        **old["student"], "data_share": None, "peak_memory_bytes": None, "learning_rate": None, "lr_search": [],
        "precision": None, "reused": False, "origin": "trained", "steps": None, "speed": [],
    }  # fmt: skip
    assert (content["guided_by"], content["assistants"], content["repeats"]) == (None, [], [])


def test_what_a_store_keeps_is_no_run(tmp_path: Path) -> None:
    """Its entries have the files of a run that was killed early; one that is being made has no meta.json yet."""
    run_dir = write_run(tmp_path / "runs" / "0")
    for name in ("teacher/aaaa", "teacher/.bbbb-working"):
        entry = tmp_path / "store" / name
        entry.mkdir(parents=True)
        for file in ("config.yaml", "environment.json"):
            (entry / file).write_text("{}")
    (tmp_path / "store" / "teacher" / "aaaa" / "meta.json").write_text("{}")
    write_run(tmp_path / "store" / "teacher" / "aaaa" / "inside")
    assert find_runs([tmp_path]) == [run_dir]


def test_a_folder_that_vanishes_is_skipped_and_one_that_must_not_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, other = write_run(tmp_path / "0"), tmp_path / "other"
    other.mkdir()
    scan = os.scandir
    errors: dict[Path, OSError] = {other: FileNotFoundError(errno.ENOENT, "gone")}

    def scan_or_fail(folder: Path) -> Any:
        if folder in errors:
            raise errors[folder]
        return scan(folder)

    monkeypatch.setattr("distill_run.sweeps.points.os.scandir", scan_or_fail)
    assert find_runs([tmp_path]) == [run_dir]
    errors[other] = PermissionError(errno.EACCES, "Permission denied")
    assert message_of(find_runs, [tmp_path]) == (
        f"{other} cannot be read (Permission denied)\n  ask for the right to read it"
    )


def test_a_field_whose_default_is_made_may_be_absent() -> None:
    @dataclasses.dataclass
    class Row:
        names: dict[str, Any] = dataclasses.field(default_factory=dict)

    assert decode(Row, {}) == Row({})


@pytest.mark.parametrize(
    ("difference", "words"),
    [(0.00004, "the same as the student alone"), (-0.0002, "0.02 percentage points below the student alone")],
)
def test_a_difference_is_rounded_before_it_is_put_into_words(tmp_path: Path, difference: float, words: str) -> None:
    content = sweep(tmp_path, {"seed=0": {"test": 0.5 + difference, "baseline": 0.5}})
    assert content["conclusion"] == (
        f"The student reaches {0.5 + difference:.2%} on test, {words} (one run, so no interval)."
    )
