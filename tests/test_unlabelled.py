"""Unlabelled images: they join the training of students, and leave every cross-entropy with targets as it was."""

from pathlib import Path
from pydoc import locate

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from conftest import TINY
from distill_run.config.schema import DatasetSettings
from distill_run.config.settings import compose_config
from distill_run.data.batches import UNLABELLED, Batch
from distill_run.data.feed import Feed, MemoryBatches, MemoryFeed
from distill_run.data.views import ViewChoice, Views
from distill_run.data.worker_feed import WorkerFeed
from distill_run.engine.totals import Totals
from distill_run.models.network import Network
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import Objective
from distill_run.objectives.none import CrossEntropy
from distill_run.pipeline import run
from distill_run.stages.live_teacher import LiveTeacher
from distill_run.stages.logit_bank import BankedTeacher, bank_bytes
from distill_run.stages.rehearse import TAKES_UNLABELLED, rehearse
from distill_run.stages.watcher import Watcher
from helpers import (
    Array,
    assert_same_batch,
    folder_settings,
    message_of,
    numpy_log_softmax,
    open_feed,
    some_logits,
    some_split,
    steps,
)
from workshops import open_run

LABELLED, PLAIN, MIXED = ViewChoice(3, 4, 0.4, 1.0), ViewChoice(3, 4, 0.0, 0.0, True), ViewChoice(3, 4, 0.4, 1.0, True)
AUGMENTED = ("dataset.augment.crop.padding=1", "dataset.augment.flip.enabled=true", "dataset.augment.cutout.size=2")
WINDOW = "dataset.augment.random_resized_crop.scale=[0.2,1.0]"


def write_images(folder: Path, count: int) -> None:
    """Photographs of several sizes, some of them in subfolders."""
    generator = np.random.default_rng(count)
    for index in range(count):
        place = folder / ("", "a", "a/b")[index % 3]
        place.mkdir(parents=True, exist_ok=True)
        height, width = generator.integers(10, 40, 2).tolist()
        pixels = generator.integers(0, 256, (height, width, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{index:03}.png")


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50 photographs in two classes."""
    folder = tmp_path_factory.mktemp("album")
    write_images(folder / "day", 24)
    write_images(folder / "night", 26)
    return folder


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 31 unlabelled photographs, and a text file."""
    folder = tmp_path_factory.mktemp("others")
    write_images(folder, 31)
    (folder / "a" / "notes.txt").write_text("not an image")
    return folder


def batch_of(targets: list[int], partners: list[int] | None = None, shares: list[float] | None = None) -> Batch:
    num = len(targets)
    mixed = (None, None) if partners is None else (torch.tensor(partners), torch.tensor(shares, dtype=torch.float64))
    return Batch(torch.arange(num), torch.zeros(num, 1, 2, 2), torch.tensor(targets), 0, 1, 0, *mixed)


def cross_entropy_of(logits: Tensor, batch: Batch, smoothing: float, weights: list[float] | None) -> Tensor:
    objective = CrossEntropy(label_smoothing=smoothing)
    objective.weigh_classes(weights)
    return objective.distillation(batch, Outputs(logits))


def smoothed(logits: Array, row: int, target: int, smoothing: float, weights: list[float]) -> float:
    """The cross-entropy of one row, as torch defines it: each class's part of the smoothed target has its weight."""
    wanted = np.full(len(weights), smoothing / len(weights))
    wanted[target] += 1 - smoothing
    return float(-(wanted * np.array(weights) * numpy_log_softmax(logits)[row]).sum())


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.5, 2.0, 4.0]])
def test_the_cross_entropy_is_the_mean_over_the_labelled_samples(smoothing: float, weights: list[float]) -> None:
    logits = some_logits(0, 5, 3)
    student = torch.from_numpy(logits).requires_grad_()
    loss = cross_entropy_of(student, batch_of([2, -1, 0, -1, 2]), smoothing, weights)
    parts = [smoothed(logits, row, target, smoothing, weights) for row, target in ((0, 2), (2, 0), (4, 2))]
    assert loss.item() == pytest.approx(sum(parts) / (2 * weights[2] + weights[0]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert student.grad[[1, 3]].abs().max() == 0
    assert student.grad[[0, 2, 4]].abs().min() > 0


def test_a_mixed_sample_counts_by_the_shares_of_its_labelled_parts() -> None:
    """Both parts labelled, its own, its partner's, none."""
    logits, even = some_logits(1, 4, 3), [1.0, 1.0, 1.0]
    batch = batch_of([0, 1, -1, -1], [2, -1, 2, -1], [0.75, 0.6, 0.1, 0.5])
    expected = 0.75 * smoothed(logits, 0, 0, 0.1, even) + 0.25 * smoothed(logits, 0, 2, 0.1, even)
    expected += 0.6 * smoothed(logits, 1, 1, 0.1, even) + 0.9 * smoothed(logits, 2, 2, 0.1, even)
    loss = cross_entropy_of(torch.from_numpy(logits), batch, 0.1, None)
    assert loss.item() == pytest.approx(expected / (1 + 0.6 + 0.9))


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 4.0]])
def test_a_batch_without_targets_has_a_cross_entropy_of_0(weights: list[float] | None) -> None:
    student = torch.from_numpy(some_logits(2, 3, 3)).requires_grad_()
    loss = cross_entropy_of(student, batch_of([-1, -1, -1]), 0.1, weights)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert student.grad is not None
    assert student.grad.abs().max() == 0


