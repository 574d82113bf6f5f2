"""``results``, ``attach`` and ``listen``: records, from the results file, from a ring, from a broadcaster.

None of them asks the supervisor for records: it has none. `results` asks it which file, and whether the token is right;
`attach` and `listen` need no supervisor at all.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.options import Json, Name, TokenFile, read_token
from cli.output import out, say, warn, write

if TYPE_CHECKING:
    from ringbuf.reader import RingReader
    from ringbuf.records import Records

#: How many rows a table on a terminal has unless asked otherwise: about a screen.
_TABLE_ROWS: Final = 20
#: How long `attach` waits before it looks whether the ring still has a writer, in seconds.
_QUIET: Final = 1.0

_KINDS: Final = ("trade", "quote", "candle", "level", "price", "event")


def _kinds(incomplete: str) -> list[str]:
    return [kind for kind in _KINDS if kind.startswith(incomplete)]


def results(
    name: Name,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="At most so many, the newest; a table has 20.")
    ] = None,
    symbol: Annotated[str | None, typer.Option(help="Only these symbols, by commas.")] = None,
    kind: Annotated[str | None, typer.Option("--type", help="Only this kind.", autocompletion=_kinds)] = None,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print one JSON object a line.")] = False,
    csv: Annotated[str | None, typer.Option(help="Write CSV to this file, or to standard output: -", metavar="FILE")]
    = None,
    auth_token_file: TokenFile = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Show the captured records, oldest first: what the results file holds and what the ring holds beyond it.

    On a terminal a table of the newest; else lines, unless --json, --jsonl or --csv says otherwise.
    """
    from supervisor import control
    from supervisor.client import ControlClient
    from supervisor.results_file import read_results

    if sum((as_json, jsonl, csv is not None)) > 1:
        raise typer.BadParameter("choose one of --json, --jsonl and --csv.")
    if kind is not None:
        _check_kind(kind)
    token = read_token(auth_token_file)
    with ControlClient.connect() as client:
        found = client.request(lambda number: control.Authorize(number, name, token)).connections[0]
    shown = limit or (_TABLE_ROWS if not (as_json or jsonl or csv) and out().is_terminal else None)
    filtered = symbol is not None or kind is not None
    most = found.limit if filtered or shown is None else min(shown, found.limit or shown)
    texts = read_results(found.results_file, found.table_name, found.name, most)
    if filtered:
        texts = _matching(texts, symbol, kind)
    texts = texts if shown is None else texts[-shown:]
    _show(texts, as_json=as_json, jsonl=jsonl, csv=csv)


def _matching(texts: list[bytes], symbol: str | None, kind: str | None) -> list[bytes]:
    import orjson

    symbols = None if symbol is None else {part.strip().casefold() for part in symbol.split(",")}
    found = []
    for text in texts:
        record = orjson.loads(text)
        right_symbol = symbols is None or str(record.get("symbol", "")).casefold() in symbols
        if right_symbol and (kind is None or record.get("type") == kind):
            found.append(text)
    return found


def _show(texts: list[bytes], *, as_json: bool, jsonl: bool, csv: str | None) -> None:
    import orjson

    from cli import lines

    if as_json:
        write("[" + ",\n ".join(text.decode() for text in texts) + "]\n")
    elif jsonl:
        write("".join(text.decode() + "\n" for text in texts))
    elif csv is not None:
        _write_csv([orjson.loads(text) for text in texts], csv)
    elif not texts:
        say("no records.")
    elif out().is_terminal:
        out().print(lines.table(orjson.loads(text) for text in texts))
    else:
        write("".join(f"{lines.line(orjson.loads(text)).plain}\n" for text in texts))


def _write_csv(records: list[dict[str, Any]], place: str) -> None:
    import csv
    import io

    from ringbuf.errors import TickringError

    columns = list(dict.fromkeys(name for record in records for name in record))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    if place == "-":
        write(text.getvalue())
        return
    try:
        Path(place).write_text(text.getvalue(), newline="")
    except OSError as error:
        raise TickringError(f"{place} cannot be written: {error.strerror}.") from error
    say(f"{len(records):,} records written to {place}")


