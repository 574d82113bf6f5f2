"""Frames of a capture become records in a ring, as in the provider: decode, publish, housekeeping; one process.

Peers do less than we do: they parse a frame to a dict and write one row into a plain array, without a ring, without
checks of the frame's fields, numbering or liveness. It is how one would begin.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import numpy as np
import orjson

from benchmarks.captured import captured_frames
from benchmarks.feeding import batches_of, feed
from benchmarks.figures import Figure, Options, Report, rate
from benchmarks.measuring import pin, repeat
from feeds.binance import BinanceDecoder
from feeds.decoding import STAGED, Sink
from feeds.records import DEFAULT_CAPACITY, Kind

TITLE: Final = "captured Binance frames to 128-byte records in a ring, with housekeeping"

#: M records a second of one core's CPU time: the issue's.
_TARGETS: Final = {Kind.QUOTE: 0.9, Kind.TRADE: 0.8}
_NAMES: Final = {Kind.QUOTE: "best bid/ask", Kind.TRADE: "trades"}

#: What reads a message into dicts.
_PARSERS: Final[dict[str, Callable[[bytes], Any]]] = {
    "json.loads": json.loads,
    "orjson.loads": orjson.loads,
    "msgspec, untyped": msgspec.json.Decoder().decode,
}

_NAIVE_QUOTE: Final = np.dtype(
    [("received", "<i8"), ("symbol", "<u4"), ("bid", "<f8"), ("bid_size", "<f8"), ("ask", "<f8"), ("ask_size", "<f8"),
     ("sequence", "<u8")]
)  # fmt: skip
_NAIVE_TRADE: Final = np.dtype(
    [("date", "<i8"), ("received", "<i8"), ("symbol", "<u4"), ("price", "<f8"), ("size", "<f8"), ("id", "<u8"),
     ("published", "<i8"), ("side", "i1")]
)  # fmt: skip


def run(options: Options) -> Report:
    """Measure everything for both kinds."""
    pinned = pin(1)
    figures: list[Figure] = []
    for kind, frames in captured_frames(options.captures).items():
        some = frames[:4096] if options.quick else frames
        figures += _of_kind(kind, some, runs=2 if options.quick else 9)
    notes = [
        "batches of 1: a read of the socket that brought one frame; the socket's own cost is not in it",
        "peers: frame -> dict -> one row tuple into a structured array; no ring, no checks, no numbering",
        "one process" + (", kept on one core" if pinned else ""),
    ]
    return Report("decode", TITLE, figures, notes)


def _of_kind(kind: Kind, frames: list[bytes], runs: int) -> Iterator[Figure]:
    name = _NAMES[kind]
    ours = f"{name}, batches of {STAGED}"
    # Pages are touched for the first time in a ring's first lap: that is not the steady state.
    warm_up = DEFAULT_CAPACITY[kind] // len(frames) + 1 if runs > 2 else 1
    for size, figure, target in ((STAGED, ours, _TARGETS[kind]), (1, f"{name}, batches of 1", None)):
        batches = batches_of(frames, size)
        with feed(f"{kind}-{size}") as fed:
            for _ in range(warm_up):
                fed.lap(batches)
            yield rate(figure, repeat(runs, len(frames), lambda: fed.lap(batches)), target=target)  # noqa: B023 - at once
            fed.check((warm_up + runs) * len(frames))
    yield rate(f"{name}, decoder alone", repeat(runs, len(frames), _decoder_alone(kind, frames)))
    for parser, load in _PARSERS.items():
        work = _naive_quotes(frames, load) if kind is Kind.QUOTE else _naive_trades(frames, load)
        yield rate(f"{name}, peer: {parser}", repeat(runs, len(frames), work), peer_of=ours)


def _decoder_alone(kind: Kind, frames: list[bytes]) -> Callable[[], None]:
    decoder, sink = BinanceDecoder(), Sink()
    for native in ("btcusdt@bookTicker", "btcusdt@trade"):
        decoder.route(native, 1, 1)
    batches, staging = batches_of(frames), sink[kind]

    def work() -> None:
        for batch in batches:
            decoder.decode(batch, 0, 1, sink)
            staging.count = 0

    return work


def _naive_quotes(frames: list[bytes], load: Callable[[bytes], Any]) -> Callable[[], None]:
    table, symbols = np.zeros(len(frames), _NAIVE_QUOTE), {"BTCUSDT": 1}

    def work() -> None:
        for i, frame in enumerate(frames):
            quote = load(frame)["data"]
            table[i] = (
                1, symbols[quote["s"]], float(quote["b"]), float(quote["B"]), float(quote["a"]), float(quote["A"]),
                quote["u"],
            )  # fmt: skip

    return work


def _naive_trades(frames: list[bytes], load: Callable[[bytes], Any]) -> Callable[[], None]:
    table, symbols = np.zeros(len(frames), _NAIVE_TRADE), {"BTCUSDT": 1}

    def work() -> None:
        for i, frame in enumerate(frames):
            trade = load(frame)["data"]
            table[i] = (
                trade["T"] * 1_000_000, 1, symbols[trade["s"]], float(trade["p"]), float(trade["q"]), trade["t"],
                trade["E"] * 1_000_000, -1 if trade["m"] else 1,
            )  # fmt: skip

    return work
