"""The story: what a run leaves, says and returns."""

import dataclasses
import errno
import json
import os
import pkgutil
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from conftest import TINY
from distill_run.build import Builder
from distill_run.checkpoint import load_network
from distill_run.config.settings import compose_config
from distill_run.console.console import Console
from distill_run.data import packing
from distill_run.data.digits import load as load_digits
from distill_run.data.opening import Feeds
from distill_run.engine.loop import Trainer
from distill_run.errors import DivergedError, Interrupted, UserError, user_error
from distill_run.listener import working
from distill_run.pipeline import run
from distill_run.record.console_watcher import ConsoleWatcher
from distill_run.report.run_report import RunReport
from distill_run.stages.lr_search import find_learning_rate
from distill_run.stages.training import Training
from distill_run.stages.watcher import StageFacts, Watcher
from distill_run.stages.workshop import Workshop
from helpers import message_of
from workshops import open_run

FILES = {
    "checkpoints/last.pt", "checkpoints/student.pt", "config.yaml", "environment.json", "metrics.jsonl",
    "model_card.md", "plots/confusion.png", "plots/curves.png", "plots/reliability.png", "plots/robustness.png",
    "plots/samples.png", "plots/views.png", "predictions.csv", "report.html", "report.json", "report.md", "status.json",
}  # fmt: skip


def tiny_run(folder: Path, *overrides: str, name: str = "run") -> RunReport:
    return run(compose_config([*TINY, f"store_dir={folder / 'store'}", *overrides]), folder / name)


