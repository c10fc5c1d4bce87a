"""One network against torchmetrics and scikit-learn, a pair by hand, and what predicting may not touch."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
)
from torch import nn
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

from distill_run.engine.evaluate import (
    CHUNK_SIZE,
    NUM_BINS,
    class_figures,
    confusion,
    fidelity,
    measure,
    predict,
    reliability,
)
from helpers import (
    TinyClassifier,
    examples,
    few_examples,
    fill,
    numpy_cross_entropy,
    numpy_log_softmax,
    some_logits,
    some_split,
)


def certain(decisions: list[int], num_classes: int) -> torch.Tensor:
    """Logits whose softmax is 1 for the decisions."""
    return nn.functional.one_hot(torch.tensor(decisions), num_classes).double() * 1e4


def figures_of_others(logits: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    """The figures of torchmetrics, of scikit-learn and of NumPy's formulas."""
    num_classes = logits.shape[1]
    top = min(5, num_classes)
    return {
        "accuracy": multiclass_accuracy(logits, targets, num_classes, average="micro").item(),
        "top5_accuracy": multiclass_accuracy(logits, targets, num_classes, average="micro", top_k=top).item(),
        "ece": multiclass_calibration_error(logits.softmax(1), targets, num_classes, n_bins=15, norm="l1").item(),
        "nll": numpy_cross_entropy(logits.numpy(), targets.numpy()),
        "brier": ((np.exp(numpy_log_softmax(logits.numpy())) - np.eye(num_classes)[targets]) ** 2).sum(1).mean(),
        "balanced_accuracy": balanced_accuracy_score(targets, logits.argmax(1)),
        "macro_f1": f1_score(targets, logits.argmax(1), average="macro"),
    }


OTHERS_WARN = pytest.mark.filterwarnings(
    "ignore:y_pred contains classes not in y_true", "ignore:A single label was found"
)


@OTHERS_WARN
@examples
@given(seed=st.integers(0, 10_000), num=st.integers(1, 200), num_classes=st.integers(2, 12), scale=st.floats(0.01, 30))
def test_the_figures_are_those_of_torchmetrics_and_sklearn(seed: int, num: int, num_classes: int, scale: float) -> None:
    logits = torch.from_numpy(some_logits(seed, num, num_classes, scale))
    targets = torch.from_numpy(np.random.default_rng(seed).integers(0, num_classes, num))
    assert measure(logits, targets) == pytest.approx(figures_of_others(logits, targets), rel=1e-5, abs=1e-6)


@OTHERS_WARN
@few_examples
@given(
    seed=st.integers(0, 10_000),
    num=st.integers(1, 40),
    num_classes=st.integers(2, 12),
    size=st.sampled_from([1.0, 1e2, 1e4]),
    absent=st.booleans(),
)
def test_the_figures_of_extreme_logits_are_theirs_too(
    seed: int, num: int, num_classes: int, size: float, absent: bool
) -> None:
    """Logits of -size, 0 and size have many ties and are certain; the first class may have no image at all."""
    draw = np.random.default_rng(seed)
    logits = torch.from_numpy(draw.integers(-1, 2, (num, num_classes)) * size)
    targets = torch.from_numpy(draw.integers(int(absent), num_classes, num))
    assert measure(logits, targets) == pytest.approx(figures_of_others(logits, targets), rel=1e-5, abs=1e-6)
    assert measure(logits.float(), targets) == pytest.approx(figures_of_others(logits, targets), rel=1e-5, abs=1e-6)
    labels = range(num_classes)
    assert confusion(logits, targets).tolist() == confusion_matrix(targets, logits.argmax(1), labels=labels).tolist()


def test_the_figures_of_certain_and_of_ignorant_networks() -> None:
    """A confidence of exactly 1 belongs to the last bin: where half are wrong, it is off by one half."""
    decided = certain([0, 1, 2, 3], 10)
    assert measure(decided, torch.arange(4)) == {
        "accuracy": 1.0, "top5_accuracy": 1.0, "nll": 0.0, "ece": 0.0, "balanced_accuracy": 1.0, "macro_f1": 1.0,
        "brier": 0.0,
    }  # fmt: skip
    figures = measure(decided, torch.tensor([0, 1, 9, 9]))
    assert (figures["accuracy"], figures["ece"], figures["nll"]) == pytest.approx((0.5, 0.5, 1e4 / 2))
    assert figures["brier"] == pytest.approx(1.0)  # half of the images have the worst score, 2
    figures = measure(torch.zeros(10, 10), torch.arange(10))  # a tenth sure, a tenth right
    assert (figures["accuracy"], figures["nll"], figures["ece"]) == pytest.approx((0.1, math.log(10), 0), abs=1e-7)
    assert measure(torch.zeros(3, 4), torch.tensor([0, 1, 3]))["top5_accuracy"] == 1.0  # of fewer than five classes


def test_the_calibration_error_of_three_samples_by_hand() -> None:
    """Confidences 0.95 (right), 0.95 (wrong) and 0.55 (right): 2/3 |0.95 - 0.5| + 1/3 |0.55 - 1|."""
    probabilities = torch.tensor([[0.95, 0.05], [0.95, 0.05], [0.45, 0.55]], dtype=torch.float64)
    targets = torch.tensor([0, 1, 1])
    assert measure(probabilities.log(), targets)["ece"] == pytest.approx(0.45)
    confidence, accuracy, share = reliability(probabilities.log(), targets)
    assert confidence.shape == accuracy.shape == share.shape == (NUM_BINS,)
    # The bins are (0, 1/15], (1/15, 2/15] ...: 0.55 is in the 9th, 0.95 in the 15th.
    assert (confidence[8].item(), accuracy[8].item(), share[8].item()) == pytest.approx((0.55, 1, 1 / 3))
    assert (confidence[14].item(), accuracy[14].item(), share[14].item()) == pytest.approx((0.95, 0.5, 2 / 3))
    assert [index for index in range(15) if share[index] > 0] == [8, 14]


