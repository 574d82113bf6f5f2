"""What the supervisor says to the recorder and the broadcasters, and they to it.

Every request has an `id` and is answered by one `Done` with the same id. `Notice` is a line for people. Framing and
child life are those of `feeds.pipe` and `feeds.child`.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from feeds.messages import Problem


class Record(msgspec.Struct, frozen=True, tag_field="event", tag="record"):
    """Recorder: snapshot a connection's rings into a results file from now on."""

    id: int
    connection: str
    results_file: str
    table_name: str
    #: Rows kept over all kinds; None keeps all.
    limit: int | None
    #: Seconds between commits.
    sleep_time: float


class Release(msgspec.Struct, frozen=True, tag_field="event", tag="release"):
    """Recorder: take a last snapshot of a connection and close its file; delete the file if asked to."""

    id: int
    connection: str
    delete: bool


class Commit(msgspec.Struct, frozen=True, tag_field="event", tag="commit"):
    """Recorder: take a snapshot of a connection now."""

    id: int
    connection: str


ToRecorder: TypeAlias = Record | Release | Commit


class Bind(msgspec.Struct, frozen=True, tag_field="event", tag="bind"):
    """Broadcaster: listen on this address, or on the next free port if it is taken. First message, once."""

    id: int
    host: str
    port: int


class Serve(msgspec.Struct, frozen=True, tag_field="event", tag="serve"):
    """Broadcaster: serve a connection's records under ``/NAME`` from now on."""

    id: int
    connection: str
    #: What a listener must present; None lets everyone listen who can reach the address.
    auth_token: str | None


class Withdraw(msgspec.Struct, frozen=True, tag_field="event", tag="withdraw"):
    """Broadcaster: close a connection's listeners and serve it no more."""

    id: int
    connection: str


ToBroadcaster: TypeAlias = Bind | Serve | Withdraw


class Done(msgspec.Struct, frozen=True, tag_field="event", tag="done"):
    """A request has been carried out, or could not be: `problem` says why."""

    id: int
    problem: Problem | None = None
    #: Bind: the port that was bound.
    port: int = 0


class Notice(msgspec.Struct, frozen=True, tag_field="event", tag="notice"):
    """A line for the people who made a connection."""

    connection: str
    text: str


FromService: TypeAlias = Done | Notice
