"""Augmented views: view number v of sample i is a pure function of (seed, v, i).

Neither the batch that a sample stands in, nor its order or size, nor the device changes what is drawn for it.
That is what makes a teacher's stored logits belong to the images that the student sees, and a resumed run
equal to an uninterrupted one. torchvision's batched transforms draw once for a whole batch and cannot do this.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from distill_run.config.schema import AugmentSettings
from distill_run.data.draws import Draws, fold
from distill_run.data.mixing import Mixing, Mixture


class Views:
    """Renders views of a fixed set of images (M, C, H, W) of uint8, on the device where those lie.

    crop_padding: pixels of black around the image, out of which a window of its size is cut. flip: a mirror
    image, half of the time. cutout: side in pixels of a square blackened at a random centre (DeVries and
    Taylor, 2017); it may reach over the border. Where there is a `mixing`, each image is then mixed with that of its
    partner in the same view.
    """

    def __init__(self, images: Tensor, augment: AugmentSettings, seed: int, mixing: Mixing | None = None) -> None:
        self.augment = augment
        self.seed = seed
        self.mixing = mixing
        self.num_channels, self.height, self.width = images.shape[1:]
        padding = augment.crop_padding
        padded = pack(F.pad(images, (padding, padding, padding, padding)) if padding else images)
        # (M, words, 2p+1, 2p+1, H, W): every window as a view of the same memory, so that a crop is one gather.
        self.windows = padded.unfold(2, self.height, 1).unfold(3, self.width, 1)

    def render(self, indices: Tensor, view: int) -> Tensor:
        """View number `view` of the samples at `indices` (N,): float32 (N, C, H, W) in 0..1."""
        mixture = self.mixture(indices, view)
        images = self._render_alone(indices, view)
        return mixture.mix(images, self._render_alone(mixture.partners, view)) if mixture else images

    def mixture(self, indices: Tensor, view: int) -> Mixture | None:
        """How the samples at `indices` (N,) are mixed in a view; None where they are not."""
        return self.mixing.draw(indices, self.seed, view) if self.mixing else None

    def _render_alone(self, indices: Tensor, view: int) -> Tensor:
        offsets = 2 * self.augment.crop_padding + 1
        draw = Draws(indices, fold(self.seed, view))
        images = self.windows[indices, :, draw(offsets), draw(offsets)]
        if self.augment.flip:
            images = torch.where(draw(2).bool().view(-1, 1, 1, 1), images.flip(3), images)
        if self.augment.cutout:
            images = images.masked_fill(self._cutout_mask(draw(self.height), draw(self.width)), 0)
        return unpack(images, self.num_channels).div_(255)

    def _cutout_mask(self, rows: Tensor, columns: Tensor) -> Tensor:
        """True (N, 1, H, W) inside the square around each sample's centre, which lies at `rows`, `columns` (N,)."""
        row_mask, column_mask = self._inside(rows, self.height), self._inside(columns, self.width)
        return (row_mask.unsqueeze(2) & column_mask.unsqueeze(1)).unsqueeze(1)

    def _inside(self, centres: Tensor, side: int) -> Tensor:
        """True (N, side) at the positions of a cutout around each centre (N,)."""
        first = centres.unsqueeze(1) - self.augment.cutout // 2
        positions = torch.arange(side, device=centres.device)
        return (positions >= first) & (positions < first + self.augment.cutout)


def pack(images: Tensor) -> Tensor:
    """The channels of a pixel as one integer, or as several: uint8 (M, C, H, W) to integers (M, words, H, W).

    A gather then moves a colour pixel at once, which takes half the time.
    """
    num_channels = images.shape[1]
    word = next((word for word in WORDS if word.itemsize >= num_channels), WORDS[-1])
    num_words = -(-num_channels // word.itemsize)
    whole = F.pad(images, (0, 0, 0, 0, 0, num_words * word.itemsize - num_channels))
    pixels = whole.reshape(-1, num_words, word.itemsize, *images.shape[2:]).permute(0, 1, 3, 4, 2).contiguous()
    return pixels.view(word).squeeze(4)


def unpack(words: Tensor, num_channels: int) -> Tensor:
    """Packed images (N, words, H, W) as contiguous float32 (N, C, H, W) in 0..255."""
    pixels = words.unsqueeze(4).view(torch.uint8)
    channels = pixels.permute(0, 1, 4, 2, 3).flatten(1, 2)[:, :num_channels]
    return channels.to(torch.float32, memory_format=torch.contiguous_format)


WORDS = (torch.uint8, torch.int16, torch.int32, torch.int64)
