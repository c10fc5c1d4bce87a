"""Sweeps from the command line: presets, one directory a command, failures, interruptions, several at once."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

from conftest import TINY, Command, InProcess
from distill_run.commands import installed
from distill_run.commands.preflight import read_command
from distill_run.config.compose import config_dir, option_names
from distill_run.config.overrides import count_points, swept_keys
from distill_run.config.presets import expand_presets
from distill_run.console.console import Console
from distill_run.console.displays import show_sweep
from distill_run.engine.loop import Trainer
from distill_run.errors import Interrupted
from distill_run.report.run_report import RunReport
from distill_run.sweeps.progress import SweepProgress
from helpers import message_of
from sweeps import write_run

COMMAND = str(Path(sys.executable).with_name("distill-run"))
Output = pytest.CaptureFixture[str]

pytestmark = pytest.mark.slow  # many runs, and processes beside each other


@pytest.fixture
def sweep(in_process: InProcess, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a sweep of the tiny pair in this process and an empty directory: exit status, stdout, stderr.

    Its own pages, which take longer than its trainings, are written where they are asked for.
    """

    def call(*arguments: str, pages: bool = False) -> tuple[int, str, str]:
        with monkeypatch.context() as patch:
            if not pages:
                patch.setattr("distill_run.sweeps.report.pages._write_pages", lambda *_: None)
            return in_process(installed.run, "distill-run", "-m", *TINY, *arguments)

    return call


def statuses(folder: Path) -> dict[str, str]:
    paths = sorted(folder.glob("*/status.json"))
    return {path.parent.name: json.loads(path.read_text())["status"] for path in paths}


def only_sweep(folder: Path) -> Path:
    (directory,) = folder.glob("outputs/sweeps/*/*")
    return directory


def test_a_preset_stands_for_its_values_and_the_command_line_wins() -> None:
    expected = ["mode.temperature=1,2,4,8", "mode.alpha=0.1,0.5,0.9"]
    assert expand_presets(["+sweep=temperature_alpha"], None) == (expected, True)
    assert expand_presets(["sweep=temperature_alpha"], None) == (expected, True)
    assert expand_presets(["mode.alpha=0.3", "+sweep=temperature_alpha", "seed=1,2"], None) == (
        ["mode.temperature=1,2,4,8", "mode.alpha=0.3", "seed=1,2"],
        True,
    )
    both, _ = expand_presets(["+sweep=[temperature_alpha,seeds]"], None)
    assert both == [*expected, "seed=0,1,2,3,4"]
    assert expand_presets(["seed=1"], None) == (["seed=1"], False)


def test_a_preset_of_one_s_own_stands_beside_the_others_and_an_unknown_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "rates.yaml").write_text("# @package hydra.sweeper.params\ntraining.student.epochs: 1,2\n")
    assert expand_presets(["+sweep=rates"], tmp_path) == (["training.student.epochs=1,2"], True)
    assert message_of(expand_presets, ["+sweep=temperatures"], None) == (
        "+sweep=temperatures is not there\n  write one of modes, objectives, seeds, students, temperature_alpha"
    )


def test_every_value_of_a_preset_is_accepted() -> None:
    for preset in option_names("sweep"):
        overrides, _ = expand_presets([f"+sweep={preset}"], None)
        values = yaml.safe_load((config_dir() / "sweep" / f"{preset}.yaml").read_text())
        assert count_points(overrides) == math.prod(len(text.split(",")) for text in values.values()) >= 5
        for key, text in values.items():
            if folder := {"mode": "mode", "student": "model"}.get(key):
                assert set(text.split(",")) <= set(option_names(folder))
            else:
                assert len(read_command([f"{key}={text}"], None, multirun=True)) == len(text.split(","))


