"""Images on disk: what is read, and that nothing is lost silently."""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from PIL import Image

from distill_run.data.image_folder import load
from distill_run.data.memory import free_memory
from distill_run.data.source import Source
from distill_run.listener import NOBODY, Listener
from helpers import message_of


def read(root: Path | None, image_size: int | None = None, channels: int = 3) -> Source:
    """What load gives, with nothing prepared before."""
    with TemporaryDirectory() as prepared:
        root_text = str(root) if root else None
        return load(root=root_text, image_size=image_size, channels=channels, store_dir=prepared, listener=NOBODY)


def message(root: Path | None) -> str:
    return message_of(read, root)


def test_pixels_targets_and_classes_are_those_of_the_files(photos: Path) -> None:
    source = read(photos)
    assert source.classes == ("day", "night")
    assert source.val is None
    assert source.notes == ()
    assert source.train.images.shape == (24, 3, 8, 8)
    assert source.test is not None
    assert source.test.targets.tolist() == [0] * 6 + [1] * 6
    pixels = np.asarray(Image.open(photos / "train" / "night" / "03.png"))
    assert torch.equal(source.train.images[12 + 3], torch.from_numpy(pixels.copy()).permute(2, 0, 1))
    assert source.train.name(12 + 3) == "train/night/03.png"
    cut = source.train.select(torch.tensor([15, 0])).to(torch.device("cpu"))
    assert [cut.name(0), cut.name(1)] == ["train/night/03.png", "train/day/00.png"]


def test_a_validation_folder_is_used(photos: Path) -> None:
    (photos / "test").rename(photos / "val")
    (photos / "train").rename(photos / "test")
    (photos / "val").rename(photos / "train")
    for name in ("day", "night"):
        (photos / "val" / name).mkdir(parents=True)
        (photos / "test" / name / "00.png").rename(photos / "val" / name / "00.png")
    source = read(photos)
    assert source.val is not None
    assert source.test is not None
    assert [len(source.train), len(source.val), len(source.test)] == [12, 2, 22]


def test_images_of_any_mode_and_size_become_squares(photos: Path) -> None:
    folder = photos / "train" / "day"
    Image.new("L", (30, 20), 7).save(folder / "grey.png")
    Image.new("RGBA", (9, 40), (7, 7, 7, 255)).save(folder / "alpha.webp", lossless=True)
    Image.new("P", (16, 16)).save(folder / "palette.gif")
    source = read(photos, image_size=8, channels=1)
    assert source.train.images.shape == (27, 1, 8, 8)
    grey = [image for image in source.train.images if (image == 7).all()]
    assert len(grey) == 2


def test_files_that_are_no_images_are_counted(photos: Path) -> None:
    (photos / "train" / "day" / "notes.txt").write_text("sunny")
    (photos / "train" / "night" / "more.txt").write_text("dark")
    (photos / "test" / "day" / "README").write_text("")
    (photos / "test" / "day" / "00.png").rename(photos / "test" / "lost.png")
    source = read(photos)
    assert source.notes == (
        "train: 2 files skipped, .txt is no image",
        "test: 1 file skipped, .png outside the class folders",
        "test: 1 file skipped, no extension is no image",
    )


def test_no_root_and_a_wrong_root_are_refused(tmp_path: Path) -> None:
    holds = "holds a folder of images for each class, or train/ and test/ with such folders"
    assert message(None) == f"dataset.root is not set\n  write dataset.root=DIR, where DIR {holds}"
    assert message(tmp_path / "nowhere").endswith(f"is not a folder\n  give the folder that {holds}")


def test_a_misspelt_split_is_named(photos: Path) -> None:
    (photos / "train").rename(photos / "trian")
    assert message(photos) == (
        f"dataset.root={photos} has no folder train (it has test, trian)\n  rename {photos / 'trian'} to train"
    )
    (photos / "trian").rename(photos / "train")
    (photos / "validation").mkdir()
    assert message(photos).endswith(f"\n  rename {photos / 'validation'} to val")
    (photos / "validation").rmdir()
    (photos / "test").rename(photos / "testing")
    assert message(photos).endswith(f"\n  rename {photos / 'testing'} to test")