def test_the_accuracy_of_an_epoch_is_that_of_the_labelled_samples() -> None:
    totals = Totals()
    answers = torch.eye(3)[torch.tensor([0, 1, 2, 2])]
    totals.add(torch.tensor([0, -1, 1, -1]), answers, {"loss": torch.tensor(3.0)})
    totals.add(torch.tensor([-1, -1, 2, -1]), answers, {"loss": torch.tensor(1.0)})
    assert totals.means() == pytest.approx({"loss": 2.0, "accuracy": 2 / 3})


def batches_of(labelled: int, unlabelled: int, batch_size: int, seed: int = 0) -> MemoryBatches:
    split = some_split(labelled + unlabelled, 3, (1, 2, 2))
    split.targets[labelled:] = UNLABELLED
    return MemoryBatches(Views(split, steps(), ViewChoice(seed, 1, 0.0, 0.0, True)), batch_size, seed)


def test_an_epoch_serves_all_images_once_and_each_batch_in_the_same_mixture() -> None:
    served = list(batches_of(30, 90, 16).epoch(2))
    assert sorted(torch.cat([batch.indices for batch in served]).tolist()) == list(range(120))
    assert [int((batch.targets == UNLABELLED).sum()) for batch in served] == [12] * 7 + [6]
    for batch in served:
        assert torch.equal(batch.targets == UNLABELLED, batch.indices >= 30)


@pytest.mark.parametrize(("share", "least", "most"), [(0.25, 4, 4), (0.5, 8, 8), (0.7, 11, 12), (0.9, 14, 15)])
def test_each_batch_has_the_share_of_unlabelled_images(share: float, least: int, most: int) -> None:
    batches = batches_of(48, 40, 16)
    batches.share_unlabelled(share)
    orders = [batches.order(epoch) for epoch in range(1, 6)]
    for order in orders:
        assert sorted(order[order < 48].tolist()) == list(range(48))
        counts = [int((order[first : first + 16] >= 48).sum()) for first in range(0, len(order) - 15, 16)]
        assert least <= min(counts)
        assert max(counts) <= most
    assert batches.num_samples == len(orders[0]) == 48 + round(48 * share / (1 - share))
    drawn = torch.bincount(orders[0][orders[0] >= 48] - 48, minlength=40)
    assert int(drawn.max() - drawn.min()) <= 1  # none again before all


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    orders = []
    for seed, epoch in ((1, 1), (1, 1), (1, 2), (2, 1)):
        batches = batches_of(20, 40, 8, seed)
        batches.share_unlabelled(0.4)
        whole = [batch.indices for batch in batches.epoch(epoch)]
        assert torch.equal(torch.cat([batch.indices for batch in batches.epoch(epoch, 2)]), torch.cat(whole[2:]))
        orders.append(batches.order(epoch).tolist())
    assert orders[0] == orders[1]
    assert orders[1] != orders[2] != orders[3] != orders[1]


