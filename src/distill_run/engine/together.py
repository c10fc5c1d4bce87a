"""Several trainings that go on together, step by step."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from functools import partial

from distill_run.data.batches import Batch
from distill_run.engine.loop import Step
from distill_run.engine.protocols import Guide
from distill_run.models.outputs import Outputs

Steps = Generator[Step, None, None]
Take = Callable[[Sequence[Step]], list[BaseException | None]]  # takes a step of each; what went wrong with each


def train_together(several: Sequence[Steps], take: Take) -> list[BaseException | None]:
    """Train all to their ends; what ended each before: None, or its error, which is no concern of the others.

    Those that are the furthest behind take the next step: so trainings that go on from different steps meet. Where all
    are asked to stop, each saves its state and ends with that error.
    """
    ended: list[BaseException | None] = [None] * len(several)
    waiting: dict[int, Step] = {}

    def go_on(number: int, act: Callable[[], Step]) -> None:
        try:
            waiting[number] = act()
        except StopIteration:
            waiting.pop(number, None)
        except (Exception, KeyboardInterrupt) as error:
            waiting.pop(number, None)
            ended[number] = error

    try:
        for number, steps in enumerate(several):
            go_on(number, partial(next, steps))
        while waiting:
            first = min(step.place for step in waiting.values())
            now = [number for number, step in waiting.items() if step.place == first]
            for number, error in zip(now, take([waiting[number] for number in now]), strict=True):
                steps = several[number]
                go_on(number, partial(next, steps) if error is None else partial(steps.throw, error))
    finally:
        for steps in several:
            steps.close()
    return ended


def take_in_turn(steps: Sequence[Step]) -> list[BaseException | None]:
    """Take one step after the other."""
    return [error_of(step.take) for step in steps]


def error_of(act: Callable[[], object]) -> BaseException | None:
    """What an act raises; None if all is well."""
    try:
        act()
    except (Exception, KeyboardInterrupt) as error:
        return error
    return None


class SharedGuide:
    """A guide that several trainings ask for the same batches, and that answers from memory after the first.

    It remembers its answers for the last `num_kept` batches.
    """

    def __init__(self, guide: Guide, num_kept: int) -> None:
        self.guide = guide
        self.kept: deque[tuple[Batch, Outputs]] = deque(maxlen=num_kept)

    def __call__(self, batch: Batch) -> Outputs:
        """The teacher's outputs for a batch."""
        for known, outputs in self.kept:
            if known is batch:
                return outputs
        self.kept.append((batch, self.guide(batch)))
        return self.kept[-1][1]