def test_the_swept_keys_are_those_with_several_values() -> None:
    overrides = ["mode.alpha=0.1,0.5", "seed=range(0,3)", "mode=soft", "student=choice(mlp,cnn_tiny)"]
    assert swept_keys(overrides) == ["mode.alpha", "seed", "student"]
    assert count_points(overrides) == 12


def test_a_sweep_leaves_its_points_and_its_answer(sweep: Any, tmp_path: Path) -> None:
    status, out, err = sweep("mode.temperature=1,4", "mode.alpha=0.5,0.9", pages=True)
    assert (status, err) == (0, "")
    folder = only_sweep(tmp_path)
    assert statuses(folder) == dict.fromkeys("0123", "completed")
    assert {path.name for path in folder.iterdir()} == {
        *"0123", "multirun.yaml", "plots", "sweep.csv", "sweep.html", "sweep.json", "sweep.md", "sweep_command.json",
    }  # fmt: skip
    lines = out.splitlines()
    assert lines[0] == f"sweep: 4 points in {folder.relative_to(tmp_path)}"
    assert lines[1].startswith("   0 mode.temperature=1 mode.alpha=0.5   val ")
    told = [line.split()[:2] for line in lines if line.startswith(("teacher", "baseline", "student"))]
    assert told == [["baseline", "1"]]  # the row of the table: the points are quiet
    content = json.loads((folder / "sweep.json").read_text())
    assert content["keys"] == ["mode.temperature", "mode.alpha"]
    assert content["counts"]["completed"] == 4
    reports = [json.loads((folder / str(job) / "report.json").read_text()) for job in range(4)]
    assert len({report["teacher"]["fingerprint"] for report in reports}) == 1
    assert [report["teacher"]["reused"] for report in reports] == [False, True, True, True]


def test_seeds_vary_the_students_and_share_the_teacher(sweep: Any, tmp_path: Path) -> None:
    sweep("seed=0,1", "dataset.augment.crop.padding=1")
    reports = [json.loads(path.read_text()) for path in sorted(only_sweep(tmp_path).glob("*/report.json"))]
    assert len({report["teacher"]["fingerprint"] for report in reports}) == 1
    assert len({report["baseline"]["fingerprint"] for report in reports}) == 2
    kinds = [path.parent.name for path in tmp_path.glob("outputs/store/[!.]*/*")]
    assert sorted(kinds) == ["baseline", "baseline", "logits", "logits", "teacher"]


def test_a_fixed_view_seed_shares_one_bank_among_all_seeds(sweep: Any, tmp_path: Path) -> None:
    sweep("seed=0,1", "dataset.augment.crop.padding=1", "training.view_seed=7")
    assert len(list(tmp_path.glob("outputs/store/logits/*"))) == 1


def test_images_that_nothing_changes_have_one_view_and_one_bank_for_all_seeds(sweep: Any, tmp_path: Path) -> None:
    sweep("seed=0,1")
    (bank,) = tmp_path.glob("outputs/store/logits/*")
    assert [path.name for path in bank.glob("view_*")] == ["view_0.npy"]


def test_a_point_that_diverges_is_listed_and_the_others_run(sweep: Any, tmp_path: Path) -> None:
    status, out, err = sweep("training.student.optimizer.lr=0.05,1e30", "baseline=false")
    assert status == 1
    assert err == ""
    folder = only_sweep(tmp_path)
    assert statuses(folder) == {"0": "completed", "1": "failed"}
    assert (
        "   1 training.student.optimizer.lr=1e+30   failed: the student's loss is not finite at epoch 1, step " in out
    )
    (failed,) = [run for run in json.loads((folder / "sweep.json").read_text())["runs"] if run["status"] == "failed"]
    assert failed["error"].startswith("the student's loss is not finite at epoch 1, step ")


