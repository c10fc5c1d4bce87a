"""A notebook: cells as on the page on Python, executed in a kernel, with an interruption and what follows it."""

import warnings
from pathlib import Path
from typing import Any

import pytest

from conftest import TINY

CELLS = (
    f"""import distill_run as dr
TINY = {[*TINY, "store_dir=store"]!r}
report = dr.run(dr.compose_config([*TINY, "mode=soft"]))""",
    "report",
    """import os, signal
from distill_run.stages.watcher import Watcher

class Interrupting(Watcher):
    def stepped(self, epoch, step, num_images, loss):
        if epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)

settings = dr.compose_config([*TINY, "mode.temperature=2"])
try:
    dr.run(settings, "outputs/cut", watchers=[Interrupting()])
except KeyboardInterrupt:
    print("interrupted")""",
    """again = dr.run(dr.compose_config(["resume=outputs/cut"]))
print(again.mode["temperature"], again.to_dict() == again.summary)""",
)


def texts(cell: Any) -> dict[str, str]:
    """What a cell has written to each stream."""
    found: dict[str, str] = {}
    for output in cell.outputs:
        if output.output_type == "stream":
            found[output.name] = found.get(output.name, "") + output.text
    return found


@pytest.mark.slow  # a kernel that loads torch
def test_a_notebook_runs_shows_the_report_and_goes_on_after_an_interruption(tmp_path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):  # of Jupyter's packages
        import nbclient
        from nbformat import v4

        make: Any = v4  # which has no types
        notebook = make.new_notebook(cells=[make.new_code_cell(cell) for cell in CELLS])
        client = nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}})
        done = client.execute()
    first, shown, cut, resumed = done.cells
    # Plain lines in one stream: no display of its own for each of them, nothing on stderr.
    assert {output.output_type for output in first.outputs} == {"stream"}
    assert texts(first).keys() == {"stdout"}
    assert "student    epoch   2/2" in texts(first)["stdout"]
    assert "\x1b" not in texts(first)["stdout"]
    (result,) = shown.outputs
    assert "<th>student mlp</th>" in result.data["text/html"]
    assert result.data["text/plain"].startswith("<RunReport of outputs/runs/")
    lines = texts(cut)["stdout"].splitlines()
    assert lines[-2:] == [f"interrupted; to go on: distill-run resume={tmp_path}/outputs/cut", "interrupted"]
    assert texts(resumed)["stdout"].splitlines()[-1] == "2 True"
