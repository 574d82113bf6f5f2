"""The Python API: the toolkit's functions over the control client.

Every function finds the user's running supervisor, or starts one that ends with its last client; the conversation is
kept for the life of this process. All may be called from several threads. What connections made here have to tell is
written to standard output, as the toolkit's document shows it.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from typing import Any

import orjson

from feeds.records import Kind
from feeds.registry import provider as provider_named
from feeds.transport import redacted
from ringbuf.errors import ParameterError
from ringbuf.reader import RingReader, Start
from ringbuf.reader import attach as ring_attach
from ringbuf.waiting import WaitStrategy
from supervisor import control
from supervisor.client import ControlClient, Make, start_supervisor
from supervisor.control import Outcome
from supervisor.results import Result, WebSocketConnection, WebSocketConnectionStatus
from supervisor.results_file import read_results

_MASK = "********"


def _write_line(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class _Conversation:
    """This process's conversation with the supervisor, begun when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._client: ControlClient | None = None

    def client(self) -> ControlClient:
        """Give the conversation; a new one if there is none, or the last one has ended."""
        with self._lock:
            if self._client is not None and self._client.ended:
                self._client.close()
                self._client = None
            if self._client is None:
                self._client = start_supervisor(session=True, on_line=_write_line)
            return self._client

    def forked(self) -> None:
        """In the child of a fork: begin anew. The lock may be held by a thread that exists in the parent only."""
        self._lock = threading.Lock()
        client, self._client = self._client, None
        if client is not None:
            client.abandon()

    def close(self) -> None:
        """End it: the last client of a session's supervisor ends that too."""
        with self._lock:
            if self._client is not None:
                self._client.close()
            self._client = None


_conversation = _Conversation()
atexit.register(_conversation.close)
os.register_at_fork(after_in_child=_conversation.forked)


def close_session() -> None:
    """Leave the supervisor now, not at the end of the process. The next call begins anew."""
    _conversation.close()


def _ask(make: Make) -> Outcome:
    outcome = _conversation.client().request(make)
    for line in outcome.lines:
        _write_line(line)
    return outcome


