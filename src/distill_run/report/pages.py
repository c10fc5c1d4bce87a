"""The report for people: report.html, one file that needs nothing else, and report.md with its plots."""

import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from distill_run.report import facts
from distill_run.report.samples import pick_samples
from distill_run.report.summary import Findings
from distill_run.store import write_text

MARKDOWN_SIGNS = re.compile(r"([\\`*\[\]<>|~$&#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")  # a_b needs no escape


def write_pages(findings: Findings) -> None:
    """Write report.md, report.html and plots/*.png into the run's directory, each whole or not at all."""
    from distill_run.report import pictures  # here, so that a run starts without matplotlib

    samples = pick_samples(findings)
    figures, sheet = pictures.draw(findings), pictures.draw_samples(findings, samples)
    for picture in (*figures, sheet):
        picture.save(findings.run_dir / "plots")
    content = {**_content(findings), "figures": figures, "sheet": sheet, "samples": samples}
    templates = _templates()
    for name in ("report.md", "report.html"):
        write_text(findings.run_dir / name, templates.get_template(name).render(content))


def _content(findings: Findings) -> dict[str, Any]:
    """What both pages say."""
    return {
        "summary": findings.summary,
        "title": facts.title(findings),
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


def _templates() -> Environment:
    """HTML escapes by itself whatever it is given; Markdown asks with the filters `text` and `code`."""
    environment = Environment(
        loader=PackageLoader("distill_run.report"),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(text=markdown_text, code=markdown_code)
    return environment


def markdown_text(value: object) -> str:
    """A text that Markdown shows as it is, on one line, in a table too."""
    return MARKDOWN_SIGNS.sub(r"\\\1", " ".join(str(value).split()))


def markdown_code(value: object, language: str = "") -> str:
    """A fenced block; the fence is longer than any row of backticks in it."""
    text = str(value).rstrip("\n")
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
