"""The peer of the whole path: ``python -m benchmarks.naive_client URL SECONDS``.

The `websockets` library and json.loads, as most scripts begin. It keeps nothing and hands on nothing. Prints the CPU
and wall seconds it took, and the messages it read.
"""

from __future__ import annotations

import json
import sys
import time

from websockets.sync.client import connect

from feeds.binance import Binance


def main() -> None:
    """Read for so long."""
    url, seconds = sys.argv[1], float(sys.argv[2])
    venue = Binance()
    topics = venue.topics(venue.parameters(symbol="btcusdt", feed="trade,quote"), ["btcusdt"])
    with connect(url, compression=None, max_queue=None) as socket:
        socket.send(venue.subscribe(topics, 1).decode())
        socket.recv()
        cpu, wall, count = time.process_time(), time.perf_counter(), 0
        while time.perf_counter() - wall < seconds:
            for _ in range(100):
                json.loads(socket.recv())
            count += 100
        taken = time.process_time() - cpu, time.perf_counter() - wall, count
    sys.stdout.write(json.dumps(taken) + "\n")


if __name__ == "__main__":
    main()
