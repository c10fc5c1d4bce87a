"""How the pages of a report are set: their templates, their head, and what Markdown must escape."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from distill_run.files import write_text

MARKDOWN_SIGNS = re.compile(r"([\\`*\[\]<>|~$&#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")  # a_b needs no escape
MAX_OPEN_ROWS = 30  # of a long list or table; the rest is folded away or counted
MAX_ROWS = 1000  # of a table; a browser would show more of them slowly


@dataclass(frozen=True)
class Tile:
    """One key figure: what it is, its value, and a note."""

    label: str
    value: str
    note: str


@dataclass(frozen=True)
class Head:
    """What every report begins with. `answers` are pairs of a question and its answer.

    `plain` says in plain words what came out: pairs of a sentence and the id of the section with its figures.
    """

    title: str
    conclusion: str
    labels: Sequence[str]
    warnings: Sequence[str]
    tiles: Sequence[Tile]
    answers: Sequence[tuple[str, str]]
    plain: Sequence[tuple[str, str]] = ()


def write_templates(paths: Sequence[Path], head: Head, content: Mapping[str, Any]) -> None:
    """Write each page from the template that has its file's name, whole or not at all."""
    for path in paths:
        write_page(path, path.name, head, content)


def write_page(path: Path, template: str, head: Head, content: Mapping[str, Any]) -> None:
    """Write one page from a template, whole or not at all."""
    shown = {**content, "name": path.stem, "head": head, "max_open_rows": MAX_OPEN_ROWS, "max_rows": MAX_ROWS}
    text = templates().get_template(template).render(shown)
    # Names of files may hold bytes that are no UTF-8: a page shows that they are there.
    write_text(path, text.encode(errors="surrogateescape").decode(errors="replace"))


@cache  # a sweep's points compile them once
def templates() -> Environment:
    """The templates. HTML escapes every value by itself; Markdown asks for it with the filters `text` and `code`."""
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
    """A fenced block; the fence is longer than any row of backticks in the text."""
    text = str(value).rstrip("\n")
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
