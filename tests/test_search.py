"""distill-search: spaces that mean what Hydra means by them, trials that are told how they ended, and no loose ends."""

import importlib.util
import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from conftest import TINY, InProcess
from distill_run.commands import installed
from distill_run.commands.search import run_trial
from distill_run.commands.spaces import read_space
from distill_run.config.compose import new_variants, option_names
from distill_run.config.overrides import parse
from distill_run.engine.interrupt import StopRequest
from distill_run.errors import DivergedError, Interrupted, Mistake, PrunedError
from distill_run.stages.student import want_student
from distill_run.stages.watcher import StageFacts
from distill_run.sweeps import search as search_host
from distill_run.sweeps.pruning import Pruner
from distill_run.sweeps.space import Choices, Interval, Space
from helpers import examples, few_examples, message_of

ALPHA = "mode.alpha=interval(0,1)"
SHORT = (*TINY, "training.teacher.epochs=1", "training.student.epochs=1", "baseline=false")

pytestmark = pytest.mark.slow  # many runs in turn

Search = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True, scope="module")
def no_pages() -> Iterator[None]:
    """The pages take longer than the trainings; of a search's report, the numbers are what is tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill_run.pipeline.write_pages", lambda _: None)
        patch.setattr("distill_run.pipeline.draw_views", lambda *_: None)
        patch.setattr("distill_run.sweeps.report.pages._write_pages", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """A run of half a second, whose teacher is trained once for all tests."""
    return (*SHORT, f"store_dir={tmp_path_factory.mktemp('search') / 'store'}")


@pytest.fixture
def search(in_process: InProcess) -> Search:
    """Runs distill-search."""
    return partial(in_process, installed.search, "distill-search")


# Spaces.


def space_of(text: str) -> Space:
    (override,) = parse([f"key={text}"])
    return read_space(override)


def test_choices_are_tried_and_checked_as_they_are_typed() -> None:
    for text, values in (
        ("a,b,c", ("a", "b", "c")),
        ("choice(a,b)", ("a", "b")),
        ("choice(a)", ("a",)),
        ("0.5,1,null,true", ("0.5", "1", "null", "True")),
        ("[8],[16,32],[]", ("[8]", "[16,32]", "[]")),
        ("'a b','c,d'", ("'a b'", "'c,d'")),
        ("sort(3,1,2)", ("1", "2", "3")),
        ("a,b,a", ("a", "b")),
        ("range(0,1,0.25)", ("0.0", "0.25", "0.5", "0.75")),
        ("range(0.5,3)", ("0.5", "1.5", "2.5")),
        ("float(range(1,4))", ("1.0", "2.0", "3.0")),
    ):
        space = space_of(text)
        assert space == Choices(values), text
        assert space.ends == values
        assert space.distribution() == CategoricalDistribution(values)
        assert tuple(map(space.shown, values)) == values


def test_numbers_stay_numbers_for_optuna() -> None:
    logarithmic = Interval(1, 64, 1, True), IntDistribution(1, 64, log=True)
    for text, space, distribution in (
        ("range(1,9)", Interval(1, 8, 1, False), IntDistribution(1, 8)),
        ("range(1,9,3)", Interval(1, 7, 3, False), IntDistribution(1, 7, step=3)),
        ("range(5)", Interval(0, 4, 1, False), IntDistribution(0, 4)),
        ("range(3,4)", Interval(3, 3, 1, False), IntDistribution(3, 3)),
        ("range(9,1,-2)", Interval(3, 9, 2, False), IntDistribution(3, 9, step=2)),
        ("sort(range(1,5),reverse=true)", Interval(1, 4, 1, False), IntDistribution(1, 4)),
        ("shuffle(range(1,5))", Interval(1, 4, 1, False), IntDistribution(1, 4)),
        ("tag(log,range(1,101))", Interval(1, 100, 1, True), IntDistribution(1, 100, log=True)),
        ("interval(0,1)", Interval(0, 1, None, False), FloatDistribution(0, 1)),
        ("interval(-0.5,2e3)", Interval(-0.5, 2000, None, False), FloatDistribution(-0.5, 2000)),
        ("int(interval(1,9))", Interval(1, 9, 1, False), IntDistribution(1, 9)),
        ("tag(log,interval(0.001,0.1))", Interval(0.001, 0.1, None, True), FloatDistribution(0.001, 0.1, log=True)),
        ("tag(log,int(interval(1,64)))", *logarithmic),
        ("int(tag(log,interval(1,64)))", *logarithmic),
        ("tag(mine,interval(0,1))", Interval(0, 1, None, False), FloatDistribution(0, 1)),
    ):
        assert space_of(text) == space, text
        assert space_of(text).distribution() == distribution, text


def test_a_space_that_holds_nothing_to_draw_from_is_refused() -> None:
    rising = "is empty\n  its ends must rise, as in tag(log,interval(0.001,0.1))"
    from_above_0 = "is empty\n  its ends must rise, from above 0, as in tag(log,interval(0.001,0.1))"
    endless = "has no end\n  write two numbers, as in"
    whole = "cannot be searched\n  write whole numbers from above 0, each of them, as in tag(log,range(1,100))"
    refused = {
        **dict.fromkeys(("interval(2,1)", "interval(1,1)", "interval(nan,1)", "int(interval(0.5,0.7))"), rising),
        **dict.fromkeys(("tag(log,interval(0,1))", "tag(log,interval(-1,1))"), from_above_0),
        "tag(log,int(interval(0.5,9)))": from_above_0,
        **dict.fromkeys(("interval(0,inf)", "interval(-1e308,1e308)"), f"{endless} interval(0,1)"),
        "range(0,inf)": f"{endless} range(1,9)",
        **dict.fromkeys(
            ("range(3,3)", "range(5,1)", "range(1,5,0)", "range(0,1,0.0)"),
            "is empty\n  its ends must differ, as in range(1,9)",
        ),
        **dict.fromkeys(("tag(log,range(1,100,3))", "tag(log,range(0,100))"), whole),
    }
    for text, told in refused.items():
        assert message_of(space_of, text) == f"key={text} {told}"


def test_a_number_is_typed_with_four_digits() -> None:
    """Rounded by hand."""
    space = Interval(1e-6, 1e6, None, False)
    values = [0.123456, 7.0, 12345.6, 0.00001234567, 999999.9, 20.004]
    assert [space.shown(value) for value in values] == ["0.1235", "7", "1.235e+04", "1.235e-05", "1e+06", "20"]


def test_four_digits_do_not_leave_the_interval() -> None:
    """0.99996 to four digits is 1, and 0.12344 is 0.1234: both outside."""
    space = Interval(0.12344, 0.99996, None, False)
    assert (space.shown(0.99996), space.shown(0.12344)) == ("0.99996", "0.12344")
    assert space.shown(0.123449) == "0.12345"
    assert space.shown(0.999951) == "0.99995"
    assert space.shown(0.5) == "0.5"


finite = st.floats(-1e300, 1e300, allow_subnormal=False)
ends_of_an_interval = st.tuples(finite, finite).filter(lambda ends: ends[0] != ends[1]).map(sorted)


@examples
@given(ends=ends_of_an_interval, share=st.floats(0, 1))
def test_what_is_typed_lies_in_the_interval_near_what_was_drawn(ends: list[float], share: float) -> None:
    low, high = ends
    value = min(max(low + share * (high - low), low), high)
    shown = Interval(low, high, None, False).shown(value)
    assert low <= float(shown) <= high
    assert math.isclose(float(shown), value, rel_tol=5.1e-4)


@examples
@given(low=st.integers(-1000, 1000), length=st.integers(1, 1000), step=st.integers(1, 40))
def test_a_range_holds_what_pythons_does(low: int, length: int, step: int) -> None:
    values = range(low, low + length, step)
    space = space_of(f"range({low},{low + length},{step})")
    assert isinstance(space, Interval)
    assert space == Interval(values[0], values[-1], step, False)
    assert space.ends == (str(values[0]), str(values[-1]))
    assert int(space.usual) in values


@few_examples
@given(ends=ends_of_an_interval, seed=st.integers(0, 2**31))
def test_what_optuna_draws_is_read_again_by_hydra_as_a_value_of_the_interval(ends: list[float], seed: int) -> None:
    low, high = ends
    space = Interval(low, high, None, False)
    if not math.isfinite(high - low):
        return
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    shown = space.shown(study.ask({"key": space.distribution()}).params["key"])
    for text in (shown, *space.ends, space.usual):
        (override,) = parse([f"key={text}"])
        value = override.value()
        assert isinstance(value, int | float)
        assert low <= value <= high


def test_the_usual_value_of_an_interval_is_no_whole_number() -> None:
    for text in ("interval(1,9)", "interval(0,100)", "tag(log,interval(1,1000))"):
        space = space_of(text)
        assert not float(space.usual).is_integer()
        assert float(space.ends[0]) < float(space.usual) < float(space.ends[1])


# Mistakes.

USAGE = (
    "write distill-search [-h] [--version] [--trials N] [--search-seed N] [--search-dir DIR] [--config-dir DIR] "
    "[KEY=SPACE ...]"
)
MISTAKES = {
    ("--trials=3",): "there is nothing to search\n  give a space, as in 'mode.temperature=interval(1,20)'",
    ("mode.alpha=interval(0,2)",): "mode.alpha=2 is not accepted\n  write a number from 0 to 1",
    ("mode.alpha=0.5,2",): "mode.alpha=2 is not accepted\n  write a number from 0 to 1",
    ("training.student.epochs=interval(1,9)",): (
        "training.student.epochs=5.944 is not accepted\n"
        "  write a whole number of at least 1, or null, as int(interval(...)) gives them"
    ),
    ("mode.alfa=interval(0,1)",): "mode.alfa is not a key of the configuration\n  did you mean mode.alpha or mode?",
    ("student=mlp,cnn_tny",): "student=cnn_tny is not there\n  did you mean cnn_tiny?",
    (ALPHA, "mode.temperature=0"): "mode.temperature=0 is not accepted\n  write a number above 0",
    (ALPHA, "seed"): "seed cannot be read\n  write key=value, and quote special characters",
    ("student=glob(cnn_x*)",): f"student=glob(cnn_x*) matches nothing\n  there are {', '.join(option_names('model'))}",
    (ALPHA, "+sweep=seeds"): "+sweep=seeds is a grid\n  write its keys with spaces of your own",
    (ALPHA, "--trials=0"): "--trials=0 is not accepted\n  write a whole number of at least 1",
    (ALPHA, "--trials=many"): f"argument --trials: invalid int value: 'many'\n  {USAGE}",
    (ALPHA, "--search-seed=-1"): "--search-seed=-1 is not accepted\n  write a whole number from 0 to 2^63 - 1",
    (ALPHA, "--config-dir=nowhere"): "--config-dir nowhere is not a folder\n  give the folder of your own files",
}


def test_a_mistake_is_told_in_two_lines_and_leaves_nothing_behind(search: Search, tmp_path: Path) -> None:
    for arguments, told in MISTAKES.items():
        assert search(*arguments) == (1, "", f"error: {told}\n")
    assert list(tmp_path.iterdir()) == []


def test_without_optuna_it_says_what_to_install(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "optuna" else found(name))
    told = "error: distill-search needs Optuna\n  write pip install optuna\n"
    assert search(ALPHA) == (1, "", told)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_with_something_else_in_it_and_a_file_are_refused_and_left_alone(
    search: Search, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    file = tmp_path / "mine" / "file"
    file.write_text("precious")
    told = "error: mine holds something else\n  name a folder that is empty or new\n"
    assert search(*TINY, ALPHA, "--search-dir=mine") == (1, "", told)
    for place in ("mine/file", "mine/file/below"):
        status, out, err = search(*TINY, ALPHA, f"--search-dir={place}")
        assert (status, out) == (1, "")
        assert err.startswith(f"error: --search-dir={place}: cannot write in {file} (Not a directory)\n")
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "file"]


def test_help_shows_how_to_write_a_space(search: Search) -> None:
    """test_rooms.py checks that the command loads neither torch nor Optuna."""
    status, out, err = search("--help")
    assert (status, err) == (0, "")
    assert out.startswith("usage: distill-search ")
    assert "as in mode.alpha=interval(0,1)" in out


# Trials.


def outcomes(folder: Path) -> dict[str, str]:
    """The status of each trial that has a folder."""
    return {path.parent.name: json.loads(path.read_text())["status"] for path in folder.glob("*/status.json")}


def trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{folder / 'study.db'}")
    found = study.get_trials()
    study._storage.remove_session()
    return found


def searches(tmp_path: Path) -> list[Path]:
    return sorted(path.parent for path in tmp_path.glob("outputs/searches/*/*/study.db"))


@pytest.fixture
def at_trial(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, BaseException], None]:
    """Arrange for the training of the so-manieth student, from 0 on, to end with an error."""

    def arrange(number: int, error: BaseException) -> None:
        numbers = count()

        def want(*arguments: Any) -> Any:
            if next(numbers) == number:
                raise error
            return want_student(*arguments)

        monkeypatch.setattr("distill_run.pipeline.want_student", want)

    return arrange


AtTrial = Callable[[int, BaseException], None]


def test_each_trial_is_a_run_and_the_study_knows_what_it_found(
    tiny: tuple[str, ...], search: Search, tmp_path: Path
) -> None:
    status, out, err = search(*tiny, ALPHA, "mode.temperature=1,4", "--trials=3")
    assert (status, err) == (0, "")
    (folder,) = searches(tmp_path)
    assert outcomes(folder) == dict.fromkeys("012", "completed")
    wanted = {"study.db", "sweep.json", "sweep.csv", "sweep_command.json", "0", "1", "2"}
    assert {path.name for path in folder.iterdir()} == wanted
    assert "report   " in out
    for trial in trials(folder):
        run_dir = folder / str(trial.number)
        report = json.loads((run_dir / "report.json").read_text())
        assert trial.state == TrialState.COMPLETE
        assert trial.value == report["student"]["selected"]["val"]["accuracy"]
        assert report["mode"]["alpha"] == float(f"{trial.params['mode.alpha']:.4g}")
        assert str(report["mode"]["temperature"]) == trial.params["mode.temperature"]
        assert trial.intermediate_values == {1: trial.value}
        command = json.loads((run_dir / "environment.json").read_text())["command"]
        assert f"mode.alpha={report['mode']['alpha']:g} " in command + " "
        assert " INFO " in (run_dir / "run.log").read_text()
    content = json.loads((folder / "sweep.json").read_text())
    assert content["counts"]["completed"] == 3
    assert set(content["keys"]) <= {"mode.alpha", "mode.temperature"}


def test_the_same_command_goes_on_after_an_interruption(
    tiny: tuple[str, ...], search: Search, at_trial: AtTrial, tmp_path: Path
) -> None:
    command = (*tiny, ALPHA, "--trials=3", "--search-seed=5")
    at_trial(1, Interrupted("SIGINT"))
    status, out, err = search(*command)
    assert (status, err) == (130, "")
    told = "interrupted; the same command goes on with it: distill-search teacher=cnn_tiny "
    assert told in out
    (folder,) = searches(tmp_path)
    assert outcomes(folder) == {"0": "completed", "1": "interrupted"}
    first = (folder / "0" / "report.json").stat().st_mtime_ns
    cut_short = trials(folder)[1].params
    at_trial(-1, KeyError())
    assert search(*command)[0] == 0
    assert searches(tmp_path) == [folder]
    assert outcomes(folder) == dict.fromkeys("012", "completed")
    assert (folder / "0" / "report.json").stat().st_mtime_ns == first
    assert trials(folder)[2].params == cut_short  # what was cut short goes on
    assert [trial.user_attrs["folder"] for trial in trials(folder)] == [0, 1, 1, 2]


def test_a_search_that_dies_is_taken_up_in_the_directory_that_it_named(
    tiny: tuple[str, ...], search: Search, at_trial: AtTrial, tmp_path: Path
) -> None:
    at_trial(0, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        search(*tiny, ALPHA, "--trials=1", "--search-dir=mine")
    at_trial(0, Interrupted("SIGINT"))
    _, out, _ = search(*tiny, ALPHA, "--trials=1", "--search-dir=mine")
    [told] = [line for line in out.splitlines() if line.startswith("interrupted; ")]
    assert told.endswith(" 'mode.alpha=interval(0,1)' --trials 1 --search-seed 0 --search-dir mine")
    assert "0 of 1 runs completed, 1 unfinished" in out.splitlines()
    at_trial(-1, KeyError())
    # More trials than before are the same search; another scale with the same ends is not.
    assert search(*tiny, ALPHA, "--trials=2", "--search-dir=mine")[0] == 0
    assert set(outcomes(tmp_path / "mine").values()) == {"completed"}
    assert search(*tiny, "mode.alpha=0,1", "--search-dir=mine")[2].startswith("error: mine holds something else\n")


def values_of_seed(folder: Path, seed: int) -> list[dict[str, Any]]:
    """What a search with that seed tries first, in a study of its own."""
    drawn = []

    def note(_: list[str], run_dir: Path, trial: optuna.Trial) -> float:
        run_dir.mkdir()
        drawn.append(trial.params)
        return 0.5

    folder.mkdir()
    search = search_host.Search(folder, 3, seed, {"mode.alpha": space_of("interval(0,1)")})
    search.run_trials(search.open_study(), note)
    return drawn


def test_equal_seeds_try_equal_values_and_others_others(tiny: tuple[str, ...], search: Search, tmp_path: Path) -> None:
    assert search(*tiny, ALPHA, "--trials=2", "--search-seed=3", "--search-dir=mine")[0] == 0
    tried = [trial.params for trial in trials(tmp_path / "mine")]
    assert tried == values_of_seed(tmp_path / "again", 3)[:2]
    assert tried[0] != tried[1]
    assert not any(params in tried for params in values_of_seed(tmp_path / "other", 4))
    assert len(values_of_seed(tmp_path / "largest", 2**63 - 1)) == 3


def test_a_trial_that_is_not_promising_is_given_up(
    tiny: tuple[str, ...], search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optuna.Trial, "should_prune", lambda trial: trial.number == 0)
    status, out, _ = search(*tiny, "training.student.epochs=2", ALPHA, "--trials=2", "--search-dir=mine")
    assert status == 0
    assert outcomes(tmp_path / "mine") == {"0": "pruned", "1": "completed"}
    assert [trial.state for trial in trials(tmp_path / "mine")] == [TrialState.PRUNED, TrialState.COMPLETE]
    assert list(trials(tmp_path / "mine")[0].intermediate_values) == [1]
    assert "given up after" in out


def test_only_the_student_is_reported_and_no_run_is_stopped_after_its_last_epoch() -> None:
    reported: list[tuple[float, int]] = []

    class Trial:
        """It advises to give up after every epoch."""

        def report(self, value: float, step: int) -> None:
            reported.append((value, step))

        def should_prune(self) -> bool:
            return True

    stop = StopRequest()
    pruner = Pruner(Trial(), stop, "nll")  # type: ignore[arg-type]
    pruner.num_epochs = 3
    for stage, epoch in (("teacher", 1), ("baseline", 1), ("student lr=0.1", 1), ("student", 3)):
        pruner.epoch_ended({"stage": stage, "epoch": epoch, "val": {"accuracy": 0.5, "nll": epoch / 10}})
    assert reported == [(-0.3, 3)]
    assert not stop.requested


def test_a_trial_that_goes_on_reports_its_earlier_epochs_once_and_is_given_up_as_it_would_have_been() -> None:
    reported: list[int] = []

    class Trial:
        """It advises to give up after the second epoch."""

        def report(self, _: float, step: int) -> None:
            reported.append(step)

        def should_prune(self) -> bool:
            return reported[-1] == 2

    stop = StopRequest()
    pruner = Pruner(Trial(), stop, "accuracy")  # type: ignore[arg-type]
    rows = [{"stage": "student", "epoch": epoch, "val": {"accuracy": 0.5}} for epoch in (1, 2)]
    pruner.stage_begun(StageFacts("student", "", "", 3, 9, is_search=False, history=tuple(rows)))
    assert reported == [1, 2]
    assert isinstance(stop.error, PrunedError)
    pruner.report(rows)
    assert reported == [1, 2]


def test_trials_are_not_judged_by_different_figures(search: Search) -> None:
    told = "the trials would be judged by different figures\n  write one of them, as in training.select_by=accuracy"
    assert search(*TINY, "training.select_by=choice(accuracy,nll)") == (1, "", f"error: {told}\n")


def test_no_trial_is_given_up_before_the_second_epoch(tmp_path: Path) -> None:
    """Five good trials, then a bad one: its first epoch is let pass, its second is not."""
    study = search_host.Search(tmp_path, 9, 0, {}).open_study()
    for _ in range(search_host.STARTUP_TRIALS):
        trial = study.ask()
        trial.report(0.9, 1)
        trial.report(0.9, 2)
        study.tell(trial, 0.9)
    trial = study.ask()
    trial.report(0.1, 1)
    assert not trial.should_prune()
    trial.report(0.1, 2)
    assert trial.should_prune()


def test_a_trial_that_diverges_has_failed_and_the_search_goes_on(
    tiny: tuple[str, ...], search: Search, at_trial: AtTrial, tmp_path: Path
) -> None:
    at_trial(0, DivergedError([Mistake("the loss is not finite at step 3", "lower the learning rate")]))
    status, out, err = search(*tiny, ALPHA, "--trials=2", "--search-dir=mine")
    assert (status, err) == (1, "")
    assert "failed: the loss is not finite at step 3" in out
    assert outcomes(tmp_path / "mine") == {"0": "failed", "1": "completed"}
    assert [trial.state for trial in trials(tmp_path / "mine")] == [TrialState.FAIL, TrialState.COMPLETE]
    assert json.loads((tmp_path / "mine" / "0" / "status.json").read_text())["error"] == (
        "the loss is not finite at step 3\n  lower the learning rate"
    )
    assert "DivergedError" in (tmp_path / "mine" / "0" / "run.log").read_text()


def test_values_that_do_not_go_together_are_a_failed_trial(tmp_path: Path) -> None:
    """What was checked is each value beside the first of the others, not each beside each."""
    spaces: dict[str, Space] = {"mode": Choices(("none",)), "mode.temperature": Choices(("2",))}
    searching = search_host.Search(tmp_path, 1, 0, spaces)
    study = searching.open_study()
    searching.run_trials(study, partial(run_trial, [], None, new_variants(), "accuracy"))
    assert outcomes(tmp_path) == {"0": "failed"}
    assert study.trials[0].state == TrialState.FAIL
    error = json.loads((tmp_path / "0" / "status.json").read_text())["error"]
    assert error.startswith("mode=none has no temperature\n")
    assert searching.num_ended(study) == 1
