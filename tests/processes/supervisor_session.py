"""A user's script: makes a connection of its own, says so, and ends when its input does. Arguments: URL, name."""

from __future__ import annotations

import os
import sys

import tickring


def main(url: str, name: str) -> None:
    made = tickring.create_connection("binance", name, symbol="btcusdt", url=url).results.status
    names = sorted(it["name"] for it in tickring.get_client_status("all").to_dict("records"))
    sys.stdout.write(f"made {made.name} of {','.join(names)}\n")
    sys.stdout.flush()
    while os.read(0, 100):
        pass


if __name__ == "__main__":
    main(*sys.argv[1:])
