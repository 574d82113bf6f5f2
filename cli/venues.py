"""``providers`` and ``simulate``: what can be connected to, and a venue of one's own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import formats
from cli.options import Json
from cli.output import err, out, show, write_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from feeds.contract import Provider
    from feeds.simulator.command import Listening
    from feeds.simulator.venue import VenueStats


def providers(
    name: Annotated[str | None, typer.Argument(help="One provider, with its parameters; all if left out.")] = None,
    as_json: Json = False,
) -> None:
    """Show the providers: their feeds, an example symbol, how far each has been seen to work, and its parameters."""
    from feeds.registry import provider, provider_names

    found = [provider(one) for one in ([name] if name is not None else provider_names())]
    if as_json:
        described = [_describe(one) for one in found]
        write_json(described if name is None else described[0])
    elif name is None:
        _print_overview(found)
    else:
        _print_detail(found[0])


def _describe(found: Provider[Any]) -> dict[str, Any]:
    declaration = found.declaration
    return {
        "name": declaration.name,
        "title": declaration.title,
        "exchange": declaration.exchange,
        "feeds": {channel.feed: str(channel.kind) for channel in declaration.channels},
        "example_symbol": declaration.example,
        "verified": str(declaration.verified),
        "parameters": found.parameters.model_json_schema(),
    }


def _print_overview(found: list[Provider[Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for header in ("provider", "what", "feeds", "symbols like", "seen to work with"):
        table.add_column(header)
    for one in found:
        declaration = one.declaration
        feeds = ", ".join(declaration.feeds)
        table.add_row(declaration.name, declaration.title, feeds, declaration.example, str(declaration.verified))
    show(table)


def _print_detail(found: Provider[Any]) -> None:
    from rich.table import Table

    declaration = found.declaration
    feeds = ", ".join(f"{channel.feed} ({channel.kind})" for channel in declaration.channels)
    for label, value in (
        ("provider", f"{declaration.name}: {declaration.title}"), ("feeds", feeds),
        ("symbols like", declaration.example), ("seen to work", f"with {declaration.verified}"),
    ):  # fmt: skip
        out().print(f"{label:<14}{value}", soft_wrap=True)
    out().print()
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for header in ("parameter", "type", "default", "meaning"):
        table.add_column(header)
    schema = found.parameters.model_json_schema()
    required = schema.get("required", [])
    for parameter, field in schema["properties"].items():
        default = "needed" if parameter in required else _shown(field.get("default"))
        table.add_row(parameter, _type(field), default, field.get("description", ""))
    show(table)
    example = f"tickring create {declaration.name} --symbol {declaration.example} --feed {declaration.feeds[0]}"
    out().print(f"\nExample: {example}", soft_wrap=True)


def _shown(default: object) -> str:
    return "none" if default is None else str(default)


def _type(field: dict[str, Any]) -> str:
    """Write a JSON schema's type in words."""
    if "enum" in field:
        return " | ".join(map(str, field["enum"]))
    if "const" in field:
        return str(field["const"])
    parts = [part for part in field.get("anyOf", []) if part.get("type") != "null"]
    return " | ".join(_type(part) for part in parts) if parts else str(field.get("type", "any"))


def simulate(
    venue: Annotated[str, typer.Option(help="Whose protocol.")] = "binance",
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Where to listen; 0 takes a free one.")] = 0,
    capture: Annotated[
        Path | None, typer.Option(help="Replay this capture; without it a market is made.", metavar="FILE")
    ] = None,
    speed: Annotated[str, typer.Option(help="A factor, or 'full'.")] = "1",
    symbols: Annotated[int, typer.Option(help="Symbols of the market.")] = 200,
    rate: Annotated[float, typer.Option(help="Events a second of the market, or of a capture without times.")] = 2000.0,
    seed: Annotated[int, typer.Option(help="The same seed makes the same market.")] = 1,
    loop: Annotated[str, typer.Option(help="How often the capture is replayed, or 'forever'.")] = "1",
    start_after: Annotated[int, typer.Option(help="Subscriptions that start a client's replay.")] = 1,
    close_at_end: Annotated[bool, typer.Option("--close-at-end", help="Close when a replay is over.")] = False,
    refuse_unknown: Annotated[bool, typer.Option("--refuse-unknown", help="Refuse streams there are not.")] = False,
    ping_interval: Annotated[float, typer.Option(help="Seconds between pings; 0 for none.")] = 20.0,
    pong_deadline: Annotated[float, typer.Option(help="Seconds a client has to answer a ping.")] = 60.0,
    buffer_limit: Annotated[int, typer.Option(help="Unread bytes that cut a client off.")] = 4 * 1024 * 1024,
    until_eof: Annotated[bool, typer.Option("--until-eof", help="End when standard input ends.")] = False,
    as_json: Json = False,
) -> None:
    """Be a venue on this machine: a websocket server with its protocol and a market or a capture, until Ctrl-C.

    With --json one line says where it listens: {"url": ..., "port": ...}.
    """
    import uvloop

    from feeds.simulator.command import SimulatorOptions, run_simulator, write_line
    from feeds.simulator.pace import parse_speed
    from ringbuf.errors import ParameterError

    if loop != "forever" and not (loop.isdecimal() and int(loop)):
        raise ParameterError(f"--loop is a number above 0, or 'forever', not {loop!r}.")
    options = SimulatorOptions(
        venue, host, port, capture, parse_speed(speed), symbols, rate, seed, None if loop == "forever" else int(loop),
        start_after, close_at_end, refuse_unknown, ping_interval, pong_deadline, buffer_limit, until_eof,
    )  # fmt: skip
    uvloop.run(run_simulator(options, write_line if as_json else _announce, _counter()))


def _announce(listening: Listening) -> None:
    out().print(
        f"a simulated {listening.venue} listens, {listening.streams:,} streams; Ctrl-C ends it\n  {listening.url}\n"
        f"try: tickring create {listening.venue} --symbol btcusdt --feed trade,quote --url {listening.url}",
        soft_wrap=True,
    )


def _counter() -> Callable[[VenueStats], None] | None:
    """Give what shows the venue's counts on a terminal, in one line that is written over; None elsewhere."""
    if not err().is_terminal:
        return None
    last = (time.monotonic(), 0)

    def show(stats: VenueStats) -> None:
        nonlocal last
        now, (then, frames) = time.monotonic(), last
        rate = (stats.frames_sent - frames) / (now - then) if now > then else 0.0
        last = (now, stats.frames_sent)
        err().print(
            f"{stats.open} clients  {formats.rate(rate)} frames/s  {formats.count(stats.frames_sent)} frames  "
            f"{formats.size(stats.bytes_sent)}  {stats.refusals} refused  {stats.closed_too_slow} cut off",
            end="\r", style="dim", overflow="crop", no_wrap=True,
        )  # fmt: skip

    return show
