"""The command `distill-run`: check everything, then let Hydra run the job or the jobs.

No torch at module level: help, shell completion and mistakes in the configuration answer without it.
"""

import os
import sys
from pathlib import Path
from typing import NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from distill_run.commands.help import help_page
from distill_run.commands.preflight import preflight, read_command, resumed_config
from distill_run.config.compose import command_line, config_dir, offer_roles, own_folder_overrides, register
from distill_run.errors import Mistake, UserError, leave, tell
from distill_run.sweeps.request import (
    Request,
    completed_accuracy,
    count_points,
    dated_directory,
    expand_presets,
    named_directory,
    record_failure,
    swept_keys,
)

failures: list[UserError] = []


def main() -> NoReturn:
    """Run the command line in sys.argv; exits with 0, with 1 after a mistake, with 130 after an interruption."""
    register()
    leave(_run_command)


def _run_command() -> bool:
    """Do what the command line says; whether all runs have succeeded."""
    parser = get_args_parser()
    args, unknown = parser.parse_known_intermixed_args()
    options = [word for word in sys.argv[1:] if word not in args.overrides]
    if unknown:
        raise UserError(_not_an_option(option, args.overrides) for option in unknown if option.startswith("-"))
    extra_dir = Path(args.config_dir) if args.config_dir else None
    own_overrides = []
    if extra_dir is not None:
        if not extra_dir.is_dir():
            raise UserError([Mistake(f"--config-dir {extra_dir} is not a folder", "give the folder of your own files")])
        offer_roles(extra_dir)
        own_overrides = own_folder_overrides(extra_dir)
    if args.help:
        sys.stdout.write(help_page())
        return True
    overrides, has_preset = expand_presets(args.overrides, extra_dir)
    multirun = args.multirun or has_preset
    if has_preset and not args.multirun:
        options.append("--multirun")
    # Hydra's own parser wants the overrides in one piece: after the options.
    sys.argv[1:] = [*options, *overrides, *own_overrides]
    if args.cfg:
        read_command(overrides, extra_dir, multirun)
        job()
    elif args.info or args.hydra_help or args.shell_completion:
        job()
    elif multirun:
        settings = preflight(overrides, extra_dir, multirun)
        return _run_sweep(Request.of(command_line(["-m", *overrides], args.config_dir), settings, extra_dir), overrides)
    else:
        preflight(overrides, extra_dir, multirun)
        job()
    return not failures


def _run_sweep(request: Request, overrides: list[str]) -> bool:
    """Run all points that are not completed yet, tell how they go, and write the sweep's report, however it ends.

    Returns whether none has failed.
    """
    from distill_run.console import Console  # here, so that help and mistakes are told without rich
    from distill_run.sweeps.progress import SweepProgress
    from distill_run.sweeps.report.pages import write_sweep_report
    from distill_run.sweeps.report.results import tell_sweep_results

    console = Console()
    new = Path(HydraConfig.get().sweep.dir)
    is_named = any(override.startswith("hydra.sweep.dir=") for override in overrides)
    with (named_directory if is_named else dated_directory)(new, request) as folder:
        sys.argv.append(f"hydra.sweep.dir='{folder}'")
        progress = SweepProgress(folder, count_points(overrides), swept_keys(overrides), console)
        try:
            with progress.told():
                job()
        except KeyboardInterrupt:
            console.note(f"interrupted; the same command goes on with it: {request.command}")
            raise
        finally:
            if progress.ended:
                tell_sweep_results(console, write_sweep_report([folder], folder), folder)
    return "failed" not in progress.ended.values()


def _not_an_option(option: str, values: list[str]) -> Mistake:
    name = option.lstrip("-")
    if "=" not in name:
        name = f"{name}={values[0] if values else 'VALUE'}"
    return Mistake(f"{option} is not an option of distill-run", f"write {name}")


@hydra.main(config_path=str(config_dir()), config_name="config", version_base="1.3")
def job(config: DictConfig) -> float | None:
    """One run; returns the student's validation accuracy, so that sweepers can optimise it."""
    if HydraConfig.get().mode is RunMode.MULTIRUN:
        return _run_point(config)
    from distill_run.run import run

    run_dir = Path(HydraConfig.get().runtime.output_dir)
    try:
        if config.resume:
            config = resumed_config(config, list(HydraConfig.get().overrides.task))
        return run(config, run_dir).val_accuracy
    except UserError as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        failures.append(error)
        tell(error)
        return None
    finally:
        _remove_unused(run_dir)


def _run_point(config: DictConfig) -> float | None:
    """A sweep's point: what it finds and how it fails stands in its files, and the sweep's display reads them.

    One that is completed is not run again, one that was cut short goes on.
    """
    from distill_run.console import Console
    from distill_run.run import run

    run_dir = Path(HydraConfig.get().runtime.output_dir)
    overrides = list(HydraConfig.get().overrides.task)
    try:
        if (accuracy := completed_accuracy(run_dir)) is not None:
            return accuracy
        if (run_dir / "checkpoints" / "last.pt").is_file():
            config.resume = str(run_dir)
            config = resumed_config(config, [*overrides, f"resume='{run_dir}'"])
        return run(config, run_dir, Console(quiet=True)).val_accuracy
    except UserError as error:
        record_failure(run_dir, error, overrides, config.code_dir)
        return None


def _remove_unused(run_dir: Path) -> None:
    """A run that failed before it wrote anything but its log leaves no folder behind."""
    if (run_dir / "status.json").exists():
        return
    (run_dir / "run.log").unlink(missing_ok=True)
    for folder in (run_dir, *run_dir.parents):
        if folder.resolve() == Path.cwd() or any(folder.iterdir()):
            return
        folder.rmdir()
