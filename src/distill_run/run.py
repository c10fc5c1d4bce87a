"""The story of a run: teacher -> baseline -> distilled student -> report."""

import dataclasses
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from distill_run import checkpoint
from distill_run.build import Builder
from distill_run.config import check
from distill_run.console import Console
from distill_run.data.source import Source
from distill_run.data.splits import Dataset, channel_statistics, make_dataset
from distill_run.device import Device, choose_device
from distill_run.environment import command_line, describe_environment
from distill_run.errors import DivergedError, Interrupted, gather, user_error
from distill_run.interrupt import StopRequest
from distill_run.models.network import ImageShape
from distill_run.report.pages import write_pages
from distill_run.report.summary import Findings, summarise
from distill_run.schema import Settings
from distill_run.stages.student import find_student_rate, obtain_baseline, train_student
from distill_run.stages.teacher import load_teacher, obtain_teacher
from distill_run.stages.training import Bench, make_network
from distill_run.store import Store, write_json, write_json_lines, write_text

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


def run(config: DictConfig, run_dir: Path) -> Report:
    """Train or load the teacher, train the student alone, distil it, test all three and write the report.

    `config` is a composed configuration (see config.compose_config); where its `resume` is set, it is the one
    that was saved in `run_dir`, and the run goes on there. Raises UserError for what the user can mend, before
    anything is written where that is possible; Interrupted when asked to stop, with all saved for a resume.
    """
    settings = check(config)
    console = Console()
    with StopRequest() as stop:
        bench = prepare(settings, run_dir, console, stop)
        objective = bench.builder.build(settings.mode, "mode")
        environment, saved_config = _write_record(bench)
        with _status(run_dir, console):
            networks = {"teacher": obtain_teacher(bench)}
            bench.metrics.extend(networks["teacher"].history)
            plan, curve = find_student_rate(bench)
            if settings.baseline:
                networks["baseline"] = obtain_baseline(plan, curve, bench)
                bench.metrics.extend(networks["baseline"].history)
            networks["student"] = train_student(plan, curve, objective, networks["teacher"], bench)
            bench.metrics.extend(networks["student"].history)
            write_json_lines(run_dir / "metrics.jsonl", bench.metrics)
            summary = summarise(bench.settings, bench.dataset, bench.shape, networks, console.warnings)
            write_json(run_dir / "report.json", summary)
            write_pages(Findings(summary, networks, bench.dataset, saved_config, environment, run_dir))
            console.results(summary, shown_path(run_dir), environment["command"])
    return Report(summary, run_dir)


def prepare(settings: Settings, run_dir: Path, console: Console, stop: StopRequest) -> Bench:
    """Everything that the stages need; whatever can be checked before a training is checked here."""
    rehearse(settings)
    device = choose_device(settings.device)
    for note in device.notes:
        console.note(note)
    builder = _builder(settings)
    source: Source = builder.build(settings.dataset.source, "dataset.source")
    dataset = make_dataset(source, settings.dataset.val_fraction, settings.dataset.split_seed)
    settings = _complete(settings, device, dataset, console)
    shape = ImageShape(dataset.train.images.shape[1], _size(dataset), len(dataset.classes))
    bench = Bench(
        settings=settings,
        dataset=dataset.to(device.torch_device),
        shape=shape,
        device=device,
        builder=builder,
        store=Store(Path(settings.store_dir)),
        run_dir=run_dir,
        console=console,
        stop=stop,
        resumed=checkpoint.load(run_dir / "checkpoints" / "last.pt") if settings.resume else None,
        metrics=[],
    )
    _try_networks(bench)
    return bench


def rehearse(settings: Settings) -> None:
    """Build, or at least bind, every component without data; raises UserError with all mistakes in them."""
    builder = _builder(settings)
    shape = dict.fromkeys(("in_channels", "image_size", "num_classes"))
    parameter = torch.zeros(1, requires_grad=True)
    recipes = {"teacher": settings.training.teacher, "student": settings.training.student}
    checks: list[Callable[[], object]] = [
        lambda: choose_device(settings.device),
        lambda: builder.bind(settings.dataset.source, "dataset.source"),
        lambda: builder.bind(settings.teacher, "teacher", **shape),
        lambda: builder.bind(settings.student, "student", **shape),
        lambda: builder.build(settings.mode, "mode"),
    ]
    for name, recipe in recipes.items():
        key = f"training.{name}"
        checks += [
            partial(builder.build, recipe.optimizer, f"{key}.optimizer", params=[parameter]),
            partial(builder.build, recipe.schedule, f"{key}.schedule", epochs=recipe.epochs),
        ]
    if settings.teacher_checkpoint is not None:
        checks.append(partial(checkpoint.load, Path(settings.teacher_checkpoint)))
    gather(checks)


