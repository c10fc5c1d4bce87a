"""`distill-report --watch`: what the page shows while runs go on, and what the server keeps to itself."""

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import InProcess
from distill_run.commands import installed, watch
from distill_run.sweeps.points import Point, read_point
from distill_run.sweeps.report import live
from distill_run.sweeps.report.live import LiveReport
from helpers import Page
from sweeps import write_run

REFRESH = {"http-equiv": "refresh", "content": "5"}


def write_epochs(run_dir: Path, accuracies: list[float], stage: str = "teacher") -> None:
    rows = [{"stage": stage, "epoch": n, "val": {"accuracy": value}} for n, value in enumerate(accuracies, 1)]
    (run_dir / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def test_a_run_in_progress_shows_its_epochs_and_then_its_report(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", status="running")
    growing = LiveReport([run_dir], run_dir)
    first = growing.page()
    assert REFRESH in Page(first).all("meta")
    assert "preparing (still running, or killed)" in Page(first).text
    write_epochs(run_dir, [0.25, 0.5])
    page = Page(growing.page())
    assert "teacher epoch 2, val 50.00%" in page.text
    # The second of two epochs stands to the right; an accuracy of a half in the middle of a picture of 320 x 100.
    assert [line["points"] for line in page.all("polyline")] == ["160.0,75.0 320.0,50.0"]
    assert sorted(path.name for path in run_dir.iterdir()) == ["environment.json", "metrics.jsonl", "status.json"]
    done = write_run(tmp_path / "done")
    (done / "report.html").write_text("<p>the report</p>")
    assert LiveReport([done], done).page() == "<p>the report</p>"


def test_a_sweep_is_reported_again_when_a_run_has_changed(tmp_path: Path) -> None:
    write_run(tmp_path / "0", ["mode.alpha=0.1"], test=0.625)
    running = write_run(tmp_path / "1", ["mode.alpha=0.9"], status="running")
    write_epochs(running, [0.75], "student")
    growing = LiveReport([tmp_path], tmp_path)
    page = Page(growing.page())
    assert REFRESH in page.all("meta")
    assert "student epoch 1, val 75.00%" in page.text
    file = (tmp_path / "sweep.html").read_text()
    assert "refresh" not in file
    assert "In progress" not in file
    assert growing.page() is growing.page()  # nothing has changed
    (running / "status.json").write_text('{"status": "failed", "error": "no paper"}')
    page = Page(growing.page())
    assert "In progress" not in page.text
    assert "no paper" in page.text


def test_only_the_runs_that_have_changed_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        write_run(tmp_path / str(number), [f"mode.alpha=0.{number}"], status="running")
    read: list[str] = []

    def reading(run_dir: Path) -> Point:
        read.append(run_dir.name)
        return read_point(run_dir)

    monkeypatch.setattr(live, "read_point", reading)
    monkeypatch.setattr(live, "MAX_OPEN_ROWS", 2)
    report = LiveReport([tmp_path], tmp_path)
    text = Page(report.page()).text
    assert "These are the last 2 of 3 runs that are not completed." in text
    assert read == ["0", "1", "2"]
    (tmp_path / "1" / "status.json").write_text('{"status": "failed", "error": "no paper"}')
    assert "no paper" in report.page()
    assert read == ["0", "1", "2", "1"]


@contextmanager
def served(folder: Path) -> Iterator[http.client.HTTPConnection]:
    server = watch.make_server([folder], folder, 0)
    assert server.server_address[0] == "127.0.0.1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield http.client.HTTPConnection("127.0.0.1", server.server_port)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_only_the_report_is_served_and_only_to_this_machine(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    write_run(folder / "0")
    (folder / "0" / "report.html").write_text("of a run")
    (folder / "0" / "student.pt").write_text("weights")
    (tmp_path / "secret.html").write_text("secret")
    (folder / "out.html").symlink_to(tmp_path / "secret.html")

    def ask(path: str, host: str = "localhost") -> tuple[int, str]:
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    with served(folder) as connection:
        status, page = ask("/?again")
        assert status == 200
        assert "distill-run" in page
        assert ask("/0/report.html") == (200, "of a run")
        outside = [
            "/../secret.html",
            "/%2e%2e/secret.html",
            "/out.html",
            "//etc/hosts.html",
            "/0/student.pt",
            "/0/",
            "/%00",
        ]
        assert {ask(path)[0] for path in outside} == {404}
        assert ask("/", host="elsewhere.example")[0] == 403
        assert ask("/", host="127.0.0.1:8000")[0] == 200


def test_ctrl_c_ends_the_command_with_one_line(
    in_process: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = write_run(tmp_path / "run")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("http.server.ThreadingHTTPServer.serve_forever", interrupted)
    status, out, err = in_process(installed.report, "distill-report", str(run_dir), "--watch", "--port", "0")
    begun, ended = out.splitlines()
    assert (status, err, ended) == (0, "", "the report is served no longer")
    assert begun.startswith("the report is at http://127.0.0.1:")


def test_arguments_that_do_not_fit_are_told(in_process: InProcess, tmp_path: Path) -> None:
    folder = str(write_run(tmp_path / "run"))
    for words, told in {
        ("--watch", "--format", "csv"): "--watch shows the pages, --format writes a table\n  leave one of them out",
        ("--port", "80"): "--port 80 is for --watch\n  add --watch to --port 80",
        ("--watch", "--port", "99999"): "--port 99999 is not accepted\n  write a whole number from 0 to 65535",
    }.items():
        assert in_process(installed.report, "distill-report", folder, *words) == (1, "", f"error: {told}\n")
    with served(Path(folder)) as connection:
        taken = ("--watch", "--port", str(connection.port))
        status, _, err = in_process(installed.report, "distill-report", folder, *taken)
    assert (status, err.splitlines()[1]) == (1, "  choose another, as in --port 8001")
