"""What trainings need to happen, and the way from a training to its outcome: from the store, or trained now."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from distill_run.build import Builder
from distill_run.data.feed import Feed
from distill_run.engine.device import Device
from distill_run.engine.evaluate import predict
from distill_run.engine.fine_tuning import parameter_groups
from distill_run.engine.finite import check_logits_of
from distill_run.engine.interrupt import StopRequest
from distill_run.engine.learner import Learner
from distill_run.engine.loop import Step, Trainer
from distill_run.models.network import Network, mean_work
from distill_run.out_of_memory import smaller_images, told_of_no_memory
from distill_run.processes import ALONE, Processes
from distill_run.stages.assembly import Assembler, Prepared
from distill_run.stages.entry import read_entry, write_entry
from distill_run.stages.probe import probe_parts, take_head
from distill_run.stages.resume_point import ResumePoint
from distill_run.stages.trained import Cost, Measured, Origin, Trained
from distill_run.stages.training import Training
from distill_run.stages.watcher import StageFacts, Watcher
from distill_run.store import Store


@dataclass(frozen=True)
class Workshop:
    """The services of a run: images, device, components, store; who is told; what asks for a stop.

    `bank_gigabytes` is the disk that a logit bank may take, `checkpoint_minutes` how long a training goes on before it
    saves its state; 0 and None: to the end of the epoch. `finished` keeps the students of a run with several.
    `processes` are those that compute the run.
    """

    feed: Feed
    device: Device
    builder: Builder
    store: Store
    finished: Store | None
    watcher: Watcher
    stop: StopRequest
    bank_gigabytes: float
    checkpoint_minutes: float | None
    resume_point: ResumePoint | None
    processes: Processes = ALONE

    @property
    def assembler(self) -> Assembler:
        """What builds the networks and losses of trainings."""
        return Assembler(self.feed, self.device, self.builder)

    def device_for(self, network: Network) -> Device:
        """The device in the precision that suits the network; its notes say why, where that is for each to decide."""
        if self.device.settings.precision != "auto":
            return Device(self.device.settings, ())
        return self.device.for_work(mean_work(network, self.feed.shape))

    def obtain(self, kind: str, prepared: Prepared) -> Trained:
        """The store's outcome of a training; it is trained and kept there first where it is not there yet."""
        made: list[Trained] = []

        def make(directory: Path) -> dict[str, Any]:
            made.append(self.train(prepared))
            return write_entry(made[0], prepared.training, directory)

        directory, _ = self.store.obtain(kind, prepared.training.fingerprint, make)
        trained = made[0] if made else self.read(directory, prepared)
        self.watcher.stage_ended(trained)
        return trained

    def read(self, directory: Path, prepared: Prepared) -> Trained:
        """The outcome in an entry that was there; what a run has trained before it was interrupted is its own."""
        is_own = self.resume_point is not None and self.store.is_own(directory)
        return read_entry(directory, prepared, Origin.TRAINED if is_own else Origin.REUSED)

    def obtain_all(self, kind: str, several: Sequence[Prepared]) -> list[Trained]:
        """The outcomes of several trainings, one after the other."""
        return [self.obtain(kind, prepared) for prepared in several]

    def train(self, prepared: Prepared) -> Trained:
        """Train, from the resume point where that is this training's, and measure the outcome."""
        trainer = self.begin(prepared)
        self.run_loop(trainer, prepared.training)
        return self.conclude(trainer, prepared)

    def begin(self, prepared: Prepared) -> Trainer:
        """A trainer at its first step, or at the resume point where that is this training's."""
        trainer = make_trainer(prepared, self)
        if self.resume_point is not None:
            self.resume_point.go_on(trainer, prepared.training, self.watcher)
        self.device.reset_peak_memory()
        return trainer

    def run_loop(self, trainer: Trainer, training: Training, *, is_search: bool = False) -> None:
        """Train to the end, and tell the watchers of it."""
        with self.stage(trainer, training, is_search=is_search):
            trainer.fit(self.watcher, self.stop)

    def steps(self, trainer: Trainer, training: Training) -> Generator[Step, None, None]:
        """The same with a pause before each step, which is for others to take."""
        with self.stage(trainer, training, is_search=False):
            yield from trainer.steps(self.watcher, self.stop)

    @contextmanager
    def stage(self, trainer: Trainer, training: Training, *, is_search: bool) -> Iterator[None]:
        """Tell the watchers when a training begins and ends; a lack of memory becomes a UserError."""
        stage = StageFacts(
            name=training.stage,
            fingerprint=training.fingerprint,
            program=training.program,
            num_epochs=training.recipe.epochs,
            num_steps=trainer.num_steps,
            is_search=is_search,
            history=tuple(trainer.history),
        )
        self.watcher.stage_begun(stage)
        try:
            with told_of_no_memory(*_too_large(trainer, training)):
                yield
        finally:
            trainer.batches.close()
            self.watcher.training_ended()

    def conclude(self, trainer: Trainer, prepared: Prepared) -> Trained:
        """Measure the last and the selected network on the test split; the trainer's network becomes the selected."""
        history, selected = trainer.history, trainer.selected
        last = Measured(history[-1]["epoch"], history[-1]["val"], self._test(trainer.learner.evaluated, prepared))
        trainer.learner.close()
        trainer.learner.network.architecture.load_state_dict(selected["weights"])
        is_last = selected["epoch"] == last.epoch  # then these are the weights that were tested
        test_logits = last.test_logits if is_last else self._test(trainer.learner.network, prepared)
        seconds = sum(row["seconds"] for row in history)
        cost = Cost(
            train_seconds=seconds,
            images_per_second=sum(row["images_per_second"] * row["seconds"] for row in history) / seconds,
            data_share=sum(row["data_share"] * row["seconds"] for row in history) / seconds,
            peak_memory_bytes=self.device.peak_memory_bytes(),
            steps=len(history) * trainer.num_steps,
        )
        return prepared.outcome(
            Measured(selected["epoch"], selected["val"], test_logits),
            last,
            Origin.TRAINED,
            history=tuple(history),
            cost=cost,
            learning_rate=trainer.learner.base_rates[0],
        )

    def _test(self, network: Network, prepared: Prepared) -> Tensor:
        """The test logits of a trained network; where only a last layer was trained, the whole network is given it."""
        if prepared.training.trains == "head":
            take_head(network, prepared.assembly.network, prepared.training.architecture.key)
            network = prepared.assembly.network
        logits = predict(network, self.feed.test, self.processes)
        check_logits_of(f"the {prepared.training.stage}", "test", logits, self.feed.test)
        return logits


