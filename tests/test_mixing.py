"""Mixup and CutMix: whom a sample is mixed with is a function of (seed, view, sample), and the targets follow."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest
from torch import Tensor

from distill_run.data.augment import Augmentation
from distill_run.data.batches import Batch
from distill_run.data.feed import MemoryBatches
from distill_run.data.mixing import Mixing, Mixture
from distill_run.data.views import ViewChoice, Views
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import Objective
from distill_run.objectives.dkd import Decoupled
from distill_run.objectives.none import CrossEntropy
from distill_run.objectives.total import TotalLoss
from distill_run.objectives.virtual_teacher import VirtualTeacher
from helpers import few_examples, some_logits, some_split, steps

PLAIN = steps()
SPLIT = some_split(40, 4, (3, 8, 6))
EVERYTHING = torch.arange(40)
MANY = torch.arange(20_000)


def views(mixup: float, cutmix: float, augmentations: dict[str, Augmentation] = PLAIN) -> Views:
    return Views(SPLIT, augmentations, ViewChoice(5, None, mixup, cutmix))


def mixed_view(views: Views, indices: Tensor, view: int) -> tuple[Tensor, Mixture]:
    images, mixture = views.render(indices, view)
    assert mixture is not None
    return images, mixture


@given(
    st.lists(st.integers(0, 39), min_size=1, max_size=12), st.integers(0, 5), st.sampled_from([(1, 0), (0, 1), (2, 1)])
)
@few_examples
def test_a_mixed_view_does_not_depend_on_the_batch(indices: list[int], view: int, how: tuple[float, float]) -> None:
    mixed = views(*how, steps(2, True, 2))
    whole, mixture = mixed_view(mixed, EVERYTHING, view)
    images, part = mixed_view(mixed, torch.tensor(indices), view)
    assert torch.equal(images, whole[indices])
    assert torch.equal(part.partners, mixture.partners[indices])
    assert torch.equal(part.shares, mixture.shares[indices])


def test_mixup_weighs_whole_images() -> None:
    rendered, mixture = mixed_view(views(1.0, 0.0), EVERYTHING, 3)
    shares, images = mixture.shares.numpy()[:, None, None, None], SPLIT.images.numpy() / 255
    expected = shares * images + (1 - shares) * images[mixture.partners.numpy()]
    np.testing.assert_allclose(rendered.numpy(), expected, atol=1e-6)


def test_cutmix_takes_a_box_from_the_partner_and_counts_its_pixels() -> None:
    images, mixture = mixed_view(views(0.0, 1.0), EVERYTHING, 3)
    for index, partner in enumerate(mixture.partners.tolist()):
        is_own = mixture.weights[index, 0].bool()
        own, other = SPLIT.images[index] / 255, SPLIT.images[partner] / 255
        assert torch.equal(images[index], torch.where(is_own, own, other))
        assert mixture.shares[index].item() == pytest.approx(is_own.sum().item() / 48)
        rows, columns = (~is_own).any(1).nonzero().flatten(), (~is_own).any(0).nonzero().flatten()
        if len(rows):  # what is the partner's is a full box
            assert not is_own[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].any()


def test_a_box_that_lies_inside_has_the_area_that_its_share_leaves() -> None:
    mixing, middle = Mixing(2, (100, 100), 0.0, 1.0), torch.tensor([50])
    for share in (0.0, 0.3, 0.75, 1.0):
        weights = mixing._outside_box(torch.tensor([share]), middle, middle)
        assert (weights == 0).sum().item() == int(100 * (1 - share) ** 0.5) ** 2


def test_shares_of_mixup_follow_the_beta_distribution() -> None:
    for parameter in (0.2, 1.0, 4.0):
        shares = Mixing(50_000, (1, 1), parameter, 0.0).draw(MANY, seed=0, view=0).shares.double().numpy()
        # 1.36 / sqrt(20,000) is 0.0096; at 0.2, two in a hundred shares are 1 in float32.
        assert kstest(shares, "beta", args=(parameter, parameter)).statistic < 0.02


def test_partners_are_drawn_evenly_and_anew_for_every_view() -> None:
    mixing = Mixing(100, (1, 1), 1.0, 0.0)
    first, second = (mixing.draw(MANY, 0, view).partners for view in (0, 1))
    counts = torch.bincount(first, minlength=100)
    assert len(counts) == 100
    assert ((counts - 200).abs() < 5 * 200**0.5).all()
    assert (first == second).double().mean().item() < 0.02
    assert not torch.equal(first, mixing.draw(MANY, 1, 0).partners)


def test_where_both_are_asked_for_half_of_the_samples_take_each() -> None:
    mixture = Mixing(100, (16, 16), 1.0, 1.0).draw(MANY[:4000], 0, 0)
    is_box = ((mixture.weights == 0) | (mixture.weights == 1)).flatten(1).all(1)
    assert is_box.double().mean().item() == pytest.approx(0.5, abs=0.04)


def test_a_batch_knows_the_targets_and_the_shares_of_its_mixtures() -> None:
    plain = next(MemoryBatches(views(0.0, 0.0), 8, 0).epoch(1))
    assert plain.partner_targets is plain.shares is None
    mixed = views(0.0, 1.0)
    batch = next(MemoryBatches(mixed, 8, 0).epoch(2))
    images, mixture = mixed_view(mixed, batch.indices, 1)
    assert batch.partner_targets is not None
    assert torch.equal(batch.partner_targets, SPLIT.targets[mixture.partners])
    assert torch.equal(batch.images, images)
    assert batch.shares is not None
    assert torch.equal(batch.shares, mixture.shares)


OWN, PARTNERS, SHARES = torch.tensor([0, 2, 1]), torch.tensor([1, 2, 0]), torch.tensor([0.75, 0.5, 0.0])
MIXED = Batch(torch.arange(3), torch.zeros(3, 1, 1, 1), OWN, 0, partner_targets=PARTNERS, shares=SHARES)
LOGITS, TEACHER = torch.from_numpy(some_logits(0, 3, 4)), torch.from_numpy(some_logits(1, 3, 4))


def test_cross_entropy_of_mixed_samples_is_that_of_the_mixed_distribution() -> None:
    wanted = F.one_hot(OWN, 4) * SHARES[:, None] + F.one_hot(PARTNERS, 4) * (1 - SHARES[:, None])
    for smoothing in (0.0, 0.2):
        loss, _ = TotalLoss({"cross_entropy": CrossEntropy(label_smoothing=smoothing)}, 0.0).losses(
            MIXED, Outputs(LOGITS), None
        )
        expected = F.cross_entropy(LOGITS, wanted.double(), label_smoothing=smoothing)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


DECOUPLED = Decoupled(
    temperature=4.0, target_weight=1.0, non_target_weight=8.0, weight=1.0, warmup_epochs=0, standardize_logits=False
)
VIRTUAL = VirtualTeacher(temperature=20.0, alpha=0.9, correct_probability=0.99)


@pytest.mark.parametrize("objective", [DECOUPLED, VIRTUAL])
def test_terms_that_read_targets_take_both_by_their_shares(objective: Objective) -> None:
    """Each sample by itself, with either target alone, then the mean by the shares."""
    parts = []
    for index, share in enumerate(SHARES.tolist()):
        outputs = Outputs(LOGITS[index : index + 1]), Outputs(TEACHER[index : index + 1])
        for targets, weight in ((OWN, share), (PARTNERS, 1 - share)):
            alone = Batch(torch.tensor([index]), torch.zeros(1, 1, 1, 1), targets[index : index + 1], 0)
            parts.append(weight * objective.term(alone, *outputs).item())
    mixed = objective.term(MIXED, Outputs(LOGITS), Outputs(TEACHER)).item()
    assert mixed == pytest.approx(sum(parts) / 3, rel=1e-6)
