"""What every child process does, with a small child of the tests' own in a real process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from processes import running as programs

from feeds.child import EXIT_CONFIGURATION, control_end
from feeds.messages import Info
from feeds.pipe import Splitter, pack

TESTS = Path(programs.__file__).resolve().parents[1]


@dataclass
class Child:
    """A child process and our end of its pipe."""

    process: subprocess.Popen[str]
    end: socket.socket

    def receive(self) -> Info | None:
        splitter = Splitter(Info)
        while data := self.end.recv(65536):
            for message in splitter.feed(data):
                return message
        return None

    def ends(self) -> tuple[int, str]:
        """Its exit code and what it wrote to stderr."""
        _, said = self.process.communicate(timeout=20)
        return self.process.returncode, said


@contextmanager
def started(program: str = "feeds_child") -> Iterator[Child]:
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    path = os.pathsep.join((str(TESTS), str(TESTS.parent)))
    with ours, subprocess.Popen(
        [sys.executable, "-m", f"processes.{program}", "--control-fd", str(theirs.fileno()), "--title", "a test"],
        env={**os.environ, "PYTHONPATH": path}, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        theirs.close()
        try:
            yield Child(process, ours)
        finally:
            process.kill()


def test_a_child_gets_messages_and_answers_them() -> None:
    with started() as child:
        assert child.receive() == Info("started")
        child.end.sendall(pack(Info("echo")))
        assert child.receive() == Info("echo")
        child.end.sendall(pack(Info("end 7")))
        assert child.ends() == (7, "")


def test_a_child_ends_with_its_pipe() -> None:
    with started() as child:
        assert child.receive() == Info("started")
        child.end.close()
        assert child.ends() == (0, "")


def test_a_child_ends_on_sigterm_with_what_it_still_had_to_say() -> None:
    with started() as child:
        assert child.receive() == Info("started")
        child.process.send_signal(signal.SIGTERM)
        assert child.receive() == Info("stopping")
        assert child.ends() == (3, "")


def test_the_terminals_interrupt_is_the_supervisors_to_decide() -> None:
    with started() as child:
        assert child.receive() == Info("started")
        child.process.send_signal(signal.SIGINT)
        child.end.sendall(pack(Info("echo")))
        assert child.receive() == Info("echo")


@pytest.mark.parametrize(("number", "lives"), [(signal.SIGUSR1, True), (signal.SIGABRT, False)])
def test_a_child_shows_its_stacks_when_asked_and_when_it_is_aborted(number: signal.Signals, lives: bool) -> None:
    with started() as child:
        assert child.receive() == Info("started")
        child.process.send_signal(number)
        if lives:
            child.end.sendall(pack(Info("echo")))
            assert child.receive() == Info("echo")
            child.end.close()
        code, said = child.ends()
        assert code == (0 if lives else -signal.SIGABRT)
        assert "feeds/child.py" in said


def test_a_fault_of_a_childs_own_is_a_traceback_and_exit_code_1() -> None:
    with started() as child:
        assert child.receive() == Info("started")
        child.end.sendall(pack(Info("fail")))
        code, said = child.ends()
        assert code == 1
        assert "ZeroDivisionError: asked to" in said


def test_garbage_on_the_pipe_ends_the_child() -> None:
    with started() as child:
        assert child.receive() == Info("started")
        child.end.sendall(b"\xff\xff\xff\xff garbage")
        assert child.ends()[0] == 0


def test_the_control_end_is_the_descriptor_that_is_named() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        number = theirs.detach()
        with control_end(["--control-fd", str(number), "--title", "provider crypto"]) as end:
            end.sendall(b"x")
            assert ours.recv(1) == b"x"


@pytest.mark.parametrize("arguments", [[], ["--control-fd"], ["--control-fd", "x"], ["--unknown"]])
def test_a_child_started_by_hand_says_how_it_is_used(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        control_end(arguments)
    assert caught.value.code == 2
    assert "--control-fd" in capsys.readouterr().err


def test_the_exit_code_for_configuration_is_that_of_sysexits() -> None:
    assert EXIT_CONFIGURATION == os.EX_CONFIG