def _too_large(trainer: Trainer, training: Training) -> tuple[str, str]:
    """What does not fit where memory is lacking in a training, and the keys to change."""
    key, accumulation = training.recipe_key, training.recipe.accumulation
    size = min(training.recipe.batch_size, trainer.batches.num_samples)
    what = f"the training of the {training.stage}, with {size} images at a time,"
    if size == 1:
        return what, smaller_images(trainer.val.shape)
    return what, (
        f"lower {key}.batch_size, as in {key}.batch_size={size // 2} {key}.accumulation={2 * accumulation}, which "
        "leaves the optimizer's steps as large as they are; or choose smaller networks, or a smaller dataset.image_size"
    )


def make_trainer(prepared: Prepared, workshop: Workshop) -> Trainer:
    """A trainer at its first step; raises UserError where optimizer or schedule refuse their arguments."""
    training, assembly = prepared.training, prepared.assembly
    recipe, key, builder = training.recipe, training.recipe_key, workshop.builder
    network, val, device = assembly.network, workshop.feed.val, Device(training.device, ())
    batches = workshop.feed.batches(training.views, recipe.batch_size, training.seed)
    if training.trains == "head":
        network, batches, val, device = probe_parts(training, network, workshop.feed, workshop.watcher, workshop.stop)
    if training.sampling == "balanced":
        batches.balance(workshop.feed.train.targets)
    if training.unlabelled_share is not None:
        batches.share_unlabelled(training.unlabelled_share)
    batches.processes = workshop.processes
    learning = parameter_groups(network, assembly.loss, recipe, key)
    learner = Learner(
        stage=training.stage,
        network=network,
        loss=assembly.loss,
        guide=prepared.guide,
        points=assembly.student_points,
        optimizer=builder.build(
            device.fused(recipe.optimizer, f"{key}.optimizer"), f"{key}.optimizer", params=learning
        ),
        recipe=recipe,
        seed=training.seed,
        device=device,
        processes=workshop.processes,
    )
    return Trainer(
        learner,
        schedule=builder.build(recipe.schedule, f"{key}.schedule", epochs=recipe.epochs),
        batches=batches,
        val=val,
        select_by=training.select_by,
        checkpoint_seconds=60 * workshop.checkpoint_minutes if workshop.checkpoint_minutes else None,
    )
