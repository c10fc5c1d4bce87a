"""What model_card.md says of the student beside what the other pages say: for whoever is given its weights."""

from typing import Any

import yaml

from distill_run.config.schema import RecipeSettings
from distill_run.errors import show
from distill_run.report import facts
from distill_run.report.answers import teacher_origin
from distill_run.report.cells import speed_figures
from distill_run.report.chance import accuracy_interval, wilson_interval
from distill_run.report.classes import changed_classes, worst_first
from distill_run.report.run_report import RunReport
from distill_run.report.summary import Findings
from distill_run.report.tables import tables
from distill_run.units import counted, percent, rounded

# Rows of the report's table of networks, by their labels in facts.ROWS.
ROWS = ("Test accuracy", "95% interval", "Balanced accuracy", "Macro F1", "Top-5 accuracy", "Parameters",
        "Multiply-adds per image", "Size of the weights")  # fmt: skip
CARD_STUDENT = "student.pt"  # whoever is given it has it in a folder of their own
FEW_IMAGES = 30  # of a class: the interval of its recall is then up to 36 percentage points wide
MAX_NAMED_CLASSES = 5


def card_content(findings: Findings) -> dict[str, Any]:
    """What the template of the model card shows beside the content of the pages."""
    return {
        "front_matter": front_matter(),
        "in_plain_words": findings.report.in_plain_words,
        "card_rows": card_rows(findings.report),
        "card_tables": list(tables(findings.report).values()),
        "preprocessing": preprocessing(findings),
        "teacher": teacher_origin(findings.report),
        "content": findings.report.dataset.content,
        "objective": ", ".join(facts.labels(findings.report)),
        "recipe": recipe(findings.settings.training.student),
        "card_loading_code": facts.loading_code(findings, CARD_STUDENT),
        "limits": limits(findings.report),
    }


def card_rows(report: RunReport) -> list[tuple[str, list[str]]]:
    """The rows of the report's table of networks that matter to whoever uses the student."""
    wanted = {*ROWS, *(figure.label for figure in speed_figures(report.student.speed))}
    return [row for row in facts.table(report) if row[0] in wanted]


def front_matter() -> str:
    """The metadata at the top of the card, as YAML, in the form that hubs of models read. The licence is left open."""
    tags = ["image-classification", "knowledge-distillation", "pytorch"]
    known = {"library_name": "distill-run", "pipeline_tag": tags[0], "tags": tags, "metrics": ["accuracy"]}
    return yaml.safe_dump(known, sort_keys=False)


def preprocessing(findings: Findings) -> str:
    """What is done to an image before the student sees it."""
    feed, network = findings.feed, findings.networks["student"].own_network
    channels, height, width = feed.test.shape
    mean, std = (rounded(values.flatten().tolist()) for values in (network.mean, network.std))
    crop = (
        f"the centre of a photograph, {feed.crop_ratio:.1%} of it, is resized to that; " if feed.crop_ratio < 1 else ""
    )
    return (
        f"Images of {counted(channels, 'channel')} and {height} by {width} pixels, with values from 0 to 1: {crop}the "
        f"network itself subtracts the mean {mean} and divides by the standard deviation {std} of each channel."
    )


def recipe(settings: RecipeSettings) -> str:
    """How the student was trained, by the keys of the configuration."""
    found = [f"epochs {settings.epochs}", f"batch size {settings.batch_size}"]
    for component in (settings.optimizer, settings.schedule):
        keys = ", ".join(f"{key} {show(value)}" for key, value in component.items() if not key.startswith("_"))
        found.append(f"{component['_target_'].rpartition('.')[2]} ({keys})")
    for key in ("label_smoothing", "mixup", "cutmix", "clip_norm", "ema"):
        if getattr(settings, key):
            found.append(f"{key} {show(getattr(settings, key))}")
    return ", ".join(found)


def limits(report: RunReport) -> list[str]:
    """What the student should not be trusted with, as far as the figures of the run tell."""
    accuracy, size = report.student.selected.test.accuracy, report.dataset.test_size
    low, high = accuracy_interval(accuracy, size)
    found = [
        f"It was tested on {counted(size, 'image')}: other images of the same kind may give an accuracy between "
        f"{low:.1%} and {high:.1%}. Images of another kind were not tried.",
        f"It gives every image one of its {report.dataset.num_classes:,} classes, also one that shows none.",
        *_weak_classes(report),
        *_worst_corruption(report),
    ]
    if report.baseline is not None:
        found.append(f"Beside the same network without a teacher: {changed_classes(report)}")
    if len(report.repeats) < 2:
        found.append("One training only: how much depends on its random start is not known.")
    return [*found, *report.failures, *report.warnings]


def _weak_classes(report: RunReport) -> list[str]:
    """The classes that the student knows less than the others, and those of which too few images tell that."""
    overall, weak, unsure = report.student.selected.test.accuracy, [], []
    for each in worst_first(report):
        recall = each.scores["student"].recall
        if each.test_images < FEW_IMAGES:
            unsure.append(f"{each.name} ({each.test_images})")
        if recall is None:
            continue
        num_right, num_classes = round(recall * each.test_images), report.dataset.num_classes
        if wilson_interval(num_right, each.test_images, num_classes)[1] < overall:
            weak.append(f"{each.name} ({percent(recall)})")
    found = []
    if weak:
        found.append(f"It recognises clearly less of these classes than of all images: {_named(weak)}.")
    if unsure:
        found.append(f"These classes have too few test images to tell how well it knows them: {_named(unsure)}.")
    return found


def _named(classes: list[str]) -> str:
    more = len(classes) - MAX_NAMED_CLASSES
    return ", ".join(classes[:MAX_NAMED_CLASSES]) + (f" and {more} more" if more > 0 else "")


def _worst_corruption(report: RunReport) -> list[str]:
    """The corruption that the student bears worst."""
    if report.robustness is None:
        return ["How it bears noise, blur, weak contrast and JPEG compression was not measured."]
    worst, accuracies = min(report.robustness.corrupted.items(), key=lambda each: each[1]["student"][-1])
    return [
        f"Of the corruptions that were tried, it bears {worst} worst: {percent(accuracies['student'][-1])} at the "
        f"strongest, {percent(report.robustness.clean['student'])} without."
    ]
