"""Colours, operations and erasing do what torchvision's transforms do, for each sample of a batch on its own."""

import math
from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from distill_run.config.settings import compose_config
from distill_run.data.augment import Augmentation
from distill_run.data.colour import ColorJitter, brighten, change_contrast, saturate, turn_hue
from distill_run.data.draws import Draws
from distill_run.data.erasing import RandomErasing
from distill_run.data.operations import OPERATIONS, apply_operations
from distill_run.data.policies import NUM_LEVELS, RandAugment, TrivialAugment, magnitude_table
from helpers import message_of, refusal, steps

NUM_DRAWS = 10_000
THOUSANDTH = {3: 16.3, 13: 34.5, 23: 49.7, 30: 59.7}  # what chi-squared exceeds once in 1,000, by degrees of freedom
EVERYTHING: list[Augmentation] = [
    ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2),
    TrivialAugment(enabled=True),
    RandAugment(num_ops=2, magnitude=9),
    RandomErasing(probability=0.7, scale=[0.02, 0.33], ratio=[0.3, 3.3], value=0.5),
]


def photographs(num: int, channels: int = 3, height: int = 21, width: int = 25) -> Tensor:
    """Noise, brighter to the right, as uint8: without light, contrast and hue operations would hardly show."""
    noise = torch.randint(0, 160, (num, channels, height, width), generator=torch.Generator().manual_seed(5))
    return (noise + torch.linspace(0, 95, width).long()).to(torch.uint8)


def as_floats(images: Tensor) -> Tensor:
    return images.float() / 255


def draws(num: int, stream_number: int = 7) -> Draws:
    return Draws(torch.arange(num), stream_number)


def chi_square(counts: NDArray[np.int64]) -> float:
    expected = counts.sum() / counts.size
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("step", EVERYTHING, ids=lambda step: type(step).__name__)
def test_a_sample_is_the_same_in_every_batch(step: Augmentation, channels: int) -> None:
    images = as_floats(photographs(60, channels))
    before = images.clone()
    whole = step(images, draws(60))
    assert torch.equal(images, before)
    assert (whole.shape, whole.dtype) == (images.shape, torch.float32)
    assert 0 <= whole.min() <= whole.max() <= 1
    assert (whole != images).flatten(1).any(1).sum() > 20
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    for indices in (order, *torch.split(order[:8], 1), order[8:31]):
        assert torch.equal(step(images[indices], Draws(indices, 7)), whole[indices])


@pytest.mark.parametrize("step", [*EVERYTHING, *steps(2, True, 3).values()], ids=lambda step: type(step).__name__)
def test_no_step_reads_what_lies_on_the_device(step: Augmentation) -> None:
    """To read a number back from a GPU is to wait for it. Tensors of "meta" have none: to read one is an error."""
    device = torch.device("meta")
    changed = step(torch.empty(200, 3, 8, 9, device=device), Draws(torch.arange(200), 7, device))
    assert (changed.shape, changed.device) == ((200, 3, 8, 9), device)


@pytest.mark.parametrize("factor", [0.0, 0.37, 1.0, 1.8])
@pytest.mark.parametrize(
    ("step", "theirs"),
    [
        (brighten, tv.adjust_brightness),
        (change_contrast, tv.adjust_contrast),
        (saturate, tv.adjust_saturation),
        (turn_hue, tv.adjust_hue),
    ],
)
def test_colours_are_torchvisions(
    step: Callable[[Tensor, Tensor], Tensor], theirs: Callable[[Tensor, float], Tensor], factor: float
) -> None:
    """On floats as theirs but for rounding; theirs on uint8 rounds grey values and results, within 2/255."""
    if step is turn_hue:
        factor = factor / 1.8 - 0.5
    for channels in (1, 3):
        images = photographs(4, channels)
        images[0] //= 255  # black, which has no hue
        changed = step(as_floats(images), torch.full((4,), factor))
        torch.testing.assert_close(changed, theirs(as_floats(images), factor), rtol=0, atol=2e-6)
        torch.testing.assert_close(changed, as_floats(theirs(images, factor)), rtol=0, atol=2 / 255)


