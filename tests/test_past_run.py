"""A run that is opened again: its file, its data and its networks, long after it ended."""

from pathlib import Path

import pytest
import torch

from conftest import TINY, write_photos
from distill_run.config.settings import compose_config
from distill_run.deploy.past_run import PastRun
from distill_run.deploy.shipped import open_shipped
from distill_run.engine.evaluate import measure, predict
from distill_run.files import RunFiles
from distill_run.pipeline import run
from distill_run.report.run_report import RunReport
from distill_run.tensor_files import load, save
from helpers import message_of

CPU = torch.device("cpu")


def test_a_run_and_its_file_name_the_same_student(tiny_report: RunReport) -> None:
    run_dir = tiny_report.run_dir
    by_run, by_file = open_shipped(run_dir), open_shipped(RunFiles(run_dir).student)
    assert by_run.path == by_file.path == RunFiles(run_dir).student
    assert by_run.run == by_file.run
    assert by_run.run is not None
    assert by_run.run.run_dir == run_dir
    store = Path(by_run.run.settings.store_dir)
    weights = store / "teacher" / tiny_report.teacher.fingerprint / "weights.pt"
    assert open_shipped(weights).run is None


def test_its_networks_measure_what_its_report_says(tiny_report: RunReport) -> None:
    past = PastRun.read(tiny_report.run_dir)
    feed = past.open_feed(CPU)
    assert feed.content == tiny_report.dataset.content
    baseline = past.baseline()
    assert baseline is not None
    networks = {"teacher": past.teacher(feed), "baseline": baseline, "student": open_shipped(past.run_dir).network}
    for stage, report in tiny_report.networks:
        found = measure(predict(networks[stage], feed.test), feed.test.targets)
        assert found["accuracy"] == report.selected.test.accuracy


def test_a_given_teacher_is_found_again(tiny_report: RunReport, tmp_path: Path) -> None:
    store = Path(PastRun.read(tiny_report.run_dir).settings.store_dir)
    weights = store / "teacher" / tiny_report.teacher.fingerprint / "weights.pt"
    settings = [*TINY, f"store_dir={tmp_path / 'store'}", f"teacher_checkpoint={weights}", "training.student.epochs=1"]
    past = PastRun.read(run(compose_config(settings), tmp_path / "run").run_dir)
    network = past.teacher(open_shipped(past.run_dir).network)  # no image is read
    own = {key.removeprefix("architecture."): value for key, value in network.state_dict().items()}
    assert all(torch.equal(own[key], value) for key, value in load(weights)["weights"].items())


def test_the_file_says_which_part_of_a_photograph_is_seen(tmp_path: Path) -> None:
    tiny = [override for override in TINY if not override.startswith("dataset")]
    photos = ["dataset=image_folder", f"dataset.root={write_photos(tmp_path / 'photos')}", "dataset.image_size=6"]
    settings = [*tiny, *photos, "dataset.crop_ratio=0.75", f"store_dir={tmp_path / 'store'}"]
    run_dir = run(compose_config(settings), tmp_path / "run").run_dir
    assert open_shipped(run_dir).network.crop_ratio == 0.75
    old = load(RunFiles(run_dir).student)
    del old["crop_ratio"]
    save(tmp_path / "old.pt", old)
    assert open_shipped(tmp_path / "old.pt").network.crop_ratio == 1


def test_what_cannot_be_had_any_more_is_told(tiny_report: RunReport, tmp_path: Path) -> None:
    past = PastRun.read(tiny_report.run_dir)
    moved = PastRun(past.run_dir, compose_config([*TINY, f"store_dir={tmp_path}"]), past.report)
    missing = f"{tmp_path}/baseline/{tiny_report.baseline and tiny_report.baseline.fingerprint}/weights.pt"
    assert message_of(moved.baseline) == (
        f"the baseline of {past.run_dir} is not in the store: {missing} does not exist\n"
        "  start from the folder in which the run was started; or repeat the run, which trains it again"
    )


@pytest.mark.parametrize("damage", ["report.json", "config.yaml"])
def test_a_run_that_did_not_end_is_refused(tiny_report: RunReport, tmp_path: Path, damage: str) -> None:
    for name in {"report.json", "config.yaml", "status.json"} - {damage}:
        (tmp_path / name).write_bytes((tiny_report.run_dir / name).read_bytes())
    assert message_of(open_shipped, tmp_path).startswith(f"{tmp_path} holds no completed run: ")
