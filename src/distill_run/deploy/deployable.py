"""A network with its preprocessing inside: what a program without this one runs."""

from typing import final

import torch
from torch import Tensor, nn

from distill_run.models.network import Network

LEVELS = 255.0  # the brightest value of a byte


@final
class Deployable(nn.Module):
    """Decoded photographs of one size (N, C, H, W) to logits (N, K) in float32.

    It does what `data.decode.CentreCrop` does: it takes the centre, in the proportions of the network's images, and
    resizes it as Pillow does, to within one level of 255. An image of the network's size stays as it is where the
    network's crop ratio is 1. The images are bytes, or floats in 0..1, which are rounded to the 256 levels of bytes.
    """

    def __init__(self, network: Network, *, takes_bytes: bool) -> None:
        super().__init__()
        assert network.image_size is not None
        self.network = network
        self.image_size = network.image_size
        self.crop_ratio = network.crop_ratio
        self.takes_bytes = takes_bytes

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        levels = images.float() if self.takes_bytes else to_levels(images * LEVELS)
        rows, columns = self._weights(levels)
        # Pillow rounds after each of its two passes, the horizontal one first.
        levels = to_levels(levels @ columns.T)
        levels = to_levels(rows @ levels)
        logits: Tensor = self.network(levels / LEVELS).float()
        return logits

    def _weights(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """How much each row (h, H) and each column (w, W) of the images counts for those of the network's images."""
        places = [torch.arange(images.shape[axis], dtype=torch.float32, device=images.device) for axis in (2, 3)]
        sizes = [place[-1] + 1 for place in places]  # as tensors, so that an exported graph works them out
        fits = [size / wanted for size, wanted in zip(sizes, self.image_size, strict=True)]
        scale = self.crop_ratio * torch.minimum(*fits)
        rows, columns = (
            resize_weights(place, size / 2 - scale * wanted / 2, scale, wanted)
            for place, size, wanted in zip(places, sizes, self.image_size, strict=True)
        )
        return rows, columns


def to_levels(values: Tensor) -> Tensor:
    """Values rounded to whole numbers from 0 to 255, as Pillow rounds: a half is rounded up."""
    return (values + 0.5).floor().relu().clamp(max=LEVELS)


def resize_weights(places: Tensor, begin: Tensor, scale: Tensor, num: int) -> Tensor:
    """The share (num, P) of each of the pixels 0, 1, ... P - 1, the `places`, in `num` pixels that replace them.

    `begin` is where the first of these begins, `scale` how many pixels each of them covers. Source: Pillow's
    precompute_coeffs with its bicubic filter (a = -0.5), which is widened where the image becomes smaller.
    """
    centres = begin + (torch.arange(num, dtype=torch.float32, device=places.device) + 0.5) * scale
    distances = ((places + 0.5 - centres.unsqueeze(1)).abs() / scale.clamp(min=1)).clamp(max=2)  # where `far` is 0
    near = (1.5 * distances - 2.5) * distances**2 + 1
    far = ((-0.5 * distances + 2.5) * distances - 4) * distances + 2
    weights = torch.where(distances < 1, near, far)
    return weights / weights.sum(1, keepdim=True)