def torchvisions(name: str, images: Tensor, magnitude: float) -> Tensor:
    """The operation of torchvision's policies; the names differ in their spelling."""
    spelt = {"autocontrast": "AutoContrast"}.get(name, "".join(part.capitalize() for part in name.split("_")))
    policy = v2.TrivialAugmentWide()
    changed: Tensor = policy._apply_image_or_video_transform(images, spelt, magnitude, "nearest", {torch.Tensor: None})
    return changed


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_torchvisions_at_every_magnitude(name: str, channels: int) -> None:
    """Equal where they move or count, but for pixels half-way between two; within 2/255 where theirs round."""
    sign = -1 if name in ("rotate", "sharpness", "shear_y") else 1
    magnitudes = magnitude_table(0.99, (32.0, 32.0), 135.0, 0.99, 6)[name] * sign
    images = photographs(NUM_LEVELS, channels)
    found = apply_operations(as_floats(images), torch.full((NUM_LEVELS,), list(OPERATIONS).index(name)), magnitudes)
    rounded = name in ("brightness", "color", "contrast", "sharpness", "autocontrast")
    for image, changed, magnitude in zip(images, found, magnitudes.tolist(), strict=True):
        distance = (changed * 255 - torchvisions(name, image, magnitude).float()).abs()
        if rounded:
            assert distance.max() <= 2, magnitude
        else:
            assert (distance > 1e-3).float().mean() < 0.002, magnitude


def test_sharpness_and_autocontrast_are_torchvisions_but_for_rounding() -> None:
    images = as_floats(photographs(3))
    for name, magnitude in (("sharpness", 0.9), ("sharpness", -0.9), ("autocontrast", 0.0)):
        found = OPERATIONS[name](images, torch.full((3,), magnitude, dtype=torch.float64))
        torch.testing.assert_close(found, torchvisions(name, images, magnitude), rtol=0, atol=2e-6)