@examples
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100))
def test_each_mean_confidence_lies_in_its_bin(seed: int, scale: float) -> None:
    logits = torch.from_numpy(some_logits(seed, 60, 4, scale))
    confidence, accuracy, share = reliability(logits, torch.arange(60) % 4)
    assert share.sum().item() == pytest.approx(1)
    for index in range(NUM_BINS):
        if share[index] > 0:
            assert index / 15 - 1e-9 <= confidence[index].item() <= (index + 1) / 15 + 1e-9
            assert 0 <= accuracy[index].item() <= 1
        else:
            assert confidence[index].item() == accuracy[index].item() == 0


def test_top5_counts_the_fifth_and_not_the_sixth() -> None:
    logits = torch.arange(10, 0, -1.0).repeat(2, 1)
    figures = measure(logits, torch.tensor([4, 5]))
    assert (figures["accuracy"], figures["top5_accuracy"]) == (0.0, 0.5)


def test_the_confusion_matrix_is_that_of_sklearn() -> None:
    logits = torch.from_numpy(some_logits(3, 100, 7))
    targets = torch.arange(100) % 5  # two classes never occur
    expected = confusion_matrix(targets, logits.argmax(1), labels=range(7))
    assert confusion(logits, targets).tolist() == expected.tolist()
    assert confusion(certain([2, 2], 3), torch.tensor([0, 0])).tolist() == [[0, 0, 2], [0, 0, 0], [0, 0, 0]]


def test_the_figures_of_each_class_are_those_of_sklearn() -> None:
    logits = torch.from_numpy(some_logits(3, 100, 7))
    targets = torch.from_numpy(np.random.default_rng(3).choice(7, 100, p=[0.5, 0.2, 0.1, 0.1, 0.05, 0.03, 0.02]))
    expected = precision_recall_fscore_support(targets, logits.argmax(1), zero_division=np.nan)[:3]
    for found, wanted in zip(class_figures(logits, targets), expected, strict=True):
        assert found.tolist() == pytest.approx(wanted.tolist(), nan_ok=True)


def test_the_figures_of_classes_that_are_never_there_by_hand() -> None:
    """Of class 0, 2 of 3 images are right; class 1 is never chosen, class 2 has no image, class 3 has neither."""
    logits, targets = certain([0, 0, 2, 0], 4), torch.tensor([0, 0, 0, 1])
    precision, recall, f1 = (figure.tolist() for figure in class_figures(logits, targets))
    nan = pytest.approx(math.nan, nan_ok=True)
    assert precision == [pytest.approx(2 / 3), nan, 0.0, nan]
    assert recall == [pytest.approx(2 / 3), 0.0, nan, nan]
    assert f1 == [pytest.approx(4 / 6), 0.0, 0.0, nan]  # 2 * hits / (images + decisions)
    figures = measure(logits, targets)
    assert figures["balanced_accuracy"] == pytest.approx((2 / 3 + 0) / 2)
    assert figures["macro_f1"] == pytest.approx((2 / 3 + 0 + 0) / 3)


def test_fidelity_by_hand() -> None:
    """Teacher (3/4, 1/4) and (1/2, 1/2) + a hair; student (1/2, 1/2) + a hair the other way, and the same."""
    hair = 1e-9
    teacher = torch.tensor([[0.75, 0.25], [0.5 + hair, 0.5 - hair]], dtype=torch.float64).log()
    student = torch.tensor([[0.5 - hair, 0.5 + hair], [0.5 + hair, 0.5 - hair]], dtype=torch.float64).log()
    figures = fidelity(student, teacher)
    forward = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)  # KL(teacher || student) of the first
    assert figures == pytest.approx({"agreement": 0.5, "disagreement": 0.5, "kl": forward / 2}, abs=1e-7)
    assert fidelity(teacher, teacher) == {"agreement": 1.0, "disagreement": 0.0, "kl": 0.0}


@pytest.fixture
def network() -> nn.Module:
    network = fill(TinyClassifier(in_channels=1, image_size=(4, 4), num_classes=3))
    assert isinstance(network, TinyClassifier)
    network.norm.running_mean = torch.tensor([0.4])
    return network


def test_predicting_is_a_plain_forward_in_eval_mode(network: nn.Module) -> None:
    split = some_split(2 * CHUNK_SIZE + 3, 3)
    with torch.no_grad():
        expected = network.eval()(split.images.float() / 255)
    logits = predict(network, split)
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, expected, atol=1e-6)
    assert not logits.requires_grad


@pytest.mark.parametrize("is_training", [True, False])
def test_predicting_does_not_depend_on_the_mode_and_restores_it(network: nn.Module, is_training: bool) -> None:
    split = some_split(20, 3)
    expected = predict(network.eval(), split)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network.train(is_training)
    generator = torch.get_rng_state()
    assert torch.equal(predict(network, split), expected)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(module.training is is_training for module in network.modules())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
