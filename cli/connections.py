"""``create``, ``subscribe``, ``unsubscribe``, ``stop`` and ``kill``: what changes connections."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import Json, Name, Names, Symbols, TokenFile, joined, read_token
from cli.output import out, say, warn, write_json

if TYPE_CHECKING:
    from feeds.messages import TopicAnswer
    from supervisor.client import Make
    from supervisor.control import ConnectionStatus, Outcome


def _providers(incomplete: str) -> list[str]:
    from feeds.registry import provider_names

    return [name for name in provider_names() if name.startswith(incomplete)]


def _ask(make: Make) -> Outcome:
    from supervisor.client import ControlClient

    with ControlClient.connect() as client:
        return client.request(make)


def create(
    provider: Annotated[str, typer.Argument(help="Whose data; see `tickring providers`.", autocompletion=_providers)],
    symbol: Annotated[
        list[str], typer.Option("--symbol", "-s", help="Symbols, by commas; may be repeated.", metavar="SYMBOLS")
    ],
    name: Annotated[str | None, typer.Option(help="The connection's name; else chosen, e.g. crypto_binance.")] = None,
    feed: Annotated[str | None, typer.Option(help="The provider's feeds, by commas, e.g. trade,quote.")] = None,
    url: Annotated[str | None, typer.Option(help="Connect here instead of the venue, e.g. to a simulator.")] = None,
    auth_token_file: TokenFile = None,
    results_file: Annotated[
        Path | None, typer.Option(help="The SQLite file of snapshots; one of our own if left out.", metavar="FILE")
    ] = None,
    save_results: Annotated[
        bool, typer.Option("--save-results", help="Keep a results file that we made when the connection ends.")
    ] = False,
    table_name: Annotated[str, typer.Option(help="The table in the results file.")] = "records",
    limit: Annotated[str, typer.Option(help="Rows kept in the results file, or 'none' for all.")] = "1000",
    sleep_time: Annotated[float, typer.Option(help="Seconds between snapshots.")] = 0.25,
    broadcast: Annotated[bool, typer.Option("--broadcast", help="Serve the records to websocket listeners.")] = False,
    broadcast_host: Annotated[str, typer.Option(help="Where listeners connect.")] = "127.0.0.1",
    broadcast_port: Annotated[int, typer.Option(help="The port for them; the next free one if taken.")] = 6666,
    parameters: Annotated[
        list[str] | None,
        typer.Option("--set", help="A parameter of the provider; may be repeated.", metavar="KEY=VALUE"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Connect to a venue; returns when it has accepted, and says what it answered per symbol.

    Listeners and everyone who uses the connection need its token, if it is given one: in a file (--auth-token-file) or
    in the environment (TICKRING_AUTH_TOKEN).
    """
    from supervisor import control

    chosen: dict[str, object] = {"symbol": joined(symbol), **_assignments(parameters or [])}
    chosen.update({key: value for key, value in (("feed", feed), ("url", url)) if value is not None})
    token = read_token(auth_token_file)
    file = None if results_file is None else str(results_file.expanduser().absolute())
    rows = _limit(limit)
    outcome = _ask(
        lambda number: control.Create(
            number, provider, chosen, name, token, file, save_results, table_name, rows, sleep_time,
            broadcast_host, broadcast_port, broadcast,
        )
    )  # fmt: skip
    connection = outcome.connections[0]
    if as_json:
        _write(connection, outcome.answers)
    else:
        _print_answers(outcome.answers)
        _print_connection(connection)
    if broadcast and not (connection.broadcast_address or "").endswith(f":{broadcast_port}"):
        say(f"port {broadcast_port} is taken: listeners connect to {connection.broadcast_address}")
    for answer in _refused(outcome.answers):
        warn(f"{answer.topic or answer.symbol} refused: {answer.reason}")


def _assignments(pairs: list[str]) -> dict[str, str]:
    """Read ``key=value``. Raises ParameterError for what is not."""
    from ringbuf.errors import ParameterError

    for pair in pairs:
        if not pair.partition("=")[0].strip() or "=" not in pair:
            raise ParameterError(f"--set takes KEY=VALUE, such as --set environment=testnet, not {pair!r}.")
    return {pair.partition("=")[0].strip(): pair.partition("=")[2] for pair in pairs}


