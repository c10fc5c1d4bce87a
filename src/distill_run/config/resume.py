"""The settings of a run that goes on: those that it saved, brought up to date, and moved where the command says."""

import shlex
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
from distill_run.quoting import bracketed, for_omegaconf
from distill_run.typed_json import read_object

# Keys that may differ from those of the interrupted run, and the saved keys that follow from them.
MAY_MOVE = {
    **{f"dataset.{name}": (f"dataset.{name}", f"dataset.source.{name}") for name in ("root", "train", "val", "test")},
    "store_dir": ("store_dir",),
    "resume": ("resume",),
    "verify": ("verify",),
    **{
        key: (key,)
        for key in (
            "export",
            "export_int8",
            "measure_speed",
            "robustness_images",
            "tracker",
            "checkpoint.every_minutes",
            "device.num_processes",
        )
    },
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
    "device": {"deterministic": True, "num_processes": 1, "sync_batch_norm": True},
    "training": {
        "class_weights": None,
        "select_by": "accuracy",
        "teacher": ADDED_TO_RECIPES,
        "student": ADDED_TO_RECIPES,
    },
}
MOVED_MODULES = {"distill_run.schedules.": "distill_run.engine.schedules."}


def resumed_settings(saved_path: Path, composed: DictConfig, overrides: Sequence[str]) -> Settings:
    """The settings in the file `saved_path`, with which a run goes on or is trained again.

    The folder of that run is `composed.resume` or `composed.verify`; `composed` is the configuration of `overrides`.
    Raises UserError where `overrides` contradict what was saved, where the file is damaged, and where it names code
    that the command does not name: it may come from a stranger.
    """
    saved = _read(saved_path, composed)
    _find_paths_again(saved, saved_path.parent)
    mistakes = dict.fromkeys(_foreign_code(saved, composed, saved_path))  # several overrides may name one key
    saved.code_dir = composed.code_dir
    for override in parse(overrides):
        key = override.key_or_group.replace("/", ".")
        if key in MAY_MOVE:
            _move(saved, key, composed)
        else:
            mistakes.update(dict.fromkeys(_contradictions(saved, OmegaConf.select(composed, key), key)))
    if mistakes:
        raise UserError(mistakes)
    for key in ("resume", "verify"):
        _move(saved, key, composed)
    return check(saved)


def saved_settings(saved_path: Path, code_dir: Path | None = None, *, trusts: bool = False) -> Settings:
    """The settings in the file `saved_path`, which a run has saved, brought up to date.

    `code_dir` is the user's own folder of code. Raises UserError where the file is damaged, and where it names other
    code, unless the user `trusts` it.
    """
    composed = compose().config
    saved = _read(saved_path, composed)
    if code_dir is not None:
        composed.code_dir = saved.code_dir = str(code_dir)
    foreign = [] if trusts else list(_foreign_code(saved, composed, saved_path))
    if foreign:
        raise UserError(Mistake(what, "if you trust it, add --trust (trusts=True in Python)") for what, _ in foreign)
    saved.resume = None
    return check(saved)


def _read(path: Path, composed: DictConfig) -> DictConfig:
    """A configuration that a run has saved, brought to today's form; raises UserError where it is damaged.

    It is read by the grammar that it was written in: OmegaConf's takes a text 1e3 for a number.
    """
    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(plain, dict):
            raise TypeError("it holds no settings")
        saved = literal_config(plain)
        _upgrade(saved, composed)
        OmegaConf.resolve(saved)
    except OSError:
        raise
    except Exception as error:  # whatever a text raises that is no YAML, or has lost some of its keys
        raise user_error(
            f"{path} is damaged: {type(error).__name__}: {first_line(error)}", "start a new run, without resume="
        ) from error
    return saved


def _foreign_code(saved: DictConfig, composed: DictConfig, path: Path) -> Iterator[Mistake]:
    """A mistake for what would be run because a saved configuration names it, and the command does not."""
    if saved.code_dir is not None and composed.code_dir is None:
        remedy = f"if you trust it, add --config-dir {shlex.quote(str(saved.code_dir))}"
        yield Mistake(f"{path} names code in {saved.code_dir}, which would be run", remedy)
    trusted = saved.trusted_packages if OmegaConf.is_list(saved.trusted_packages) else []  # `check` refuses others
    if surplus := [name for name in trusted if name not in composed.trusted_packages]:
        remedy = f"if you trust them too, add 'trusted_packages={bracketed(map(str, trusted))}'"
        yield Mistake(f"{path} trusts packages whose code would be run: {', '.join(map(str, surplus))}", remedy)


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