def files_of(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_run_leaves_exactly_these_files(tiny_report: RunReport) -> None:
    assert files_of(tiny_report.run_dir) == FILES
    assert read_json(tiny_report.run_dir / "status.json") == {"status": "completed"}


def test_report_json_keeps_the_contract(tiny_report: RunReport) -> None:
    report = read_json(tiny_report.run_dir / "report.json")
    assert report == tiny_report.summary
    assert len(report["dataset"].pop("content")) == 64  # a sha256; test_splits.py has its value
    assert (report["format"], report["status"], report["seed"]) == (1, "completed", 0)
    sizes = {"num_classes": 10, "train_size": 1146, "val_size": 201, "test_size": 450, "unlabelled_size": 0}
    assert report["dataset"] == {"name": "digits", **sizes}
    assert report["mode"]["name"] == "soft"
    assert {"temperature", "alpha", "divergence"} <= report["mode"].keys()
    for stage, architecture in (("teacher", "cnn_tiny"), ("baseline", "mlp"), ("student", "mlp")):
        network = report[stage]
        assert network["architecture"] == architecture
        assert {"params", "macs", "bytes", "fingerprint"} <= network.keys()
        assert {"train_seconds", "images_per_second", "steps"} <= network.keys()
        for moment in ("selected", "last"):
            assert network[moment].keys() == {"epoch", "val", "test"}
            for split in ("val", "test"):
                assert network[moment][split].keys() == {
                    "accuracy", "top5_accuracy", "nll", "ece", "balanced_accuracy", "macro_f1", "brier",
                }  # fmt: skip
                assert 0 <= network[moment][split]["accuracy"] <= 1
    assert report["fidelity"].keys() == {"agreement", "kl", "disagreement"}
    for each in report["classes"]:
        assert each["scores"].keys() == {"teacher", "baseline", "student"}
        assert each["scores"]["student"].keys() == {"precision", "recall", "f1"}
    classes = report["classes"]
    hits = sum(each["test_images"] * each["scores"]["student"]["recall"] for each in classes)
    assert hits / 450 == pytest.approx(report["student"]["selected"]["test"]["accuracy"])
    assert [each["name"] for each in classes] == [str(digit) for digit in range(10)]
    assert report["student"]["params"] == 64 * 8 + 8 + 8 * 10 + 10
    assert report["student"]["macs"] == 64 * 8 + 8 * 10


def test_the_reported_accuracy_is_that_of_student_pt(tiny_report: RunReport) -> None:
    """Recomputed without the program's own networks, data splits' tensors apart: NumPy on the file's weights."""
    content = torch.load(tiny_report.run_dir / "checkpoints" / "student.pt", weights_only=True)
    weights = {name: value.double().numpy() for name, value in content["weights"].items()}
    test = load_digits(image_size=8).test
    assert test is not None
    pixels = (test.images.flatten(1).double().numpy() / 255 - content["mean"][0]) / content["std"][0]
    hidden = np.maximum(pixels @ weights["head.0.weight"].T + weights["head.0.bias"], 0)
    logits = hidden @ weights["head.2.weight"].T + weights["head.2.bias"]
    accuracy = (logits.argmax(1) == test.targets.numpy()).mean()
    assert tiny_report.summary["student"]["selected"]["test"]["accuracy"] == pytest.approx(accuracy, abs=1e-12)
    network = load_network(tiny_report.run_dir / "checkpoints" / "student.pt")
    assert not network.training
    np.testing.assert_allclose(network(test.images / 255).detach().numpy(), logits, atol=1e-4)


def test_a_folder_that_holds_a_run_is_refused(tiny_report: RunReport) -> None:
    folder = tiny_report.run_dir
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    settings = compose_config([*TINY, f"store_dir={folder.parent / 'store'}"])
    assert message_of(run, settings, folder) == (
        f"{folder} holds a run already\n"
        f"  give another folder, or go on with that run, as in distill-run resume={folder}"
    )
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_run_from_python_tells_the_command_that_says_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """That of its own settings, whatever was composed since; none where the settings were changed by hand."""
    store = f"store_dir={tmp_path / 'store'}"
    first = compose_config([*TINY, store, "mode.temperature=2"])
    compose_config([*TINY, store, "mode.temperature=8"])
    command = f"distill-run {' '.join(TINY)} {store} mode.temperature=2".replace(
        "student.hidden=[8]", "'student.hidden=[8]'"
    )
    run(first, tmp_path / "first")
    assert f"repeat   {command}\n" in capsys.readouterr().out
    run(dataclasses.replace(first, seed=1), tmp_path / "second")
    assert "repeat" not in capsys.readouterr().out
    assert read_json(tmp_path / "first" / "environment.json")["command"] == command
    assert read_json(tmp_path / "second" / "environment.json")["command"] == ""


def test_work_that_takes_long_is_told_every_ten_seconds_in_a_pipe_with_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight images a second, of 400; a second piece of work begins anew."""
    now = 0.0
    monkeypatch.setattr("distill_run.console.displays.time.perf_counter", lambda: now)
    watcher = ConsoleWatcher(Console(), Path("run"))
    for work in ("reading 400 images", "checking images.npy"):
        for _ in range(2):
            with working(watcher, work, 400) as advance:
                for done in range(1, 251 if work.startswith("reading") else 50):
                    now += 0.125
                    advance(done)
    assert (
        capsys.readouterr().out.splitlines()
        == [
            "reading 400 images: 20%, 0:39 left",
            "reading 400 images: 40%, 0:30 left",
            "reading 400 images: 60%, 0:20 left",
        ]
        * 2
    )


@pytest.mark.parametrize("in_training", [False, True])
def test_work_that_takes_long_has_a_live_line_on_a_terminal(
    in_training: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its own, or during a training in that of the training; there may be only one."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("distill_run.console.displays.REFRESH_SECONDS", 0)
    watcher = ConsoleWatcher(Console(), Path("run"))
    if in_training:
        watcher.stage_begun(StageFacts("student", "f", "p", 2, 8, False))
    with working(watcher, "reading [4] images", 4) as advance:
        for done in (1, 2, 3):
            advance(done)
    if in_training:
        watcher.training_ended()
    out = capsys.readouterr().out
    assert "reading [4] images: 75%, 0.0s left" in out
    assert ("student" in out) == in_training


def test_metrics_have_a_line_an_epoch_of_every_stage(tiny_report: RunReport) -> None:
    rows = [json.loads(line) for line in (tiny_report.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [(row["stage"], row["epoch"]) for row in rows] == [
        (stage, epoch) for stage in ("teacher", "baseline", "student") for epoch in (1, 2)
    ]
    best = max((row for row in rows if row["stage"] == "student"), key=lambda row: row["val"]["accuracy"])
    assert tiny_report.summary["student"]["selected"]["val"]["accuracy"] == best["val"]["accuracy"]
    assert tiny_report.val_accuracy == best["val"]["accuracy"]
    assert {"loss", "cross_entropy", "distillation", "accuracy"} == rows[-1]["train"].keys()


def test_the_saved_configuration_holds_what_auto_became(tiny_report: RunReport) -> None:
    config = yaml.safe_load((tiny_report.run_dir / "config.yaml").read_text())
    assert config["device"]["kind"] == "cpu"
    train = load_digits(image_size=8).train.images.double() / 255
    assert config["dataset"]["mean"] == pytest.approx([train.mean().item()], abs=0.02)  # of train less validation
    assert config["dataset"]["num_classes"] == 10


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(tmp_path: Path, tiny_report: RunReport) -> None:
    again = tiny_run(tmp_path)
    other = tiny_run(tmp_path, "seed=1", name="other")
    for stage in ("teacher", "baseline", "student"):
        assert again.summary[stage]["selected"] == tiny_report.summary[stage]["selected"]
        assert again.summary[stage]["last"] == tiny_report.summary[stage]["last"]
    assert other.summary["teacher"]["fingerprint"] == again.summary["teacher"]["fingerprint"]
    assert other.summary["baseline"]["last"] != again.summary["baseline"]["last"]
    assert other.summary["student"]["last"] != again.summary["student"]["last"]


def test_teacher_and_baseline_are_reused_and_the_run_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = tiny_run(tmp_path)
    capsys.readouterr()
    second = tiny_run(tmp_path, "mode.temperature=8", name="second")
    text = capsys.readouterr().out
    assert "teacher: cnn_tiny " in text
    assert " reused from the store, validation accuracy " in text
    assert f"baseline: mlp {second.summary['baseline']['fingerprint'][:12]} reused from the store" in text
    assert not first.summary["teacher"]["reused"]
    assert second.summary["teacher"]["reused"]
    assert first.summary["teacher"]["selected"] == second.summary["teacher"]["selected"]
    assert first.summary["student"]["fingerprint"] != second.summary["student"]["fingerprint"]
    for kind in ("teacher", "baseline"):
        assert files_of(tmp_path / "store" / kind / first.summary[kind]["fingerprint"]) == {
            *("config.yaml", "environment.json", "meta.json", "metrics.jsonl", "test_logits.npz", "weights.pt")
        }
    kinds = Counter(path.parent.name for path in (tmp_path / "store").glob("[!.]*/*"))
    assert kinds == {"teacher": 1, "baseline": 1, "logits": 1}


def test_what_teacher_and_baseline_give_is_worked_out_once_in_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep's points share their feeds. The report is that of a process of its own."""
    seen: list[str] = []

    def noting(name: str, work: Callable[..., Any], *arguments: Any) -> Any:
        seen.append(name)
        return work(*arguments)

    for place in ("distill_run.report.measures.predict", "distill_run.report.summary.count_macs"):
        work = pkgutil.resolve_name(place)
        monkeypatch.setattr(place, partial(noting, work.__name__, work))
    feeds, reports = Feeds(), []
    for number, own in enumerate((feeds, feeds, Feeds())):
        settings = [*TINY, f"store_dir={tmp_path / 'store'}", f"mode.temperature={min(number, 1) + 1}"]
        seen.clear()
        reports.append(run(compose_config(settings), tmp_path / str(number), console=Console(quiet=True), feeds=own))
        assert Counter(seen) == ({"predict": 1, "count_macs": 1} if number == 1 else {"predict": 3, "count_macs": 3})
    shared, alone = (dataclasses.asdict(report) for report in reports[1:])
    for name in ("calibration", "agreement_by_teacher", "classes", "fidelity", "gap_interval"):
        assert shared[name] == alone[name]
    assert [report["student"]["macs"] for report in (shared, alone)] == 2 * [reports[0].student.macs]


def test_a_mode_of_one_s_own_changes_neither_teacher_nor_baseline(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "own_mode.py").write_text(
        "from distill_run.objectives.soft import SoftTargets\n"
        "def own(*, alpha):\n"
        "    return SoftTargets(\n"
        "        temperature=2.0, alpha=alpha, weight=1.0, divergence='forward', standardize_logits=False\n"
        "    )\n"
    )
    first = tiny_run(tmp_path)
    settings = compose_config([*TINY, f"store_dir={tmp_path / 'store'}"], tmp_path / "code")
    settings = dataclasses.replace(settings, mode={"_target_": "own_mode.own", "alpha": 0.9})
    second = run(settings, tmp_path / "own")
    for stage in ("teacher", "baseline"):
        assert second.summary[stage]["fingerprint"] == first.summary[stage]["fingerprint"]
    assert second.summary["student"]["fingerprint"] != first.summary["student"]["fingerprint"]


def test_without_a_baseline_there_is_no_gap(tmp_path: Path) -> None:
    report = tiny_run(tmp_path, "baseline=false")
    assert report.summary["baseline"] is None
    assert report.summary["gap_recovered"] is None
    assert "there is no baseline to compare with" in report.summary["conclusion"]
    assert not (tmp_path / "store" / "baseline").exists()


def test_mode_none_and_alpha_0_train_the_baseline_twice(tmp_path: Path) -> None:
    report = tiny_run(tmp_path, "mode.alpha=0", name="alpha")
    assert report.summary["student"]["last"] == report.summary["baseline"]["last"]
    report = tiny_run(tmp_path, "mode=none")
    assert report.summary["student"]["last"] == report.summary["baseline"]["last"]
    assert report.summary["conclusion"].startswith("Without a teacher (mode=none) the student reaches ")


@pytest.mark.pages
def test_a_learning_rate_is_found_on_validation_and_its_curve_reported(tmp_path: Path) -> None:
    rates = ("training.teacher.lr_search=[0.00001,0.1]", "training.student.lr_search=[0.00001,0.2]")
    report = tiny_run(tmp_path, *rates)
    curve = report.summary["teacher"]["lr_search"]
    assert [point["lr"] for point in curve] == [0.00001, 0.1]
    assert curve[1]["val_accuracy"] > curve[0]["val_accuracy"]
    assert report.summary["teacher"]["learning_rate"] == 0.1
    assert report.summary["student"]["learning_rate"] == report.summary["baseline"]["learning_rate"] == 0.2
    assert (report.run_dir / "plots" / "lr_search.png").is_file()


class _Fails(Watcher):
    """Fails as a process does that has received the same signal as the run."""

    def epoch_ended(self, row: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise user_error("a process that reads images has ended", "memory may be short")


def test_an_error_after_a_signal_is_an_interruption(tmp_path: Path) -> None:
    settings = compose_config([*TINY, f"store_dir={tmp_path / 'store'}"])
    with pytest.raises(Interrupted, match="SIGTERM"):
        run(settings, tmp_path / "run", watchers=[_Fails()])
    assert read_json(tmp_path / "run" / "status.json") == {"status": "interrupted"}


def test_the_rates_that_were_tried_before_an_interruption_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried, fit = [], Trainer.fit

    def note(self: Trainer, watcher: Any, stop: Any) -> None:
        tried.append(self.learner.stage)
        if len(tried) == 2:
            raise Interrupted
        fit(self, watcher, stop)

    monkeypatch.setattr(Trainer, "fit", note)
    search = ("baseline=false", "training.teacher.lr_search=[0.05,0.1]")
    with pytest.raises(Interrupted):
        tiny_run(tmp_path, *search)
    tiny_run(tmp_path, *search)
    assert tried == ["teacher lr=0.05", "teacher lr=0.1", "teacher lr=0.1", "teacher", "student"]


@pytest.mark.parametrize(
    ("select_by", "rate", "words"),
    [
        ("accuracy", 0.1, "accuracy"),
        ("macro_f1", 0.2, "macro F1"),
        ("nll", 0.4, "negative log-likelihood"),
    ],
)
def test_the_figure_that_selects_chooses_the_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, select_by: str, rate: float, words: str
) -> None:
    figures = {0.1: (0.9, 0.1, 0.1, 3.0), 0.2: (0.1, 0.1, 0.9, 2.0), 0.4: (0.2, 0.2, 0.2, 1.0)}
    names = ("val_accuracy", "val_balanced_accuracy", "val_macro_f1", "val_nll")

    def made_up(trial: Training, _: Workshop) -> dict[str, float]:
        lr = trial.recipe.optimizer["lr"]
        return {"lr": lr, **dict(zip(names, figures[lr], strict=True))}

    monkeypatch.setattr("distill_run.stages.lr_search._try", made_up)
    told: list[str] = []
    watcher = Watcher()
    monkeypatch.setattr(watcher, "noted", told.append)
    rates = ("training.student.lr_search=[0.1,0.2,0.4]", f"training.select_by={select_by}")
    opened = open_run(tmp_path, [*TINY, *rates], watcher)
    found, curve = find_learning_rate(opened.lineup.student.training.alone("baseline"), opened.workshop)
    assert found.recipe.optimizer["lr"] == rate
    assert [point["lr"] for point in curve] == [0.1, 0.2, 0.4]
    assert told[-1] == f"baseline: learning rate {rate:g} is the best of 3 on validation, by {words}"


def test_a_rate_that_diverges_loses_the_search(tmp_path: Path) -> None:
    report = tiny_run(tmp_path, "training.student.lr_search=[1e30,0.1]", "student.hidden=[8,8]")
    assert report.summary["student"]["lr_search"][0] == {
        "lr": 1e30, "val_accuracy": None, "val_balanced_accuracy": None, "val_macro_f1": None, "val_nll": None,
    }  # fmt: skip
    assert report.summary["student"]["learning_rate"] == 0.1


def test_a_run_directs_teachers_from_elsewhere(tmp_path: Path, tiny_report: RunReport) -> None:
    checkpoint = next((tiny_report.run_dir.parent / "store" / "teacher").iterdir()) / "weights.pt"
    report = tiny_run(tmp_path, f"teacher_checkpoint={checkpoint}")
    assert report.summary["teacher"]["selected"]["test"] == tiny_report.summary["teacher"]["selected"]["test"]
    assert report.summary["student"]["last"]["val"] == tiny_report.summary["student"]["last"]["val"]
    assert report.summary["teacher"]["selected"]["epoch"] is None


def test_a_plain_state_dict_is_a_teacher_too(tmp_path: Path, tiny_report: RunReport) -> None:
    checkpoint = next((tiny_report.run_dir.parent / "store" / "teacher").iterdir()) / "weights.pt"
    weights = load_network(checkpoint).architecture.state_dict()
    torch.save({"state_dict": {f"module.{key}": value for key, value in weights.items()}}, tmp_path / "plain.pt")
    report = tiny_run(tmp_path, f"teacher_checkpoint={tmp_path / 'plain.pt'}")
    assert report.summary["teacher"]["selected"]["test"] == tiny_report.summary["teacher"]["selected"]["test"]
    # The normalisation is the configuration's: with another, it is another teacher, whose logits are others.
    other = tiny_run(tmp_path, f"teacher_checkpoint={tmp_path / 'plain.pt'}", "dataset.mean=[0.1]", name="other")
    assert other.summary["teacher"]["fingerprint"] != report.summary["teacher"]["fingerprint"]
    assert len(list((tmp_path / "store" / "logits").iterdir())) == 2


def test_a_teacher_with_weights_that_are_no_numbers_is_refused(tmp_path: Path, tiny_report: RunReport) -> None:
    checkpoint = next((tiny_report.run_dir.parent / "store" / "teacher").iterdir()) / "weights.pt"
    content = torch.load(checkpoint, weights_only=True)
    next(iter(content["weights"].values()))[0] = float("nan")
    torch.save(content, tmp_path / "nan.pt")
    with pytest.raises(UserError, match=r"nan.pt has weights that are not finite"):
        tiny_run(tmp_path, f"teacher_checkpoint={tmp_path / 'nan.pt'}")


def test_a_teacher_of_another_shape_is_refused_before_anything_is_written(
    tmp_path: Path, tiny_report: RunReport
) -> None:
    """A file of ours brings its architecture; teacher= is for plain state dicts."""
    checkpoint = next((tiny_report.run_dir.parent / "store" / "teacher").iterdir()) / "weights.pt"
    plain = tmp_path / "plain.pt"
    torch.save(load_network(checkpoint).architecture.state_dict(), plain)
    for path, override, told in (
        (checkpoint, "dataset.image_size=16", "image size (8, 8), the dataset has (16, 16)\n  give a teacher"),
        (plain, "teacher=mlp", "teacher=mlp: it lacks head.2.weight, head.2.bias, head.4.weight, head.4.bias; it has"),
    ):
        assert told in message_of(tiny_run, tmp_path, f"teacher_checkpoint={path}", override)
        assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ("training.student.optimizer.lr=1e30", "student.hidden=[8,8]", "baseline=false")
    with pytest.raises(DivergedError) as caught:
        tiny_run(tmp_path, *overrides)
    assert str(caught.value).startswith("the student's loss is not finite at epoch 1, step ")
    assert "gradient norm " in str(caught.value)
    assert "set its clip_norm=1.0" in str(caught.value)
    status = read_json(tmp_path / "run" / "status.json")
    assert status["status"] == "failed"
    assert status["error"] == str(caught.value)
    assert f"to replay it: distill-run resume={tmp_path / 'run'}" in capsys.readouterr().out
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)["trainer"]
    assert all(value.isfinite().all() for value in state["network"].values())


