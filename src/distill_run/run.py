"""The story of a run: teacher -> baseline -> distilled student -> report."""

import dataclasses
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from distill_run.config.compose import check, command_line
from distill_run.console import Console
from distill_run.engine.interrupt import StopRequest
from distill_run.errors import DivergedError, Interrupted, PrunedError
from distill_run.files import told_of_no_room, write_json, write_json_lines, write_text
from distill_run.record.environment import describe_environment
from distill_run.report.pages import write_pages
from distill_run.report.preview import draw_views
from distill_run.report.summary import Findings, networks_of, summarise
from distill_run.stages.prepare import prepare
from distill_run.stages.student import (
    baseline_plan,
    find_student_rate,
    obtain_assistants,
    obtain_baseline,
    train_student,
)
from distill_run.stages.teacher import obtain_teacher
from distill_run.stages.training import Bench, view_choice
from distill_run.units import shown_path

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Report:
    """What a run found out: the content of its report.json, and the directory where that lies."""

    summary: dict[str, Any]
    run_dir: Path

    @property
    def val_accuracy(self) -> float:
        """The student's accuracy on the validation split: what a search may optimise."""
        accuracy: float = self.summary["student"]["selected"]["val"]["accuracy"]
        return accuracy


def run(config: DictConfig, run_dir: Path, console: Console | None = None) -> Report:
    """Train or load the teacher, train the student alone, distil it, test all three and write the report.

    `config` is a composed configuration (see config.compose_config); where its `resume` is set, it is the one
    that was saved in `run_dir`, and the run goes on there. `console` is where it is told, if not on stdout. Raises
    UserError for what the user can mend, before anything is written where that is possible; Interrupted when asked
    to stop, with all saved for a resume.
    """
    settings = check(config)
    console = console or Console()
    with StopRequest() as stop, told_of_no_room("hydra.run.dir", run_dir):
        bench = prepare(settings, run_dir, console, stop)
        environment, saved_config = _write_record(bench)
        draw_views(bench.dataset, view_choice(baseline_plan(bench), bench), run_dir / "plots" / "views.png")
        with _status(run_dir, console):
            networks = {"teacher": obtain_teacher(bench)}
            assistants = obtain_assistants(networks["teacher"], bench)
            plan, curve = find_student_rate(bench)
            if settings.baseline:
                networks["baseline"] = obtain_baseline(plan, curve, bench)
            networks["student"] = train_student(plan, curve, [networks["teacher"], *assistants][-1], bench)
            write_json_lines(run_dir / "metrics.jsonl", bench.metrics)
            summary = summarise(bench.settings, bench.dataset, bench.shape, networks, assistants, console.warnings)
            write_json(run_dir / "report.json", summary)
            write_pages(Findings(summary, networks, bench.dataset, bench.settings, saved_config, environment, run_dir))
            console.results(summary, networks_of(summary), shown_path(run_dir), environment["command"])
    return Report(summary, run_dir)


def _write_record(bench: Bench) -> tuple[dict[str, Any], str]:
    """Write environment.json and config.yaml before the first training, and return both.

    A run that goes on keeps the command that it was started with.
    """
    environment_path = bench.run_dir / "environment.json"
    overrides = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    command = command_line(overrides, bench.settings.code_dir)
    if bench.settings.resume:
        command = json.loads(environment_path.read_text())["command"]
    environment = describe_environment(bench.device, command)
    config = yaml.safe_dump({**dataclasses.asdict(bench.settings), "resume": None}, sort_keys=False)
    write_json(environment_path, environment)
    write_text(bench.run_dir / "config.yaml", config)
    for name, value in environment.items():
        log.info("%s: %s", name, value)
    return environment, config


@contextmanager
def _status(run_dir: Path, console: Console) -> Iterator[None]:
    """Keep status.json true, however the run ends."""
    write_json(run_dir / "status.json", {"status": "running"})
    try:
        yield
    except KeyboardInterrupt as stop:
        write_json(run_dir / "status.json", {"status": "interrupted"})
        console.note(f"interrupted; to go on: {_way_on(run_dir)}")
        raise Interrupted(*stop.args) from stop
    except PrunedError:
        write_json(run_dir / "status.json", {"status": "pruned"})
        raise
    except BaseException as error:
        with suppress(OSError):  # the disk may be what has failed
            write_json(run_dir / "status.json", {"status": "failed", "error": str(error) or type(error).__name__})
        if isinstance(error, DivergedError):
            console.note(f"what was saved before is kept; to replay it: {_way_on(run_dir)}")
        log.exception("the run failed")
        raise
    write_json(run_dir / "status.json", {"status": "completed"})


def _way_on(run_dir: Path) -> str:
    """The command that takes up a run that was cut short."""
    if (run_dir / "checkpoints" / "last.pt").is_file():
        return f"distill-run resume={shown_path(run_dir)}"
    command: str = json.loads((run_dir / "environment.json").read_text())["command"]
    return command
