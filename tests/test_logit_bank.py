"""The logit bank: every image gets the teacher's logits of its own view, whatever asks for them and in what order."""

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import TINY
from distill_run import tensor_files
from distill_run.config.settings import compose_config
from distill_run.data.batches import Batch, Batches
from distill_run.engine.device import Device
from distill_run.engine.loop import Trainer
from distill_run.errors import Interrupted
from distill_run.losses.logits import soft_target_loss
from distill_run.models.network import Network
from distill_run.pipeline import run
from distill_run.report.run_report import RunReport as Report
from distill_run.stages.live_teacher import LiveTeacher
from distill_run.stages.logit_bank import BankedTeacher, bank_bytes, has_room
from distill_run.stages.top_logits import TopLogits, row_type
from distill_run.stages.training import Training
from distill_run.stages.watcher import Watcher
from helpers import message_of
from workshops import Opened, open_run, open_settings

# Views that differ, a student that listens to the teacher alone.
AUGMENTED = (
    *(*TINY, "dataset.augment.crop.padding=2", "dataset.augment.flip.enabled=true"),
    *("mode.alpha=1", "mode.temperature=2", "baseline=false"),
)

LOSS_TOLERANCE = {"fp32": 1e-5, "bf16": 1e-2}  # relative; README states them


def opened(folder: Path, *overrides: str) -> Opened:
    return open_run(folder, [*AUGMENTED, *overrides])


def banked_and_live(run_of: Opened) -> tuple[BankedTeacher, LiveTeacher, Batches]:
    teacher, training, workshop = run_of.teacher(), run_of.lineup.student.training, run_of.workshop
    assert isinstance(teacher.network, Network)
    batches = workshop.feed.batches(training.views, training.recipe.batch_size, training.seed)
    return (
        BankedTeacher(teacher.network, teacher.fingerprint, training, workshop),
        LiveTeacher(teacher.network, workshop.device),
        batches,
    )


def epochs_of(batches: Batches, num_epochs: int) -> Iterator[Batch]:
    for epoch in range(1, num_epochs + 1):
        yield from batches.epoch(epoch)


def tiny_run(folder: Path, *overrides: str, name: str = "run", store: str = "store") -> Report:
    return run(compose_config([*AUGMENTED, f"store_dir={folder / store}", *overrides]), folder / name)


def weights_of(report: Report) -> dict[str, Tensor]:
    content: dict[str, Any] = tensor_files.load(report.run_dir / "checkpoints" / "student.pt")
    weights: dict[str, Tensor] = content["weights"]
    return weights


