"""Signals: the first asks, the second insists, and the handlers of before come back."""

import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.connection import Connection

import pytest

from distill_run.engine import interrupt
from distill_run.engine.interrupt import SIGNALS, StopRequest, ask_children, end_with_parent
from distill_run.errors import Interrupted


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_asks_a_polling_training_and_the_second_interrupts(number: signal.Signals) -> None:
    with StopRequest() as stop, stop.polled():
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
        with pytest.raises(Interrupted, match=number.name):
            os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_outside_a_training_interrupts_at_once(number: signal.Signals) -> None:
    with StopRequest() as stop:
        with stop.polled():
            pass
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), number)


def test_the_handlers_of_before_come_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopRequest():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_another_thread_than_the_main_one_leaves_signals_alone() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    seen = []

    def enter() -> None:
        with StopRequest():
            seen.append([signal.getsignal(number) for number in SIGNALS])

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_program_may_ask_for_a_stop_with_an_error_of_its_own() -> None:
    stop = StopRequest()
    assert isinstance(stop.error, Interrupted)
    stop.request(RuntimeError("enough"))
    assert stop.requested
    assert repr(stop.error) == "RuntimeError('enough')"


def test_another_signal_says_the_same_as_the_first_which_is_told_once() -> None:
    """Ctrl-C reaches all processes of a sweep, whose own process hands it on as another signal."""
    told = []
    with StopRequest(lambda: told.append("first")) as stop, stop.polled():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGUSR2)
        with pytest.raises(Interrupted, match="SIGINT"):
            os.kill(os.getpid(), signal.SIGINT)
    assert told == ["first"]


def test_long_work_within_a_training_is_interrupted_at_once() -> None:
    with StopRequest() as stop, stop.polled():
        with pytest.raises(Interrupted), stop.at_once():
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        with pytest.raises(Interrupted, match="SIGTERM"), stop.at_once():
            pytest.fail("the work has begun")


def _train(result: Connection) -> None:
    """A point of a sweep, which says how its training was asked to stop."""
    with StopRequest() as stop, stop.polled():
        end_with_parent()
        result.send("begun")
        while not stop.requested:
            time.sleep(0.01)
        result.send(str(stop.error))


def _sweep(result: Connection) -> None:
    multiprocessing.get_context("fork").Process(target=_train, args=(result,)).start()


@pytest.mark.parametrize("is_killed", [True, False])
def test_the_processes_of_a_sweep_end_with_it(is_killed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "PARENT_SECONDS", 0.01)
    ours, theirs = multiprocessing.Pipe()
    sweep = multiprocessing.get_context("fork").Process(target=_sweep if is_killed else _train, args=(theirs,))
    sweep.start()
    assert ours.recv() == "begun"
    if is_killed:
        sweep.kill()
    else:
        assert ask_children()
    assert ours.recv() == "SIGUSR2"
    sweep.join()
    assert not ask_children()


def test_a_copy_of_the_process_decides_itself_what_a_signal_does() -> None:
    with StopRequest():
        if not (copy := os.fork()):
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        assert os.waitpid(copy, 0)[1] == 0
