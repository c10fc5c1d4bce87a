"""ImageNet's layout: which folder is which split, what classes are called, and an experiment on a made-up folder."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from distill_run.config.settings import compose_config
from distill_run.data.imagenet import imagenet_names, load
from distill_run.listener import NOBODY
from distill_run.pipeline import run
from helpers import message_of

WNIDS = ("n02123045", "n01440764", "n02012849")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of three of ImageNet's classes: eight and two photographs of each, of several sizes."""
    generator = np.random.default_rng(0)
    for split, num in (("train", 8), ("val", 2)):
        for place, wnid in enumerate(WNIDS):
            folder = tmp_path / "imagenet" / split / wnid
            folder.mkdir(parents=True)
            for index in range(num):
                pixels = generator.integers(80 * place, 80 * place + 90, (40 + index, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{wnid}_{index}.JPEG")
    return tmp_path / "imagenet"


def message(root: Path | None) -> str:
    return message_of(load, root=str(root) if root else None, listener=NOBODY)


def test_the_published_validation_images_are_the_test_split(root: Path) -> None:
    source = load(root=str(root), listener=NOBODY)
    assert source.val is None
    assert source.test is not None
    assert (len(source.train), len(source.test)) == (24, 6)
    assert source.test.name(0) == "val/n01440764/n01440764_0.JPEG"


def test_classes_have_their_names_in_the_order_of_their_ids(root: Path) -> None:
    assert load(root=str(root), listener=NOBODY).classes == ("tench", "crane bird", "tabby")
    for split in ("train", "val"):
        (root / split / "n02123045").rename(root / split / "n99999999")
    assert load(root=str(root), listener=NOBODY).classes == ("n01440764", "n02012849", "n99999999")


def test_the_shipped_names_are_those_of_the_thousand_classes() -> None:
    names = imagenet_names()
    synsets = [own[-1] for own in names]
    assert synsets == sorted(synsets)
    assert len({own[0] for own in names}) == len(set(synsets)) == 1000
    assert (names[0][0], names[281][0], names[999][0]) == ("tench", "tabby", "toilet tissue")


def test_another_layout_is_refused(root: Path) -> None:
    layout = "give the folder that holds train/<wnid>/ and val/<wnid>/, as in train/n01440764/"
    assert message(None) == f"dataset.root is not set\n  write dataset.root=DIR: {layout}"
    (root / "val").rename(root / "flat")
    assert message(root) == f"dataset.root={root} has no folder val\n  {layout}"
    (root / "val").mkdir()
    assert message(root) == (
        f"{root / 'val'} has no class folders\n  move its images into folders of their classes, as in train"
    )


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.slow
def test_an_experiment_runs_with_a_teacher_of_all_classes(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small images, one epoch, and random numbers in the place of the published weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = dict(torchvision.models.resnet34(num_classes=1000).state_dict())
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: weights)
    words = ["experiment=imagenet/resnet18_from_resnet34_review_kd", f"dataset.root={root}", "device=cpu"]
    words += ["dataset.image_size=32", "teacher.input_size=32", "dataset.val_fraction=0.2", "baseline=false"]
    words += ["training.student.epochs=1", "training.student.batch_size=8", f"store_dir={tmp_path / 'store'}"]
    report = run(compose_config(words), tmp_path / "run")
    summary = report.summary
    assert summary["dataset"]["name"] == "imagenet"
    sizes = [summary["dataset"][f"{name}_size"] for name in ("train", "val", "test")]
    assert sizes == [18, 6, 6]
    assert summary["teacher"]["params"] == sum(
        value.numel() for name, value in weights.items() if "running" not in name and "num_batches" not in name
    )
    assert summary["student"]["last"]["epoch"] == 1