@pytest.mark.pages
def test_a_teacher_that_is_worse_than_the_student_is_a_warning(tmp_path: Path) -> None:
    report = tiny_run(tmp_path, "training.teacher.optimizer.lr=1e-9", "training.student.epochs=4")
    assert report.summary["gap_recovered"] is None
    assert any("is worse than the student alone" in warning for warning in report.summary["warnings"])
    assert "is worse than the student alone" in (report.run_dir / "report.md").read_text()


def test_an_architecture_that_ignores_the_classes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "two_outputs.py").write_text(
        "from torch import nn\n"
        "def net(in_channels, image_size, num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.LazyLinear(2))\n"
    )
    with pytest.raises(UserError) as caught:
        tiny_run(tmp_path, "student={_target_: two_outputs.net}", f"code_dir={tmp_path / 'code'}")
    assert "student" in str(caught.value)


def test_early_stopping_ends_a_stage(tmp_path: Path) -> None:
    report = tiny_run(tmp_path, "training.student.epochs=50", "training.student.patience=1", "baseline=false")
    last, selected = report.summary["student"]["last"]["epoch"], report.summary["student"]["selected"]["epoch"]
    assert last < 50
    assert last == selected + 1


def test_image_folders_run_from_end_to_end(tmp_path: Path, photos: Path) -> None:
    report = tiny_run(tmp_path, "dataset=image_folder", f"dataset.root={photos}")
    assert report.summary["dataset"]["num_classes"] == 2
    assert report.summary["dataset"]["test_size"] == 12


