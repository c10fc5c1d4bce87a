"""The README and the pages beside it: their texts, and the commands and files that stand on them."""

import re
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PATHS = [path for path in (CHECKOUT / "README.md", *sorted((CHECKOUT / ".readme").glob("*.md"))) if path.is_file()]
PAGES = {path.relative_to(CHECKOUT).as_posix(): path.read_text(encoding="utf-8") for path in PATHS}
# A command stands in a line of its own, indented, or in a list of tasks.
COMMAND = re.compile(r"^(?:    |- .*: `)(distill-\w+)(?: ((?:[^`\n\\]|\\\n|\\.)*))?`?$", flags=re.MULTILINE)


def commands(name: str) -> list[str]:
    """The arguments of each call of a command on any page, each of them once; a line may go on after a backslash."""
    found: dict[str, None] = {}
    for text in PAGES.values():
        for command, arguments in COMMAND.findall(text):
            if command == name:
                found[arguments.replace("\\\n", " ")] = None
    return list(found)


def command_names() -> set[str]:
    """The commands that stand on any page."""
    return {command for text in PAGES.values() for command, _ in COMMAND.findall(text)}
