"""Packages that options of Hydra's own groups need; which of them is missing is told before anything runs."""

import importlib.util
import shlex
from typing import NamedTuple

from distill_run.errors import Mistake
from distill_run.quoting import override


class Package(NamedTuple):
    """A package: the module that it brings, and what pip is told."""

    module: str
    requirement: str


PACKAGES = {
    "hydra/launcher": {
        "joblib": Package("hydra_plugins.hydra_joblib_launcher", "hydra-joblib-launcher"),
        "ray_cluster": Package("ray", "ray[default]<3"),
        "rq": Package("hydra_plugins.hydra_rq_launcher", "hydra-rq-launcher"),
        "slurm": Package("submitit", "submitit"),
    },
    "hydra/sweeper": {
        "ax": Package("hydra_plugins.hydra_ax_sweeper", "hydra-ax-sweeper"),
        "nevergrad": Package("hydra_plugins.hydra_nevergrad_sweeper", "hydra-nevergrad-sweeper"),
        "optuna": Package("hydra_plugins.hydra_optuna_sweeper", "hydra-optuna-sweeper"),
    },
}


def missing_package(group: str, option: str) -> Mistake | None:
    """The mistake for an option whose package this installation lacks; None for any other option."""
    package = PACKAGES.get(group, {}).get(option)
    if package is None or _is_installed(package.module):
        return None
    name = package.requirement.partition("[")[0]
    return Mistake(
        f"{override(group, option)} needs {name}, which is not installed",
        f"write pip install {shlex.quote(package.requirement)}",
    )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it
        return False