def test_points_in_nested_folders_are_told_and_paths_stay_where_the_command_was_typed(
    sweep: Any, tmp_path: Path
) -> None:
    """Hydra changes into each point's folder here, and still there is one store, and one teacher in it."""
    status, out, err = sweep(
        "training.student.optimizer.lr=0.05,1e30",
        "baseline=false",
        "hydra.job.chdir=true",
        'hydra.sweep.dir="o\'brien (2024)"',
        "hydra.sweep.subdir=lr${training.student.optimizer.lr}/seed${seed}",
    )
    assert (status, err) == (1, "")
    folder = tmp_path / "o'brien (2024)"
    found = {str(path.parent.relative_to(folder)): json.loads(path.read_text()) for path in folder.rglob("status.json")}
    assert {name: content["status"] for name, content in found.items()} == {
        "lr0.05/seed0": "completed",
        "lr1e+30/seed0": "failed",
    }
    assert "   1 training.student.optimizer.lr=1e+30   failed: the student's loss is not finite at epoch 1" in out
    assert "1 of 2 runs completed, 1 failed" in out.splitlines()
    assert json.loads((folder / "sweep.json").read_text())["counts"]["failed"] == 1
    assert len(list(tmp_path.rglob("store/teacher/*/weights.pt"))) == 1


