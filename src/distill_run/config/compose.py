"""From command-line overrides to a configuration: where the YAML lies, how groups are offered, what Hydra composes."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from distill_run.config.paths import at_home
from distill_run.config.schema import Settings, read_settings
from distill_run.config.variants import Variants
from distill_run.config.versions import VERSION_BASE, register_resolver, store_config
from distill_run.errors import interruptions, user_error
from distill_run.quoting import for_hydra, for_omegaconf, override

# A file of these folders is written once and offered under several group names.
ROLES = {
    "model": ("teacher", "student"),
    "optimizer": ("training/teacher/optimizer", "training/student/optimizer"),
    "schedule": ("training/teacher/schedule", "training/student/schedule"),
}
# Groups of which several files may be chosen, as in 'also=[crd,sp]': each file gets a key of its own name.
LISTS = {
    "also": ("mode", "mode.also"),
    "more_teachers": ("model", "more_teachers"),
    "assistants": ("model", "assistants"),
    "watchers": ("watcher", "watchers"),
    "tracker": ("watcher", "tracker"),
    "augment": ("augmentation", "dataset.augment"),
}


@dataclass(frozen=True)
class Composed:
    """What Hydra makes of a command line: the resolved configuration, and Hydra's own part (directories, choices)."""

    config: DictConfig
    hydra: DictConfig

    @property
    def overrides(self) -> list[str]:
        """The overrides of the command line without those of Hydra's own keys."""
        return list(self.hydra.overrides.task)

    @property
    def is_grid(self) -> bool:
        """Whether a sweep runs each combination of the swept values once, as Hydra's own sweeper does."""
        return str(self.hydra.sweeper._target_).endswith((".GridSweeper", ".BasicSweeper"))

    @property
    def sweep_patterns(self) -> dict[str, str]:
        """What names the folder of a sweep (`dir`) and those of its points (`subdir`), as it was written."""
        return {str(key): str(value) for key, value in plain_config(self.hydra.sweep, resolve=False).items()}


def compose(overrides: Sequence[str] = (), extra_dir: Path | None = None, variants: Variants | None = None) -> Composed:
    """The configuration of a command line's overrides, not checked yet.

    `extra_dir` is a folder of your own files, as `--config-dir` names it; `variants` serve several command lines that
    differ in little. Raises Hydra's ConfigCompositionException for an override that names no key or no option;
    `settings.compose_or_explain` says instead what to write.
    """
    register()
    overrides = list(overrides)
    if extra_dir is not None:
        offer_roles(extra_dir)
        overrides += own_folder_overrides(extra_dir)
        overrides.append(f"hydra.searchpath=[{for_hydra(f'file://{extra_dir.resolve()}')}]")
    composed = (variants or new_variants()).compose(overrides)
    HydraConfig.instance().set_config(composed)  # ${hydra:...} reads it, in `names`
    config = OmegaConf.masked_copy(at_home(composed), [str(key) for key in composed if key != "hydra"])
    return Composed(literal_config(plain_config(config)), composed.hydra)


def new_variants() -> Variants:
    """What composes several command lines that differ in little, see `compose`."""
    return Variants(_compose_whole)


def _compose_whole(overrides: list[str]) -> DictConfig:
    with interruptions(), initialize_config_dir(str(config_dir()), **VERSION_BASE):
        return hydra.compose("config", overrides, return_hydra_config=True)


def literal_config(plain: Mapping[str, Any]) -> DictConfig:
    """The configuration of plain values, in whose texts `${` begins no interpolation."""
    return with_compile_word(OmegaConf.create({key: _literal(value) for key, value in plain.items()}))


def with_compile_word(config: DictConfig) -> DictConfig:
    """The same configuration, with a word in device.compile: to YAML an `off` is false, and earlier versions had flags.

    Whatever is no flag stays as it is.
    """
    device = OmegaConf.select(config, "device")
    if OmegaConf.is_dict(device) and isinstance(device.get("compile"), bool):
        device["compile"] = "default" if device["compile"] else "off"
    return config


def _literal(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_literal(item) for item in value]
    return for_omegaconf(value) if isinstance(value, str) else value


def check(config: DictConfig) -> Settings:
    """The typed settings of a configuration; raises UserError with every mistake that can be found without torch."""
    return read_settings(plain_config(config))


