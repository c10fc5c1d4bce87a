"""The digits of scikit-learn, as images."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from distill_run.data.digits import load
from distill_run.data.source import Split
from helpers import message_of, refusal


def held_out(image_size: int) -> Split:
    test = load(image_size=image_size).test
    assert test is not None
    return test


def test_there_are_1797_images_of_the_wanted_size_from_black_to_white() -> None:
    for image_size in (8, 16, 19):
        source = load(image_size=image_size)
        images = source.train.images
        assert source.val is None
        assert len(source.train) + len(held_out(image_size)) == 1797
        assert images.shape[1:] == held_out(image_size).images.shape[1:] == (1, image_size, image_size)
        assert source.classes == tuple("0123456789")
    assert [images.min().item(), load(image_size=16).train.images.max().item()] == [0, 255]


def test_at_8_pixels_the_images_are_those_of_sklearn_in_0_to_255() -> None:
    """Grey values 0..16 times 255/16, rounded half to even; compared as sets, for the split reorders them."""
    digits = load_digits()
    scale = np.array([0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255])
    expected = np.column_stack([scale[digits.data.astype(int)], digits.target])
    source = load(image_size=8)
    rows = [
        np.column_stack([split.images.flatten(1).numpy(), split.targets.numpy()])
        for split in (source.train, held_out(8))
    ]
    ours = np.concatenate(rows)
    assert np.array_equal(ours[np.lexsort(ours.T)], expected[np.lexsort(expected.T)])


def test_the_test_split_is_a_quarter_of_each_digit() -> None:
    """sklearn has 178 182 177 183 181 182 181 179 174 180 images of 0..9."""
    source = load(image_size=8)
    test = torch.bincount(held_out(8).targets)
    assert test.tolist() == [44, 46, 44, 46, 45, 46, 45, 45, 44, 45]
    assert (test + torch.bincount(source.train.targets)).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_the_test_split_is_always_the_same() -> None:
    first = held_out(8)
    torch.manual_seed(5)
    assert torch.equal(held_out(8).images, first.images)
    assert torch.equal(held_out(16).targets, first.targets)


def test_enlarging_keeps_the_mean_brightness() -> None:
    small, large = load(image_size=8).train.images.double(), load(image_size=16).train.images.double()
    assert large.mean().item() == pytest.approx(small.mean().item(), rel=0.01)


def test_a_size_below_that_of_the_measured_images_is_refused() -> None:
    for image_size in (7, 0, 8.5, "16"):
        expected = refusal("image_size", image_size, "a whole number of at least 8")
        assert message_of(load, image_size=image_size) == expected