def _check_kind(kind: str) -> None:
    from ringbuf.errors import ParameterError

    if kind not in _KINDS:
        raise ParameterError(f"there is no kind {kind!r}: choose from {', '.join(_KINDS)}.")


def attach(
    name: Name,
    kind: Annotated[str, typer.Argument(help="trade, quote, candle, level, price or event.", autocompletion=_kinds)],
    start: Annotated[str, typer.Option(help="Where to begin: oldest, newest, or a sequence number.")] = "newest",
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for a ring that is not there yet.")] = 5.0,
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, help="End after so many records.")] = None,
    symbol: Annotated[str | None, typer.Option(help="Only these symbols, by commas.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Read a connection's ring straight from shared memory and print its records, until Ctrl-C.

    Times are UTC. What was lost, because this reader was too slow or a writer died, is told on standard error where it
    happens, and summed up at the end.
    """
    from ringbuf.reader import attach as attach_ring

    _check_kind(kind)
    with attach_ring(name, kind, start=_start(start), wait=wait) as ring:
        try:
            _follow(ring, count, symbol, as_json=as_json)
        finally:
            say(f"received {ring.received:,}, lost {ring.lost:,}, from seq {ring.start:,} to {ring.cursor:,}")


def _start(text: str) -> Any:  # noqa: ANN401 - the reader's own type, not imported here for the sake of quick help
    from ringbuf.errors import ParameterError

    if text in ("oldest", "newest"):
        return text
    if not text.isdecimal():
        raise ParameterError(f"--start is 'oldest', 'newest' or a sequence number, not {text!r}.")
    return int(text)


def _follow(ring: RingReader, count: int | None, symbol: str | None, *, as_json: bool) -> None:
    """Print records until there have been `count`."""
    printed = 0
    quiet_told = False
    while count is None or printed < count:
        # A filter may drop what was read: then reading fewer than what is missing would only be slower.
        limit = None if count is None or symbol is not None else count - printed
        records = ring.read(limit, timeout=_QUIET)
        for gap in records.gaps:
            warn(f"gap: {gap.count:,} records from seq {gap.first:,} on are lost ({gap.reason})")
        if not len(records):
            if not records.gaps and not quiet_told and not ring.writer_alive:
                quiet_told = True
                say("nobody writes this ring now: its provider is stopped or starting. Waiting; Ctrl-C ends this.")
            continue
        quiet_told = False
        printed += _print(_only(records, ring, symbol), None if count is None else count - printed, as_json=as_json)


def _only(records: Records, ring: RingReader, symbol: str | None) -> Records:
    """Give the records of some symbols, ignoring case."""
    import numpy as np

    from ringbuf.records import Records

    if symbol is None:
        return records
    wanted = {part.strip().casefold() for part in symbol.split(",")}
    ids = [number for number, known in enumerate(records.names()) if known.casefold() in wanted]
    return Records(records.array[np.isin(records["symbol"], ids)], records.connection, records.kind, ring.symbols.names)


def _print(records: Records, most: int | None, *, as_json: bool) -> int:
    from cli import lines
    from feeds import encoding
    from ringbuf.records import Records

    if most is not None and len(records) > most:
        records = Records(records.array[:most], records.connection, records.kind, records.names)
    if as_json:
        write("".join(text.decode() + "\n" for text in encoding.lines(records)))
    elif out().is_terminal:
        for record in encoding.objects(records):
            out().print(lines.line(record), soft_wrap=True)
    else:
        write("".join(f"{lines.line(record).plain}\n" for record in encoding.objects(records)))
    return len(records)


def listen(
    url: Annotated[str, typer.Argument(help="The address, e.g. ws://127.0.0.1:6666/crypto_binance.")],
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, help="End after so many messages.")] = None,
    auth_token_file: TokenFile = None,
) -> None:
    """Print what a broadcaster sends, one JSON object a line, until it ends or Ctrl-C; Ctrl-C ends only this."""
    from itertools import islice

    from supervisor.listen import messages, public_address

    token = read_token(auth_token_file)
    say(f"Listening for messages from {public_address(url)}")
    for message in islice(messages(url, token), count):
        write(f"{message}\n")
    if count is None:
        say("Disconnected from server.")
