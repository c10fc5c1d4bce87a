"""A dataset that the package `datasets` of Hugging Face has saved on disk, read row by row; nothing is fetched."""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, final

from distill_run.data.labels import Labelled, label_source, order_classes
from distill_run.data.photo_list import Reader, change_of, read_file
from distill_run.data.source import PhotoSource
from distill_run.errors import first_line, user_error
from distill_run.rules import one_of
from distill_run.units import counted

ITS_SPLITS = {"train": ("train",), "val": ("validation", "val", "valid", "dev"), "test": ("test",)}
KEY = "dataset.source"


@final
class RowReader(Reader):
    """Reads the images in a column of a split, as they are stored; `place` says where the split lies."""

    def __init__(self, rows: Any, column: str, name: str, place: str) -> None:
        from datasets import Image  # of an extra, and it takes a second

        self.rows = rows.with_format(None).select_columns([column]).cast_column(column, Image(decode=False))
        self.column, self.split, self.where = column, name, place
        changes = (change_of(file["filename"]) for file in rows.cache_files)
        self.change = max(changes, key=itemgetter(-1), default=())  # that of the file that was changed last

    def read(self, item: int) -> bytes:
        """See Reader."""
        image = self.rows[item][self.column]
        if image is None:
            raise OSError("the row has no image")
        data: bytes | None = image["bytes"]
        return read_file(image["path"]) if data is None else data

    def name(self, item: int) -> str:
        """See Reader."""
        return f"{self.split}/{item}"

    def place(self, item: int) -> str:
        """See Reader."""
        return f"{self.where}, row {item}"

    def signature(self, item: int) -> tuple[object, ...]:
        """See Reader; size and times are those of the newest file of the split."""
        return self.place(item), *self.change


def load(*, root: str | None, image_column: str | None, label_column: str | None, channels: int) -> PhotoSource:
    """The photographs of a saved dataset, in 1 (grey) or 3 (colour) channels; they are not read yet.

    The classes are those that the column of labels has names for, or else its values in train. Rows without a label
    are counted in the notes. Raises UserError where a package, a split or a column is missing.
    """
    one_of(1, 3).check("channels", channels)
    splits, notes = _open(root)
    features = splits["train"].features
    image = _image_column(features, image_column)
    label = _label_column(features, label_column)
    parts = {}
    for name, rows in splits.items():
        place = f"{root}, {name}" if len(splits) > 1 else str(root)
        texts = _labels(rows, label)
        items = [item for item, text in enumerate(texts) if text is not None]
        if num := len(texts) - len(items):
            notes.append(f"{name}: {counted(num, 'image')} skipped, without a label")
        if items or name == "train":
            labels = [text for text in texts if text is not None]
            parts[name] = Labelled(RowReader(rows, image, name, place), items, labels, place)
    named = getattr(features[label], "names", None)
    return label_source(parts, tuple(named) if named else order_classes(parts["train"].labels), channels, notes)


def _open(root: str | None) -> tuple[dict[str, Any], list[str]]:
    """The splits that are there, by our names for them, and a note on each that is not read."""
    try:
        import datasets
    except ImportError as error:
        raise user_error(
            "dataset=hugging_face needs datasets, which is not installed", "write pip install 'distill-run[datasets]'"
        ) from error
    save = "give a folder made by load_dataset(NAME).save_to_disk(DIR)"
    if root is None:
        raise user_error("dataset.root is not set", save)
    try:
        found = datasets.load_from_disk(root)
    except Exception as error:  # of damaged files datasets raises anything, KeyError and TypeError among it
        raise user_error(f"dataset.root={root} is no saved dataset: {first_line(error)}", save) from error
    if not isinstance(found, datasets.DatasetDict):
        return {"train": found}, []
    chosen = {}
    for name, its_names in ITS_SPLITS.items():
        chosen[name] = next((its_name for its_name in its_names if its_name in found), "")
    if not chosen["train"]:
        raise user_error(f"dataset.root={root} has no split train, it has {', '.join(found)}", save)
    notes = [f"the split {its_name} is not read" for its_name in found if its_name not in chosen.values()]
    return {name: found[its_name] for name, its_name in chosen.items() if its_name}, notes


def _image_column(features: Mapping[str, Any], wanted: str | None) -> str:
    from datasets import Image

    found = [name for name, feature in features.items() if isinstance(feature, Image)]
    return _only("image_column", "images", wanted, found)


def _label_column(features: Mapping[str, Any], wanted: str | None) -> str:
    """The column of labels: of class labels, or else of whole numbers or texts."""
    from datasets import ClassLabel

    found = [name for name, feature in features.items() if isinstance(feature, ClassLabel)]
    kinds = ("int", "uint", "string", "large_string")
    plain = [name for name, feature in features.items() if str(getattr(feature, "dtype", "")).startswith(kinds)]
    if wanted in plain:
        return wanted
    return _only("label_column", "labels", wanted, found or plain)


def _only(key: str, what: str, wanted: str | None, found: Sequence[str]) -> str:
    """The wanted column, or the only one."""
    if wanted is not None and wanted not in found:
        raise user_error(
            f"{KEY}.{key}={wanted} is no column of {what}", f"the columns of {what} are {', '.join(found) or 'none'}"
        )
    if wanted is None and len(found) != 1:
        has = f"several columns of {what}: {', '.join(found)}" if found else f"no column of {what}"
        remedy = f"choose one, as in {KEY}.{key}={found[0]}" if found else "save a dataset of images with a label each"
        raise user_error(f"the dataset has {has}", remedy)
    return wanted or found[0]


def _labels(rows: Any, column: str) -> list[str | None]:
    """The label of each row; None where there is none, as a negative number means in a column of class labels."""
    values, names = list(rows[column][:]), getattr(rows.features[column], "names", None)
    if names:
        return [names[value] if value is not None and value >= 0 else None for value in values]
    return [None if value in (None, "") else str(value) for value in values]
