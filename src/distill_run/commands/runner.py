"""Runs one set of settings: of a single run, of a point of a sweep, of a trial of a search.

No torch at module level: the commands load it once nothing is wrong with their arguments.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout
from omegaconf import DictConfig

from distill_run.config.compose import check
from distill_run.config.overrides import parse
from distill_run.config.resume import resumed_settings
from distill_run.config.schema import Settings
from distill_run.errors import PrunedError, UserError, file_error
from distill_run.files import RunFiles, told_of_no_room
from distill_run.quoting import for_omegaconf
from distill_run.record.status import read_status, record_failure
from distill_run.report.run_report import read_report
from distill_run.safe_text import ANY_TEXT
from distill_run.stretches import in_stretches
from distill_run.units import shown_path

if TYPE_CHECKING:
    from distill_run.engine.interrupt import StopRequest
    from distill_run.report.run_report import RunReport
    from distill_run.stages.wanted import Story
    from distill_run.stages.watcher import Watcher

FOR_EVER = -1.0  # seconds: a FileLock then waits without end
UNMEASURED = {"measure_speed": False, "robustness_images": 0}
LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def run_alone(settings: Settings, run_dir: Path, command: str) -> None:
    """A single run, which shows on the console what it does and raises what goes wrong.

    It goes on from what another process leaves that is at work in the same folder.
    """
    from distill_run.console.console import Console
    from distill_run.pipeline import run
    from distill_run.record.run_folder import check_unused

    def tell() -> None:
        check_unused(RunFiles(run_dir), settings)  # what is refused in the end need not wait
        Console().note(f"{shown_path(run_dir)} is being written by another process; waiting for that")

    try:
        with told_of_no_room("hydra.run.dir", run_dir), _alone(run_dir, tell), _logged(run_dir):
            run(settings, run_dir, command=command)
    except (UserError, KeyboardInterrupt):
        _remove_unused(run_dir)
        raise


def run_recorded(
    compose: Callable[[], DictConfig],
    overrides: Sequence[str],
    run_dir: Path,
    command: str,
    watchers: Sequence["Watcher"] = (),
    stop: "StopRequest | None" = None,
) -> float | None:
    """A run among others, which says in its files alone how it went: see RunReport.val_goodness.

    A completed run is not repeated, an interrupted one goes on, and one that another process does is waited for. None
    where the run fails: then its files hold the error. `compose` gives the configuration of `overrides`; it may raise
    UserError as well.
    """
    from distill_run.engine.interrupt import StopRequest
    from distill_run.stages.stories import finish

    with stop or StopRequest() as stop:
        return finish(recorded_story(compose, overrides, run_dir, command, stop, watchers))


def recorded_story(
    compose: Callable[[], DictConfig],
    overrides: Sequence[str],
    run_dir: Path,
    command: str,
    stop: "StopRequest",
    watchers: Sequence["Watcher"] = (),
) -> "Story[float | None]":
    """What happens in a run among others: see run_recorded."""
    with _alone(run_dir):
        if (goodness := _completed_goodness(run_dir)) is not None:
            return goodness
        try:
            settings = _read_settings(unmeasured(compose(), overrides), overrides, run_dir)
            report = yield from _quiet_story(settings, run_dir, command, stop, watchers)
            return report.val_goodness
        except (UserError, OSError) as error:
            told = error if isinstance(error, UserError) else file_error(error)
            record_failure(run_dir, str(told), command)
            return None
        except PrunedError:
            raise
        except Exception as error:
            record_failure(run_dir, f"{type(error).__name__}: {error}", command)
            raise


@contextmanager
def _alone(run_dir: Path, tell_before_waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Do the block while no other process does this run: a job of a cluster may outlive the command that sent it."""
    path, wait_seconds = RunFiles(run_dir).lock, 0.0
    lock = FileLock(path)
    while not lock.is_locked:
        run_dir.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(wait_seconds)
        except Timeout:
            tell_before_waiting()
            wait_seconds = FOR_EVER
        except FileNotFoundError:
            continue  # the other process wrote nothing, and has removed the folder
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        lock.release()


def _quiet_story(
    settings: Settings, run_dir: Path, command: str, stop: "StopRequest", watchers: Sequence["Watcher"]
) -> "Story[RunReport]":
    """What happens in a run that logs to its own file, also while its trainings go on."""
    from distill_run.console.console import Console
    from distill_run.data.opening import shared_feeds
    from distill_run.pipeline import story_of

    @contextmanager
    def within() -> Iterator[None]:
        with told_of_no_room("hydra.sweep.dir", run_dir), _logged(run_dir):
            yield

    story = story_of(settings, run_dir, stop, command, Console(quiet=True), watchers, shared_feeds(), within)
    return (yield from in_stretches(story, within))


def _completed_goodness(run_dir: Path) -> float | None:
    """How good a completed run is, see RunReport.val_goodness; None where the run is not completed or not readable."""
    try:
        status = read_status(run_dir)
        is_completed = status is not None and status.status == "completed"
        return read_report(run_dir).val_goodness if is_completed else None
    except ValueError:
        return None


def unmeasured(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The configuration of a run among others: it measures no speed and no robustness unless its command says so.

    Runs beside each other would slow each other down, and robustness costs more than many a training.
    """
    named = {override.key_or_group for override in parse(overrides)}
    for key, nothing in UNMEASURED.items():
        if key not in named:
            config[key] = nothing
    return config


def _read_settings(config: DictConfig, overrides: Sequence[str], run_dir: Path) -> Settings:
    files = RunFiles(run_dir)
    if not files.last.is_file():
        return check(config)
    config.resume = for_omegaconf(str(run_dir))
    return resumed_settings(files.config, config, overrides)


@contextmanager
def _logged(run_dir: Path) -> Iterator[None]:
    """Write all that is logged during the block to the run's log, and nowhere else."""
    run_dir.mkdir(parents=True, exist_ok=True)
    handler = _LogFile(RunFiles(run_dir).log, encoding="utf-8", errors=ANY_TEXT, delay=True)
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    try:
        yield
    except Exception:
        logging.getLogger(__name__).exception("the run failed")
        raise
    finally:
        root.handlers = handlers
        root.setLevel(level)
        with suppress(OSError):
            handler.close()


class _LogFile(logging.FileHandler):
    """A log that a full disk ends, but not the run; logging would write a traceback to stderr for each line."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        """Say nothing."""


def _remove_unused(run_dir: Path) -> None:
    """Remove the folder of a run that failed before it wrote anything but its log, and its parents if empty.

    The folder stays where another process is at work in it.
    """
    files = RunFiles(run_dir)
    if files.status.exists() or files.lock.exists() or not run_dir.is_dir():
        return
    files.log.unlink(missing_ok=True)
    with suppress(OSError):  # a folder that is not empty cannot be removed
        for folder in (run_dir, *run_dir.parents):
            if folder.resolve() == Path.cwd():
                return
            folder.rmdir()
