"""Every option of every config group is composed, built and trained for a step, on photographs of noise."""

import copy
import dataclasses
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from conftest import write_photos
from distill_run.config.compose import ROLES, check, compose, config_dir, option_names
from distill_run.config.schema import read_settings
from distill_run.config.settings import compose_config
from distill_run.data.opening import Feeds
from distill_run.engine.loop import Trainer
from distill_run.stages.live_teacher import LiveTeacher
from distill_run.stages.watcher import Watcher
from workshops import Opened, open_settings

# test_sweep.py composes every preset, test_every_mode.py trains every mode, test_trackers.py reads what trackers write.
ELSEWHERE = {"hydra", "sweep", "mode", "watcher"}
GROUPS = [path.name for path in sorted(config_dir().iterdir()) if path.is_dir() and path.name not in ELSEWHERE]
# A file of several roles is chosen for all of them; a network is trained as the student, and then asked to teach.
CHOSEN_AS = {**ROLES, "augmentation": ("augment",)}
OPTIONS = {
    f"{group}={option}": [f"{role}={option}" for role in CHOSEN_AS.get(group, (group,)) if role != "teacher"]
    for group in GROUPS
    for option in option_names(group)
}
ABSENT = {
    "device=cuda": not torch.cuda.is_available(),
    "device=mps": not torch.backends.mps.is_available(),
    "model=timm": find_spec("timm") is None,
}
NEEDED = {"model=timm": ["student.name=resnet10t"], "model=torchvision": ["student.name=resnet18"]}
# Their teacher has published weights: test_imagenet.py runs one as it is.
TRAINED = ["teacher=torchvision", "teacher.name=resnet18", "teacher.pretrained=false", "teacher_trains=all"]
TRAINED += ["teacher_classes=null", "student=torchvision", "student.name=resnet18", "dataset.image_size=32"]
NEEDED |= {option: TRAINED for option in OPTIONS if option.startswith("experiment=imagenet/")}
# Networks that cost little, of different widths; an epoch is a step, as there are fewer images than a batch has.
FEEDS = Feeds()
SMALL = [
    *("teacher=cnn_small", "student=cnn_tiny", "device.precision=fp32"),
    *("training.teacher.epochs=1", "training.student.epochs=1"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all options find the same photographs, and in one store what they have in common."""
    folder = tmp_path_factory.mktemp("options")
    write_photos(folder / "photos")
    return folder


@pytest.fixture(scope="module")
def source(folder: Path) -> Any:
    """What stands in the place of a dataset's source, which would be downloaded."""
    places = (f"dataset.root={folder / 'photos'}", f"store_dir={folder / 'store'}")
    return compose(["dataset=image_folder", *places]).config.dataset.source


def open_option(overrides: list[str], folder: Path, source: Any) -> Opened:
    groups = {override.split("=")[0] for override in overrides}
    small = [override for override in SMALL if override.split("=")[0] not in groups]
    dataset = [] if groups & {"dataset", "experiment"} else ["dataset=image_folder"]
    config = compose([*dataset, *small, *overrides, f"store_dir={folder / 'store'}"]).config
    config.dataset.source = source.copy()
    config.dataset.num_classes = None
    if len(config.dataset.mean or []) == 1:
        config.dataset.source.channels = 1
    return open_settings(check(config), folder, FEEDS)


def train_for_a_step(overrides: list[str], folder: Path, source: Any) -> tuple[Trainer, dict[str, float]]:
    """The student's trainer after a step, and the figures of its epoch."""
    opened = open_option(overrides, folder, source)
    teacher = opened.teacher()
    trainer, _ = opened.student(teacher)
    before = [parameter.detach().clone() for parameter in trainer.learner.network.parameters()]
    trainer.fit(Watcher(), opened.workshop.stop)
    assert all(parameter.isfinite().all() for parameter in teacher.network.parameters())
    after = list(trainer.learner.network.parameters())
    assert all(parameter.isfinite().all() for parameter in after)
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    figures: dict[str, float] = trainer.history[0]["train"]
    assert all(math.isfinite(value) for value in figures.values())
    return trainer, figures


def test_every_group_is_covered() -> None:
    expected = {"dataset", "augmentation", "model", "optimizer", "schedule", "training", "device", "experiment"}
    assert set(GROUPS) == expected
    assert len(OPTIONS) > 35


def is_one_of_many(option: str) -> bool:
    """Whether it is an experiment of a published pair; those of one pair are tried always, the others with -m slow."""
    return "_from_" in option and "resnet20_from_resnet56" not in option


def options() -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow) if is_one_of_many(name) else name for name in OPTIONS]


@pytest.mark.parametrize("option", options())
def test_an_option_trains_for_a_step(option: str, folder: Path, source: Any) -> None:
    if ABSENT.get(option):
        check(compose([*OPTIONS[option], *NEEDED.get(option, [])]).config)
        pytest.skip("this machine has no such thing")
    trainer, _ = train_for_a_step([*OPTIONS[option], *NEEDED.get(option, [])], folder, source)
    if option.startswith("model="):
        batch = next(trainer.batches.epoch(1))
        with torch.no_grad():
            expected = trainer.learner.network.eval()(batch.images)
        found = LiveTeacher(trainer.learner.network, trainer.learner.device)(batch).logits
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)  # fresh deep networks give logits near 80


def test_the_terms_of_all_modes_add_up(folder: Path, source: Any) -> None:
    """All but SimKD's, for which the student is another network."""
    others = [mode for mode in option_names("mode") if mode not in ("soft", "simkd")]
    trainer, figures = train_for_a_step([f"also=[{','.join(others)}]"], folder, source)
    assert figures.keys() == {"loss", "accuracy", "cross_entropy", "distillation", *others}
    assert list(trainer.learner.loss.terms) == ["distillation", *others]
    assert all(parameter.grad is not None for parameter in trainer.learner.loss.parameters() if parameter.requires_grad)


def test_compositions_share_the_store_of_options_and_leave_it_as_it_is() -> None:
    compose()
    store = ConfigStore.instance()
    before = OmegaConf.to_yaml(store.load("student/cnn_tiny.yaml").node)
    assert compose(["student=cnn_tiny", "student.dropout=0.5"]).config.student.dropout == 0.5
    assert copy.deepcopy(store) is store
    assert OmegaConf.to_yaml(store.load("student/cnn_tiny.yaml").node) == before
    assert compose(["student=cnn_tiny"]).config.student.dropout == 0.0


def test_the_settings_of_an_experiment_survive_a_round_trip() -> None:
    settings = compose_config(["experiment=founding_cifar10"])
    assert read_settings(dataclasses.asdict(settings)) == settings


def test_the_founding_experiment_is_the_founding_experiment() -> None:
    settings = compose_config(["experiment=founding_cifar10"])
    assert (settings.dataset.mean, settings.dataset.std) == ([0.5] * 3, [0.5] * 3)
    assert settings.names.dataset == "cifar10"
    for recipe, rate in ((settings.training.teacher, 0.01), (settings.training.student, 0.05)):
        assert (recipe.epochs, recipe.batch_size, recipe.clip_norm) == (10, 128, None)
        momentum = {"momentum": 0.9, "nesterov": False, "weight_decay": 0.0}
        assert recipe.optimizer == {"_target_": "torch.optim.SGD", "lr": rate, **momentum}
        assert recipe.schedule == {"_target_": "distill_run.engine.schedules.Constant", "warmup_epochs": 0}
    for node, hidden in ((settings.teacher, [4096, 4096]), (settings.student, [4096])):
        assert (node["widths"], node["hidden"], node["batch_norm"]) == ([64, 128, 256, 512], hidden, False)
