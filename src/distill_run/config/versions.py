"""What differs between Hydra 1.3 with OmegaConf 2.3 and Hydra 1.4 with OmegaConf 2.4: each is called as it wants."""

import inspect
from collections.abc import Callable
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import Container, OmegaConf

_is_older = tuple(map(int, hydra.__version__.split(".")[:2])) < (1, 4)
# Hydra 1.3 warns where `version_base` is missing, Hydra 1.4 where it is given.
VERSION_BASE: dict[str, Any] = {"version_base": "1.3"} if _is_older else {}
# Hydra 1.4 warns where a configuration is stored twice and `replace` is missing; Hydra 1.3 has no such parameter.
_REPLACE: dict[str, Any] = {"replace": True} if "replace" in inspect.signature(ConfigStore.store).parameters else {}


def _itself(store: ConfigStore, _: Any) -> ConfigStore:
    return store


# Hydra copies the store of options for every composition, and then only reads it: a third of the time.
ConfigStore.__deepcopy__ = _itself  # type: ignore[attr-defined]


def store_config(group: str, name: str, node: Container, package: str | None = None) -> None:
    """Make `node` an option of a config group, in place of an option of the same name."""
    ConfigStore.instance().store(group=group, name=name, node=node, package=package, **_REPLACE)


def register_resolver(name: str, resolver: Callable[..., Any]) -> None:
    """Let configurations write ${name:...}. OmegaConf 2.4 gives this an old name, which meant something else."""
    has_new_meaning = "replace" in inspect.signature(OmegaConf.register_resolver).parameters
    register: Any = OmegaConf.register_resolver if has_new_meaning else OmegaConf.register_new_resolver
    register(name, resolver, replace=True)