def test_a_test_folder_alone_is_refused(photos: Path) -> None:
    (photos / "train").rename(photos.parent / "elsewhere")
    assert message(photos) == (
        f"dataset.root={photos} has no folder train (it has test)\n  make {photos / 'train'}/<class>/ with images"
    )


def test_folders_of_classes_alone_are_the_training_split(photos: Path) -> None:
    """Whose images are then divided; the classes are the folders, and nothing is said to be missing."""
    flat = read(photos / "train")
    assert flat.classes == ("day", "night")
    assert (flat.val, flat.test, flat.notes) == (None, None, ())
    assert torch.equal(flat.train.images, read(photos).train.images)


def test_a_train_folder_alone_brings_no_test_split(photos: Path) -> None:
    (photos / "test").rename(photos / "spare")
    source = read(photos)
    assert (source.val, source.test) == (None, None)
    assert len(source.train) == 24
    assert source.notes == (f"{photos / 'spare'} is not read: it is none of train, val, test",)


def test_classes_that_train_lacks_are_named_with_the_nearest(photos: Path) -> None:
    test = photos / "test"
    (test / "night").rename(test / "nigth")
    assert message(photos) == f"{test / 'nigth'} is a class that train does not have\n  did you mean night?"
    (test / "nigth").rename(test / "xnight")
    (test / "day").rename(test / "xday")
    assert message(photos) == (
        f"{photos / 'test'} shares no class with train: it has xday, xnight, train has day, night\n"
        "  use the same names of folders in every split"
    )


def test_a_single_class_and_an_empty_class_are_refused(photos: Path) -> None:
    (photos / "train" / "dusk").mkdir()
    assert message(photos) == f"{photos / 'train' / 'dusk'} holds no image\n  put images there, or remove the folder"
    for name in ("dusk", "night"):
        folder = photos / "train" / name
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    assert message(photos).startswith(
        f"{photos / 'train'} has fewer than two class folders\n  make one folder for each class"
    )


def test_every_unreadable_file_is_named(photos: Path) -> None:
    whole = (photos / "train" / "day" / "00.png").read_bytes()
    (photos / "train" / "day" / "00.png").write_bytes(whole[:-40])
    (photos / "train" / "day" / "01.png").write_bytes(b"")
    (photos / "train" / "night" / "02.png").write_text("no image")
    text = message(photos)
    assert f"{photos / 'train' / 'day' / '00.png'} cannot be read: " in text
    assert f"{photos / 'train' / 'day' / '01.png'} cannot be read: it is empty\n  mend or remove the file" in text
    assert f"{photos / 'train' / 'night' / '02.png'} cannot be read: Pillow does not recognise it as an image" in text


def test_many_unreadable_files_are_counted_and_leave_no_folder(photos: Path, tmp_path: Path) -> None:
    for path in (photos / "train" / "day").iterdir():
        path.write_bytes(b"")
    store_dir = str(tmp_path / "outputs" / "store")
    text = message_of(load, root=str(photos), image_size=None, channels=3, store_dir=store_dir, listener=NOBODY)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    assert text.count("cannot be read: it is empty") == 5
    assert "and 7 more files that cannot be read" in text


def test_differing_sizes_are_refused_with_the_override_that_mends_it(photos: Path) -> None:
    Image.new("RGB", (10, 12)).save(photos / "train" / "day" / "large.png")
    assert message(photos) == (
        "the images have 2 sizes (height x width): 8x8 (24), 12x10 (1)\n"
        "  write dataset.source.image_size=8 to bring them to one"
    )