@pytest.mark.parametrize(("batch_size", "free_bytes"), [(7, inf), (33, 0), (5000, inf)])
def test_each_image_gets_its_own_logits_in_every_view_and_batch_size(
    tmp_path: Path, batch_size: int, free_bytes: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a GPU has no room for a view."""
    monkeypatch.setattr(Device, "free_bytes", lambda _: free_bytes)
    run_of = opened(tmp_path, f"training.student.batch_size={batch_size}")
    banked, live, batches = banked_and_live(run_of)
    seen = []
    for batch in epochs_of(batches, 3):
        logits = live(batch).logits
        torch.testing.assert_close(banked(batch).logits, logits, rtol=1e-5, atol=1e-5)
        seen.append(logits)
        assert (banked.placed is None) is (free_bytes == 0)
    assert batch_size == 5000 or len(seen) > 30
    # The test would not notice logits of a wrong image or view, were they alike. Of 50 windows, some come twice.
    rows = torch.cat(seen)
    assert (torch.cdist(rows, rows) < 1e-3).sum() < 1.05 * len(rows)


def test_a_second_reader_with_batches_of_another_size_and_order_reads_the_same_files(tmp_path: Path) -> None:
    first, live, batches = banked_and_live(opened(tmp_path))
    for batch in epochs_of(batches, 2):
        first(batch)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "store" / "logits").rglob("view_*.npy")}
    assert sorted(path.name for path in files) == ["view_0.npy", "view_1.npy"]
    run_of = opened(tmp_path, "training.student.batch_size=17", "seed=5", "training.view_seed=0")
    second, _, others = banked_and_live(run_of)
    assert second.fingerprint == first.fingerprint
    for batch in epochs_of(others, 2):
        torch.testing.assert_close(second(batch).logits, live(batch).logits, rtol=1e-5, atol=1e-5)
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_filling_a_view_says_how_far_it_is(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []

    class Told(Watcher):
        def worked(self, work: str, done: int, total: int) -> None:
            told.append((work, done, total))

    banked, _, batches = banked_and_live(open_run(tmp_path, AUGMENTED, Told()))
    told.clear()
    banked(next(batches.epoch(1)))
    num = batches.num_samples
    expected = [("the teacher's logits of view 0", min(done, num - 1), num) for done in range(256, num + 256, 256)]
    assert told[: len(expected) + 1] == [*expected, ("the teacher's logits of view 0", num, num)]


def test_epochs_that_cycle_through_views_share_their_files(tmp_path: Path) -> None:
    tiny_run(tmp_path, "training.views=2", "training.student.epochs=5")
    assert sorted(path.name for path in tmp_path.rglob("view_*.npy")) == ["view_0.npy", "view_1.npy"]


def test_the_founding_experiment_asks_its_teacher_once_for_each_image(tmp_path: Path) -> None:
    """Its images are not augmented: all epochs have one view, of the student as of the teacher."""
    founding = compose_config(["experiment=founding_cifar10"])
    small = compose_config([*TINY, f"store_dir={tmp_path / 'store'}", "baseline=false"])
    dataset = dataclasses.replace(small.dataset, augment=founding.dataset.augment)
    training = dataclasses.replace(small.training, views=founding.training.views)
    run_of = open_settings(dataclasses.replace(small, dataset=dataset, training=training), tmp_path)
    for prepared in (run_of.lineup.student, *run_of.lineup.teachers):
        assert list(prepared.training.views.views_of(10)) == [0]
    trainer, guide = run_of.student()
    assert isinstance(guide, BankedTeacher)
    trainer.fit(Watcher(), run_of.workshop.stop)
    assert len(trainer.history) == 2
    assert [path.name for path in tmp_path.rglob("view_*.npy")] == ["view_0.npy"]


def test_a_bank_belongs_to_teacher_data_and_views_and_not_to_the_student(tmp_path: Path) -> None:
    def fingerprint_with(*overrides: str) -> str:
        return banked_and_live(opened(tmp_path, "training.teacher.epochs=1", *overrides))[0].fingerprint

    usual = fingerprint_with()
    others = ("dataset.augment.flip.enabled=false", "training.view_seed=3", "dataset.split_seed=1")
    for override in ("teacher_seed=1", "seed=1", *others):
        assert fingerprint_with(override) != usual, override
    students = ("student.hidden=[4]", "training.student.epochs=7", "training.student.batch_size=32")
    for override in ("mode.temperature=8", *students):
        assert fingerprint_with(override) == usual, override


@pytest.mark.parametrize("precision", LOSS_TOLERANCE)
def test_losses_stay_within_the_stated_tolerance_of_the_live_teacher(tmp_path: Path, precision: str) -> None:
    run_of = opened(tmp_path, f"device.precision={precision}", "teacher.widths=[8,16]", "training.teacher.epochs=1")
    banked, live, batches = banked_and_live(run_of)
    student = torch.Generator().manual_seed(0)
    for batch in epochs_of(batches, 1):
        logits = torch.randn(len(batch.targets), 10, generator=student)
        for temperature in (1.0, 4.0):
            expected = soft_target_loss(logits, live(batch).logits, temperature)
            loss = soft_target_loss(logits, banked(batch).logits, temperature)
            torch.testing.assert_close(loss, expected, rtol=LOSS_TOLERANCE[precision], atol=1e-6)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", np.float32), ("bf16", np.float16)])
def test_logits_are_stored_in_no_less_than_the_precision_of_the_teacher(
    tmp_path: Path, precision: str, dtype: type
) -> None:
    run_of = opened(tmp_path, f"device.precision={precision}", "training.teacher.epochs=1")
    banked, _, batches = banked_and_live(run_of)
    banked(next(batches.epoch(1)))
    (path,) = tmp_path.rglob("view_0.npy")
    stored = np.load(path)
    assert stored.dtype == dtype
    assert stored.shape == (len(run_of.workshop.feed.train), 10)


def test_logits_that_half_precision_cannot_hold_are_refused(tmp_path: Path) -> None:
    run_of = opened(tmp_path, "device.precision=bf16", "training.teacher.epochs=1")
    banked, _, batches = banked_and_live(run_of)
    with torch.no_grad():
        list(banked.teacher.architecture.parameters())[-1].fill_(1e5)  # the last layer's bias
    assert message_of(banked, next(batches.epoch(1))) == (
        "the teacher's logits do not fit into half precision\n  write device.precision=fp32"
    )


def test_the_student_of_the_bank_is_the_student_of_the_live_teacher(tmp_path: Path) -> None:
    banked = tiny_run(tmp_path, "training.student.epochs=4")
    live = tiny_run(tmp_path, "training.student.epochs=4", "logit_bank_gigabytes=0", name="live", store="other")
    assert len(list((tmp_path / "store").rglob("view_*.npy"))) == 4
    assert list((tmp_path / "other").rglob("view_*.npy")) == []
    torch.testing.assert_close(weights_of(banked), weights_of(live), rtol=1e-3, atol=1e-4)
    for split in ("val", "test"):
        figures, others = (report.summary["student"]["last"][split] for report in (banked, live))
        assert figures == pytest.approx(others, abs=1e-3)


def test_a_run_that_goes_on_gets_the_same_logits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tiny_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    original = Trainer._train_step

    def stop_in_the_second_epoch(self: Trainer, batches: Iterator[Batch], watcher: Any) -> None:
        if self.learner.stage == "student" and (self.epoch, self.step) == (2, 3):
            watcher.state_saved(self.state())
            raise Interrupted
        original(self, batches, watcher)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", stop_in_the_second_epoch)
        with pytest.raises(Interrupted):
            tiny_run(tmp_path, name="cut")
    resumed = tiny_run(tmp_path, f"resume={tmp_path / 'cut'}", name="cut")
    torch.testing.assert_close(weights_of(resumed), weights_of(whole), rtol=0, atol=0)


def test_a_bank_beyond_the_limit_is_told_and_the_teacher_runs_live(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_run(tmp_path, "logit_bank_gigabytes=5e-5")
    # 2 views of 1,146 training images, 10 classes, 4 bytes.
    assert (
        "the teacher's logits of all views (the logit bank) need 91.7kB, logit_bank_gigabytes allows 50kB: "
        "the teacher runs live in every step; training.views=8 makes the bank smaller\n"
    ) in capsys.readouterr().out
    assert not (tmp_path / "store" / "logits").exists()


def test_the_disk_needs_room_only_for_the_views_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A view takes 45.8 kB, and nine tenths of 60 kB may be used; repeats with the same views fill them once."""
    told: list[str] = []

    class Told(Watcher):
        def noted(self, text: str) -> None:
            told.append(text)

    run_of = open_run(tmp_path, [*AUGMENTED, "training.views=2"], Told())
    teacher, training = run_of.teacher(), run_of.lineup.student.training
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=60_000))
    told.clear()
    assert not has_room(training, [teacher], run_of.workshop)
    assert told == [
        "the teacher's logits of all views (the logit bank) need 91.7kB more, the disk has 54kB free: "
        "the teacher runs live in every step; training.views=8 makes the bank smaller"
    ]
    banked, _, batches = banked_and_live(run_of)
    banked(next(batches.epoch(1)))
    assert has_room(training, [teacher], run_of.workshop)


