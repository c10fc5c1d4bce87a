"""Image folders: what is listed, and that nothing is lost silently."""

import errno
import os
import subprocess
from pathlib import Path

import pytest
import torch

from distill_run.data.image_folder import load
from distill_run.data.photo_list import PhotoList
from distill_run.data.source import PhotoSource
from distill_run.listener import NOBODY
from helpers import message_of


def read(root: Path | None, channels: int = 3) -> PhotoSource:
    """What load gives."""
    return load(root=str(root) if root else None, channels=channels, listener=NOBODY)


def names(photos: PhotoList | None) -> list[str]:
    """What a split's photographs are called."""
    assert photos is not None
    return [photos.name(index) for index in range(len(photos))]


def message(root: Path | None) -> str:
    return message_of(read, root)


def test_names_targets_and_classes_are_those_of_the_files(photos: Path) -> None:
    source = read(photos)
    assert source.classes == ("day", "night")
    assert source.val is None
    assert source.notes == ()
    assert names(source.train) == [f"train/{name}/{index:02}.png" for name in ("day", "night") for index in range(12)]
    assert source.test is not None
    assert source.test.targets.tolist() == [0] * 6 + [1] * 6
    assert source.train.read(12 + 3) == (photos / "train" / "night" / "03.png").read_bytes()
    cut = source.train.select(torch.tensor([15, 0]))
    assert names(cut) == ["train/night/03.png", "train/day/00.png"]
    assert cut.targets.tolist() == [1, 0]


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


