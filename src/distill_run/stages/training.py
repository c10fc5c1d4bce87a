"""What the stages share: the bench that they work at, and a training from its inputs to its artefacts."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor

from distill_run import checkpoint
from distill_run.build import Builder
from distill_run.config.schema import Recipe, Settings
from distill_run.console import Console
from distill_run.data.batches import Batches
from distill_run.data.feed import Feed
from distill_run.data.source import ImageShape
from distill_run.data.views import ViewChoice
from distill_run.engine.device import Device
from distill_run.engine.evaluate import predict
from distill_run.engine.interrupt import StopRequest
from distill_run.engine.loop import Guide, Trainer
from distill_run.errors import user_error
from distill_run.files import told_of_no_room, write_json_lines
from distill_run.models.network import Network, build_network
from distill_run.objectives.none import CrossEntropy
from distill_run.objectives.total import TotalLoss
from distill_run.stages.trained import Cost, Curve, Measured, Origin, Trained
from distill_run.store import Store


@dataclass(frozen=True)
class Bench:
    """What every stage of a run works with.

    `resumed` is the content of last.pt, where the run goes on; `metrics` the lines of metrics.jsonl that the
    finished stages have added.
    """

    settings: Settings
    dataset: Feed
    shape: ImageShape
    device: Device
    builder: Builder
    store: Store
    run_dir: Path
    console: Console
    stop: StopRequest
    resumed: dict[str, Any] | None
    metrics: list[dict[str, Any]]

    def obtain(self, kind: str, name: str, make: Callable[[Path], dict[str, Any]]) -> tuple[Path, bool]:
        """See Store.obtain; the store also learns that this run uses the entry."""
        self.store.record_use(self.run_dir, kind, name)
        return self.store.obtain(kind, name, make)

    @property
    def last_path(self) -> Path:
        """The resume point of the training in progress."""
        return self.run_dir / "checkpoints" / "last.pt"


class Architecture(NamedTuple):
    """An architecture: where it stands in the configuration, the option that names it, and its YAML."""

    key: str
    name: str
    node: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """One training: who is trained, how, and from which seeds: of weights, order and dropout, and of the views.

    `key` is where the architecture stands in the configuration, `recipe_key` where the recipe does. `inputs`
    are what the loss depends on beyond what every training does, `points` the places of the features that it reads,
    `given` the initial weights that do not come from the seed.
    """

    stage: str
    key: str
    recipe_key: str
    name: str
    node: dict[str, Any]
    recipe: Recipe
    seed: int
    view_seed: int
    loss: TotalLoss
    inputs: dict[str, Any]
    points: dict[str, str]
    given: dict[str, Tensor]


def plan_alone(
    stage: str, architecture: Architecture, role: Literal["teacher", "student"], seed: int, view_seed: int, bench: Bench
) -> Plan:
    """The training of an architecture by the recipe of its role, with cross-entropy and no teacher."""
    recipe: Recipe = getattr(bench.settings.training, role)
    return Plan(
        stage=stage,
        key=architecture.key,
        recipe_key=f"training.{role}",
        name=architecture.name,
        node=architecture.node,
        recipe=recipe,
        seed=seed,
        view_seed=view_seed,
        loss=TotalLoss(
            {CrossEntropy.part: CrossEntropy(label_smoothing=recipe.label_smoothing)}, recipe.label_smoothing
        ),
        inputs={},
        points={},
        given={},
    )


def inputs_of(plan: Plan, bench: Bench) -> dict[str, Any]:
    """Everything that the outcome of a training depends on."""
    recipe = dataclasses.asdict(plan.recipe)
    for key in ("lr_search", "lr_search_epochs"):  # only the rate that was found matters
        del recipe[key]
    dataset = bench.settings.dataset
    return {
        "architecture": plan.node,
        "recipe": recipe,
        "seed": plan.seed,
        "view_seed": plan.view_seed,
        "views": bench.settings.training.views,
        "dataset": {
            "content": bench.dataset.content,
            "mean": dataset.mean,
            "std": dataset.std,
            "augment": dataset.augment,
        },
        "num_classes": bench.shape.num_classes,
        "device": dataclasses.asdict(bench.device.settings),
        "code": bench.builder.code_hash(
            plan.node, plan.recipe.optimizer, plan.recipe.schedule, *dataset.augment.values()
        ),
        **plan.inputs,
    }


def make_trainer(plan: Plan, bench: Bench, guide: Guide | None) -> Trainer:
    """A trainer at its first step; raises UserError where a component refuses its arguments."""
    network = make_network(plan.node, plan.key, plan.seed, bench)
    network.architecture.load_state_dict(plan.given, strict=False)
    loss = plan.loss.to(bench.device.torch_device)
    optimizer = bench.builder.build(
        plan.recipe.optimizer,
        f"{plan.recipe_key}.optimizer",
        params=[each for each in (*network.parameters(), *loss.parameters()) if each.requires_grad],
    )
    schedule = bench.builder.build(plan.recipe.schedule, f"{plan.recipe_key}.schedule", epochs=plan.recipe.epochs)
    return Trainer(
        stage=plan.stage,
        network=network,
        loss=loss,
        guide=guide,
        points=plan.points,
        optimizer=optimizer,
        schedule=schedule,
        batches=make_batches(plan, bench),
        val=bench.dataset.val,
        recipe=plan.recipe,
        seed=plan.seed,
        device=bench.device,
    )


def make_batches(plan: Plan, bench: Bench) -> Batches:
    """The training split in the order and in the views of the plan's seeds."""
    return bench.dataset.batches(view_choice(plan, bench), plan.recipe.batch_size, plan.seed)


