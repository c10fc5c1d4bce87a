"""Experiments: what each file selects, its protocol step by step, and the numbers that it quotes."""

import re
from collections import Counter
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from distill_run.build import Builder
from distill_run.config.compose import config_dir, option_names
from distill_run.config.schema import Recipe, RecipeSettings, Settings
from distill_run.config.settings import compose_config
from distill_run.data import torchvision_source
from distill_run.data.source import Source, Split
from distill_run.engine.schedules import Step
from distill_run.stages.rehearse import rehearse
from workshops import open_settings

CONF = config_dir()
FOLDER = CONF / "experiment"
HEADER = re.compile(
    r"# @package _global_\n"
    r"# distill-run experiment=(?P<name>\S+)(?: dataset\.root=imagenet)?\n"
    r"# Source: .+ \(.+\).*\.\n"
    r"# Published test accuracy, %: teacher (?P<teacher>[\d.]+), student alone (?P<alone>[\d.]+), "
    r"distilled (?P<distilled>[\d.]+)\.\n"
    r"defaults:\n"
)
NAME = re.compile(r"(?P<dataset>\w+)/(?P<student>\w+)_from_(?P<teacher>\w+?)_(?P<suffix>[a-z]\w*)")
PUBLISHED = sorted(f"{path.parent.name}/{path.stem}" for path in FOLDER.glob("*/[!_]*.yaml") if "_from_" in path.stem)
MODES = {"cifar10/resnet20_from_resnet110_soft": "none"}  # with soft targets beside a cross-entropy of weight 1
SMALL_RATE = ("mobilenet_v2", "shufflenet_v1", "shufflenet_v2")


def parts(name: str) -> dict[str, str]:
    """The dataset, the student, the teacher and the mode with its variant that an experiment's name gives."""
    found = NAME.fullmatch(name)
    assert found is not None
    return found.groupdict()


def selects(name: str) -> tuple[Any, ...]:
    """The choices of four groups that the name promises."""
    part = parts(name)
    names = ("torchvision", "torchvision") if part["dataset"] == "imagenet" else (part["teacher"], part["student"])
    return part["dataset"], *names, MODES.get(name, part["suffix"].removesuffix("_standardized"))


@cache
def text(name: str) -> str:
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


@cache
def own(name: str) -> dict[str, Any]:
    node: dict[str, Any] = yaml.safe_load(text(name))
    return node


def bases(name: str) -> list[str]:
    """The files of its folder that an experiment begins with."""
    return [item.rpartition("/")[2] for item in own(name)["defaults"] if isinstance(item, str)]


def choices(name: str) -> dict[str, str]:
    """The options that an experiment and the files below it choose, read without composing them."""
    chosen: dict[str, str] = {}
    for item in own(name)["defaults"]:
        if isinstance(item, str):
            chosen |= choices(item.removeprefix("/experiment/"))
        else:
            chosen |= {group.removeprefix("override /"): option for group, option in item.items()}
    return chosen


def published(name: str) -> tuple[float, float, float]:
    """The accuracies of the teacher, of the student alone and of the distilled student, in percent."""
    found = HEADER.match(text(name))
    assert found is not None
    return float(found["teacher"]), float(found["alone"]), float(found["distilled"])


def some_of_all() -> list[str]:
    """One experiment of each mode, of another pair each time."""
    suffixes = sorted({parts(name)["suffix"] for name in PUBLISHED})
    rows = [[name for name in PUBLISHED if parts(name)["suffix"] == suffix] for suffix in suffixes]
    return [names[5 * place % len(names)] for place, names in enumerate(rows)]


@cache
def settings_of(*overrides: str) -> Settings:
    return compose_config(overrides)


def rates(recipe: RecipeSettings) -> list[float]:
    """The learning rate at the first step of each epoch, once it is known to be that of all its steps."""
    schedule = Builder().build(recipe.schedule, "schedule", epochs=recipe.epochs)
    assert isinstance(schedule, Step)
    assert recipe.epochs is not None
    lr = recipe.optimizer["lr"]
    found = []
    for epoch in range(1, recipe.epochs + 1):
        steps = {lr * schedule.factor(epoch - 1 + step / 766) for step in (0, 1, 383, 765)}
        assert len(steps) == 1, epoch
        found.append(steps.pop())
    return found


# The files, without composing them.


