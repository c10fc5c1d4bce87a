"""The results of the grid in `defaults`: what a cell gave, whether its defaults work, and the table of the worst."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from distill_run.benchmarks.situations import SEARCH
from distill_run.report.paired import Estimate, paired_difference
from distill_run.units import change, percent

TOLERANCE = 0.03  # of accuracy
NUM_WORST = 10  # rows of the table
HEADINGS = ("cell", "chance", "baseline", "student", "difference (95% interval)", "verdict")


@dataclass(frozen=True)
class Result:
    """A line of results.jsonl: accuracies of baselines and students, one of each for each seed that did not diverge."""

    cell: str
    key: str
    seeds: list[int]
    chance: float
    baselines: list[float]
    students: list[float]
    failures: list[str]

    @property
    def difference(self) -> Estimate | None:
        """Students minus baselines; None where no seed came to its end."""
        return paired_difference(self.students, self.baselines) if self.students else None

    @property
    def problem(self) -> str | None:
        """What is wrong with the defaults here, if anything is."""
        difference = self.difference
        if self.failures:
            kinds = Counter(failure.split(" (")[0] for failure in self.failures)  # without the figures
            return "; ".join(f"{kind} ({number} of {len(self.seeds)} seeds)" for kind, number in kinds.items())
        if difference is None or difference.mean >= -TOLERANCE:
            return None
        points = f"{-100 * difference.mean:.1f} points below"
        if self.cell.endswith(SEARCH):
            return f"{points} the best rate of the search"
        is_beyond_noise = difference.high is not None and difference.high < 0
        return f"{points} its baseline beyond the noise of its seeds" if is_beyond_noise else None

    @property
    def row(self) -> list[str]:
        """Its texts, under HEADINGS."""
        difference, shown = self.difference, percent(None)
        if difference is not None:
            shown = change(difference.mean)
            if difference.low is not None:
                shown += f" ({change(difference.low)} to {change(difference.high)})"
        means = [percent(fmean(values) if values else None) for values in (self.baselines, self.students)]
        return [self.cell, percent(self.chance), *means, shown, self.problem or "ok"]


def markdown(results: Sequence[Result]) -> list[str]:
    """The lines of a table with the worst results first: those that failed, then by the difference."""

    def rank(result: Result) -> tuple[bool, float]:
        return result.problem is None, result.difference.mean if result.difference else 0.0

    rows = [HEADINGS, ("---", *["---:"] * 4, "---"), *(result.row for result in sorted(results, key=rank)[:NUM_WORST])]
    return [f"| {' | '.join(row)} |" for row in rows]
