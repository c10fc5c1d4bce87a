"""Batch size, epochs and threads, where the user leaves them open."""

import os

import pytest

from distill_run.commands.threads import let_threads_wait
from distill_run.config.compose import config_dir
from distill_run.config.settings import compose_config
from distill_run.stages.budget import (
    BATCH_SIZES,
    BATCHES_AN_EPOCH,
    EPOCHS,
    NUM_SAMPLES,
    NUM_STEPS,
    batch_size_for,
    complete_training,
    epochs_for,
)
from pages import PAGES


def test_an_epoch_has_sixteen_batches_where_the_sizes_allow_it() -> None:
    sizes = {2: 16, 254: 16, 511: 16, 512: 32, 1146: 64, 2047: 64, 2048: 128, 45_000: 128}
    assert {num_images: batch_size_for(num_images) for num_images in sizes} == sizes


def test_a_training_has_600_steps_20_000_images_and_10_to_200_epochs() -> None:
    """254 images are seen 79 times; 1,146 give 17 full batches of 64; 45,000 would need two epochs."""
    assert (epochs_for(254, 16), epochs_for(1146, 64), epochs_for(45_000, 128)) == (79, 36, 10)
    assert epochs_for(254, 4) == 79
    assert epochs_for(254, 254) == 200
    assert epochs_for(3, 16) == 200


def test_the_page_and_the_comments_name_the_numbers_that_decide() -> None:
    epochs, sizes = ("{} to {}".format(*limits) for limits in (EPOCHS, BATCH_SIZES))
    comments = (config_dir() / "training" / "default.yaml").read_text(encoding="utf-8")
    assert f"# null: {NUM_STEPS} steps and {NUM_SAMPLES:,} images, from {epochs} epochs\n" in comments
    assert f"# null: {sizes}, at most a sixteenth of the training images\n" in comments
    assert BATCHES_AN_EPOCH == 16
    page = " ".join(PAGES[".readme/training.md"].split())
    steps = f"a training has {NUM_STEPS} steps and sees {NUM_SAMPLES:,} images"
    assert f"{steps}, in {epochs} epochs, with batches of {sizes} images." in page


def test_what_is_given_stays_and_what_is_filled_in_is_said() -> None:
    wanted = compose_config(["training.teacher.epochs=3", "training.student.batch_size=100"]).training
    complete, notes = complete_training(wanted, 1146)
    assert (complete.teacher.epochs, complete.teacher.batch_size) == (3, 64)
    assert (complete.student.epochs, complete.student.batch_size) == (55, 100)
    assert complete.student.optimizer == wanted.student.optimizer
    assert notes == [
        "training.teacher: batches of 64, for 1,146 training images",
        "training.student: 55 epochs, for 1,146 training images",
    ]
    gathering = compose_config(["training.student.batch_size=16", "training.student.accumulation=4"]).training
    assert complete_training(gathering, 1146)[0].student.epochs == 36  # as with batches of 64
    again, silent = complete_training(complete, 20)
    assert (again, silent) == (complete, [])


def test_threads_spin_shortly_unless_the_user_says_how_they_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    for given in ({}, {"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "7"}):
        monkeypatch.setattr(os, "environ", dict(given))
        let_threads_wait()
        assert os.environ == (given or {"GOMP_SPINCOUNT": "10000"})
