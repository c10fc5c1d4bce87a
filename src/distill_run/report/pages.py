"""The report for people: report.html, one file that needs nothing else, and report.md with its plots."""

from typing import Any

from distill_run.files import write_text
from distill_run.report import facts
from distill_run.report.samples import pick_samples
from distill_run.report.summary import Findings
from distill_run.report.typesetting import templates


def write_pages(findings: Findings) -> None:
    """Write report.md, report.html and plots/*.png into the run's directory, each whole or not at all."""
    from distill_run.report import pictures  # here, so that a run starts without matplotlib

    samples = pick_samples(findings)
    figures, sheet = pictures.draw(findings), pictures.draw_samples(findings, samples)
    for picture in (*figures, sheet):
        picture.save(findings.run_dir / "plots")
    content = {**_content(findings), "figures": figures, "sheet": sheet, "samples": samples}
    environment = templates()
    for name in ("report.md", "report.html"):
        write_text(findings.run_dir / name, environment.get_template(name).render(content))


def _content(findings: Findings) -> dict[str, Any]:
    """What both pages say."""
    return {
        "summary": findings.summary,
        "title": facts.title(findings),
        "conclusion": findings.summary["conclusion"],
        "labels": facts.labels(findings),
        "tiles": facts.tiles(findings),
        "answers": facts.answers(findings),
        "stages": facts.stages(findings),
        "table": facts.table(findings),
        "dataset": facts.dataset(findings),
        "notes": findings.dataset.notes,
        "loading_code": facts.loading_code(findings),
        "environment": findings.environment,
        "config": findings.config,
    }
