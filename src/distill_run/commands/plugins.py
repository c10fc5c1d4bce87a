"""Our own sweeper and launchers: Hydra gets to know them, and their keys are checked before anything is written."""

import difflib
from inspect import Parameter, signature

from hydra.core.plugins import Plugins
from omegaconf import DictConfig

from distill_run.errors import Mistake, UserError
from hydra_plugins.distill_run.fused import FusedLauncher
from hydra_plugins.distill_run.ray import RayLauncher
from hydra_plugins.distill_run.slurm import SlurmLauncher, known_parameters
from hydra_plugins.distill_run.sweeper import GridSweeper

PLUGINS = (GridSweeper, FusedLauncher, SlurmLauncher, RayLauncher)
TARGETS = {f"{plugin.__module__}.{plugin.__qualname__}": plugin for plugin in PLUGINS}


def offer_plugins() -> None:
    """Make the sweeper and the launchers known to Hydra, which does not find them by itself in an editable install."""
    for plugin in PLUGINS:
        Plugins.instance().register(plugin)


def check_keys(own: DictConfig) -> None:
    """Raise UserError for keys that our launcher or our sweeper does not know; `own` is Hydra's part.

    They come from a `+` or a file of the user's. Hydra itself refuses them for launchers and sweepers of other people.
    """
    mistakes = []
    for part in ("launcher", "sweeper"):
        plugin = TARGETS.get(own[part]._target_)
        if plugin is not None:
            known = _known_keys(plugin)
            unknown = [str(key) for key in own[part] if not str(key).startswith("_") and key not in known]
            group = f"hydra/{part}={own.runtime.choices[f'hydra/{part}']}"
            mistakes += [_unknown(f"hydra.{part}.", key, known, group) for key in unknown]
    if mistakes:
        raise UserError(mistakes)


def _known_keys(plugin: type) -> list[str]:
    named = [name for name, each in signature(plugin).parameters.items() if each.kind is not Parameter.VAR_KEYWORD]
    return named + (known_parameters() if plugin is SlurmLauncher else [])


def _unknown(prefix: str, key: str, known: list[str], group: str) -> Mistake:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    remedy = f"did you mean {prefix}{near[0]}?" if near else f"its keys are {', '.join(sorted(set(known)))}"
    return Mistake(f"{prefix}{key} is not a key of {group}", remedy)
