"""The command `distill-run`: checks everything, then does one run, or lets Hydra do the runs of a sweep.

No torch at module level: help, shell completion and mistakes in the configuration are told without it.
"""

import shutil
import sys
from argparse import Namespace
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from distill_run.commands.arguments import arguments_for_hydra, hydra_words, read_arguments
from distill_run.commands.help import WIDTH, help_page
from distill_run.commands.preflight import LOADING, announce, one_seed_a_point, preflight, read_command
from distill_run.commands.runner import run_alone, run_recorded
from distill_run.commands.threads import let_threads_wait
from distill_run.config.compose import command_line, config_dir, offer_roles, own_folder_overrides, register
from distill_run.config.overrides import count_points, swept_keys
from distill_run.config.presets import expand_presets
from distill_run.config.versions import VERSION_BASE
from distill_run.errors import leave
from distill_run.sweeps.request import Request


def main() -> NoReturn:
    """Run the command line in sys.argv; exits with 0, with 1 after a mistake, with 130 after an interruption."""
    let_threads_wait()
    leave(lambda: _run_command(read_arguments(sys.argv[1:])))


def _run_command(arguments: Namespace) -> bool:
    """Do what the command line says; whether no run has failed."""
    extra_dir: Path | None = arguments.config_dir
    if arguments.help:
        sys.stdout.write(help_page(extra_dir, min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)))
        return True
    if arguments.cfg:
        read_command(arguments.overrides, extra_dir, multirun=False)
    if arguments.cfg or arguments.info or arguments.shell_completion or arguments.hydra_help:
        _call_hydra(hydra_words(arguments), arguments.overrides, extra_dir)
        return True
    overrides, has_preset = expand_presets(arguments.overrides, extra_dir)
    if arguments.multirun or has_preset:
        return _run_sweep(overrides, extra_dir)
    (checked,) = read_command(overrides, extra_dir, multirun=False)  # the run itself checks what needs torch
    announce(LOADING)
    if checked.settings.verify:
        from distill_run.commands.verify import verify  # loaded only here: it needs torch

        return verify(checked.settings, Path(checked.settings.verify))
    run_alone(checked.settings, checked.output_dir, command_line(checked.overrides, checked.settings.code_dir))
    return True


def _run_sweep(overrides: list[str], extra_dir: Path | None) -> bool:
    """Run all points that are not completed yet; whether none has failed."""
    points = preflight(overrides, extra_dir, multirun=True)

    from distill_run.sweeps.host import Place, hosted  # loaded only here: it needs rich

    command = command_line(["-m", *overrides], str(extra_dir) if extra_dir else None)
    settings = [point.settings for point in points]
    own = one_seed_a_point(settings)
    request = Request.of(command, count_points(overrides), settings, extra_dir)
    is_named = any(override.startswith("hydra.sweep.dir=") for override in overrides)
    words = ["--multirun", *(["--config-dir", str(extra_dir)] if extra_dir else [])]
    place = Place("hydra.sweep.dir", points[0].output_dir, is_named)
    with hosted(request, place, swept_keys(overrides)) as progress, progress.shown():
        _call_hydra(words, [*overrides, *own, f"hydra.sweep.dir='{progress.directory}'"], extra_dir)
    return not progress.has_failures


def _call_hydra(words: list[str], overrides: list[str], extra_dir: Path | None) -> None:
    """Let Hydra do what its options say; each point of a sweep is done by `run_point`."""
    register()
    if extra_dir is not None:
        offer_roles(extra_dir)
        overrides = [*overrides, *own_folder_overrides(extra_dir)]
    with arguments_for_hydra([*words, *overrides]):
        hydra.main(config_path=str(config_dir()), config_name="config", **VERSION_BASE)(run_point)()


def run_point(config: DictConfig) -> float | None:
    """A sweep's point, in whichever process Hydra's launcher calls it.

    Returns RunReport.val_goodness, which Hydra's sweepers can maximise; None for a failed point.
    """
    from distill_run.engine.interrupt import end_with_parent

    end_with_parent()
    own = HydraConfig.get()
    overrides = list(own.overrides.task)
    command = command_line(overrides, config.code_dir)
    return run_recorded(lambda: config, overrides, Path(own.runtime.output_dir), command)
