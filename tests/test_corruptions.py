"""Corruptions against SciPy, Pillow and arithmetic; that they depend on nothing else; and accuracies under them."""

import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from distill_run.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from distill_run.report.measures import robustness
from distill_run.report.summary import Findings
from distill_run.report.tables import robustness_table
from helpers import some_split
from test_report_pages import made_up_findings


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    return made_up_findings(tmp_path_factory.mktemp("run"))


def images_of(num: int, shape: tuple[int, int, int]) -> torch.Tensor:
    return some_split(num, 2, shape).images


def test_a_blur_is_scipys_and_grows_with_the_image() -> None:
    """At severity 5 one pixel for an image of 32, half of one for 16, six for 224."""
    for size, deviation in ((32, 1.0), (16, 0.5), (224, 6.0)):
        images = images_of(2, (3, size, size))
        expected = gaussian_filter(images.numpy().astype(np.float64), (0, 0, deviation, deviation), mode="nearest")
        found = corrupt(images, "blur", 5, torch.arange(2)).numpy()
        assert np.abs(found - expected.clip(0, 255)).max() <= 0.501  # rounded to whole values


def test_contrast_draws_each_channel_to_its_mean() -> None:
    images = images_of(3, (2, 8, 8))
    means = images.numpy().mean((2, 3), keepdims=True)
    expected = means + 0.15 * (images.numpy() - means)
    np.testing.assert_allclose(corrupt(images, "contrast", 5, torch.arange(3)).numpy(), expected, atol=0.501)


def test_jpeg_is_pillows_and_other_channels_are_written_one_by_one() -> None:
    images = images_of(2, (3, 16, 16))
    file = io.BytesIO()
    Image.fromarray(images[1].permute(1, 2, 0).numpy()).save(file, "JPEG", quality=40)
    expected = np.array(Image.open(file)).transpose(2, 0, 1)
    assert np.array_equal(corrupt(images, "jpeg", 5, torch.arange(2))[1].numpy(), expected)
    single = corrupt(images[:, :1], "jpeg", 2, torch.arange(2))
    double = corrupt(images[:, :2], "jpeg", 2, torch.arange(2))
    assert torch.equal(single, double[:, :1])
    assert (single != images[:, :1]).any()


def test_noise_has_its_deviation_and_is_a_function_of_the_image_and_the_index() -> None:
    grey = torch.full((200, 1, 16, 16), 128, dtype=torch.uint8)
    for severity, deviation in zip(SEVERITIES, (0.04, 0.06, 0.08, 0.09, 0.10), strict=True):
        noisy = corrupt(grey, "noise", severity, torch.arange(200)).double()
        assert (noisy - 128).std().item() == pytest.approx(255 * deviation, rel=0.01)
    last = corrupt(grey[:1], "noise", 5, torch.tensor([199]))
    assert torch.equal(noisy[199:].byte(), last)
    assert not torch.equal(noisy[198:199].byte(), last)


def test_every_corruption_is_stronger_at_a_higher_severity_and_keeps_the_form() -> None:
    """Small and large images alike; images that are not square, too."""
    ramp = torch.arange(0, 120, dtype=torch.uint8).repeat(1, 3, 112, 1)
    ramp = (ramp + images_of(1, (3, 112, 120)) // 4).clamp(0, 255)
    for images in (images_of(2, (1, 16, 19)), ramp):
        for name in CORRUPTIONS:
            found = [corrupt(images, name, severity, torch.arange(len(images))) for severity in SEVERITIES]
            assert all(each.shape == images.shape and each.dtype == torch.uint8 for each in found)
            changes = [(each.double() - images).square().mean().item() for each in found]
            assert changes == sorted(changes), name
            assert changes[-1] > 0


def test_accuracies_are_those_of_the_networks_on_evenly_spread_images(findings: Findings) -> None:
    found = robustness(findings.networks, findings.feed.test, 9)
    assert found is not None
    indices = torch.arange(0, 90, 10)
    targets = findings.feed.test.targets[indices]
    images = torch.stack([findings.feed.test.image(int(index)) for index in indices])
    for name, severity in (("noise", 1), ("jpeg", 5)):
        for stage, trained in findings.networks.items():
            with torch.no_grad():
                logits = trained.network(corrupt(images, name, severity, indices) / 255)
            share = (logits.argmax(1) == targets).double().mean().item()
            assert found.corrupted[name][stage][severity - 1] == pytest.approx(share)
    assert found.clean["student"] == pytest.approx(
        (findings.networks["student"].selected.test_logits[indices].argmax(1) == targets).double().mean().item()
    )
    every = [share for accuracies in found.corrupted.values() for share in accuracies["student"]]
    assert len(every) == 20
    assert found.mean("student") == pytest.approx(np.mean(every))
    table = robustness_table(dataclasses.replace(findings.report, robustness=found))
    assert [row[0] for row in table.rows][2:4] == ["noise, student", "blur, teacher"]
    assert {len(row) for row in table.rows} == {len(table.columns)} == {7}


def test_no_image_is_corrupted_where_none_is_asked_for(findings: Findings) -> None:
    assert robustness(findings.networks, findings.feed.test, 0) is None
    found = robustness(findings.networks, findings.feed.test, 1000)
    assert found is not None
    assert found.images == 90
