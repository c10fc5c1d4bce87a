"""Batches: which samples, in which order, in which view."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from distill_run.data.batches import Batch, Batches
from distill_run.data.feed import MemoryBatches
from distill_run.data.mixing import Mixing, Mixture
from distill_run.data.views import ViewChoice, Views
from helpers import examples, some_split, steps

AUGMENT = steps(1, True)


def batches_of(num: int, batch_size: int, seed: int = 0, num_views: int | None = None) -> Batches:
    split = some_split(num, 3, (2, 3, 3))
    return MemoryBatches(Views(split, AUGMENT, ViewChoice(seed, num_views, 0.0, 0.0)), batch_size, seed)


def order_of(batches: list[Batch]) -> list[int]:
    return [index for batch in batches for index in batch.indices.tolist()]


@examples
@given(num=st.integers(1, 60), batch_size=st.integers(2, 70), epoch=st.integers(1, 5))
def test_each_sample_is_served_once_an_epoch(num: int, batch_size: int, epoch: int) -> None:
    """But for a last batch of one sample, which batch norm could not train on."""
    batches = batches_of(num, batch_size)
    served = list(batches.epoch(epoch))
    order = order_of(served)
    left_out = 1 if num > batch_size and num % batch_size == 1 else 0
    assert len(order) == len(set(order)) == num - left_out
    assert set(order) <= set(range(num))
    assert batches.num_steps == len(served)
    assert all(len(batch.targets) == batch_size for batch in served[:-1])
    assert num == 1 or all(len(batch.targets) >= 2 for batch in served)


def test_the_sample_that_is_left_out_changes_from_epoch_to_epoch() -> None:
    batches = batches_of(9, 4)
    left_out = {(set(range(9)) - set(order_of(list(batches.epoch(epoch))))).pop() for epoch in range(1, 20)}
    assert len(left_out) > 4


def test_balanced_batches_draw_every_class_with_the_same_probability() -> None:
    """Of 900, 90, 10 and no images; in 40 epochs of 1,000 draws, a third has a standard deviation of 94."""
    targets = torch.repeat_interleave(torch.tensor([0, 1, 3]), torch.tensor([900, 90, 10]))
    targets = targets[torch.randperm(1000, generator=torch.Generator().manual_seed(3))]
    batches = batches_of(1000, 64)
    batches.balance(targets)
    drawn = torch.stack([batches.order(epoch) for epoch in range(1, 41)])
    assert drawn.shape == (40, 1000)
    counts = torch.bincount(targets[drawn.flatten()], minlength=4).tolist()
    assert counts[2] == 0
    assert [counts[each] for each in (0, 1, 3)] == pytest.approx([40_000 / 3] * 3, abs=4 * 94)
    # Within a class every image is as likely: each of the 10 is drawn 1,333 times, with a standard deviation of 36.
    of_each = torch.bincount(drawn.flatten(), minlength=1000)
    assert of_each[targets == 3].tolist() == pytest.approx([4000 / 3] * 10, abs=4 * 36)
    assert int((of_each[targets == 0] > 0).sum()) == 900


def test_balanced_batches_are_a_function_of_seed_and_epoch() -> None:
    orders = []
    for seed, epoch in ((1, 1), (1, 1), (1, 2), (2, 1)):
        batches = batches_of(40, 8, seed)
        batches.balance(torch.arange(40) % 3)
        served = order_of(list(batches.epoch(epoch)))
        assert served == batches.order(epoch).tolist()
        assert order_of(list(batches.epoch(epoch, first_step=2))) == served[16:]
        orders.append(served)
    assert orders[0] == orders[1]
    assert orders[1] != orders[2] != orders[3] != orders[1]


@examples
@given(seed=st.integers(0, 2**70), epoch=st.integers(1, 10**6))
def test_the_order_is_a_function_of_seed_and_epoch(seed: int, epoch: int) -> None:
    first = order_of(list(batches_of(40, 8, seed).epoch(epoch)))
    torch.manual_seed(0)
    again = batches_of(40, 8, seed)
    list(again.epoch(epoch + 1))
    assert order_of(list(again.epoch(epoch))) == first
    assert order_of(list(again.epoch(epoch + 1))) != first
    assert order_of(list(batches_of(40, 8, seed + 1).epoch(epoch))) != first
    generator = torch.get_rng_state()
    assert order_of(list(batches_of(40, 4, seed).epoch(epoch))) == first
    assert torch.equal(torch.get_rng_state(), generator)


def test_an_epoch_that_begins_later_goes_on_in_the_same_order() -> None:
    whole = list(batches_of(20, 4).epoch(2))
    assert len(whole) == 5
    for first_step in (1, 3, 5):
        for expected, batch in zip(whole[first_step:], batches_of(20, 4).epoch(2, first_step), strict=True):
            assert torch.equal(batch.indices, expected.indices)
            assert torch.equal(batch.images, expected.images)
            assert torch.equal(batch.targets, expected.targets)


def test_the_epochs_cycle_through_the_views() -> None:
    for num_views, expected in ((None, [0, 1, 2, 3, 4, 5]), (1, [0] * 6), (4, [0, 1, 2, 3, 0, 1])):
        epochs = [batches_of(8, 4, num_views=num_views).epoch(epoch) for epoch in range(1, 7)]
        assert [{batch.view for batch in epoch} for epoch in epochs] == [{view} for view in expected]


def test_targets_and_images_belong_to_the_indices() -> None:
    split = some_split(30, 3, (2, 3, 3))
    views = Views(split, AUGMENT, ViewChoice(5, None, 0.0, 0.0))
    for batch in MemoryBatches(views, 7, 5).epoch(4):
        assert batch.targets.tolist() == [index % 3 for index in batch.indices.tolist()]
        assert batch.view == 3
        assert torch.equal(batch.images, views.render(batch.indices, 3)[0])


def test_a_mixture_is_drawn_once_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    original = Mixing.draw

    def draw(self: Mixing, indices: Tensor, seed: int, view: int, device: torch.device) -> Mixture:
        drawn.append(view)
        return original(self, indices, seed, view, device)

    monkeypatch.setattr(Mixing, "draw", draw)
    views = Views(some_split(30, 3, (2, 3, 3)), AUGMENT, ViewChoice(5, None, 0.4, 1.0))
    assert len(list(MemoryBatches(views, 7, 5).epoch(4))) == 5
    assert drawn == [3] * 5


@pytest.mark.parametrize("mixup", [0.0, 0.4])
@pytest.mark.parametrize("first_step", [0, 1])
def test_batches_that_a_gpu_renders_together_are_the_same(
    mixup: float, first_step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, also the last one, which is smaller."""
    views = Views(some_split(31, 3, (2, 3, 3)), AUGMENT, ViewChoice(5, None, mixup, 0.0))
    one_by_one = list(MemoryBatches(views, 7, 5).epoch(4, first_step))
    monkeypatch.setattr(MemoryBatches, "steps_at_once", 2)
    together = list(MemoryBatches(views, 7, 5).epoch(4, first_step))
    assert len(together) == len(one_by_one) == 5 - first_step
    for found, expected in zip(together, one_by_one, strict=True):
        assert vars(found).keys() == vars(expected).keys()
        for name, value in vars(expected).items():
            is_equal = torch.equal(getattr(found, name), value) if isinstance(value, Tensor) else None
            assert getattr(found, name) == value if is_equal is None else is_equal, name
        assert found.host_indices is not None
        assert torch.equal(found.host_indices, found.indices)
