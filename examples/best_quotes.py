"""The newest bid and ask of every symbol as a DataFrame, straight from shared memory.

Run it beside a connection, in any process:  python examples/best_quotes.py crypto
"""

from __future__ import annotations

import sys

import tickring


def main(connection: str) -> None:
    """Print one table."""
    with tickring.attach(connection, "quote", wait=30) as ring:
        ring.read(timeout=30)  # at least one has come
        frame = ring.tail(10_000).to_pandas()
    newest = frame.groupby("symbol", observed=True).last()
    newest["spread"] = newest["ask_price"] - newest["bid_price"]
    print(newest[["bid_price", "bid_size", "ask_price", "ask_size", "spread", "received"]].to_string())


if __name__ == "__main__":
    main(sys.argv[1])
