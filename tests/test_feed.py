"""Feeds: what is served from memory, and that runs over the same data read and hash them once."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distill_run.build import Builder
from distill_run.config.schema import DatasetSettings
from distill_run.config.settings import compose_config
from distill_run.data.feed import MemoryFeed
from distill_run.data.kept import MAX_KEPT, Kept
from distill_run.data.opening import Feeds
from distill_run.data.packing import Packed, pack
from distill_run.data.splits import Dataset
from distill_run.data.views import ViewChoice
from helpers import folder_settings, open_feed, some_split, steps

CPU = torch.device("cpu")
SPLITS = {
    "train": some_split(20, 4, (3, 5, 6)),
    "val": some_split(6, 4, (3, 5, 6)),
    "test": some_split(9, 4, (3, 5, 6)),
}
FEED = MemoryFeed(Dataset(SPLITS["train"], SPLITS["val"], SPLITS["test"], tuple("abcd"), (), ""), steps(1, True))
MIXED = ViewChoice(3, 2, 0.4, 1.0)


@pytest.fixture(scope="module")
def digits() -> DatasetSettings:
    return compose_config().dataset


@pytest.fixture
def count_reading(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often a source is loaded, and how many bytes are hashed."""
    counts = {"loaded": 0, "hashed": 0}
    build, sha256, file_digest = Builder.build, hashlib.sha256, hashlib.file_digest

    def count_build(self: Builder, node: Any, key: str, **injected: Any) -> Any:
        counts["loaded"] += key == "dataset.source"
        return build(self, node, key, **injected)

    class Hash:
        def __init__(self, data: bytes = b"") -> None:
            self.hash = sha256(data)

        def update(self, data: Any) -> None:
            counts["hashed"] += memoryview(data).nbytes
            self.hash.update(data)

        def hexdigest(self) -> str:
            return self.hash.hexdigest()

        def digest(self) -> bytes:
            return self.hash.digest()

    def count_file(file: Any, name: Any) -> Any:
        counts["hashed"] += Path(file.name).stat().st_size
        return file_digest(file, name)

    monkeypatch.setattr(Builder, "build", count_build)
    monkeypatch.setattr(hashlib, "sha256", Hash)
    monkeypatch.setattr(hashlib, "file_digest", count_file)
    return counts


def test_a_view_in_order_is_what_the_batches_serve() -> None:
    in_order = list(FEED.view_in_order(MIXED, 1, 7))
    assert [len(batch.indices) for batch in in_order] == [7, 7, 6]
    images = torch.cat([batch.images for batch in in_order])
    shares = torch.cat([batch.shares for batch in in_order if batch.shares is not None])
    for batch in FEED.batches(MIXED, 6, seed=8).epoch(4):
        assert batch.view == 1
        assert torch.equal(batch.images, images[batch.indices])
        assert batch.shares is not None
        assert torch.equal(batch.shares, shares[batch.indices])
        assert torch.equal(FEED.render(MIXED, batch.indices, 1), batch.images)


def test_a_split_serves_its_images_in_chunks_and_one_by_one() -> None:
    train = FEED.train
    chunks = list(train.chunks(8))
    assert [len(chunk) for chunk in chunks] == [8, 8, 4]
    assert torch.equal(torch.cat(chunks), train.images.float() / 255)
    assert torch.equal(train.image(5), train.images[5])
    assert (FEED.shape.in_channels, FEED.shape.image_size, FEED.shape.num_classes) == (3, (5, 6), 4)


def test_all_views_of_a_run_share_one_packed_copy_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    split = some_split(12, 3, (3, 4, 4))
    packed: list[Tensor] = []

    def count(images: Tensor) -> Packed:
        packed.append(images)
        return pack(images)

    monkeypatch.setattr("distill_run.data.source.pack", count)

    for crop in (0, 1, 3):
        feed = MemoryFeed(Dataset(split, split, split, ("a", "b", "c"), (), ""), steps(crop, True))
        list(feed.batches(MIXED, 4, 0).epoch(1))
        list(feed.view_in_order(ViewChoice(1, None, 0.0, 0.0), 0, 5))
    assert len(packed) == 1


