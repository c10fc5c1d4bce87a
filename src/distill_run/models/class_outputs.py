"""Teachers of other classes: which outputs of a head stand for the classes of a dataset."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import final

import torch
from torch import Tensor, nn

from distill_run.errors import UserError, user_error
from distill_run.tensor_files import some_of

Names = tuple[str, ...]  # of one output, the preferred one first
NUM_NEAR = 3  # names that are told where one is not found
NAME_THEM = (
    "write teacher_classes=FILE with a line for each class, as in cat: tabby, tiger cat; names or indices of outputs"
)


@final
class ClassOutputs(nn.Module):
    """Logits (N, C) of a head to logits (N, K): a class has one output, or several, whose probabilities are summed.

    The logit of a class is the logarithm of the sum of exp(logit) over its outputs. So its softmax is, exactly, the sum
    of its outputs' probabilities, divided by the sum over all outputs in use. A temperature then softens this
    distribution over the K classes; softening the C outputs first would favour classes that have many of them.
    """

    places: Tensor
    unused: Tensor

    def __init__(self, outputs: Sequence[Sequence[int]]) -> None:
        super().__init__()
        most = max(map(len, outputs))
        places = torch.tensor([[*own, *[own[0]] * (most - len(own))] for own in outputs])
        unused = torch.tensor([[0.0] * len(own) + [-torch.inf] * (most - len(own)) for own in outputs])
        self.register_buffer("places", places, persistent=False)  # (K, M)
        self.register_buffer("unused", unused, persistent=False)

    def forward(self, logits: Tensor) -> Tensor:
        """See the class; in float32."""
        return (logits.float()[:, self.places] + self.unused).logsumexp(2)


@dataclass(frozen=True)
class Head:
    """The `size` outputs of a teacher's head, with their names, where they are known."""

    size: int
    names: tuple[Names, ...] | None

    def told(self, output: int) -> str:
        """An output as people are told of it."""
        return f"{output} ({self.names[output][0]})" if self.names else str(output)

    def find(self, wanted: str | int) -> int:
        """The output with that index or name; raises UserError, which says what is near, where there is not one."""
        if isinstance(wanted, int):
            if wanted >= self.size:
                raise user_error(f"the teacher has no output {wanted}", f"write an index from 0 to {self.size - 1}")
            return wanted
        if self.names is None:
            raise user_error(
                f"no output of the teacher is known as {wanted}: its {self.size:,} outputs have no names",
                "write indices, or give a file with the names of all outputs, one a line",
            )
        found = self.places(wanted)
        if len(found) > 1:
            what = f"{wanted} is the name of more than one output: {', '.join(map(self.told, found))}"
            raise user_error(what, f"write one index, as in {found[0]}")
        if not found:
            near = self._near(plain_name(wanted))
            nearest = f" (nearest: {', '.join(near)})" if near else ""
            raise user_error(f"no output of the teacher is named {wanted}{nearest}", NAME_THEM)
        return found[0]

    def places(self, wanted: str) -> list[int]:
        """The outputs with that name: the one whose preferred name it is to the letter, or those that are alike."""
        exact = [place for place, names in enumerate(self.names or ()) if names[0] == wanted]
        return exact if len(exact) == 1 else self._places.get(plain_name(wanted), [])

    def _near(self, wanted: str) -> list[str]:
        """Names with a word of the wanted one, as tiger cat for cat, and those that are spelt alike."""
        words = set(wanted.split())
        alike = [name for name in self._places if words & set(name.split())]
        alike += get_close_matches(wanted, self._places, n=NUM_NEAR)
        return list(dict.fromkeys(self.told(self._places[name][0]) for name in alike))[:NUM_NEAR]

    @cached_property
    def _places(self) -> dict[str, list[int]]:
        """The outputs that have a name, by the name as names are compared."""
        places: dict[str, list[int]] = {}
        for place, names in enumerate(self.names or ()):
            for name in dict.fromkeys(map(plain_name, names)):
                places.setdefault(name, []).append(place)
        return places


def plain_name(name: str) -> str:
    """A name as names are compared: in lower case, with single spaces for _ and -, and accents in one of their forms.

    The names of folders have their accents in another form on macOS than elsewhere.
    """
    return " ".join(re.sub("[_-]", " ", unicodedata.normalize("NFKC", name)).casefold().split())


def choose_outputs(given: str, entries: Sequence[Sequence[str | int]], head: Head) -> list[list[int]]:
    """The outputs of each class, by the `entries` for each: indices or names.

    Raises UserError, with `given` (the key and its value), where an entry is not an output, or is one twice.
    """
    outputs: list[list[int]] = []
    problems: list[UserError] = []
    for entry in entries:
        try:
            outputs.append([head.find(each) for each in entry])
        except UserError as error:
            problems.append(error)
    if problems:
        remedies = dict.fromkeys(error.mistakes[0].remedy for error in problems)
        told = [error.mistakes[0].what for error in problems]
        raise user_error(f"{given}: {some_of(told, '; ')}", "; ".join(remedies))
    uses = Counter(output for own in outputs for output in own)
    if twice := [output for output, count in uses.items() if count > 1]:
        raise user_error(f"{given} uses {head.told(twice[0])} more than once", "give each class outputs of its own")
    return outputs