def test_the_size_that_is_advised_for_photographs_is_that_of_published_networks(tmp_path: Path) -> None:
    for name, size in (("cat", (400, 300)), ("dog", (500, 300)), ("dog", (500, 301))):
        path = tmp_path / "photos" / "train" / name / f"{size[0]}x{size[1]}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(path)
    assert message(tmp_path / "photos") == (
        "the images have 3 sizes (height x width): 300x400 (1), 300x500 (1), 301x500 (1)\n"
        "  write dataset.source.image_size=224 to bring them to one"
    )


def test_images_that_do_not_fit_into_memory_are_refused_before_they_are_read(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """36 images of 3 x 8 x 8 bytes take 6,912; with 100 x 100 pixels, 1,080,000."""
    monkeypatch.setattr("distill_run.data.image_folder.free_memory", lambda: 6911)
    monkeypatch.setattr("distill_run.data.image_folder.decode", lambda *_: pytest.fail("it was read"))
    assert message(photos) == (
        "36 images of 8x8 take 6.91kB of memory, 6.91kB are free\n"
        "  write dataset.source.image_size=32 to make them smaller"
    )
    monkeypatch.setattr("distill_run.data.image_folder.free_memory", lambda: 1_000_000)
    assert message_of(read, photos, 100) == (
        "36 images of 100x100 take 1.08MB of memory, 1MB are free\n"
        "  write dataset.source.image_size=64 to make them smaller"
    )


def test_images_that_take_more_than_half_of_the_memory_are_warned_of(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = "36 images of 8x8 take 6.91kB of memory"
    warning = f"{what}, 13.8kB are free; write dataset.source.image_size=32 to need less"
    for free, notes in ((13_824, ()), (13_823, (warning,))):
        monkeypatch.setattr("distill_run.data.image_folder.free_memory", lambda free=free: free)
        assert read(photos).notes == notes


def test_the_free_memory_is_less_than_all_memory() -> None:
    free = free_memory()
    if sys.platform == "linux":
        assert free is not None
        assert 0 < free < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    else:
        assert free is None


def test_reading_says_how_far_it_is_and_that_it_is_over(photos: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []

    class Told(Listener):
        def worked(self, work: str, done: int, total: int) -> None:
            told.append((work, done, total))

    kwargs = {"root": str(photos), "image_size": None, "channels": 3, "store_dir": str(tmp_path / "store")}
    load(**kwargs, listener=Told())  # type: ignore[arg-type]
    assert [done for work, done, _ in told if work == "reading 24 images"] == [*range(1, 24), 23, 24]
    assert {work for work, _, _ in told} >= {"reading 12 images", "checking images.npy"}
    told.clear()
    (photos / "train" / "day" / "00.png").write_text("no image")
    message_of(load, **kwargs, listener=Told())
    assert told[-1] == ("reading 24 images", 24, 24)


def test_what_was_decoded_is_read_again_until_a_file_changes(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_again() -> Source:
        store_dir = str(tmp_path / "prepared")
        return load(root=str(photos), image_size=None, channels=3, store_dir=store_dir, listener=NOBODY)

    first = load_again()
    with monkeypatch.context() as patch:
        patch.setattr("distill_run.data.image_folder.decode", lambda *_: pytest.fail("decoded again"))
        assert torch.equal(load_again().train.images, first.train.images)
    for kept in (tmp_path / "prepared").rglob("images.npy"):
        kept.write_bytes(kept.read_bytes()[:100])
    assert torch.equal(load_again().train.images, first.train.images)
    Image.new("RGB", (8, 8), (1, 2, 3)).save(photos / "train" / "day" / "00.png")
    assert load_again().train.images[0, :, 0, 0].tolist() == [1, 2, 3]


def test_a_split_without_images_is_refused(photos: Path) -> None:
    for path in (photos / "test").rglob("*.png"):
        path.unlink()
    assert message(photos) == f"{photos / 'test'} holds no image\n  put images into its class folders"
