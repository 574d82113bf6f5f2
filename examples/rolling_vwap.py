"""Volume-weighted average price per symbol over the last 1,000 trades, as they come.

Run it beside a connection, in any process:  python examples/rolling_vwap.py crypto
"""

from __future__ import annotations

import sys

import numpy as np

import tickring


def main(connection: str, rounds: int | None = None) -> None:
    """Print the averages after every batch of trades; for ever, unless `rounds` says how often."""
    with tickring.attach(connection, "trade", wait=30) as ring:
        done = 0
        while rounds is None or done < rounds:
            ring.read(timeout=None)  # waits for new trades
            trades = ring.tail(1000)
            notional = np.bincount(trades["symbol"], trades["last_price"] * trades["last_size"])
            volume = np.bincount(trades["symbol"], trades["last_size"])
            for number in np.flatnonzero(volume):
                print(f"{trades.names()[number]:>10} {notional[number] / volume[number]:>14.4f}")
            print(f"{len(trades)} trades, {ring.lost} lost, {ring.lag} behind")
            done += 1


if __name__ == "__main__":
    main(sys.argv[1])