def test_the_points_of_a_sweep_share_the_data(
    digits: DatasetSettings, tmp_path: Path, count_reading: dict[str, int]
) -> None:
    feeds = Feeds()
    first = open_feed(digits, tmp_path, feeds)
    assert count_reading["loaded"] == 1
    hashed = count_reading["hashed"]
    assert hashed > first.shape.image_size[0] ** 2 * 1797
    crop = {"_target_": "distill_run.data.augment.Crop", "padding": 3}
    other = open_feed(digits, tmp_path, feeds, augment={"crop": crop}, mean=[0.5])
    assert count_reading == {"loaded": 1, "hashed": hashed}
    assert other.train is first.train
    assert other.content == first.content
    views, indices = ViewChoice(0, None, 0.0, 0.0), torch.arange(20)
    assert not torch.equal(other.render(views, indices, 0), first.render(views, indices, 0))


def test_another_source_or_cut_is_read_anew(
    digits: DatasetSettings, tmp_path: Path, count_reading: dict[str, int]
) -> None:
    feeds = Feeds()
    contents = {open_feed(digits, tmp_path, feeds).content}
    larger = {**digits.source, "image_size": 12}
    others: list[dict[str, Any]] = [{"split_seed": 1}, {"train_fraction": 0.5}, {"source": larger, "image_size": 12}]
    for number, changes in enumerate(others, start=2):
        contents.add(open_feed(digits, tmp_path, feeds, **changes).content)
        assert len(contents) == count_reading["loaded"] == number


def test_the_images_of_a_folder_are_hashed_once_a_run(
    photos: Path, tmp_path: Path, count_reading: dict[str, int]
) -> None:
    """By the store, which looks whether its files are what was written; the content follows from that."""
    first = open_feed(folder_settings(photos), tmp_path / "store")
    kept = list((tmp_path / "store").rglob("images/*/*.*"))
    count_reading["hashed"] = 0
    again = open_feed(folder_settings(photos), tmp_path / "store")
    assert again.content == first.content
    num_samples = sum(map(len, (again.train, again.val, again.test)))
    assert count_reading["hashed"] <= sum(path.stat().st_size for path in kept) + 8 * num_samples + 1000
    assert {kind for kind, _ in again.entries} == {"images"}


def test_the_content_of_a_folder_knows_the_files_the_classes_and_the_cut(photos: Path, tmp_path: Path) -> None:
    contents = [open_feed(folder_settings(photos), tmp_path / "store").content]
    contents += [
        open_feed(folder_settings(photos), tmp_path / "store", **{key: value}).content  # type: ignore[arg-type]
        for key, value in (("split_seed", 1), ("val_fraction", 0.5), ("train_fraction", 0.5))
    ]
    flat = photos / "train"
    contents += [
        open_feed(folder_settings(flat), tmp_path / "store", **changes).content
        for changes in ({}, {"split_seed": 1}, {"test_fraction": 0.5}, {"val_fraction": 0.5})
    ]
    (photos / "train" / "day" / "00.png").rename(photos / "train" / "night" / "99.png")
    contents.append(open_feed(folder_settings(photos), tmp_path / "store").content)
    (photos / "test" / "day" / "00.png").unlink()
    contents.append(open_feed(folder_settings(photos), tmp_path / "store").content)
    assert len(set(contents)) == len(contents)


def test_results_are_kept_by_their_keys_and_the_least_used_go_first() -> None:
    kept = Kept()
    made: list[object] = []

    def make(key: object) -> object:
        made.append(key)
        return key, None

    def get(key: object) -> object:
        return kept.get(key, lambda: make(key))

    assert get(0) == get(0) == (0, None)
    for key in range(MAX_KEPT):
        get(key)
        get("often")
    assert made == [0, "often", *range(1, MAX_KEPT)]
    for kept_key in ("often", 1, MAX_KEPT - 1):
        get(kept_key)
    assert made[-1] == MAX_KEPT - 1
    get(0)
    assert made[-1] == 0
    assert kept.get("nothing", lambda: None) is None
    assert kept.get("nothing", lambda: made) is None
