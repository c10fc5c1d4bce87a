"""Boxes in images: what a cutout blackens and what CutMix exchanges."""

import torch
from torch import Tensor


def boxes(rows: Tensor, columns: Tensor, heights: Tensor, widths: Tensor, image_size: tuple[int, int]) -> Tensor:
    """True (N, 1, H, W) inside a box of heights x widths (N,) around each centre; it may reach over the border.

    Heights and widths are rounded down to whole pixels.
    """
    in_rows = _inside(rows, heights, image_size[0])
    in_columns = _inside(columns, widths, image_size[1])
    return (in_rows.unsqueeze(2) & in_columns.unsqueeze(1)).unsqueeze(1)


def _inside(centres: Tensor, lengths: Tensor, side: int) -> Tensor:
    """True (N, side) at the positions that lie within `lengths` (N,) around `centres` (N,)."""
    lengths = lengths.long().unsqueeze(1)
    first = centres.unsqueeze(1) - lengths // 2
    positions = torch.arange(side, device=centres.device)
    return (positions >= first) & (positions < first + lengths)
