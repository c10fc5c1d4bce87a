"""The command `distill-run`: checks everything, then does one run, or lets Hydra do the runs of a sweep.

No torch at module level: help, shell completion and mistakes in the configuration are told without it.
"""

import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from distill_run.commands.arguments import arguments_for_hydra, hydra_words, read_arguments
from distill_run.commands.help import help_page
from distill_run.commands.preflight import preflight, read_command
from distill_run.commands.runner import run_alone, run_recorded
from distill_run.config.compose import command_line, config_dir, offer_roles, own_folder_overrides, register
from distill_run.config.overrides import count_points, swept_keys
from distill_run.config.presets import expand_presets
from distill_run.config.versions import VERSION_BASE
from distill_run.errors import leave
from distill_run.sweeps.request import Request

if TYPE_CHECKING:
    from distill_run.data.opening import Feeds

Task = Callable[[DictConfig], float | None]


def main() -> NoReturn:
    """Run the command line in sys.argv; exits with 0, with 1 after a mistake, with 130 after an interruption."""
    leave(lambda: _run_command(read_arguments(sys.argv[1:])))


def _run_command(arguments: Namespace) -> bool:
    """Do what the command line says; whether no run has failed."""
    if arguments.help:
        sys.stdout.write(help_page())
        return True
    extra_dir: Path | None = arguments.config_dir
    if arguments.cfg:
        read_command(arguments.overrides, extra_dir, multirun=False)
    if arguments.cfg or arguments.info or arguments.shell_completion or arguments.hydra_help:
        _call_hydra(hydra_words(arguments), arguments.overrides, extra_dir)
        return True
    overrides, has_preset = expand_presets(arguments.overrides, extra_dir)
    if arguments.multirun or has_preset:
        return _run_sweep(overrides, extra_dir)
    (checked,) = preflight(overrides, extra_dir, multirun=False)
    run_alone(checked.settings, checked.output_dir, command_line(checked.overrides, checked.settings.code_dir))
    return True


def _run_sweep(overrides: list[str], extra_dir: Path | None) -> bool:
    """Run all points that are not completed yet; whether none has failed."""
    points = preflight(overrides, extra_dir, multirun=True)

    from distill_run.data.opening import Feeds  # these are loaded only here: they need torch and rich
    from distill_run.sweeps.host import hosted

    command = command_line(["-m", *overrides], str(extra_dir) if extra_dir else None)
    request = Request.of(command, [point.settings for point in points], extra_dir)
    is_named = any(override.startswith("hydra.sweep.dir=") for override in overrides)
    words = ["--multirun", *(["--config-dir", str(extra_dir)] if extra_dir else [])]
    num_points, keys = count_points(overrides), swept_keys(overrides)
    host = hosted(request, points[0].output_dir, is_named=is_named, num_points=num_points, keys=keys)
    with host as progress, progress.shown():
        _call_hydra(words, [*overrides, f"hydra.sweep.dir='{progress.directory}'"], extra_dir, point_runner(Feeds()))
    return not progress.has_failures


def _call_hydra(words: list[str], overrides: list[str], extra_dir: Path | None, task: Task | None = None) -> None:
    """Let Hydra do what its options say; `task` does each point of a sweep."""
    register()
    if extra_dir is not None:
        offer_roles(extra_dir)
        overrides = [*overrides, *own_folder_overrides(extra_dir)]
    with arguments_for_hydra([*words, *overrides]):
        hydra.main(config_path=str(config_dir()), config_name="config", **VERSION_BASE)(task or _nothing)()


def point_runner(feeds: "Feeds") -> Task:
    """Runs a sweep's points, in whichever process Hydra's launcher calls it; those of one process share the images.

    It returns the student's validation accuracy, so that Hydra's sweepers can optimise it; None for a failed point.
    """

    def run_point(config: DictConfig) -> float | None:
        own = HydraConfig.get()
        overrides = list(own.overrides.task)
        command = command_line(overrides, config.code_dir)
        return run_recorded(lambda: config, overrides, Path(own.runtime.output_dir), command, feeds)

    return run_point


def _nothing(config: DictConfig) -> None:
    """Stands for a task where Hydra only shows what it knows."""
