"""Before the first training: everything that the stages need, and every check that can be made without one."""

import dataclasses
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from distill_run import checkpoint
from distill_run.build import Builder
from distill_run.config.schema import Settings
from distill_run.console import Console
from distill_run.data.augment import build_augmentations
from distill_run.data.feed import Feed
from distill_run.data.opening import Feeds
from distill_run.data.splits import class_counts
from distill_run.engine.device import Device, choose_device
from distill_run.engine.interrupt import StopRequest
from distill_run.errors import gather, user_error
from distill_run.models.ensemble import Ensemble
from distill_run.models.network import Network
from distill_run.objectives.assemble import build_objectives
from distill_run.stages.pairing import pair_up
from distill_run.stages.student import assistant_plans, baseline_plan, with_mode
from distill_run.stages.teacher import checkpoint_paths, load_teacher, teacher_plans, teacher_weights
from distill_run.stages.training import Bench, Plan, make_network
from distill_run.store import Store

log = logging.getLogger(__name__)


def prepare(settings: Settings, run_dir: Path, console: Console, stop: StopRequest) -> Bench:
    """Everything that the stages need; whatever can be checked before a training is checked here."""
    rehearse(settings)
    device = choose_device(settings.device)
    for note in device.notes:
        console.note(note)
    builder = _builder(settings)
    dataset = Feeds().open(settings.dataset, builder, device.torch_device)
    _introduce(dataset, settings.names.dataset, console)
    settings = _complete(settings, device, dataset, console)
    bench = Bench(
        settings=settings,
        dataset=dataset,
        shape=dataset.shape,
        device=device,
        builder=builder,
        store=Store(Path(settings.store_dir), console.note),
        run_dir=run_dir,
        console=console,
        stop=stop,
        resumed=checkpoint.load(run_dir / "checkpoints" / "last.pt") if settings.resume else None,
        metrics=[],
    )
    _try_networks(bench)
    for kind, name in dataset.entries:
        bench.store.record_use(run_dir, kind, name)
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
        lambda: build_augmentations(settings.dataset.augment, builder),
        lambda: builder.bind(settings.teacher, "teacher", **shape),
        lambda: builder.bind(settings.student, "student", **shape),
        *(partial(builder.bind, node, f"more_teachers.{n}", **shape) for n, node in settings.more_teachers.items()),
        *(partial(builder.bind, node, f"assistants.{n}", **shape) for n, node in settings.assistants.items()),
        lambda: build_objectives(settings.mode, builder),
    ]
    for name, recipe in recipes.items():
        key = f"training.{name}"
        checks += [
            partial(builder.build, recipe.optimizer, f"{key}.optimizer", params=[parameter]),
            partial(builder.build, recipe.schedule, f"{key}.schedule", epochs=recipe.epochs),
        ]
    checks += [partial(checkpoint.load, path) for path in checkpoint_paths(settings)]
    gather(checks)


def _builder(settings: Settings) -> Builder:
    return Builder(tuple(settings.trusted_packages), Path(settings.code_dir) if settings.code_dir else None)


def _complete(settings: Settings, device: Device, dataset: Feed, console: Console) -> Settings:
    """The settings with every `auto` and null that the device and the data decide filled in; says what they became."""
    wanted, found = settings.dataset, len(dataset.classes)
    channels = dataset.shape.in_channels
    if wanted.num_classes not in (None, found):
        raise user_error(
            f"dataset.num_classes={wanted.num_classes}, but the dataset has {found} classes",
            f"write dataset.num_classes={found} or null",
        )
    for name, values in (("mean", wanted.mean), ("std", wanted.std)):
        if values is not None and len(values) != channels:
            raise user_error(
                f"dataset.{name} has {len(values)} numbers, the images have {channels} channels",
                f"write one number for each channel, or dataset.{name}=null to measure them",
            )
    completed = dataclasses.replace(wanted, num_classes=found)
    if wanted.mean is None or wanted.std is None:
        mean, std = dataset.channel_statistics()
        completed = dataclasses.replace(completed, mean=wanted.mean or mean, std=wanted.std or std)
        console.note(f"normalisation: measured on the training split, mean {completed.mean} std {completed.std}")
    return dataclasses.replace(settings, dataset=completed, device=device.settings)


def _introduce(dataset: Feed, name: str, console: Console) -> None:
    """Say how many images there are, of how many classes; the log has them for each class."""
    height, width = dataset.shape.image_size
    sizes = []
    for split_name, split in (("train", dataset.train), ("validation", dataset.val), ("test", dataset.test)):
        counts = class_counts(split, len(dataset.classes)).tolist()
        spread = f"{min(counts):,}" + (f" to {max(counts):,}" if max(counts) > min(counts) else "")
        sizes.append(f"{len(split):,} {split_name} ({spread} a class)")
        log.info("%s images a class: %s", split_name, dict(zip(dataset.classes, counts, strict=True)))
    console.note(f"dataset: {name}, {len(dataset.classes)} classes, images of {height}x{width}: {', '.join(sizes)}")
    for note in dataset.notes:
        console.warn(note)


def _try_networks(bench: Bench) -> None:
    """Pass one black image through every architecture, and fit the mode to each pair: nothing is trained in vain."""
    paths, plans = checkpoint_paths(bench.settings), teacher_plans(bench)
    loaded = [load_teacher(path, bench)[:2] for path in paths]
    members = [*loaded, *((_try_network(plan, bench), plan.node) for plan in plans)]
    weights = teacher_weights(bench.settings, len(members))
    teacher, node = members[0] if len(members) == 1 else (Ensemble([network for network, _ in members], weights), {})
    for plan in (*assistant_plans(bench), baseline_plan(bench)):
        _try_network(plan, bench)
        paired, _ = pair_up(with_mode(plan, bench), teacher, node, bench)
        teacher, node = make_network(paired.node, paired.key, 0, bench), paired.node


def _try_network(plan: Plan, bench: Bench) -> Network:
    """A network with fresh weights, which gives logits for every class."""
    key = plan.key
    image = torch.zeros(1, bench.shape.in_channels, *bench.shape.image_size, device=bench.device.torch_device)
    network = make_network(plan.node, key, 0, bench).eval()
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
    return network
