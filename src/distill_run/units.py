"""Numbers and paths in the form that people read, on the console and in reports."""

from collections.abc import Sequence
from pathlib import Path
from unicodedata import category

NONE = "\N{EN DASH}"  # shown where there is no number
MAX_LABEL_LENGTH = 14  # characters of a name in a figure


def quantity(number: float) -> str:
    """A number in thousands, millions, billions or trillions, to three digits: 1.23M."""
    for unit in ("", "k", "M", "G"):
        if number < 999.5:  # 999.5 is rounded to 1000, which has four digits
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g}T"


def counted(number: int, what: str) -> str:
    """A number of things: 1 file, 2,000 files."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """A time span, such as 4.1s, 3:07 (minutes) or 2:05:00 (hours)."""
    if round(seconds, 1) < 10:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def three_digits(number: float) -> str:
    """A number as it is measured, to three digits: 0.0491, 3.59, 108,000."""
    return f"{number:.3g}" if number < 999.5 else f"{float(f'{number:.3g}'):,.0f}"


def age(seconds: float) -> str:
    """How long ago something was, in one unit: 5 min, 3 h, 12 days."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def shown_path(path: Path) -> str:
    """A path as a user types it: relative if it is inside the working directory."""
    absolute = path.resolve()
    here = Path.cwd()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)


def printable(text: str) -> str:
    """A text in which control characters, and bytes of a name that are not UTF-8, are written as \\x09 or \\xe9."""
    if text.isprintable():
        return text
    return "".join(f"\\x{ord(char) & 0xFF:02x}" if category(char) in ("Cc", "Cs") else char for char in text)


def percent(share: float | None) -> str:
    """A fraction in percent, such as 97.20%."""
    return NONE if share is None else f"{share:.2%}"


def whole_percent(share: float) -> str:
    """A fraction in whole percent, such as 45%."""
    return f"{round(share, 2) + 0.0:.0%}"  # -0.0 + 0.0 is 0.0


def change(difference: float | None) -> str:
    """A difference of fractions in percentage points: +1.20."""
    return NONE if difference is None else f"{round(100 * difference, 2) + 0.0:+.2f}"  # -0.0 + 0.0 is 0.0


def p_value(value: float | None) -> str:
    """A p-value to two digits; very small ones are not told apart."""
    if value is None:
        return NONE
    return "<0.001" if value < 0.001 else f"{value:.2g}"


def with_spread(shown: str, sd: float | None) -> str:
    """A mean as it is shown, with its standard deviation in percentage points: 97.20% ± 0.45."""
    return shown if sd is None else f"{shown} ± {100 * sd:.2f}"


def rounded(values: Sequence[float]) -> list[float]:
    """Numbers to four digits after the point."""
    return [round(value, 4) for value in values]


def shorten(text: str, max_length: int = MAX_LABEL_LENGTH) -> str:
    """A text of at most `max_length` characters; one that is longer ends in an ellipsis."""
    return text if len(text) <= max_length else text[: max_length - 1] + "…"
