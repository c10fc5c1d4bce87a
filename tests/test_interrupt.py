"""Signals: the first asks, the second insists, and the handlers of before come back."""

import os
import signal
import threading

import pytest

from distill_run.engine.interrupt import SIGNALS, StopRequest
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
