"""How large a batch and how long a training is, where the settings leave it to the number of training images."""

import dataclasses
import math

from distill_run.config.schema import Recipe, RecipeSettings, TrainingSettings

BATCHES_AN_EPOCH = 16  # at least, for small datasets
BATCH_SIZES = (16, 128)  # the smallest and the largest
NUM_STEPS = 600  # of the optimizer, at least; and
NUM_SAMPLES = 20_000  # images seen, each as often as there are epochs, at least
EPOCHS = (10, 200)  # the fewest and the most


def complete_training(wanted: TrainingSettings, num_images: int) -> tuple[TrainingSettings, list[str]]:
    """The recipes with every null filled in that the number of training images decides; sentences that say so."""
    teacher, about_teacher = _complete("teacher", wanted.teacher, num_images)
    student, about_student = _complete("student", wanted.student, num_images)
    return dataclasses.replace(wanted, teacher=teacher, student=student), [*about_teacher, *about_student]


def _complete(role: str, wanted: RecipeSettings, num_images: int) -> tuple[Recipe, list[str]]:
    batch_size = batch_size_for(num_images) if wanted.batch_size is None else wanted.batch_size
    epochs = epochs_for(num_images, batch_size * wanted.accumulation) if wanted.epochs is None else wanted.epochs
    found = []
    if wanted.batch_size is None:
        found.append(f"batches of {batch_size}")
    if wanted.epochs is None:
        found.append(f"{epochs} epochs")
    notes = [f"training.{role}: {' and '.join(found)}, for {num_images:,} training images"] if found else []
    return Recipe(**{**dataclasses.asdict(wanted), "epochs": epochs, "batch_size": batch_size}), notes


def batch_size_for(num_images: int) -> int:
    """The power of two that gives an epoch 16 to 32 batches, from 16 to 128."""
    smallest, largest = BATCH_SIZES
    size: int = 2 ** math.floor(math.log2(max(num_images / BATCHES_AN_EPOCH, 1)))
    return min(max(size, smallest), largest)


def epochs_for(num_images: int, images_a_step: int) -> int:
    """As many epochs as 600 steps and 20,000 images take, from 10 to 200."""
    num_steps = max(num_images // images_a_step, 1)
    fewest, most = EPOCHS
    wanted = max(math.ceil(NUM_STEPS / num_steps), math.ceil(NUM_SAMPLES / num_images))
    return min(max(wanted, fewest), most)
