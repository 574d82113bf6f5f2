"""The command line in processes of its own, and a session that several tests share.

A session is a venue, a supervisor and a connection. It lies in directories of this test run, told by the environment,
so that nothing else on the machine notices it.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil

from cli.main import run

ROOT = Path(__file__).parents[2]
#: A command takes half a second; this is for a loaded machine.
WITHIN = 40.0


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - a JSON document
        """Its standard output as JSON."""
        return json.loads(self.out)


def environment(**more: str) -> dict[str, str]:
    """Give what a command of this checkout needs, whether it is installed or not, in plain text."""
    kept = {name: value for name, value in os.environ.items() if name not in ("TICKRING_AUTH_TOKEN", "FORCE_COLOR")}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def start(
    env: dict[str, str], *arguments: str, stdin: int = subprocess.DEVNULL, terminal: int | None = None
) -> subprocess.Popen[str]:
    """Start a command. Its output goes into pipes, or to the terminal whose descriptor is given."""
    # A test run in the background may ignore SIGINT, which its children would inherit.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "cli", *arguments],
            env=env,
            text=True,
            start_new_session=True,
            stdin=stdin,
            stdout=subprocess.PIPE if terminal is None else terminal,
            stderr=subprocess.PIPE if terminal is None else terminal,
        )
    finally:
        signal.signal(signal.SIGINT, before)


def ended(process: subprocess.Popen[str]) -> Ran:
    """Wait for a command's end."""
    try:
        out, err = process.communicate(timeout=WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"{process.args!r} has not ended: {out!r} {err!r}") from None
    return Ran(process.returncode, out or "", err or "")


def tickring(env: dict[str, str], *arguments: str) -> Ran:
    """Run a command to its end."""
    return ended(start(env, *arguments))


def together(env: dict[str, str], *commands: tuple[str, ...]) -> list[Ran]:
    """Run commands at the same time."""
    return [ended(process) for process in [start(env, *command) for command in commands]]


def inside(env: dict[str, str], *arguments: str) -> Ran:
    """Run a command in this process: the same from its arguments to its exit code, and five times as quick."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    changed = (
        patch.dict(os.environ, env, clear=True),
        patch.object(sys, "argv", ["tickring", *arguments]),
        patch.object(sys, "stdin", io.StringIO()),
        redirect_stdout(out),
        redirect_stderr(err),
    )
    with ExitStack() as changes:
        for change in changed:
            changes.enter_context(change)
        try:
            run()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
    return Ran(code, out.getvalue(), err.getvalue())


def processes_of(name: str, value: str) -> list[psutil.Process]:
    """Give the live processes that have a variable of this value in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(name) == value and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


class Session:
    """A simulated venue, a supervisor, and the connection ``crypto_binance`` with two symbols, broadcast."""

    def __init__(self) -> None:
        shared = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - rings belong in shared memory
        self.runtime = Path(tempfile.mkdtemp(prefix=f"tickring-test-{os.getpid()}-", dir=shared))
        self.state = Path(tempfile.mkdtemp(prefix="tickring-state-"))
        self.env = environment(TICKRING_RUNTIME_DIR=str(self.runtime), TICKRING_STATE_DIR=str(self.state))
        self._venue = start(
            self.env, "simulate", "--json", "--until-eof", "--refuse-unknown", "--rate", "2000", stdin=subprocess.PIPE
        )
        assert self._venue.stdout is not None
        self.up = self.run("up")
        self.url = json.loads(self._venue.stdout.readline())["url"]
        self.created = self.run(
            "create", "binance", "--symbol", "btcusdt", "-s", "ETH-USDT", "--feed", "trade,quote", "--url", self.url,
            "--broadcast", "--limit", "500",
        )  # fmt: skip

    def run(self, *arguments: str) -> Ran:
        """Run a command of this session."""
        return tickring(self.env, *arguments)

    def ask(self, *arguments: str) -> Ran:
        """Run a command of this session in this process."""
        return inside(self.env, *arguments)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command of this session."""
        return start(self.env, *arguments)

    @property
    def address(self) -> str:
        """Where the connection is broadcast."""
        found: str = self.ask("status", "crypto_binance", "--json").json["connections"][0]["connection"][
            "broadcast_address"
        ]
        return found

    def close(self) -> Ran:
        """End it all."""
        try:
            return self.run("down", "--forget")
        finally:
            self._venue.communicate(timeout=WITHIN)  # closes standard input, which ends it
            shutil.rmtree(self.runtime)
            shutil.rmtree(self.state)
