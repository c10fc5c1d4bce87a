"""The key teacher_normalisation: the mean and std of a teacher whose file, a state dict, holds none."""

from distill_run.config.schema import Settings
from distill_run.errors import user_error
from distill_run.models.published import published_normalisation


def check_normalisation(settings: Settings) -> None:
    """Raise UserError where the settings choose a teacher's normalisation, and no teacher is given as a file."""
    if settings.teacher_normalisation is not None and settings.teacher_checkpoint is None:
        raise user_error(
            "teacher_normalisation is for a teacher_checkpoint, and there is none",
            "leave it out, or give a state dict, as in teacher_checkpoint=my_weights.pt",
        )


def choose_normalisation(settings: Settings, in_channels: int) -> tuple[tuple[list[float], list[float]], str | None]:
    """Mean and std for a state dict, which does not hold them, and a note on them if nobody has chosen them."""
    chosen, name = settings.teacher_normalisation, settings.names.teacher
    if isinstance(chosen, list):
        mean, std = chosen
        if len(mean) != in_channels:
            raise user_error(
                f"teacher_normalisation has {len(mean)} means, the images have {in_channels} channels",
                "write a mean and a standard deviation for each channel",
            )
        return (mean, std), None
    published = None if chosen == "dataset" else published_normalisation(settings.teacher, in_channels)
    if published is not None:
        note = f"the file holds no normalisation, that of {name}'s published weights is taken"
        return published, None if chosen else f"{note}; teacher_normalisation=dataset takes the dataset's"
    if chosen == "published":
        raise user_error(
            f"teacher_normalisation=published, but no weights are published for teacher={name}",
            "write teacher_normalisation=dataset, or the values, as in [[0.5,0.5,0.5],[0.25,0.25,0.25]]",
        )
    mean, std = settings.dataset.mean, settings.dataset.std  # type: ignore[assignment]
    note = "the file holds no normalisation, the dataset's is taken"
    return (mean, std), None if chosen else f"{note}; teacher_normalisation=[[mean,...],[std,...]] takes another"