def test_no_experiment_of_the_tables_is_missing() -> None:
    count = Counter((parts(name)["dataset"], parts(name)["suffix"]) for name in PUBLISHED)
    tables = {"soft": 13, "fitnet": 13, "attention": 13, "sp": 13, "vid": 13, "rkd": 13, "pkt": 13, "crd": 13}
    tables |= {"dkd": 11, "dist": 6, "soft_standardized": 14, "dkd_standardized": 14, "simkd": 3, "review_kd": 8}
    cifar10 = dict.fromkeys(("soft", "fitnet", "attention", "sp", "vid", "rkd", "pkt", "crd"), 1)
    imagenet = dict.fromkeys(("soft", "dkd", "dist", "review_kd"), 1)
    expected = {"cifar100": tables, "cifar10": cifar10, "imagenet": imagenet}
    assert count == {(dataset, mode): num for dataset, modes in expected.items() for mode, num in modes.items()}


def test_an_experiment_begins_with_its_command_its_source_and_its_numbers() -> None:
    for name in PUBLISHED:
        header = HEADER.match(text(name))
        assert header is not None, name
        assert header["name"] == name
        assert all(55 < accuracy < 96 for accuracy in published(name)), name


def test_an_experiment_selects_what_its_name_says() -> None:
    models, modes = option_names("model"), option_names("mode")
    for name in PUBLISHED:
        chosen = choices(name)
        assert tuple(chosen[group] for group in ("dataset", "teacher", "student", "mode")) == selects(name)
        assert chosen["training"] == {"cifar100": "rep_distiller"}.get(chosen["dataset"], chosen["dataset"]), name
        assert {chosen["teacher"], chosen["student"]} <= set(models), name
        assert chosen["mode"] in modes, name


def test_a_light_student_and_no_other_has_the_smaller_learning_rate() -> None:
    for name in PUBLISHED:
        is_light = parts(name)["student"] in SMALL_RATE
        if parts(name)["suffix"] == "review_kd":
            smaller = {"student": {"optimizer": {"lr": 0.02}}}
            assert own(name).get("training") == (smaller if is_light else None), name
        else:
            assert ("_rep_distiller_mobile" in bases(name)) is is_light, name
            assert "training" not in own(name), name


def test_a_network_is_quoted_with_one_accuracy_wherever_a_table_has_it() -> None:
    teachers: dict[str, set[float]] = {}
    students: dict[str, set[float]] = {}
    for name in PUBLISHED:
        part = parts(name)
        if part["dataset"] == "cifar100" and part["suffix"] != "simkd":  # which trained its own students
            teachers.setdefault(part["teacher"], set()).add(published(name)[0])
            students.setdefault(part["student"], set()).add(published(name)[1])
    assert teachers == {
        "wrn_40_2": {75.61}, "resnet56": {72.34}, "resnet110": {74.31}, "resnet32x4": {79.42}, "vgg13": {74.64},
        "resnet50": {79.34},
    }  # fmt: skip
    assert students == {
        "wrn_16_2": {73.26}, "wrn_40_1": {71.98}, "wrn_40_2": {75.61}, "resnet20": {69.06}, "resnet32": {71.14},
        "resnet8x4": {72.50}, "vgg8": {70.36}, "mobilenet_v2": {64.60}, "shufflenet_v1": {70.50},
        "shufflenet_v2": {71.82},
    }  # fmt: skip


QUOTED = {
    "cifar100/wrn_16_2_from_wrn_40_2_soft": (75.61, 73.26, 74.92),
    "cifar100/resnet20_from_resnet110_fitnet": (74.31, 69.06, 68.99),
    "cifar100/mobilenet_v2_from_resnet50_attention": (79.34, 64.60, 58.58),
    "cifar100/shufflenet_v1_from_wrn_40_2_sp": (75.61, 70.50, 74.52),
    "cifar100/vgg8_from_resnet50_vid": (79.34, 70.36, 70.30),
    "cifar100/resnet8x4_from_resnet32x4_rkd": (79.42, 72.50, 71.90),
    "cifar100/shufflenet_v2_from_resnet32x4_pkt": (79.42, 71.82, 74.69),
    "cifar100/vgg8_from_vgg13_crd": (74.64, 70.36, 73.94),
    "cifar100/shufflenet_v2_from_resnet32x4_dkd": (79.42, 71.82, 77.07),
    "cifar100/wrn_40_1_from_wrn_40_2_dist": (75.61, 71.98, 74.43),
    "cifar100/mobilenet_v2_from_wrn_40_2_soft_standardized": (75.61, 64.60, 69.23),
    "cifar100/vgg8_from_vgg13_dkd_standardized": (74.64, 70.36, 74.81),
    "cifar100/mobilenet_v2_from_resnet50_dkd_standardized": (79.34, 64.60, 70.45),
    "cifar100/shufflenet_v1_from_wrn_40_2_review_kd": (75.61, 70.50, 77.14),
    "cifar100/shufflenet_v2_from_resnet32x4_simkd": (79.42, 74.15, 79.54),
    "cifar100/resnet20_from_resnet56_review_kd": (72.34, 69.06, 71.89),
    "cifar10/resnet20_from_resnet110_sp": (93.86, 92.37, 93.30),
    "imagenet/resnet18_from_resnet34_soft": (73.31, 69.75, 71.03),
    "imagenet/resnet18_from_resnet34_dkd": (73.31, 69.75, 71.70),
    "imagenet/resnet18_from_resnet34_dist": (73.31, 69.76, 72.07),
    "imagenet/resnet18_from_resnet34_review_kd": (73.31, 69.75, 71.61),
}


