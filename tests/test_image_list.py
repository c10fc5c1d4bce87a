"""Labels in a file: which lines become which images, and every mistake with its line."""

from pathlib import Path

import pytest

from distill_run.config.settings import compose_config
from distill_run.data.image_list import load
from distill_run.data.photo_list import PhotoList
from distill_run.data.source import PhotoSource
from distill_run.listener import NOBODY
from helpers import message_of, open_feed


def read(root: Path | None, train: Path | str | None, val: str | None = None, test: str | None = None) -> PhotoSource:
    """What load gives."""
    folder = str(root) if root else None
    return load(root=folder, train=str(train) if train else None, val=val, test=test, channels=3, listener=NOBODY)


def message(root: Path, *lines: str, name: str = "train.csv") -> str:
    """What is told about a file of these lines in the folder of the images."""
    (root / name).write_text("\n".join(lines))
    return message_of(read, root, name)


def names(photos: PhotoList | None) -> list[str]:
    assert photos is not None
    return [photos.name(index) for index in range(len(photos))]


def test_lines_become_images_in_their_order(photos: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.png"
    (photos / "test" / "day" / "05.png").rename(elsewhere)
    lines = ["path,label", "train/night/03.png,dark", f"{elsewhere},bright", '"train/day/01.png" , "bright"', ""]
    (photos / "train.csv").write_text("\n".join(lines))
    source = read(photos, "train.csv")
    assert source.classes == ("bright", "dark")
    assert (source.val, source.test) == (None, None)
    assert source.train.targets.tolist() == [1, 0, 0]
    assert source.train.place(0) == str(photos / "train" / "night" / "03.png")
    assert source.train.read(1) == elsewhere.read_bytes()


@pytest.mark.parametrize(("separator", "encoding"), [(",", "utf-8"), (";", "utf-8-sig"), ("\t", "utf-8-sig")])
def test_one_file_may_list_all_splits(photos: Path, tmp_path: Path, separator: str, encoding: str) -> None:
    """Columns may stand in any order, with others between them."""
    rows = [
        ("Label", "width", "Path", "split"),
        ("évening", "8", "train/day/00.png", "test"),
        ("évening", "8", "train/day/01.png", "train"),
        ("night", "8", "train/night/00.png", "val"),
        ("night", "8", "train/night/01.png", "train"),
    ]
    path = tmp_path / "all.txt"
    path.write_text("\r\n".join(separator.join(row) for row in rows), encoding=encoding)
    source = read(photos, path)
    assert source.classes == ("night", "évening")
    assert [names(split) for split in (source.train, source.val, source.test)] == [
        ["train/day/01.png", "train/night/01.png"], ["train/night/00.png"], ["train/day/00.png"],
    ]  # fmt: skip
    assert source.train.targets.tolist() == [1, 0]


def test_whole_numbers_are_classes_in_numerical_order(photos: Path) -> None:
    labels = ["10", "9", "-1", "9"]
    lines = [f"train/day/{index:02}.png,{label}" for index, label in enumerate(labels)]
    (photos / "train.csv").write_text("\n".join(["path,label", *lines]))
    source = read(photos, "train.csv")
    assert source.classes == ("-1", "9", "10")
    assert source.train.targets.tolist() == [2, 1, 0, 1]


def test_a_file_for_each_split(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in the working folder comes before one of the same name in dataset.root."""
    monkeypatch.chdir(tmp_path)
    for folder, index in ((photos, 1), (tmp_path, 2)):
        lines = [f"train/{name}/{index:02}.png,{name}" for name in ("day", "night")]
        (folder / "train.csv").write_text("\n".join(["path,label", *lines]))
    (photos / "test.csv").write_text("path,label\ntest/night/00.png,night\n")
    source = read(photos, "train.csv", test="test.csv")
    assert names(source.train) == ["train/day/02.png", "train/night/02.png"]
    assert (source.val, names(source.test)) == (None, ["test/night/00.png"])
    (photos / "test.csv").write_text("path,label,split\ntest/night/00.png,night,train\n")
    assert message_of(read, photos, "train.csv", None, "test.csv") == (
        "test.csv has a column split, but there is more than one file\n"
        "  give one file for all splits, as dataset.train=test.csv; or remove that column"
    )


@pytest.mark.parametrize(
    "spelling",
    ["train\\day\\caf\u00e9 1.png", "~/photos/train/day/caf\u00e9 1.png", "file://{}/train/day/caf%C3%A9%201.png"],
)
def test_paths_as_other_systems_write_them(photos: Path, spelling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file whose name macOS has taken apart; what no system writes is still told."""
    monkeypatch.setenv("HOME", str(photos.parent))
    there = photos / "train" / "day" / "cafe\u0301 1.png"
    (photos / "train" / "day" / "01.png").rename(there)
    lines = [
        "path,label",
        f"{spelling.format(photos)},caf\u00e9",
        "train/night/01.png,cafe\u0301",
        "train/night/02.png,b",
    ]
    (photos / "train.csv").write_text("\n".join(lines), encoding="utf-8")
    train = read(photos, "train.csv").train
    assert train.targets.tolist() == [1, 1, 0]
    assert train.read(0) == there.read_bytes()
    assert "there is no file" in message(photos, "path,label", "C:\\photos\\01.png,x", "train/night/01.png,y")


def test_mistakes_are_told_all_at_once_with_their_lines(photos: Path) -> None:
    text = message(
        photos,
        "path,label,split",
        "train/day/00.png,day,train",
        "train/night/00.png,night,train",
        "train/day/01.png,,train",
        "train/day/02.png,day",
        ",day,train",
        "train/x.jpg,day,train",
        "train/day/03.png,day,trian",
        "train/day/04.png,nigth,test",
        "train/day/00.png,night,test",
    )
    told = [
        ("4: the label is empty", "add it, or remove the line"),
        ("5: the split is empty", "write one of train, val, test"),
        ("6: the path is empty", "add it, or remove the line"),
        (f"7: there is no file {photos}/train/x.jpg", "correct the path, or remove the line"),
        ("8: the split is trian", "write one of train, val, test"),
    ]
    lines = [f"train.csv, line {what}\n  {remedy}\n" for what, remedy in told]
    assert text == "".join(lines) + "and 2 more mistakes in the files\n  mend the lines, or remove them"


def test_labels_that_contradict_or_that_train_lacks(photos: Path) -> None:
    start = ["path,label,split", "train/day/00.png,day,train", "train/night/00.png,night,train", ""]
    text = message(photos, *start, "train/day/04.png,nigth,test", "train/../train/day/00.png,night,test")
    assert text == (
        "train.csv, line 5: nigth is a label that train does not have\n  did you mean night?\n"
        "train.csv, line 6: train/../train/day/00.png has the label night, but in train.csv, line 2 day\n"
        "  keep one of them"
    )
    assert message(photos, *start, "train/day/04.png,x,val").endswith("\n  train has day, night")


def test_files_of_another_form_are_refused(photos: Path) -> None:
    columns = "name the columns in the first line: path,label; or path,label,split to list all splits in one file"
    assert message(photos, "file,class", "a,b") == (
        f"train.csv has no column path and no column label, it has file, class\n  {columns}"
    )
    assert message(photos, "") == f"train.csv has no column path and no column label, it has none\n  {columns}"
    assert message(photos, "path,label", "") == (
        "train.csv lists no image\n  add a line for each image, or leave dataset.train out"
    )
    assert message(photos, "path,label,split", "train/day/00.png,day,val") == (
        "train.csv lists no image of train\n  write train into the column split"
    )
    assert message(photos, "path,label", "train/day/00.png,day") == (
        "train.csv has images of one class, day\n  give images of two classes at least"
    )
    (photos / "latin.csv").write_bytes("path,label\ntrain/day/00.png,événing\n".encode("latin-1"))
    told = message_of(read, photos, "latin.csv")
    assert told.startswith("latin.csv cannot be read: 'utf-8' codec can't decode byte 0xe9")
    assert told.endswith("\n  save it as text in UTF-8")


def test_places_that_are_not_given_or_not_there(photos: Path) -> None:
    remedy = "write dataset.root=DIR dataset.train=FILE, where FILE has path and label of each image in DIR"
    assert message_of(read, None, "train.csv") == f"dataset.root is not set\n  {remedy}"
    assert message_of(read, photos, None) == f"dataset.train is not set\n  {remedy}"
    assert message_of(read, photos / "x", "train.csv") == (
        f"dataset.root={photos / 'x'} is not a folder\n  give the folder that the paths in the files begin at"
    )
    assert message_of(read, photos, "x.csv", "y.csv") == "\n".join(
        f"dataset.{key}: there is no such file, neither here nor in {photos}\n  correct its name"
        for key in ("train=x.csv", "val=y.csv")
    )


def test_a_list_is_served_as_the_same_folder_is(photos: Path, tmp_path: Path) -> None:
    lines = [f"{path.relative_to(photos)},{path.parent.name}" for path in sorted((photos / "train").rglob("*.png"))]
    (photos / "train.csv").write_text("\n".join(["path,label", *lines]))
    listed = compose_config(["dataset=image_list", f"dataset.root={photos}", "dataset.train=train.csv"]).dataset
    folders = compose_config(["dataset=image_folder", f"dataset.root={photos / 'train'}"]).dataset
    first, second = (open_feed(settings, tmp_path / "store") for settings in (listed, folders))
    assert first.content == second.content
    assert first.train.name(0) == f"train/{second.train.name(0)}"