def view_choice(plan: Plan, bench: Bench) -> ViewChoice:
    """The views that a training sees."""
    return ViewChoice(plan.view_seed, bench.settings.training.views, plan.recipe.mixup, plan.recipe.cutmix)


def make_network(node: dict[str, Any], key: str, seed: int, bench: Bench) -> Network:
    """A network for the bench's images, with fresh weights, on its device."""
    mean, std = bench.settings.dataset.mean, bench.settings.dataset.std
    assert mean is not None
    assert std is not None
    return bench.device.place(build_network(node, key, bench.shape, mean, std, seed, bench.builder))


def train(plan: Plan, bench: Bench, digest: str, guide: Guide | None, curve: Curve) -> Trained:
    """Train by the plan and measure the outcome; goes on from last.pt where that is this training's.

    `digest` is the fingerprint of all that the outcome depends on.
    """
    trainer = make_trainer(plan, bench, guide)
    if bench.resumed and bench.resumed["stage"] == plan.stage:
        if bench.resumed["fingerprint"] != digest:
            raise user_error(
                f"the inputs of the {plan.stage} are not those of {bench.last_path} (dataset or teacher have changed)",
                "start a new run, without resume=",
            )
        trainer.load_state(bench.resumed["trainer"])

    def save(state: dict[str, Any]) -> None:
        with told_of_no_room("hydra.run.dir", bench.run_dir):
            checkpoint.save(bench.last_path, {"stage": plan.stage, "fingerprint": digest, "trainer": state})
            write_json_lines(bench.run_dir / "metrics.jsonl", [*bench.metrics, *state["history"]])

    bench.device.reset_peak_memory()
    with bench.console.training(plan.stage, plan.recipe.epochs, trainer.batches.num_steps) as watcher:
        trainer.fit(watcher, save, bench.stop)
    return _conclude(trainer, plan, bench, digest, curve)


def _conclude(trainer: Trainer, plan: Plan, bench: Bench, digest: str, curve: Curve) -> Trained:
    """Measure the last and the selected network on the test split; the trainer's network becomes the selected."""
    network, history = trainer.network, trainer.history
    last_test_logits = predict(network, bench.dataset.test)
    trainer.read.remove()
    network.architecture.load_state_dict(trainer.selected["weights"])
    seconds = sum(row["seconds"] for row in history)
    cost = Cost(
        train_seconds=seconds,
        images_per_second=sum(row["images_per_second"] * row["seconds"] for row in history) / seconds,
        data_share=sum(row["data_share"] * row["seconds"] for row in history) / seconds,
        peak_memory_bytes=bench.device.peak_memory_bytes(),
    )
    selected = trainer.selected
    return Trained(
        stage=plan.stage,
        name=plan.name,
        node=plan.node,
        network=network.eval(),
        fingerprint=digest,
        selected=Measured(selected["epoch"], selected["val"], predict(network, bench.dataset.test)),
        last=Measured(history[-1]["epoch"], history[-1]["val"], last_test_logits),
        origin=Origin.TRAINED,
        history=tuple(history),
        cost=cost,
        learning_rate=trainer.base_rates[0],
        lr_search=curve,
    )
