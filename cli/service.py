"""``up`` and ``down``: the supervisor itself."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.options import Json
from cli.output import err, out, write_json

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

#: Draining, closing files and saying good-bye to listeners takes a second; this is for a loaded machine.
_DOWN_WITHIN: Final = 30.0


def _spinner(text: str) -> AbstractContextManager[object]:
    """Something that moves while one waits, on a terminal only."""
    return err().status(text) if err().is_terminal else nullcontext()


def up(
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay: run the supervisor here, log to stderr, end with Ctrl-C.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Start the supervisor; it brings back the connections it had.

    If one runs already that is told, and all is well (with --foreground: an error, because nothing can be run here).
    """
    from ringbuf.errors import AlreadyRunning, NotRunning
    from supervisor.client import ControlClient, start_supervisor
    from supervisor.places import state_directory
    from supervisor.roster import load

    try:
        with ControlClient.connect() as client:
            pid, ran = client.supervisor_pid, True
    except NotRunning:
        pid, ran = 0, False
    if foreground:
        if ran:
            raise AlreadyRunning(f"a supervisor already runs (pid {pid}): use it, or end it with `tickring down`.")
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-P", "-m", "supervisor"])  # noqa: S606 - ourselves, no shell
    remembered = [settings.name for settings in load(state_directory() / "connections.json")]
    if not ran:
        with _spinner("starting the supervisor"), start_supervisor() as client:
            pid = client.supervisor_pid
    if as_json:
        write_json({"pid": pid, "already_running": ran, "connections": remembered})
        return
    out().print(f"supervisor {'already up' if ran else 'up'}, pid {pid}", soft_wrap=True)
    if remembered:
        out().print(f"connections: {', '.join(remembered)}", soft_wrap=True)


def down(
    forget: Annotated[bool, typer.Option("--forget", help="Forget the connections, so that `up` brings none back.")]
    = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """End the supervisor and every process of it. The rings end too; connections come back with the next `up`."""
    import psutil

    from ringbuf.errors import DeadlinePassed
    from supervisor import control
    from supervisor.client import ControlClient

    with ControlClient.connect() as client, _spinner("ending connections"):
        pid = client.supervisor_pid
        outcome = client.request(lambda number: control.Down(number, forget))
        try:
            # Until it is gone, so that `down && up` works: the lock is free only then.
            psutil.Process(pid).wait(_DOWN_WITHIN)
        except psutil.NoSuchProcess:
            pass  # it was that quick
        except psutil.TimeoutExpired as error:
            raise DeadlinePassed(
                f"the supervisor (pid {pid}) was told to end, but has not after {_DOWN_WITHIN:g} s. See its log."
            ) from error
    names = [connection.name for connection in outcome.connections]
    if as_json:
        write_json({"pid": pid, "forgotten": forget, "connections": names})
        return
    out().print("supervisor down", soft_wrap=True)
    if names:
        out().print(f"{'forgotten' if forget else 'back with `tickring up`'}: {', '.join(names)}", soft_wrap=True)
