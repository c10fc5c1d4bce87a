"""Photographs in a folder as images that a network takes."""

from pathlib import Path

import torch

from distill_run.data.listing import list_images, tells_empty
from distill_run.deploy.checking import Compared
from distill_run.deploy.deployable import LEVELS
from distill_run.deploy.photographs import read_image
from distill_run.errors import user_error
from distill_run.models.network import Network

MOST_READ = 1000


def read_images(folder: Path, network: Network) -> Compared:
    """The first photographs of a folder, in the form in which the network's accuracy was measured; without targets.

    Raises UserError where there is none, or for one that cannot be read.
    """
    if not folder.is_dir():
        raise user_error(f"--images {folder} is not a folder", "give a folder of photographs")
    paths, skipped = list_images(folder)
    if not paths:
        raise user_error(tells_empty(f"--images {folder}", skipped), "give a folder of photographs")
    images = torch.cat([read_image(path, network) for path in paths[:MOST_READ]])
    return Compared((images * LEVELS).round().to(torch.uint8), None)
