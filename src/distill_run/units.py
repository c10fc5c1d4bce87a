"""Numbers as people read them, on the console and in reports."""

NONE = "\N{EN DASH}"  # stands where there is no number


def quantity(number: float) -> str:
    """A number in thousands, millions or billions, to three digits: 1.23M."""
    for unit in ("", "k", "M", "G"):
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g}T"


def duration(seconds: float) -> str:
    """A time span as 4.1s, 3:07 or 2:05:00."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def percent(share: float | None) -> str:
    """A fraction as 97.20%."""
    return NONE if share is None else f"{share:.2%}"


def change(difference: float | None) -> str:
    """A difference of fractions in points: +1.20."""
    return NONE if difference is None else f"{100 * difference:+.2f}"


def with_spread(shown: str, sd: float | None) -> str:
    """A mean of fractions, as it is shown, with its standard deviation in points: 97.20% ± 0.45."""
    return shown if sd is None else f"{shown} ± {100 * sd:.2f}"
