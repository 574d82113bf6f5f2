"""``demo``: the whole of tickring on this machine alone, live in the terminal, and nothing left when it ends.

::

    build (demo_stage, in the background) -> look and draw, four times a second -> finish -> clear -> summary

The picture goes to standard error, the summary to standard output. Exit codes: 0 after --seconds, and after Ctrl-C
where no --seconds were given, for that is how it ends; 130 for Ctrl-C before its time; 143 and 129 for SIGTERM and
SIGHUP; 4 if records were missing; 1 if something could not be set up, or was left behind.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.options import Json
from cli.output import err, out, say, write_json

if TYPE_CHECKING:
    from cli.demo_show import Show
    from cli.demo_stage import Stage
    from cli.ending import Ending
    from cli.gauge import Figures

#: Seconds between two pictures: as often as numbers can be read.
_REFRESH: Final = 0.25
_BUILD_REFRESH: Final = 0.05
#: Seconds between two looks at what costs more than memory: the supervisor's answer, a query of the results file.
_SECOND: Final = 1.0
_UNHEALTHY: Final = 4


@dataclass(frozen=True)
class Summary:
    """What the demo did. Lags are upper bounds in ms."""

    seconds: float
    symbols: int
    records: int
    records_per_second: float
    lag_p50_ms: float | None
    lag_p99_ms: float | None
    gaps: int
    missed: int
    rejected: int
    reconnects: int
    reader_received: int
    reader_lost: int
    snapshot_rows: int
    snapshot_records: int
    listener_frames: int
    listener_lost: int
    left_behind: list[str]

    @property
    def whole(self) -> bool:
        """Whether there were records, and nobody missed one."""
        lost = self.gaps + self.rejected + self.reader_lost + self.listener_lost
        return self.records > 0 and not lost and self.snapshot_records == self.records


@dataclass(frozen=True)
class _Ran:
    """How the run was: seconds, records a second in it, and the figures at its end."""

    seconds: float
    records_per_second: float
    figures: Figures


def demo(
    seconds: Annotated[float | None, typer.Option(min=0.5, help="End after so long; else with Ctrl-C.")] = None,
    symbols: Annotated[int, typer.Option(help="How many of the market's 200 symbols are subscribed.")] = 10,
    rate: Annotated[float, typer.Option(help="Events a second of the whole market.")] = 10_000.0,
    as_json: Json = False,
) -> None:
    """See it run: a simulated Binance, live in the terminal. No network, and nothing is left behind.

    A supervisor of its own runs one connection with trades and quotes, snapshots and a broadcaster. While it runs, it
    says which commands to try from another terminal.
    """
    from cli.ending import Ending

    with Ending() as ending:
        # Only now what takes its time: a Ctrl-C during an import can get lost in it.
        from cli.demo_stage import Stage

        stage = Stage(symbols, rate)
        ran, left = None, list[str]()
        try:
            if not ending.signal:
                stage.start()
                ran = _show(stage, ending, seconds)
        except OSError:  # the terminal has gone
            if not ending.signal:
                raise
        finally:
            left = stage.clear(lambda: ending.times > 1)
    if stage.problem is not None and not ending.signal:
        raise stage.problem
    summary = None if ran is None else _summary(stage, ran, left)
    if summary is not None and ending.signal != signal.SIGHUP:
        write_json(asdict(summary)) if as_json else _print(summary)
    for what in left:
        say(f"left behind: {what}")
    if ending.signal and not (summary is not None and seconds is None and ending.signal == signal.SIGINT):
        raise typer.Exit(ending.exit_code)
    if left or summary is None or not summary.whole:
        raise typer.Exit(1 if left else _UNHEALTHY)


def _show(stage: Stage, ending: Ending, seconds: float | None) -> _Ran | None:
    """Build, run and finish; None if it was ended before all was there, or something went wrong."""
    from cli.demo_show import open_show

    with open_show(err()) as show:
        while stage.building:
            show.starting(stage.done, stage.doing)
            if ending.wait(_BUILD_REFRESH):
                return None
        if not stage.built:
            return None
        elapsed, rate = _run(stage, ending, seconds, show)
    return _Ran(elapsed, rate, stage.finish())


def _run(stage: Stage, ending: Ending, seconds: float | None, show: Show) -> tuple[float, float]:
    """Show how it goes until it is to end; give how long that was, and the records a second."""
    from cli.demo_view import Scene

    commands = _commands(stage)
    stage.look()  # what has gathered in the rings meanwhile
    first = stage.begin().records
    began = time.monotonic()
    state, rows, cpu, looked = "ready", 0, stage.provider_cpu(), 0.0
    while True:
        figures, elapsed = stage.look(), time.monotonic() - began
        if ending.signal or (seconds is not None and elapsed >= seconds):
            return elapsed, (figures.records - first) / elapsed
        if elapsed - looked >= _SECOND:
            state, rows, cpu, looked = stage.status().state, stage.snapshot()[0], stage.provider_cpu(), elapsed
        frames, lost = stage.heard()
        market = f"a simulated Binance, {stage.market_symbols} symbols, {stage.rate:,.0f} events/s"
        show.scene(
            Scene(elapsed, seconds, market, state, figures, stage.board.lines, stage.rings(), cpu, rows, frames, lost,
                  commands)
        )  # fmt: skip
        ending.wait(_REFRESH if seconds is None else min(_REFRESH, seconds - elapsed))


def _commands(stage: Stage) -> list[str]:
    """What to type in another terminal: first what makes it find this instance, then what is worth a look."""
    settings = [f"TICKRING_INSTANCE={stage.instance}"]
    if "TICKRING_RUNTIME_DIR" in os.environ:
        settings.append(f"TICKRING_RUNTIME_DIR={shlex.quote(os.environ['TICKRING_RUNTIME_DIR'])}")
    program = Path(sys.argv[0])
    if program.name != "tickring":  # run as a module, perhaps from a checkout that is not installed
        if "PYTHONPATH" in os.environ:
            settings.append(f"PYTHONPATH={shlex.quote(os.environ['PYTHONPATH'])}")
        tickring = f"{shlex.quote(sys.executable)} -P -m cli"
    else:
        tickring = "tickring"
        if shutil.which("tickring") != str(program.absolute()):  # as after `make demo`: in an environment of its own
            settings.append(f"PATH={shlex.quote(str(program.absolute().parent))}:$PATH")
    name = stage.connection.name
    return [
        f"export {' '.join(settings)}",
        f"{tickring} status --watch",
        f"{tickring} attach {name} trade",
        f"{tickring} listen {stage.connection.broadcast_address}",
        f"{tickring} subscribe {name} {stage.another_symbol}",
        f"{tickring} results {name}",
    ]


def _summary(stage: Stage, ran: _Ran, left: list[str]) -> Summary:
    figures, (rows, snapshotted), (frames, lost) = ran.figures, stage.snapshotted, stage.heard()
    return Summary(
        seconds=round(ran.seconds, 3), symbols=len(stage.symbols), records=figures.records,
        records_per_second=round(ran.records_per_second, 1), lag_p50_ms=_ms(figures.lag_p50),
        lag_p99_ms=_ms(figures.lag_p99), gaps=figures.gaps, missed=figures.missed, rejected=figures.rejected,
        reconnects=figures.reconnects, reader_received=sum(ring.received for ring in stage.last_rings),
        reader_lost=sum(ring.lost for ring in stage.last_rings), snapshot_rows=rows, snapshot_records=snapshotted,
        listener_frames=frames, listener_lost=lost, left_behind=left,
    )  # fmt: skip


def _ms(ns: int | None) -> float | None:
    return None if ns is None else ns / 1e6


def _print(summary: Summary) -> None:
    from cli import formats

    count = formats.count
    lags = [formats.lag(None if ms is None else round(ms * 1e6)) for ms in (summary.lag_p50_ms, summary.lag_p99_ms)]
    rows = f"{count(summary.snapshot_rows)} rows kept of {count(summary.snapshot_records)}"
    for label, value in (
        ("ran", f"{summary.seconds:.1f} s, {summary.symbols} symbols of a simulated Binance, trades and quotes"),
        ("records", f"{count(summary.records)}, {formats.rate(summary.records_per_second)} a second"),
        ("lag", f"p50 {lags[0]}, p99 {lags[1]}"),
        ("gaps", f"{count(summary.gaps)}, rejected {count(summary.rejected)}, reconnects {count(summary.reconnects)}"),
        ("reader", f"{count(summary.reader_received)} records, lost {count(summary.reader_lost)}"),
        ("snapshot", rows),
        ("listener", f"{count(summary.listener_frames)} frames since it joined, lost {count(summary.listener_lost)}"),
        ("left", ", ".join(summary.left_behind) or "nothing: no process, no shared memory, no file"),
    ):
        out().print(f"{label:<10}{value}", soft_wrap=True)
