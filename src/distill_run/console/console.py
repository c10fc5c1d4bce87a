"""What a person reads on the terminal: lines and tables. Only this module and `displays` import rich."""

import logging
import sys
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console as RichConsole
from rich.markup import escape as escape_markup
from rich.table import Table

from distill_run.errors import Interrupted, forget_stdout
from distill_run.safe_text import for_terminal, hold_any_text

log = logging.getLogger("distill_run")

COLUMN_GAP = 2  # between two columns of a table
PLAIN_WIDTH = 400  # columns in a file or a pipe: wide enough for the tables


def escape(text: str) -> str:
    """The text as it is shown whatever it holds: signs of rich's markup, and those that would control a terminal."""
    return escape_markup(for_terminal(text))


class _Terminal(RichConsole):
    def on_broken_pipe(self) -> None:
        """End as after Ctrl-C where nobody reads any more, as after `| head`: what was done is kept."""
        forget_stdout()
        raise Interrupted


class Console:
    """Writes lines and tables to stdout, and the lines to the log as well.

    A quiet console writes to the log only. The points of a sweep have one: the sweep's display shows their progress.
    One for stderr is for commands whose stdout is data.
    """

    def __init__(self, *, quiet: bool = False, stderr: bool = False) -> None:
        # A notebook gets plain lines, as a file does: rich would make each of them an output of its own, and a
        # notebook's stdout says that it is a terminal, but does not move a cursor.
        is_terminal = False if RichConsole().is_jupyter else None  # None: the file says it
        file = sys.stderr if stderr else sys.stdout
        hold_any_text(file)
        self.rich = _Terminal(
            file=file,
            highlight=False,
            soft_wrap=True,
            quiet=quiet,
            force_jupyter=False,
            force_terminal=is_terminal,
        )
        if not self.rich.is_terminal:
            self.rich.width = PLAIN_WIDTH

    @property
    def is_live(self) -> bool:
        """Whether a line can be overwritten."""
        return self.rich.is_terminal and not self.rich.quiet

    def note(self, text: str) -> None:
        """Write a line."""
        log.info(for_terminal(text))
        self.rich.print(escape(text))

    def warn(self, text: str) -> None:
        """Write a warning."""
        log.warning(for_terminal(text))
        self.rich.print(f"[bold yellow]warning:[/] {escape(text)}")

    def table(
        self, headings: Sequence[str], rows: Sequence[Sequence[str]], num_texts: int, spare: Sequence[str] = ()
    ) -> None:
        """Show a table. The first `num_texts` columns are texts, the others are figures and stand to the right.

        `spare` are the headings of the columns that a narrow terminal leaves out, the least important one first. Where
        the others are still too wide, each row is shown as lines.
        """
        self.rich.print()
        kept = fitting_columns(headings, rows, spare, self.rich.width)
        if kept is None:
            for row in rows:
                lines = [f"{heading} {cell}".strip() for heading, cell in zip(headings, row, strict=True)]
                self.rich.print(escape("\n".join(lines)) + "\n")
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for index in kept:
            table.add_column(escape(headings[index]), justify="left" if index < num_texts else "right", no_wrap=True)
        for row in rows:
            table.add_row(*(escape(row[index]) for index in kept))
        self.rich.print(table)

    def conclude(self, sentence: str) -> None:
        """Write the one sentence that people should remember."""
        log.info(sentence)
        self.rich.print()
        self.rich.print(f"[bold]{escape(sentence)}[/]")
        self.rich.print()


def fitting_columns(
    headings: Sequence[str], rows: Sequence[Sequence[str]], spare: Sequence[str], width: int
) -> list[int] | None:
    """The columns that stand beside each other in a `width`; `spare` ones are left out, in turn, until they fit.

    None where the others are still too wide.
    """
    widths = [max(map(cell_len, cells)) for cells in zip(headings, *rows, strict=True)]
    kept = list(range(len(headings)))
    for heading in (*spare, None):
        if sum(widths[index] for index in kept) + COLUMN_GAP * (len(kept) - 1) <= width:
            return kept
        if heading is not None:
            kept.remove(headings.index(heading))
    return None
