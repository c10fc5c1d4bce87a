"""`distill-run verify=DIR`: a run comes out again to the bit, or it is said what differs first."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import InProcess
from distill_run import tensor_files
from distill_run.commands import installed
from distill_run.commands.verify import verify
from distill_run.config.settings import compose_config
from distill_run.files import RunFiles
from distill_run.pipeline import run
from distill_run.record.comparison import Recorded, first_difference, other_environment
from distill_run.report.run_report import RunReport
from helpers import message_of


def test_a_run_is_trained_again_and_is_the_same(tiny_report: RunReport, in_process: InProcess, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tiny_report.run_dir.rglob("*")}
    status, out, err = in_process(installed.run, "distill-run", f"verify={tiny_report.run_dir}")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[-1] == "identical: the weights of student.pt, all epochs of metrics.jsonl, the figures of report.json"
    assert lines[-2].startswith("student    epoch   2/2  ")
    assert {path: path.stat().st_mtime_ns for path in tiny_report.run_dir.rglob("*")} == before
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def copies(tiny_report: RunReport, tmp_path: Path) -> tuple[RunFiles, RunFiles]:
    """The tiny run, and a copy of it that a test may change."""
    shutil.copytree(tiny_report.run_dir, tmp_path / "copy")
    return RunFiles(tiny_report.run_dir), RunFiles(tmp_path / "copy")


def between(ours: RunFiles, theirs: RunFiles) -> str | None:
    return first_difference(Recorded.read(ours), Recorded.read(theirs))


def change_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_what_differs_first_is_told_in_the_order_of_a_run(copies: tuple[RunFiles, RunFiles]) -> None:
    ours, theirs = copies
    assert between(ours, theirs) is None
    change_json(theirs.report, lambda report: report["student"].update(train_seconds=9.0, origin="elsewhere"))
    assert between(ours, theirs) is None
    before = json.loads(ours.report.read_text())["fidelity"]["kl"]
    change_json(theirs.report, lambda report: report["fidelity"].update(kl=2.5))
    assert between(ours, theirs) == f"report.json, fidelity.kl: {before} then, 2.5 now"
    student = tensor_files.load(theirs.student)
    name = next(iter(student["weights"]))
    norm = student["weights"][name].norm().item()
    student["weights"][name] *= 0
    tensor_files.save(theirs.student, student)
    assert between(ours, theirs) == f"student.pt, {name}: norm {norm!r} then, norm 0.0 now"
    rows = [json.loads(line) for line in theirs.metrics.read_text().splitlines()]
    loss = rows[1]["val"]["nll"]
    rows[1] = {**rows[1], "seconds": 9.0, "val": {**rows[1]["val"], "nll": 0.5}}
    theirs.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert between(ours, theirs) == f"teacher, epoch 2, val.nll: {loss} then, 0.5 now"
    theirs.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows[:1]))
    assert between(ours, theirs) == "metrics.jsonl: 6 epochs then, 1 now"
    change_json(theirs.report, lambda report: report["dataset"].update(content="f"))
    content = json.loads(ours.report.read_text())["dataset"]["content"]
    assert between(ours, theirs) == f"report.json, dataset.content: {content} then, f now"


def test_the_environment_says_what_would_have_to_be_equal(copies: tuple[RunFiles, RunFiles]) -> None:
    ours, theirs = copies
    recorded = json.loads(ours.environment.read_text())
    deciding = ("torch", "pillow", "program", "device", "device_name", "cpu_capability", "threads", "precision")
    assert recorded.keys() >= set(deciding)
    change_json(theirs.environment, lambda content: content.update(command="x", directory="y", threads=64))
    change_json(theirs.environment, lambda content: content.pop("cpu_capability"))
    assert other_environment(Recorded.read(ours), Recorded.read(theirs)) == [
        f"environment.json, cpu_capability: {recorded['cpu_capability']} then, absent now",
        f"environment.json, threads: {recorded['threads']} then, 64 now",
    ]


def test_damaged_files_are_told_before_anything_is_trained(copies: tuple[RunFiles, RunFiles]) -> None:
    _, theirs = copies
    settings = compose_config([f"verify={theirs.run_dir}"])
    told = f"the files of {theirs.run_dir} are damaged: %s\n  a run can be compared as it was left only"
    theirs.metrics.write_text('{"stage": "teacher"}\n')
    assert message_of(verify, settings, theirs.run_dir) == told % "KeyError 'epoch'"
    theirs.report.write_text("[]")
    damage = "ValueError report.json is damaged (it holds no object)"
    assert message_of(verify, settings, theirs.run_dir) == told % damage


def test_a_run_that_cannot_be_verified_says_why(tiny_report: RunReport, tmp_path: Path) -> None:
    folder = tiny_report.run_dir
    told = {
        "verify=nowhere": "verify=nowhere is not the directory of a run\n  look into outputs/runs for it",
        f"verify={tmp_path}": f"verify={tmp_path} is not completed\n"
        f"  go on with it first: distill-run resume={tmp_path}",
    }
    shutil.copy(folder / "config.yaml", tmp_path)
    for override, message in told.items():
        assert message_of(compose_config, [override]) == message
    assert message_of(run, compose_config([f"verify={folder}"]), tmp_path / "new") == (
        f"verify={folder} is a command, not a run\n  write distill-run verify={folder}"
    )


def test_a_sweep_is_verified_run_by_run(in_process: InProcess) -> None:
    told = "error: verify= trains a single run again\n  leave -m out\n"
    assert in_process(installed.run, "distill-run", "-m", "verify=out", "seed=0,1")[::2] == (1, told)
