"""Steps of several students of one architecture, whose forward and backward passes are those of one stacked network."""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call

from distill_run.data.batches import Batch
from distill_run.engine.learner import Learner
from distill_run.engine.loop import Step
from distill_run.engine.scored import Scored
from distill_run.engine.together import error_of, take_in_turn
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import total
from distill_run.out_of_memory import is_out_of_memory

TRIES = 5  # steps of each way that are timed, after as many that are not
TOLERANCE = 0.02  # of the largest logit, also in bf16: a stacked network adds in another order

Kind = tuple[Any, ...]  # of a step: what must be equal where networks are stacked
IsFaster = Callable[[Sequence[Learner], Sequence[Tensor]], bool]


class StackedTaker:
    """Takes steps of several trainings: as one stacked network where they allow it and `is_faster`, else in turn.

    `is_faster` is asked once for so many trainings of a kind, with their learners and images like those of a batch.
    """

    def __init__(self, is_faster: IsFaster) -> None:
        self.is_faster = is_faster
        self.decided: dict[Kind, bool] = {}
        self.networks: WeakKeyDictionary[Learner, Kind] = WeakKeyDictionary()  # what is known of each learner's

    def __call__(self, steps: Sequence[Step]) -> list[BaseException | None]:
        """See Take."""
        alike: dict[Kind, list[int]] = {}
        for number, step in enumerate(steps):
            alike.setdefault(self._kind(step), []).append(number)
        errors: list[BaseException | None] = [None] * len(steps)
        for kind, numbers in alike.items():
            chosen = [steps[number] for number in numbers]
            take = take_stacked if self._stacks(kind, chosen) else take_in_turn
            for number, error in zip(numbers, take(chosen), strict=True):
                errors[number] = error
        return errors

    def _kind(self, step: Step) -> Kind:
        trainer = step.trainer
        learner, batches = trainer.learner, trainer.batches
        if learner not in self.networks:
            tensors = learner.network.state_dict().items()
            self.networks[learner] = repr(learner.network), tuple((name, value.shape) for name, value in tensors)
        recipe = learner.recipe
        sizes = batches.batch_size, batches.num_samples, recipe.accumulation, trainer.val.shape
        return *self.networks[learner], *sizes, recipe.freeze_batch_norm, learner.device.settings

    def _stacks(self, kind: Kind, steps: Sequence[Step]) -> bool:
        learners = [step.trainer.learner for step in steps]
        first = learners[0]
        if (
            len(steps) == 1
            or any(learner.read.points for learner in learners)
            or first.device.settings.compile != "off"
        ):
            return False
        shared = len({id(step.trainer.batches) for step in steps}) == 1
        key = (*kind, len(steps), shared)
        if key not in self.decided:
            size, device = (steps[0].trainer.batches.batch_size, *steps[0].trainer.val.shape), first.network.mean.device
            images = [torch.rand(size, generator=torch.Generator().manual_seed(0)).to(device)] * len(steps)
            if not shared:
                images = [each.clone() for each in images]
            self.decided[key] = can_stack(learners, images) and self.is_faster(learners, images)
        return self.decided[key]


def can_stack(learners: Sequence[Learner], images: Sequence[Tensor]) -> bool:
    """Whether copies of the networks give the logits in one pass that each gives alone.

    They do not where a layer draws at random, or asks for a number in the middle of the pass.
    """
    ours, theirs = (_copies(learners) for _ in range(2))
    with learners[0].device.autocast(), torch.no_grad():
        try:
            stacked = stacked_logits(ours, images)
        except (RuntimeError, NotImplementedError, ValueError, TypeError):
            return False
        alone = torch.stack([network(given) for network, given in zip(theirs, images, strict=True)])
    return bool(((stacked - alone).abs().max() <= TOLERANCE * alone.abs().max()).item())


def measured_faster(tell: Callable[[str], None]) -> IsFaster:
    """Decides by timing a few passes of copies, forward and backward, and tells what came of it."""

    def is_faster(learners: Sequence[Learner], images: Sequence[Tensor]) -> bool:
        networks, autocast = _copies(learners), learners[0].device.autocast

        def in_turn() -> None:
            for network, given in zip(networks, images, strict=True):
                with autocast():
                    logits: Tensor = network(given)
                logits.float().square().mean().backward()  # type: ignore[no-untyped-call]

        def stacked() -> None:
            with autocast():
                logits = stacked_logits(networks, images)
            logits.float().square().mean().backward()  # type: ignore[no-untyped-call]

        turn = _seconds(in_turn, images[0].device)
        try:
            stack = _seconds(stacked, images[0].device)
        except RuntimeError as error:  # all activations at once need more memory than those of one
            if not is_out_of_memory(error):
                raise
            stack = math.inf
        way = "stacked" if stack < turn else "in turn"
        tell(
            f"{len(learners)} networks train together, {way}: measured {1000 * stack:.1f} ms for a stacked forward and "
            f"backward pass, {1000 * turn:.1f} ms in turn"
        )
        return stack < turn

    return is_faster


