"""Handwritten digits that come with scikit-learn: real, small, offline."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from distill_run.data.source import Source, Split
from distill_run.data.splits import stratified_cut
from distill_run.rules import whole

TEST_FRACTION = 0.25


def load(*, image_size: int) -> Source:
    """1797 grey images of ten digits, measured in 8x8 pixels and enlarged bilinearly to `image_size`.

    There is no official test split; always the same stratified quarter is cut off as one.
    Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.
    """
    whole(8).check("image_size", image_size)
    digits = load_digits()
    images = torch.from_numpy(digits.images).unsqueeze(1).float() * (255 / 16)
    enlarged = F.interpolate(images, size=image_size, mode="bilinear", align_corners=False)
    everything = Split(enlarged.round().to(torch.uint8), torch.from_numpy(digits.target).long())
    train, test = stratified_cut(everything.targets, TEST_FRACTION, seed=0)
    return Source(everything.select(train), None, everything.select(test), tuple("0123456789"))
