"""The one training loop. It knows epochs, steps and checkpoints; it knows no mode, no dataset, no Hydra."""

import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from distill_run.config.schema import Recipe
from distill_run.data.batches import Batch, Batches
from distill_run.data.draws import stream
from distill_run.data.source import ImageSet
from distill_run.engine.device import Device, compiled
from distill_run.engine.evaluate import commonest_share, measure, predict
from distill_run.engine.fine_tuning import freeze_batch_norm, moving_average
from distill_run.engine.finite import CALMER, first_not_finite
from distill_run.engine.interrupt import StopRequest
from distill_run.engine.protocols import Guide, LoopWatcher
from distill_run.engine.schedules import Schedule
from distill_run.engine.selection import goodness, rank
from distill_run.engine.totals import Totals
from distill_run.errors import DivergedError, Mistake
from distill_run.models.features import FeatureReader
from distill_run.models.network import Network
from distill_run.objectives.base import total
from distill_run.objectives.total import TotalLoss
from distill_run.tensor_files import some_of

SMALLEST_SCALE = 1.0  # of fp16's gradients; those that overflow at it are not the scale's fault


class Trainer:
    """Trains a network to a small loss, and remembers the epoch that was best on validation, by `select_by`.

    `guide` gives the teacher's outputs for a batch; None where the loss needs nothing of a teacher. `points` are the
    places of the network's features that the loss reads, by their names. `checkpoint_seconds` is how long a training
    goes on before its state is saved within an epoch; None: only at the end. Everything random is a function of `seed`,
    epoch and step: a trainer that is built in the same way, and given a saved state by `load_state`, goes on as if it
    had never stopped.
    """

    def __init__(
        self,
        *,
        stage: str,
        network: Network,
        loss: TotalLoss,
        guide: Guide | None,
        points: Mapping[str, str],
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        batches: Batches,
        val: ImageSet,
        recipe: Recipe,
        select_by: str,
        seed: int,
        device: Device,
        checkpoint_seconds: float | None = None,
    ) -> None:
        self.stage = stage
        self.network = network
        self.loss = loss
        self.guide = guide
        self.optimizer = optimizer
        self.schedule = schedule
        self.batches = batches
        self.val = val
        self.recipe = recipe
        self.select_by = select_by
        self.seed = seed
        self.device = device
        self.checkpoint_seconds = checkpoint_seconds
        self.scaler = device.grad_scaler()
        self.base_rates = [group["lr"] for group in optimizer.param_groups]
        self.average = None if recipe.ema is None else moving_average(network, recipe.ema)
        self.read = FeatureReader(network, points, compiled(network) if device.settings.compile else network)
        self.epoch, self.step = 1, 0  # the epoch in progress (from 1) and its next step (from 0)
        self.history: list[dict[str, Any]] = []
        self.selected: dict[str, Any] = {}
        self.totals = Totals()

    @property
    def num_steps(self) -> int:
        """The optimizer's steps in an epoch; the last may have fewer batches."""
        return math.ceil(self.batches.num_steps / self.recipe.accumulation)

    @property
    def evaluated(self) -> Network:
        """The network that is measured and kept: the moving average of the weights, where the recipe asks for one."""
        if self.average is None:
            return self.network
        assert isinstance(self.average.module, Network)
        return self.average.module

    def fit(self, watcher: LoopWatcher, stop: StopRequest) -> None:
        """Train to the end; the watcher is given the state now and then, and where the training is cut short.

        Raises DivergedError, before the optimizer's step, for a loss, teacher's logits or gradients that are not
        finite; and what `stop` was requested with, after a step or an epoch.
        """
        with stop.polled():
            while self.epoch <= self.recipe.epochs and not self._is_out_of_patience():
                self._train_epoch(watcher, stop)
                row = self._finish_epoch(self._validate(watcher, stop))
                watcher.state_saved(self.state())
                watcher.epoch_ended(row)
                if stop.requested:
                    raise stop.error

    def _train_epoch(self, watcher: LoopWatcher, stop: StopRequest) -> None:
        """The steps of the epoch in progress that are left."""
        self._begin_training()
        saved = time.monotonic()
        batches = self.batches.epoch(self.epoch, first_step=self.step * self.recipe.accumulation)
        for _ in range(self.step, self.num_steps):
            self._train_step(batches, watcher)
            if stop.requested:
                watcher.state_saved(self.state())
                raise stop.error
            if self.checkpoint_seconds is not None and time.monotonic() - saved >= self.checkpoint_seconds:
                watcher.state_saved(self.state())
                saved = time.monotonic()

    def close(self) -> None:
        """Take the hooks out of the network, and free what only the training needed."""
        self.read.remove()
        self.optimizer.zero_grad(set_to_none=True)

    def _begin_training(self) -> None:
        """Let the layers do what they do in training."""
        self.network.train()
        self.loss.train()
        if self.recipe.freeze_batch_norm:
            freeze_batch_norm(self.network)

    def _train_step(self, batches: Iterator[Batch], watcher: LoopWatcher) -> None:
        """A step of the optimizer, on the mean gradient of the next images."""
        self._set_learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        first = self.step * self.recipe.accumulation
        last = min(first + self.recipe.accumulation, self.batches.num_steps)
        num_images = min(last * self.batches.batch_size, self.batches.num_samples) - first * self.batches.batch_size
        losses = []
        for _ in range(first, last):
            start = time.perf_counter()
            batch = next(batches)
            made = time.perf_counter()
            losses.append(self._add_gradients(batch, len(batch.targets) / num_images))
            self.totals.add_time(time.perf_counter() - start, made - start)
        start = time.perf_counter()
        self._update(num_images)
        self.totals.add_time(time.perf_counter() - start, 0.0)
        self.step += 1
        watcher.stepped(self.epoch, self.step, num_images, total(losses))

    def _add_gradients(self, batch: Batch, share: float) -> Tensor:
        """Add the gradients of a batch, which has that share of the step's images; returns its share of the loss."""
        self.device.seed(stream("dropout", self.seed, self.epoch, batch.step) >> 1)
        with self.device.autocast():
            outputs = self.read(batch.images)
        guidance = self.guide(batch) if self.guide else None
        loss, parts = self.loss.losses(batch, outputs, guidance)
        self.scaler.scale(loss * share).backward()  # type: ignore[no-untyped-call]
        finite = torch.isfinite(loss)
        if guidance is not None:  # a loss may be finite without them: the argmax of NaN is a class
            finite = finite & guidance.logits.isfinite().all()
        if not finite:  # waits for the device, which by now has the backward pass to work at
            what = "teacher's logits are" if torch.isfinite(loss) else "loss is"
            faulty = first_not_finite(batch.images, self.network, outputs, guidance, parts)
            where, remedy = faulty or ("the sum of the terms", CALMER)
            evidence = f"{self._evidence(batch, loss, parts)}; the first that is not: {where}"
            raise self._diverged(f"{what} not finite at {self._place}: {evidence}", remedy)
        self.totals.add(batch.targets, outputs.logits, {"loss": loss, **parts})
        return loss.detach() * share

    def _update(self, num_images: int) -> None:
        """Change the weights by the gradients of so many images, and their moving average by the weights."""
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.get_total_norm(self._gradients())
        if not torch.isfinite(norm) and self.scaler.get_scale() <= SMALLEST_SCALE:  # else the scaler skips this step
            raise self._diverged(f"gradients are not finite at {self._place}: {self._faulty_gradients()}", CALMER)
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self._parameters(), self.recipe.clip_norm, norm)
            self.totals.add_flag("clipped", norm > self.recipe.clip_norm, num_images)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.network)

    def _validate(self, watcher: LoopWatcher, stop: StopRequest) -> Tensor:
        """The validation logits (N, K) after the last step; a signal need not wait for all of them."""
        try:
            with stop.at_once():
                return predict(self.evaluated, self.val)
        except KeyboardInterrupt:
            watcher.state_saved(self.state())
            raise

    def _finish_epoch(self, val_logits: Tensor) -> dict[str, Any]:
        train, timing = self.totals.means(), self.totals.timing()
        val = measure(val_logits, self.val.targets.cpu())
        for name, value in {"training": train["loss"], "validation": val["nll"]}.items():
            if not math.isfinite(value):
                what = f"the {self.stage}'s {name} loss is not finite after epoch {self.epoch}"
                raise DivergedError([Mistake(what, CALMER)])
        self.schedule.observe(goodness(val, self.select_by))
        row = {
            "stage": self.stage,
            "epoch": self.epoch,
            "train": train,
            "val": val,
            "answers": commonest_share(val_logits),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            **timing,
        }
        self.history.append(row)
        if not self.selected or rank(val, self.select_by) > rank(self.selected["val"], self.select_by):
            self.selected = {"epoch": self.epoch, "val": val, "weights": self._weights()}
        self.epoch, self.step, self.totals = self.epoch + 1, 0, Totals()
        return row

    def state(self) -> dict[str, Any]:
        """Everything that a resume needs, as plain containers and tensors."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "network": self.network.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "history": self.history,
            "selected": self.selected,
            "totals": self.totals.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where the state was taken."""
        self.epoch, self.step = state["epoch"], state["step"]
        self.network.load_state_dict(state["network"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.loss.load_state_dict(state["loss"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        self.history = state["history"]
        self.selected = state["selected"]
        self.totals = Totals(**state["totals"])

    def _set_learning_rate(self) -> None:
        factor = self.schedule.factor(self.epoch - 1 + self.step / self.num_steps)
        for group, base_rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = base_rate * factor

    def _is_out_of_patience(self) -> bool:
        patience = self.recipe.patience
        return bool(patience and self.selected and self.epoch - 1 - self.selected["epoch"] >= patience)

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _weights(self) -> dict[str, Tensor]:
        return {key: value.detach().cpu().clone() for key, value in self.evaluated.architecture.state_dict().items()}

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self._parameters() if parameter.grad is not None]

    @property
    def _place(self) -> str:
        """The step in progress, as people count."""
        return f"epoch {self.epoch}, step {self.step + 1}"

    def _diverged(self, what: str, remedy: str) -> DivergedError:
        return DivergedError([Mistake(f"the {self.stage}'s {what}", remedy)])

    def _evidence(self, batch: Batch, loss: Tensor, parts: dict[str, Tensor]) -> str:
        """What the loss consists of, how large the gradients are, and the samples."""
        norm = nn.utils.get_total_norm(self._gradients()).item()
        shown = ", ".join(f"{name}={value.item():.4g}" for name, value in {"loss": loss, **parts}.items())
        return f"{shown}; gradient norm {norm:.4g}; samples {batch.indices.tolist()[:8]}..."

    def _faulty_gradients(self) -> str:
        """The weights whose gradients are not finite; where each is, their sum of squares is too large."""
        named = (*self.network.architecture.named_parameters(), *self.loss.named_parameters())
        faulty = [name for name, weight in named if weight.grad is not None and not weight.grad.isfinite().all()]
        return f"those of {some_of(faulty)}" if faulty else "the length of all of them"
