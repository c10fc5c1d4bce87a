"""The weights of the classes in the cross-entropy with the targets, from the settings and the training split."""

from distill_run.data.feed import Feed
from distill_run.data.splits import class_counts
from distill_run.errors import user_error
from distill_run.units import counted


def class_weights(wanted: str | list[float] | None, feed: Feed) -> list[float] | None:
    """A weight for each class (K,); None where all count the same.

    Balanced weights are N / (K * count), from the N images of the training split: each class then counts as much as
    any other. Raises UserError for a list that has not a number for each class.
    """
    num_classes = len(feed.classes)
    if isinstance(wanted, list):
        if len(wanted) != num_classes:
            raise user_error(
                f"training.class_weights has {counted(len(wanted), 'number')}, the dataset has {num_classes} classes",
                "write a number for each class, in the order of their names, or training.class_weights=balanced",
            )
        return wanted
    if wanted is None:
        return None
    counts = class_counts(feed.train, num_classes).tolist()
    return [len(feed.train) / (num_classes * max(count, 1)) for count in counts]


def about_class_weights(weights: list[float], classes: tuple[str, ...]) -> str:
    """A sentence on the smallest and the largest of the weights."""
    least, most = (weights.index(bound(weights)) for bound in (min, max))
    return (
        f"training.class_weights: from {weights[least]:.3g} ({classes[least]}) to {weights[most]:.3g} "
        f"({classes[most]}), in the cross-entropy with the targets"
    )
