"""Every option of every config group is composed, built and trained for a step, on photographs of noise."""

from pathlib import Path

import pytest
import torch

from distill_run.config import ROLES, check, compose_config, config_dir, option_names
from distill_run.console import Console
from distill_run.interrupt import StopRequest
from distill_run.prepare import prepare
from distill_run.schema import read_settings
from distill_run.stages.student import baseline_plan
from distill_run.stages.teacher import LiveTeacher
from distill_run.stages.training import make_network, make_trainer, plan_alone

ELSEWHERE = {"hydra", "sweep"}  # test_sweep.py composes every preset
GROUPS = [path.name for path in sorted(config_dir().iterdir()) if path.is_dir() and path.name not in ELSEWHERE]
OPTIONS = [
    f"{role}={option}"
    for group in GROUPS
    for role in ROLES.get(group, (group,))
    for option in option_names(config_dir() / group)
]
ABSENT = {
    "device=cuda": not torch.cuda.is_available(),
    "device=mps": not torch.backends.mps.is_available(),
}
SMALL = ["training.teacher.epochs=1", "training.student.epochs=1", "device.precision=fp32"]


class Nobody:
    def stepped(self, epoch: int, step: int, num_images: int, loss: torch.Tensor) -> None: ...

    def finished_epoch(self, row: dict[str, object]) -> None: ...


def test_every_group_is_covered() -> None:
    assert {"dataset", "model", "mode", "optimizer", "schedule", "training", "device", "experiment"} == set(GROUPS)
    assert len(OPTIONS) > 40


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_trains_for_a_step(option: str, photos: Path, tmp_path: Path) -> None:
    if ABSENT.get(option):
        pytest.skip("this machine has no such device")
    # Other datasets than the folder would be downloaded: theirs is put in the place of their source.
    dataset = [option] if option.startswith(("dataset=", "experiment=")) else ["dataset=image_folder"]
    overrides = [*dataset, *SMALL, *([] if option in dataset else [option])]
    config = compose_config([*overrides, f"store_dir={tmp_path / 'store'}"])
    folder = compose_config(["dataset=image_folder", f"dataset.root={photos}", f"store_dir={tmp_path / 'store'}"])
    config.dataset.source = folder.dataset.source
    config.dataset.num_classes = None
    if len(config.dataset.mean or []) == 1:
        config.dataset.source.channels = 1
    console = Console()
    with StopRequest() as stop:
        bench = prepare(check(config), tmp_path / "run", console, stop)
        objective = bench.builder.build(bench.settings.mode, "mode")
        teacher = LiveTeacher(make_network(bench.settings.teacher, "teacher", 0, bench), bench.device)
        for plan in (plan_alone("teacher", "teacher", 0, 0, bench), baseline_plan(bench)):
            is_student = plan.stage == "baseline"
            trainer = make_trainer(plan, bench, teacher if is_student and objective.needs != "nothing" else None)
            trainer.objective = objective if is_student else trainer.objective
            before = [parameter.detach().clone() for parameter in trainer.network.parameters()]
            trainer.fit(Nobody(), lambda _: None, stop)
            after = list(trainer.network.parameters())
            assert all(parameter.isfinite().all() for parameter in after)
            assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_the_settings_of_every_option_survive_a_round_trip(tmp_path: Path) -> None:
    import dataclasses

    settings = check(compose_config(["experiment=founding_cifar10"]))
    assert read_settings(dataclasses.asdict(settings)) == settings


def test_the_founding_experiment_is_the_founding_experiment() -> None:
    settings = check(compose_config(["experiment=founding_cifar10"]))
    assert (settings.dataset.mean, settings.dataset.std) == ([0.5] * 3, [0.5] * 3)
    assert settings.names.dataset == "cifar10"
    for recipe, rate in ((settings.training.teacher, 0.01), (settings.training.student, 0.05)):
        assert (recipe.epochs, recipe.batch_size, recipe.clip_norm) == (10, 128, None)
        assert recipe.optimizer == {
            "_target_": "torch.optim.SGD",
            "lr": rate,
            "momentum": 0.9,
            "nesterov": False,
            "weight_decay": 0.0,
        }
        assert recipe.schedule == {"_target_": "distill_run.schedules.Constant", "warmup_epochs": 0}
    for node, hidden in ((settings.teacher, [4096, 4096]), (settings.student, [4096])):
        assert (node["widths"], node["hidden"], node["batch_norm"]) == ([64, 128, 256, 512], hidden, False)
