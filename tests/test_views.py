"""A view is a pure function of (seed, view, sample): what it draws, how it looks, what may not change it."""

import hashlib
from typing import final

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from distill_run.build import Builder
from distill_run.data.augment import Augmentation
from distill_run.data.draws import MOST_CHOICES, Draws, fold, random_bits, stream
from distill_run.data.source import Split
from distill_run.data.view_steps import build_steps
from distill_run.data.views import ViewChoice, Views
from helpers import examples, few_examples, message_of, refusal, some_split, steps

MASK = 2**64 - 1
PLAIN = steps()
EVERYTHING = steps(2, True, 3)


class Rendered:
    """Views of images, without mixing."""

    def __init__(self, images: Tensor, augmentations: dict[str, Augmentation], seed: int) -> None:
        split = Split(images, torch.zeros(len(images), dtype=torch.int64, device=images.device))
        self.views = Views(split, augmentations, ViewChoice(seed, None, 0.0, 0.0))

    def render(self, indices: Tensor, view: int) -> Tensor:
        return self.views.render(indices, view)[0]


def splitmix64(seed: int, num: int) -> list[int]:
    """The first outputs of SplitMix64 as its authors publish it, in Python's integers."""
    outputs, state = [], seed
    for _ in range(num):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        outputs.append(z ^ (z >> 31))
    return outputs


def marked_image(num: int, height: int, width: int) -> Tensor:
    """The same image `num` times; each pixel has a value of its own, from 1 on."""
    image = torch.arange(1, height * width + 1, dtype=torch.uint8).view(1, 1, height, width)
    return image.expand(num, -1, -1, -1).contiguous()


def as_stored(rendered: Tensor) -> NDArray[np.int64]:
    return (rendered * 255).round().numpy().astype(np.int64)


def offsets(views: Rendered, num: int, view: int, padding: int) -> NDArray[np.int64]:
    """Row and column (num, 2) of each crop, read off where the centre of the 5x5 marked image landed."""
    rendered = as_stored(views.render(torch.arange(num), view))[:, 0]
    sample, row, column = np.nonzero(rendered == 13)
    assert np.array_equal(sample, np.arange(num))
    return np.stack([2 + padding - row, 2 + padding - column], axis=1)


def chi_square(counts: NDArray[np.int64]) -> float:
    expected = counts.sum() / counts.size
    return float(((counts - expected) ** 2 / expected).sum())


def joint_counts(first: NDArray[np.int64], second: NDArray[np.int64], choices: int) -> NDArray[np.int64]:
    return np.bincount(first * choices + second, minlength=choices**2)


def test_the_published_outputs_of_splitmix64_are_random_bits_of_the_counters_1_2_3() -> None:
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert splitmix64(1234567, 4) == published
    assert random_bits(torch.tensor([1, 2, 3, 4]), 1234567).tolist() == [output >> 2 for output in published]
    assert [fold(0), fold(1), fold(2)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]  # of seed 0
    changed = [(fold(n, 7) ^ fold(n + 1, 7)).bit_count() for n in range(1000)]
    assert sum(changed) / 1000 == pytest.approx(32, abs=0.6)  # one more changes half of the bits


