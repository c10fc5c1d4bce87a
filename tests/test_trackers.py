"""Trackers: what each writes is read back with its own package; none of them can harm a run."""

import json
import logging
import random
import sqlite3
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from conftest import TINY
from distill_run.checkpoint import load_network
from distill_run.config.compose import option_names
from distill_run.config.settings import compose_config
from distill_run.errors import Interrupted, PrunedError
from distill_run.files import RunFiles
from distill_run.pipeline import run
from distill_run.record.status import RunStatus
from distill_run.report.run_report import RunReport
from distill_run.stages.rehearse import rehearse
from distill_run.stages.trained import Trained
from distill_run.stages.watcher import RunFacts, StageFacts
from distill_run.trackers.tracker import Tracker, run_name, sweep_name
from helpers import message_of, refusal

BROKEN = (
    "from distill_run.trackers.tracker import Tracker\n"
    "class Broken(Tracker):\n"
    "    def add_epoch(self, stage, epoch, figures):\n"
    "        raise OSError('no route to host')\n"
)


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> RunReport:
    """The run of `tiny_report`, with two trackers and a third that fails."""
    folder = tmp_path_factory.mktemp("tracked")
    (folder / "mine" / "watcher").mkdir(parents=True)
    (folder / "mine" / "watcher" / "broken.yaml").write_text("_target_: broken_tracker.Broken\n")
    (folder / "mine" / "broken_tracker.py").write_text(BROKEN)
    overrides = [*TINY, "tracker=[tensorboard,wandb,broken]", f"store_dir={folder / 'store'}"]
    return run(compose_config(overrides, folder / "mine"), folder / "run")


def epochs_of(run_dir: Path, stage: str) -> list[dict[str, Any]]:
    rows = map(json.loads, RunFiles(run_dir).metrics.read_text().splitlines())
    return [row for row in rows if row["stage"] == stage]


def test_a_tracker_changes_no_weight(tracked: RunReport, tiny_report: RunReport) -> None:
    states = [load_network(RunFiles(each.run_dir).student).state_dict() for each in (tracked, tiny_report)]
    torch.testing.assert_close(*states, rtol=0, atol=0)


def test_a_tracker_that_fails_is_one_warning(tracked: RunReport) -> None:
    failed = "Broken has failed and tracks no more of this run, which goes on (OSError: no route to host)"
    assert [warning for warning in tracked.warnings if "Broken" in warning] == [failed]
    assert "Traceback" not in failed


def test_tensorboard_has_every_epoch_the_configuration_and_the_pictures(tracked: RunReport) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(tracked.run_dir)).Reload()
    for stage in ("teacher", "baseline", "student"):
        rows = epochs_of(tracked.run_dir, stage)
        assert len(rows) == 2
        for name in ("train/loss", "val/accuracy", "learning_rate"):
            first, _, second = name.partition("/")
            wanted = [row[first][second] if second else row[first] for row in rows]
            points = read.Scalars(f"{stage}/{name}")
            assert [point.step for point in points] == [1, 2]
            assert [point.value for point in points] == pytest.approx(wanted, rel=1e-6)  # it keeps float32
    accuracy = read.Scalars("student/test/accuracy")[0].value
    assert accuracy == pytest.approx(tracked.student.selected.test.accuracy, rel=1e-6)
    plots = {f"report/{path.stem}" for path in RunFiles(tracked.run_dir).plots.glob("*.png")}
    assert set(read.Tags()["images"]) == plots
    assert "report/curves" in plots
    texts = {tag.partition("/")[0]: read.Tensors(tag)[0] for tag in read.Tags()["tensors"] if "/text_summary" in tag}
    (text,) = texts["configuration"].tensor_proto.string_val
    assert "temperature: 4.0" in text.decode()
    assert f"run_dir: {tracked.run_dir}" in text.decode()
    assert texts["status"].tensor_proto.string_val[0] == b"completed"
    assert b"| student mlp |" in texts["networks"].tensor_proto.string_val[0]


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of a run's file: blocks of 32 KiB after a header; a record may go over several blocks."""
    from wandb.proto import wandb_internal_pb2 as messages

    data, place, content = path.read_bytes(), 7, b""
    while place < len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, place)
        content += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = messages.Record()  # type: ignore[attr-defined]
            record.ParseFromString(content)
            content = b""
            yield record


