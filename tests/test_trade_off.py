"""Accuracy against what the networks of a sweep cost: who is on the Pareto front, and when there is such a picture."""

import json
from pathlib import Path
from typing import Any

import pytest

from distill_run.sweeps.report.pages import read_sweep, write_sweep_report
from distill_run.sweeps.report.sweep_report import SweepReport, read_sweep_json
from distill_run.sweeps.report.trade_off import LATENCY, MACS, SIZE, axes_of, has_trade_off, pareto_front, trade_off
from helpers import Page
from sweeps import made_up_report, write_run

# Architecture: parameters, multiply-adds, milliseconds, validation accuracy of the student.
STUDENTS = {"small": (100, 4_000, 3.0, 0.6), "fast": (300, 1_000, 1.0, 0.5), "large": (900, 9_000, 9.0, 0.8)}


def network(name: str, fingerprint: str, val: float, is_timed: bool) -> dict[str, Any]:
    params, macs, milliseconds, _ = STUDENTS.get(name, (2_000, 50_000, 20.0, 0))
    found: dict[str, Any] = made_up_report(val=val)["student"]
    seconds = milliseconds / 1000
    timing = {
        "device": "cpu", "threads": 1, "batch_size": 1, "repetitions": 10, "lower_quartile": seconds / 2,
        "median": seconds, "upper_quartile": 2 * seconds, "memory_bytes": 4 * params,
    }  # fmt: skip
    sizes = {"architecture": name, "params": params, "macs": macs, "bytes": 4 * params, "fingerprint": fingerprint}
    return {**found, **sizes, "speed": [timing] if is_timed else []}


def write_networks(run_dir: Path, overrides: list[str], **networks: dict[str, Any]) -> None:
    """A run with these networks, by their stages."""
    path = write_run(run_dir, overrides) / "report.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **networks}))


def write_students(folder: Path, is_timed: bool = True) -> SweepReport:
    """A sweep over three students and two seeds; a student is 0.1 better than its baseline."""
    for name, (*_, val) in STUDENTS.items():
        for seed in (0, 1):
            own = val + 0.02 * seed
            write_networks(
                folder / f"{name}{seed}",
                [f"student={name}", f"seed={seed}"],
                teacher=network("teacher", "t", 0.7, is_timed),
                student=network(name, f"s{name}{seed}", own, is_timed),
                baseline=network(name, f"b{name}{seed}", own - 0.1, is_timed),
            )
    return write_sweep_report([folder], folder)


def test_the_report_has_what_each_network_costs(tmp_path: Path) -> None:
    report = write_students(tmp_path)
    found = {(each.stage, each.architecture): each for each in report.networks}
    assert len(found) == len(report.networks) == 1 + 3 + 3
    assert found["teacher", "teacher"].val_accuracy == 0.7
    assert found["baseline", "small"].val_accuracy == pytest.approx(0.51)
    small = found["student", "small"]
    assert small.val_accuracy == pytest.approx(0.61)
    assert (small.bytes, small.macs) == (400, 4_000)
    assert small.latency_seconds == pytest.approx(0.003)
    assert small.setting is not None
    assert report.settings[small.setting].values == {"student": "small"}
    assert read_sweep_json(tmp_path) == report


def test_the_front_has_who_is_better_than_all_that_cost_as_little(tmp_path: Path) -> None:
    report = write_students(tmp_path)

    def names(axis: Any) -> list[str]:
        return [f"{each.stage} {each.architecture}" for each in pareto_front(report.networks, axis)]

    assert axes_of(report) == (SIZE, LATENCY)
    # `fast` is larger than `small` and worse; the teacher is the largest, and worse than `large`.
    assert names(SIZE) == ["student small", "student large"]
    assert names(LATENCY) == ["student fast", "student small", "student large"]
    assert names(LATENCY) == names(MACS)


def test_the_picture_is_on_both_pages(tmp_path: Path) -> None:
    report = write_students(tmp_path)
    figure = trade_off(report)
    for axes, costs in zip(figure.axes, ([0.0036], [9.0]), strict=True):
        lines = {str(line.get_label()): line for line in axes.lines}
        assert {"Pareto front", "teacher", "baseline", "student", "_recommended"} == lines.keys()
        assert list(lines["_recommended"].get_xdata()) == pytest.approx(costs)  # type: ignore[arg-type]
        assert list(lines["_recommended"].get_ydata()) == pytest.approx([0.81])  # type: ignore[arg-type]
    assert figure.axes[1].get_xlabel() == "latency of one image, 1 thread (ms)"
    assert (tmp_path / "plots" / "trade_off.png").is_file()
    alt = next(
        image["alt"]
        for image in Page((tmp_path / "sweep.html").read_text()).all("img")
        if image["class"] == "trade_off"
    )
    assert alt is not None
    assert "latency of one image, 1 thread: fast (student, 1 ms, 51.00%), small (student, 3 ms, 61.00%)" in alt
    assert "![Validation accuracy by size of the weights" in (tmp_path / "sweep.md").read_text()


def test_multiply_adds_stand_for_what_was_not_timed(tmp_path: Path) -> None:
    report = write_students(tmp_path, is_timed=False)
    assert axes_of(report) == (SIZE, MACS)
    assert "multiply-adds stand for it: measure_speed=true" in Page((tmp_path / "sweep.html").read_text()).text


def test_students_of_one_architecture_are_named_by_their_settings(tmp_path: Path) -> None:
    for width, name in ((8, "small"), (16, "large")):
        student = {**network(name, name, STUDENTS[name][-1], True), "architecture": "mlp"}
        others = {stage: network(stage, stage, 0.1, True) for stage in ("teacher", "baseline")}
        write_networks(tmp_path / str(width), [f"student.hidden=[{width}]"], student=student, **others)
    texts = {text.get_text() for text in trade_off(read_sweep([tmp_path], tmp_path)).axes[0].texts}
    assert texts == {"hidden [8]", "hidden [16]"}


def test_one_size_or_several_datasets_have_no_picture(tmp_path: Path) -> None:
    for temperature in (1, 2):
        write_run(tmp_path / "one" / str(temperature), [f"mode.temperature={temperature}"], val=temperature / 4)
    assert not has_trade_off(write_sweep_report([tmp_path / "one"], tmp_path / "one"))
    assert not (tmp_path / "one" / "plots" / "trade_off.png").exists()
    several = write_students(tmp_path / "several")
    write_run(tmp_path / "several" / "other", ["student=other"], content="c1")
    assert has_trade_off(several)
    assert not has_trade_off(read_sweep([tmp_path / "several"], tmp_path))