@examples
@given(choices=st.lists(st.integers(1, 10**5), min_size=1, max_size=30), stream_number=st.integers(0, MASK))
def test_draws_go_on_in_a_new_block_where_the_bits_of_one_are_used_up(choices: list[int], stream_number: int) -> None:
    draw = Draws(torch.arange(3), stream_number)
    blocks = [splitmix64((stream_number - 0x9E3779B97F4A7C15) & MASK, 3)]
    product, drawn = 1, [output >> 2 for output in blocks[0]]
    for number in choices:
        if product * number > MOST_CHOICES:
            blocks.append(splitmix64((fold(stream_number, len(blocks)) - 0x9E3779B97F4A7C15) & MASK, 3))
            product, drawn = 1, [output >> 2 for output in blocks[-1]]
        product *= number
        assert draw(number).tolist() == [bits % number for bits in drawn]
        drawn = [bits // number for bits in drawn]


def test_uniform_numbers_are_even_differ_by_sample_and_leave_later_draws_alone() -> None:
    draw, other = Draws(torch.arange(200), 5), Draws(torch.arange(200), 5)
    numbers = draw.uniform(3, 7)
    assert numbers.shape == (200, 3, 7)
    assert numbers.dtype == torch.float32
    assert 0 <= numbers.min() < 0.01
    assert 0.99 < numbers.max() < 1
    assert chi_square(np.bincount((numbers * 10).long().flatten().numpy(), minlength=10)) < 27.9
    assert len(set(numbers.flatten().tolist())) > 4190  # of 4,200; two of 2^24 may be equal
    assert torch.equal(draw(1000), other(1000))
    assert not torch.equal(draw.uniform(3, 7), numbers)
    assert torch.equal(Draws(torch.tensor([9]), 5).uniform(3, 7)[0], numbers[9])


def test_draws_are_the_same_on_the_cpu_and_on_the_device() -> None:
    there, here = Draws(torch.arange(200), 5), Draws(torch.arange(200), 5)
    for choices in (7, MOST_CHOICES, 3):
        assert torch.equal(there(choices), here.on_cpu(choices))
    assert torch.equal(there.uniform(3, 7), here.uniform_on_cpu(3, 7))


def test_a_batch_of_views_reads_nothing_that_lies_on_the_device() -> None:
    """Tensors of "meta" have no numbers: to read one is an error."""
    device = torch.device("meta")
    split = Split(some_split(30, 3, (3, 8, 8)).images.to(device), torch.zeros(30, dtype=torch.int64, device=device))
    batch = Views(split, EVERYTHING, ViewChoice(5, None, 0.4, 1.0)).batch(torch.arange(3, 20), 2)
    placed = (batch.images, batch.indices, batch.targets, batch.partner_targets, batch.shares)
    assert {None if each is None else each.device for each in placed} == {device}
    torch.testing.assert_close(batch.host_indices, torch.arange(3, 20))


def test_streams_of_one_seed_and_view_are_told_apart() -> None:
    assert stream("augment", 3, 4) == fold(3, 4)
    assert stream("mixing", 3, 4) == stream("negatives", 3, 4) == fold(3, 4, 1)


@examples
@given(stream=st.integers(0, MASK), counter=st.integers(0, 2000))
def test_random_bits_are_the_reference_in_every_stream(stream: int, counter: int) -> None:
    start = (stream + (counter - 1) * 0x9E3779B97F4A7C15) & MASK
    assert random_bits(torch.tensor([counter]), stream).item() == splitmix64(start, 1)[0] >> 2


@examples
@given(numbers=st.lists(st.integers(0, 2**63), min_size=1, max_size=4))
def test_fold_gives_64_bits_and_knows_the_order_of_its_numbers(numbers: list[int]) -> None:
    assert 0 <= fold(*numbers) <= MASK
    assert fold(*numbers) != fold(*numbers, 0)
    if numbers != numbers[::-1]:
        assert fold(*numbers) != fold(*numbers[::-1])


@few_examples
@given(seed=st.integers(0, 2**40), view=st.integers(0, 10**6), order=st.permutations(range(12)), cut=st.integers(1, 11))
def test_neither_order_nor_size_nor_place_in_a_batch_changes_a_view(
    seed: int, view: int, order: list[int], cut: int
) -> None:
    images = some_split(12, 2, (3, 6, 5)).images
    views = Rendered(images, EVERYTHING, seed)
    before, generator = images.clone(), torch.get_rng_state()
    whole = views.render(torch.arange(12), view)
    shuffled = torch.tensor(order)
    assert torch.equal(views.render(shuffled, view), whole[shuffled])
    pieces = torch.cat([views.render(piece, view) for piece in torch.split(shuffled, cut)])
    assert torch.equal(pieces, whole[shuffled])
    assert torch.equal(views.render(torch.tensor([order[0]] * 3), view), whole[[order[0]] * 3])
    assert torch.equal(Rendered(images[:4], EVERYTHING, seed).render(torch.arange(4), view), whole[:4])
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), generator)


def test_seed_1_of_view_0_is_not_view_1_of_seed_0() -> None:
    images = some_split(20, 2).images
    of_view = Rendered(images, EVERYTHING, 0).render(torch.arange(20), 1)
    of_seed = Rendered(images, EVERYTHING, 1).render(torch.arange(20), 0)
    assert not torch.equal(of_view, of_seed)


def test_the_offsets_of_a_crop_are_uniform_and_independent() -> None:
    num, padding, choices = 5000, 2, 5
    views = Rendered(marked_image(num, 5, 5), steps(crop=padding), 0)
    first, second = offsets(views, num, 0, padding), offsets(views, num, 1, padding)
    of_seed_1 = offsets(Rendered(marked_image(num, 5, 5), steps(crop=padding), 1), num, 0, padding)
    assert first.min() == 0
    assert first.max() == 4
    # Chi-square with 24 degrees of freedom: one in a thousand lies above 51.2.
    assert chi_square(joint_counts(first[:, 0], first[:, 1], choices)) < 51.2  # row against column
    assert chi_square(joint_counts(first[:, 0], second[:, 0], choices)) < 51.2  # view against view
    assert chi_square(joint_counts(first[:, 0], of_seed_1[:, 0], choices)) < 51.2  # seed against seed
    assert chi_square(joint_counts(first[:-1, 1], first[1:, 1], choices)) < 51.2  # sample against sample