def test_an_experiment_quotes_its_table() -> None:
    assert {name: published(name) for name in QUOTED} == QUOTED


# Weights: written in the experiment, or those of the mode's own file.


USUAL: dict[str, dict[str, Any]] = {
    "soft": {"temperature": 4.0, "alpha": 0.9, "weight": 1.0, "standardize_logits": False},
    "fitnet": {"weight": 100.0, "student_points": ["stage2"], "teacher_points": ["stage2"]},
    "attention": {"weight": 1000.0, "student_points": ["stages"], "power": 2.0},
    "sp": {"weight": 3000.0, "student_points": ["stage-1"], "teacher_points": ["stage-1"]},
    "vid": {"weight": 1.0, "student_points": ["stages"]},
    "rkd": {"weight": 1.0, "distance_weight": 25.0, "angle_weight": 50.0, "student_points": ["pooled"]},
    "pkt": {"weight": 30000.0, "student_points": ["pooled"]},
    "crd": {"weight": 0.8, "embedding_size": 128, "num_negatives": 16384, "temperature": 0.07, "momentum": 0.5},
    "dist": {"temperature": 4.0, "inter_weight": 1.0, "intra_weight": 1.0, "weight": 2.0},
    "simkd": {"factor": 2, "weight": 1.0},
}


def test_the_tables_of_cifar100_have_the_weights_of_the_mode_s_own_file() -> None:
    for mode, keys in USUAL.items():
        node = yaml.safe_load((CONF / "mode" / f"{mode}.yaml").read_text(encoding="utf-8"))
        assert {key: node[key] for key in keys} == keys
        names = [name for name in PUBLISHED if parts(name)["suffix"] == mode and name.startswith("cifar100/")]
        assert [name for name in names if "mode" in own(name)] == []


def weights_of(suffix: str, key: str) -> dict[float, set[str]]:
    """The pairs of networks for each value of a key, where it is the only one that their experiments set."""
    found: dict[float, set[str]] = {}
    for name in PUBLISHED:
        if parts(name)["suffix"] == suffix and name.startswith("cifar100/"):
            node = own(name)["mode"]
            assert node.keys() == {key}
            found.setdefault(node[key], set()).add(name.removeprefix("cifar100/").removesuffix(f"_{suffix}"))
    return found


def test_dkd_and_review_kd_have_the_weight_of_their_pair() -> None:
    assert weights_of("dkd", "non_target_weight") == {
        2.0: {"resnet20_from_resnet56", "resnet32_from_resnet110"},
        6.0: {"vgg8_from_vgg13", "mobilenet_v2_from_vgg13", "wrn_16_2_from_wrn_40_2", "wrn_40_1_from_wrn_40_2"},
        8.0: {
            "resnet8x4_from_resnet32x4", "mobilenet_v2_from_resnet50", "shufflenet_v1_from_resnet32x4",
            "shufflenet_v1_from_wrn_40_2", "shufflenet_v2_from_resnet32x4",
        },
    }  # fmt: skip
    assert weights_of("review_kd", "weight") == {
        0.6: {"resnet20_from_resnet56"},
        1.0: {"resnet32_from_resnet110"},
        5.0: {
            "resnet8x4_from_resnet32x4", "wrn_16_2_from_wrn_40_2", "wrn_40_1_from_wrn_40_2",
            "shufflenet_v1_from_resnet32x4", "shufflenet_v1_from_wrn_40_2",
        },
        8.0: {"shufflenet_v2_from_resnet32x4"},
    }  # fmt: skip