def _copies(learners: Sequence[Learner]) -> list[nn.Module]:
    """The networks as they are in training; what happens to them is forgotten."""
    return [copy.deepcopy(learner.network) for learner in learners]


def _seconds(act: Callable[[], None], device: torch.device) -> float:
    """How long an act takes on a device."""
    for _ in range(TRIES):
        act()
    torch.get_device_module(device).synchronize()
    begun = time.perf_counter()
    for _ in range(TRIES):
        act()
    torch.get_device_module(device).synchronize()
    return (time.perf_counter() - begun) / TRIES


def stacked_logits(networks: Sequence[nn.Module], images: Sequence[Tensor]) -> Tensor:
    """The logits (S, N, K) that S networks of one architecture give for images (N, C, H, W) of each, in one pass.

    Gradients reach the parameters of each network, and its buffers change as its own forward pass would change them:
    batch norm takes the statistics of each network's own maps. Images that are one tensor for all are not copied.
    """
    shared = all(each is images[0] for each in images)
    given = images[0] if shared else torch.stack(list(images))
    own_buffers = [dict(network.named_buffers()) for network in networks]
    parameters, buffers = _stack([dict(network.named_parameters()) for network in networks]), _stack(own_buffers)

    def one(parameters: dict[str, Tensor], own: dict[str, Tensor], batch: Tensor) -> Tensor:
        logits: Tensor = functional_call(networks[0], (parameters, own), (batch,))
        return logits

    logits: Tensor = torch.vmap(one, in_dims=(0, 0, None if shared else 0))(parameters, buffers, given)
    changed = [buffers[name][number] for number, own in enumerate(own_buffers) for name in own]
    with torch.no_grad():  # one call for all: a copy of each would cost a GPU more than the pass saves
        torch._foreach_copy_([value for own in own_buffers for value in own.values()], changed)
    return logits


def _stack(several: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([each[name] for each in several]) for name in several[0]}


class _Member:
    """A training in a stacked step: what it does alone, and what went wrong with it."""

    def __init__(self, step: Step) -> None:
        self.step, self.learner = step, step.trainer.learner
        self.num_batches, self.num_images = step.trainer.begin_step()
        self.learner.optimizer.zero_grad(set_to_none=True)
        self.losses: list[Tensor] = []
        self.error: BaseException | None = None
        self.batch: Batch
        self.scored: Scored

    def draw(self) -> None:
        self.batch = next(self.step.batches)

    def score(self, logits: Tensor) -> None:
        size = len(self.batch.targets)
        self.scored = self.learner.score(self.batch, Outputs(logits.float()), size, self.num_images)

    def count(self) -> None:
        self.losses.append(self.learner.count(self.scored))

    def end(self) -> None:
        self.learner.update(self.num_images, self.batch)
        self.step.trainer.end_step(total(self.losses), self.num_images, self.step.watcher)


def take_stacked(steps: Sequence[Step]) -> list[BaseException | None]:
    """Take a step of each training, with one forward and one backward pass for all; see Take."""
    members = [_Member(step) for step in steps]
    for _ in range(members[0].num_batches):
        begun = time.perf_counter()
        _each(members, _Member.draw)
        made = time.perf_counter()
        _add_gradients([member for member in members if member.error is None])
        _each(members, _Member.count)
        _add_time(members, begun, made)
    begun = time.perf_counter()
    _each(members, _Member.end)
    _add_time(members, begun, begun)
    return [member.error for member in members]


def _add_gradients(members: Sequence[_Member]) -> None:
    """The forward and the backward pass of a batch of each; the sum of their losses has the gradients of all."""
    if not members:
        return
    try:
        with members[0].learner.device.autocast():
            networks = [member.learner.network for member in members]
            logits = stacked_logits(networks, [member.batch.images for member in members])
        for member, own in zip(members, logits.unbind(), strict=True):
            member.error = error_of(partial(member.score, own))
        losses = [member.learner.scaled(member.scored) for member in members if member.error is None]
        if losses:
            with members[0].learner.device.backward():
                total(losses).backward()  # type: ignore[no-untyped-call]
    except Exception as error:  # such as a lack of memory: that of all of them
        for member in members:
            member.error = member.error or error


def _each(members: Sequence[_Member], act: Callable[[_Member], None]) -> None:
    for member in members:
        if member.error is None:
            member.error = error_of(partial(act, member))


def _add_time(members: Sequence[_Member], begun: float, made: float) -> None:
    """Each training bears the same share of what was done since `begun`; until `made`, batches were made."""
    seconds, data_seconds = time.perf_counter() - begun, made - begun
    for member in members:
        member.learner.totals.add_time(seconds / len(members), data_seconds / len(members))