def test_half_of_the_images_are_flipped_whatever_their_crop() -> None:
    num = 4000
    views = Rendered(marked_image(num, 5, 5), steps(crop=1, flip=True), 0)
    rendered = as_stored(views.render(torch.arange(num), 0))[:, 0]
    inner = rendered[:, 2, 1:4]  # neighbours in a row rise by one, or fall when flipped
    is_flipped = inner[:, 0] > inner[:, 2]
    assert is_flipped.mean() == pytest.approx(0.5, abs=0.032)  # four standard deviations
    row = np.nonzero(rendered == 13)[1]
    for place in (1, 2, 3):
        assert is_flipped[row == place].mean() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(("channels", "padding"), [(1, 1), (3, 3), (1, 7)])
def test_a_crop_is_a_window_of_the_image_in_black(padding: int, channels: int) -> None:
    images = some_split(30, 2, (channels, 5, 6)).images
    rendered = as_stored(Rendered(images, steps(crop=padding), 4).render(torch.arange(30), 2))
    seen = set()
    for image, crop in zip(images.numpy(), rendered, strict=True):
        padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
        fitting = [
            (top, left)
            for top in range(2 * padding + 1)
            for left in range(2 * padding + 1)
            if np.array_equal(padded[:, top : top + 5, left : left + 6], crop)
        ]
        assert fitting
        seen.add(fitting[0])
    assert len(seen) > 5


def test_a_flip_is_the_mirror_image_of_the_columns() -> None:
    images = some_split(20, 2, (3, 4, 7)).images
    rendered = as_stored(Rendered(images, steps(flip=True), 0).render(torch.arange(20), 0))
    kinds = set()
    for image, view in zip(images.numpy(), rendered, strict=True):
        assert np.array_equal(view, image) or np.array_equal(view, image[:, :, ::-1])
        kinds.add(bool(np.array_equal(view, image)))
    assert kinds == {True, False}


def test_without_augmentation_a_view_is_the_image_over_255() -> None:
    images = some_split(10, 2, (3, 5, 4)).images
    views = Rendered(images, PLAIN, 0)
    for view in (0, 7):
        rendered = views.render(torch.tensor([3, 1]), view)
        assert rendered.dtype == torch.float32
        assert torch.equal(rendered, images[[3, 1]].float() / 255)


