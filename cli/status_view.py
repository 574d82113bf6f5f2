"""What `status` shows, as data for JSON and as tables. Pure but for the counters it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from cli import formats
from cli.gauge import Figures, Gauge
from ringbuf.counters import read_counters
from ringbuf.directory import connection_directory
from ringbuf.errors import RingError
from supervisor.control import ConnectionStatus
from supervisor.version import version

if TYPE_CHECKING:
    from rich.console import RenderableType

_STYLES: Final = {
    "ready": "green", "live": "green", "acknowledged": "green", "starting": "yellow", "requested": "yellow",
    "sent": "yellow", "backoff": "red", "failed": "red bold", "stale": "red", "refused": "red", "stopped": "dim",
    "stopping": "yellow",
}  # fmt: skip
#: From this width on the overview has all columns.
_WIDE: Final = 150


@dataclass(frozen=True)
class SupervisorView:
    """The supervisor."""

    pid: int
    version: str


@dataclass(frozen=True)
class ConnectionView:
    """One connection: what the supervisor knows of it, and what its provider counts (None if it never ran)."""

    connection: ConnectionStatus
    figures: Figures | None
    #: Why the counters cannot be read, where they cannot.
    problem: str

    @property
    def name(self) -> str:
        """Its name."""
        return self.connection.name

    @property
    def running(self) -> bool:
        """Whether its provider is meant to run."""
        return self.connection.is_running

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong; a connection that was stopped is as it was wished."""
        stale = self.figures is not None and self.running and bool(self.figures.stale)
        return self.connection.state not in ("backoff", "failed") and not stale


@dataclass(frozen=True)
class View:
    """All of it, at one moment (ns UTC)."""

    at: int
    supervisor: SupervisorView
    connections: list[ConnectionView]


class Look:
    """Looks at connections again and again, and keeps what rates need."""

    def __init__(self, supervisor_pid: int) -> None:
        self._supervisor = SupervisorView(supervisor_pid, version())
        self._gauges: dict[str, Gauge] = {}

    def view(self, connections: list[ConnectionStatus], monotonic: float, now: int) -> View:
        """Read the counters of connections, and give the view."""
        return View(now, self._supervisor, [self._one(connection, monotonic) for connection in connections])

    def _one(self, connection: ConnectionStatus, monotonic: float) -> ConnectionView:
        try:
            snapshot = read_counters(connection_directory(connection.name))
        except RingError as error:
            return ConnectionView(connection, None, str(error))
        gauge = self._gauges.setdefault(connection.name, Gauge())
        return ConnectionView(connection, gauge.add(monotonic, snapshot), "")


def state(word: str) -> Text:
    """Write a state in its colour."""
    return Text(word, _STYLES.get(word, ""))


def _age(since: int | None, now: int) -> str:
    return "-" if not since else formats.duration((now - since) / 1e9)


def _alarm(number: int) -> Text:
    """Write a count that should be 0."""
    return Text(formats.count(number), "red" if number else "")


def overview(view: View, width: int) -> RenderableType:
    """Give a table of all connections, as wide as `width` allows, and under it what needs attention."""
    title = Text.assemble(("supervisor ", "dim"), f"pid {view.supervisor.pid}", ("  tickring ", "dim"),
                          view.supervisor.version, ("  connections ", "dim"), str(len(view.connections)))  # fmt: skip
    if not view.connections:
        return Group(title, Text("no connections: make one with `tickring create binance --symbol btcusdt`", "dim"))
    wide = width >= _WIDE
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for header in ("connection", "state"):
        table.add_column(header, no_wrap=True)
    for header in ("topics", "records/s", "records", "lag p50/p99", "gaps", "last"):
        table.add_column(header, justify="right", no_wrap=True)
    if wide:
        for header in ("missed", "rejected", "reconnects", "restarts", "stale"):
            table.add_column(header, justify="right", no_wrap=True)
        table.add_column("listeners", no_wrap=True)
    for one in view.connections:
        table.add_row(*_row(one, view.at, wide=wide))
    return Group(title, Text(), table, *_notes(view, wide=wide))