def test_equalize_and_autocontrast_leave_a_channel_of_one_value_as_it_is() -> None:
    images = torch.full((2, 3, 6, 7), 0.2)
    images[1] = as_floats(photographs(1, 3, 6, 7))[0]
    for name in ("equalize", "autocontrast"):
        changed = OPERATIONS[name](images, torch.zeros(2, dtype=torch.float64))
        torch.testing.assert_close(changed[0], images[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("policy", ["trivial", "rand"])
def test_magnitudes_are_those_of_torchvisions_tables(policy: str) -> None:
    height, width = 40, 56
    if policy == "trivial":
        table, theirs = magnitude_table(0.99, (32.0, 32.0), 135.0, 0.99, 6), v2.TrivialAugmentWide._AUGMENTATION_SPACE
    else:
        pixels = (150 / 331 * width, 150 / 331 * height)
        table, theirs = magnitude_table(0.3, pixels, 30.0, 0.9, 4), v2.RandAugment._AUGMENTATION_SPACE
    assert [name.replace("_", "") for name in table] == [name.lower() for name in theirs]
    for magnitudes, (their_magnitudes, _) in zip(table.values(), theirs.values(), strict=True):
        expected = their_magnitudes(NUM_LEVELS, height, width)
        assert magnitudes.tolist() == ([0.0] * NUM_LEVELS if expected is None else expected.tolist())


class Drawn:
    """What a policy applies, instead of applying it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[Tensor, Tensor]] = []
        monkeypatch.setattr("distill_run.data.policies.apply_operations", self)

    def __call__(self, images: Tensor, names: Tensor, magnitudes: Tensor) -> Tensor:
        self.calls.append((names, magnitudes))
        return images


def test_trivial_augment_draws_operations_magnitudes_and_signs_uniformly(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Drawn(monkeypatch)
    TrivialAugment(enabled=True)(torch.zeros(NUM_DRAWS, 1, 4, 4), draws(NUM_DRAWS))
    ((names, magnitudes),) = drawn.calls
    assert chi_square(np.bincount(names, minlength=14)) < THOUSANDTH[13]
    signed = [list(OPERATIONS).index(name) for name, (_, is_signed) in signed_of_torchvision() if is_signed]
    assert len(signed) == 9
    moved = torch.isin(names, torch.tensor(signed))
    assert (magnitudes[~moved] >= 0).all()
    turns = magnitudes[names == list(OPERATIONS).index("rotate")]
    levels = (turns.abs() / 135 * 30).round().long()
    assert chi_square(np.bincount(levels, minlength=31)) < THOUSANDTH[30]
    everywhere = magnitudes[moved & (magnitudes != 0)]
    assert (everywhere < 0).double().mean().item() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(len(everywhere)))


def signed_of_torchvision() -> list[tuple[str, Any]]:
    return list(zip(OPERATIONS, v2.TrivialAugmentWide._AUGMENTATION_SPACE.values(), strict=True))


def test_rand_augment_draws_each_operation_anew_with_one_magnitude(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Drawn(monkeypatch)
    RandAugment(num_ops=2, magnitude=9)(torch.zeros(NUM_DRAWS, 1, 4, 4), draws(NUM_DRAWS))
    (first, magnitudes), (second, _) = drawn.calls
    for names in (first, second):
        assert chi_square(np.bincount(names, minlength=14)) < THOUSANDTH[13]
    both = np.bincount(first * 14 + second, minlength=196)
    assert chi_square(both) < 262  # 195 degrees of freedom: one in a thousand lies above
    turns = magnitudes[first == list(OPERATIONS).index("rotate")]
    assert sorted(set(turns.tolist())) == [-9.0, 9.0]


def test_rand_augment_is_its_operations_in_turn() -> None:
    images = as_floats(photographs(30))
    draw = draws(30)
    table = torch.stack(list(magnitude_table(0.3, (150 / 331 * 25, 150 / 331 * 21), 30.0, 0.9, 4).values()))
    expected = images
    for _ in range(3):
        names, signs = draw(14), draw(2)
        signed = torch.tensor([is_signed for _, (_, is_signed) in signed_of_torchvision()])[names]
        expected = apply_operations(expected, names, table[names, 20] * torch.where(signed & (signs == 1), -1, 1))
    assert torch.equal(RandAugment(num_ops=3, magnitude=20)(images, draws(30)), expected)


def test_color_jitter_is_torchvisions_steps_in_an_order_drawn_for_each_sample() -> None:
    images = as_floats(photographs(80))
    changed = ColorJitter(brightness=0.4, contrast=0.3, saturation=0.5, hue=0.1)(images, draws(80))
    draw = draws(80)
    orders, shares = draw(24).tolist(), draw.uniform(4)
    factors = shares * torch.tensor([0.8, 0.6, 1.0, 0.2]) + torch.tensor([0.6, 0.7, 0.5, -0.1])
    steps = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    for image, result, order, factor in zip(images, changed, orders, factors.tolist(), strict=True):
        for number in list(permutations(range(4)))[order]:
            image = steps[number](image, factor[number])
        torch.testing.assert_close(result, image, rtol=0, atol=1e-5)


def test_the_order_and_the_factors_of_color_jitter_are_uniform() -> None:
    """The order is that of test_color_jitter_is_torchvisions_steps, which reads the same draws."""
    grey = torch.full((NUM_DRAWS, 1, 1, 1), 0.5)
    jitter = ColorJitter(brightness=0.3, contrast=0, saturation=0, hue=0)
    factors = jitter(grey, draws(NUM_DRAWS)).flatten() / 0.5
    assert chi_square(torch.histc(factors, 31, 0.7, 1.3).long().numpy()) < THOUSANDTH[30]
    assert chi_square(np.bincount(draws(NUM_DRAWS)(24), minlength=24)) < THOUSANDTH[23]
    wide = ColorJitter(brightness=1.5, contrast=0, saturation=0, hue=0)
    assert wide(grey, draws(NUM_DRAWS)).min() < 0.001  # not below 0, as torchvision


def test_saturation_and_hue_leave_grey_images_as_they_are() -> None:
    images = as_floats(photographs(5, 1))
    assert torch.equal(ColorJitter(brightness=0, contrast=0, saturation=0.9, hue=0.5)(images, draws(5)), images)


def erased_boxes(images: Tensor) -> NDArray[np.int64]:
    """Top, left, height, width of the white rectangle of each image (N, 1, H, W) that has one."""
    found = []
    for white in (images[:, 0] == 1).numpy():
        if white.any():
            rows, columns = white.any(1).nonzero()[0], white.any(0).nonzero()[0]
            assert white.sum() == len(rows) * len(columns)
            found.append((rows[0], columns[0], len(rows), len(columns)))
    return np.array(found)


def box_figures(boxes: NDArray[np.int64], size: int) -> list[NDArray[np.float64]]:
    top, left, height, width = boxes.T
    return [height * width / size**2, np.log(height / width), top / (size - height), left / (size - width)]


def test_random_erasing_draws_as_torchvision() -> None:
    """Means and deviations of area, proportions and place of 10,000 images, against as many of torchvision's."""
    size, how = 32, {"scale": [0.02, 0.33], "ratio": [0.3, 3.3]}
    step = RandomErasing(probability=0.25, value=1.0, **how)
    found = erased_boxes(step(torch.zeros(NUM_DRAWS, 1, size, size), draws(NUM_DRAWS)))
    assert len(found) / NUM_DRAWS == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / NUM_DRAWS))
    torch.manual_seed(0)
    theirs = v2.RandomErasing(p=1.0, value=1.0, **how)
    expected = erased_boxes(torch.stack([theirs(torch.zeros(1, size, size)) for _ in range(2000)]))
    for ours, others in zip(box_figures(found, size), box_figures(expected, size), strict=True):
        spread = math.sqrt(ours.var() / len(ours) + others.var() / len(others))
        assert ours.mean() == pytest.approx(others.mean(), abs=4 * spread)
        assert ours.std() == pytest.approx(others.std(), rel=0.06)


