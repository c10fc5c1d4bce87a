"""Finding a learning rate: short trainings, of which the best on the validation split wins."""

import dataclasses
from pathlib import Path
from typing import Any

from distill_run.engine.selection import FIGURE_NAMES, rank
from distill_run.errors import DivergedError, user_error
from distill_run.files import write_json
from distill_run.stages.assembly import Prepared
from distill_run.stages.trained import Curve
from distill_run.stages.training import Training
from distill_run.stages.workshop import Workshop, make_trainer
from distill_run.typed_json import read_object

FIGURES = "figures.json"  # of a rate that was tried


def find_learning_rate(training: Training, workshop: Workshop) -> tuple[Training, Curve]:
    """The training at the best rate of its recipe's `lr_search`, and the figures of each rate that was tried.

    A rate that diverges has null figures. Without a search the training comes back as it was. Raises UserError where
    every rate diverges.
    """
    rates = training.recipe.lr_search
    if rates is None:
        return training, ()
    tried = [_obtain(_trial(training, rate), workshop) for rate in rates]
    curve: Curve = tuple(point for point, _ in tried)
    finite = [point for point in curve if point["val_accuracy"] is not None]
    if not finite:
        raise user_error(
            f"every rate of {training.recipe_key}.lr_search={rates} diverged", "try smaller ones, or set clip_norm=1.0"
        )
    best = max(finite, key=lambda point: _rank(point, training.select_by))
    rate = best["lr"]
    assert rate is not None
    workshop.watcher.noted(
        f"{training.stage}: learning rate {rate:g} is the best of {len(rates)} on validation, "
        f"by {FIGURE_NAMES[training.select_by]}"
        f"{' (from the store)' if all(is_reused for _, is_reused in tried) else ''}"
    )
    return training.with_rate(rate), curve


def _rank(point: dict[str, Any], select_by: str) -> tuple[float, float]:
    return rank({name: point[f"val_{name}"] for name in FIGURE_NAMES}, select_by)


def _trial(training: Training, rate: float) -> Training:
    recipe = dataclasses.replace(training.recipe, epochs=training.recipe.lr_search_epochs)
    return dataclasses.replace(training, stage=f"{training.stage} lr={rate:g}", recipe=recipe).with_rate(rate)


def _obtain(trial: Training, workshop: Workshop) -> tuple[dict[str, Any], bool]:
    """The figures of a short training, and whether they were in the store: a search cut short keeps what it has."""

    def make(directory: Path) -> dict[str, Any]:
        write_json(directory / FIGURES, _try(trial, workshop))
        return {"about": f"{trial.architecture.name}, rate {trial.recipe.optimizer['lr']:g}"}

    directory, is_reused = workshop.store.obtain("lr_search", trial.fingerprint, make)
    return read_object(directory / FIGURES), is_reused


def _try(trial: Training, workshop: Workshop) -> dict[str, Any]:
    """The figures of a short training; null where it diverges."""
    rate = trial.recipe.optimizer["lr"]
    trainer = make_trainer(Prepared(trial, workshop.assembler.assemble(trial)), workshop)
    try:
        workshop.run_loop(trainer, trial, is_search=True)
    except DivergedError:
        return {"lr": rate, **{f"val_{name}": None for name in FIGURE_NAMES}}
    best = trainer.selected["val"]
    return {"lr": rate, **{f"val_{name}": best[name] for name in FIGURE_NAMES}}
