"""A sweep's report: sweep.json and sweep.csv for programs, sweep.html, sweep.md and a plot for people."""

from collections.abc import Sequence
from pathlib import Path

from distill_run.files import write_text
from distill_run.report.typesetting import Head, write_templates
from distill_run.sweeps.grouping import gather_sweep
from distill_run.sweeps.points import Point, read_points
from distill_run.sweeps.report import facts, tables
from distill_run.sweeps.report.answers import answers
from distill_run.sweeps.report.summary import summarise_sweep
from distill_run.sweeps.report.sweep_report import SweepReport, write_sweep_json


def write_sweep_report(directories: Sequence[Path], output: Path) -> SweepReport:
    """Read all runs below the directories, write their report into `output`, and return it.

    Only files are read, so that this can be done at any time, also while the sweep is running.
    """
    return report_points(read_points(directories), directories, output)


def report_points(points: Sequence[Point], directories: Sequence[Path], output: Path) -> SweepReport:
    """Write the report of runs that are read already, and return it."""
    report = summarise_sweep(gather_sweep(directories, points), output)
    write_sweep_json(report, output)
    write_text(output / tables.RUNS_FILE, tables.to_csv(report))
    _write_pages(report, output)
    return report


def read_sweep(directories: Sequence[Path], output: Path) -> SweepReport:
    """The report of all runs below the directories, as it would stand in `output`; nothing is written."""
    return summarise_sweep(gather_sweep(directories, read_points(directories)), output)


def _write_pages(report: SweepReport, output: Path) -> None:
    from distill_run.sweeps.report.pictures import draw  # here, so that nothing else needs matplotlib

    figures = draw(report)
    for picture in figures:
        picture.save(output / "plots")
    head = Head(
        title=facts.title(report),
        conclusion=report.conclusion,
        labels=facts.labels(report),
        warnings=report.warnings,
        tiles=facts.tiles(report),
        answers=answers(report),
    )
    settings = tables.settings_table(report)
    content = {
        "report": report,
        "figures": figures,
        "settings": settings,
        "has_results": any(setting.replicates for setting in report.settings),
        "has_changes": any(setting.figure("difference") is not None for setting in report.settings),
        "has_p": tables.P_HEADING in settings.headings,
        "troubles": tables.troubles_table(report),
        "runs": tables.runs_table(report),
    }
    write_templates([output / "sweep.md", output / "sweep.html"], head, content)