def test_a_rectangle_that_fits_nowhere_erases_nothing() -> None:
    step = RandomErasing(probability=1.0, scale=[1.0, 1.0], ratio=[1.0, 1.0], value=1.0)
    assert not step(torch.zeros(20, 3, 8, 8), draws(20)).any()


def test_steps_with_nothing_to_do_say_so() -> None:
    still = [
        ColorJitter(brightness=0, contrast=0, saturation=0, hue=0),
        TrivialAugment(enabled=False),
        RandAugment(num_ops=0, magnitude=9),
        RandomErasing(probability=0, scale=[0.1, 0.2], ratio=[0.5, 2.0], value=0.0),
    ]
    assert [step.does_nothing for step in still] == [True] * 4
    assert [step.does_nothing for step in EVERYTHING] == [False] * 4


USUAL: dict[type[Augmentation], dict[str, Any]] = {
    ColorJitter: {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0},
    TrivialAugment: {"enabled": True},
    RandAugment: {"num_ops": 2, "magnitude": 9},
    RandomErasing: {"probability": 0.1, "scale": [0.02, 0.33], "ratio": [0.3, 3.3], "value": 0.0},
}


@pytest.mark.parametrize(
    ("step", "key", "value", "words"),
    [
        (ColorJitter, "contrast", -0.1, "a number of at least 0"),
        (ColorJitter, "hue", 0.6, "a number from 0 to 0.5"),
        (TrivialAugment, "enabled", 1, "true or false"),
        (RandAugment, "num_ops", -1, "a whole number of at least 0"),
        (RandAugment, "magnitude", 31, "a whole number from 0 to 30, the strongest"),
        (RandomErasing, "probability", 2, "a number from 0 to 1"),
        (RandomErasing, "scale", [0.5, 0.2], "[least,most], shares of the image's area above 0 and at most 1"),
        (RandomErasing, "ratio", [0, 1], "[least,most], proportions of the sides, above 0"),
        (RandomErasing, "value", 128, "a number from 0 to 1"),
    ],
)
def test_wrong_arguments_are_refused(step: type[Augmentation], key: str, value: object, words: str) -> None:
    assert message_of(lambda: step(**USUAL[step] | {key: value})) == refusal(key, value, words)


OFF = {"random_resized_crop": None, "crop": 0, "flip": False, "cutout": 0}
PRESETS: dict[str, dict[str, Any]] = {
    "none": OFF,
    "small": OFF | {"crop": 4, "flip": True},
    "photographs": OFF | {"random_resized_crop": [0.35, 1.0], "flip": True, "color_jitter": 0.2},
    "strong": OFF | {"random_resized_crop": [0.08, 1.0], "flip": True, "trivial_augment": True, "random_erasing": 0.1},
    "[photographs,cutout]": OFF | {"random_resized_crop": [0.35, 1.0], "flip": True, "cutout": 8, "color_jitter": 0.2},
    "[small,color_jitter,rand_augment]": OFF | {"crop": 4, "flip": True, "color_jitter": 0.2, "rand_augment": 2},
}


@pytest.mark.parametrize("dataset", ["cifar10", "image_folder", "digits"])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_sets_all_steps_of_the_dataset(preset: str, dataset: str) -> None:
    augment = compose_config([f"dataset={dataset}", f"augment={preset}"]).dataset.augment
    first = {name: next(value for key, value in node.items() if key != "_target_") for name, node in augment.items()}
    assert first == PRESETS[preset]