def test_wandb_keeps_the_run_offline_with_all_that_an_upload_needs(tracked: RunReport) -> None:
    (path,) = tracked.run_dir.glob("wandb/offline-run-*/*.wandb")
    records = list(wandb_records(path))
    items = [{".".join(item.nested_key) or item.key: item for item in r.history.item} for r in records]
    told = [json.loads(row["student/val/accuracy"].value_json) for row in items if "student/val/accuracy" in row]
    assert told == [row["val"]["accuracy"] for row in epochs_of(tracked.run_dir, "student")]
    summary = {update.key: update.value_json for r in records for update in r.summary.update}
    assert json.loads(summary["student/test/accuracy"]) == tracked.student.selected.test.accuracy
    assert summary["status"] == '"completed"'
    (begun,) = [r.run for r in records if r.WhichOneof("record_type") == "run"]
    assert (begun.project, begun.display_name, begun.run_group) == ("distill-run", run_name(tracked.run_dir), "")
    settings = {update.key: json.loads(update.value_json) for update in begun.config.update}
    assert settings["mode"]["temperature"] == 4.0
    assert settings["command"].startswith("distill-run ")
    files = [file.path for r in records for file in r.files.files]
    assert any(file.startswith("media/images/report/curves") for file in files)
    assert [r.exit.exit_code for r in records if r.WhichOneof("record_type") == "exit"] == [0]


@pytest.mark.filterwarnings("ignore")  # MLflow's own packages warn of one another; no warning of theirs is ours
@pytest.mark.slow  # MLflow takes ten seconds to be loaded and to make its database
@pytest.mark.pages
def test_mlflow_has_every_epoch_the_configuration_and_the_report(tmp_path: Path) -> None:
    database = tmp_path / "of mlflow" / "runs.db"
    own = ["tracker=mlflow", f"tracker.mlflow.uri='sqlite:///{database}'", f"store_dir={tmp_path / 'store'}"]
    report = run(compose_config([*TINY, *own]), tmp_path / "run")
    with sqlite3.connect(database) as read:
        [(run_id, name, status)] = read.execute("SELECT run_uuid, name, status FROM runs").fetchall()
        points = "SELECT value FROM metrics WHERE key = 'student/val/accuracy' ORDER BY step"
        values = [value for (value,) in read.execute(points)]
        params = dict(read.execute("SELECT key, value FROM params").fetchall())
        tags = dict(read.execute("SELECT key, value FROM tags").fetchall())
        accuracy = read.execute("SELECT value FROM metrics WHERE key = 'student/test/accuracy'").fetchall()
    assert (name, status, tags["status"]) == (run_name(report.run_dir), "FINISHED", "completed")
    assert values == [row["val"]["accuracy"] for row in epochs_of(report.run_dir, "student")]
    assert accuracy == [(report.student.selected.test.accuracy,)]
    assert (params["mode.temperature"], params["run_dir"]) == ("4.0", str(report.run_dir))
    artifacts = database.with_suffix("") / run_id / "artifacts"
    assert {"report.html", "curves.png"} <= {path.name for path in (artifacts / "report").iterdir()}
    assert json.loads((artifacts / "networks.json").read_text())["columns"][:2] == ["network", "test acc"]
    _continued(tmp_path, own, run_id, database)


def _continued(tmp_path: Path, own: list[str], run_id: str, database: Path) -> None:
    """A run that goes on is the same one in MLflow, and one that is interrupted was killed."""
    from distill_run.trackers.mlflow import MLflow

    tracker = MLflow(uri=f"sqlite:///{database}", experiment="distill-run")
    settings = compose_config([*TINY, *own, f"resume={tmp_path / 'run'}"])
    told: list[str] = []
    tracker.run_begun(RunFacts(tmp_path / "run", settings, {"command": "distill-run"}, told.append))
    tracker.epoch_ended(row(3))
    tracker.run_ended(Interrupted())
    assert told == []
    with sqlite3.connect(database) as read:
        assert read.execute("SELECT run_uuid, status FROM runs").fetchall() == [(run_id, "KILLED")]
        assert read.execute("SELECT step FROM metrics WHERE key = 'student/val/accuracy' ORDER BY step").fetchall() == [
            (1,), (2,), (3,),
        ]  # fmt: skip


class Noting(Tracker):
    """Notes what it is told, draws random numbers, and fails at the epoch `bad`."""

    def __init__(self, bad: int = 0) -> None:
        self.notes: list[Any] = []
        self.bad = bad

    def begin(self, run: RunFacts) -> None:
        torch.rand(1)
        random.random()
        self.notes.append("begin")

    def add_epoch(self, stage: str, epoch: int, figures: Mapping[str, float]) -> None:
        if epoch == self.bad:
            raise RuntimeError("out of paper")
        self.notes.append((stage, epoch, dict(figures)))

    def end(self, status: RunStatus) -> None:
        self.notes.append(status.status)


def row(epoch: int, stage: str = "student") -> dict[str, Any]:
    return {"stage": stage, "epoch": epoch, "train": {"loss": 1.5}, "val": {"accuracy": 0.5}, "learning_rate": 0.1}


