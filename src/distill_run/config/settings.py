"""From a command line to settings, or to an explanation of what is wrong with it."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from distill_run.config.compose import Composed, check, command_line, compose
from distill_run.config.explain import explain
from distill_run.config.overrides import COMPOSITION_ERRORS
from distill_run.config.paths import readable
from distill_run.config.resume import resumed_settings
from distill_run.config.schema import Settings
from distill_run.config.variants import Variants
from distill_run.errors import UserError, user_error
from distill_run.files import RunFiles


def compose_config(overrides: Sequence[str] = (), extra_dir: str | Path | None = None) -> Settings:
    """The settings of a command line's overrides, as in `compose_config(["mode=soft", "seed=1"])`.

    `resume=DIR` gives those of the interrupted run in that folder.
    `extra_dir` is a folder of your own files, as `--config-dir` names it. Raises UserError that says of each override
    that does not fit what to write instead, and for an `extra_dir` that is not there.
    """
    folder = None if extra_dir is None else Path(extra_dir)
    if folder is not None and not folder.is_dir():
        raise user_error(f"extra_dir={folder} is not a folder", "give the folder of your own files")
    overrides = readable(overrides, multirun=False)
    settings = settings_of(compose_or_explain(overrides, folder).config, overrides)
    return settings.said_by(command_line(overrides, settings.code_dir))


def compose_or_explain(overrides: list[str], extra_dir: Path | None, variants: Variants | None = None) -> Composed:
    """The configuration of a command line, not checked yet; raises UserError for overrides that do not compose."""
    try:
        return compose(overrides, extra_dir, variants)
    except UserError:  # a ValueError, too, which says already what is wrong
        raise
    except COMPOSITION_ERRORS as error:
        raise UserError(explain(overrides, extra_dir, error)) from error


def settings_of(composed: DictConfig, overrides: Sequence[str]) -> Settings:
    """The settings of a configuration; where it names a run to go on with, or to verify, those of that run."""
    if composed.resume:
        return _settings_to_resume(composed, overrides)
    return _settings_to_verify(composed, overrides) if composed.verify else check(composed)


def _settings_to_resume(composed: DictConfig, overrides: Sequence[str]) -> Settings:
    """The settings of the run that `composed.resume` names; raises UserError where there is nothing to resume."""
    composed.resume = str(composed.resume)  # a folder may be called 2024
    files = RunFiles(Path(composed.resume))
    if not files.config.is_file():
        raise user_error(f"resume={files.run_dir} is not the directory of a run", "look into outputs/runs for it")
    if not files.last.is_file():
        raise user_error(f"resume={files.run_dir} has no checkpoint yet", "run its command again, without resume=")
    return resumed_settings(files.config, composed, overrides)


def _settings_to_verify(composed: DictConfig, overrides: Sequence[str]) -> Settings:
    """The settings of the run that `composed.verify` names; raises UserError where it is not a completed run."""
    files = RunFiles(Path(composed.verify))
    if not files.config.is_file():
        raise user_error(f"verify={files.run_dir} is not the directory of a run", "look into outputs/runs for it")
    if not all(path.is_file() for path in (files.report, files.student, files.metrics, files.environment)):
        what = f"verify={files.run_dir} is not completed"
        raise user_error(what, f"go on with it first: distill-run resume={files.run_dir}")
    return resumed_settings(files.config, composed, overrides)
