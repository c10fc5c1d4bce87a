"""Images on disk: what is read, and that nothing is lost silently."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from PIL import Image

from distill_run.data.image_folder import load
from distill_run.data.source import Source
from helpers import message_of


def read(root: Path | None, image_size: int | None = None, channels: int = 3) -> Source:
    """What load gives, with nothing prepared before."""
    with TemporaryDirectory() as prepared:
        root_text = str(root) if root else None
        return load(root=root_text, image_size=image_size, channels=channels, store_dir=prepared)


def message(root: Path | None) -> str:
    return message_of(read, root)


def test_pixels_targets_and_classes_are_those_of_the_files(photos: Path) -> None:
    source = read(photos)
    assert source.classes == ("day", "night")
    assert source.val is None
    assert source.notes == ()
    assert source.train.images.shape == (24, 3, 8, 8)
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
    source = read(photos)
    assert source.notes == (
        "train: 2 files skipped, .txt is no image",
        "test: 1 file skipped, no extension is no image",
    )


def test_no_root_and_a_wrong_root_are_refused(tmp_path: Path) -> None:
    assert message(None) == ("dataset.root is not set\n  write dataset.root=DIR, where DIR holds train/ and test/")
    assert message(tmp_path / "nowhere").endswith("is not a folder\n  give the folder that holds train/ and test/")


def test_a_misspelt_split_is_named(photos: Path) -> None:
    (photos / "train").rename(photos / "trian")
    assert message(photos) == (
        f"dataset.root={photos} has no folder train (it has test, trian)\n  rename {photos / 'trian'} to train"
    )


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
    text = message_of(load, root=str(photos), image_size=None, channels=3, store_dir=store_dir)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    assert text.count("cannot be read: it is empty") == 5
    assert "and 7 more files that cannot be read" in text


def test_differing_sizes_are_refused_with_the_override_that_mends_it(photos: Path) -> None:
    Image.new("RGB", (10, 12)).save(photos / "train" / "day" / "large.png")
    assert message(photos) == (
        "the images have 2 sizes (height x width): 8x8 (24), 12x10 (1)\n"
        "  write dataset.source.image_size=8 to bring them to one"
    )


def test_what_was_decoded_is_read_again_until_a_file_changes(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_again() -> Source:
        return load(root=str(photos), image_size=None, channels=3, store_dir=str(tmp_path / "prepared"))

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
