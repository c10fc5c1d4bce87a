"""Cut short and taken up again: the weights are those of an uninterrupted run, bit for bit."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from filelock import FileLock
from omegaconf import OmegaConf

from conftest import TINY, without_pages
from distill_run.commands.runner import run_alone
from distill_run.config.compose import compose
from distill_run.config.resume import resumed_settings
from distill_run.config.schema import Settings
from distill_run.config.settings import compose_config, settings_of
from distill_run.engine.interrupt import StopRequest
from distill_run.errors import Interrupted, UserError
from distill_run.pipeline import run
from distill_run.quoting import override
from distill_run.report.run_report import read_report
from helpers import message_of

# All that has a state: momentum, a plateau's memory, batch norm; and dropout, which must not have one.
STATEFUL = (
    *(*TINY, "student=cnn_tiny", "student.dropout=0.2", "student.hidden=[16]", "training.views=2"),
    *("training/student/optimizer=adamw", "training/student/schedule=plateau", "training.student.clip_norm=0.5"),
)


def student_of(run_dir: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(run_dir / "checkpoints" / "student.pt", weights_only=True)
    return content["weights"]  # type: ignore[no-any-return]


def figures_of(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what a clock says."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in ("stage", "epoch", "train", "val", "learning_rate")} for row in rows]


def settings_for(folder: Path, *overrides: str) -> Settings:
    return compose_config([*STATEFUL, f"store_dir={folder / 'store'}", *overrides])


def resumed(*overrides: str) -> Settings:
    return settings_of(compose(overrides).config, overrides)


def resume(run_dir: Path) -> None:
    run(resumed(f"resume={run_dir}"), run_dir)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    with without_pages():
        run(settings_for(folder), folder / "run")
    return folder / "run"


StopAfter = Callable[[int], None]


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> StopAfter:
    """Ask for a stop when a training has polled so many times."""

    def arrange(polls: int) -> None:
        polled = count(1)
        requested = property(lambda _: next(polled) == polls, lambda _, __: None)
        monkeypatch.setattr(StopRequest, "requested", requested, raising=False)

    return arrange


# The tiny run has 36 steps of the teacher, 18 of the baseline, 18 of the student, in two epochs each. An epoch polls
# twice more, before its validation and at its end; one of the student also before its view of the bank.
@pytest.mark.parametrize("polls", [27, 63, *(pytest.param(polls, marks=pytest.mark.slow) for polls in (1, 39, 78))])
def test_a_run_cut_at_any_step_ends_like_an_uninterrupted_one(
    polls: int,
    tmp_path: Path,
    uninterrupted: Path,
    stop_after: StopAfter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop_after(polls)
    with pytest.raises(Interrupted):
        run(settings_for(tmp_path), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "status.json").read_text()) == {"status": "interrupted"}
    monkeypatch.undo()
    torch.manual_seed(polls)  # whatever state the generator is in
    resume(tmp_path / "run")
    expected, found = student_of(uninterrupted), student_of(tmp_path / "run")
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert figures_of(tmp_path / "run") == figures_of(uninterrupted)
    assert json.loads((tmp_path / "run" / "status.json").read_text()) == {"status": "completed"}


def test_resuming_a_completed_run_writes_nothing_and_says_where_its_report_is(
    uninterrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*")}
    report = run(resumed(f"resume={uninterrupted}"), uninterrupted)
    assert report.to_dict() == json.loads((uninterrupted / "report.json").read_text())
    assert {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*")} == before
    assert capsys.readouterr().out == f"the run is completed; its report is {uninterrupted / 'report.html'}\n"


def test_what_a_kill_at_the_very_end_has_left_is_removed(uninterrupted: Path, tmp_path: Path) -> None:
    shutil.copytree(uninterrupted, tmp_path / "run")
    left = tmp_path / "run" / "checkpoints" / "finished"
    (left / "student").mkdir(parents=True)
    run(resumed(f"resume={tmp_path / 'run'}"), tmp_path / "run")
    assert not left.exists()


def test_a_completed_run_gets_what_is_asked_for_later(uninterrupted: Path, tmp_path: Path) -> None:
    shutil.copytree(uninterrupted, tmp_path / "run")
    report = run(resumed(f"resume={tmp_path / 'run'}", "robustness_images=5"), tmp_path / "run")
    assert report.robustness is not None
    assert read_report(uninterrupted).robustness is None
    assert report.student == read_report(uninterrupted).student


def test_a_changed_key_is_refused_with_both_values(uninterrupted: Path) -> None:
    changes = ["mode.temperature=8", "seed=0", "mode=soft", "training.student.clip_norm=null"]
    overrides = [f"resume={uninterrupted}", *changes]
    with pytest.raises(UserError) as caught:
        resumed(*overrides)
    assert str(caught.value) == (
        "mode.temperature was 4.0, the command says 8\n"
        "  leave that key out, or start a new run without resume=\n"
        "training.student.clip_norm was 0.5, the command says null\n"
        "  leave that key out, or start a new run without resume="
    )


def test_what_an_earlier_version_saved_is_brought_up_to_date(uninterrupted: Path, tmp_path: Path) -> None:
    """Schedules moved, the augmentation became a mapping of components, a flag became a word, keys are new."""
    saved = OmegaConf.load(uninterrupted / "config.yaml")
    saved.training.student.schedule._target_ = "distill_run.schedules.Plateau"
    del saved.dataset.test_fraction, saved.dataset.sampling
    del saved.dataset.unlabelled, saved.dataset.unlabelled_share
    for key in ("image_size", "crop_ratio", "memory_gigabytes", "workers", "on_error"):
        del saved.dataset[key]
    for recipe in (saved.training.teacher, saved.training.student):
        for key in ("accumulation", "ema", "decay_norms", "backbone_lr_factor", "freeze_batch_norm"):
            del recipe[key]
    del saved.training.select_by, saved.training.class_weights
    del saved.repeats, saved.dataset.repeats  # one student, whatever the dataset has today
    saved.dataset.augment = {"crop_padding": 0, "flip": False, "cutout": 0}
    saved.device.compile = False
    del saved.device.deterministic
    OmegaConf.save(saved, tmp_path / "config.yaml")
    overrides = [f"resume={uninterrupted}", "device.compile=false"]
    settings = resumed_settings(tmp_path / "config.yaml", compose(overrides).config, overrides)
    now = resumed(*overrides)
    del now.dataset.augment["random_resized_crop"]  # a run of an earlier version had none
    assert settings == now


def test_an_image_folder_of_an_earlier_version_goes_on(tmp_path: Path, photos: Path) -> None:
    overrides = [*TINY, "dataset=image_folder", f"dataset.root={photos}", f"store_dir={tmp_path / 'store'}"]
    run(compose_config(overrides), tmp_path / "run")
    path = tmp_path / "run" / "config.yaml"
    saved = OmegaConf.load(path)
    del saved.dataset.image_size, saved.dataset.augment.random_resized_crop
    saved.dataset.source = {**saved.dataset.source, "image_size": 8, "store_dir": "outputs/store"}
    OmegaConf.save(saved, path)
    settings = resumed(f"resume={tmp_path / 'run'}")
    assert settings.dataset.image_size == 8
    assert settings.dataset.source.keys() == {"_target_", "root", "channels"}


def test_a_store_may_have_moved(uninterrupted: Path) -> None:
    settings = resumed(f"resume={uninterrupted}", "store_dir=elsewhere")
    assert settings.store_dir == "elsewhere"
    assert settings.training.views == 2


def test_a_run_is_found_again_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its relative paths begin at the folder in which it was started, if that is still there."""
    folder = tmp_path / "o'brien (1e3)"
    (folder / "1e3").mkdir(parents=True)
    (folder / "store").mkdir()
    monkeypatch.chdir(folder)
    with without_pages():
        run(compose_config([*TINY, "store_dir=store", "baseline=false"]), Path("run"))
    saved = yaml.safe_load(Path("run/config.yaml").read_text())
    Path("run/config.yaml").write_text(yaml.safe_dump({**saved, "dataset": {**saved["dataset"], "root": "1e3"}}))
    assert resumed("resume=run").dataset.root == "1e3"  # a text, although YAML leaves its quotes out
    monkeypatch.chdir(tmp_path)
    settings = resumed(override("resume", folder / "run"))
    assert (settings.store_dir, settings.dataset.root) == (str(folder / "store"), str(folder / "1e3"))
    folder.rename(tmp_path / "moved")
    assert resumed("resume=moved/run").store_dir == "store"
    monkeypatch.chdir(tmp_path / "moved")
    assert resumed("resume=run").store_dir == "store"
    Path("run/config.yaml").write_text("seed: [")
    assert message_of(resumed, "resume=run").startswith("run/config.yaml is damaged: ParserError: while parsing")


