"""On real photographs: the program from files to report. Marked `data`; needs DISTILL_RUN_DATA."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distill_run.checkpoint import load_network
from distill_run.config.settings import compose_config
from distill_run.pipeline import run

FOLDER = Path(os.environ.get("DISTILL_RUN_DATA", "")) / "cifar10-jpeg"

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not (FOLDER / "train").is_dir(), reason="DISTILL_RUN_DATA holds no cifar10-jpeg/train"),
]


@pytest.fixture
def subset(tmp_path: Path) -> Path:
    """Links to 200 training and 40 test photographs of each class."""
    for split, count in (("train", 200), ("test", 40)):
        for folder in sorted((FOLDER / split).iterdir()):
            target = tmp_path / "photos" / split / folder.name
            target.mkdir(parents=True)
            for path in sorted(folder.iterdir())[:count]:
                (target / path.name).symlink_to(path)
    return tmp_path / "photos"


def test_the_reported_accuracy_is_recomputed_from_the_files(subset: Path, tmp_path: Path) -> None:
    overrides = [
        *("dataset=image_folder", f"dataset.root={subset}", f"store_dir={tmp_path / 'store'}", "teacher=cnn_medium"),
        *("training.teacher.epochs=4", "training.student.epochs=4", "training.student.batch_size=32"),
    ]
    report = run(compose_config(overrides), tmp_path / "run")
    network = load_network(tmp_path / "run" / "checkpoints" / "student.pt")
    hits = []
    for target, folder in enumerate(sorted((subset / "test").iterdir())):
        for path in sorted(folder.iterdir()):
            pixels = np.asarray(Image.open(path).convert("RGB"), np.float32) / 255
            logits = network(torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0))
            hits.append(logits.argmax().item() == target)
    accuracy = report.summary["student"]["selected"]["test"]["accuracy"]
    assert accuracy == pytest.approx(np.mean(hits), abs=1e-9)
    assert accuracy > 0.15  # chance is 0.1
    assert report.summary["teacher"]["selected"]["test"]["accuracy"] > 0.25
