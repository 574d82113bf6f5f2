"""The commands, put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

import typer

from cli import connections, data, demo, service, status, venues

_FIRST: Final = "To begin with"
_SERVICE: Final = "Supervisor"
_CONNECTIONS: Final = "Connections"
_DATA: Final = "Data"
_VENUES: Final = "Venues"

#: Every command: what it is called, what does it, where the help lists it, and an example.
COMMANDS: Final[tuple[tuple[str, Callable[..., None], str, str], ...]] = (
    ("demo", demo.demo, _FIRST, "tickring demo --seconds 10"),
    ("up", service.up, _SERVICE, "tickring up"),
    ("down", service.down, _SERVICE, "tickring down --forget"),
    ("create", connections.create, _CONNECTIONS,
     "tickring create binance --symbol btcusdt,ethusdt --feed trade,quote --broadcast"),
    ("status", status.status, _CONNECTIONS, "tickring status crypto_binance --watch"),
    ("subscribe", connections.subscribe, _CONNECTIONS, "tickring subscribe crypto_binance solusdt"),
    ("unsubscribe", connections.unsubscribe, _CONNECTIONS, "tickring unsubscribe crypto_binance solusdt"),
    ("stop", connections.stop, _CONNECTIONS, "tickring stop crypto_binance"),
    ("kill", connections.kill, _CONNECTIONS, "tickring kill all --yes"),
    ("results", data.results, _DATA, "tickring results crypto_binance --symbol btcusdt --csv trades.csv"),
    ("attach", data.attach, _DATA, "tickring attach crypto_binance trade --json"),
    ("listen", data.listen, _DATA, "tickring listen ws://127.0.0.1:6666/crypto_binance"),
    ("providers", venues.providers, _VENUES, "tickring providers binance"),
    ("simulate", venues.simulate, _VENUES, "tickring simulate --port 9001 --rate 5000"),
)  # fmt: skip

app = typer.Typer(
    name="tickring",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["--help", "-h"]},
    epilog=(
        "Exit codes: 0 done, 1 failed, 2 usage, 3 not running or not found, 4 unhealthy, 5 timed out, 130 interrupted."
    ),
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from supervisor.version import version

        typer.echo(f"tickring {version()}")
        raise typer.Exit


@app.callback()
def tickring(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Say which version this is.")
    ] = False,
) -> None:
    """Live market data for Python, in shared memory: one process per feed, any number of readers."""


def _add(name: str, command: Callable[..., Any], panel: str, example: str) -> None:
    app.command(name, help=_paragraphs(command), rich_help_panel=panel, epilog=f"Example: {example}")(command)


def _paragraphs(command: Callable[..., Any]) -> str:
    """Give a docstring's paragraphs as one line each: the terminal is to break them, not the source."""
    return "\n\n".join(" ".join(part.split()) for part in (command.__doc__ or "").split("\n\n"))


for _command in COMMANDS:
    _add(*_command)
