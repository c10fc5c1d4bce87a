"""The single runs on the pages are done, not only accepted: as they stand but for a short training, on tiny data."""

import io
import re
import shlex
import tarfile
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from conftest import InProcess, without_pages, write_photos
from distill_run.build import Builder
from distill_run.commands import installed
from distill_run.config.settings import compose_config
from distill_run.data.source import ImageShape
from distill_run.models.network import build_network
from pages import commands

# What is not done here: sweeps (test_sweep.py), what would be downloaded, what only few machines have, a package
# outside the test environment, and what stands for something of the reader's that another test makes.
OTHERS = (
    *("-m ", "+sweep=", "--help", "--cfg"),
    *("dataset=cifar", "dataset=mnist", "dataset=fashion_mnist", "dataset=svhn", "experiment=", "pretrained=true"),
    *("device=cuda", "dataset=hugging_face", "dataset=imagenet", "FINGERPRINT", "DATE", "--config-dir"),
)
SHORT = ["training.teacher.epochs=1", "training.student.epochs=1", "device.precision=fp32"]
SHORT += ["measure_speed=false", "robustness_images=0"]  # test_speed.py and test_corruptions.py measure both

# The packages that a command loads warn of one another: as an error, that would break MLflow until the process ends.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def write_data(folder: Path) -> None:
    """What the pages call photos, train.csv, more_photos, shards and my_weights.pt."""
    photos = write_photos(folder / "photos")
    files = sorted((photos / "train").rglob("*.png"))
    lines = [f"{path.relative_to(photos)},{path.parent.name}\n" for path in files]
    (folder / "train.csv").write_text("path,label\n" + "".join(lines))
    (folder / "more_photos").mkdir()
    (folder / "shards").mkdir()
    with tarfile.open(folder / "shards" / "0.tar", "w") as shard:
        for number, path in enumerate(files):
            (folder / "more_photos" / f"{number}.png").write_bytes(path.read_bytes())
            shard.add(path, f"{number}.png")
            label = tarfile.TarInfo(f"{number}.cls")
            label.size = len(path.parent.name)
            shard.addfile(label, io.BytesIO(path.parent.name.encode()))


def write_weights(path: Path, words: list[str]) -> None:
    """A state dict of the teacher that the words of a command name."""
    teacher = compose_config([word for word in words if word.startswith(("teacher=", "teacher.name="))]).teacher
    channels = 1 if all(not word.startswith("dataset=") for word in words) else 3
    network = build_network(teacher, "teacher", ImageShape(channels, (16, 16), 10), [0.5], [0.5], 0, Builder())
    torch.save(network.architecture.state_dict(), path)


@pytest.mark.pages
@pytest.mark.parametrize("arguments", [line for line in commands("distill-run") if not any(o in line for o in OTHERS)])
def test_a_run_of_a_page_is_done(arguments: str, tmp_path: Path, in_process: InProcess) -> None:
    write_data(tmp_path)
    words = [re.sub(r"\.epochs=\d+$", ".epochs=1", word) for word in shlex.split(arguments)]
    if "my_weights.pt" in arguments:
        write_weights(tmp_path / "my_weights.pt", words)
    short = [word for word in SHORT if not any(own.startswith(word.split("=")[0]) for own in words)]
    short += [] if any(word.startswith("repeats") for word in words) else ["repeats=1"]
    short += [] if "dataset=" in arguments else ["dataset.train_fraction=0.1"]
    short += ["teacher.input_size=32"] if "my_weights.pt" in arguments and "teacher.name" in arguments else []
    with nullcontext() if "tracker=" in arguments else without_pages():  # a tracker takes the pages with it
        status, said, errors = in_process(installed.run, "distill-run", *words, *short)
    assert (status, errors) == (0, "")
    assert "student" in said
    assert "has failed" not in said
