"""What `distill-run` does: it checks everything, then does one run, or lets Hydra do the runs of a sweep.

No torch at module level: help, shell completion and mistakes in the configuration are told without it.
"""

import contextlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from distill_run.commands.arguments import arguments_for_hydra, full_errors, hydra_words, read_arguments
from distill_run.commands.help import WIDTH, help_page
from distill_run.commands.plugins import offer_plugins
from distill_run.commands.point import place_point
from distill_run.commands.preflight import LOADING, announce, one_seed_a_point, preflight, read_command
from distill_run.commands.runner import run_alone, run_recorded
from distill_run.commands.subdirs import check_subdirs
from distill_run.commands.torchrun import end_together, follow_first
from distill_run.config.compose import command_line, config_dir, offer_roles, own_folder_overrides, register
from distill_run.config.explain import naming_files
from distill_run.config.overrides import count_points, swept_keys
from distill_run.config.paths import readable
from distill_run.config.presets import expand_patterns, expand_presets, sweeper_overrides
from distill_run.config.versions import VERSION_BASE
from distill_run.errors import first_line, interruptions, user_error
from distill_run.processes import rank_in_torchrun
from distill_run.quoting import override
from distill_run.sweeps.request import Request


def run_command(words: Sequence[str]) -> bool:
    """Do what the words after `distill-run` say; whether no run has failed."""
    arguments = read_arguments(words)
    extra_dir: Path | None = arguments.config_dir
    overrides = readable(arguments.overrides, arguments.multirun)
    if arguments.help:
        sys.stdout.write(help_page(extra_dir, min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)))
        return True
    if arguments.cfg:
        read_command(overrides, extra_dir, multirun=False)
    if arguments.cfg or arguments.info or arguments.shell_completion or arguments.hydra_help:
        _call_hydra(hydra_words(arguments), overrides, extra_dir)
        return True
    if rank_in_torchrun():
        return follow_first()
    with naming_files(overrides, extra_dir):
        whole, has_preset = expand_presets(overrides, extra_dir)
        if arguments.multirun or has_preset:
            return _run_sweep(whole, extra_dir)
        return _run_alone(whole, extra_dir)


def _run_alone(overrides: list[str], extra_dir: Path | None) -> bool:
    """Do one run, or train one again and compare it; whether all went well."""
    (checked,) = read_command(overrides, extra_dir, multirun=False)  # the run itself checks what needs torch
    announce(LOADING)
    if checked.settings.verify:
        from distill_run.commands.verify import verify  # loaded only here: it needs torch

        return verify(checked.settings, Path(checked.settings.verify))
    run_alone(checked.settings, checked.output_dir, command_line(checked.composed.overrides, checked.settings.code_dir))
    if rank_in_torchrun() is not None:
        end_together()
    return True


def _run_sweep(overrides: list[str], extra_dir: Path | None) -> bool:
    """Run all points that are not completed yet; whether all of them are completed in the end."""
    if rank_in_torchrun() is not None:
        what = "torchrun starts the processes of one run, and this command asks for several runs"
        raise user_error(what, "write it without torchrun, with device.num_processes=2 for two processes in each run")
    overrides = expand_patterns(overrides, extra_dir)
    points = preflight(overrides, extra_dir, multirun=True)
    first = points[0].composed
    if of_files := sweeper_overrides(first, overrides):
        overrides = expand_patterns([*of_files, *overrides], extra_dir)
        points = preflight(overrides, extra_dir, multirun=True)
    check_subdirs(overrides, extra_dir, first)

    from distill_run.sweeps.host import Place, host  # loaded only here: it needs rich
    from distill_run.sweeps.progress import SweepProgress

    command = command_line(["-m", *overrides], str(extra_dir) if extra_dir else None)
    settings = [point.settings for point in points]
    own = one_seed_a_point(settings)
    request = Request.of(command, count_points(overrides) if first.is_grid else None, settings, extra_dir)
    is_dated = "${now:" in first.sweep_patterns["dir"]
    place = Place("hydra.sweep.dir", points[0].output_dir, is_named=not is_dated)

    def work(progress: SweepProgress) -> None:
        words = ["--multirun", *(["--config-dir", str(extra_dir)] if extra_dir else [])]
        with progress.shown(), _errors_of_hydra():
            _call_hydra(words, [*overrides, *own, override("hydra.sweep.dir", progress.directory)], extra_dir)

    return host(request, place, swept_keys(overrides), work)


@contextlib.contextmanager
def _errors_of_hydra() -> Iterator[None]:
    """Get what goes wrong while Hydra runs a sweep as an exception, not printed and ended; some as a UserError."""
    try:
        with interruptions(), full_errors():
            yield
    except BrokenExecutor as error:
        what = "a process of the sweep was killed, perhaps for want of memory"
        remedy = "write hydra.launcher.n_jobs=1; the same command goes on with the sweep"
        raise user_error(what, remedy) from error
    except (HydraException, OmegaConfBaseException, OSError) as error:
        what = f"the sweep could not go on: {first_line(error)}"
        raise user_error(what, "the same command goes on with it; HYDRA_FULL_ERROR=1 shows where it was") from error


def _call_hydra(words: list[str], overrides: list[str], extra_dir: Path | None) -> None:
    """Let Hydra do what its options say; each point of a sweep is done by `run_point`."""
    register()
    offer_plugins()
    if extra_dir is not None:
        offer_roles(extra_dir)
        overrides = [*overrides, *own_folder_overrides(extra_dir)]
    with arguments_for_hydra([*words, *overrides]):
        hydra.main(config_path=str(config_dir()), config_name="config", **VERSION_BASE)(run_point)()


def run_point(config: DictConfig) -> float | None:
    """A sweep's point, in whichever process Hydra's launcher calls it.

    Paths mean what they mean where the command was typed, also with hydra.job.chdir=true. Returns
    RunReport.val_goodness, which Hydra's sweepers can maximise; None for a failed point.
    """
    from distill_run.engine.interrupt import end_with_parent

    end_with_parent()
    with contextlib.chdir(HydraConfig.get().runtime.cwd):
        point = place_point(config)
        return None if point is None else run_recorded(*point)
