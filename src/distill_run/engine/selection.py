"""What is best on validation: by one figure, which training.select_by names. No torch: sweeps and pages use it."""

from collections.abc import Iterable, Mapping

# How sentences name the figures.
FIGURE_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "nll": "negative log-likelihood",
}


def figure_names(figures: Iterable[str]) -> str:
    """Several figures in one text."""
    return ", ".join(FIGURE_NAMES[figure] for figure in figures)


def goodness(val: Mapping[str, float], select_by: str) -> float:
    """The validation figure that selects, such that larger is better: the negative log-likelihood changes its sign."""
    return -val["nll"] if select_by == "nll" else val[select_by]


def rank(val: Mapping[str, float], select_by: str) -> tuple[float, float]:
    """What validation figures are sorted by, the best last; among equals, which are common, the lower nll is better."""
    return goodness(val, select_by), -val["nll"]
