"""Tar shards: which members become images, what is counted, and reading from the middle of a file."""

import io
import json
import random
import subprocess
import tarfile
from pathlib import Path

import pytest
import torch

from distill_run.config.settings import compose_config
from distill_run.data.source import PhotoSource
from distill_run.data.tar_shards import load
from distill_run.errors import UserError
from distill_run.listener import NOBODY, Listener
from helpers import message_of, open_feed


def write(path: Path, members: dict[str, bytes | str]) -> None:
    """A tar file; texts are written in UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def read(root: Path | None, listener: Listener = NOBODY) -> PhotoSource:
    return load(root=str(root) if root else None, channels=3, listener=listener)


def test_samples_are_an_image_and_a_label_of_one_name(tmp_path: Path) -> None:
    write(
        tmp_path / "1.tar", {"b/7.cls": "10\n", "b/7.JPEG": b"seven", "./8.png": b"eight", "./8.json": '{"label": 9}'}
    )
    write(tmp_path / "0.tar", {"9.webp": b"nine" * 999, "9.json": '{"label": "-1", "text": "x"}', "9.seg.png": b"mask"})
    source = read(tmp_path)
    assert source.classes == ("-1", "9", "10")
    assert (source.val, source.test) == (None, None)
    train = source.train
    assert [train.name(index) for index in range(3)] == ["9.webp", "b/7.JPEG", "./8.png"]
    assert train.targets.tolist() == [0, 2, 1]
    assert [train.read(index) for index in range(3)] == [b"nine" * 999, b"seven", b"eight"]
    assert train.place(1) == f"{tmp_path / '1.tar'}: b/7.JPEG"
    assert train.select(torch.tensor([2])).read(0) == b"eight"
    assert source.notes == ("train: 1 file skipped, .seg.png is not read as an image",)


def test_whole_numbers_count_the_lines_of_classes_txt(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("night\nday\n")
    write(tmp_path / "train" / "0.tar", {"0.png": b"a", "0.cls": "1", "1.png": b"b", "1.cls": "night"})
    write(tmp_path / "test" / "0.tar", {"0.png": b"c", "0.cls": "0"})
    source = read(tmp_path)
    assert source.classes == ("night", "day")
    assert source.train.targets.tolist() == [1, 0]
    assert source.test is not None
    assert source.test.targets.tolist() == [0]
    write(tmp_path / "test" / "1.tar", {"0.png": b"c", "0.cls": "2", "1.png": b"d", "1.cls": "dya"})
    assert message_of(read, tmp_path) == (
        f"{tmp_path / 'test'}: 2, the label of 1, is no class\n  train has night, day\n"
        f"{tmp_path / 'test'}: dya, the label of 1, is no class\n  did you mean day?"
    )


def test_two_classes_may_have_one_name(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("crane\ntabby\n\ncrane\n")
    write(tmp_path / "0.tar", {f"{label}.png": b"a" for label in "012"} | {f"{label}.cls": label for label in "012"})
    source = read(tmp_path)
    assert source.classes == ("crane (0)", "tabby", "crane (2)")
    assert source.train.targets.tolist() == [0, 1, 2]


def test_what_is_no_image_with_a_label_is_counted(tmp_path: Path) -> None:
    shard: dict[str, bytes | str] = {
        "a.png": b"a",
        "a.cls": "x",
        "b.png": b"b",
        "b.cls": "y",
        "c.png": b"c",
        "d.cls": "x",
        "._a.png": b"Mac",
    }
    shard |= {"e.png": b"e", "e.json": "{", "f.png": b"f", "f.json": '{"label": null}', "g.png": b"g", "g.json": "[1]"}
    write(tmp_path / "0.tar", shard)
    source = read(tmp_path)
    assert len(source.train) == 2
    assert source.notes == (
        "train: 1 file skipped, hidden",
        "train: 4 files skipped, without a label",
        "train: 1 file skipped, a label without an image",
    )


def test_compressed_damaged_and_absent_tar_files_are_told(tmp_path: Path) -> None:
    holds = "holds tar files, or train/ and, if they are there, val/ and test/ with tar files"
    assert message_of(read, None) == f"dataset.root is not set\n  write dataset.root=DIR, where DIR {holds}"
    told = message_of(read, tmp_path / "x")
    assert told == f"dataset.root={tmp_path / 'x'} is not a folder\n  give the folder that {holds}"
    assert message_of(read, tmp_path) == f"{tmp_path} holds no tar file\n  give the folder that {holds}"
    write(tmp_path / "0.tar", {"a.png": b"a" * 2000, "a.cls": "x"})
    whole = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "0.tar").write_bytes(whole[:1500])
    assert message_of(read, tmp_path) == (
        f"{tmp_path / '0.tar'} cannot be read: unexpected end of data\n  write the tar file again"
    )
    (tmp_path / "0.tar").write_bytes(whole)
    assert message_of(read, tmp_path) == f"{tmp_path} has images of one class, x\n  give images of two classes at least"
    write(tmp_path / "1.tar", {"b.png": b"b", "b.cls": "y"})
    subprocess.run(["gzip", tmp_path / "1.tar"], check=True)
    told = message_of(read, tmp_path)
    assert told.startswith(f"{tmp_path / '1.tar.gz'} is compressed: its images cannot be read one by one\n  type ")
    subprocess.run(told.rpartition("  type ")[2].split(), check=True)
    assert read(tmp_path).classes == ("x", "y")


def test_indexing_tells_how_far_it_is(tmp_path: Path) -> None:
    class Told(Listener):
        def __init__(self) -> None:
            self.shares: list[tuple[int, int]] = []

        def worked(self, work: str, done: int, total: int) -> None:
            assert work == f"indexing the tar files of {tmp_path}"
            self.shares.append((done, total))

    for index in range(3):
        write(tmp_path / f"{index}.tar", {"a.png": b"a", "a.cls": str(index)})
    told = Told()
    read(tmp_path, told)
    assert told.shares == [(1, 3), (2, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_are_served_as_the_same_folder_is(photos: Path, tmp_path: Path, workers: int) -> None:
    """Half of the images are in either of two shards, whose files the workers open themselves."""
    files = sorted((photos / "train").rglob("*.png"))
    for index in range(2):
        members: dict[str, bytes | str] = {}
        for path in files[12 * index : 12 * index + 12]:
            name = str(path.relative_to(photos / "train").with_suffix(""))
            members |= {f"{name}.png": path.read_bytes(), f"{name}.json": json.dumps({"label": path.parent.name})}
        write(tmp_path / "shards" / f"{index}.tar", members)
    roots = {"tar_shards": tmp_path / "shards", "image_folder": photos / "train"}
    first, second = (
        open_feed(
            compose_config([f"dataset={name}", f"dataset.root={root}"]).dataset,
            tmp_path / "store",
            memory_gigabytes=0,
            workers=workers,
        )
        for name, root in roots.items()
    )
    assert first.content == second.content
    for ours, theirs in ((first.train, second.train), (first.test, second.test)):
        assert [ours.name(index) for index in range(len(ours))] == [theirs.name(index) for index in range(len(theirs))]
        assert torch.equal(torch.cat(list(ours.chunks(5))), torch.cat(list(theirs.chunks(5))))


def test_hostile_names_and_links_read_nothing_outside(tmp_path: Path) -> None:
    """Nothing is unpacked: names are names alone, and links are counted."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "0.tar", "w") as tar:
        for name, label in (("../../secret", "x"), (str(tmp_path / "secret"), "y")):
            for extension, data in (("png", b"own"), ("cls", label.encode())):
                member = tarfile.TarInfo(f"{name}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        for name, kind in (("a.png", tarfile.SYMTYPE), ("b.png", tarfile.LNKTYPE), ("c.png", tarfile.CHRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(secret)
            tar.addfile(member)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    source = read(tmp_path / "shards")
    assert [source.train.read(index) for index in range(len(source.train))] == [b"own", b"own"]
    assert source.notes == (
        "train: 2 links skipped, in a tar file",
        "train: 1 device skipped, in a tar file",
    )
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"a.png": b"a", "a.cls": b"caf\xe9"}, "cannot be read: 'utf-8' codec can't decode byte 0xe9"),
        ({"a.png": b"a", "a.json": '{"label": "\\ud800"}', "b.png": b"b", "b.cls": "y"}, "no text that can be printed"),
        ({"a.png": b"a", "a.json": "[" * 100_000}, "has no image with a label"),
        ({"a.png": b"a", "a.cls": "9" * 5000}, "has images of one class"),
    ],
)
def test_labels_that_are_no_names_are_told(tmp_path: Path, members: dict[str, bytes | str], words: str) -> None:
    write(tmp_path / "0.tar", members)
    assert words in message_of(read, tmp_path)
    (tmp_path / "classes.txt").write_bytes(b"caf\xe9")
    assert message_of(read, tmp_path).endswith("\n  save it as text in UTF-8")


def test_damaged_tar_files_are_read_or_told(tmp_path: Path) -> None:
    """Whatever byte is wrong: nothing but a UserError, and no label is ever larger than its file."""
    write(tmp_path / "0.tar", {"a.png": b"a", "a.cls": "x", "b.png": b"b", "b.json": '{"label": "y"}'})
    whole, generator, num_told = (tmp_path / "0.tar").read_bytes(), random.Random(0), 0
    for _ in range(300):
        place = generator.randrange(4 * 1024)
        (tmp_path / "0.tar").write_bytes(whole[:place] + generator.randbytes(8) + whole[place + 8 :])
        try:
            read(tmp_path)
        except UserError:
            num_told += 1
    assert num_told > 20
