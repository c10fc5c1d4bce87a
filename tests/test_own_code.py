"""Code of the user's own, a .py and a .yaml in a folder, beyond what the README shows."""

import dataclasses
from pathlib import Path

import pytest
import torch

from conftest import TINY
from distill_run.build import Builder
from distill_run.config.settings import compose_config
from distill_run.data.opening import Feeds
from distill_run.data.source import ImageShape
from distill_run.models.network import build_network
from distill_run.run import run
from distill_run.stages.rehearse import rehearse
from helpers import message_of

pytestmark = pytest.mark.usefixtures("no_pages")

PAIR = [override for override in TINY if not override.startswith("student")]


def write(folder: Path, group: str, name: str, code: str, yaml: str = "") -> Path:
    (folder / group).mkdir(parents=True, exist_ok=True)
    (folder / group / f"{name}.yaml").write_text(f"_target_: {name}.Own\n{yaml}")
    (folder / f"{name}.py").write_text(code)
    return folder


def test_an_objective_that_compares_features(tmp_path: Path) -> None:
    code = (
        "from torch import nn\n"
        "from distill_run.objectives.base import FeatureObjective\n"
        "class Own(FeatureObjective):\n"
        "    def fit_to(self, pair):\n"
        "        self.layer = nn.Linear(pair.student[0][0], pair.teacher[0][0])\n"
        "    def distillation(self, batch, student, teacher):\n"
        "        ((ours, theirs),) = self.features(student, teacher)\n"
        "        return (self.layer(ours) - theirs).square().mean()\n"
    )
    folder = write(
        tmp_path / "mine",
        "mode",
        "own_features",
        code,
        "weight: 2.0\nstudent_points: [pooled]\nteacher_points: [pooled]\n",
    )
    overrides = [*PAIR, "student=cnn_tiny", "mode=own_features", f"store_dir={tmp_path / 'store'}"]
    report = run(compose_config(overrides, folder), tmp_path / "run")
    assert report.guided_by == "live teacher"
    assert report.student.selected.val != report.baseline.selected.val  # type: ignore[union-attr]


def test_a_watcher_hears_the_whole_story(tmp_path: Path) -> None:
    """Of a run that trains everything, and of one in which only the student is not reused."""
    code = (
        "from pathlib import Path\n"
        "from distill_run.stages.watcher import Watcher\n"
        "class Own(Watcher):\n"
        "    def __init__(self, *, path):\n"
        "        self.path, self.steps = Path(path), 0\n"
        "    def say(self, *words):\n"
        "        with self.path.open('a') as file:\n"
        "            file.write(' '.join(map(str, words)) + chr(10))\n"
        "    def run_begun(self, run): self.say('begun', run.settings.names.mode, run.run_dir.name)\n"
        "    def stage_begun(self, stage): self.say('stage', stage.name, stage.num_epochs, stage.num_steps)\n"
        "    def stepped(self, epoch, step, num_images, loss): self.steps += 1\n"
        "    def epoch_ended(self, row): self.say('epoch', row['stage'], row['epoch'], 'after', self.steps)\n"
        "    def stage_ended(self, trained): self.say('ended', trained.stage, trained.origin.name)\n"
        "    def run_ended(self, error): self.say('over', error)\n"
    )
    folder = write(tmp_path / "mine", "watcher", "own_watcher", code, f"path: {tmp_path / 'told.txt'}\n")
    overrides = [*TINY, "watchers=own_watcher", "training.teacher.epochs=1", "training.student.epochs=1"]
    config = compose_config([*overrides, f"store_dir={tmp_path / 'store'}"], folder)
    run(config, tmp_path / "first")
    run(config, tmp_path / "second")
    assert (tmp_path / "told.txt").read_text().splitlines() == [
        *("begun soft first", "stage teacher 1 18", "epoch teacher 1 after 18", "ended teacher TRAINED"),
        *("stage baseline 1 9", "epoch baseline 1 after 27", "ended baseline TRAINED"),
        *("stage student 1 9", "epoch student 1 after 36", "ended student TRAINED", "over None"),
        *("begun soft second", "ended teacher REUSED", "ended baseline REUSED"),
        *("stage student 1 9", "epoch student 1 after 9", "ended student TRAINED", "over None"),
    ]


def test_a_model_and_a_dataset_of_another_class_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "model", "no_model", "class Own:\n    def __init__(self, **_):\n        pass\n")
    write(tmp_path, "source", "no_source", "def Own():\n    return ([], [])\n")
    builder, shape = Builder(code_dir=tmp_path), ImageShape(1, (8, 8), 3)
    assert message_of(build_network, {"_target_": "no_model.Own"}, "student", shape, [0.5], [0.5], 0, builder) == (
        "student._target_=no_model.Own gives no Module\n  derive the class from torch.nn.Module"
    )
    dataset = dataclasses.replace(compose_config(TINY).dataset, source={"_target_": "no_source.Own"})
    assert message_of(Feeds().open, dataset, builder, torch.device("cpu")) == (
        "dataset.source._target_=no_source.Own gives no Source\n  return a distill_run.data.source.Source"
    )


def test_what_is_no_watcher_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", "watcher", "no_watcher", "class Own:\n    pass\n")
    config = compose_config([*TINY, "watchers=no_watcher", f"store_dir={tmp_path / 'store'}"], folder)
    assert message_of(rehearse, config) == (
        "watchers.no_watcher._target_=no_watcher.Own is not a watcher\n"
        "  derive the class from distill_run.stages.watcher.Watcher"
    )
