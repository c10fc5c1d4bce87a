"""Damage and full disks: a flipped bit is found or changes nothing; a full disk leaves the last good state."""

import errno
import io
import itertools
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import TINY, without_pages
from distill_run import tensor_files
from distill_run.config.settings import compose_config
from distill_run.errors import UserError
from distill_run.files import RunFiles, write_text
from distill_run.pipeline import run
from distill_run.record.status import read_status
from distill_run.report.run_report import RunReport
from distill_run.store_records import META, NOT_A_RECORD, damage, damaged_parts, read_meta, read_uses

PLAIN = [*TINY, "teacher.widths=[2]", "training.teacher.epochs=1", "training.student.epochs=1"]


def flipped(path: Path, bit: int) -> None:
    """Change one bit of a file, the size and the name stay."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def some_bits(path: Path, count: int, seed: int) -> list[int]:
    """Bits of a file: the first and the last 8, where formats have their names and sizes, and random ones between."""
    num = 8 * path.stat().st_size
    drawn = np.random.default_rng(seed).integers(0, num, count).tolist()
    return sorted({*range(min(8, num)), *range(max(num - 8, 0), num), *drawn})


def is_equal(one: Any, other: Any) -> bool:
    """Whether two contents of checkpoints are the same, tensors to the bit."""
    if isinstance(one, torch.Tensor):
        same_form = isinstance(other, torch.Tensor) and (one.dtype, one.shape) == (other.dtype, other.shape)
        return same_form and one.numpy().tobytes() == other.numpy().tobytes()
    if isinstance(one, dict):
        return (
            isinstance(other, dict) and list(one) == list(other) and all(is_equal(one[key], other[key]) for key in one)
        )
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(is_equal, one, other))
    return type(one) is type(other) and bool(one == other)


def check_store(store: Path, count: int) -> int:
    """Flip bits of every file of a store, one at a time; returns how many. Each is found, or changes no content."""
    num = 0
    for number, path in enumerate(sorted(path for path in store.rglob("*") if path.is_file())):
        if path.parent.name == ".locks":
            continue
        before = path.read_bytes()
        uses = read_uses(path) if path.parent.name == ".runs" else None
        meta = read_meta(path.parent) if path.name == META else None
        for bit in some_bits(path, count, number):
            flipped(path, bit)
            num += 1
            if uses is not None:
                assert uses_of(path) in (None, uses), bit
            elif damage(path.parent) is None and not damaged_parts(path.parent):
                assert meta is not None, (path, bit)
                assert read_meta(path.parent) == meta, (path, bit)
            path.write_bytes(before)
    return num


def uses_of(path: Path) -> dict[str, Any] | None:
    """The record of a run's entries; None where it is damaged."""
    try:
        return read_uses(path)
    except NOT_A_RECORD:
        return None


def check_checkpoint(path: Path, count: int, seed: int) -> int:
    """The same for a checkpoint: it is refused, or has the same content."""
    before, content = path.read_bytes(), tensor_files.load(path)
    bits = some_bits(path, count, seed)
    for bit in bits:
        flipped(path, bit)
        try:
            assert is_equal(tensor_files.load(path), content), (path, bit)
        except UserError as error:
            (_,) = error.mistakes
    path.write_bytes(before)
    return len(bits)


@pytest.fixture
def copied(tiny_report: RunReport, tmp_path: Path) -> Path:
    """The folder of a run and its store, which a test may damage."""
    shutil.copytree(tiny_report.run_dir.parent, tmp_path / "tiny")
    return tmp_path / "tiny"


def checkpoints(folder: Path) -> Iterator[Path]:
    files = RunFiles(folder / "run")
    yield from (files.last, files.student, *sorted((folder / "store").rglob("weights.pt")))


def test_a_flipped_bit_of_the_store_is_found_or_changes_nothing(copied: Path) -> None:
    assert check_store(copied / "store", 30) > 500


def test_a_flipped_bit_of_a_checkpoint_is_refused_or_changes_nothing(copied: Path) -> None:
    assert sum(check_checkpoint(path, 60, seed) for seed, path in enumerate(checkpoints(copied))) > 200


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_flipped_bits(copied: Path) -> None:
    """The same at many more places; takes minutes."""
    assert check_store(copied / "store", 1000) > 10_000
    assert sum(check_checkpoint(path, 3000, seed) for seed, path in enumerate(checkpoints(copied))) > 10_000


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("attribute", "one of its parts is a folder"),
        ("compressed", "its parts are compressed, which could fill the memory"),
    ],
)
def test_what_torch_would_not_find(tmp_path: Path, change: str, reason: str) -> None:
    """The attribute of a folder makes torch leave a tensor as the memory was; compressed parts are a bomb."""
    path = tmp_path / "x.pt"
    tensor_files.save(path, {"a": torch.arange(100.0)})
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02", 0, content.index(b"archive/data/0", content.index(b"PK\x01\x02")))
    content[entry + (38 if change == "attribute" else 10)] |= 0x10 if change == "attribute" else 8
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        tensor_files.load(path)
    assert caught.value.mistakes[0].what == f"{path} is not a readable checkpoint: {reason}"


def test_a_tensor_with_a_flipped_bit_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    tensor_files.save(path, {"a": torch.full((100,), 2.0)})
    flipped(path, 8 * path.read_bytes().index(np.full(100, 2, np.float32).tobytes()))
    assert torch.load(path, weights_only=True)["a"][0] != 2  # torch itself does not look
    with pytest.raises(UserError) as caught:
        tensor_files.load(path)
    assert caught.value.mistakes == [
        (f"{path} is not a readable checkpoint: its part archive/data/0 has changed since it was written",
         "copy it again; if it is in the store, remove its folder, and it will be made again"),
    ]  # fmt: skip