def test_images_may_have_moved(tmp_path: Path, photos: Path) -> None:
    overrides = [*TINY, "dataset=image_folder", f"dataset.root={photos}", f"store_dir={tmp_path / 'store'}"]
    run(compose_config(overrides), tmp_path / "run")
    photos.rename(tmp_path / "moved")
    overrides = [f"resume={tmp_path / 'run'}", f"dataset.root={tmp_path / 'moved'}", f"store_dir={tmp_path / 'new'}"]
    settings = resumed(*overrides)
    assert settings.dataset.source["root"] == str(tmp_path / "moved")
    run(settings, tmp_path / "run")


def test_a_list_of_images_may_have_moved(tmp_path: Path) -> None:
    words = ["dataset=image_list", "dataset.root=photos", "dataset.train=train.csv", "dataset.val=val.csv"]
    OmegaConf.save(compose(words).config, tmp_path / "config.yaml")
    overrides = [f"resume={tmp_path}", "dataset.train=moved.csv"]
    settings = resumed_settings(tmp_path / "config.yaml", compose(overrides).config, overrides)
    found = [(settings.dataset.source[name], getattr(settings.dataset, name)) for name in ("root", "train", "val")]
    assert found == [("photos", "photos"), ("moved.csv", "moved.csv"), ("val.csv", "val.csv")]


