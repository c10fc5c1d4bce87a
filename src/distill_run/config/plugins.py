"""What launchers and sweepers need, and where they run; what is missing is told before anything runs."""

import importlib.util
import shlex
import shutil
from typing import NamedTuple

from omegaconf import DictConfig

from distill_run import rules
from distill_run.errors import Mistake, UserError, user_error
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


# The targets of our own launchers, on which a file of the user's may be built.
CLUSTERS = {
    "hydra_plugins.distill_run.slurm.SlurmLauncher": "slurm",
    "hydra_plugins.distill_run.ray.RayLauncher": "ray_cluster",
}


def check_engine(own: DictConfig) -> None:
    """Raise UserError where the launcher or the sweeper needs what this machine lacks; `own` is Hydra's part."""
    options = {"hydra/launcher": _launcher(own), "hydra/sweeper": own.runtime.choices["hydra/sweeper"]}
    if mistakes := list(filter(None, (missing_package(group, option) for group, option in options.items()))):
        raise UserError(mistakes)
    if options["hydra/launcher"] == "slurm":
        rules.one_of("slurm", "local").check("hydra.launcher.cluster", own.launcher.cluster)
        if own.launcher.cluster == "slurm" and shutil.which("sbatch") is None:
            raise user_error(
                "hydra/launcher=slurm: this machine has no sbatch",
                "type the command on a login node of the cluster; hydra.launcher.cluster=local runs the jobs here",
            )


def is_here(own: DictConfig) -> bool:
    """Whether the points of a sweep run on this machine, not on those of a cluster; `own` is Hydra's part."""
    launcher = _launcher(own)
    if launcher == "slurm":
        return bool(own.launcher.cluster == "local")
    return launcher != "ray_cluster" or own.launcher.init.address is None


def _launcher(own: DictConfig) -> str:
    return CLUSTERS.get(own.launcher._target_) or str(own.runtime.choices["hydra/launcher"])


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