def test_entries_of_earlier_versions_are_read(copied: Path) -> None:
    """They have no hash of meta.json itself, and no seal in the record of a run."""
    for path in (copied / "store").glob("*/*/meta.json"):
        meta = json.loads(path.read_text(encoding="utf-8"))
        del meta["files"][META]
        path.write_text(json.dumps(meta), encoding="utf-8")
        assert damage(path.parent) is None
    record = next((copied / "store" / ".runs").iterdir())  # other tests may have left theirs
    uses = json.loads(record.read_text(encoding="utf-8"))
    del uses["sha256"]
    record.write_text(json.dumps(uses), encoding="utf-8")
    assert read_uses(record) == uses


@pytest.mark.parametrize("content", [b"", bytes(25)])
def test_a_status_that_a_loss_of_power_emptied_is_none(content: bytes, tmp_path: Path) -> None:
    RunFiles(tmp_path).status.write_bytes(content)
    assert read_status(tmp_path) is None


def test_a_loss_of_power_finds_the_old_file_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes are on the disk before the name stands for them."""
    done: list[str] = []
    replace = os.replace

    def replacing(*paths: Path) -> None:
        done.append("rename")
        replace(*paths)

    monkeypatch.setattr(os, "fsync", lambda _: done.append("sync"))
    monkeypatch.setattr(os, "replace", replacing)
    write_text(tmp_path / "status.json", "{}")
    assert done == ["sync", "rename"]
    assert (tmp_path / "status.json").read_text() == "{}"


class FullDisk:
    """Lets so many operations on files succeed; the next one fails as on a full disk, and so do all after it."""

    def __init__(self, num_allowed: int, folder: Path) -> None:
        self.left = num_allowed
        self.folder = str(folder)

    def spend(self, path: Any) -> None:
        """Count an operation on a file of the folder."""
        if str(path).startswith(self.folder):
            self.left -= 1
            if self.left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def full_after(num_allowed: int, folder: Path) -> Iterator[FullDisk]:
    """Within the block, opening, writing, renaming and syncing files of a folder fails after so many operations."""
    disk, plain_open, sync = FullDisk(num_allowed, folder), io.open, os.fsync

    def opening(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if not set(mode) & set("wax+"):
            return plain_open(file, mode, *arguments, **named)
        disk.spend(file)
        opened = plain_open(file, mode, *arguments, **named)
        write = opened.write

        def writing(content: Any) -> int:
            disk.spend(file)
            return int(write(content))

        opened.write = writing  # type: ignore[method-assign]
        return opened

    def counted(act: Callable[..., Any]) -> Callable[..., Any]:
        def counting(path: Any, *arguments: Any, **named: Any) -> Any:
            disk.spend(path)
            return act(path, *arguments, **named)

        return counting

    def syncing(descriptor: int) -> None:
        disk.spend(Path(f"/proc/self/fd/{descriptor}").readlink())
        sync(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pathlib.io, "open", opening)  # type: ignore[attr-defined]
        for name in ("mkdir", "rename", "replace"):
            patch.setattr(os, name, counted(getattr(os, name)))
        patch.setattr(os, "fsync", syncing)
        yield disk


def leftovers(folder: Path) -> list[Path]:
    """What is half written."""
    return [path for path in folder.rglob("*") if path.name.endswith(".tmp") or path.name.startswith(".export-")]


def check_full_disk(num_allowed: int, folder: Path, wanted: bytes) -> bool:
    """A run on a disk that is full after so many operations is told in two lines, and goes on; whether it was full."""
    run_dir, settings = folder / "run", [*PLAIN, f"store_dir={folder / 'store'}"]
    was_full = False
    try:
        with full_after(num_allowed, folder):
            run(compose_config(settings), run_dir)
    except UserError as error:
        was_full = True
        (mistake,) = error.mistakes
        assert "No space left on device" in mistake.what, mistake
        assert mistake.remedy.startswith("make room, as distill-store gc does, or choose another folder"), mistake
    assert leftovers(folder) == []
    if was_full:
        files = RunFiles(run_dir)
        is_begun = files.last.is_file() or files.student.is_file()
        going_on = [*settings, f"resume={run_dir}"] if is_begun else settings
        run(compose_config(going_on), run_dir)
    weights = tensor_files.load(RunFiles(run_dir).student)["weights"]
    assert b"".join(tensor.numpy().tobytes() for tensor in weights.values()) == wanted
    return was_full


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of the student of an undisturbed run."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with without_pages():
        report = run(compose_config([*PLAIN, f"store_dir={folder / 'store'}"]), folder / "run")
    weights = tensor_files.load(RunFiles(report.run_dir).student)["weights"]
    return b"".join(tensor.numpy().tobytes() for tensor in weights.values())


@pytest.mark.parametrize("num_allowed", [60, 150])
def test_a_full_disk_leaves_the_last_good_state(num_allowed: int, tmp_path: Path, wanted: bytes) -> None:
    assert check_full_disk(num_allowed, tmp_path, wanted)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_disk_that_is_full_at_any_write(tmp_path: Path, wanted: bytes) -> None:
    """At every operation of a run; takes many minutes."""
    for num_allowed in itertools.count():
        folder = tmp_path / str(num_allowed)
        folder.mkdir()
        if not check_full_disk(num_allowed, folder, wanted):
            break
        shutil.rmtree(folder)
    assert num_allowed > 100