def test_balanced_sampling_draws_labelled_images_alone() -> None:
    batches = batches_of(20, 40, 8)
    batches.balance(torch.tensor([0] * 19 + [1]))
    orders = torch.cat([batches.order(epoch) for epoch in range(1, 31)])
    assert sorted(batches.order(1)[batches.order(1) >= 20].tolist()) == list(range(20, 60))
    share = (orders == 19).sum().item() / (orders < 20).sum().item()
    assert share == pytest.approx(0.5, abs=4 * 0.5 / 600**0.5)


def everything(feed: Feed, views: ViewChoice) -> list[Batch]:
    """Two epochs, the second from its third step on, and a view in order."""
    batches = feed.batches(views, 7, seed=1)
    batches.share_unlabelled(0.4)
    return [*batches.epoch(1), *batches.epoch(2, first_step=2), *feed.view_in_order(views, 1, 20)]


def assert_equal(left: Feed, right: Feed, views: ViewChoice) -> None:
    for one, other in zip(everything(left, views), everything(right, views), strict=True):
        assert_same_batch(one, other)
    assert (left.content, left.channel_statistics()) == (right.content, right.channel_statistics())


def settings_of(root: Path, others: Path, *overrides: str) -> DatasetSettings:
    return folder_settings(root, "dataset.image_size=8", f"dataset.unlabelled='{others}'", *overrides)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("window", [(), (WINDOW,)])
@pytest.mark.parametrize("views", [PLAIN, MIXED])
def test_both_feeds_serve_the_same(
    album: Path,
    others: Path,
    tmp_path: Path,
    views: ViewChoice,
    window: tuple[str, ...],
) -> None:
    settings = settings_of(album, others, *AUGMENTED, *window)
    memory = open_feed(settings, tmp_path)
    read = open_feed(settings, tmp_path, memory_gigabytes=0, workers=2)
    assert isinstance(memory, WorkerFeed if window else MemoryFeed)
    assert isinstance(read, WorkerFeed)
    assert_equal(memory, read, views)
    assert memory.unlabelled_content == read.unlabelled_content
    assert [memory.pool.name(index) for index in (0, 36, 40)] == [read.pool.name(index) for index in (0, 36, 40)]
    targets = torch.cat([batch.targets for batch in memory.view_in_order(views, 1, 20)])
    assert targets.tolist() == [*memory.train.targets.tolist(), *[UNLABELLED] * 31]


def test_what_is_labelled_stays_as_it_is(album: Path, others: Path, tmp_path: Path) -> None:
    plain = open_feed(folder_settings(album, "dataset.image_size=8", *AUGMENTED), tmp_path)
    feed = open_feed(settings_of(album, others, *AUGMENTED), tmp_path)
    assert_equal(plain, feed, LABELLED)
    assert (plain.num_unlabelled, feed.num_unlabelled) == (0, 31)
    assert plain.unlabelled_content is None
    assert [note for note in feed.notes if note not in plain.notes] == [
        "unlabelled: 1 file skipped, .txt is not read as an image"
    ]