def _builder(settings: Settings) -> Builder:
    return Builder(tuple(settings.trusted_packages), Path(settings.code_dir) if settings.code_dir else None)


def _size(dataset: Dataset) -> tuple[int, int]:
    height, width = dataset.train.images.shape[2:]
    return height, width


def _complete(settings: Settings, device: Device, dataset: Dataset, console: Console) -> Settings:
    """The settings with every `auto` and null that the device and the data decide filled in; tells the user."""
    wanted = settings.dataset.num_classes
    if wanted is not None and wanted != len(dataset.classes):
        raise user_error(
            f"dataset.num_classes={wanted}, but the dataset has {len(dataset.classes)} classes",
            f"write dataset.num_classes={len(dataset.classes)} or null",
        )
    channels = dataset.train.images.shape[1]
    for name, values in (("mean", settings.dataset.mean), ("std", settings.dataset.std)):
        if values is not None and len(values) != channels:
            raise user_error(
                f"dataset.{name} has {len(values)} numbers, the images have {channels} channels",
                f"write one number for each channel, or dataset.{name}=null to measure them",
            )
    sizes = f"{len(dataset.train):,} train, {len(dataset.val):,} validation, {len(dataset.test):,} test"
    height, width = _size(dataset)
    console.note(
        f"dataset: {settings.names.dataset}, {sizes} images of {height}x{width} in {len(dataset.classes)} classes"
    )
    for note in dataset.notes:
        console.warn(note)
    completed = dataclasses.replace(settings.dataset, num_classes=len(dataset.classes))
    if completed.mean is None or completed.std is None:
        mean, std = channel_statistics(dataset.train.images)
        completed = dataclasses.replace(completed, mean=completed.mean or mean, std=completed.std or std)
        console.note(f"normalisation: measured on the training split, mean {completed.mean} std {completed.std}")
    return dataclasses.replace(settings, dataset=completed, device=device.settings)


def _try_networks(bench: Bench) -> None:
    """Pass one black image through both architectures: they must give logits for every class."""
    if bench.settings.teacher_checkpoint is not None:
        load_teacher(Path(bench.settings.teacher_checkpoint), bench)
    image = torch.zeros(1, bench.shape.in_channels, *bench.shape.image_size, device=bench.device.torch_device)
    for key in ("teacher", "student"):
        network = make_network(getattr(bench.settings, key), key, 0, bench).eval()
        try:
            with torch.no_grad():
                logits = network(image)
        except (RuntimeError, ValueError, IndexError) as error:
            raise user_error(
                f"{key} cannot take images of {tuple(image.shape[1:])}: {str(error).splitlines()[0]}",
                "its constructor is given in_channels, image_size and num_classes: let its layers follow from them",
            ) from error
        if tuple(logits.shape) != (1, bench.shape.num_classes):
            raise user_error(
                f"{key} gives outputs of shape {tuple(logits.shape)} for one image",
                f"its forward must return logits of shape (N, {bench.shape.num_classes})",
            )


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
    except BaseException as error:
        write_json(run_dir / "status.json", {"status": "failed", "error": str(error) or type(error).__name__})
        if isinstance(error, DivergedError):
            console.note(f"the state before that step is kept; to replay it: {_way_on(run_dir)}")
        log.exception("the run failed")
        raise
    write_json(run_dir / "status.json", {"status": "completed"})


def _way_on(run_dir: Path) -> str:
    """The command that takes up a run that was cut short."""
    if (run_dir / "checkpoints" / "last.pt").is_file():
        return f"distill-run resume={shown_path(run_dir)}"
    command: str = json.loads((run_dir / "environment.json").read_text())["command"]
    return command


def shown_path(path: Path) -> str:
    """A path as one would type it: relative where it lies below the working directory."""
    absolute = path.resolve()
    here = Path.cwd()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)
