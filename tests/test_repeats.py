"""A run with several seeds: one teacher, one logit bank, a baseline and a student of each seed."""

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import TINY, without_pages
from distill_run.commands.preflight import one_seed_a_point
from distill_run.config.settings import compose_config
from distill_run.engine.interrupt import StopRequest
from distill_run.errors import Interrupted
from distill_run.pipeline import run
from distill_run.report.cells import repeat_rows
from distill_run.report.facts import tiles
from distill_run.report.run_report import RunReport, read_report
from distill_run.stages.trained import Trained
from distill_run.stages.watcher import StageFacts, Watcher
from helpers import message_of


class Listening(Watcher):
    """Notes which trainings have begun and which stages have ended; may ask for a stop when one has."""

    def __init__(self, stop_after: str = "", stop: StopRequest | None = None) -> None:
        self.begun: list[str] = []
        self.ended: list[tuple[str, bool]] = []
        self.stop_after = stop_after
        self.stop = stop

    def stage_begun(self, stage: StageFacts) -> None:
        self.begun.append(stage.name)

    def stage_ended(self, trained: Trained) -> None:
        self.ended.append((trained.stage, trained.reused))
        if trained.stage == self.stop_after and self.stop is not None:
            self.stop.request(KeyboardInterrupt())


def repeated(folder: Path, *overrides: str, name: str = "run", **options: Any) -> RunReport:
    settings = compose_config([*TINY, "repeats=3", "seed=5", f"store_dir={folder / 'store'}", *overrides])
    return run(settings, folder / name, **options)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> RunReport:
    with without_pages():
        return repeated(tmp_path_factory.mktemp("repeats"))


def test_each_repeat_is_the_run_of_its_seed_with_the_views_of_the_first(report: RunReport, tmp_path: Path) -> None:
    assert [repeat.seed for repeat in report.repeats] == [5, 6, 7]
    store = report.run_dir.parent / "store"
    single = run(compose_config([*TINY, "seed=7", "training.view_seed=5", f"store_dir={store}"]), tmp_path / "run")
    last = report.repeats[2]
    assert last.baseline is not None
    assert single.baseline is not None
    assert single.baseline.fingerprint == last.baseline.fingerprint
    assert single.baseline.reused
    assert single.student.fingerprint == last.student.fingerprint
    assert single.student.selected == last.student.selected
    assert single.fidelity == last.fidelity


def test_teacher_and_logits_are_paid_once(report: RunReport) -> None:
    store = report.run_dir.parent / "store"
    counts = {kind: len(list((store / kind).iterdir())) for kind in ("teacher", "baseline", "logits")}
    assert counts == {"teacher": 1, "baseline": 3, "logits": 1}


def test_the_figures_of_all_seeds_are_in_the_report(report: RunReport) -> None:
    """The t interval of three differences by hand: its quantile for two degrees of freedom is 4.302653."""
    content = json.loads((report.run_dir / "report.json").read_text())
    alone = [repeat["baseline"]["selected"]["test"]["accuracy"] for repeat in content["repeats"]]
    students = [repeat["student"]["selected"]["test"]["accuracy"] for repeat in content["repeats"]]
    gains = [student - baseline for student, baseline in zip(students, alone, strict=True)]
    half = 4.302653 * statistics.stdev(gains) / 3**0.5
    found = content["difference"]
    assert (found["over"], found["count"]) == ("seeds", 3)
    expected = [statistics.fmean(gains), statistics.fmean(gains) - half, statistics.fmean(gains) + half]
    assert [found["mean"], found["low"], found["high"]] == pytest.approx(expected, abs=1e-6)
    assert content["means"]["student"]["mean"] == pytest.approx(statistics.fmean(students))
    assert content["means"]["baseline"]["sd"] == pytest.approx(statistics.stdev(alone))
    assert report.means is not None
    rows = repeat_rows(report.repeats, report.means)
    assert [row[0] for row in rows] == ["seed 5", "seed 6", "seed 7", "mean", "standard deviation"]
    assert rows[0][1:3] == [f"{alone[0]:.2%}", f"{students[0]:.2%}"]


def test_the_student_to_ship_is_the_one_that_validation_prefers(report: RunReport) -> None:
    ranks = [(each.student.selected.val.accuracy, -each.student.selected.val.nll) for each in report.repeats]
    best = report.repeats[ranks.index(max(ranks))]
    assert (report.student, report.baseline, report.shipped_seed) == (best.student, best.baseline, best.seed)
    assert report.fidelity == best.fidelity
    assert f"on test, of seed {best.seed}, the one to ship; " in tiles(report)[0].note
    assert report.val_accuracy == pytest.approx(statistics.fmean(rank[0] for rank in ranks))
    shipped = torch.load(report.run_dir / "checkpoints" / "student.pt", weights_only=True)["weights"]
    alone = run(
        compose_config(
            [*TINY, f"seed={best.seed}", "training.view_seed=5", f"store_dir={report.run_dir.parent / 'store'}"]
        ),
        report.run_dir.parent / "shipped",
    )
    weights = torch.load(alone.run_dir / "checkpoints" / "student.pt", weights_only=True)["weights"]
    assert all(torch.equal(value, weights[name]) for name, value in shipped.items())


def test_a_resumed_run_does_not_train_its_finished_students_again(report: RunReport, tmp_path: Path) -> None:
    stop = StopRequest()
    with pytest.raises(Interrupted):
        repeated(tmp_path, watchers=[Listening("student 2", stop)], stop=stop)
    kept = tmp_path / "run" / "checkpoints" / "finished"
    assert len(list((kept / "student").iterdir())) == 2
    settings = compose_config([*TINY, "repeats=3", "seed=5", f"store_dir={tmp_path / 'store'}"])
    watcher = Listening()
    run(dataclasses.replace(settings, resume=str(tmp_path / "run")), tmp_path / "run", watchers=[watcher])
    again = read_report(tmp_path / "run")
    assert watcher.begun == ["baseline 3", "student 3"]
    # What was trained before the interruption was trained in this run.
    assert [each for each in watcher.ended if each[0].startswith("student")] == [
        ("student", False), ("student 2", False), ("student 3", False),
    ]  # fmt: skip
    found, expected = ([repeat.student.selected for repeat in each.repeats] for each in (again, report))
    assert found == expected
    assert not kept.exists()
    stages = [json.loads(line)["stage"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert stages == [stage for stage in (
        "teacher", "baseline", "student", "baseline 2", "student 2", "baseline 3", "student 3",
    ) for _ in range(2)]  # fmt: skip


def test_digits_repeat_by_themselves_but_not_in_a_sweep() -> None:
    digits, given = compose_config([]), compose_config(["repeats=2"])
    assert (digits.repeats, digits.dataset.repeats) == (None, 8)
    assert one_seed_a_point([digits]) == ["repeats=1"]
    assert one_seed_a_point([given, compose_config(["dataset=cifar10"])]) == []


def test_points_of_a_sweep_do_not_share_seeds() -> None:
    points = [compose_config([f"seed={seed}", "repeats=3"]) for seed in (4, 5, 9)]
    assert message_of(one_seed_a_point, points) == (
        "with repeats=3, the points of seed=4,5,9 share seeds\n  write seed=4,7,10, or leave repeats out"
    )
    assert one_seed_a_point([points[0], points[2]]) == []
