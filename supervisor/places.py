"""Where the supervisor keeps what must outlive it.

::

    ~/.local/state/tickring/            the state directory, 0700   ($TICKRING_STATE_DIR or $XDG_STATE_HOME replace it)
        <instance>/
            connections.json            the list of connections, tokens included, 0600
            logs/                       one file per process, and its predecessor NAME.log.1 if that had grown large
            results/                    results files that nobody named
            dead_letters/               frames that did not decode, per connection

and in the instance's runtime directory, beside the connections: ``control.sock`` (0600), ``supervisor.lock`` and
``family.lock`` (see `family`).
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from ringbuf.directory import instance_directory, instance_name
from ringbuf.errors import UnsafePath

#: A log of this size, in bytes, is put aside when its next process starts; one old log is kept. Logs have a line per
#: event and none per message: this is months of them.
LARGEST_LOG: Final = 8 * 2**20

#: A UNIX socket's path may have 107 bytes on Linux (sun_path), 103 on macOS.
LONGEST_SOCKET_PATH: Final = 103


def state_directory() -> Path:
    """This instance's state directory, made if it does not exist.

    Raises:
        UnsafePath: it cannot be made, or is no directory of ours.
    """
    directory = _state_root() / instance_name()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in ("logs", "results", "dead_letters"):
            (directory / part).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise UnsafePath(
            f"{directory} cannot be made ({error.strerror}): set TICKRING_STATE_DIR to a directory of yours."
        ) from error
    found = directory.stat()
    if found.st_uid != os.getuid():
        raise UnsafePath(f"{directory} belongs to someone else: set TICKRING_STATE_DIR to a directory of yours.")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):  # they could put a list of connections in place of ours
        raise UnsafePath(f"{directory} can be written by others: chmod go-w it, or set TICKRING_STATE_DIR.")
    return directory


def _state_root() -> Path:
    chosen = os.environ.get("TICKRING_STATE_DIR")
    if chosen:
        return Path(chosen).absolute()
    home = Path(os.environ.get("XDG_STATE_HOME") or "")
    if not home.is_absolute():  # the XDG specification: a relative path is invalid and is ignored
        try:
            home = Path.home() / ".local" / "state"
        except RuntimeError as error:
            raise UnsafePath("no home directory is known: set TICKRING_STATE_DIR to a directory of yours.") from error
    return home / "tickring"


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


def open_log(path: Path) -> int:
    """Open a process's log for appending and give its descriptor; a log that has grown large is put aside first."""
    with suppress(FileNotFoundError):
        if path.stat().st_size >= LARGEST_LOG:
            path.replace(path.with_name(f"{path.name}.1"))
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