def _arguments(
    given: dict[str, Any], provider_choices: dict[str, Any] | None = None, extra_params: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Give `extra`: what the function was called with, secrets masked."""
    shown = {name: _MASK if name == "auth_token" and value else value for name, value in given.items()}
    arguments = {"provider_choices": provider_choices or {}, "standard_params": shown}
    return {"metadata": {"arguments": {**arguments, "extra_params": extra_params or {}}}}


def _without_secrets(provider_name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Give a provider's parameters as they may be shown: keys masked, a URL without its query."""
    secret = provider_named(provider_name).parameters.model_construct().secrets()
    shown = {name: _MASK if name in secret else value for name, value in given.items()}
    if isinstance(shown.get("url"), str):
        shown["url"] = redacted(shown["url"])
    return shown


def _status_result(
    outcome: Outcome, given: dict[str, Any], *, with_answers: bool = False
) -> Result[WebSocketConnectionStatus]:
    status = WebSocketConnectionStatus.of(outcome.connections[0], outcome.answers if with_answers else None)
    return Result[WebSocketConnectionStatus](results=status, extra=_arguments(given))


def create_connection(
    provider: str,
    name: str | None = None,
    *,
    symbol: str,
    auth_token: str | None = None,
    results_file: str | None = None,
    save_results: bool = False,
    table_name: str = "records",
    limit: int | None = 1000,
    sleep_time: float = 0.25,
    broadcast_host: str = "127.0.0.1",
    broadcast_port: int = 6666,
    start_broadcast: bool = False,
    connect_kwargs: dict[str, Any] | str | None = None,
    **parameters: str | float | bool | None,
) -> Result[WebSocketConnection]:
    """Connect to a venue; returns when it has accepted.

    Args:
        provider: whose data, e.g. "binance"; `tickring providers` lists them.
        name: the connection's; ``{asset_type}_{provider}`` if left out, numbered if taken.
        symbol: one or more, comma-separated.
        auth_token: what everyone must present who uses the connection or listens to its broadcast.
        results_file: absolute path of the SQLite file; one of our own if left out.
        save_results: keep a results file that we made when the connection ends; one that was there before always stays.
        table_name: the table in it.
        limit: rows kept there, over all kinds; None keeps all.
        sleep_time: seconds between snapshots, 0.01 to 3600.
        broadcast_host: where listeners can connect.
        broadcast_port: the port for them, or the next free one.
        start_broadcast: whether to broadcast at once.
        connect_kwargs: not offered yet.
        **parameters: the provider's own: `feed`, `asset_type`, `url`, ...

    Raises:
        ParameterError: something given cannot be used; the message says what and why.
        ConnectionExists: the name is taken.
        VenueUnreachable, SubscriptionRefused, UnauthorizedError: the venue's side, in its words.
        ResultsFileError, AddressInUse, SharedMemoryFull: this machine's side.
        NotRunning: no supervisor could be started.
    """
    if connect_kwargs is not None:
        raise ParameterError("connect_kwargs need the websockets transport, which this version does not have yet.")
    chosen = {key: value for key, value in parameters.items() if value is not None}
    outcome = _ask(
        lambda number: control.Create(
            number, provider, {"symbol": symbol, **chosen}, name, auth_token, results_file, save_results, table_name,
            limit, sleep_time, broadcast_host, broadcast_port, start_broadcast,
        )
    )  # fmt: skip
    given = {"name": name, "auth_token": auth_token, "results_file": results_file, "save_results": save_results,
             "table_name": table_name, "limit": limit, "sleep_time": sleep_time, "broadcast_host": broadcast_host,
             "broadcast_port": broadcast_port, "start_broadcast": start_broadcast, "symbol": symbol}  # fmt: skip
    refused = [f"{a.topic}: {a.reason}" for a in outcome.answers if a.state == "refused"]
    return Result[WebSocketConnection](
        results=WebSocketConnection(status=WebSocketConnectionStatus.of(outcome.connections[0])),
        provider=provider,
        warnings=refused or None,
        extra=_arguments(given, {"provider": provider}, _without_secrets(provider, chosen)),
    )  # fmt: skip


def get_client_status(name: str = "all") -> Result[WebSocketConnectionStatus] | Result[list[WebSocketConnectionStatus]]:
    """Tell how one connection stands, or all of them ("all").

    Raises:
        UnknownConnection: there is none of that name.
    """
    outcome = _ask(lambda number: control.Status(number, name))
    found = [WebSocketConnectionStatus.of(status) for status in outcome.connections]
    if name == "all":
        return Result[list[WebSocketConnectionStatus]](results=found, extra=_arguments({"name": name}))
    return Result[WebSocketConnectionStatus](results=found[0], extra=_arguments({"name": name}))


def get_results(name: str, auth_token: str | None = None) -> Result[list[dict[str, Any]]]:
    """Give the captured records: what the results file holds and what the rings hold beyond it, at most `limit`.

    Raises:
        UnknownConnection: there is none of that name.
        UnauthorizedError: the token is missing or wrong.
        ResultsFileError: the file cannot be read.
    """
    outcome = _ask(lambda number: control.Authorize(number, name, auth_token))
    status = outcome.connections[0]
    texts = read_results(status.results_file, status.table_name, status.name, status.limit)
    records = [orjson.loads(text) for text in texts]
    return Result[list[dict[str, Any]]](
        results=records, provider=status.provider, extra=_arguments({"name": name, "auth_token": auth_token})
    )  # fmt: skip


def attach(
    connection: str,
    kind: str,
    *,
    start: Start = "oldest",
    wait: float = 0.0,
    waiting: WaitStrategy | None = None,
) -> RingReader:
    """Attach to a connection's ring, from any process of the same user; needs no supervisor.

    Args:
        connection: the connection's name.
        kind: "trade", "quote", "candle", "level", "price" or "event".
        start: where to begin: "oldest", "newest", or a seq; see `RingReader`.
        wait: how long to wait, in seconds, for a ring that is not there yet (it appears with its first record).
        waiting: how `read` waits; `Backoff` if left out.

    Raises:
        ParameterError: a name that cannot be a connection's, or a kind that does not exist.
        RingNotFound: there is no such ring, not even after `wait` seconds.
        RingCorrupt, RingVersionError, UnsafePath: the ring cannot be used.

    Example:
        >>> with tickring.attach("crypto_binance", "trade", wait=10) as ring:
        ...     for trades in ring:
        ...         print(trades["last_price"].mean(), trades.lost)
    """
    if kind not in set(Kind):
        raise ParameterError(f"there is no kind of record {kind!r}: choose from {', '.join(Kind)}.")
    return ring_attach(connection, kind, start=start, wait=wait, waiting=waiting)


def subscribe(name: str, symbol: str, auth_token: str | None = None) -> Result[WebSocketConnectionStatus]:
    """Add symbols, comma-separated; `results.answers` has what the venue said to each.

    Raises:
        UnknownConnection, UnauthorizedError: as for `get_results`.
        ParameterError: a symbol that cannot be one of the venue's; nothing has changed then.
    """
    outcome = _ask(lambda number: control.Subscribe(number, name, symbol, auth_token))
    return _status_result(outcome, {"name": name, "symbol": symbol, "auth_token": auth_token}, with_answers=True)


def unsubscribe(name: str, symbol: str, auth_token: str | None = None) -> Result[WebSocketConnectionStatus]:
    """Take symbols away, comma-separated.

    Raises:
        UnknownConnection, UnauthorizedError: as for `get_results`.
        ParameterError: one of them is not subscribed; nothing has changed then.
    """
    outcome = _ask(lambda number: control.Unsubscribe(number, name, symbol, auth_token))
    return _status_result(outcome, {"name": name, "symbol": symbol, "auth_token": auth_token}, with_answers=True)


def stop_connection(name: str, auth_token: str | None = None) -> Result[WebSocketConnectionStatus]:
    """End a connection's provider; its results and its broadcast stay.

    Raises:
        UnknownConnection, UnauthorizedError: as for `get_results`.
    """
    outcome = _ask(lambda number: control.Stop(number, name, auth_token))
    return _status_result(outcome, {"name": name, "auth_token": auth_token})


def kill(name: str, auth_token: str | None = None) -> Result[str]:
    """End a connection and all that belongs to it: processes, rings, broadcast, a results file not to be saved.

    Raises:
        UnknownConnection, UnauthorizedError: as for `get_results`.
    """
    _ask(lambda number: control.Kill(number, name, auth_token))
    return Result[str](results=f"Clients {name} killed.", extra=_arguments({"name": name, "auth_token": auth_token}))