def _limit(text: str) -> int | None:
    from ringbuf.errors import ParameterError

    if text.lower() == "none":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ParameterError(f"--limit is a number of rows above 0, or 'none' to keep all, not {text!r}.")
    return int(text)


def _refused(answers: list[TopicAnswer]) -> list[TopicAnswer]:
    return [answer for answer in answers if answer.state == "refused"]


def _write(connection: ConnectionStatus, answers: list[TopicAnswer]) -> None:
    import msgspec

    write_json({**msgspec.to_builtins(connection), "answers": answers})


def _print_answers(answers: list[TopicAnswer]) -> None:
    from rich.text import Text

    width = max((len(answer.topic or answer.symbol) for answer in answers), default=0)
    for answer in answers:
        good = answer.state not in ("refused", "stale")
        line = Text(f"{answer.topic or answer.symbol:<{width}}  ")
        line.append(answer.state, style="green" if good else "red")
        line.append(f"  {answer.reason}" if answer.reason else "")
        out().print(line, soft_wrap=True)


def _print_connection(connection: ConnectionStatus) -> None:
    out().print(f"{connection.name} is {connection.state}, pid {connection.provider_pid}", soft_wrap=True)
    out().print(f"results in {connection.results_file}, table {connection.table_name}", soft_wrap=True)
    if connection.broadcast_address:
        out().print(f"listeners at {connection.broadcast_address}/{connection.name}", soft_wrap=True)


def subscribe(
    name: Name, symbols: Symbols, auth_token_file: TokenFile = None, as_json: Json = False
) -> None:  # fmt: skip
    """Add symbols to a running connection, and say what the venue answered per symbol; 1 if it refused one."""
    from supervisor import control

    token = read_token(auth_token_file)
    outcome = _ask(lambda number: control.Subscribe(number, name, joined(symbols), token))
    _tell_change(outcome, as_json=as_json)


def unsubscribe(
    name: Name, symbols: Symbols, auth_token_file: TokenFile = None, as_json: Json = False
) -> None:  # fmt: skip
    """Take symbols from a running connection."""
    from supervisor import control

    token = read_token(auth_token_file)
    outcome = _ask(lambda number: control.Unsubscribe(number, name, joined(symbols), token))
    _tell_change(outcome, as_json=as_json)


def _tell_change(outcome: Outcome, *, as_json: bool) -> None:
    connection = outcome.connections[0]
    if as_json:
        _write(connection, outcome.answers)
    else:
        _print_answers(outcome.answers)
        out().print(f"{connection.name} has {connection.subscribed_symbols}", soft_wrap=True)
    if _refused(outcome.answers):
        raise typer.Exit(1)


def stop(name: Name, auth_token_file: TokenFile = None, as_json: Json = False) -> None:
    """End a connection's provider; its results and its broadcast stay."""
    from supervisor import control

    token = read_token(auth_token_file)
    outcome = _ask(lambda number: control.Stop(number, name, token))
    if as_json:
        _write(outcome.connections[0], [])
        return
    for line in outcome.lines:
        out().print(line, soft_wrap=True)


def kill(
    names: Names,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before killing all.")] = False,
    auth_token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """End connections and all that belongs to them: processes, rings, broadcasts, results files not to be saved."""
    from ringbuf.errors import ParameterError
    from supervisor import control
    from supervisor.client import ControlClient

    token = read_token(auth_token_file)
    with ControlClient.connect() as client:
        wanted = list(dict.fromkeys(names))
        if "all" in wanted:
            wanted = [found.name for found in client.request(control.Status).connections]
            if wanted and not yes:
                if not sys.stdin.isatty():
                    raise ParameterError("killing all connections needs --yes where nobody can be asked.")
                typer.confirm(f"Kill {', '.join(wanted)}?", abort=True, err=True)
        for name in wanted:
            client.request(lambda number, name=name: control.Kill(number, name, token))  # type: ignore[misc]  # a default
    if as_json:
        write_json({"killed": wanted})
    elif wanted:
        out().print(f"Clients {', '.join(wanted)} killed.", soft_wrap=True)
    else:
        say("there is no connection.")
