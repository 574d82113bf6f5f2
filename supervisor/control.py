"""What clients and the supervisor say to each other on the control socket.

::

    client                                        supervisor
      Hello ------------------------------------->
                                 <---------------  Welcome, or Refusal and the end: another protocol version
      a request with an id ----------------------->
                                 <---------------  Outcome | Refusal with the same id, in any order
                                 <---------------  Line, whenever a connection made here has something to tell

Framing as everywhere (see `feeds.pipe`). The socket is 0600: who can open it is the user. Control is small: records
never come this way, every reader takes them from the rings and files.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec

from feeds.messages import Problem, TopicAnswer

#: The exit code of a supervisor process that found another one at work, as its starter wants to know: it is
#: none of the command line's codes, nor a traceback's 1 (EX_TEMPFAIL of sysexits.h).
EXIT_ALREADY_RUNNING: Final = 75

#: Raised when a message changes its meaning or loses a field; new optional fields need no new version.
PROTOCOL: Final = 1


class Hello(msgspec.Struct, frozen=True, tag_field="call", tag="hello"):
    """The first message of a client."""

    protocol: int
    version: str


class Create(msgspec.Struct, frozen=True, tag_field="call", tag="create_connection"):
    """Make a connection; see `supervisor.api.create_connection` for the fields."""

    id: int
    provider: str
    parameters: dict[str, Any]
    name: str | None = None
    auth_token: str | None = None
    results_file: str | None = None
    save_results: bool = False
    table_name: str = "records"
    limit: int | None = 1000
    sleep_time: float = 0.25
    broadcast_host: str = "127.0.0.1"
    broadcast_port: int = 6666
    start_broadcast: bool = False


class Status(msgspec.Struct, frozen=True, tag_field="call", tag="get_client_status"):
    """Tell of one connection, or of "all"."""

    id: int
    name: str = "all"


class Subscribe(msgspec.Struct, frozen=True, tag_field="call", tag="subscribe"):
    """Add symbols to a connection."""

    id: int
    name: str
    symbol: str
    auth_token: str | None = None


class Unsubscribe(msgspec.Struct, frozen=True, tag_field="call", tag="unsubscribe"):
    """Take symbols from a connection."""

    id: int
    name: str
    symbol: str
    auth_token: str | None = None


class Stop(msgspec.Struct, frozen=True, tag_field="call", tag="stop_connection"):
    """End a connection's provider; its results and broadcast stay."""

    id: int
    name: str
    auth_token: str | None = None


class Kill(msgspec.Struct, frozen=True, tag_field="call", tag="kill"):
    """End a connection and all that belongs to it."""

    id: int
    name: str
    auth_token: str | None = None


class Authorize(msgspec.Struct, frozen=True, tag_field="call", tag="authorize"):
    """Check a token, and tell where the results are: what `get_results` asks first."""

    id: int
    name: str
    auth_token: str | None = None


class Down(msgspec.Struct, frozen=True, tag_field="call", tag="down"):
    """End the supervisor and everything it runs; forget the connections if asked to."""

    id: int
    forget: bool = False


Request: TypeAlias = Create | Status | Subscribe | Unsubscribe | Stop | Kill | Authorize | Down
ToSupervisor: TypeAlias = Hello | Request


class ConnectionStatus(msgspec.Struct, frozen=True):
    """One connection as the supervisor knows it. The first eleven fields are the toolkit document's."""

    name: str
    auth_required: bool
    subscribed_symbols: str
    is_running: bool
    provider_pid: int | None
    is_broadcasting: bool
    broadcast_address: str | None
    broadcast_pid: int | None
    results_file: str
    table_name: str
    save_results: bool
    provider: str
    limit: int | None
    #: stopped, starting, ready, backoff, stopping, failed
    state: str
    #: Since when it is in that state, ns UTC.
    since: int
    #: How often the provider process was started again after a death.
    restarts: int
    #: What went wrong last, in words; empty if nothing did.
    last_error: str


class Welcome(msgspec.Struct, frozen=True, tag_field="answer", tag="welcome"):
    """The answer to Hello."""

    protocol: int
    version: str
    pid: int


class Outcome(msgspec.Struct, frozen=True, tag_field="answer", tag="outcome"):
    """What a request gave."""

    id: int
    connections: list[ConnectionStatus]
    answers: list[TopicAnswer] = []
    #: Lines for people that belong to this request.
    lines: list[str] = []


class Refusal(msgspec.Struct, frozen=True, tag_field="answer", tag="refusal"):
    """Why a request was not carried out; id 0 means the whole conversation."""

    id: int
    problem: Problem


class Line(msgspec.Struct, frozen=True, tag_field="answer", tag="line"):
    """Something that happened to a connection made by this client."""

    connection: str
    text: str


FromSupervisor: TypeAlias = Welcome | Outcome | Refusal | Line