def test_a_run_without_a_checkpoint_cannot_be_resumed(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    overrides = [f"resume={tmp_path}"]
    with pytest.raises(UserError) as caught:
        resumed(*overrides)
    assert str(caught.value) == (f"resume={tmp_path} has no checkpoint yet\n  run its command again, without resume=")


def test_a_damaged_checkpoint_lets_its_training_begin_anew(
    tmp_path: Path, uninterrupted: Path, stop_after: StopAfter, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(59)
    with pytest.raises(Interrupted):
        run(settings_for(tmp_path), tmp_path / "run")
    monkeypatch.undo()
    path = tmp_path / "run" / "checkpoints" / "last.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    resume(tmp_path / "run")
    (warning,) = [
        text for text in json.loads((tmp_path / "run" / "report.json").read_text())["warnings"] if "begins anew" in text
    ]
    assert warning.startswith(f"{path} is not a readable checkpoint: its part archive/data/")
    assert warning.endswith(" has changed since it was written: the training that was cut short begins anew")
    expected, found = student_of(uninterrupted), student_of(tmp_path / "run")
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert figures_of(tmp_path / "run") == figures_of(uninterrupted)


def test_a_damaged_configuration_is_told_in_two_lines(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.pt").touch()
    for text, why in (
        ("seed: [0", "ParserError: while parsing a flow sequence"),
        ("", "TypeError: it holds no settings"),
    ):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(UserError) as caught:
            resumed(f"resume={tmp_path}")
        (mistake,) = caught.value.mistakes
        assert mistake.what.startswith(f"{tmp_path / 'config.yaml'} is damaged: {why}")
        assert mistake.remedy == "start a new run, without resume="


def test_another_teacher_than_before_is_refused(
    uninterrupted: Path, tmp_path: Path, stop_after: StopAfter, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = next((uninterrupted.parent / "store" / "teacher").iterdir()) / "weights.pt"
    checkpoint = tmp_path / "teacher.pt"
    checkpoint.write_bytes(teacher.read_bytes())
    stop_after(80)  # in the student's training: the baseline asks for no teacher
    with pytest.raises(Interrupted):
        run(settings_for(tmp_path, f"teacher_checkpoint={checkpoint}"), tmp_path / "run")
    monkeypatch.undo()
    content = torch.load(checkpoint, weights_only=True)
    content["name"] = "changed"
    torch.save(content, checkpoint)
    with pytest.raises(UserError) as caught:
        resume(tmp_path / "run")
    assert "(dataset or teacher have changed)" in str(caught.value)


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileLock]:
    """The lock of a run in out, held by another process, which has written a log alone."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.log").write_text("of the other one")
    lock = FileLock("out/.lock")
    with lock:
        yield lock


def test_a_new_run_waits_and_goes_on_in_a_folder_that_the_other_process_removes(
    held: FileLock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = threading.Event()
    monkeypatch.setattr("distill_run.pipeline.run", lambda *_, **__: begun.set())
    with ThreadPoolExecutor() as threads:
        waits = threads.submit(run_alone, compose_config(), Path("out"), "")
        while (told := capsys.readouterr().out) == "":
            time.sleep(0.01)
        assert told == "out is being written by another process; waiting for that\n"
        assert not begun.is_set()
        shutil.rmtree("out")
        held.release()
        waits.result()
    assert begun.is_set()
    assert list(Path("out").iterdir()) == []


def test_a_new_run_does_not_wait_for_one_that_it_may_not_overwrite(held: FileLock) -> None:
    (Path("out") / "checkpoints").mkdir()
    (Path("out") / "checkpoints" / "last.pt").touch()
    assert message_of(run_alone, compose_config(), Path("out"), "").startswith("out holds a run already\n")


def test_ctrl_c_ends_the_waiting_and_leaves_the_other_process_its_files(
    held: FileLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("distill_run.console.console.Console.note", interrupt)  # that it waits
    with pytest.raises(KeyboardInterrupt):
        run_alone(compose_config(), Path("out"), "")
    assert (Path("out") / "run.log").read_text() == "of the other one"


def test_sigterm_ends_the_command_with_the_way_to_resume_it(tmp_path: Path) -> None:
    arguments = [*TINY, "training.teacher.epochs=5000", "hydra.run.dir=out"]
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("distill-run")), *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("teacher    epoch   1/"):
            process.send_signal(signal.SIGTERM)
            break
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err == ""
    assert out.splitlines()[-1] == f"interrupted; to go on: distill-run resume={tmp_path / 'out'}"
    assert json.loads((tmp_path / "out" / "status.json").read_text()) == {"status": "interrupted"}
    assert list((tmp_path / "outputs" / "store").glob("[!.]*")) == []
