"""Trainings that a run waits for: whoever tells the run's story has them trained, alone or with those of other runs."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

from distill_run.stages.assembly import Prepared
from distill_run.stages.trained import Trained
from distill_run.stages.workshop import Workshop
from distill_run.stretches import Within

T = TypeVar("T")


@dataclass(frozen=True)
class Wanted:
    """A training that a run waits for, and the workshop where it happens.

    Its outcome is kept in the workshop's store, as one of that `kind`; None: nowhere. `teacher` is who guides it. What
    is done for it is done `within` such a block.
    """

    prepared: Prepared
    workshop: Workshop
    kind: str | None
    within: Within
    teacher: Trained | None = None

    @property
    def fingerprint(self) -> str:
        """That of the training."""
        return self.prepared.training.fingerprint


# What happens in a run: it pauses with the trainings that it waits for, and is sent what came of each.
Story = Generator[list[Wanted], list[Trained], T]
