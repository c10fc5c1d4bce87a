"""Augmented views: view number v of sample i is a pure function of (seed, v, i).

Neither the batch that a sample stands in, nor its order or size, nor the device changes what is drawn for it.
That is what makes a teacher's stored logits belong to the images that the student sees, and a resumed run
equal to an uninterrupted one. torchvision's batched transforms draw once for a whole batch and cannot do this.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from distill_run.schema import AugmentSettings


class Views:
    """Renders views of a fixed set of images (M, C, H, W) of uint8, on the device where those lie.

    crop_padding: pixels of black around the image, out of which a window of its size is cut. flip: a mirror
    image, half of the time. cutout: side in pixels of a square blackened at a random centre (DeVries and
    Taylor, 2017); it may reach over the border.
    """

    def __init__(self, images: Tensor, augment: AugmentSettings, seed: int) -> None:
        self.augment = augment
        self.seed = seed
        self.height, self.width = images.shape[2:]
        padding = augment.crop_padding
        padded = F.pad(images, (padding, padding, padding, padding)) if padding else images
        # (M, C, 2p+1, 2p+1, H, W): every window as a view of the same memory, so that a crop is one gather.
        self.windows = padded.unfold(2, self.height, 1).unfold(3, self.width, 1)

    def render(self, indices: Tensor, view: int) -> Tensor:
        """View number `view` of the samples at `indices` (N,): float32 (N, C, H, W) in 0..1."""
        offsets = 2 * self.augment.crop_padding + 1
        top = self._draw(indices, view, "top", offsets)
        left = self._draw(indices, view, "left", offsets)
        images = self.windows[indices, :, top, left]
        if self.augment.flip:
            is_flipped = self._draw(indices, view, "flip", 2).bool()
            images = torch.where(is_flipped.view(-1, 1, 1, 1), images.flip(3), images)
        if self.augment.cutout:
            images = images.masked_fill(self._cutout_mask(indices, view), 0)
        return images.float() / 255

    def _cutout_mask(self, indices: Tensor, view: int) -> Tensor:
        """True (N, 1, H, W) inside each sample's square."""
        rows = self._inside(self._draw(indices, view, "cutout_row", self.height), self.height)
        columns = self._inside(self._draw(indices, view, "cutout_column", self.width), self.width)
        return (rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1)

    def _inside(self, centres: Tensor, side: int) -> Tensor:
        """True (N, side) at the positions of a cutout around each centre (N,)."""
        first = centres.unsqueeze(1) - self.augment.cutout // 2
        positions = torch.arange(side, device=centres.device)
        return (positions >= first) & (positions < first + self.augment.cutout)

    def _draw(self, indices: Tensor, view: int, what: str, choices: int) -> Tensor:
        """A number of 0..choices-1 for each sample (N,), uniform and independent between different `what`."""
        if choices == 1:
            return torch.zeros_like(indices)
        stream = fold(self.seed, view, DRAWS.index(what))
        return random_bits(indices, stream) % choices


DRAWS = ("top", "left", "flip", "cutout_row", "cutout_column")

# SplitMix64 (Steele, Lea and Flood, 2014): a counter-based generator whose output function is a strong hash.
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_MASK = 0xFFFFFFFFFFFFFFFF


def fold(*numbers: int) -> int:
    """One 64-bit number out of several, each of which changes all of its bits."""
    state = 0
    for number in numbers:
        state = (state + number * _GOLDEN + _GOLDEN) & _MASK
        state = ((state ^ (state >> 30)) * _MIX_1) & _MASK
        state = ((state ^ (state >> 27)) * _MIX_2) & _MASK
        state ^= state >> 31
    return state


def random_bits(counters: Tensor, stream: int) -> Tensor:
    """SplitMix64 of int64 counters (N,) in a stream: uniform int64 in 0..2^62 - 1, on the counters' device."""
    state = counters * _signed(_GOLDEN) + _signed(stream)  # int64 arithmetic wraps, as the generator wants
    state = (state ^ _shift(state, 30)) * _signed(_MIX_1)
    state = (state ^ _shift(state, 27)) * _signed(_MIX_2)
    return _shift(state ^ _shift(state, 31), 2)


def _shift(state: Tensor, bits: int) -> Tensor:
    """A logical shift to the right: torch's repeats the sign bit."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    """The int64 with the same 64 bits."""
    return number - (1 << 64) if number >> 63 else number