def test_standardised_soft_targets_have_the_temperature_and_the_weight_of_their_pair() -> None:
    found: dict[tuple[float, float], set[str]] = {}
    for name in PUBLISHED:
        if parts(name)["suffix"] == "soft_standardized":
            node = {**own("cifar100/_standardized")["mode"], **own(name).get("mode", {})}
            assert (node["alpha"], node["standardize_logits"]) == (0.9, "sample")  # 0.1 of cross-entropy
            pair = name.removeprefix("cifar100/").removesuffix("_soft_standardized")
            found.setdefault((node["temperature"], round(node["alpha"] * node["weight"], 5)), set()).add(pair)
    odd = {
        (3.0, 9.0): {
            "vgg8_from_vgg13", "mobilenet_v2_from_vgg13", "mobilenet_v2_from_wrn_40_2", "wrn_16_2_from_resnet32x4",
            "wrn_40_2_from_resnet32x4",
        },
        (3.0, 1.0): {"mobilenet_v2_from_resnet50", "shufflenet_v2_from_resnet32x4"},
        (4.0, 12.0): {"resnet20_from_resnet110"},
    }  # fmt: skip
    assert len(found.pop((2.0, 9.0))) == 6
    assert found == odd


def test_standardised_decoupled_targets_have_the_keys_in_the_names_of_their_logs() -> None:
    """Temperature, weight of the term, and the weight of the other classes within it."""
    found: dict[tuple[float, ...], set[str]] = {}
    for name in PUBLISHED:
        if parts(name)["suffix"] == "dkd_standardized":
            node = {**own("cifar100/_dkd_standardized")["mode"], **own(name)["mode"]}
            assert node["standardize_logits"] == "sample"
            keys = tuple(node[key] for key in ("temperature", "weight", "non_target_weight"))
            found.setdefault(keys, set()).add(name.removeprefix("cifar100/").removesuffix("_dkd_standardized"))
    assert found == {
        (2.0, 9.0, 2.0): {"resnet8x4_from_resnet32x4", "shufflenet_v2_from_resnet32x4", "wrn_16_2_from_resnet32x4"},
        (2.0, 9.0, 8.0): {"wrn_40_2_from_resnet32x4"},
        (2.0, 12.0, 2.0): {"wrn_40_1_from_wrn_40_2", "wrn_16_2_from_wrn_40_2"},
        (2.0, 15.0, 2.0): {
            "vgg8_from_vgg13", "resnet32_from_resnet110", "resnet20_from_resnet110", "mobilenet_v2_from_wrn_40_2",
            "mobilenet_v2_from_resnet50",
        },
        (2.0, 18.0, 2.0): {"resnet8x4_from_wrn_40_2"},
        (3.0, 9.0, 2.0): {"mobilenet_v2_from_vgg13"},
        (3.0, 12.0, 2.0): {"resnet20_from_resnet56"},
    }  # fmt: skip


def test_cifar10_has_weights_of_its_own() -> None:
    expected = {
        "soft": {"also": {"soft": {"alpha": 1.0, "weight": 0.1}}},
        "attention": {"weight": 333.333333},
        "fitnet": {"weight": 0.1, "student_points": ["stage3"], "teacher_points": ["stage3"]},
        "pkt": {"weight": 10000.0},
        "rkd": None,
        "sp": {"weight": 1000.0, "student_points": ["stages"], "teacher_points": ["stages"]},
        "vid": {"weight": 0.333333},
        "crd": {"weight": 0.2, "temperature": 0.1},
    }
    assert {mode: own(f"cifar10/resnet20_from_resnet110_{mode}").get("mode") for mode in expected} == expected


def test_imagenet_has_the_weights_and_the_networks_of_its_tables() -> None:
    points = ["layer1", "layer2", "layer3", "layer4", "pooled"]
    expected: dict[str, dict[str, Any]] = {
        "soft": {"temperature": 1.0, "alpha": 0.5, "weight": 1.0},
        "dkd": {"temperature": 1.0, "target_weight": 1.0, "non_target_weight": 0.5, "weight": 1.0, "warmup_epochs": 1},
        "dist": {"temperature": 1.0, "inter_weight": 1.0, "intra_weight": 1.0, "weight": 2.0},
        "review_kd": {"weight": 1.0, "student_points": points, "teacher_points": points, "warmup_epochs": 1},
    }
    for mode, keys in expected.items():
        settings = settings_of(f"experiment=imagenet/resnet18_from_resnet34_{mode}")
        rehearse(settings)
        assert settings.mode.items() >= keys.items()
        assert (settings.teacher["name"], settings.teacher["pretrained"]) == ("resnet34", True)
        assert (settings.student["name"], settings.student["pretrained"]) == ("resnet18", False)
        found = (settings.teacher_trains, settings.teacher_classes, settings.device.precision)
        assert found == ("nothing", "imagenet", "fp32")


