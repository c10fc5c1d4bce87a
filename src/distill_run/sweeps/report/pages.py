"""A sweep's report: sweep.json and sweep.csv for programs, sweep.html, sweep.md and a plot for people."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill_run.files import write_json, write_text
from distill_run.report.typesetting import templates
from distill_run.sweeps.grouping import gather_sweep
from distill_run.sweeps.points import find_runs, read_point
from distill_run.sweeps.report import facts as sweep_facts
from distill_run.sweeps.report.answers import answers
from distill_run.sweeps.report.summary import summarise_sweep, to_csv


def write_sweep_report(directories: Sequence[Path], output: Path) -> dict[str, Any]:
    """Read all runs below the directories, write their common report into `output`, return the content of sweep.json.

    Only files are read, so that it can be asked for at any time, also while the sweep goes on. The format of the
    content is told by sweep_summary.summarise_sweep.
    """
    points = [read_point(run_dir) for run_dir in find_runs(directories)]
    content = summarise_sweep(gather_sweep(directories, points), output)
    write_json(output / "sweep.json", content)
    write_text(output / "sweep.csv", to_csv(content))
    _write_pages(content, output)
    return content


def _write_pages(content: Mapping[str, Any], output: Path) -> None:
    from distill_run.sweeps.report.pictures import draw_sweep  # here, so that nothing else needs matplotlib

    picture = draw_sweep(content)
    if picture is not None:
        picture.save(output / "plots")
    shown = {
        "content": content,
        "title": sweep_facts.title(content),
        "conclusion": content["conclusion"],
        "labels": sweep_facts.labels(content),
        "tiles": sweep_facts.tiles(content),
        "answers": answers(content),
        "settings": sweep_facts.settings_table(content),
        "troubles": sweep_facts.troubles_table(content),
        "runs": sweep_facts.runs_table(content),
        "max_open_rows": sweep_facts.MAX_OPEN_ROWS,
        "figure": picture,
    }
    environment = templates()
    for name in ("sweep.md", "sweep.html"):
        write_text(output / name, environment.get_template(name).render(shown))