def _row(one: ConnectionView, now: int, *, wide: bool) -> list[RenderableType]:
    figures, connection = one.figures, one.connection
    address = f"{connection.broadcast_address}/{one.name}" if connection.broadcast_address else "-"
    cells: list[RenderableType] = [Text(one.name, "bold"), state(connection.state)]
    if figures is None:
        return [*cells, *["-"] * (11 if wide else 6), *([address] if wide else [])]
    cells += [
        f"{figures.live}/{len(figures.topics) - len(figures.refused)}",
        formats.rate(figures.records_per_second if one.running else 0.0),
        formats.count(figures.records),
        f"{formats.lag(figures.lag_p50)}/{formats.lag(figures.lag_p99)}",
        _alarm(figures.gaps),
        _age(figures.last_record, now),
    ]
    if wide:
        cells += [
            _alarm(figures.missed), _alarm(figures.rejected), _alarm(figures.reconnects),
            _alarm(connection.restarts), _alarm(len(figures.stale)),
            address,
        ]  # fmt: skip
    return cells


def _notes(view: View, *, wide: bool) -> list[Text]:
    """Say per connection what the table has no room for."""
    notes = []
    for one in view.connections:
        said: list[tuple[str, str]] = []
        if one.connection.broadcast_address and not wide:
            said.append((f"listeners at {one.connection.broadcast_address}/{one.name}", ""))
        if one.figures is not None and one.running:
            said += [(f"stale: {', '.join(one.figures.stale)}", "red")] if one.figures.stale else []
            said += [(f"refused: {', '.join(one.figures.refused)}", "red")] if one.figures.refused else []
        said += [(one.problem, "red")] if one.problem and one.connection.state == "ready" else []
        said += [(f"last error: {one.connection.last_error}", "red")] if one.connection.last_error else []
        notes += [Text.assemble((f"{one.name}: ", "dim"), text) for text in said]
    return [Text(), *notes] if notes else []


def detail(one: ConnectionView, now: int) -> RenderableType:
    """Give everything about one connection, and its topics."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for label, value in _facts(one, now):
        table.add_row(label, value)
    if one.figures is None or not one.figures.topics:
        return table
    return Group(table, Text(), _topics(one.figures, now))


def _facts(one: ConnectionView, now: int) -> list[tuple[str, RenderableType]]:
    connection, figures = one.connection, one.figures
    age = _age(connection.since, now)
    facts: list[tuple[str, RenderableType]] = [
        ("connection", Text(f"{one.name}  ({connection.provider})", "bold")),
        ("state", Text.assemble(state(connection.state), f" for {age}" + _pid(connection.provider_pid))),
        ("symbols", connection.subscribed_symbols),
        ("token", "needed" if connection.auth_required else "none"),
        ("restarts", _alarm(connection.restarts)),
    ]
    if figures is not None:
        facts += [
            ("records", f"{formats.count(figures.records)}, {formats.rate(figures.records_per_second)}/s"),
            ("last record", f"{_age(figures.last_record, now)} ago"),
            ("received", f"{formats.count(figures.frames)} frames, {formats.size(figures.bytes)}"),
            ("lag p50 / p99", f"{formats.lag(figures.lag_p50)} / {formats.lag(figures.lag_p99)}"),
            ("gaps / missed", Text.assemble(_alarm(figures.gaps), " / ", _alarm(figures.missed))),
            ("out of order", _alarm(figures.out_of_order)),
            ("rejected", _alarm(figures.rejected)),
            ("reconnects", _alarm(figures.reconnects)),
        ]  # fmt: skip
    address = connection.broadcast_address
    kept = f"the newest {formats.count(connection.limit)}" if connection.limit else "all"
    facts += [
        ("listeners", f"{address}/{one.name}{_pid(connection.broadcast_pid)}" if address else "not broadcast"),
        ("results", f"{connection.results_file}, table {connection.table_name}, {kept}"),
    ]
    problem = connection.last_error or (one.problem if connection.state == "ready" else "")
    return [*facts, ("last error", Text(problem, "red"))] if problem else facts


def _pid(pid: int | None) -> str:
    return "" if pid is None else f", pid {pid}"


def _topics(figures: Figures, now: int) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("topic", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("records", justify="right", no_wrap=True)
    table.add_column("last", justify="right", no_wrap=True)
    table.add_column("reason")
    for topic in figures.topics:
        table.add_row(
            topic.topic, state(topic.state), formats.count(topic.records), _age(topic.last_data, now), topic.reason
        )
    return table
