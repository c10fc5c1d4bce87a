"""A point of a sweep, as Hydra hands it over. No torch at module level."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from distill_run.config.compose import command_line
from distill_run.config.paths import at_home
from distill_run.errors import UserError
from distill_run.record.status import record_failure
from distill_run.sweeps.places import refused_place, take_place


class Point(NamedTuple):
    """What a point runs and where; `compose` gives its configuration, and may raise UserError."""

    compose: Callable[[], DictConfig]
    overrides: list[str]
    run_dir: Path
    command: str


def place_point(config: DictConfig) -> Point | None:
    """The point that Hydra calls with this configuration; None where it cannot have its folder: a file says why."""
    own = HydraConfig.get()
    overrides = list(own.overrides.task)
    command = command_line(overrides, config.code_dir)
    sweep_dir, number = Path(own.sweep.dir), int(own.job.num)
    try:
        run_dir = take_place(sweep_dir, number, Path(own.runtime.output_dir))
    except UserError as error:
        record_failure(refused_place(sweep_dir, number), str(error), command)
        return None
    return Point(lambda: at_home(config), overrides, run_dir, command)
