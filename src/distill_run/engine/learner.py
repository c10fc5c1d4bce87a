"""What learns: a network with its loss and its optimizer, that takes one step after another. It knows no mode."""

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from distill_run.config.schema import Recipe
from distill_run.data.batches import Batch
from distill_run.data.draws import stream
from distill_run.engine.checks import AtOnce, check_for
from distill_run.engine.compilation import compiled
from distill_run.engine.device import Device
from distill_run.engine.fine_tuning import MovingAverage, freeze_batch_norm
from distill_run.engine.finite import CALMER, faulty_gradients, total_norm
from distill_run.engine.gradient_sums import summed_gradients
from distill_run.engine.protocols import Guide
from distill_run.engine.scored import Scored
from distill_run.engine.shared_statistics import shared_statistics
from distill_run.engine.totals import Totals
from distill_run.engine.whole_batch import whole_batch, whole_outputs
from distill_run.errors import DivergedError, Mistake
from distill_run.models.features import FeatureReader
from distill_run.models.network import Network
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import total
from distill_run.objectives.total import TotalLoss
from distill_run.processes import ALONE, Processes

SMALLEST_SCALE = 1.0  # of fp16's gradients; those that overflow at it are not the scale's fault


class Learner:
    """A network with what teaches it, and the figures of the epoch in progress.

    `guide` gives the teacher's outputs for a batch; None where the loss needs nothing of a teacher. `points` are the
    places of the network's features that the loss reads, by their names. What layers such as dropout draw is a function
    of `seed`, epoch, step and process. Of several `processes`, each passes its share of the images through the network
    and computes the loss of the whole batch; their gradients are added up.
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
        recipe: Recipe,
        seed: int,
        device: Device,
        processes: Processes = ALONE,
    ) -> None:
        self.stage = stage
        self.network = network
        self.loss = loss
        self.guide = guide
        self.optimizer = optimizer
        self.recipe = recipe
        self.seed = seed
        self.device = device
        self.processes = processes
        self.scaler = device.grad_scaler()
        self.base_rates = [group["lr"] for group in optimizer.param_groups]
        self.average = None if recipe.ema is None else MovingAverage(network, recipe.ema)
        # The gradients of several batches are added up: a graph would overwrite the first ones.
        # Several processes talk in the middle of a pass, which no graph can hold.
        with_graphs = recipe.accumulation == 1 and processes.size == 1
        forward = compiled(network, device.settings, with_graphs=with_graphs)
        self.read = FeatureReader(network, points, forward)
        self.totals = Totals()
        self.check = check_for(device)

    @property
    def evaluated(self) -> Network:
        """The network that is measured and kept: the moving average of the weights, where the recipe asks for one."""
        if self.average is None:
            return self.network
        assert isinstance(self.average.module, Network)
        return self.average.module

    def begin(self) -> None:
        """Let the layers do what they do in training."""
        self.network.train()
        self.loss.train()
        if self.recipe.freeze_batch_norm:
            freeze_batch_norm(self.network)

    def scale_rates(self, factor: float) -> None:
        """Set each learning rate to that part of the optimizer's own."""
        for group, base_rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = base_rate * factor

    def step(self, batches: Iterator[Batch], num_batches: int, num_images: int) -> Tensor:
        """Change the weights by the mean gradient of the next batches, which have so many images; returns the loss.

        Raises DivergedError for a loss, teacher's logits or gradients that are not finite, before anything is changed
        where the check is AtOnce; else a caller asks `went_back` now and then.
        """
        self.optimizer.zero_grad(set_to_none=True)
        losses, num_left = [], num_images
        for number in range(num_batches):
            start = time.perf_counter()
            batch = next(batches)
            made = time.perf_counter()
            size = min(self.recipe.batch_size, num_left)
            with self._summed() if number == num_batches - 1 else nullcontext():
                losses.append(self._add_gradients(batch, size, num_images))
            num_left -= size
            self.totals.add_time(time.perf_counter() - start, made - start)
        start = time.perf_counter()
        self.update(num_images, batch)
        self.totals.add_time(time.perf_counter() - start, 0.0)
        return total(losses)

    def keep(self) -> None:
        """Remember this state, in which all is finite, if the check may have to go back to it."""
        self.check.keep(self.state)

    def went_back(self) -> bool:
        """Whether something was not finite since `keep`.

        Then the state is that of `keep` again, and from here on each step is checked at once.
        """
        start = time.perf_counter()
        state = self.check.state_to_go_back_to()
        self.totals.add_time(time.perf_counter() - start, 0.0)  # that of the steps for which the device was waited for
        if state is None:
            return False
        self.check = AtOnce()
        self.load_state(state)
        return True

    def close(self) -> None:
        """Take the hooks out of the network, and free what only the training needed."""
        self.read.remove()
        self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Any]:
        """Everything that a resume needs, as plain containers and tensors."""
        return {
            "network": self.network.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "totals": self.totals.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where the state was taken."""
        self.network.load_state_dict(state["network"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.loss.load_state_dict(state["loss"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.totals = Totals(**state["totals"])

    def weights(self) -> dict[str, Tensor]:
        """A copy of the weights and buffers of the evaluated network, on the CPU."""
        return {key: value.detach().cpu().clone() for key, value in self.evaluated.architecture.state_dict().items()}

    def _add_gradients(self, own: Batch, size: int, num_images: int) -> Tensor:
        """Add the gradients of a batch of `size` images, of which this process has its `own`; see `score`."""
        self.device.seed((stream("dropout", self.seed, own.epoch, own.step) >> 1) + self.processes.rank)
        with self.device.autocast(), self._norm(size):
            outputs = self.read(own.images)
        scored = self.score(own, outputs, size, num_images)
        with self.device.backward():
            self.scaled(scored).backward()  # type: ignore[no-untyped-call]
        return self.count(scored)

    def score(self, own: Batch, outputs: Outputs, size: int, num_images: int) -> Scored:
        """The loss of a batch of `size` images in a step of `num_images`; the network's outputs are for `own` images.

        Each of several processes has its own, and computes the loss of the whole batch.
        """
        guidance = self.guide(own) if self.guide else None
        batch = whole_batch(own, size, self.processes)
        outputs = whole_outputs(outputs, size, self.processes)
        guidance = guidance and whole_outputs(guidance, size, self.processes)
        losses = self.loss.losses(batch, outputs, guidance)
        return Scored(batch, outputs, guidance, *losses, share=len(batch.targets) / num_images)

    def scaled(self, scored: Scored) -> Tensor:
        """What the gradients of a batch are computed of."""
        return self.scaler.scale(scored.loss * scored.share)

    def count(self, scored: Scored) -> Tensor:
        """Take a batch into account whose gradients were added; returns its share of the loss.

        Raises DivergedError for a loss or teacher's logits that are not finite.
        """
        batch, loss = scored.batch, scored.loss
        if self.check.fails(scored.is_finite()):  # AtOnce waits for the device, which now has the backward pass to do
            what, remedy = scored.fault(self._place(batch), self.network, self._gradients())
            raise self._diverged(what, remedy)
        self.totals.add(batch.targets, scored.outputs.logits, {"loss": loss, **scored.parts})
        return loss.detach() * scored.share

    def _norm(self, num_images: int) -> AbstractContextManager[object]:
        """The context in which batch norm sees so many images of all processes, or those of this one alone."""
        wanted = self.device.settings.sync_batch_norm
        return shared_statistics(self.processes, num_images) if wanted else nullcontext()

    def _summed(self) -> AbstractContextManager[None]:
        """The context of a step's last backward pass, which gives every process the gradients of all images.

        Those of the loss's own weights are the same in each; their mean is equal to the last bit everywhere.
        """
        return summed_gradients(self._parameters(), self.loss.parameters(), self.processes)

    def update(self, num_images: int, batch: Batch) -> None:
        """Change the weights by the gradients of so many images, and their moving average by the weights.

        `batch` is the last of the step. Raises DivergedError for gradients that are not finite.
        """
        self.scaler.unscale_(self.optimizer)
        norm = total_norm(self._gradients(), is_exact=self.recipe.clip_norm is not None)
        # Above the smallest scale, the scaler skips this step.
        if self.check.fails(torch.isfinite(norm)) and self.scaler.get_scale() <= SMALLEST_SCALE:
            faulty = faulty_gradients([*self.network.architecture.named_parameters(), *self.loss.named_parameters()])
            what = f"gradients are not finite at {self._place(batch)}: {faulty}"
            raise self._diverged(what, CALMER)
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self._parameters(), self.recipe.clip_norm, norm)
            self.totals.add_flag("clipped", norm > self.recipe.clip_norm, num_images)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.network)

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self._parameters() if parameter.grad is not None]

    def _place(self, batch: Batch) -> str:
        """The step of a batch, as people count."""
        return f"epoch {batch.epoch}, step {batch.step // self.recipe.accumulation + 1}"

    def _diverged(self, what: str, remedy: str) -> DivergedError:
        return DivergedError([Mistake(f"the {self.stage}'s {what}", remedy)])