def test_files_that_are_no_images_are_counted(photos: Path) -> None:
    (photos / "train" / "day" / "notes.txt").write_text("sunny")
    (photos / "train" / "night" / "more.txt").write_text("dark")
    (photos / "test" / "day" / "README").write_text("")
    (photos / "test" / "day" / "00.png").rename(photos / "test" / "lost.png")
    source = read(photos)
    assert source.notes == (
        "train: 2 files skipped, .txt is not read as an image",
        "test: 1 file skipped, .png outside the class folders",
        "test: 1 file skipped, without an extension",
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
    (photos / "testing").rename(photos / "eval")
    assert message(photos).endswith(f"\n  rename {photos / 'eval'} to test")
    (photos / "train").rename(photos / "Train")
    assert message(photos).endswith(f"\n  rename {photos / 'Train'} to train")


def test_a_root_above_or_below_the_right_one_is_told(photos: Path) -> None:
    deep = photos / "train" / "day"
    assert message(deep) == (
        f"dataset.root={deep} has no folder train (it has none)\n"
        f"  give the folder that has a folder for each class, such as {photos / 'train'}"
    )
    above = photos.parent
    assert message(above) == (
        f"dataset.root={above} has no folder train (it has photos)\n"
        f"  give {photos} if it holds train or the classes; if it is a class, move it into {above / 'train'}"
    )
    assert message(deep / "00.png").startswith(f"dataset.root={deep / '00.png'} is not a folder\n")


def test_a_test_folder_alone_is_refused(photos: Path) -> None:
    (photos / "train").rename(photos.parent / "elsewhere")
    assert message(photos) == (
        f"dataset.root={photos} has no folder train (it has test)\n  make {photos / 'train'}/<class>/ with images"
    )


def test_folders_of_classes_alone_are_the_training_split(photos: Path) -> None:
    """Whose images are then divided; the classes are the folders, and nothing is said to be missing."""
    flat = read(photos / "train")
    assert flat.classes == ("day", "night")
    assert (flat.val, flat.test) == (None, None)
    assert flat.notes == (f"{photos / 'test'} is not read: dataset.root is {photos / 'train'}, not {photos}",)
    assert names(flat.train) == [name.removeprefix("train/") for name in names(read(photos).train)]


def test_a_train_folder_alone_brings_no_test_split(photos: Path) -> None:
    (photos / "test").rename(photos / "spare")
    source = read(photos)
    assert (source.val, source.test) == (None, None)
    assert len(source.train) == 24
    assert source.notes == (f"{photos / 'spare'} is not read as a split: it is none of train, val, test",)


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


def test_linked_folders_are_read_and_hidden_ones_are_counted(photos: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (photos / "train" / "day").rename(elsewhere)
    (photos / "train" / "day").mkdir()
    (photos / "train" / "day" / "more").symlink_to(elsewhere)
    (elsewhere / "loop").symlink_to(photos / "train" / "day")
    for hidden in (".ipynb_checkpoints", "night/.thumbnails"):
        (photos / "train" / hidden).mkdir()
        (photos / "train" / hidden / "00.png").write_bytes((elsewhere / "00.png").read_bytes())
    (photos / "train" / "night" / "._00.png").write_bytes(b"Mac OS X")
    source = read(photos)
    assert source.classes == ("day", "night")
    assert names(source.train)[:2] == ["train/day/more/00.png", "train/day/more/01.png"]
    assert len(source.train) == 24
    assert source.notes == (
        "train: 2 folders skipped, hidden",
        "train: 1 link skipped, to a folder above it, or to one that is read anyway",
        "train: 1 file skipped, hidden",
    )


def test_a_split_without_images_is_refused(photos: Path) -> None:
    for path in (photos / "test").rglob("*.png"):
        path.unlink()
    assert message(photos) == f"{photos / 'test'} holds no image\n  put images into its class folders"


def test_what_systems_and_people_leave_in_folders_is_counted(photos: Path) -> None:
    """Thumbnails and deleted images of network disks are no second copy, and no class."""
    train = photos / "train"
    for folder in (photos / "__MACOSX", train / "@eaDir", train / "day" / "#recycle", train / "night" / "lost+found"):
        folder.mkdir()
        (folder / "thumbnail.jpg").write_bytes(b"jpeg")
    (train / "day" / "batch").symlink_to("nowhere")
    (train / "day" / "self").symlink_to("self")
    (train / "day" / "lost.jpg").symlink_to("nowhere.jpg")
    (train / "day" / "07.png").rename(train / "day" / "07.PNG")
    os.mkfifo(train / "night" / "pipe.png")
    (photos / "labels.csv").write_text("")
    source = read(photos)
    assert source.classes == ("day", "night")
    assert "train/day/07.PNG" in names(source.train)
    assert "train/day/lost.jpg" in names(source.train)  # reading it says what is wrong, or skips it
    assert len(source.train) == 24 + 1
    assert sorted(source.notes) == [
        f"{photos}: 1 file skipped, .csv is not read as an image",
        f"{photos}: 1 folder skipped, __MACOSX of the system",
        "train: 1 device skipped, no regular file",
        "train: 1 folder skipped, #recycle of the system",
        "train: 1 folder skipped, @eaDir of the system",
        "train: 1 folder skipped, lost+found of the system",
        "train: 1 link skipped, batch leads nowhere",
        "train: 1 link skipped, self leads nowhere",
    ]


def test_a_folder_that_two_links_lead_to_is_read_once(photos: Path) -> None:
    (photos / "train" / "day" / "b").mkdir()
    (photos / "train" / "day" / "00.png").rename(photos / "train" / "day" / "b" / "00.png")
    (photos / "train" / "day" / "a").symlink_to("b")
    (photos / "train" / "day" / "all").symlink_to(photos)
    source = read(photos)
    assert [name for name in names(source.train) if name.endswith("day/00.png") or "/day/a/" in name] == []
    assert "train/day/b/00.png" in names(source.train)
    assert source.notes == ("train: 2 links skipped, to a folder above it, or to one that is read anyway",)


def test_a_folder_that_may_not_be_read_is_refused(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests may run as root, who may read everything: the system's answer is made up."""
    day, scandir = photos / "train" / "day", os.scandir

    def denied(folder: str | Path) -> object:
        if Path(folder) == day:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return scandir(folder)

    monkeypatch.setattr("os.scandir", denied)
    assert message(photos) == (
        f"{day} cannot be read: Permission denied\n  make it readable, as in chmod u+rx {day}; or move it away"
    )


def test_only_files_of_other_kinds_are_named(photos: Path) -> None:
    for path in (photos / "train" / "day").iterdir():
        path.rename(path.with_suffix(".HEIC"))
    assert message(photos).startswith(
        f"{photos / 'train' / 'day'} holds no image; there: 12 files skipped, .HEIC is not read as an image\n"
    )


@pytest.mark.parametrize(
    ("name", "shown", "typed", "meant"),
    [
        (b"caf\xe9 d'or", "caf\\xe9 d'or", "$'{}/caf\\xe9 d\\x27or'", "'{}/café d'\"'\"'or'"),
        (b"night\r", "night\\x0d", "$'{}/night\\x0d'", "{}/night"),
        (b"day\t", "day\\x09", "$'{}/day\\x09'", "{}/new_name"),
    ],
)
def test_a_class_whose_name_cannot_be_printed_is_refused(
    photos: Path, name: bytes, shown: str, typed: str, meant: str
) -> None:
    train = photos / "train"
    (train / "night").rename(train / os.fsdecode(name))
    told, _, remedy = message(photos).partition("\n  type ")
    assert told == f"{train / shown} is a class whose name is no text that can be printed"
    assert remedy == f"mv {typed.format(train)} {meant.format(train)}"
    subprocess.run(["bash", "-c", remedy], check=True)
    assert len(read(train).train) == 24


def test_names_of_files_that_are_not_utf_8_are_read_and_shown(photos: Path) -> None:
    day = photos / "train" / "day"
    (day / "00.png").rename(day / os.fsdecode(b"a\xe9\n.png"))
    train = read(photos).train
    index = names(train).index("train/day/a\\xe9\\x0a.png")
    assert train.place(index) == f"{day}/a\\xe9\\x0a.png"
    assert train.read(index) == (day / os.fsdecode(b"a\xe9\n.png")).read_bytes()


def test_the_same_class_in_two_forms_of_unicode(photos: Path) -> None:
    """macOS writes the accent of café as a letter of its own."""
    composed, apart = "caf\u00e9", "cafe\u0301"
    (photos / "train" / "day").rename(photos / "train" / composed)
    (photos / "test" / "day").rename(photos / "test" / apart)
    source = read(photos)
    assert source.classes == (composed, "night")
    assert source.test is not None
    assert source.test.targets.tolist() == [0] * 6 + [1] * 6
    (photos / "train" / apart).mkdir()
    told, _, remedy = message(photos).partition("\n  type ")
    assert told == (
        f"{photos / 'train'} has two folders {composed}, whose names differ in Unicode's forms of a letter alone"
    )
    assert remedy.startswith("mv -n $'")
