"""The figures of a run's report with their captions. Importing this module imports matplotlib."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont, ImageOps

from distill_run.engine.evaluate import measure
from distill_run.engine.selection import FIGURE_NAMES
from distill_run.report import plots
from distill_run.report.drawing import COLOURS, INK, MUTED, Picture, image_of, render, side_by_side
from distill_run.report.figures import Robustness
from distill_run.report.png import png_of
from distill_run.report.samples import Decision, Sample, disagreements, effects
from distill_run.report.summary import Findings
from distill_run.units import shorten

SHEET_COLUMNS = 3
CELL_SIZE = (560, 190)  # pixels of an image with its texts
PICTURE_SIZE = (160, 160)
MAX_NAME_LENGTH = 32  # characters


def contact_sheet(samples: list[Sample]) -> Image.Image:
    """The images with their targets and each network's decision; a tick is right, a cross is wrong."""
    width, height = CELL_SIZE
    sheet = Image.new("RGB", (width * SHEET_COLUMNS, height * -(-len(samples) // SHEET_COLUMNS)), "white")
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    bold, plain = (ImageFont.truetype(folder / f"DejaVuSans{style}.ttf", 19) for style in ("-Bold", ""))
    small = plain.font_variant(size=14)
    draw = ImageDraw.Draw(sheet)
    for index, sample in enumerate(samples):
        row, column = divmod(index, SHEET_COLUMNS)
        x, y = column * width + 15, row * height + 15
        sheet.paste(ImageOps.contain(sample.picture, PICTURE_SIZE, Image.Resampling.NEAREST), (x, y))
        x += PICTURE_SIZE[0] + 15
        draw.text((x, y), f"target: {shorten(sample.target)}", INK, bold)
        for line, decision in enumerate(sample.decisions, start=1):
            draw.text((x, y + 37 * line), decision_text(decision), COLOURS[decision.stage], plain)
        draw.text((x, y + 148), " · ".join(filter(None, (sample.effect, name_end(sample.name)))), MUTED, small)
    return sheet


def name_end(name: str) -> str:
    """The end of an image's path, which tells it apart, or its index; short enough for the sheet."""
    return f"image {name}" if len(name) <= MAX_NAME_LENGTH else f"…{name[1 - MAX_NAME_LENGTH :]}"


def decision_text(decision: Decision) -> str:
    """A network's decision in one line."""
    mark = "✓" if decision.is_right else "✗"
    return f"{mark} {decision.stage}: {shorten(decision.answer)} ({decision.confidence:.0%})"


def draw(findings: Findings) -> list[Picture]:
    """The figures for which there are data."""
    pictures = [_curves(findings)]
    if any(trained.lr_search for trained in findings.networks.values()):
        pictures.append(_search(findings))
    robustness = findings.report.robustness
    corrupted = [] if robustness is None else [_robustness(robustness)]
    return [*pictures, _confusion(findings), _reliability(findings), *corrupted]


def draw_samples(findings: Findings, samples: list[Sample]) -> Picture:
    """The contact sheet of sample images."""
    logits = {stage: trained.selected.test_logits for stage, trained in findings.networks.items()}
    count, total = int(disagreements(list(logits.values())).sum()), len(findings.feed.test)
    changes = ""
    if findings.report.baseline is not None:
        worse, mended = map(len, effects(logits, findings.feed.test.targets.cpu()).values())
        changes = (
            f"{'The control' if findings.report.is_control else 'Distillation'} made {worse:,} worse (the baseline is "
            f"right, the student wrong) and mended {mended:,} (the other way round): these are shown first. "
        )
    return Picture(
        "samples",
        "Where the networks disagree",
        f"{len(samples)} test images with the decision of each network. The table has the same in words.",
        f"The networks disagree on {count:,} of {total:,} test images. {changes}The classes take turns. Where there "
        "are fewer than twelve, images follow that a network got wrong, then any others. Each line has a tick (right) "
        "or a cross (wrong), the network, its decision, and its confidence. predictions.csv has all test images.",
        png_of(contact_sheet(samples)),
    )


def training_views(png: bytes) -> Picture:
    """The picture of augmented training images that was drawn before the first epoch."""
    return Picture(
        "views",
        "What the networks were trained on",
        "Training images in columns: the first row as they are, the others augmented, with their classes.",
        "Eight training images, one in each column, below their classes. The first row shows them as they are, each "
        "other row one view: what an epoch serves. If a view hides what an image shows, weaken the augmentation.",
        png,
    )


def _curves(findings: Findings) -> Picture:
    best = [
        f"{stage} {trained.selected.val['accuracy']:.2%}"
        + (f" in epoch {trained.selected.epoch}" if trained.history else "")
        for stage, trained in findings.networks.items()
    ]
    return Picture(
        "curves",
        "Learning curves",
        f"Validation accuracy and training loss by epoch. Selected: {', '.join(best)}.",
        f"The selected epoch is the best on validation, by {_selects(findings)}. The losses of different objectives "
        "have different scales: compare the shapes of the curves, not their heights.",
        render(plots.learning_curves(findings.networks)),
    )


def _selects(findings: Findings) -> str:
    return FIGURE_NAMES[findings.report.select_by]


def _search(findings: Findings) -> Picture:
    rates = [f"{stage} {trained.learning_rate:g}" for stage, trained in findings.networks.items() if trained.lr_search]
    return Picture(
        "lr_search",
        "Learning-rate search",
        f"Validation {_selects(findings)} by learning rate. Chosen: {', '.join(rates)}.",
        "Each mark is a short training; the rate that is best on validation is chosen. The student's rate is searched "
        "without the teacher, and the baseline uses it too.",
        render(plots.lr_search_curve(findings.networks)),
    )


def _confusion(findings: Findings) -> Picture:
    logits = {stage: trained.selected.test_logits for stage, trained in findings.networks.items()}
    return Picture(
        "confusion",
        "Which classes are confused",
        f"Confusion matrices of {', '.join(logits)} on the test split.",
        "Rows are targets, columns are decisions. The shade is the share of the row, on a scale that makes rare "
        "mistakes visible. The numbers count images; they are left out where there are many classes.",
        _panels(findings, "confusion", partial(plots.confusion_matrix, classes=findings.feed.classes)),
    )


def _reliability(findings: Findings) -> Picture:
    logits = {stage: trained.selected.test_logits for stage, trained in findings.networks.items()}
    targets = findings.feed.test.targets.cpu()
    errors = [f"{stage} {measure(each, targets)['ece']:.3f}" for stage, each in logits.items()]
    return Picture(
        "reliability",
        "Is the confidence right?",
        f"Accuracy against confidence on the test split. Expected calibration error: {', '.join(errors)}.",
        "On the dashed line, confidence equals accuracy; below it, a network is too confident. The bars show the share "
        "of the images in each bin: a mark above a low bar stands for few images.",
        _panels(findings, "reliability", plots.reliability_diagram),
    )


def _panels(findings: Findings, name: str, draw: Callable[..., Figure]) -> bytes:
    """A panel for each network, side by side; the next run of the process has those of teacher and baseline at hand."""
    stages = list(findings.networks)
    return png_of(side_by_side([_panel(findings, name, draw, stage, stages) for stage in stages]))


def _panel(findings: Findings, name: str, draw: Callable[..., Figure], stage: str, stages: list[str]) -> Image.Image:
    trained, targets = findings.networks[stage], findings.feed.test.targets.cpu()
    where = {"is_first": stage == stages[0], "is_last": stage == stages[-1]}
    return findings.feed.kept.get(
        (name, stage, trained.fingerprint, *where.values()),
        lambda: image_of(draw(stage, trained.selected.test_logits, targets, **where)),
    )


def _robustness(robustness: Robustness) -> Picture:
    means = [f"{stage} {robustness.mean(stage):.1%}" for stage in robustness.clean]
    return Picture(
        "robustness",
        "Is it robust?",
        f"Accuracy by severity of noise, blur, weak contrast and JPEG compression. Mean: {', '.join(means)}.",
        f"Accuracy on {robustness.images:,} test images that are made worse, as a camera or a network connection may "
        "make them; severity 0 is the images as they are. The severities are those of Hendrycks and Dietterich (2019) "
        "for images of about this size; a blur grows with the image.",
        render(plots.robustness_curves(robustness)),
    )