FIGURES = {"train/loss": 1.5, "val/accuracy": 0.5, "learning_rate": 0.1}


def facts(run_dir: Path, warnings: list[str], **changes: Any) -> RunFacts:
    settings = SimpleNamespace(**{"resume": None, **changes})
    return RunFacts(run_dir, cast(Any, settings), {"command": "distill-run"}, warnings.append)


@pytest.mark.parametrize(
    ("error", "status"),
    [(Interrupted(), "interrupted"), (PrunedError(), "pruned"), (ValueError("worn out"), "failed")],
)
def test_a_run_that_does_not_complete_ends_with_its_status(error: BaseException, status: str, tmp_path: Path) -> None:
    tracker, warnings = Noting(), list[str]()
    tracker.run_begun(facts(tmp_path, warnings))
    tracker.epoch_ended(row(1, "student 2"))
    tracker.run_ended(error)
    assert tracker.notes == ["begin", ("student_2", 1, FIGURES), status]
    assert warnings == []


def test_a_tracker_is_silent_once_it_has_failed_and_is_closed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker, warnings = Noting(bad=2), list[str]()
    with caplog.at_level(logging.INFO):
        tracker.run_begun(facts(tmp_path, warnings))
        for epoch in (1, 2, 3):
            tracker.epoch_ended(row(epoch))
        tracker.run_ended(None)
    assert tracker.notes == ["begin", ("student", 1, FIGURES), "completed"]
    assert warnings == ["Noting has failed and tracks no more of this run, which goes on (RuntimeError: out of paper)"]
    assert "add_epoch" in caplog.text  # the log has the traceback


def test_a_tracker_s_own_random_numbers_are_not_those_of_the_run(tmp_path: Path) -> None:
    before = torch.get_rng_state(), random.getstate()
    Noting().run_begun(facts(tmp_path, []))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_a_resumed_run_tells_no_epoch_twice_and_leaves_none_out(tmp_path: Path) -> None:
    """Two epochs were told before the interruption; the teacher comes from the store with its history."""
    RunFiles(tmp_path).metrics.write_text("".join(f"{json.dumps(row(epoch))}\n" for epoch in (1, 2)))
    tracker = Noting()
    tracker.run_begun(facts(tmp_path, [], resume=str(tmp_path)))
    tracker.stage_ended(cast(Trained, SimpleNamespace(history=(row(1, "teacher"),))))
    tracker.epoch_ended(row(3))
    tracker.stage_ended(cast(Trained, SimpleNamespace(history=tuple(map(row, (1, 2, 3))))))
    assert tracker.notes == ["begin", ("teacher", 1, FIGURES), ("student", 3, FIGURES)]


def test_the_trainings_of_a_learning_rate_search_are_not_tracked(tmp_path: Path) -> None:
    tracker = Noting()
    tracker.run_begun(facts(tmp_path, []))
    tracker.stage_begun(StageFacts("student lr=0.1", "f", "p", 1, 1, is_search=True))
    tracker.epoch_ended(row(1, "student lr=0.1"))
    tracker.training_ended()
    tracker.epoch_ended(row(1))
    assert tracker.notes == ["begin", ("student", 1, FIGURES)]


def test_the_points_of_a_sweep_are_grouped_by_its_name(tmp_path: Path) -> None:
    sweep = tmp_path / "2026-11-26" / "10-00-00"
    (sweep / "3").mkdir(parents=True)
    assert (run_name(sweep), sweep_name(sweep / "3")) == ("2026-11-26/10-00-00", None)
    (sweep / "sweep_command.json").touch()
    assert (run_name(sweep / "3"), sweep_name(sweep / "3")) == ("10-00-00/3", "2026-11-26/10-00-00")


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_package_that_is_missing_is_told_before_anything_is_trained(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose_config([*TINY, f"tracker={name}"])
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert message_of(rehearse, config) == (
        f"tracker.{name} needs the package {name}, which is not installed\n  write pip install {name}"
    )


def test_the_trackers_are_offered_and_their_keys_checked() -> None:
    assert option_names("tracker") == ["mlflow", "tensorboard", "wandb"]
    told = message_of(compose_config, ["tracker=tensorbord"])
    assert told.startswith("tracker=tensorbord is not there\n  write one of ")
    told = message_of(compose_config, ["tracker=wandb", "tracker.wandb.projct=p"])
    assert "did you mean tracker.wandb.project" in told
    config = compose_config([*TINY, "tracker=wandb", "tracker.wandb.mode=onlin"])
    told = message_of(run, config, Path("never"))
    assert told == refusal("tracker.wandb.mode", "onlin", "one of offline, online")
    assert not Path("never").exists()