def test_images_in_memory_are_joined_by_images_of_their_shape(tmp_path: Path) -> None:
    """Digits are grey, of 8x8 pixels; the photographs have colours and other sizes."""
    folder = tmp_path / "photographs"
    write_images(folder, 4)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "first.png")
    common = ["dataset.image_size=8", f"dataset.unlabelled={folder}"]
    window = "dataset.augment.random_resized_crop.scale=[0.5,1]"
    feeds = [open_feed(compose_config([*common, *more]).dataset, tmp_path / "store") for more in ([], [window])]
    for feed, kind in zip(feeds, (MemoryFeed, WorkerFeed), strict=True):
        assert isinstance(feed, kind)
        assert feed.pool.shape == feed.train.shape == (1, 8, 8)
        assert feed.pool.targets[len(feed.train) :].tolist() == [UNLABELLED] * 5
        names = [feed.pool.name(index) for index in range(len(feed.train), len(feed.pool))]
        assert names == ["000.png", "003.png", "a/001.png", "a/b/002.png", "first.png"]
        assert np.array_equal(
            feed.pool.image(len(feed.pool) - 1)[0].numpy(), np.asarray(Image.fromarray(pixels).convert("L"))
        )


def test_what_is_wrong_with_the_folder_is_said(album: Path, tmp_path: Path) -> None:
    def refused(folder: Path) -> str:
        return message_of(open_feed, settings_of(album, folder), tmp_path / "store")

    empty, absent, part = tmp_path / "empty", tmp_path / "absent", album / "day"
    empty.mkdir()
    assert refused(absent) == (
        f"dataset.unlabelled={absent} is not a folder\n  give a folder of images, in any subfolders"
    )
    assert refused(empty) == f"dataset.unlabelled={empty} holds no image\n  put images there, in any subfolders"
    message = refused(part)
    assert message.startswith(f"dataset.unlabelled holds 24 images of the dataset itself, such as {part}/")
    assert message.endswith("\n  keep the unlabelled images in a folder of their own, beside dataset.root")