def test_a_damaged_view_is_made_again_and_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = tiny_run(tmp_path)
    path = next(path for path in tmp_path.rglob("view_1.npy"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    second = tiny_run(tmp_path, name="second")
    assert f"logits {path.parent.name[:12]} in the store is damaged (view_1.npy): it is made again" in (
        capsys.readouterr().out
    )
    torch.testing.assert_close(weights_of(second), weights_of(first), rtol=0, atol=0)


def kept(logits: Tensor, k: int) -> Tensor:
    """The logits that a bank gives back which keeps k of them."""
    rows = TopLogits.of(logits, k).rows(torch.float32)
    return TopLogits.of_rows(rows, logits.shape[1], Tensor.clone).spread(torch.arange(len(logits)))


@pytest.mark.parametrize(("num_classes", "k"), [(10, 1), (100, 10), (1000, 999)])
def test_the_largest_logits_keep_their_probabilities_and_the_others_share_the_rest(num_classes: int, k: int) -> None:
    logits = 3 * torch.randn(500, num_classes, generator=torch.Generator().manual_seed(1)) + 5
    expected, found = logits.double().softmax(1), kept(logits, k).double().softmax(1)
    largest = torch.zeros_like(expected, dtype=torch.bool).scatter(1, expected.topk(k).indices, value=True)
    torch.testing.assert_close(found[largest], expected[largest], rtol=0, atol=1e-6)
    rest = expected.masked_fill(largest, 0).sum(1)
    evenly = (rest / (num_classes - k)).unsqueeze(1).expand_as(found)
    torch.testing.assert_close(found[~largest], evenly[~largest], rtol=1e-4, atol=1e-9)
    divergence = (expected * (expected / found).log()).sum(1)
    assert (divergence <= rest * np.log(num_classes - k) + 1e-6).all()
    torch.testing.assert_close(kept(logits, k).gather(1, logits.topk(k).indices), logits.topk(k).values)


def test_above_temperature_1_the_others_get_more_and_below_less() -> None:
    logits = 3 * torch.randn(200, 50, generator=torch.Generator().manual_seed(2))
    classes = logits.topk(5).indices
    for temperature, sign in ((4.0, 1), (0.5, -1)):
        of_largest = [(each / temperature).softmax(1).gather(1, classes) for each in (logits, kept(logits, 5))]
        assert (sign * (of_largest[0].sum(1) - of_largest[1].sum(1)) > 0).all()
        ratios = [each / each[:, :1] for each in of_largest]
        torch.testing.assert_close(ratios[1], ratios[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("num_classes", "k", "dtype", "expected"),
    [
        (10, 3, torch.float32, 3 * (4 + 1) + 4),
        (100, 10, torch.float16, 10 * (2 + 1) + 4),
        (1000, 10, torch.float32, 10 * (4 + 2) + 4),
        (40_000, 10, torch.float16, 10 * (2 + 4) + 4),
    ],
)
def test_a_sample_takes_so_many_bytes(num_classes: int, k: int, dtype: torch.dtype, expected: int) -> None:
    rows = TopLogits.of(torch.randn(7, num_classes), k).rows(dtype)
    assert (rows.itemsize, row_type(num_classes, k, dtype).itemsize) == (expected, expected)
    assert rows["classes"].max() < num_classes


@pytest.mark.parametrize("free_bytes", [inf, 0])
def test_a_bank_of_the_largest_logits_is_smaller_and_gives_them_in_every_view(
    tmp_path: Path, free_bytes: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Device, "free_bytes", lambda _: free_bytes)
    run_of = opened(tmp_path, "logit_bank_top_k=3", "training.teacher.epochs=1")
    banked, live, batches = banked_and_live(run_of)
    for batch in epochs_of(batches, 2):
        expected = kept(live(batch).logits, 3)
        torch.testing.assert_close(banked(batch).logits, expected, rtol=1e-4, atol=1e-4)
    paths = sorted(tmp_path.rglob("view_*.npy"))
    num = batches.num_samples
    assert [path.stat().st_size for path in paths] == [pytest.approx(num * 19, abs=300)] * 2
    assert bank_bytes(run_of.lineup.student.training, run_of.teacher(), run_of.workshop) == (2 * num * 19, 0)
    whole = banked_and_live(opened(tmp_path, "training.teacher.epochs=1"))[0]
    assert whole.fingerprint != banked.fingerprint


def test_the_student_depends_on_how_many_logits_are_kept_and_not_on_where(tmp_path: Path) -> None:
    """Two teachers; a bank without room changes nothing but the rounding."""
    overrides = ("logit_bank_top_k=2", "teacher_seed=[0,1]", "training.teacher.epochs=1", "baseline=false")
    banked = tiny_run(tmp_path, *overrides)
    live = tiny_run(tmp_path, *overrides, "logit_bank_gigabytes=0", name="live")
    assert (banked.guided_by, live.guided_by) == ("logit bank", "live teacher")
    assert banked.student.fingerprint == live.student.fingerprint
    torch.testing.assert_close(weights_of(banked), weights_of(live), rtol=1e-3, atol=1e-4)
    whole = tiny_run(tmp_path, *overrides, "logit_bank_top_k=null", name="whole")
    assert whole.student.fingerprint != banked.student.fingerprint
    distances = [(mine - weights_of(banked)[name]).abs().max() for name, mine in weights_of(whole).items()]
    assert max(distances) > 0.01


def test_the_kept_logits_concern_only_students_that_learn_from_logits(tmp_path: Path) -> None:
    def student_with(*overrides: str) -> Training:
        return open_run(tmp_path, [*TINY, "logit_bank_top_k=2", *overrides]).lineup.student.training

    assert student_with().top_k == 2
    assert student_with().alone("baseline").top_k is None
    assert student_with("mode=none").top_k is None
    assert student_with("mode=attention", "student=cnn_tiny", "teacher=cnn_small").top_k is None


def test_as_many_logits_as_classes_are_refused(tmp_path: Path) -> None:
    assert message_of(open_run, tmp_path, [*TINY, "logit_bank_top_k=10"]) == (
        "logit_bank_top_k=10, but the dataset has 10 classes\n"
        "  write a smaller number, or leave it out to keep all logits"
    )


def test_a_large_bank_is_told_before_it_is_filled(tmp_path: Path) -> None:
    told: list[str] = []

    class Told(Watcher):
        def noted(self, text: str) -> None:
            told.append(text)

    run_of = open_run(tmp_path, [*AUGMENTED, "logit_bank_gigabytes=1e-3"], Told())
    assert has_room(run_of.lineup.student.training, [run_of.teacher()], run_of.workshop)
    assert told[-1] == "the teacher's logits of all views (the logit bank) take 91.7kB more"


@pytest.mark.slow
def test_several_processes_share_one_teacher_and_one_bank(tmp_path: Path) -> None:
    alone = tiny_run(tmp_path, name="alone", store="own")
    program = (
        "import sys; from pathlib import Path; from test_logit_bank import tiny_run\n"
        "tiny_run(Path(sys.argv[1]), name=sys.argv[2])"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), f"process_{number}"],
            cwd=Path(__file__).parent,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sum(" trained, validation accuracy " in output for output in outputs) == 1
    assert len(list((tmp_path / "store").rglob("view_*.npy"))) == 2
    for number in range(3):
        content = tensor_files.load(tmp_path / f"process_{number}" / "checkpoints" / "student.pt")
        torch.testing.assert_close(content["weights"], weights_of(alone), rtol=0, atol=0)


class _SignalInTheBank(Watcher):
    """Sends a signal when the first of the five chunks of the second view is there."""

    def worked(self, work: str, done: int, total: int) -> None:
        if work == "the teacher's logits of view 1":
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_while_a_bank_is_filled_does_not_wait_for_the_view(tmp_path: Path) -> None:
    whole = tiny_run(tmp_path, name="whole", store="other")
    settings = compose_config([*AUGMENTED, f"store_dir={tmp_path / 'store'}"])
    with pytest.raises(Interrupted):
        run(settings, tmp_path / "run", watchers=[_SignalInTheBank()])
    (bank,) = (tmp_path / "store" / "logits").iterdir()
    assert sorted(path.name for path in bank.glob("*.npy")) == ["view_0.npy"]
    resumed = tiny_run(tmp_path, f"resume={tmp_path / 'run'}")
    torch.testing.assert_close(weights_of(resumed), weights_of(whole), rtol=0, atol=0)
