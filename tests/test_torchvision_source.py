"""Benchmarks that torchvision serves: their layouts become ours, and being offline is told in two lines."""

import gzip
import pickle
import struct
from http.client import IncompleteRead
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision import datasets

from distill_run.data.torchvision_source import load
from helpers import message_of


def write_cifar10(root: Path) -> np.ndarray:
    """CIFAR-10's own files, with two images each."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3072), dtype=np.uint8)
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": [3, 5]}))
    names = [f"class {index}" for index in range(10)]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    return pixels


def test_cifar10_becomes_channels_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = write_cifar10(tmp_path)
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda _: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    source = load(dataset="CIFAR10", root=str(tmp_path), download=False)
    assert source.classes[3] == "class 3"
    assert source.val is None
    assert source.test is not None
    assert (len(source.train), len(source.test)) == (10, 2)
    assert torch.equal(source.test.images, torch.from_numpy(pixels.reshape(2, 3, 32, 32)))
    assert source.test.targets.tolist() == [3, 5]


@pytest.mark.parametrize("dataset", ["MNIST", "FashionMNIST"])
def test_mnist_gains_a_channel(dataset: str, tmp_path: Path) -> None:
    folder = tmp_path / dataset / "raw"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    for split in ("train", "t10k"):
        images = struct.pack(">IIII", 0x803, 4, 28, 28) + pixels.tobytes()
        targets = struct.pack(">II", 0x801, 4) + bytes([7, 0, 1, 9])
        for name, content in ((f"{split}-images-idx3-ubyte", images), (f"{split}-labels-idx1-ubyte", targets)):
            (folder / name).write_bytes(content)
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    source = load(dataset=dataset, root=str(tmp_path), download=False)
    assert torch.equal(source.train.images, torch.from_numpy(pixels).unsqueeze(1))
    assert source.train.targets.tolist() == [7, 0, 1, 9]
    assert len(source.classes) == 10


@pytest.mark.parametrize("damage", ["short", "empty", "page", "too few labels"])
def test_damaged_files_are_told_with_what_to_remove(damage: str, tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    images = struct.pack(">IIII", 0x803, 4, 28, 28) + bytes(4 * 28 * 28)
    damaged = {"short": images[:500], "empty": b"", "page": b"<html>503</html>" * 90}.get(damage, images)
    targets = struct.pack(">II", 0x801, 3) + bytes(3) if damage == "too few labels" else None
    for split in ("train", "t10k"):
        (folder / f"{split}-images-idx3-ubyte").write_bytes(damaged)
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(targets or struct.pack(">II", 0x801, 4) + bytes(4))
    what, remedy = message_of(load, dataset="MNIST", root=str(tmp_path), download=False).split("\n")
    assert what.startswith(f"MNIST in {folder} is damaged, or not whole: ")
    assert remedy == f"  remove {folder}, and let it be fetched again; or copy torchvision's files there again"


def test_svhn_keeps_its_layout(tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io", reason="torchvision reads SVHN with SciPy")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 2), dtype=np.uint8)
    for split in ("train", "test"):
        scipy_io.savemat(tmp_path / f"{split}_32x32.mat", {"X": pixels, "y": np.array([[10], [4]])})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.SVHN, "_check_integrity", lambda _: True)
        source = load(dataset="SVHN", root=str(tmp_path), download=False)
    assert torch.equal(source.train.images, torch.from_numpy(pixels.transpose(3, 2, 0, 1).copy()))
    assert source.train.targets.tolist() == [0, 4]
    assert source.classes == tuple("0123456789")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (URLError("no route"), "<urlopen error no route>"),
        (IncompleteRead(b"", 9), "IncompleteRead(0 bytes read, 9 more expected)"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_being_offline_and_an_unknown_dataset_are_told_in_two_lines(
    error: Exception, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object) -> None:
        raise error

    monkeypatch.setattr(datasets.CIFAR10, "download", fail)
    assert message_of(load, dataset="CIFAR10", root=str(tmp_path), download=True) == (
        f"CIFAR10 is not in dataset.root={tmp_path} and could not be fetched: {reason}\n"
        f"  connect once, or copy torchvision's files of CIFAR10 into {tmp_path}"
    )
    told = message_of(load, dataset="ImageNet", root="data", download=False)
    assert told.startswith("dataset=ImageNet is not accepted\n")