@pytest.mark.parametrize("dataset", ["digits", "image_folder"])
def test_files_that_cannot_be_read_are_named_or_counted(dataset: str, album: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    write_images(folder, 3)
    (folder / "a" / "empty.png").touch()
    settings = compose_config(["dataset.image_size=8", f"dataset.unlabelled={folder}"]).dataset
    if dataset == "image_folder":
        settings = settings_of(album, folder)
    assert message_of(open_feed, settings, tmp_path / "store") == (
        f"{folder}/a/empty.png cannot be read: it is empty\n  mend or remove the file, or write dataset.on_error=skip"
    )
    feed = open_feed(settings, tmp_path / "store", on_error="skip")
    assert feed.num_unlabelled == 3
    assert "unlabelled: 1 file skipped, which cannot be read: a/empty.png" in feed.notes


def test_test_images_among_them_are_counted(album: Path, tmp_path: Path) -> None:
    feed = open_feed(folder_settings(album, "dataset.image_size=8"), tmp_path / "store")
    folder = tmp_path / "copies"
    folder.mkdir()
    for index in range(3):
        name = feed.test.name(index)
        (folder / Path(name).name).write_bytes((album / name).read_bytes())
    with_copies = open_feed(settings_of(album, folder), tmp_path / "store")
    assert "test and unlabelled images have 3 in common: the student sees these test images in training" in (
        with_copies.notes
    )


@pytest.mark.parametrize(
    ("overrides", "who"),
    [
        (["mode=dkd"], "mode=dkd"),
        (["mode=none"], "mode=none"),
        (["mode=crd"], "mode=crd"),
        (["mode=soft", "+mode@mode.also.dkd=dkd"], "mode.also.dkd"),
    ],
)
def test_a_mode_that_reads_targets_refuses_them(overrides: list[str], who: str, others: Path) -> None:
    settings = compose_config([*overrides, f"dataset.unlabelled={others}"])
    assert message_of(rehearse, settings) == (
        f"{who} needs the target of every image, and those of dataset.unlabelled={others} have none\n"
        "  choose a mode that takes them, as in mode=soft (soft, hard, dist, fitnet, attention, vid, review_kd, rkd, "
        "sp, pkt, simkd), or leave the folder out"
    )


def test_a_share_of_nothing_is_refused() -> None:
    assert message_of(rehearse, compose_config(["dataset.unlabelled_share=0.5"])) == (
        "dataset.unlabelled_share=0.5 has no unlabelled images to share\n"
        "  name their folder, as in dataset.unlabelled=DIR, or leave it out"
    )


def test_the_modes_that_are_named_are_those_that_read_no_targets() -> None:
    found = set()
    for path in (Path(__file__).parents[1] / "conf" / "mode").glob("*.yaml"):
        target = locate(yaml.safe_load(path.read_text(encoding="utf-8"))["_target_"])
        assert isinstance(target, type)
        assert issubclass(target, Objective)
        if not target.needs_targets:
            found.add(path.stem)
    assert set(TAKES_UNLABELLED) == found


VARIED = (*TINY, "dataset.augment.crop.padding=1", "dataset.train_fraction=0.2", "training.views=2")


def test_the_logit_bank_serves_them(others: Path, tmp_path: Path) -> None:
    opened = open_run(tmp_path, [*VARIED, f"dataset.unlabelled={others}"])
    teacher, training, workshop = opened.teacher(), opened.lineup.student.training, opened.workshop
    assert isinstance(teacher.network, Network)
    banked = BankedTeacher(teacher.network, teacher.fingerprint, training, workshop)
    live, seen = LiveTeacher(teacher.network, workshop.device), set()
    num = len(workshop.feed.train) + 31
    assert bank_bytes(training, teacher, workshop) == (2 * num * 10 * 4, 2 * num * 10 * 4)
    for epoch in (1, 2):
        for batch in workshop.feed.batches(training.views, 16, training.seed).epoch(epoch):
            seen |= set(batch.indices.tolist())
            torch.testing.assert_close(banked(batch).logits, live(batch).logits, rtol=1e-5, atol=1e-5)
    assert seen == set(range(num))
    assert bank_bytes(training, teacher, workshop) == (2 * num * 10 * 4, 0)


def test_only_the_student_learns_from_them(others: Path, tmp_path: Path) -> None:
    plain = open_run(tmp_path / "plain", list(VARIED)).lineup
    joined = open_run(tmp_path / "joined", [*VARIED, f"dataset.unlabelled={others}"]).lineup
    shared = open_run(
        tmp_path / "shared", [*VARIED, f"dataset.unlabelled={others}", "dataset.unlabelled_share=0.5"]
    ).lineup
    for lineup in (joined, shared):
        assert lineup.teachers[0].training == plain.teachers[0].training
        assert lineup.pairs[0].baseline is not None
        assert plain.pairs[0].baseline is not None
        assert lineup.pairs[0].baseline.training == plain.pairs[0].baseline.training
    students = [lineup.student.training.inputs for lineup in (plain, joined, shared)]
    assert students[0] != students[1] != students[2] != students[0]


@pytest.mark.pages
@pytest.mark.parametrize("mode", ["soft", "fitnet"])
def test_a_run_says_how_many_there_are(
    mode: str, others: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    watcher = Watcher()
    monkeypatch.setattr(watcher, "noted", told.append)
    settings = compose_config(
        [*VARIED, "student=cnn_tiny", f"mode={mode}", f"dataset.unlabelled={others}", "dataset.unlabelled_share=0.25",
         f"store_dir={tmp_path / 'store'}"]
    )  # fmt: skip
    report = run(settings, tmp_path / "run", watchers=[watcher])
    num = report.dataset.train_size
    assert report.dataset.unlabelled_size == 31
    (about,) = [text for text in told if text.startswith("dataset: digits")]
    assert about.endswith(" a class), and 31 unlabelled images")
    assert report.baseline is not None
    assert report.baseline.steps == 2 * (num // 32 + (num % 32 > 1))
    served = num + round(num / 3)
    assert report.student.steps == 2 * (served // 32 + (served % 32 > 1))
    page = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert "The student also learned from 31 unlabelled images, without their targets." in page
