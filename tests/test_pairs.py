"""Every pair of the published tables takes a step with every mode, or says why it cannot."""

import dataclasses
import math
from pathlib import Path

import pytest

from distill_run.config.compose import option_names
from distill_run.config.settings import compose_config
from distill_run.data.opening import Feeds
from distill_run.stages.live_teacher import LiveTeacher
from distill_run.stages.watcher import Watcher
from distill_run.stages.workshop import make_trainer
from helpers import message_of
from workshops import open_settings

pytestmark = pytest.mark.slow  # large networks, seventeen pairs of them with sixteen modes

MODES = option_names("mode")
SAME_STYLE = (
    ("wrn_40_2", "wrn_16_2"),
    ("wrn_40_2", "wrn_40_1"),
    ("resnet56", "resnet20"),
    ("resnet110", "resnet20"),
    ("resnet110", "resnet32"),
    ("resnet32x4", "resnet8x4"),
    ("vgg13", "vgg8"),
)
DIFFERENT_STYLE = (
    ("vgg13", "mobilenet_v2"),
    ("resnet50", "mobilenet_v2"),
    ("resnet50", "vgg8"),
    ("resnet32x4", "shufflenet_v1"),
    ("resnet32x4", "shufflenet_v2"),
    ("wrn_40_2", "shufflenet_v1"),
)
# What no table has: other kinds of model, whose features are vectors or tokens, and more stages than the other's.
OTHER_KINDS = (("resnet20", "vit_tiny"), ("vit_tiny", "resnet8"), ("resnet20", "mlp"), ("vgg8", "resnet8"))
REFUSED = {
    ("resnet20", "mlp", "fitnet"): "mode=fitnet: student has no point stage2\n",
    ("resnet20", "mlp", "attention"): "mode=attention: student has no point stages\n",
    ("resnet20", "mlp", "vid"): "mode=vid: student has no point stages\n",
    ("resnet20", "mlp", "sp"): "mode=sp: student has no point stage-1\n",
    ("resnet20", "mlp", "review_kd"): "mode=review_kd: student has no point stages\n",
}


FEEDS = Feeds()
# Forty digits of 32x32 in the place of CIFAR: what matters here is the size.
SMALL = (
    *("dataset.image_size=32", "dataset.train_fraction=0.03", "training.student.batch_size=4"),
    *("device=cpu", "device.precision=fp32", "baseline=false"),
)


def take_a_step(teacher: str, student: str, mode: str, folder: Path) -> dict[str, float]:
    """The parts of the loss of the first step with an untrained teacher, all of them numbers."""
    negatives = ["mode.num_negatives=64"] if mode == "crd" else []
    overrides = [*SMALL, f"teacher={teacher}", f"student={student}", f"mode={mode}", *negatives]
    opened = open_settings(compose_config([*overrides, f"store_dir={folder / 'store'}"]), folder, FEEDS)
    network, prepared = opened.lineup.teachers[0].assembly.network, opened.lineup.student
    prepared.assembly.take_from(network)
    if prepared.assembly.loss.needs != "nothing":
        guide = LiveTeacher(network, opened.workshop.device, prepared.assembly.teacher_points)
        prepared = dataclasses.replace(prepared, guide=guide)
    trainer = make_trainer(prepared, opened.workshop)
    trainer.learner.network.train()
    trainer._train_step(trainer.batches.epoch(1), Watcher())
    assert all(each.isfinite().all() for each in trainer.learner.network.parameters())
    return trainer.learner.totals.means()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pairs")


def step_or_reason(pair: tuple[str, str], mode: str, folder: Path) -> None:
    if reason := REFUSED.get((*pair, mode)):
        assert message_of(take_a_step, *pair, mode, folder).startswith(reason)
    else:
        # Features of an untrained teacher of 110 layers are of any size: the loss is only to be a number.
        assert all(map(math.isfinite, take_a_step(*pair, mode, folder).values()))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pair", [*SAME_STYLE, *DIFFERENT_STYLE], ids="->".join)
def test_a_published_pair_takes_a_step(pair: tuple[str, str], mode: str, folder: Path) -> None:
    step_or_reason(pair, mode, folder)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pair", OTHER_KINDS, ids="->".join)
def test_networks_of_different_kinds_take_a_step_or_say_why_not(pair: tuple[str, str], mode: str, folder: Path) -> None:
    step_or_reason(pair, mode, folder)
