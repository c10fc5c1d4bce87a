"""Photographs in a folder as images that a network takes."""

from pathlib import Path

import numpy as np
import torch

from distill_run.data.decode import CentreCrop, Decoder
from distill_run.data.listing import list_images
from distill_run.deploy.checking import Compared
from distill_run.errors import user_error
from distill_run.models.network import Network

MOST_READ = 1000


def read_images(folder: Path, network: Network) -> Compared:
    """The first photographs of a folder, in the form in which the network's accuracy was measured; without targets.

    Raises UserError where there is none, or for one that cannot be read.
    """
    if not folder.is_dir():
        raise user_error(f"--images {folder} is not a folder", "give a folder of photographs")
    paths, _ = list_images(folder)
    if not paths:
        raise user_error(f"--images {folder} holds no image", "give a folder of photographs")
    assert network.image_size is not None
    channels = network.mean.numel()
    decoder = Decoder(channels, CentreCrop(network.image_size, network.crop_ratio))
    images = []
    for path in paths[:MOST_READ]:
        try:
            image, _ = decoder.decode(Path(path).read_bytes())
        except (OSError, ValueError) as error:
            raise user_error(f"{path} cannot be read: {error}", "remove it, or give other photographs") from error
        images.append(torch.from_numpy(np.array(image).reshape(image.height, image.width, channels)))
    return Compared(torch.stack(images).permute(0, 3, 1, 2).contiguous(), None)