@pytest.mark.parametrize("cutout", [1, 3, 4])
def test_a_cutout_is_a_black_square_that_may_reach_over_the_border(cutout: int) -> None:
    num, side = 400, 9
    white = torch.full((num, 2, side, side), 255, dtype=torch.uint8)
    rendered = Rendered(white, steps(cutout=cutout), 0).render(torch.arange(num), 0)
    assert set(rendered.flatten().tolist()) == {0.0, 1.0}
    assert torch.equal(rendered[:, 0], rendered[:, 1])
    corners = set()
    for black in (rendered[:, 0] == 0).numpy():
        rows, columns = black.any(axis=1).nonzero()[0], black.any(axis=0).nonzero()[0]
        assert black.sum() == len(rows) * len(columns)  # a full rectangle
        for line in (rows, columns):
            is_cut_off = line[0] == 0 or line[-1] == side - 1
            assert len(line) == cutout or (is_cut_off and cutout // 2 <= len(line) < cutout)
        corners.add((int(rows[0]), int(columns[0])))
    assert len(corners) > 0.6 * side**2
    assert not Rendered(white[:5], steps(cutout=50), 0).render(torch.arange(5), 0).any()  # larger than the image


@pytest.mark.parametrize("channels", [1, 3])
def test_how_images_lie_in_memory_changes_nothing(channels: int) -> None:
    images = some_split(9, 2, (channels, 6, 5)).images
    by_pixel = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    strided = images.repeat_interleave(2, dim=3)[:, :, :, ::2]
    expected = Rendered(images, EVERYTHING, 1).render(torch.arange(9), 1)
    assert expected.shape == (9, channels, 6, 5)
    for other in (by_pixel, strided):
        assert torch.equal(Rendered(other, EVERYTHING, 1).render(torch.arange(9), 1), expected)


@pytest.mark.parametrize(
    ("channels", "size", "expected"),
    [(1, (7, 9), "5f5ab54bfce6"), (3, (7, 9), "cf330ac292d2"), (5, (6, 4), "e1041a5f5ef8")],
)
def test_views_are_those_of_earlier_versions(channels: int, size: tuple[int, int], expected: str) -> None:
    """Bit for bit: a logit bank, a baseline and a resumed run belong to these pixels."""
    rendered = Rendered(some_split(40, 4, (channels, *size)).images, EVERYTHING, 12345).render(torch.arange(40), 5)
    assert hashlib.sha256(rendered.numpy().tobytes()).hexdigest()[:12] == expected


@final
class Shift(Augmentation):
    """Adds a number to each image: a step that needs floats."""

    def __call__(self, images: Tensor, draw: Draws) -> Tensor:
        assert images.dtype == torch.float32
        return images + draw(100).view(-1, 1, 1, 1).float()


def test_a_step_that_changes_values_is_given_floats_and_shares_the_draws_of_those_before() -> None:
    images = some_split(30, 2, (3, 5, 6)).images
    plain = Rendered(images, steps(1), 3).render(torch.arange(30), 2)
    draw = Draws(torch.arange(30), stream("augment", 3, 2))
    for choices in (3, 3):
        draw(choices)
    added = draw(100).view(-1, 1, 1, 1).float()
    assert torch.equal(Rendered(images, {**steps(1), "shift": Shift()}, 3).render(torch.arange(30), 2), plain + added)


@pytest.mark.parametrize("after", EVERYTHING.values(), ids=lambda step: type(step).__name__)
def test_a_step_that_moves_pixels_does_the_same_to_floats(after: Augmentation) -> None:
    @final
    class Nothing(Augmentation):
        def __call__(self, images: Tensor, draw: Draws) -> Tensor:
            return images

    images = some_split(30, 2, (3, 5, 6)).images
    on_packed, on_floats = {"after": after}, {"nothing": Nothing(), "after": after}
    packed, floats = (Rendered(images, steps, 3).render(torch.arange(30), 2) for steps in (on_packed, on_floats))
    assert torch.equal(floats, packed)


def test_a_step_that_changes_the_type_of_the_images_is_refused() -> None:
    @final
    class Wide(Augmentation):
        def __call__(self, images: Tensor, draw: Draws) -> Tensor:
            return images.double()

    views = Rendered(some_split(4, 2).images, {"wide": Wide()}, 0)
    assert message_of(views.render, torch.arange(4), 0) == (
        "dataset.augment.wide turns images of torch.float32 (4, 1, 4, 4) into torch.float64 (4, 1, 4, 4)\n"
        "  an augmentation must keep the type and the shape of the images"
    )


def test_a_value_that_an_augmentation_refuses_and_what_is_none_are_told_with_the_key() -> None:
    for name, key, value, words in (
        ("crop", "padding", -1, "a whole number of at least 0"),
        ("flip", "enabled", 1, "true or false"),
        ("cutout", "size", 0.5, "a whole number of at least 0"),
    ):
        node = {"_target_": f"distill_run.data.augment.{name.title()}", key: value}
        told = message_of(build_steps, {name: node}, Builder())
        assert told == refusal(f"dataset.augment.{name}.{key}", value, words)
    node = {"_target_": "distill_run.data.mixing.Mixture", "partners": 1, "weights": 1}
    assert message_of(build_steps, {"mine": node}, Builder()) == (
        "dataset.augment.mine._target_=distill_run.data.mixing.Mixture gives no ViewStep\n"
        "  derive the class from distill_run.data.augment.Augmentation"
    )


def test_the_epochs_of_a_choice_of_views() -> None:
    new, three = (ViewChoice(0, num_views, 0.0, 0.0) for num_views in (None, 3))
    assert [new.view_of(epoch) for epoch in (1, 2, 9)] == [0, 1, 8]
    assert [three.view_of(epoch) for epoch in (1, 2, 4, 9)] == [0, 1, 0, 2]
    for choice in (new, three):
        for num_epochs in (1, 2, 8):
            assert set(choice.views_of(num_epochs)) == {choice.view_of(epoch + 1) for epoch in range(num_epochs)}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_device_changes_nothing() -> None:
    images = some_split(50, 2, (3, 6, 5)).images
    on_cpu = Rendered(images, EVERYTHING, 2).render(torch.arange(50), 9)
    on_gpu = Rendered(images.cuda(), EVERYTHING, 2).render(torch.arange(50).cuda(), 9)
    assert torch.equal(on_gpu.cpu(), on_cpu)


def test_a_step_that_moves_pixels_and_changes_the_type_or_the_shape_is_refused() -> None:
    @final
    class Narrow(Augmentation):
        moves_pixels = True

        def __call__(self, images: Tensor, draw: Draws) -> Tensor:
            return images[:, :, 1:].double()

    views = Rendered(some_split(4, 2).images, {**EVERYTHING, "narrow": Narrow()}, 0)
    told = message_of(views.render, torch.arange(4), 0)
    assert told.startswith("dataset.augment.narrow turns images of ")
    assert "into torch.float64 (4, 1, 3, 4)\n  an augmentation must keep" in told
