"""How a report's pages are set: their templates, what Markdown must escape, and a key figure's tile."""

import re
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

MARKDOWN_SIGNS = re.compile(r"([\\`*\[\]<>|~$&#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")  # a_b needs no escape


@dataclass(frozen=True)
class Tile:
    """One key figure: what it is, its value, and what it is measured against."""

    label: str
    value: str
    note: str


@cache  # a sweep's points compile them once
def templates() -> Environment:
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