def test_the_console_escapes_what_looks_like_markup(capsys: pytest.CaptureFixture[str]) -> None:
    Console().note("class [bold]x[/] of [0, 1]")
    assert capsys.readouterr().out == "class [bold]x[/] of [0, 1]\n"


def test_a_full_disk_is_told_in_two_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, content: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("distill_run.tensor_files.save", fail)
    assert message_of(tiny_run, tmp_path) == (
        f"hydra.run.dir={tmp_path / 'run'}: No space left on device\n"
        "  make room, as distill-store gc does, or choose another folder, as in hydra.run.dir=/tmp/elsewhere"
    )
    assert read_json(tmp_path / "run" / "status.json")["status"] == "failed"


def test_each_network_is_built_once_and_the_images_are_packed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: Counter[str] = Counter()
    build, pack = Builder.build, packing.pack

    def count_build(self: Builder, node: Any, key: str, **injected: Any) -> Any:
        built[key] += 1
        return build(self, node, key, **injected)

    def count_pack(images: torch.Tensor) -> packing.Packed:
        built["packed"] += 1
        return pack(images)

    monkeypatch.setattr(Builder, "build", count_build)
    monkeypatch.setattr("distill_run.data.source.pack", count_pack)
    fitnet = ("student=cnn_tiny", "mode=fitnet")
    tiny_run(tmp_path, *fitnet)
    # The baseline and the student are built; a first objective is the rehearsal's, which checks its arguments.
    expected = {"teacher": 1, "student": 2, "mode": 2, "packed": 1, "dataset.source": 1}
    assert {key: built[key] for key in expected} == expected
    built.clear()
    tiny_run(tmp_path, *fitnet, "mode.weight=10", name="second")  # teacher and baseline come from the store
    assert {key: built[key] for key in expected} == expected


def test_a_new_version_of_the_program_never_takes_an_older_ones_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tiny_run(tmp_path)
    monkeypatch.setattr("distill_run.stages.plans.program_identity", lambda: "9.9.9 0123")
    second = tiny_run(tmp_path, name="second")
    assert not second.teacher.reused
    assert second.teacher.fingerprint != first.teacher.fingerprint
    assert second.student.last == first.student.last  # the code is the same after all
