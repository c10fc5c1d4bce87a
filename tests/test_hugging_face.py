"""Datasets of the package `datasets`: the real one, if it is installed, and a stand-in with the functions in use."""

import importlib
import pickle
import sys
from collections.abc import Callable
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np
import pytest
from PIL import Image

from distill_run.config.settings import compose_config
from distill_run.data.hugging_face import load
from distill_run.data.source import PhotoSource
from helpers import message_of, open_feed


class StandInImage:
    """The feature of a column of images."""

    def __init__(self, decode: bool = True) -> None:
        self.decode = decode


class StandInLabel:
    """The feature of a column of classes."""

    dtype = "int64"

    def __init__(self, names: list[str]) -> None:
        self.names = names


class StandInValue:
    """The feature of any other column."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype


class StandInDataset:
    """The columns of a split, in memory."""

    def __init__(self, columns: dict[str, list[Any]], features: dict[str, Any], path: Path | None = None) -> None:
        self.columns, self.features, self.path = columns, features, path

    @classmethod
    def from_dict(cls, columns: dict[str, list[Any]], features: dict[str, Any]) -> Self:
        return cls(columns, features)

    def save_to_disk(self, path: str) -> None:
        Path(path).write_bytes(pickle.dumps(self))

    @property
    def cache_files(self) -> list[dict[str, str]]:
        return [{"filename": str(self.path)}]

    def with_format(self, kind: None) -> Self:
        return self

    def select_columns(self, names: list[str]) -> "StandInDataset":
        return StandInDataset({name: self.columns[name] for name in names}, self.features, self.path)

    def cast_column(self, name: str, feature: Any) -> "StandInDataset":
        return StandInDataset(self.columns, {**self.features, name: feature}, self.path)

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, str):
            return self.columns[key]
        assert not any(getattr(feature, "decode", False) for feature in self.features.values())
        return {name: values[key] for name, values in self.columns.items()}


class StandInDict(dict[str, StandInDataset]):
    """Several splits."""

    def save_to_disk(self, path: str) -> None:
        Path(path).write_bytes(pickle.dumps(self))


def stand_in_load(path: str) -> StandInDataset | StandInDict:
    if not Path(path).is_file():
        raise FileNotFoundError(f"Directory {path} not found")
    found: StandInDataset | StandInDict = pickle.loads(Path(path).read_bytes())
    for rows in found.values() if isinstance(found, dict) else [found]:
        rows.path = Path(path)
    return found


@pytest.fixture(params=["stand-in", "real"])
def datasets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    if request.param == "real":
        if find_spec("datasets") is None:
            pytest.skip("datasets is not installed")
        return importlib.import_module("datasets")
    module: Any = ModuleType("datasets")
    module.Image, module.ClassLabel, module.Value = StandInImage, StandInLabel, StandInValue
    module.Features, module.Dataset, module.DatasetDict = dict, StandInDataset, StandInDict
    module.load_from_disk = stand_in_load
    monkeypatch.setitem(sys.modules, "datasets", module)
    return module


def encoded(value: int) -> bytes:
    file = BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


Make = Callable[..., Any]


@pytest.fixture
def make(datasets: Any) -> Make:
    """A split with images whose pixels count up from `first`, and a column `label` (or several) of a feature."""

    def call(first: int, feature: Any, **labels: list[Any]) -> Any:
        num = len(next(iter(labels.values())))
        images = [{"bytes": encoded(first + index), "path": None} for index in range(num)]
        features = datasets.Features({"img": datasets.Image(), **dict.fromkeys(labels, feature)})
        return datasets.Dataset.from_dict({"img": images, **labels}, features=features)

    return call


def read(root: Path | None, **columns: str) -> PhotoSource:
    chosen = {"image_column": None, "label_column": None, **columns}
    return load(root=str(root) if root else None, channels=3, **chosen)


def test_rows_are_photographs(datasets: Any, make: Make, tmp_path: Path) -> None:
    """Labels of the test split that nobody publishes are -1."""
    feature = datasets.ClassLabel(names=["cat", "dog"])
    splits = {"train": (0, [1, 0, 1]), "validation": (10, [0, 1]), "test": (20, [-1, -1]), "extra": (30, [0])}
    rows = {name: make(first, feature, label=labels) for name, (first, labels) in splits.items()}
    datasets.DatasetDict(rows).save_to_disk(str(tmp_path / "saved"))
    source = read(tmp_path / "saved")
    assert source.classes == ("cat", "dog")
    assert source.train.targets.tolist() == [1, 0, 1]
    assert [source.train.read(index) for index in range(3)] == [encoded(value) for value in range(3)]
    assert (source.train.name(2), source.train.place(2)) == ("train/2", f"{tmp_path / 'saved'}, train, row 2")
    assert source.val is not None
    assert source.val.read(1) == encoded(11)
    assert source.test is None
    assert source.notes == ("the split extra is not read", "test: 2 images skipped, without a label")


def test_a_single_dataset_is_divided(datasets: Any, make: Make, tmp_path: Path) -> None:
    """Texts are classes in alphabetical order; images may be the paths of their files."""
    rows = make(0, datasets.Value("string"), kind=["b", "a"] * 10)
    rows.save_to_disk(str(tmp_path / "saved"))
    settings = compose_config(["dataset=hugging_face", f"dataset.root={tmp_path / 'saved'}"]).dataset
    feed = open_feed(settings, tmp_path / "store", memory_gigabytes=0, workers=2)
    assert feed.classes == ("a", "b")
    assert [len(feed.train), len(feed.val), len(feed.test)] == [14, 2, 4]
    for index in range(len(feed.train)):
        row = int(feed.train.name(index).removeprefix("train/"))
        assert int(feed.train.image(index)[0, 0, 0]) == row
        assert int(feed.train.targets[index]) == (row + 1) % 2
    (chunk,) = feed.train.chunks(14)
    assert (chunk[:, 0, 0, 0] * 255).round().tolist() == [float(feed.train.image(i)[0, 0, 0]) for i in range(14)]


def test_an_image_may_be_a_path(datasets: Any, tmp_path: Path) -> None:
    if datasets.Dataset is not StandInDataset:
        pytest.skip("the real one stores what is in the file")
    paths = [tmp_path / name for name in ("a.png", "gone.png")]
    paths[0].write_bytes(encoded(7))
    features = datasets.Features({"img": datasets.Image(), "label": datasets.Value("int64")})
    images = [{"bytes": None, "path": str(path)} for path in paths]
    rows = datasets.Dataset.from_dict({"img": images, "label": [10, 9]}, features=features)
    rows.save_to_disk(str(tmp_path / "saved"))
    source = read(tmp_path / "saved")
    assert source.classes == ("9", "10")
    assert source.train.read(0) == encoded(7)
    with pytest.raises(FileNotFoundError):
        source.train.read(1)


def test_columns_are_chosen_where_there_are_several(datasets: Any, make: Make, tmp_path: Path) -> None:
    feature = datasets.ClassLabel(names=["a", "b", "c"])
    make(0, feature, fine=[0, 1, 2], coarse=[1, 1, 0]).save_to_disk(str(tmp_path / "saved"))
    assert message_of(read, tmp_path / "saved") == (
        "the dataset has several columns of labels: fine, coarse\n  choose one, as in dataset.source.label_column=fine"
    )
    assert read(tmp_path / "saved", label_column="coarse").train.targets.tolist() == [1, 1, 0]
    assert message_of(read, tmp_path / "saved", image_column="fine", label_column="coarse") == (
        "dataset.source.image_column=fine is no column of images\n  the columns of images are img"
    )


def test_what_is_no_saved_dataset_is_refused(datasets: Any, make: Make, tmp_path: Path) -> None:
    save = "\n  give a folder made by load_dataset(NAME).save_to_disk(DIR)"
    assert message_of(read, None) == f"dataset.root is not set{save}"
    told = message_of(read, tmp_path / "x")
    assert told == f"dataset.root={tmp_path / 'x'} is no saved dataset: Directory {tmp_path / 'x'} not found{save}"
    rows = make(0, datasets.ClassLabel(names=["a", "b"]), label=[0, 1])
    datasets.DatasetDict({"test": rows}).save_to_disk(str(tmp_path / "saved"))
    assert message_of(read, tmp_path / "saved") == (
        f"dataset.root={tmp_path / 'saved'} has no split train, it has test{save}"
    )


def test_labels_that_train_lacks_are_told(datasets: Any, make: Make, tmp_path: Path) -> None:
    text = datasets.Value("string")
    rows = {"train": make(0, text, label=["day", "night"]), "test": make(5, text, label=["nigth", "day", "nigth"])}
    datasets.DatasetDict(rows).save_to_disk(str(tmp_path / "saved"))
    assert message_of(read, tmp_path / "saved") == (
        f"{tmp_path / 'saved'}, test: nigth, the label of 2, is no class\n  did you mean night?"
    )


def test_without_the_package_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert message_of(read, tmp_path) == (
        "dataset=hugging_face needs datasets, which is not installed\n  write pip install 'distill-run[datasets]'"
    )
