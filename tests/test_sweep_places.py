"""Where the points of a sweep lie, and that their folders decide how it has ended. No training."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from distill_run.commands.subdirs import check_subdirs
from distill_run.config.overrides import all_points
from distill_run.config.presets import expand_patterns, expand_presets, sweeper_overrides
from distill_run.config.settings import compose_or_explain
from distill_run.console.console import Console
from distill_run.console.displays import show_sweep
from distill_run.sweeps.host import Place, host
from distill_run.sweeps.places import point_folders, refused_place, take_place
from distill_run.sweeps.points import find_runs
from distill_run.sweeps.progress import SweepProgress
from distill_run.sweeps.request import Request
from helpers import message_of
from sweeps import write_run

Work = Callable[[Path], None]
Output = pytest.CaptureFixture[str]


def nested(sweep_dir: Path, *, second: str = "completed", elsewhere: Path | None = None) -> None:
    """Two points of a sweep with hydra.sweep.subdir=lr0.1/seed${seed}."""
    for seed, status in ((0, "completed"), (1, second)):
        folder = take_place(sweep_dir, seed, (elsewhere or sweep_dir) / f"lr0.1/seed{seed}")
        write_run(folder, [f"seed={seed}"], status=status, error="it broke" if status == "failed" else None)


def with_an_empty_status(sweep_dir: Path) -> None:
    nested(sweep_dir)
    (sweep_dir / "lr0.1/seed1/status.json").write_bytes(b"")


def with_a_point_that_vanished(sweep_dir: Path) -> None:
    nested(sweep_dir)
    shutil.rmtree(sweep_dir / "lr0.1/seed1")


def with_a_point_that_never_began(sweep_dir: Path) -> None:
    write_run(take_place(sweep_dir, 0, sweep_dir / "0"), ["seed=0"])


ENDS: dict[str, tuple[Work, dict[str, int]]] = {
    "completed": (nested, {"completed": 2}),
    "given up": (partial(nested, second="pruned"), {"completed": 1, "pruned": 1}),
    "failed": (partial(nested, second="failed"), {"completed": 1, "failed": 1}),
    "killed": (partial(nested, second="running"), {"completed": 1, "unfinished": 1}),
    "empty status": (with_an_empty_status, {"completed": 1, "unfinished": 1}),
    "vanished": (with_a_point_that_vanished, {"completed": 1, "unreadable": 1}),
    "never begun": (with_a_point_that_never_began, {"completed": 1, "not begun": 1}),
}


def hosted(tmp_path: Path, work: Work) -> bool:
    request = Request("distill-run -m seed=0,1", "f", 2)
    place = Place("hydra.sweep.dir", tmp_path / "sweep", is_named=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill_run.sweeps.report.pages._write_pages", lambda *_: None)
        return host(request, place, ["seed"], lambda progress: work(progress.directory))


@pytest.mark.parametrize("end", ENDS)
def test_the_folders_of_the_points_decide_how_a_sweep_has_ended(end: str, tmp_path: Path) -> None:
    work, counts = ENDS[end]
    is_well = end in ("completed", "given up")
    assert hosted(tmp_path, work) == is_well
    told = json.loads((tmp_path / "sweep/sweep.json").read_text())["counts"]
    assert {status: count for status, count in told.items() if count} == counts
    assert json.loads((tmp_path / "sweep/sweep_command.json").read_text())["completed"] == is_well


def test_points_outside_the_sweep_s_folder_are_found_there(tmp_path: Path) -> None:
    assert hosted(tmp_path, partial(nested, elsewhere=tmp_path / "far away"))
    assert point_folders(tmp_path / "sweep") == {
        str(seed): tmp_path / f"far away/lr0.1/seed{seed}" for seed in range(2)
    }
    content = json.loads((tmp_path / "sweep/sweep.json").read_text())
    assert [run["status"] for run in content["runs"]] == ["completed", "completed"]


def test_a_sweep_in_which_nothing_began_has_not_succeeded(tmp_path: Path, capsys: Output) -> None:
    assert not hosted(tmp_path, lambda _: None)
    assert capsys.readouterr().out == "no run has begun\n"


def test_a_point_keeps_its_place_and_takes_nobody_else_s(tmp_path: Path) -> None:
    assert take_place(tmp_path, 3, tmp_path / "3") == tmp_path / "3"
    assert not (tmp_path / "points").exists()  # the usual place is not written down
    assert take_place(tmp_path, 0, tmp_path / "a") == tmp_path / "a"
    assert take_place(tmp_path, 0, tmp_path / "b") == tmp_path / "a"  # it began there before
    write_run(tmp_path / "of another sweep")
    for taken in (tmp_path / "a", tmp_path / "of another sweep"):
        assert message_of(take_place, tmp_path, 1, taken) == (
            f"hydra.sweep.subdir puts this point into {taken}, which has another run\n"
            "  write a pattern that differs between the points, as in 'hydra.sweep.subdir=${hydra.job.num}'"
        )
    write_run(refused_place(tmp_path, 1), status="failed")
    assert list(point_folders(tmp_path)) == ["0", "1"]
    take_place(tmp_path, 1, tmp_path / "b")
    assert not refused_place(tmp_path, 1).exists()  # it is no longer refused
    (tmp_path / "points/1.json").write_text("{")  # damaged: as if it were not there
    assert list(point_folders(tmp_path)) == ["0"]


def test_a_sweep_folder_may_be_moved_with_its_points(tmp_path: Path) -> None:
    nested(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    assert point_folders(tmp_path / "new")["1"] == tmp_path / "new/lr0.1/seed1"


def test_what_removes_files_under_the_display_does_not_end_it(tmp_path: Path, capsys: Output) -> None:

    progress = SweepProgress(tmp_path, 2, ["seed"], Console())
    write_run(tmp_path / "0", ["seed=0"], status="failed", error="it broke")
    (tmp_path / "0/environment.json").unlink()
    write_run(tmp_path / "1", ["seed=1"], status="running")
    (tmp_path / "1/metrics.jsonl").write_text('{"stage"')
    with show_sweep(progress.console) as display:
        progress.look(display)
    assert capsys.readouterr().out.splitlines() == ["   0    failed: it broke"]


def test_points_that_would_share_a_folder_are_refused_before_the_first_one() -> None:
    swept = ["seed=0,1", "mode.temperature=1,4"]
    assert [point[:2] for point in all_points(swept)] == [
        ["seed=0", "mode.temperature=1"], ["seed=0", "mode.temperature=4"],
        ["seed=1", "mode.temperature=1"], ["seed=1", "mode.temperature=4"],
    ]  # fmt: skip
    told = {
        "s${seed}": "hydra.sweep.subdir=s${seed} puts the points 0 and 1 into one folder, s0\n"
        "  add what differs between them, as in 'hydra.sweep.subdir=s${seed}/${hydra.job.num}'",
        "~/s${hydra.job.num}": "hydra.sweep.subdir=~/s0 is no home directory\n  write the whole path, as in /home/...",
    }
    for pattern, message in told.items():
        overrides = [*swept, f'hydra.sweep.subdir="{pattern}"']
        assert message_of(check_subdirs, overrides, None, compose_or_explain(["seed=0", *overrides[2:]], None)) == (
            message
        )
    for pattern in ("${hydra.job.override_dirname}", "t${mode.temperature}/s${seed}"):
        overrides = [*swept, f'hydra.sweep.subdir="{pattern}"']
        check_subdirs(overrides, None, compose_or_explain(["seed=0", *overrides[2:]], None))


def test_a_pattern_stands_for_the_options_that_it_matches(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/cnn_own.yaml").write_text("_target_: own.Net\n")
    assert expand_patterns(["seed=1", "student=glob(cnn_*,exclude=[cnn_m*,cnn_l*])"], tmp_path) == [
        "seed=1", "student=cnn_own,cnn_small,cnn_tiny",
    ]  # fmt: skip
    assert message_of(expand_patterns, ["training=glob(resnt*)"], None) == (
        "training=glob(resnt*) matches nothing\n  there are cifar10, default, imagenet, rep_distiller, short"
    )
    assert message_of(expand_patterns, ["seed=glob(*)"], None) == (
        "seed=glob(*) matches nothing\n  seed is no group of options"
    )


def test_two_presets_and_one_without_its_package_line(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/own.yaml").write_text("mode.temperature: 1,4\nbaseline: null\n")
    assert expand_presets(["+sweep=modes", "+sweep=own", "+sweep=seeds"], tmp_path) == (
        ["mode=none,hard,soft", "seed=0,1,2,3,4", "mode.temperature=1,4", "baseline=null"],
        True,
    )
    (tmp_path / "sweep/deep.yaml").write_text("mode:\n  temperature: 1,4\n")
    assert message_of(expand_presets, ["+sweep=deep"], tmp_path) == (
        "+sweep=deep has keys below mode, and no values\n  write mode.KEY: 1,2,4 in its file"
    )
    (tmp_path / "sweep/empty.yaml").write_text("")
    assert message_of(expand_presets, ["+sweep=empty"], tmp_path) == (
        "+sweep=empty has no values\n  write them into its file, as in mode.temperature: 1,2,4"
    )


def test_values_that_a_file_gives_to_hydra_s_sweeper_are_swept(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    params = "hydra:\n  sweeper:\n    params:\n      seed: 0,1\n      mode.alpha: 0.1,0.5\n"
    (tmp_path / "experiment/own.yaml").write_text(f"# @package _global_\n{params}")
    composed = compose_or_explain(["experiment=own"], tmp_path)
    assert sweeper_overrides(composed, ["experiment=own", "seed=3"]) == ["mode.alpha=0.1,0.5"]


def test_folders_that_are_called_by_numbers_are_counted_once(tmp_path: Path) -> None:
    """As with hydra.sweep.subdir=${seed}; behind a link, too."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for number, seed in enumerate((1, 2)):
        write_run(take_place(tmp_path / "link", number, tmp_path / f"link/{seed}"), [f"seed={seed}"])
    places = {"0": tmp_path / "real/1", "1": tmp_path / "real/2"}
    assert point_folders(tmp_path / "link") == places
    assert find_runs([tmp_path / "link"]) == list(places.values())


def test_looking_takes_a_small_share_of_the_time_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at thousands of points is followed by a longer pause."""
    pauses: list[float] = []
    clock = iter([0.0, 0.001, 1.0, 1.04])  # of two looks

    def wait(seconds: float) -> bool:
        pauses.append(seconds)
        return len(pauses) == 3

    progress = SweepProgress(tmp_path, 1, [], Console())
    monkeypatch.setattr("time.thread_time", lambda: next(clock))
    monkeypatch.setattr(progress, "look", lambda _: None)
    progress._watch(None, SimpleNamespace(wait=wait))  # type: ignore[arg-type]
    assert pauses == pytest.approx([0.3, 0.3, 8.0])
