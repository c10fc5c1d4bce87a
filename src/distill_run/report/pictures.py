"""The figures of a report, each with what it shows in words. Importing this module imports matplotlib."""

import base64
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from distill_run.report import plots
from distill_run.report.samples import Sample, disagreements
from distill_run.report.summary import Findings
from distill_run.store import atomic_path

DOTS_PER_INCH = 160


@dataclass(frozen=True)
class Picture:
    """A figure, its file's name, and what it says to those who cannot see it (`alt`) and to those who can."""

    name: str
    title: str
    alt: str
    caption: str
    figure: Figure

    @property
    def uri(self) -> str:
        """The figure as SVG in a data URI."""
        file = io.BytesIO()
        # The same run gives the same bytes: no random names, and no date.
        with matplotlib.rc_context({"svg.hashsalt": "distill-run"}), _tolerant_of_scripts():
            self.figure.savefig(file, format="svg", metadata={"Date": None})
        return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()

    def save(self, folder: Path) -> None:
        """Write the figure as <name>.png, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / f"{self.name}.png") as temporary, _tolerant_of_scripts():
            self.figure.savefig(temporary, format="png", dpi=DOTS_PER_INCH)


@contextmanager
def _tolerant_of_scripts() -> Iterator[None]:
    """Silence about class names in a script that the font lacks: the pages have them right."""
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        yield


def draw(findings: Findings) -> list[Picture]:
    """The figures that the findings have data for."""
    pictures = [_curves(findings)]
    if any(trained.lr_search for trained in findings.networks.values()):
        pictures.append(_search(findings))
    return [*pictures, _confusion(findings), _reliability(findings)]


def draw_samples(findings: Findings, samples: list[Sample]) -> Picture:
    """The contact sheet of sample images."""
    logits = [trained.selected_test_logits for trained in findings.networks.values()]
    count, total = int(disagreements(logits).sum()), len(findings.dataset.test)
    return Picture(
        "samples",
        "Where they disagree",
        f"{len(samples)} test images with what each network said of them; the table has the same in words.",
        f"On {count:,} of {total:,} test images the networks do not all decide the same. Shown are the first "
        "of these; where there are fewer than twelve, images follow that one of them got wrong, then any. "
        "With each image: a tick or a cross, the network, its decision, and its confidence.",
        plots.contact_sheet(samples),
    )


def _curves(findings: Findings) -> Picture:
    best = [
        f"{stage} {findings.summary[stage]['selected']['val']['accuracy']:.2%}"
        + (f" in epoch {trained.selected['epoch']}" if trained.history else "")
        for stage, trained in findings.networks.items()
    ]
    return Picture(
        "curves",
        "Learning curves",
        f"Validation accuracy and training loss by epoch. Selected: {', '.join(best)}.",
        "The selected epoch is the best on validation. Losses of different objectives have different scales: "
        "compare their shapes, not their heights.",
        plots.learning_curves(findings.networks),
    )


def _search(findings: Findings) -> Picture:
    rates = [f"{stage} {trained.learning_rate:g}" for stage, trained in findings.networks.items() if trained.lr_search]
    return Picture(
        "lr_search",
        "Learning-rate search",
        f"Validation accuracy by learning rate. Chosen: {', '.join(rates)}.",
        "Short trainings, the best on validation wins. The student's rate is searched without the teacher, "
        "and serves the baseline too.",
        plots.lr_search_curve(findings.networks),
    )


def _confusion(findings: Findings) -> Picture:
    logits = {stage: trained.selected_test_logits for stage, trained in findings.networks.items()}
    return Picture(
        "confusion",
        "What is taken for what",
        f"Confusion matrices of {', '.join(logits)} on the test split.",
        "Rows are targets, columns decisions; a shade is the share of its row, on a scale that brings out "
        "rare mistakes. Numbers, where there is room, count images.",
        plots.confusion_matrices(logits, findings.dataset.test.targets.cpu(), findings.dataset.classes),
    )


def _reliability(findings: Findings) -> Picture:
    logits = {stage: trained.selected_test_logits for stage, trained in findings.networks.items()}
    errors = [f"{stage} {findings.summary[stage]['selected']['test']['ece']:.3f}" for stage in logits]
    return Picture(
        "reliability",
        "Can the confidence be believed?",
        f"Accuracy against confidence on the test split. Expected calibration error: {', '.join(errors)}.",
        "On the dashed line, confidence is as high as accuracy; below it, a network is surer than it is "
        "right. The bars say how many of the images fall into each bin: a point over a low bar rests on few.",
        plots.reliability_diagrams(logits, findings.dataset.test.targets.cpu()),
    )
