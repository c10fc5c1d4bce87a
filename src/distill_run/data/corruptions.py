"""Images made worse on purpose, as a camera or a network connection may make them: noise, blur, contrast, JPEG.

The strengths of the five severities are those of Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations", 2019: of CIFAR-10-C (32 pixels) for small images, of ImageNet-C (224 pixels) for
others. Theirs are for one size; here a blur grows with the image. Their mean corruption error is over fifteen
corruptions, so no figure that is measured with these four can be compared with it.
"""

import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

SEVERITIES = (1, 2, 3, 4, 5)
SMALL = 96  # pixels of the shorter side
SMALL_SIZE, LARGE_SIZE = 32, 224  # pixels of the images for which the strengths were chosen
KERNEL_REACH = 4  # standard deviations


class Corruption(NamedTuple):
    """What is done to images, and its strengths at the five severities for small and for large images."""

    apply: Callable[[Tensor, float, Tensor], Tensor]
    small: tuple[float, ...]
    large: tuple[float, ...]


def corrupt(images: Tensor, name: str, severity: int, indices: Tensor) -> Tensor:
    """Images (N, C, H, W) of uint8 on the CPU, corrupted with a severity of 1 to 5, as uint8.

    `name` is one of CORRUPTIONS. `indices` (N,) are the samples: they decide the noise, which has the same pattern at
    each severity and does not depend on the other images.
    """
    corruption, size = CORRUPTIONS[name], min(images.shape[2:])
    strengths, chosen_for = (corruption.small, SMALL_SIZE) if size < SMALL else (corruption.large, LARGE_SIZE)
    strength = strengths[severity - 1]
    return corruption.apply(images, strength * size / chosen_for if name == "blur" else strength, indices)


def add_noise(images: Tensor, deviation: float, indices: Tensor) -> Tensor:
    """Add normal noise of this standard deviation, a fraction of the brightest value, to each value."""
    patterns = []
    for index in indices.tolist():
        patterns.append(torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(index)))
    return _as_bytes(images.float() + 255 * deviation * torch.stack(patterns))


def blur(images: Tensor, deviation: float, _indices: Tensor) -> Tensor:
    """Convolve with a Gaussian of this standard deviation in pixels; beyond its edge an image goes on as it ends."""
    reach = int(KERNEL_REACH * deviation + 0.5)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / deviation) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    planes = F.pad(images.flatten(0, 1).unsqueeze(1).float(), (reach,) * 4, mode="replicate")
    planes = F.conv2d(F.conv2d(planes, kernel), kernel.transpose(2, 3))
    return _as_bytes(planes.view(images.shape))


def lower_contrast(images: Tensor, share: float, _indices: Tensor) -> Tensor:
    """Keep this share of each value's distance to the mean of its image and channel."""
    values = images.float()
    means = values.mean((2, 3), keepdim=True)
    return _as_bytes(means + share * (values - means))


def compress(images: Tensor, quality: float, _indices: Tensor) -> Tensor:
    """Write and read each image as a JPEG; where it has other than three channels, each of them as a grey one."""
    if images.shape[1] != 3:
        planes = [_through_jpeg(plane, int(quality)) for plane in images.flatten(0, 1).numpy()]
        return torch.stack(planes).view(images.shape)
    colours = [_through_jpeg(image, int(quality)) for image in images.permute(0, 2, 3, 1).contiguous().numpy()]
    return torch.stack(colours).permute(0, 3, 1, 2).contiguous()


def _through_jpeg(pixels: np.ndarray, quality: int) -> Tensor:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file)))


def _as_bytes(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).byte()


CORRUPTIONS = {
    "noise": Corruption(add_noise, (0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)),
    "blur": Corruption(blur, (0.4, 0.6, 0.7, 0.8, 1.0), (1, 2, 3, 4, 6)),
    "contrast": Corruption(lower_contrast, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
    "jpeg": Corruption(compress, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
}
