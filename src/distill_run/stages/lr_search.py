"""Finding a learning rate: short trainings, of which the best on the validation split wins."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from distill_run.errors import DivergedError, user_error
from distill_run.files import write_json
from distill_run.stages.trained import Curve
from distill_run.stages.training import Bench, Plan, inputs_of, make_trainer
from distill_run.store import fingerprint


def find_learning_rate(plan: Plan, bench: Bench) -> tuple[Plan, Curve]:
    """The plan with the best of `recipe.lr_search`, and the figures of each rate that was tried.

    A rate that diverges has null figures. Without a search the plan comes back as it was. Raises UserError where every
    rate diverges.
    """
    rates = plan.recipe.lr_search
    if rates is None:
        return plan, []
    trials = [_trial(plan, rate) for rate in rates]
    name = fingerprint({"trials": [inputs_of(trial, bench) for trial in trials]})

    def make(directory: Path) -> dict[str, Any]:
        write_json(directory / "curve.json", [_try(trial, bench) for trial in trials])
        return {"about": f"{plan.name}, {len(rates)} rates"}

    directory, reused = bench.obtain("lr_search", name, make)
    curve: Curve = json.loads((directory / "curve.json").read_text())
    finite = [point for point in curve if point["val_accuracy"] is not None]
    if not finite:
        raise user_error(
            f"every rate of {plan.recipe_key}.lr_search={rates} diverged", "try smaller ones, or set clip_norm=1.0"
        )
    best = max(finite, key=lambda point: (point["val_accuracy"], -(point["val_nll"] or 0.0)))
    bench.console.note(
        f"{plan.stage}: learning rate {best['lr']:g} is the best of {len(rates)} on validation"
        f"{' (from the store)' if reused else ''}"
    )
    return _with_rate(plan, best["lr"]), curve


def _trial(plan: Plan, rate: float) -> Plan:
    recipe = dataclasses.replace(plan.recipe, epochs=plan.recipe.lr_search_epochs)
    return _with_rate(dataclasses.replace(plan, stage=f"{plan.stage} lr={rate:g}", recipe=recipe), rate)


def _with_rate(plan: Plan, rate: float | None) -> Plan:
    recipe = dataclasses.replace(plan.recipe, optimizer={**plan.recipe.optimizer, "lr": rate})
    return dataclasses.replace(plan, recipe=recipe)


def _try(trial: Plan, bench: Bench) -> dict[str, Any]:
    rate = trial.recipe.optimizer["lr"]
    trainer = make_trainer(trial, bench, guide=None)
    try:
        with bench.console.training(trial.stage, trial.recipe.epochs, trainer.batches.num_steps) as watcher:
            trainer.fit(watcher, lambda state: None, bench.stop)  # noqa: ARG005 - a trial is not resumed
    except DivergedError:
        return {"lr": rate, "val_accuracy": None, "val_nll": None}
    best = trainer.selected["val"]
    return {"lr": rate, "val_accuracy": best["accuracy"], "val_nll": best["nll"]}
