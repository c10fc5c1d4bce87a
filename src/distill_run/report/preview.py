"""A picture of augmented training images with their classes, drawn before the first epoch."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from distill_run.data.feed import Feed
from distill_run.data.views import ViewChoice
from distill_run.files import write_bytes
from distill_run.report.png import png_of

NUM_SAMPLES = 8
MAX_VIEWS = 6
CELL = 72  # pixels of the picture for one image
CAPTION = 14


def draw_views(feed: Feed, views: ViewChoice, path: Path) -> None:
    """Write a picture with a column for each of a few samples: its class, the image as it is, and its first views.

    No more views are drawn than the training serves.
    """
    indices = torch.linspace(0, len(feed.train) - 1, NUM_SAMPLES).long()
    rows = [torch.stack([feed.train.image(index) for index in indices.tolist()]).float() / 255]
    rows += [feed.render(views, indices, view) for view in views.views_of(MAX_VIEWS)]
    sheet = Image.new("RGB", (NUM_SAMPLES * CELL, CAPTION + len(rows) * CELL), "white")
    pen = ImageDraw.Draw(sheet)
    for column, target in enumerate(feed.train.targets.cpu()[indices].tolist()):
        pen.text((column * CELL + 2, 1), feed.classes[target][:11], fill="black")
        for row, images in enumerate(rows):
            sheet.paste(_picture(images[column]), (column * CELL, CAPTION + row * CELL))
    write_bytes(path, png_of(sheet))


def _picture(image: torch.Tensor) -> Image.Image:
    """One image (C, H, W) in 0..1 as it is drawn: enlarged without smoothing, smaller than its cell by a margin."""
    pixels = (image * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    if pixels.shape[2] != 3:
        pixels = np.repeat(pixels[:, :, :1], 3, axis=2)
    return Image.fromarray(pixels).resize((CELL - 2, CELL - 2), Image.Resampling.NEAREST)
