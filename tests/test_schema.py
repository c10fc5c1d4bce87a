"""The skeleton's schema: the packaged configuration reads, and each kind of mistake is told in full."""

import copy
import dataclasses
import inspect
from pathlib import Path
from pydoc import locate
from typing import Any, get_type_hints

import pytest
import yaml

from distill_run.build import Builder
from distill_run.config.compose import compose, config_dir, plain_config
from distill_run.config.schema import Settings, read_settings
from distill_run.config.settings import compose_config
from distill_run.errors import UserError
from helpers import message_of, refusal

INJECTED = {
    "models": ("in_channels", "image_size", "num_classes"),
    "engine": ("epochs",),  # schedules
    "optim": ("params",),
}


def component_files() -> list[Path]:
    files = sorted(config_dir().glob("*/*.yaml"))
    return [path for path in files if "_target_" in (yaml.safe_load(path.read_text(encoding="utf-8")) or {})]


def all_settings(cls: type) -> list[type]:
    children = [hint for hint in get_type_hints(cls).values() if dataclasses.is_dataclass(hint)]
    return [cls, *(grandchild for child in children for grandchild in all_settings(child))]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    return plain_config(compose().config)


@pytest.fixture
def config(composed: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(composed)


def set_key(config: dict[str, Any], key: str, value: object) -> None:
    *parents, name = key.split(".")
    for parent in parents:
        config = config[parent]
    config[name] = value


def test_the_default_configuration_reads(config: dict[str, Any]) -> None:
    settings = read_settings(config)
    assert settings.names.dataset == "digits"
    assert settings.mode["temperature"] == 4.0
    assert settings.training.student.optimizer["_target_"] == "torch.optim.AdamW"
    assert settings.training.teacher is not settings.training.student
    assert dataclasses.asdict(settings) == config


def test_the_yaml_of_a_component_holds_all_arguments_of_its_constructor_which_has_no_defaults() -> None:
    for path in component_files():
        node = yaml.safe_load(path.read_text(encoding="utf-8"))
        package = node["_target_"].split(".")[1]
        Builder().bind(node, path.stem, **dict.fromkeys(INJECTED.get(package, ())))
        if node["_target_"].startswith("distill_run."):
            parameters = inspect.signature(locate(node["_target_"])).parameters.values()  # type: ignore[arg-type]
            assert [p for p in parameters if p.kind is not p.KEYWORD_ONLY or p.default is not p.empty] == [], path


def test_every_default_stands_in_yaml() -> None:
    fields = [field for cls in all_settings(Settings) for field in dataclasses.fields(cls)]
    assert len(fields) > 40
    assert all(field.default is field.default_factory is dataclasses.MISSING for field in fields)


def test_a_component_of_a_packaged_group_needs_no_key_that_its_file_lacks() -> None:
    """Each option of a component's group replaces the default's keys: none of them is inherited."""
    for mode, keys in (
        ("none", {"_target_", "label_smoothing"}),
        ("hard", {"_target_", "alpha", "label_smoothing", "standardize_logits"}),
    ):
        assert compose_config([f"mode={mode}"]).mode.keys() == keys


SEED = "a whole number from 0 to 2^63 - 1"
TEACHER_CLASSES = (
    "imagenet, a file, or a list with the teacher's output for each class, as in [tabby,beagle] or [[281,282],[162]]"
)
NORMALISATION = (
    "dataset, published, or the means and standard deviations of the channels, as in [[0.5,0.5,0.5],[0.25,0.25,0.25]]"
)
MAPPING = "a mapping with a _target_ and the arguments of its constructor"
REFUSED = [
    *(("seed", value, SEED) for value in (-1, 1.5, None, True)),
    *((key, 2**64, SEED) for key in ("seed", "dataset.split_seed")),  # torch takes 64 bits
    ("teacher_seed", 2**64, f"{SEED}, or a list of such"),
    ("baseline", "yes", "true or false"),
    *(
        ("teacher_normalisation", value, f"{NORMALISATION}, or null")
        for value in ("imagenet", [0.5, 0.2], [[0.5], [0.0]], [[0.5], [0.2, 0.2]])
    ),
    ("teacher_classes", 3, f"{TEACHER_CLASSES}, or null"),
    ("teacher_classes", [[0, -1]], f"{TEACHER_CLASSES}, or null"),
    ("teacher_trains", "none", "one of all, head, nothing"),
    ("teacher_head_views", 0, "a whole number of at least 1"),
    ("resume", "", "a text, or null"),
    ("store_dir", None, "a text"),
    ("trusted_packages", "torch", "a list of names of Python packages"),
    ("training.views", 0, "a whole number of at least 1, or null"),
    ("training.student.epochs", 0, "a whole number of at least 1, or null"),
    ("training.teacher.batch_size", 1, "a whole number of at least 2, or null"),
    ("training.teacher.clip_norm", 0, "a number above 0, or null"),
    ("training.teacher.lr_search", [], "a list of learning rates above 0, as in [0.003,0.01,0.03,0.1], or null"),
    ("dataset.num_classes", 1, "a whole number of at least 2, or null"),
    ("dataset.val_fraction", 1, "a number between 0 and 1"),
    ("dataset.std", [0.0], "a list with a number above 0 for each channel, or null"),
    ("dataset.augment", 3, f"names, each with {MAPPING}"),
    ("dataset.augment.flip", True, f"dataset.augment.flip.ARGUMENT=VALUE, or {MAPPING}"),
    ("device.kind", "gpu", "one of auto, cpu, cuda, mps"),
    ("device.precision", "fp8", "one of auto, fp32, tf32, bf16, fp16"),
    ("device.compile", "fast", "one of off, default, max"),
    ("mode", "soft", MAPPING),
    ("dataset.source", "digits", MAPPING),  # no group has its name
    ("training.student.optimizer", "sgd", f"training/student/optimizer=sgd, or {MAPPING}"),
    *(("mode.temperature", value, "a number above 0") for value in (0, "hot")),
    ("mode.alpha", 1.1, "a number from 0 to 1"),
    ("training.student.optimizer.lr", 0, "a number above 0"),
    ("training.student.schedule.warmup_epochs", -1, "a number of at least 0"),
]
MISTAKES = [
    ("store_dir", "???", "store_dir=nothing is not accepted\n  write store_dir=VALUE; it has no default"),
    ("mode.alpha", "???", "mode.alpha=nothing is not accepted\n  write mode.alpha=VALUE; it has no default"),
    ("training.student", 3, "training.student=3 is not accepted\n  it is a group of keys"),
    ("device", None, "device=null is not accepted\n  it is a group of keys"),
    ("sede", 1, "sede is not a key of the configuration\n  did you mean seed?"),
    ("zzzzzz", 1, "zzzzzz is not a key of the configuration\n  distill-run --help lists the keys"),
    ("training.student.epoch", 1,
     "training.student.epoch is not a key of the configuration\n  did you mean training.student.epochs"),
]  # fmt: skip


def test_a_mistake_is_told_with_key_value_and_remedy(composed: dict[str, Any]) -> None:
    for key, value, message in MISTAKES + [(key, value, refusal(key, value, words)) for key, value, words in REFUSED]:
        config = copy.deepcopy(composed)
        set_key(config, key, value)
        told = message_of(read_settings, config)
        if key.endswith(".epoch"):  # less similar keys follow
            told = told[: len(message)]
        assert told == message


def test_a_missing_key_and_a_missing_group_are_told(config: dict[str, Any]) -> None:
    del config["training"]["student"]["epochs"]
    del config["device"]
    assert message_of(read_settings, config) == (
        "training.student.epochs is missing\n  add it, as in training.student.epochs=...\n"
        "device is missing\n  add it, as in device=..."
    )


def test_all_mistakes_are_told_at_once(config: dict[str, Any]) -> None:
    for key, value in (("seed", -1), ("mode.alpha", 2), ("training.teacher.epoch", 3), ("device.kind", "gpu")):
        set_key(config, key, value)
    del config["training"]["student"]["clip_norm"]
    with pytest.raises(UserError) as caught:
        read_settings(config)
    assert {mistake.what for mistake in caught.value.mistakes} == {
        "seed=-1 is not accepted",
        "mode.alpha=2 is not accepted",
        "training.teacher.epoch is not a key of the configuration",
        "device.kind=gpu is not accepted",
        "training.student.clip_norm is missing",
    }


def test_mistakes_of_one_node_are_told_in_the_order_of_the_file(config: dict[str, Any]) -> None:
    """A set's order changes from process to process; the same command is to say the same thing."""
    names = [f"unknown_{letter}" for letter in "qwertyuiop"]
    for name in names:
        config[name] = 1
    with pytest.raises(UserError) as caught:
        read_settings(config)
    assert [mistake.what.split(" ")[0] for mistake in caught.value.mistakes] == names


def test_other_keys_of_a_component_are_left_to_its_constructor(config: dict[str, Any]) -> None:
    set_key(config, "student.lr_of_something", -1)
    set_key(config, "student.anything", {"alpha": -1})
    read_settings(config)


def test_only_the_constructor_of_a_component_of_one_s_own_refuses_a_value(config: dict[str, Any]) -> None:
    for key, value in (("alpha", 2), ("momentum", 1.0), ("temperature", "hot"), ("dropout", None)):
        own = {"_target_": "my_objective.Mine", key: value}
        config["mode"] = own
        assert read_settings(config).mode == own
        config["mode"] = {**own, "_target_": "distill_run.objectives.soft.SoftTargets"}
        assert message_of(read_settings, config).startswith(f"mode.{key}=")
