"""Opening the workshop of a run: the images, the device, the store, and the settings with every `auto` filled in."""

import dataclasses
import logging
from pathlib import Path

from distill_run.build import Builder
from distill_run.config.schema import DatasetSettings, DeviceSettings, Settings
from distill_run.data.feed import Feed
from distill_run.data.framing import PublishedCrop
from distill_run.data.opening import Feeds
from distill_run.data.splits import class_counts
from distill_run.engine.device import choose_device
from distill_run.engine.environment import describe_environment
from distill_run.engine.interrupt import StopRequest
from distill_run.errors import user_error
from distill_run.files import RunFiles
from distill_run.models.published import network_name, published_images
from distill_run.processes import ALONE, Processes
from distill_run.stages.budget import complete_training
from distill_run.stages.class_weights import about_class_weights, class_weights
from distill_run.stages.program import program_identity
from distill_run.stages.resume_point import read_resume_point
from distill_run.stages.watcher import Watcher
from distill_run.stages.workshop import Workshop
from distill_run.store import Store
from distill_run.units import counted

log = logging.getLogger(__name__)


def open_workshop(
    settings: Settings,
    run_dir: Path,
    last_path: Path,
    command: str,
    watcher: Watcher,
    stop: StopRequest,
    feeds: Feeds,
    processes: Processes = ALONE,
) -> tuple[Workshop, Settings]:
    """The workshop of a run, and its settings with every `auto` and null that the device and the data decide filled in.

    A run that goes on does so from the checkpoint at `last_path`. `feeds` keeps the images for the next run of the same
    process. Each of the `processes` of the run opens its own workshop. Raises UserError where the data or the device
    are not what the settings say.
    """
    device = choose_device(settings.device)
    for note in device.notes:
        watcher.noted(note)
    builder = builder_of(settings)
    environment = {**describe_environment(device, command), "program": program_identity()}
    store = Store(Path(settings.store_dir), watcher, environment, run_dir, processes=processes)
    store.check_shared()
    # Each process reads the images, of which it may have some already: there is no order in which all ask the store.
    own_store = Store(store.root, watcher, environment, run_dir if processes.is_first else None)
    feed, augment = feeds.open(settings.dataset, builder, device.torch_device, own_store, published_crop(settings))
    _introduce(feed, settings.names.dataset, watcher)
    settings = dataclasses.replace(settings, dataset=dataclasses.replace(settings.dataset, augment=augment))
    settings = _complete(settings, feed, device.settings, watcher)
    assert settings.repeats is not None
    for kind, name in feed.entries:
        store.record_use(kind, name)
    finished = Store(RunFiles(run_dir).finished, watcher, environment, key="hydra.run.dir", processes=processes)
    workshop = Workshop(
        feed=feed,
        device=device,
        builder=builder,
        store=store,
        finished=finished if settings.repeats > 1 else None,
        watcher=watcher,
        stop=stop,
        bank_gigabytes=settings.logit_bank_gigabytes,
        checkpoint_minutes=settings.checkpoint.every_minutes,
        resume_point=processes.from_first(lambda: read_resume_point(last_path, watcher)) if settings.resume else None,
        processes=processes,
    )
    return workshop, settings


def published_crop(settings: Settings) -> PublishedCrop | None:
    """The images that the teacher's weights were published with; None for a teacher without such weights."""
    published = published_images(settings.teacher)
    if published is None:
        return None
    name = network_name(settings.names.teacher, settings.teacher)
    return PublishedCrop(name, published.input_size, published.crop_ratio)


def builder_of(settings: Settings) -> Builder:
    """What builds the components that the settings describe."""
    return Builder(tuple(settings.trusted_packages), Path(settings.code_dir) if settings.code_dir else None)


def _complete(wanted: Settings, feed: Feed, device: DeviceSettings, watcher: Watcher) -> Settings:
    """The settings with every null filled in that the images decide; says what they became."""
    dataset = _complete_dataset(wanted.dataset, feed, watcher)
    if wanted.logit_bank_top_k is not None and wanted.logit_bank_top_k >= len(feed.classes):
        raise user_error(
            f"logit_bank_top_k={wanted.logit_bank_top_k}, but the dataset has {len(feed.classes)} classes",
            "write a smaller number, or leave it out to keep all logits",
        )
    training, notes = complete_training(wanted.training, len(feed.train))
    for note in notes:
        watcher.noted(note)
    if (weights := class_weights(training.class_weights, feed)) is not None:
        watcher.noted(about_class_weights(weights, feed.classes))
    repeats = dataset.repeats if wanted.repeats is None else wanted.repeats
    if wanted.repeats is None and repeats > 1:
        watcher.noted(f"repeats: {repeats}, the baseline and the student of {repeats} seeds, from {wanted.seed} on")
    return dataclasses.replace(wanted, dataset=dataset, training=training, device=device, repeats=repeats)


def _complete_dataset(wanted: DatasetSettings, feed: Feed, watcher: Watcher) -> DatasetSettings:
    """The settings of the dataset with every null that the images decide filled in; says what they became."""
    found, channels = feed.shape.num_classes, feed.shape.in_channels
    if wanted.num_classes not in (None, found):
        raise user_error(
            f"dataset.num_classes={wanted.num_classes}, but the dataset has {found} classes",
            f"write dataset.num_classes={found} or null",
        )
    for name, values in (("mean", wanted.mean), ("std", wanted.std)):
        if values is not None and len(values) != channels:
            raise user_error(
                f"dataset.{name} has {counted(len(values), 'number')}, the images have {channels} channels",
                f"write one number for each channel, or dataset.{name}=null to measure them",
            )
    completed = dataclasses.replace(wanted, num_classes=found)
    if wanted.mean is None or wanted.std is None:
        mean, std = feed.channel_statistics()
        completed = dataclasses.replace(completed, mean=wanted.mean or mean, std=wanted.std or std)
        watcher.noted(f"normalisation: measured on the training split, mean {completed.mean} std {completed.std}")
    return completed


def _introduce(feed: Feed, name: str, watcher: Watcher) -> None:
    """Say how many images there are, of how many classes; the log has them for each class."""
    height, width = feed.shape.image_size
    sizes = []
    for split_name, split in (("train", feed.train), ("validation", feed.val), ("test", feed.test)):
        counts = class_counts(split, len(feed.classes)).tolist()
        spread = f"{min(counts):,}" + (f" to {max(counts):,}" if max(counts) > min(counts) else "")
        sizes.append(f"{len(split):,} {split_name} ({spread} a class)")
        log.info("%s images a class: %s", split_name, dict(zip(feed.classes, counts, strict=True)))
    others = f", and {feed.num_unlabelled:,} unlabelled images" if feed.num_unlabelled else ""
    images = f"images of {height}x{width}: {', '.join(sizes)}{others}"
    watcher.noted(f"dataset: {name}, {len(feed.classes)} classes, {images}")
    for choice in feed.choices:
        watcher.noted(choice)
    for note in feed.notes:
        watcher.warned(note)
