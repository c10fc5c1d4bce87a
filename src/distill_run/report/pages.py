"""A run's report for people: report.html, one file that needs nothing else, report.md with its plots, model_card.md."""

from typing import Any

from distill_run.engine.selection import FIGURE_NAMES
from distill_run.files import RunFiles
from distill_run.report import facts
from distill_run.report.answers import answers
from distill_run.report.cells import REPEAT_COLUMNS, repeat_rows
from distill_run.report.classes import MAX_OPEN_CLASSES, NUM_WORST, changed_classes, class_columns, class_rows
from distill_run.report.export_table import COLUMNS, export_rows
from distill_run.report.model_card import card_content
from distill_run.report.plain_words import sentences
from distill_run.report.predictions import write_predictions
from distill_run.report.samples import pick_samples
from distill_run.report.summary import Findings
from distill_run.report.tables import tables
from distill_run.report.typesetting import Head, write_templates


def write_pages(findings: Findings) -> None:
    """Write report.md, report.html, model_card.md, plots/*.png and predictions.csv, each whole or not at all."""
    from distill_run.report import pictures  # here, so that a run starts without matplotlib

    files = RunFiles(findings.report.run_dir)
    write_predictions(findings)
    samples = pick_samples(findings)
    figures, sheet = pictures.draw(findings), pictures.draw_samples(findings, samples)
    for picture in (*figures, sheet):
        picture.save(files.plots)
    figures.append(pictures.training_views(files.views.read_bytes()))
    content = {**_content(findings), **card_content(findings), "figures": figures, "sheet": sheet, "samples": samples}
    write_templates([files.report_md, files.report_page, files.model_card], _head(findings), content)


def _head(findings: Findings) -> Head:
    """The top of the pages."""
    report = findings.report
    return Head(
        title=facts.title(report),
        conclusion=report.conclusion,
        labels=facts.labels(report),
        warnings=report.warnings,
        tiles=facts.tiles(report),
        answers=answers(findings),
        plain=sentences(report),
    )


def _content(findings: Findings) -> dict[str, Any]:
    """What the templates show below the top, but for the pictures."""
    report = findings.report
    student = RunFiles(report.run_dir).student
    return {
        "fidelity": report.fidelity,
        "copying": facts.copying(report),
        "tables": tables(report),
        "networks": report.networks,
        "table": facts.table(report),
        "about_speed": facts.about_speed(report),
        "repeats": repeat_rows(report.repeats, report.means) if len(report.repeats) > 1 and report.means else [],
        "repeat_columns": REPEAT_COLUMNS,
        "shipped_seed": report.shipped_seed,
        "select_by": FIGURE_NAMES[report.select_by],
        "class_columns": class_columns(report),
        "class_rows": class_rows(report),
        "changed_classes": "" if report.baseline is None else changed_classes(report),
        "max_open_classes": MAX_OPEN_CLASSES,
        "num_worst": NUM_WORST,
        "export_columns": COLUMNS,
        "exports": export_rows(report.exports),
        "dataset": facts.dataset(findings),
        "notes": findings.feed.notes,
        "loading_code": facts.loading_code(findings, str(student)),
        "environment": findings.environment,
        "config": findings.config,
    }
