"""From a source to train, validation and test: the cut, the checks, the statistics and the content's hash."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from distill_run.data.source import ImageSet, Source, Split
from distill_run.data.splits import Dataset, Fractions, channel_statistics, make_dataset, stratified_cut
from helpers import examples, message_of, some_split

targets_lists = st.lists(st.integers(0, 4), min_size=1, max_size=80)


def split_of(targets: list[int], shape: tuple[int, int, int] = (1, 2, 2)) -> Split:
    generator = torch.Generator().manual_seed(len(targets))  # images that differ: equal ones are told
    images = torch.randint(0, 256, (len(targets), *shape), dtype=torch.uint8, generator=generator)
    return Split(images, torch.tensor(targets, dtype=torch.int64))


def source_of(train: Split, test: Split | None, val: Split | None = None, num_classes: int = 3) -> Source:
    return Source(train, val, test, tuple(f"class {index}" for index in range(num_classes)), ("a note",))


def divide(source: Source, val: float, train: float = 1.0, seed: int = 0) -> Dataset:
    return make_dataset(source, Fractions(test=0.25, val=val, train=train, seed=seed))


def pixels(split: ImageSet) -> Tensor:
    assert isinstance(split, Split)
    return split.images


GOOD = [0, 1, 2] * 4


@examples
@given(targets=targets_lists, fraction=st.floats(0.01, 0.99), seed=st.integers(0, 2**32))
def test_a_cut_is_disjoint_complete_sorted_and_repeatable(targets: list[int], fraction: float, seed: int) -> None:
    rest, cut = stratified_cut(torch.tensor(targets), fraction, seed)
    assert sorted(rest.tolist() + cut.tolist()) == list(range(len(targets)))
    assert rest.tolist() == sorted(rest.tolist())
    assert cut.tolist() == sorted(cut.tolist())
    again = stratified_cut(torch.tensor(targets), fraction, seed)
    assert torch.equal(again[0], rest)
    assert torch.equal(again[1], cut)


@examples
@given(targets=targets_lists, fraction=st.floats(0.01, 0.99), seed=st.integers(0, 2**32))
def test_a_cut_takes_the_fraction_of_each_class_and_leaves_none_out(
    targets: list[int], fraction: float, seed: int
) -> None:
    rest, cut = (torch.tensor(targets)[part].tolist() for part in stratified_cut(torch.tensor(targets), fraction, seed))
    for target in set(targets):
        total, taken = targets.count(target), cut.count(target)
        if total == 1:
            assert taken == 0  # a class of a single image stays in the rest
        else:
            assert 1 <= taken <= total - 1
            assert abs(taken - fraction * total) <= 1
        assert rest.count(target) == total - taken


def test_a_cut_prefers_no_images_depends_on_the_seed_and_draws_nothing_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    _, cut = stratified_cut(torch.zeros(1000, dtype=torch.int64), 0.5, 0)
    assert (cut < 500).sum().item() == pytest.approx(250, abs=64)  # four standard deviations
    assert len({tuple(stratified_cut(torch.arange(300) % 3, 0.1, seed)[1].tolist()) for seed in range(10)}) == 10
    assert torch.equal(torch.get_rng_state(), before)


def test_the_validation_split_is_cut_from_train_where_the_source_has_none() -> None:
    dataset = divide(source_of(split_of(GOOD * 5), split_of(GOOD)), 0.2, 1.0, 0)
    assert [len(dataset.train), len(dataset.val), len(dataset.test)] == [48, 12, 12]
    assert torch.bincount(dataset.val.targets).tolist() == [4, 4, 4]
    assert dataset.notes == ("a note",)


def test_each_image_keeps_its_target_through_the_cut() -> None:
    train = some_split(60, 3)
    dataset = divide(source_of(train, split_of(GOOD, (1, 4, 4))), 0.25, 1.0, 7)
    known = {
        image.numpy().tobytes(): target for image, target in zip(train.images, train.targets.tolist(), strict=True)
    }
    assert len(known) == 60
    for split in (dataset.train, dataset.val):
        for image, target in zip(pixels(split), split.targets.tolist(), strict=True):
            assert known.pop(image.numpy().tobytes()) == target
    assert known == {}


def test_a_fraction_of_the_training_images_is_kept_of_each_class_and_validation_stays_as_it_was() -> None:
    train = some_split(120, 3)
    whole, half = (divide(source_of(train, some_split(9, 3)), 0.25, fraction, 0) for fraction in (1.0, 0.5))
    assert torch.bincount(half.train.targets).tolist() == [15, 15, 15]
    assert torch.equal(pixels(half.val), pixels(whole.val))
    kept = {image.numpy().tobytes() for image in pixels(half.train)}
    assert len(kept) == 45
    assert kept < {image.numpy().tobytes() for image in pixels(whole.train)}


def test_a_source_without_a_test_split_is_divided_in_three_and_that_is_said() -> None:
    """40 images a class: a quarter for the test, a fifth of the other 30 for validation; each image in one split."""
    train = some_split(120, 3)
    dataset = divide(source_of(train, None), 0.2, seed=5)
    assert [torch.bincount(part.targets).tolist() for part in (dataset.train, dataset.val, dataset.test)] == [
        [24] * 3, [6] * 3, [10] * 3
    ]  # fmt: skip
    parts = [image.numpy().tobytes() for part in (dataset.train, dataset.val, dataset.test) for image in pixels(part)]
    assert sorted(parts) == sorted(image.numpy().tobytes() for image in train.images)
    assert dataset.notes[1:] == (
        "the dataset has no test split: 25% of each class are kept for the test, by dataset.split_seed=5",
    )
    assert torch.equal(pixels(divide(source_of(train, None), 0.5, 0.5, 5).test), pixels(dataset.test))
    assert not torch.equal(pixels(divide(source_of(train, None), 0.2, seed=6).test), pixels(dataset.test))


def test_classes_that_are_too_small_to_be_divided_are_named() -> None:
    notes = divide(source_of(split_of([0, 1, 1, 2, 2, 2]), None), 0.2).notes
    assert notes[1:3] == ("no val image of class class 0, class 1", "no test image of class class 0")


def test_a_validation_split_of_the_source_is_kept_as_it_is() -> None:
    train, val = some_split(12, 3), some_split(6, 3)
    dataset = divide(source_of(train, some_split(9, 3), val), 0.5, 1.0, 0)
    assert torch.equal(pixels(dataset.val), val.images)
    assert torch.equal(pixels(dataset.train), train.images)


def test_a_dataset_that_does_not_fit_together_is_refused() -> None:
    cases: tuple[tuple[list[int], list[int] | None, list[int], str], ...] = (
        ([], None, GOOD, "the train split is empty\n  every split needs at least one image"),
        (GOOD, [], GOOD, "the val split is empty\n  every split needs at least one image"),
        (GOOD, None, [], "the test split is empty\n  every split needs at least one image"),
        ([0, 1, 2], None, GOOD, "the val split is empty\n  every split needs at least one image"),
        (GOOD, [0, 3], GOOD, "the val split has a target of 3 for 3 classes\n  targets run from 0 to 2"),
        ([*GOOD, 7], GOOD, GOOD, "the train split has a target of 7 for 3 classes\n  targets run from 0 to 2"),
        (GOOD, GOOD, [0, -1], "the test split has a target of -1 for 3 classes\n  targets run from 0 to 2"),
    )
    for train, val, test, message in cases:
        source = source_of(split_of(train), split_of(test), None if val is None else split_of(val))
        assert message_of(divide, source, 0.2, 1.0, 0) == message
    source = source_of(split_of(GOOD, (1, 2, 2)), split_of(GOOD, (3, 2, 4)))
    assert message_of(divide, source, 0.2, 1.0, 0) == (
        "test images have the shape (3, 2, 4), those of train (1, 2, 2)\n"
        "  all splits need one shape (channels, height, width)"
    )


def test_classes_without_an_image_are_told() -> None:
    source = source_of(split_of([0, 0, 0, 1, 1]), split_of([0, 1]), num_classes=9)
    notes = divide(source, 0.2, 1.0, 0).notes
    assert notes == (
        "a note",
        *(
            f"no {name} image of class class 2, class 3, class 4, class 5, class 6 and 2 more"
            for name in ("train", "val", "test")
        ),
    )


@examples
@given(seed=st.integers(0, 1000), channels=st.sampled_from([1, 3]), brightness=st.integers(1, 255))
def test_channel_statistics_are_those_of_numpy(seed: int, channels: int, brightness: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, brightness + 1, size=(5, channels, 4, 7), dtype=np.uint8)
    pixels[:, 0, 0, 0] = 0
    pixels[:, 0, 1, 0] = 255
    mean, std = channel_statistics(torch.from_numpy(pixels))
    values = pixels.astype(np.float64) / 255
    assert mean == pytest.approx(values.mean(axis=(0, 2, 3)), abs=5.1e-5)
    assert std == pytest.approx(np.maximum(values.std(axis=(0, 2, 3)), 1e-4), abs=5.1e-5)
    assert [round(value, 4) for value in mean + std] == mean + std
    one_colour = torch.full((3, 1, 2, 2), 51, dtype=torch.uint8)
    assert channel_statistics(one_colour) == ([0.2], [1e-4])  # a deviation that one can divide by


def content(train: Split, test: Split | None, val: Split | None = None) -> str:
    return divide(source_of(train, test, val), 0.25, 1.0, 0).content


def test_the_hash_of_the_content_knows_every_pixel_every_target_and_the_split() -> None:
    train, test, val = some_split(12, 3), some_split(9, 3), some_split(6, 3)
    whole = [train, test, val]
    hashes = {content(train, test, val), content(val, test, train)}
    for place, split in enumerate(whole):
        images, targets = split.images.clone(), split.targets.clone()
        images[-1, 0, 0, 0] ^= 1
        targets[-1] = (targets[-1] + 1) % 3
        for changed in (Split(images, split.targets), Split(split.images, targets)):
            splits = [*whole]
            splits[place] = changed
            hashes.add(content(splits[0], splits[1], splits[2]))
    assert len(hashes) == 2 + 2 * 3
    assert {len(each) for each in hashes} == {64}


def test_the_hash_of_the_content_does_not_depend_on_place_or_layout() -> None:
    train, test, val = some_split(12, 3, (3, 4, 5)), some_split(9, 3, (3, 4, 5)), some_split(6, 3, (3, 4, 5))

    def by_pixel(images: Tensor) -> Tensor:
        return images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)

    dataset = divide(source_of(train, test, val), 0.25, 1.0, 0)
    assert dataset.to(torch.device("cpu")).content == dataset.content
    strided = Split(by_pixel(train.images), train.targets)
    assert not strided.images.is_contiguous()
    assert content(strided, test, val) == dataset.content


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_copy_on_the_gpu_has_the_same_content() -> None:
    dataset = divide(source_of(some_split(12, 3), some_split(9, 3)), 0.25, 1.0, 0)
    copy = dataset.to(torch.device("cuda"))
    assert pixels(copy.train).device.type == "cuda"
    assert copy.content == dataset.content


def test_a_split_refuses_other_types_and_shapes() -> None:
    images, targets = torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
    for wrong, told in (
        ((images.float(), targets), r"images must be uint8 of shape \(N, C, H, W\), not torch.float32 of \(2, 1"),
        ((images, targets.int()), r"targets must be int64 of shape \(2,\), not torch.int32 of \(2,\)"),
        (
            (images, torch.zeros(3, dtype=torch.int64)),
            r"targets must be int64 of shape \(2,\), not torch.int64 of \(3,\)",
        ),
    ):
        with pytest.raises(ValueError, match=told):
            Split(*wrong)
    with pytest.raises(ValueError, match=r"paths must be 2, one for each image, not 1"):
        Split(images, targets, ("a.png",))
