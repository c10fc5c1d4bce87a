"""Weights of the classes: their values, what is said of them, and that every network of a run trains with them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from conftest import TINY
from distill_run.data.feed import MemoryFeed
from distill_run.data.source import Split
from distill_run.data.splits import Dataset
from distill_run.stages.class_weights import about_class_weights, class_weights
from distill_run.stages.watcher import Watcher
from distill_run.stages.workshop import make_trainer
from helpers import message_of, refusal
from workshops import open_run


def feed(*counts: int) -> MemoryFeed:
    """A feed whose classes have so many training images."""
    targets = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    split = Split(torch.zeros(len(targets), 1, 2, 2, dtype=torch.uint8), targets)
    return MemoryFeed(Dataset(split, split, split, tuple("abcd"[: len(counts)]), (), "0" * 64), {})


def test_balanced_weights_are_those_of_sklearn() -> None:
    found = class_weights("balanced", feed(90, 9, 1))
    assert found is not None
    expected = compute_class_weight("balanced", classes=np.arange(3), y=[0] * 90 + [1] * 9 + [2])
    assert found == pytest.approx(expected.tolist())
    assert about_class_weights(found, tuple("abc")) == (
        "training.class_weights: from 0.37 (a) to 33.3 (c), in the cross-entropy with the targets"
    )


def test_weights_may_be_given_or_left_out() -> None:
    assert class_weights(None, feed(2, 1)) is None
    assert class_weights([1.0, 2.5], feed(2, 1)) == [1.0, 2.5]
    assert message_of(class_weights, [1.0], feed(2, 1)) == (
        "training.class_weights has 1 number, the dataset has 2 classes\n"
        "  write a number for each class, in the order of their names, or training.class_weights=balanced"
    )


def test_a_weight_of_0_is_refused(tmp_path: Path) -> None:
    assert message_of(open_run, tmp_path, ["training.class_weights=[1,0]"]) == refusal(
        "training.class_weights", [1, 0], "balanced, or a list with a number above 0 for each class, or null"
    )


def test_every_network_of_a_run_trains_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    watcher = Watcher()
    monkeypatch.setattr(watcher, "noted", told.append)
    lineup = open_run(tmp_path, [*TINY, "training.class_weights=balanced"], watcher).lineup
    plain = open_run(tmp_path, list(TINY)).lineup
    for prepared, other in zip(
        (lineup.teachers[0], *lineup.pairs[0]), (plain.teachers[0], *plain.pairs[0]), strict=True
    ):
        assert prepared is not None
        assert other is not None
        assert prepared.assembly.loss.task.class_weights is not None
        assert other.assembly.loss.task.class_weights is None
        assert prepared.training.inputs["class_weights"] != other.training.inputs["class_weights"]
    assert any(text.startswith("training.class_weights: from 0.9") for text in told)


def test_every_network_of_a_run_draws_balanced_samples(tmp_path: Path) -> None:
    opened = open_run(tmp_path, [*TINY, "dataset.sampling=balanced"])
    plain = open_run(tmp_path, list(TINY))
    for network in (opened.lineup.teachers[0], opened.lineup.student):
        drawn = make_trainer(network, opened.workshop).batches.order(1).tolist()
        assert len(drawn) == 1146
        assert len(set(drawn)) < 1146
    everything = make_trainer(plain.lineup.student, plain.workshop).batches.order(1).tolist()
    assert sorted(everything) == list(range(1146))
    both = [each.lineup.teachers[0].training.fingerprint for each in (opened, plain)]
    assert both[0] != both[1]
