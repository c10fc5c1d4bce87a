"""The figures of a report, each with what it shows in words. Importing this module imports matplotlib."""

from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont, ImageOps

from distill_run.report import plots
from distill_run.report.drawing import COLOURS, INK, Picture, png, render, shorten
from distill_run.report.samples import Decision, Sample, disagreements
from distill_run.report.summary import Findings

SHEET_COLUMNS = 3
CELL_SIZE = (560, 190)  # pixels, of a picture with its texts
PICTURE_SIZE = (160, 160)


def contact_sheet(samples: list[Sample]) -> Image.Image:
    """The images with their targets and what each network said; a tick is right, a cross is wrong."""
    width, height = CELL_SIZE
    sheet = Image.new("RGB", (width * SHEET_COLUMNS, height * -(-len(samples) // SHEET_COLUMNS)), "white")
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    bold, plain = (ImageFont.truetype(folder / f"DejaVuSans{style}.ttf", 19) for style in ("-Bold", ""))
    draw = ImageDraw.Draw(sheet)
    for index, sample in enumerate(samples):
        row, column = divmod(index, SHEET_COLUMNS)
        x, y = column * width + 15, row * height + 15
        sheet.paste(ImageOps.contain(sample.picture, PICTURE_SIZE, Image.Resampling.NEAREST), (x, y))
        x += PICTURE_SIZE[0] + 15
        draw.text((x, y), f"target: {shorten(sample.target)}", INK, bold)
        for line, decision in enumerate(sample.decisions, start=1):
            draw.text((x, y + 37 * line), said(decision), COLOURS[decision.stage], plain)
    return sheet


def said(decision: Decision) -> str:
    """A network's decision in a line."""
    mark = "✓" if decision.is_right else "✗"
    return f"{mark} {decision.stage}: {shorten(decision.answer)} ({decision.confidence:.0%})"


def draw(findings: Findings) -> list[Picture]:
    """The figures that the findings have data for."""
    pictures = [_curves(findings)]
    if any(trained.lr_search for trained in findings.networks.values()):
        pictures.append(_search(findings))
    return [*pictures, _confusion(findings), _reliability(findings)]


def draw_samples(findings: Findings, samples: list[Sample]) -> Picture:
    """The contact sheet of sample images."""
    logits = [trained.selected.test_logits for trained in findings.networks.values()]
    count, total = int(disagreements(logits).sum()), len(findings.dataset.test)
    return Picture(
        "samples",
        "Where they disagree",
        f"{len(samples)} test images with what each network said of them; the table has the same in words.",
        f"On {count:,} of {total:,} test images the networks do not all decide the same. Shown are the first "
        "of these; where there are fewer than twelve, images follow that one of them got wrong, then any. "
        "With each image: a tick or a cross, the network, its decision, and its confidence.",
        png(contact_sheet(samples)),
    )


def _curves(findings: Findings) -> Picture:
    best = [
        f"{stage} {findings.summary[stage]['selected']['val']['accuracy']:.2%}"
        + (f" in epoch {trained.selected.epoch}" if trained.history else "")
        for stage, trained in findings.networks.items()
    ]
    return Picture(
        "curves",
        "Learning curves",
        f"Validation accuracy and training loss by epoch. Selected: {', '.join(best)}.",
        "The selected epoch is the best on validation. Losses of different objectives have different scales: "
        "compare their shapes, not their heights.",
        render(plots.learning_curves(findings.networks)),
    )


def _search(findings: Findings) -> Picture:
    rates = [f"{stage} {trained.learning_rate:g}" for stage, trained in findings.networks.items() if trained.lr_search]
    return Picture(
        "lr_search",
        "Learning-rate search",
        f"Validation accuracy by learning rate. Chosen: {', '.join(rates)}.",
        "Short trainings, the best on validation wins. The student's rate is searched without the teacher, "
        "and serves the baseline too.",
        render(plots.lr_search_curve(findings.networks)),
    )


def _confusion(findings: Findings) -> Picture:
    logits = {stage: trained.selected.test_logits for stage, trained in findings.networks.items()}
    return Picture(
        "confusion",
        "What is taken for what",
        f"Confusion matrices of {', '.join(logits)} on the test split.",
        "Rows are targets, columns decisions; a shade is the share of its row, on a scale that brings out "
        "rare mistakes. Numbers, where there is room, count images.",
        render(plots.confusion_matrices(logits, findings.dataset.test.targets.cpu(), findings.dataset.classes)),
    )


def _reliability(findings: Findings) -> Picture:
    logits = {stage: trained.selected.test_logits for stage, trained in findings.networks.items()}
    errors = [f"{stage} {findings.summary[stage]['selected']['test']['ece']:.3f}" for stage in logits]
    return Picture(
        "reliability",
        "Can the confidence be believed?",
        f"Accuracy against confidence on the test split. Expected calibration error: {', '.join(errors)}.",
        "On the dashed line, confidence is as high as accuracy; below it, a network is surer than it is "
        "right. The bars are the share of the images that falls into each bin: a point over a low bar rests on few.",
        render(plots.reliability_diagrams(logits, findings.dataset.test.targets.cpu())),
    )
