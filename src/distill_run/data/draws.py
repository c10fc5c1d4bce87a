"""Random numbers as pure functions of indices: a draw does not depend on earlier draws for other samples."""

from math import prod

import torch
from torch import Tensor

from distill_run.data.sending import send

CPU = torch.device("cpu")
# What is folded in after the seed and the indices. Two streams of the same numbers need different entries here, unless
# one of them only seeds a torch.Generator, whose numbers have nothing to do with those of random_bits.
STREAMS = {
    "augment": (),  # seed, view
    "mixing": (1,),  # seed, view
    "window": (2,),  # seed, view
    "order": (),  # seed, epoch; seeds a generator
    "dropout": (),  # seed, epoch, step; seeds a generator
    "negatives": (1,),  # seed, epoch, step; seeds a generator
}
# The draws from one block have at most so many combinations, whose probabilities differ by less than 1 in 4 million.
MOST_CHOICES = 2**40
_POSITIONS = 0x5851F42D4C957F2D  # the stream of the numbers that belong to one key; any odd constant would do


def stream(name: str, *numbers: int) -> int:
    """The 64-bit number of a stream of random numbers: its name, and the seed, view, epoch or step it belongs to."""
    return fold(*numbers, *STREAMS[name])


class Draws:
    """Independent uniform draws for each sample, for the device that the samples lie on.

    `indices` (N,), on the CPU, are the samples, `stream_number` is the result of `stream`. The draws of a sample are
    the digits of its 62 random bits, taken as a mixed-radix number. When these bits are used up, those of a new block
    follow, so that any number of draws can be made. What is drawn depends on the order of the calls, so all steps of a
    view share one object. A step that has to decide by a draw what to compute asks for it on the CPU: there it is made,
    and no GPU is waited for.
    """

    def __init__(self, indices: Tensor, stream_number: int, device: torch.device = CPU) -> None:
        self.indices = indices
        self.stream_number = stream_number
        self.device = device
        self.num_blocks = 1
        self.num_choices = 1
        self.bits = random_bits(indices, stream_number)

    def __call__(self, choices: int) -> Tensor:
        """A number of 0..choices-1 for each sample (N,)."""
        return send(self.on_cpu(choices), self.device)

    def on_cpu(self, choices: int) -> Tensor:
        """The same number on the CPU."""
        if self.num_choices * choices > MOST_CHOICES and self.num_choices > 1:
            self.bits, self.num_choices = self._new_block(), 1
        self.num_choices *= choices
        drawn = self.bits % choices
        self.bits = self.bits // choices
        return drawn

    def uniform(self, *shape: int) -> Tensor:
        """Numbers (N, *shape) from 0 to below 1, in float32: for noise and the like."""
        return _uniform(send(self._new_block(), self.device), shape)

    def uniform_on_cpu(self, *shape: int) -> Tensor:
        """The same numbers on the CPU."""
        return _uniform(self._new_block(), shape)

    def _new_block(self) -> Tensor:
        block = random_bits(self.indices, fold(self.stream_number, self.num_blocks))
        self.num_blocks += 1
        return block


def _uniform(block: Tensor, shape: tuple[int, ...]) -> Tensor:
    positions = torch.arange(prod(shape), device=block.device)
    bits = random_bits(block.unsqueeze(1) + positions, _POSITIONS)
    return ((bits >> 38).float() / 2**24).view(-1, *shape)


# SplitMix64 (Steele, Lea and Flood, 2014): a counter-based generator whose output function is a strong hash.
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_MASK = 0xFFFFFFFFFFFFFFFF


def fold(*numbers: int) -> int:
    """One 64-bit number made of several; each of them changes all of its bits."""
    state = 0
    for number in numbers:
        state = (state + number * _GOLDEN + _GOLDEN) & _MASK
        state = ((state ^ (state >> 30)) * _MIX_1) & _MASK
        state = ((state ^ (state >> 27)) * _MIX_2) & _MASK
        state ^= state >> 31
    return state


def random_bits(counters: Tensor, stream_number: int) -> Tensor:
    """Uniform int64 in 0..2^62 - 1 for each int64 counter: SplitMix64 in that stream, on the counters' device."""
    state = counters * _signed(_GOLDEN) + _signed(stream_number)  # int64 arithmetic wraps, as the generator wants
    state = (state ^ _shift(state, 30)) * _signed(_MIX_1)
    state = (state ^ _shift(state, 27)) * _signed(_MIX_2)
    return _shift(state ^ _shift(state, 31), 2)


def _shift(state: Tensor, bits: int) -> Tensor:
    """A logical shift to the right: torch's repeats the sign bit."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    """The int64 with the same 64 bits."""
    return number - (1 << 64) if number >> 63 else number
