"""The demo as users run it, and everything it must not leave behind."""

from __future__ import annotations

import json
import os
import pty
import shlex
import signal
import threading
from pathlib import Path

import pytest
from processes.cli_session import WITHIN, ended, environment, processes_of, start, tickring
from waiting import wait_until

from cli.demo_stage import sweep

pytestmark = pytest.mark.timeout(120)


def of(pid: int) -> str:
    return f"demo-{pid}"


def nothing_left(runtime: Path, pid: int) -> bool:
    return not list(runtime.iterdir()) and not processes_of("TICKRING_INSTANCE", of(pid))


def test_it_ends_by_itself_with_a_summary_that_adds_up(runtime: Path) -> None:
    process = start(environment(), "demo", "--seconds", "2", "--symbols", "5", "--json")
    ran = ended(process)
    assert ran.code == 0, ran.err
    summary = json.loads(ran.out)
    assert summary["symbols"] == 5
    assert summary["records"] == summary["reader_received"] == summary["snapshot_records"] > 0
    assert summary["snapshot_rows"] == min(summary["records"], 10_000)
    assert 0 < summary["listener_frames"] <= summary["records"]
    assert summary["records_per_second"] > 0
    for name in ("gaps", "missed", "rejected", "reconnects", "reader_lost", "listener_lost"):
        assert summary[name] == 0, name
    assert summary["left_behind"] == []
    assert "starting a simulated Binance" in ran.err
    assert nothing_left(runtime, process.pid)


def test_it_says_what_to_type_elsewhere_which_works_and_ctrl_c_is_how_it_ends(runtime: Path) -> None:
    process = start(environment(), "demo", "--symbols", "3")
    assert process.stderr is not None
    said: list[str] = []
    while not any("records/s" in line for line in said):
        said.append(process.stderr.readline())
    commands = [line.strip() for line in said if line.startswith("  ")]
    exported = dict(pair.split("=", 1) for pair in shlex.split(commands[0])[1:])
    assert exported["TICKRING_INSTANCE"] == of(process.pid)
    assert exported["TICKRING_RUNTIME_DIR"] == str(runtime)
    typed = {line.split(" -m cli ")[1].split()[0]: line.split(" -m cli ")[1].split() for line in commands[1:]}
    elsewhere = environment(**exported)
    subscribed = tickring(elsewhere, *typed["subscribe"])
    assert (subscribed.code, "acknowledged" in subscribed.out) == (0, True)
    assert tickring(elsewhere, *typed["attach"], "-n", "2").code == 0
    assert tickring(elsewhere, *typed["listen"], "-n", "2").code == 0
    process.send_signal(signal.SIGINT)
    ran = ended(process)
    assert ran.code == 0, ran.err
    assert "lost 0" in ran.out
    assert "left      nothing: no process, no shared memory, no file" in ran.out
    assert nothing_left(runtime, process.pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_starts_leaves_nothing_behind(runtime: Path, number: signal.Signals) -> None:
    process = start(environment(), "demo")
    assert process.stderr is not None
    # The simulator and the supervisor are just being started.
    assert process.stderr.readline().startswith("starting ")
    process.send_signal(number)
    ran = ended(process)
    assert (ran.code, ran.out) == (128 + number, "")
    assert "Traceback" not in ran.err
    assert nothing_left(runtime, process.pid)


def test_a_terminal_gets_a_picture_and_gets_its_own_back_when_it_is_terminated(runtime: Path) -> None:
    ours, theirs = pty.openpty()
    process = start(environment(TERM="xterm-256color", COLUMNS="100", LINES="30"), "demo", terminal=theirs)
    os.close(theirs)
    seen = bytearray()

    def follow() -> None:
        try:
            while data := os.read(ours, 65536):
                seen.extend(data)
        except OSError:  # the other end is closed
            pass

    reader = threading.Thread(target=follow)
    reader.start()
    try:
        wait_until(lambda: b"BTCUSDT" in seen and b"Now in another terminal" in seen, "a picture", WITHIN)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WITHIN) == 143
        reader.join(WITHIN)
    finally:
        process.kill()
        process.wait()
        reader.join()
        os.close(ours)
    assert seen.index(b"\x1b[?1049h") < seen.index(b"BTCUSDT") < seen.index(b"\x1b[?1049l")
    assert b"left      nothing" in seen[seen.index(b"\x1b[?1049l") :]
    assert nothing_left(runtime, process.pid)


@pytest.mark.fault
def test_one_that_is_killed_outright_leaves_no_process_and_the_next_removes_its_directory(runtime: Path) -> None:
    process = start(environment(), "demo")
    assert process.stderr is not None
    while "records/s" not in process.stderr.readline():
        pass
    process.kill()
    assert ended(process).code == -signal.SIGKILL
    wait_until(lambda: not processes_of("TICKRING_INSTANCE", of(process.pid)), "no process of it runs", WITHIN)
    assert [path.name for path in runtime.iterdir()] == [of(process.pid)]
    (runtime / "demo").mkdir()  # an instance of somebody's who chose that name
    assert sweep()
    assert [path.name for path in runtime.iterdir()] == ["demo"]


def test_a_demo_that_cannot_be_set_up_says_why_in_one_line(runtime: Path) -> None:
    symbols = tickring(environment(), "demo", "--symbols", "201")
    assert (symbols.code, symbols.out) == (2, "")
    assert symbols.err.startswith("error: --symbols is 1 to 200")
    rate = tickring(environment(), "demo", "--rate", "0")
    assert rate.err == "error: --rate is a number of events a second above 0, not 0.0.\n"
    assert list(runtime.iterdir()) == []
