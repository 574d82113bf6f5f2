"""Where the supervisor keeps what must outlive it.

::

    ~/.local/state/tickring/            the state directory, 0700   ($TICKRING_STATE_DIR or $XDG_STATE_HOME replace it)
        <instance>/
            connections.json            the list of connections, tokens included, 0600
            logs/                       one file per process
            results/                    results files that nobody named
            dead_letters/               frames that did not decode, per connection

and in the instance's runtime directory, beside the connections: ``control.sock`` (0600) and ``supervisor.lock``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ringbuf.directory import instance_directory, instance_name
from ringbuf.errors import UnsafePath

#: A UNIX socket's path may have 107 bytes on Linux (sun_path), 103 on macOS.
LONGEST_SOCKET_PATH: Final = 103


def state_directory() -> Path:
    """This instance's state directory, made if it does not exist.

    Raises:
        UnsafePath: it cannot be made, or is no directory of ours.
    """
    chosen = os.environ.get("TICKRING_STATE_DIR")
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "tickring"
    directory = (Path(chosen) if chosen else base) / instance_name()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in ("logs", "results", "dead_letters"):
            (directory / part).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise UnsafePath(
            f"{directory} cannot be made ({error.strerror}): set TICKRING_STATE_DIR to a directory of yours."
        ) from error
    if directory.stat().st_uid != os.getuid():
        raise UnsafePath(f"{directory} belongs to someone else: set TICKRING_STATE_DIR to a directory of yours.")
    return directory


def control_socket(*, create: bool = False) -> Path:
    """The path of this instance's control socket.

    Raises:
        UnsafePath: the runtime directory is not ours alone, or its path is too long for a socket.
        RingNotFound: the runtime directory does not exist and `create` is false.
    """
    path = instance_directory(create=create) / "control.sock"
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        raise UnsafePath(f"{path} is too long for a socket: set TICKRING_RUNTIME_DIR to a shorter directory.")
    return path


def log_file(process: str) -> Path:
    """Where a process's log goes."""
    return state_directory() / "logs" / f"{process}.log"
