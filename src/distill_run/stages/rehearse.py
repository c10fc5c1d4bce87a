"""Every check of a configuration's components that can be made without data."""

from collections.abc import Callable
from functools import partial

import torch

from distill_run.build import Builder
from distill_run.config.export_formats import check_export
from distill_run.config.schema import Settings
from distill_run.data.opening import check_source
from distill_run.data.view_steps import build_steps
from distill_run.engine.device import choose_device
from distill_run.errors import Mistake, UserError, gather, user_error
from distill_run.models.published import weight_files
from distill_run.objectives.assemble import build_objectives
from distill_run.quoting import typed
from distill_run.stages.given_teacher import check_untrained
from distill_run.stages.plans import checkpoint_paths, teacher_nodes
from distill_run.stages.prepare import builder_of
from distill_run.stages.teacher_classes import check_classes
from distill_run.stages.teacher_normalisation import check_normalisation
from distill_run.stages.watcher import check_watcher
from distill_run.tensor_files import check_exists

# The keys that say where images lie, and a dataset that uses each.
PLACES = {"root": "image_folder", "train": "image_list", "val": "image_list", "test": "image_list"}
# The modes whose terms read no targets.
TAKES_UNLABELLED = ("soft", "hard", "dist", "fitnet", "attention", "vid", "review_kd", "rkd", "sp", "pkt", "simkd")


def check_places(settings: Settings) -> None:
    """Raise UserError where a folder or a file is given to a dataset that does not read it."""
    dataset, mistakes = settings.dataset, []
    for name, user in PLACES.items():
        key, place = f"dataset.{name}", getattr(dataset, name)
        if place is not None and not any(place in str(value) for value in dataset.source.values()):
            what = f"{key}={place} is not used by dataset={settings.names.dataset}"
            mistakes.append(Mistake(what, f"write dataset={user} {typed(key, place)}, or leave {key} out"))
    if mistakes:
        raise UserError(mistakes)


def check_mode(settings: Settings, builder: Builder) -> None:
    """Raise UserError for a mode that is not accepted, or one that cannot learn from the unlabelled images."""
    objectives = build_objectives(settings.mode, builder)
    folder, share = settings.dataset.unlabelled, settings.dataset.unlabelled_share
    if folder is None and share is not None:
        raise user_error(
            f"dataset.unlabelled_share={share} has no unlabelled images to share",
            "name their folder, as in dataset.unlabelled=DIR, or leave it out",
        )
    named = [f"mode={settings.names.mode}", *(f"mode.also.{name}" for name in settings.mode.get("also", {}))]
    bound = [name for name, term in zip(named, objectives.values(), strict=True) if term.needs_targets]
    if folder is not None and bound:
        raise user_error(
            f"{bound[0]} needs the target of every image, and those of dataset.unlabelled={folder} have none",
            f"choose a mode that takes them, as in mode=soft ({', '.join(TAKES_UNLABELLED)}), or leave the folder out",
        )


def rehearse(settings: Settings, is_here: bool = True) -> None:
    """Build every component that needs no data, and check the arguments of the others.

    Where the run will not be on this machine (`is_here`), nobody knows its device. Raises UserError with all mistakes.
    """
    builder = builder_of(settings)
    shape = dict.fromkeys(("in_channels", "image_size", "num_classes"))
    networks = {"teacher": settings.teacher, "student": settings.student}
    networks |= {f"more_teachers.{name}": node for name, node in settings.more_teachers.items()}
    networks |= {f"assistants.{name}": node for name, node in settings.assistants.items()}
    checks: list[Callable[[], object]] = [
        *([partial(choose_device, settings.device)] if is_here else []),
        partial(
            check_export,
            settings.export_formats,
            key="export=",
            int8="export_int8=true" if settings.export_int8 else None,
        ),
        partial(check_source, settings.dataset.source, builder),
        *(partial(builder.bind, node, key, **shape) for key, node in networks.items()),
        partial(build_steps, settings.dataset.augment, builder),
        *(partial(check_watcher, key, node, builder) for key, node in settings.told.items()),
        partial(check_mode, settings, builder),
    ]
    checks.append(partial(check_places, settings))
    parameter = torch.zeros(1, requires_grad=True)
    for name, recipe in {"teacher": settings.training.teacher, "student": settings.training.student}.items():
        key = f"training.{name}"
        checks.append(partial(builder.build, recipe.optimizer, f"{key}.optimizer", params=[parameter]))
        checks.append(partial(builder.build, recipe.schedule, f"{key}.schedule", epochs=recipe.epochs or 1))
    checks.append(partial(check_normalisation, settings))
    checks.append(partial(check_classes, settings))
    checks.append(partial(check_untrained, settings, teacher_nodes(settings)))
    files = [*checkpoint_paths(settings), *(path for node in networks.values() for path in weight_files(node))]
    checks += [partial(check_exists, path) for path in files]
    gather(checks)
