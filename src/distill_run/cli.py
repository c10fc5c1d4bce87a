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
from omegaconf import DictConfig

from distill_run.config import config_dir, offer_roles, own_folder_overrides, register
from distill_run.errors import Mistake, UserError, tell
from distill_run.help import help_page
from distill_run.preflight import preflight, read_command, resumed_config

INTERRUPTED = 130  # what a shell expects of a program that Ctrl-C has ended

failures: list[UserError] = []


def main() -> NoReturn:
    """Run the command line in sys.argv; exits with 0, with 1 after a mistake, with 130 after an interruption."""
    register()
    try:
        _run_command()
    except UserError as error:
        tell(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(1 if failures else 0)


def _run_command() -> None:
    parser = get_args_parser()
    args, unknown = parser.parse_known_intermixed_args()
    # Hydra's own parser wants the overrides in one piece: after the options.
    sys.argv[1:] = [*(word for word in sys.argv[1:] if word not in args.overrides), *args.overrides]
    if unknown:
        raise UserError(_not_an_option(option, args.overrides) for option in unknown if option.startswith("-"))
    extra_dir = Path(args.config_dir) if args.config_dir else None
    if extra_dir is not None:
        if not extra_dir.is_dir():
            raise UserError([Mistake(f"--config-dir {extra_dir} is not a folder", "give the folder of your own files")])
        offer_roles(extra_dir)
        sys.argv += own_folder_overrides(extra_dir)
    if args.help:
        sys.stdout.write(help_page())
        return
    if args.cfg:
        read_command(args.overrides, extra_dir, args.multirun)
    elif not (args.info or args.hydra_help or args.shell_completion):
        preflight(args.overrides, extra_dir, args.multirun)
    job()


def _not_an_option(option: str, values: list[str]) -> Mistake:
    name = option.lstrip("-")
    if "=" not in name:
        name = f"{name}={values[0] if values else 'VALUE'}"
    return Mistake(f"{option} is not an option of distill-run", f"write {name}")


@hydra.main(config_path=str(config_dir()), config_name="config", version_base="1.3")
def job(config: DictConfig) -> float | None:
    """One run; returns the student's validation accuracy, so that sweepers can optimise it."""
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


def _remove_unused(run_dir: Path) -> None:
    """A run that failed before it wrote anything but its log leaves no folder behind."""
    if (run_dir / "status.json").exists():
        return
    (run_dir / "run.log").unlink(missing_ok=True)
    for folder in (run_dir, *run_dir.parents):
        if folder.resolve() == Path.cwd() or any(folder.iterdir()):
            return
        folder.rmdir()
