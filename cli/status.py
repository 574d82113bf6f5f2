"""``status``: how connections stand, from the supervisor and straight from their counters in shared memory.

The supervisor knows processes and states; what a provider counts is read from its `counters` file, which costs nobody
anything. Rates need two looks, half a second apart.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.options import Json, OneOrAll
from cli.output import out, show, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from cli.status_view import View

#: Between the two looks of a single status, in seconds: long enough for a rate, short enough to wait for.
_BETWEEN_LOOKS: Final = 0.5
_UNHEALTHY: Final = 4


def status(
    name: OneOrAll = "all",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it anew until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between looks when watching.")] = 1.0,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 4 if a connection failed or backs off, or a topic is stale.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show how connections stand: state, rates, lag, gaps, what is stale and what went wrong last.

    Lags are upper bounds, of the last seconds where records came. With --watch --json there is one document a line.
    """
    if watch:
        _watch(_views(name, interval), as_json=as_json)
        return
    views = _views(name, _BETWEEN_LOOKS)
    shown = next(views)
    if any(view.running for view in shown.connections):
        shown = next(views)
    if as_json:
        write_json(shown)
    else:
        show(_render(name, shown))
    if check and not all(view.healthy for view in shown.connections):
        raise typer.Exit(_UNHEALTHY)


def _views(name: str, interval: float) -> Iterator[View]:
    """Look again and again, `interval` seconds apart; the first look has no rates."""
    from cli.status_view import Look
    from supervisor import control
    from supervisor.client import ControlClient

    with ControlClient.connect() as client:
        look = Look(client.supervisor_pid)
        while True:
            connections = client.request(lambda number: control.Status(number, name)).connections
            yield look.view(connections, time.monotonic(), time.time_ns())
            time.sleep(interval)


def _render(name: str, view: View) -> RenderableType:
    from cli.status_view import detail, overview

    width = out().width
    return overview(view, width) if name == "all" else detail(view.connections[0], view.at)


def _watch(views: Iterator[View], *, as_json: bool) -> None:
    from rich.live import Live

    if as_json or not out().is_terminal:
        for view in views:
            if as_json:
                write_json(view, indent=False)
            else:
                show(_render("all", view))
        return
    with Live(console=out(), screen=True, auto_refresh=False) as live:
        for view in views:
            live.update(_render("all" if len(view.connections) != 1 else view.connections[0].name, view), refresh=True)
