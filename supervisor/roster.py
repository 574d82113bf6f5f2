"""The list of connections on disk: what a new supervisor brings back.

One JSON file, 0600 because it holds tokens and keys, replaced as a whole by rename, so that a crash leaves the old list
or the new one. Only the supervisor writes it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from ringbuf.errors import SupervisorError


class Settings(msgspec.Struct):
    """What a connection was made with, as far as it must survive; `symbols` and `running` change while it lives."""

    name: str
    provider: str
    #: The provider's validated parameters, without `symbol`.
    parameters: dict[str, Any]
    #: The wanted symbols, in the venue's spelling.
    symbols: list[str]
    auth_token: str | None
    results_file: str
    #: Whether the results file is ours to delete.
    made_results_file: bool
    save_results: bool
    table_name: str
    limit: int | None
    sleep_time: float
    broadcast_host: str
    broadcast_port: int
    #: Whether its records are (to be) broadcast.
    broadcasting: bool
    #: Whether its provider is (to be) running.
    running: bool
    #: Whether it was made for a session, whose end is its own.
    session: bool = False


class _File(msgspec.Struct):
    version: int
    connections: list[Settings]


_VERSION = 1


def load(path: Path) -> list[Settings]:
    """Read the list; an absent file is an empty one.

    Raises:
        SupervisorError: the file cannot be read. It is left as it is: it may hold what somebody wants back.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SupervisorError(f"{path} cannot be read ({error.strerror}). Mend it, or move it away.") from error
    try:
        file = msgspec.json.decode(content, type=_File)
    except msgspec.DecodeError as error:
        raise SupervisorError(f"{path} cannot be read ({error}). Mend it, or move it away to begin anew.") from error
    if file.version != _VERSION:
        raise SupervisorError(f"{path} has version {file.version}, this tickring reads {_VERSION}. Move it away.")
    return file.connections


def save(path: Path, connections: list[Settings]) -> None:
    """Replace the list.

    Raises:
        SupervisorError: it cannot be written; the old list stays.
    """
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.unlink(missing_ok=True)  # one that a crash left could have another mode
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(_File(_VERSION, connections)), indent=2))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise SupervisorError(
            f"{path} cannot be written ({error.strerror}): changes will not survive a restart."
        ) from error
