"""The whole path, three processes: simulator -> provider -> reader, a capture looped as fast as it will go.

    simulator  ==websocket==>  provider  ==rings==>  reader
     core 0                     core 1                core 0       (where there are two)

Judged is what the provider's CPU time yields; the reader makes sure that nothing was lost unseen.
"""

from __future__ import annotations

import json
import time
from typing import Final

import msgspec

from benchmarks.captured import capture_path
from benchmarks.figures import Figure, Options, Report, cost, rate
from benchmarks.measuring import Measured, cpu_seconds, pin
from benchmarks.processes import Provider, line, provider, simulated_venue, started, tell
from benchmarks.reading import Found
from ringbuf.counters import Counter, read_counters
from ringbuf.directory import connection_directory
from ringbuf.errors import TickringError

TITLE: Final = "simulated Binance at full speed, provider process, reader process"

#: M records a second of the provider's CPU time: the issue's.
_TARGET: Final = 0.6
_CONNECTION: Final = "path"
#: Seconds until rings are warm: at 0.6 M a second a ring of 2**17 slots has gone round by then.
_WARM_UP: Final = 1.0


def run(options: Options) -> Report:
    """Run the path for a while, in several windows."""
    windows, seconds = (2, 0.4) if options.quick else (9, 0.8)
    arguments = ("--capture", str(capture_path(options.captures)), "--speed", "full", "--loop", "forever")
    with simulated_venue(*arguments) as (url, simulator):
        pinned = pin(0, simulator)
        with provider(_CONNECTION, url) as running:
            pin(1, running.pid)
            measured, found = _watched(running, simulator, windows, seconds)
        naive = Measured()
        for _ in range(1 if options.quick else 3):
            _naive(naive, url, seconds)
    ours = "records, by the provider's CPU"
    figures: list[Figure] = [
        rate(ours, measured["provider"], target=_TARGET),
        cost("provider's CPU", "ns/record", measured["provider"]),
        cost("simulator's CPU", "ns/record", measured["simulator"]),
        cost("reader's CPU, checks included", "ns/record", measured["reader"]),
        rate("peer: websockets and json.loads, nothing kept", naive, peer_of=ours),
    ]
    notes = [
        *map(_accounted, found),
        "provider on one core, simulator and reader on the other" if pinned else "one core for all three",
        "a capture begins anew every 37,797 frames: numbering falls back, which costs the housekeeping a walk",
    ]
    return Report("path", TITLE, figures, notes)


def _accounted(ring: Found) -> str:
    return (
        f"{ring.kind}: start {ring.start:,} + received {ring.received:,} + lost {ring.lost:,} = tail {ring.tail:,}; "
        "every seq in line"
    )


def _watched(
    running: Provider, simulator: int, windows: int, seconds: float
) -> tuple[dict[str, Measured], list[Found]]:
    running.wait_ready()
    with started("benchmarks.reading", _CONNECTION, "quote,trade") as reader:
        pin(0, reader.pid)
        if line(reader) != "attached":
            raise TickringError("the reader did not attach.")
        time.sleep(_WARM_UP)
        pids = {"provider": running.pid, "simulator": simulator, "reader": reader.pid}
        measured = {name: Measured() for name in pids}
        for _ in range(windows):
            _window(measured, pids, seconds)
        running.drain()
        tell(reader, "finish")
        found = msgspec.json.decode(line(reader), type=list[Found])
    inexact = [ring for ring in found if not ring.exact]
    if inexact:
        raise TickringError(f"records are not accounted for: {inexact}")
    return measured, found


def _window(measured: dict[str, Measured], pids: dict[str, int], seconds: float) -> None:
    """Let everything run for so long, and take what each process used, per record published."""
    cpu = {name: cpu_seconds(pid) for name, pid in pids.items()}
    wall, records = time.perf_counter(), _published()
    time.sleep(seconds)
    records, elapsed = _published() - records, time.perf_counter() - wall
    for name, pid in pids.items():
        measured[name].add(cpu_seconds(pid) - cpu[name], elapsed, max(records, 1))


def _published() -> int:
    return read_counters(connection_directory(_CONNECTION)).values[Counter.RECORDS]


def _naive(measured: Measured, url: str, seconds: float) -> None:
    with started("benchmarks.naive_client", url, str(seconds)) as client:
        pin(1, client.pid)
        cpu, wall, count = json.loads(line(client))
        measured.add(cpu, wall, count)
