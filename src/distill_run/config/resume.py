"""The settings of a run that goes on: those that it saved, brought up to date, and moved where the command says."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from distill_run.config.compose import check, compose, literal_config
from distill_run.config.overrides import keys_of, parse
from distill_run.config.schema import Settings
from distill_run.errors import Mistake, UserError, first_line, show, user_error
from distill_run.files import RunFiles
from distill_run.quoting import for_omegaconf
from distill_run.typed_json import read_object

# Keys that may differ from those of the interrupted run, and the saved keys that follow from them.
MAY_MOVE = {
    **{f"dataset.{name}": (f"dataset.{name}", f"dataset.source.{name}") for name in ("root", "train", "val", "test")},
    "store_dir": ("store_dir",),
    "code_dir": ("code_dir",),
    "resume": ("resume",),
    **{key: (key,) for key in ("export", "export_int8", "measure_speed", "robustness_images", "tracker")},
}
# A null of these keys is replaced by what the data say, and saved like that.
FILLED_IN = (
    "dataset.num_classes",
    "dataset.mean",
    "dataset.std",
    "repeats",
    *(f"training.{role}.{key}" for role in ("teacher", "student") for key in ("epochs", "batch_size")),
)
# Keys that earlier versions did not have, with what every run of such a version did.
ADDED_TO_RECIPES: dict[str, Any] = {
    "accumulation": 1,
    "ema": None,
    "decay_norms": True,
    "backbone_lr_factor": None,
    "freeze_batch_norm": False,
}
ADDED: dict[str, Any] = {
    "dataset": {
        "sampling": None,
        "unlabelled": None,
        "unlabelled_share": None,
        "image_size": None,
        "crop_ratio": None,
        "memory_gigabytes": None,
        "workers": None,
        "on_error": "refuse",
    },
    "training": {
        "class_weights": None,
        "select_by": "accuracy",
        "teacher": ADDED_TO_RECIPES,
        "student": ADDED_TO_RECIPES,
    },
}
MOVED_MODULES = {"distill_run.schedules.": "distill_run.engine.schedules."}


def resumed_settings(saved_path: Path, composed: DictConfig, overrides: Sequence[str]) -> Settings:
    """The settings in the file `saved_path`, with which the run in the folder `composed.resume` goes on.

    `composed` is the configuration of `overrides`. Raises UserError where `overrides` contradict what was saved.
    """
    saved = _read(saved_path)
    _find_paths_again(saved, saved_path.parent)
    _upgrade(saved, composed)
    mistakes: dict[Mistake, None] = {}  # several overrides may name one key
    for override in parse(overrides):
        key = override.key_or_group.replace("/", ".")
        if key in MAY_MOVE:
            _move(saved, key, composed)
        else:
            mistakes.update(dict.fromkeys(_contradictions(saved, OmegaConf.select(composed, key), key)))
    if mistakes:
        raise UserError(mistakes)
    _move(saved, "resume", composed)
    return check(saved)


def saved_settings(saved_path: Path) -> Settings:
    """The settings in the file `saved_path`, which a run has saved, brought up to date."""
    return resumed_settings(saved_path, compose().config, [])


def _read(saved_path: Path) -> DictConfig:
    """What a run has saved, read by the grammar that it was written in: OmegaConf's takes a text 1e3 for a number."""
    try:
        plain = yaml.safe_load(saved_path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        what = f"{saved_path} cannot be read ({first_line(error)})"
        raise user_error(what, "start a new run, without resume=") from error
    if not isinstance(plain, dict):
        raise user_error(f"{saved_path} holds no settings", "start a new run, without resume=")
    return literal_config(plain)


def _find_paths_again(saved: DictConfig, run_dir: Path) -> None:
    """Make relative paths whole where the command is typed in another folder than that of the run, if it is there.

    A run that was moved or copied with all that it uses finds that in the working directory.
    """
    try:
        began_in = Path(str(read_object(RunFiles(run_dir).environment)["directory"]))
    except (ValueError, KeyError):
        return
    if not run_dir.absolute().is_relative_to(began_in) or Path.cwd() == began_in:
        return
    for key in (*(name for names in MAY_MOVE.values() for name in names), "teacher_checkpoint"):
        value = OmegaConf.select(saved, key)
        if isinstance(value, str) and (began_in / value).exists():
            OmegaConf.update(saved, key, for_omegaconf(str(began_in / value)))


def _contradictions(saved: DictConfig, node: Any, key: str) -> Iterator[Mistake]:
    """A mistake for each value of the command line that is not the saved one."""
    for name, given in _leaves(node, key):
        before = OmegaConf.select(saved, name)
        if given in ("auto", before) or (given is None and name in FILLED_IN):
            continue
        remedy = "leave that key out, or start a new run without resume="
        yield Mistake(f"{name} was {show(before)}, the command says {show(given)}", remedy)


def _leaves(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, DictConfig):
        for name in keys_of(node):
            yield from _leaves(node[name], f"{key}.{name}")
    else:
        yield key, OmegaConf.to_container(node) if OmegaConf.is_config(node) else node


def _move(saved: DictConfig, key: str, composed: DictConfig) -> None:
    """Set `key`, and the saved keys that follow from it, to what the command says."""
    for name in MAY_MOVE[key]:
        if key == name or OmegaConf.select(saved, name) is not None:
            value = OmegaConf.select(composed, key)
            OmegaConf.update(saved, name, for_omegaconf(value) if isinstance(value, str) else value)


def _upgrade(saved: DictConfig, composed: DictConfig) -> None:
    """Bring a configuration that an earlier version of the program has saved to today's form."""
    for recipe in (saved.training.teacher, saved.training.student):
        for old, new in MOVED_MODULES.items():
            recipe.schedule._target_ = recipe.schedule._target_.replace(old, new)
    if "repeats" not in saved:
        saved.repeats = 1  # as in every run of such a version
    for group, added in ADDED.items():
        saved[group] = OmegaConf.merge(added, saved[group])
    for section, complete in ((saved, composed), (saved.dataset, composed.dataset)):
        for key in complete:
            if key not in section:
                section[key] = complete[key]
    _upgrade_source(saved.dataset)
    old_augment = saved.dataset.augment
    if "crop_padding" in old_augment:
        saved.dataset.augment = {
            "crop": {"_target_": "distill_run.data.augment.Crop", "padding": old_augment.crop_padding},
            "flip": {"_target_": "distill_run.data.augment.Flip", "enabled": old_augment.flip},
            "cutout": {"_target_": "distill_run.data.augment.Cutout", "size": old_augment.cutout},
        }


def _upgrade_source(dataset: DictConfig) -> None:
    """Move the image size of an image folder out of its source, where the digits still have theirs."""
    source = dataset.source
    if dataset.image_size is None and "image_size" in source:
        dataset.image_size = source.image_size
    if source._target_ == "distill_run.data.image_folder.load":
        for key in ("image_size", "store_dir"):
            source.pop(key, None)