# Protocols.


@pytest.mark.parametrize(
    ("training", "lengths", "lr", "batch_size", "nesterov", "weight_decay"),
    [
        ("rep_distiller", (150, 30, 30, 30), 0.05, 64, False, 5e-4),
        ("cifar10", (100, 50, 50), 0.1, 128, True, 1e-4),
        ("imagenet", (30, 30, 30, 10), 0.1, 256, False, 1e-4),
    ],
)
def test_a_protocol_is_the_published_one_for_both_networks(
    training: str, lengths: tuple[int, ...], lr: float, batch_size: int, nesterov: bool, weight_decay: float
) -> None:
    recipes = settings_of(f"training={training}").training
    assert recipes.teacher == recipes.student
    recipe = recipes.student
    assert (recipe.epochs, recipe.batch_size) == (sum(lengths), batch_size)
    how = {"lr": lr, "momentum": 0.9, "nesterov": nesterov, "weight_decay": weight_decay}
    assert recipe.optimizer == {"_target_": "torch.optim.SGD", **how}
    assert (recipe.clip_norm, recipe.label_smoothing, recipe.patience, recipe.lr_search) == (None, 0.0, None, None)
    expected = [lr * 0.1**cut for cut, length in enumerate(lengths) for _ in range(length)]
    assert rates(recipe) == pytest.approx(expected, rel=1e-12)
    if training == "rep_distiller":  # of which light students learn more slowly
        recipes = settings_of("experiment=cifar100/shufflenet_v1_from_wrn_40_2_soft").training
        assert (recipes.teacher.optimizer["lr"], recipes.student.optimizer["lr"]) == (0.05, 0.01)


def test_review_kd_has_the_protocol_of_its_own_program() -> None:
    settings = settings_of("experiment=cifar100/shufflenet_v2_from_resnet32x4_review_kd")
    for recipe, lr in ((settings.training.teacher, 0.1), (settings.training.student, 0.02)):
        assert (recipe.epochs, recipe.batch_size, recipe.optimizer["nesterov"]) == (240, 128, True)
        assert (recipe.optimizer["lr"], recipe.optimizer["weight_decay"]) == (lr, 5e-4)
        assert rates(recipe)[149:151] == pytest.approx([lr, lr / 10])
    assert settings.dataset.mean == pytest.approx([125.3 / 255, 123.0 / 255, 113.9 / 255], abs=5e-5)
    assert settings.dataset.std == pytest.approx([63.0 / 255, 62.1 / 255, 66.7 / 255], abs=5e-5)
    assert settings.mode["warmup_epochs"] == 20


def test_simkd_s_shufflenet_is_one_and_a_half_times_as_wide() -> None:
    wide = settings_of("experiment=cifar100/shufflenet_v2_from_resnet32x4_simkd").student
    usual = settings_of("experiment=cifar100/shufflenet_v2_from_resnet32x4_soft").student
    assert wide == {**usual, "widths": [176, 352, 704]}


def test_the_images_of_cifar100_are_normalised_and_augmented_as_published() -> None:
    dataset = settings_of("experiment=cifar100/resnet20_from_resnet56_soft").dataset
    assert (dataset.mean, dataset.std) == ([0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761])
    crop, flip, cutout = (dataset.augment[name] for name in ("crop", "flip", "cutout"))
    assert (crop["padding"], flip["enabled"], cutout["size"]) == (4, True, 0)
    assert (dataset.val_fraction, dataset.train_fraction) == (0.02, 1.0)


def test_the_images_of_imagenet_are_normalised_and_augmented_as_published() -> None:
    """Evaluation reduces the shorter side to 256 pixels and keeps 224 of the centre."""
    dataset = settings_of("dataset=imagenet").dataset
    assert (dataset.mean, dataset.std) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert (dataset.image_size, dataset.crop_ratio) == (224, 224 / 256)
    window, crop, flip, cutout = (dataset.augment[name] for name in ("random_resized_crop", "crop", "flip", "cutout"))
    assert (window["scale"], window["ratio"]) == ([0.08, 1.0], [3 / 4, 4 / 3])
    assert (crop["padding"], flip["enabled"], cutout["size"]) == (0, True, 0)


