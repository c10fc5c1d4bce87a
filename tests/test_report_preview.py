"""The picture of augmented training images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distill_run.data.feed import MemoryFeed
from distill_run.data.source import Split
from distill_run.data.splits import Dataset
from distill_run.data.views import ViewChoice
from distill_run.report.preview import CAPTION, CELL, MAX_VIEWS, NUM_SAMPLES, draw_views
from helpers import some_split, steps


@pytest.mark.parametrize("channels", [1, 3])
def test_rows_are_the_image_as_it_is_and_its_views(channels: int, tmp_path: Path) -> None:
    images = torch.arange(16, dtype=torch.uint8).view(16, 1, 1, 1).expand(16, channels, 6, 6).contiguous() * 10 + 50
    split = Split(images, torch.arange(16) % 2)
    dataset = Dataset(split, split, split, ("a class with a long name", "b"), (), "")
    draw_views(MemoryFeed(dataset, steps(2, True)), ViewChoice(0, None, 0.0, 0.0), tmp_path / "plots" / "views.png")
    sheet = np.asarray(Image.open(tmp_path / "plots" / "views.png"))
    assert sheet.shape == (CAPTION + (MAX_VIEWS + 1) * CELL, NUM_SAMPLES * CELL, 3)
    first_row = sheet[CAPTION + CELL // 2, CELL // 2 :: CELL]
    assert first_row[:, 0].tolist() == [50 + 10 * index for index in (0, 2, 4, 6, 8, 10, 12, 15)]
    assert (sheet[CAPTION + CELL :, : CELL - 2] == 0).any()  # a crop reaches into the padding


def test_no_more_views_are_drawn_than_are_served(tmp_path: Path) -> None:
    split = some_split(16, 2)
    feed = MemoryFeed(Dataset(split, split, split, ("a", "b"), (), ""), steps(1))
    draw_views(feed, ViewChoice(0, 2, 0.0, 0.0), tmp_path / "views.png")
    assert np.asarray(Image.open(tmp_path / "views.png")).shape[0] == CAPTION + 3 * CELL
