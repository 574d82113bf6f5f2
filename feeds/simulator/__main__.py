"""Run a simulated venue: ``python -P -m feeds.simulator --capture btcusdt.gz --speed full``.

Prints one line of JSON when it listens, such as ``{"url":"ws://127.0.0.1:40123/stream","port":40123,…}``, and ends on
SIGTERM or SIGINT. Exit codes are those of `ringbuf.errors`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import uvloop

from feeds.simulator.command import VENUES, SimulatorOptions, run_simulator
from feeds.simulator.pace import parse_speed
from ringbuf.errors import TickringError


def _parser() -> argparse.ArgumentParser:
    default = SimulatorOptions()
    parser = argparse.ArgumentParser(prog="python -m feeds.simulator", description="Simulate a venue on loopback.")
    add = parser.add_argument
    add("--venue", default=default.venue, choices=sorted(VENUES))
    add("--host", default=default.host)
    add("--port", type=int, default=default.port, help="0 takes a free one")
    add("--capture", type=Path, help="replay this capture; without it a market is made")
    add("--speed", default="1", help="a factor, or 'full'")
    add("--symbols", type=int, default=default.symbols, help="of the market")
    add("--rate", type=float, default=default.rate, help="events a second of the market, or of a capture without times")
    add("--seed", type=int, default=default.seed, help="of the market")
    add("--loop", default="1", help="how often the capture is replayed, or 'forever'")
    add("--start-after", type=int, default=default.start_after, help="subscriptions that start a client's replay")
    add("--close-at-end", action="store_true", help="close the connection when its replay is over")
    add("--refuse-unknown", action="store_true", help="refuse streams that there are not")
    add("--ping-interval", type=float, default=default.ping_interval, help="seconds; 0 for no pings")
    add("--pong-deadline", type=float, default=default.pong_deadline, help="seconds")
    add("--buffer-limit", type=int, default=default.buffer_limit, help="unread bytes that cut a client off")
    add("--until-eof", action="store_true", help="end when standard input ends")
    return parser


def options_of(arguments: list[str]) -> SimulatorOptions:
    """Read a command line.

    Raises:
        ParameterError: A speed that cannot be used.
        SystemExit: As argparse does, 2 for wrong usage.
    """
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    given["speed"] = parse_speed(given["speed"])
    if given["loop"] != "forever" and not (given["loop"].isdecimal() and int(given["loop"])):
        parser.error("--loop is a number above 0, or 'forever'")
    given["loop"] = None if given["loop"] == "forever" else int(given["loop"])
    return SimulatorOptions(**given)


def main() -> int:
    """Run until told to end; give the exit code."""
    try:
        uvloop.run(run_simulator(options_of(sys.argv[1:])))
    except TickringError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
