"""A picture of augmented training images, drawn before the first epoch: what the networks will see."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from distill_run.data.batches import Batches
from distill_run.files import atomic_path

NUM_SAMPLES = 8
NUM_VIEWS = 6
CELL = 72  # pixels of the picture for one image
CAPTION = 14


def draw_views(batches: Batches, classes: tuple[str, ...], path: Path) -> None:
    """Write a picture of a few samples, one in each column: its target, the original image, and its first views."""
    split = batches.split
    indices = torch.linspace(0, len(split) - 1, NUM_SAMPLES, device=split.targets.device).long()
    rows = [split.images[indices].float() / 255]
    rows += [batches.views.render(indices, view) for view in range(NUM_VIEWS)]
    sheet = Image.new("RGB", (NUM_SAMPLES * CELL, CAPTION + len(rows) * CELL), "white")
    pen = ImageDraw.Draw(sheet)
    for column, target in enumerate(split.targets[indices].tolist()):
        pen.text((column * CELL + 2, 1), classes[target][:11], fill="black")
        for row, images in enumerate(rows):
            sheet.paste(_picture(images[column]), (column * CELL, CAPTION + row * CELL))
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")


def _picture(image: torch.Tensor) -> Image.Image:
    """One image (C, H, W) in 0..1, enlarged without smoothing, with a margin around it."""
    pixels = (image * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    if pixels.shape[2] != 3:
        pixels = np.repeat(pixels[:, :, :1], 3, axis=2)
    return Image.fromarray(pixels).resize((CELL - 2, CELL - 2), Image.Resampling.NEAREST)