def test_a_point_whose_folder_has_another_run_fails_and_leaves_that_run_alone(sweep: Any, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    assert sweep("mode.temperature=1", "hydra.sweep.dir=one", f"hydra.sweep.subdir={folder}")[0] == 0
    assert sweep("mode.temperature=1", "hydra.sweep.dir=one", f"hydra.sweep.subdir={folder}")[0] == 0  # its own
    status, out, err = sweep("mode.temperature=2", "hydra.sweep.dir=two", f"hydra.sweep.subdir={folder}")
    assert (status, err) == (1, "")
    assert json.loads((folder / "report.json").read_text())["mode"]["temperature"] == 1
    assert f"   0    failed: hydra.sweep.subdir puts this point into {folder}, which has another run" in out
    assert json.loads((tmp_path / "two/points/0/status.json").read_text())["status"] == "failed"


def test_a_point_that_fails_before_it_begins_is_listed_too(sweep: Any, tmp_path: Path) -> None:
    """Only the data tell how many channels there are."""
    status, out, _ = sweep("dataset.mean=[0.5],[0.5,0.5]", "dataset.std=[0.5]")
    assert status == 1
    folder = only_sweep(tmp_path)
    assert statuses(folder) == {"0": "completed", "1": "failed"}
    assert "   1 dataset.mean=[0.5,0.5]   failed: dataset.mean has 2 numbers, the images have 1 channels" in out
    command = json.loads((folder / "1" / "environment.json").read_text())["command"]
    assert command.endswith("'dataset.mean=[0.5,0.5]' 'dataset.std=[0.5]'")


def test_the_same_command_goes_on_with_a_sweep_that_was_cut_short(
    sweep: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Trainer._train_step

    def stop_at_the_second_student(self: Trainer, batches: Any, watcher: Any) -> Any:
        if (
            self.learner.stage == "student"
            and self.epoch == 2
            and (only_sweep(tmp_path) / "0" / "report.json").exists()
        ):
            watcher.state_saved(self.state())
            raise Interrupted
        return original(self, batches, watcher)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", stop_at_the_second_student)
        status, out, _ = sweep("mode.temperature=1,2,4")
    folder = only_sweep(tmp_path)
    assert status == 130
    assert statuses(folder) == {"0": "completed", "1": "interrupted"}
    assert "1 of 3 runs completed, 1 unfinished, 1 not begun" in out.splitlines()
    assert json.loads((folder / "sweep.json").read_text())["counts"]["not begun"] == 1
    said = [line for line in out.splitlines() if line.startswith("interrupted")]
    assert said[0].startswith("interrupted; the same command goes on with it: distill-run -m teacher=cnn_tiny ")
    assert said[0].endswith(" mode.temperature=1,2,4")
    before = (folder / "0" / "report.json").stat().st_mtime_ns
    status, out, _ = sweep("mode.temperature=1,2,4")
    assert status == 0
    assert only_sweep(tmp_path) == folder
    assert out.splitlines()[0].endswith(", 1 of them completed earlier")
    assert statuses(folder) == dict.fromkeys("012", "completed")
    assert (folder / "0" / "report.json").stat().st_mtime_ns == before
    # The second point went on where it was: its first epoch is that of the cut training.
    sweep("mode.temperature=2", f"hydra.sweep.dir={tmp_path / 'whole'}")
    resumed, whole = (
        json.loads((path / "report.json").read_text()) for path in (folder / "1", tmp_path / "whole" / "0")
    )
    assert resumed["student"]["selected"] == whole["student"]["selected"]


def test_a_finished_sweep_is_not_taken_up_nor_one_of_another_command(sweep: Any, tmp_path: Path) -> None:
    assert "sweep: 1 point in " in sweep("mode.temperature=1")[1]
    sweep("mode.temperature=1")
    sweep("mode.temperature=2")
    assert len(list(tmp_path.glob("outputs/sweeps/*/*"))) == 3


def test_a_directory_that_the_user_names_is_gone_on_with_or_refused(sweep: Any, tmp_path: Path) -> None:
    assert sweep("mode.temperature=1", "hydra.sweep.dir=mine")[0] == 0
    before = (tmp_path / "mine" / "0" / "report.json").stat().st_mtime_ns
    assert sweep("mode.temperature=1", "hydra.sweep.dir=mine")[0] == 0
    assert (tmp_path / "mine" / "0" / "report.json").stat().st_mtime_ns == before
    status, _, err = sweep("mode.temperature=2", "hydra.sweep.dir=mine")
    assert (status, err) == (1, "error: mine holds something else\n  name a folder that is empty or new\n")
    with FileLock(tmp_path / "mine" / ".lock"):
        status, _, err = sweep("mode.temperature=1", "hydra.sweep.dir=mine")
    assert (status, err) == (1, "error: another process is at work in mine\n  wait for it, or stop it\n")


def test_a_sweep_that_runs_is_left_alone_by_the_same_command(sweep: Any, tmp_path: Path) -> None:
    sweep("mode.temperature=1")
    first = only_sweep(tmp_path)
    record = json.loads((first / "sweep_command.json").read_text())
    (first / "sweep_command.json").write_text(json.dumps({**record, "completed": False}))
    with FileLock(first / ".lock"):
        sweep("mode.temperature=1")
    assert len(list(tmp_path.glob("outputs/sweeps/*/*"))) == 2


def test_progress_is_told_from_files(tmp_path: Path, capsys: Output) -> None:
    progress = SweepProgress(tmp_path, 4, ["mode.alpha"], Console())
    write_run(tmp_path / "0", ["mode.alpha=0.1", "seed=0"], val=0.5, test=0.625, baseline=0.5, warnings=["careful"])
    write_run(tmp_path / "2", ["mode.alpha=0.3"], status="failed", error="it broke\n  mend it")
    write_run(tmp_path / "3", ["mode.alpha=0.4"], status="running")
    row = {"stage": "teacher", "epoch": 3, "val": {"accuracy": 0.25}}
    (tmp_path / "3" / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    progress.heartbeat -= 60
    with show_sweep(progress.console) as display:
        progress.look(display)
        write_run(tmp_path / "10", ["mode.alpha=0.2"], warnings=["careful"], baseline=None)
        write_run(tmp_path / "1", ["mode.alpha=0.2"], status="pruned")
        (tmp_path / "1" / "metrics.jsonl").write_text(json.dumps({**row, "stage": "student"}) + "\n")
        progress.look(display)
        progress.look(display)
    assert capsys.readouterr().out.splitlines() == [
        "   0 mode.alpha=0.1   val 50.00%  test 62.50% (+12.50)  2.0s",
        "     warning: careful",
        "   2 mode.alpha=0.3   failed: it broke",
        "     2 of 4 points ended   3: teacher epoch 3, val 25.00%",
        "   1 mode.alpha=0.2   given up after student epoch 3, val 25.00%",
        "  10 mode.alpha=0.2   val 50.00%  test 50.00%  2.0s",
    ]
    assert progress.ended == {"0": "completed", "2": "failed", "1": "pruned", "10": "completed"}


def test_of_many_points_at_work_one_is_shown(tmp_path: Path, capsys: Output) -> None:
    progress = SweepProgress(tmp_path, 5, ["seed"], Console())
    for number in range(5):
        write_run(tmp_path / f"{number}", [f"seed={number}"], status="running")
    progress.heartbeat -= 60
    with show_sweep(progress.console) as display:
        progress.look(display)
    assert capsys.readouterr().out.split("\n")[0] == "     0 of 5 points ended   5 points at work, such as 0: preparing"


def test_the_time_left_is_that_of_the_usual_point_times_those_left(tmp_path: Path) -> None:
    progress = SweepProgress(tmp_path, 12, [], Console())
    assert progress._left([5.0]) == []  # no point has ended: nobody knows
    progress.took = [60.0, 10.0, 12.0]  # the first one trained the teacher
    progress.ended = dict.fromkeys("012", "completed")
    # One runs since 4 s and 8 wait, each for 12 s.
    assert progress._left([4.0]) == ["about 1:44 left"]
    progress.num_at_once = 2
    # Two run since 4 s and 20 s, 7 wait: (7 * 12 + 8 + 0) / 2 = 46.
    assert progress._left([4.0, 20.0]) == ["about 0:46 left"]
    progress.ended = dict.fromkeys("0123456789ab", "completed")
    assert progress._left([]) == []
    assert SweepProgress(tmp_path, None, [], Console(), took=[1.0])._left([]) == []


def test_several_points_at_once_share_a_teacher_and_a_display(
    command: Command, tmp_path: Path, tiny_report: RunReport
) -> None:
    swept = ["mode.temperature=2,4", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=sweep"]
    done = command("-m", *TINY, *swept)
    assert done.returncode == 0, done.stderr
    assert statuses(tmp_path / "sweep") == dict.fromkeys("01", "completed")
    reports = [json.loads(path.read_text()) for path in (tmp_path / "sweep").glob("*/report.json")]
    assert [report["teacher"]["reused"] for report in reports].count(False) == 1
    # The second point is the run of the default temperature: neither its place nor other processes change a number.
    second = json.loads((tmp_path / "sweep" / "1" / "report.json").read_text())
    for network in ("teacher", "baseline", "student"):
        assert second[network]["selected"] == tiny_report.summary[network]["selected"]
    lines = [line for line in done.stdout.splitlines() if " mode.temperature=" in line and " val " in line]
    assert len(lines) == 2
    assert (tmp_path / "sweep" / "sweep.html").is_file()


def test_two_sweeps_at_once_share_a_store_and_one_that_is_killed_is_gone_on_with(tmp_path: Path) -> None:
    arguments = [COMMAND, "-m", *TINY, "training.student.epochs=3", "mode.temperature=1,2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first, second = (
        subprocess.Popen(arguments, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)
    )
    assert first.stdout is not None
    for line in first.stdout:
        if line.startswith("   0 "):
            first.send_signal(signal.SIGKILL)
            break
    first.communicate()
    second.communicate(timeout=120)
    assert (first.returncode, second.returncode) == (-signal.SIGKILL, 0)
    third = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert third.returncode == 0, third.stderr
    assert " of them completed earlier" in third.stdout
    folders = list(tmp_path.glob("outputs/sweeps/*/*"))
    assert [statuses(folder) for folder in folders] == [{"0": "completed", "1": "completed"}] * 2
    assert len(list(tmp_path.glob("outputs/store/teacher/*"))) == 1