def plain_config(config: DictConfig, resolve: bool = True) -> dict[str, Any]:
    """The configuration as plain, resolved containers; a missing value stays as ???."""
    plain = OmegaConf.to_container(config, resolve=resolve)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def config_dir() -> Path:
    """The folder of the YAML files: inside the package when installed, at the top of a checkout otherwise."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "conf", package.parents[1] / "conf"):
        if (candidate / "config.yaml").is_file():
            return candidate
    raise FileNotFoundError(f"distill-run's configuration files are neither in {package} nor in its checkout")


def new_run_dir() -> Path:
    """The folder of a run that begins now, as the configuration names it."""
    return Path(compose().hydra.run.dir)


def option_names(group: str, extra_dir: Path | None = None) -> list[str]:
    """The options of a group, those of the user's own folder among them; an experiment may lie in a folder of its own.

    Of Hydra's own groups, such as hydra/launcher, the options that plug-ins bring are not among them.
    """
    return sorted(option_paths(group, extra_dir))


def load_options(group: str, extra_dir: Path | None) -> dict[str, DictConfig]:
    """The files of a group's options, by the names of the options."""
    paths = option_paths(group, extra_dir)
    return {name: _load(paths[name], paths[name].stat().st_mtime_ns) for name in sorted(paths)}


def option_paths(group: str, extra_dir: Path | None) -> dict[str, Path]:
    """The files of a group's options, by the names of the options; a file of the user's own goes before ours."""
    source = next((folder for folder, groups in ROLES.items() if group in groups), group)
    source = LISTS[group][0] if group in LISTS else source
    pattern = "**/*.yaml" if source == "experiment" else "*.yaml"
    found = {}
    for folder in (config_dir() / source, *([extra_dir / source] if extra_dir else [])):
        for path in folder.glob(pattern):
            if not path.stem.startswith("_") and not path.is_dir():
                found[path.relative_to(folder).with_suffix("").as_posix()] = path
    return found


def register() -> None:
    """Make the packaged roles and the resolver of the run directory known to Hydra."""
    offer_roles(config_dir())
    register_resolver("run_dir", _run_dir)


def offer_roles(directory: Path) -> None:
    """Offer each file of conf/model as `teacher=` and as `student=`, and so on for each entry of ROLES and LISTS."""
    for folder in dict.fromkeys([*ROLES, *(source for source, _ in LISTS.values())]):
        for path in sorted((directory / folder).glob("*.yaml")):
            changed = path.stat().st_mtime_ns
            if _offered().get((folder, path.stem)) != (path, changed):
                _offer(folder, path.stem, _load(path, changed))
                _offered()[folder, path.stem] = (path, changed)


@cache
def _offered() -> dict[tuple[str, str], tuple[Path, int]]:
    """The file that each option was offered from last; Hydra's store belongs to the process, too.

    To offer all of them again takes a quarter of the time of a composition.
    """
    return {}


def _offer(folder: str, name: str, node: DictConfig) -> None:
    for group in ROLES.get(folder, ()):
        store_config(group, name, node)
    for group, (source, key) in LISTS.items():
        if source == folder:
            is_preset = group == "augment" and "_target_" not in node  # it sets keys of several steps
            store_config(group, name, node, package=key if is_preset else f"{key}.{name}")


@cache
def _load(path: Path, changed: int) -> DictConfig:  # noqa: ARG001 - a file that has changed is read again
    """A YAML file, parsed once: every composition offers all of them. Raises UserError where it has a mistake."""
    try:
        node = OmegaConf.load(path)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise user_error(f"{path} cannot be read: {' '.join(str(error).split())}", "mend it, or remove it") from error
    if not isinstance(node, DictConfig):
        raise user_error(f"{path} holds no keys", "write lines of the form KEY: VALUE into it, or remove it")
    return node


def _run_dir(resume: str | None, new: str) -> str:
    return str(resume) if resume else new  # a folder may be called 2024


def own_folder_overrides(extra_dir: Path) -> list[str]:
    """The overrides that `--config-dir` adds to the command line: targets may name Python files of that folder."""
    return [override("code_dir", extra_dir.resolve())]


def command_line(overrides: Sequence[str], code_dir: str | None) -> str:
    """The command that a person types to repeat a run with these overrides."""
    folder = ["--config-dir", code_dir] if code_dir else []
    own = [each for each in overrides if not each.startswith("code_dir=")]
    return shlex.join(["distill-run", *folder, *own])