# Composed.


def assert_composes(name: str) -> None:
    settings = settings_of(f"experiment={name}")
    names = settings.names
    assert (names.dataset, names.teacher, names.student, names.mode) == selects(name)
    rehearse(settings)


def test_an_experiment_of_each_mode_composes_and_every_component_takes_its_arguments() -> None:
    for name in some_of_all():
        assert_composes(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PUBLISHED if not name.startswith("imagenet/")])
def test_every_experiment_prepares_on_images_of_its_size(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the first training: the features of both networks can be compared, and the losses are fitted to them."""
    assert_composes(name)
    num_classes = {"cifar10": 10, "cifar100": 100}[parts(name)["dataset"]]
    targets = torch.arange(num_classes * 50) % num_classes
    split = Split(torch.zeros(len(targets), 3, 32, 32, dtype=torch.uint8), targets)
    source = Source(split, None, split.select(torch.arange(num_classes)), tuple(map(str, range(num_classes))))
    monkeypatch.setattr(torchvision_source, "load", lambda **_: source)
    settings = settings_of(f"experiment={name}", "device=cpu", f"store_dir={tmp_path / 'store'}")
    open_settings(settings, tmp_path)


# Overrides beside an experiment.


def test_a_mode_and_a_protocol_on_the_command_line_win_over_an_experiment() -> None:
    for name, training in (("cifar100/resnet20_from_resnet56_soft", "cifar10"), ("cifar10/short", "rep_distiller")):
        settings = settings_of(f"experiment={name}", "mode=crd", f"training={training}")
        assert settings.names.mode == "crd"
        assert settings.mode == settings_of("mode=crd").mode
        assert settings.training == settings_of(f"training={training}").training


def test_the_short_protocol_rises_and_falls_within_a_few_epochs() -> None:
    recipes = settings_of("experiment=cifar10/short").training
    for recipe in (recipes.teacher, recipes.student):
        assert recipe.epochs is not None
        schedule = Builder().build(recipe.schedule, "schedule", epochs=recipe.epochs)
        found = [schedule.factor(float(epoch)) for epoch in range(recipe.epochs + 1)]
        assert found[0] < 0.1
        assert max(found) > 0.9
        assert found[-1] < 1e-4
        assert recipe.epochs <= 30


# Born again.


def test_a_born_again_student_is_its_own_teacher_but_for_the_seed() -> None:
    settings = settings_of("experiment=born_again", "student=resnet8", "student.widths=[4,8,8]")
    assert settings.teacher == settings.student
    assert settings.student["widths"] == [4, 8, 8]
    assert settings.training.teacher == settings.training.student
    assert settings.names.teacher == settings.names.student == "resnet8"
    assert settings.teacher_seed not in (settings.seed, *range(100))
    recipes = settings_of("experiment=born_again", "training.teacher.epochs=1").training
    assert (recipes.teacher.epochs, recipes.student.epochs) == (1, None)


def test_a_born_again_teacher_follows_every_key_of_the_student_s_recipe() -> None:
    changes = (
        "epochs=3 batch_size=17 clip_norm=2.0 label_smoothing=0.1 mixup=0.2 cutmix=0.3 patience=4 "
        "lr_search=[0.01,0.1] lr_search_epochs=2 accumulation=2 ema=0.9 decay_norms=false backbone_lr_factor=0.1 "
        "freeze_batch_norm=true"
    )
    overrides = [f"training.student.{change}" for change in changes.split()]
    groups = ["training/student/optimizer=adam", "training/student/schedule=constant"]
    usual = settings_of("experiment=born_again").training.student
    recipes = settings_of("experiment=born_again", *groups, *overrides).training
    same = [
        field.name for field in fields(Recipe) if getattr(recipes.student, field.name) == getattr(usual, field.name)
    ]
    assert same == []
    assert recipes.teacher == recipes.student


def test_born_again_joins_another_experiment_in_either_order() -> None:
    name = "cifar100/mobilenet_v2_from_vgg13_dkd"
    for order in (f"{name},born_again", f"born_again,{name}"):
        settings = settings_of(f"experiment=[{order}]")
        assert settings.names.teacher == settings.names.student == "mobilenet_v2"
        assert settings.teacher == settings.student
        assert settings.training.teacher.optimizer["lr"] == settings.training.student.optimizer["lr"] == 0.01
        assert settings.mode["non_target_weight"] == 6.0
        rehearse(settings)
