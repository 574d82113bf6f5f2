"""Signals as something to wait for."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from cli.ending import Ending


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=str
)
def test_a_signal_raises_nothing_and_is_found_by_the_next_wait(number: signal.Signals, code: int) -> None:
    with Ending() as ending:
        assert not ending.wait(0.0)
        os.kill(os.getpid(), number)
        assert ending.wait(0.0)
        assert ending.wait(30.0), "and by every wait after that, at once"
        assert (ending.signal, ending.times, ending.exit_code) == (number, 1, code)


def test_a_wait_ends_as_soon_as_a_signal_comes() -> None:
    with Ending() as ending:
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        began = time.monotonic()
        assert ending.wait(30.0)
        assert time.monotonic() - began < 20.0
        timer.join()


def test_the_first_signal_counts_and_the_second_says_that_somebody_is_in_a_hurry() -> None:
    with Ending() as ending:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert ending.wait(0.0)
        assert (ending.signal, ending.times) == (signal.SIGTERM, 2)


def test_the_old_handlers_are_back_afterwards() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    with Ending():
        assert [signal.getsignal(number) for number in numbers] != before
    assert [signal.getsignal(number) for number in numbers] == before
