"""The demo's market and picture: from records to prices, and a picture that fits the terminal it is drawn in."""

from __future__ import annotations

import io
from functools import partial

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from cli.demo_board import PATH_STEP, Board
from cli.demo_stage import RingFigures
from cli.demo_view import Scene, folded, frame, path, starting
from cli.gauge import Figures
from feeds.records import DTYPES, Kind
from ringbuf.records import Records

NAMES = ["", "BTCUSDT", "PEPEUSDT"]


def trades(*rows: tuple[int, float, int]) -> Records:
    array = np.zeros(len(rows), DTYPES[Kind.TRADE])
    for place, (symbol, price, side) in enumerate(rows):
        array[place]["symbol"], array[place]["last_price"], array[place]["side"] = symbol, price, side
        array[place]["last_size"] = 0.5
    return Records(array, "c", "trade", lambda _: NAMES)


def quotes(*rows: tuple[int, float, float]) -> Records:
    array = np.zeros(len(rows), DTYPES[Kind.QUOTE])
    for place, (symbol, bid, ask) in enumerate(rows):
        array[place]["symbol"], array[place]["bid_price"], array[place]["ask_price"] = symbol, bid, ask
    return Records(array, "c", "quote", lambda _: NAMES)


def test_a_line_has_the_newest_of_its_symbol_and_counts_all_its_trades() -> None:
    board = Board()
    board.order(["PEPEUSDT"])
    board.take_trades(trades((1, 100.0, 1), (2, 8.42e-06, -1), (1, 101.25, 1)))
    board.take_trades(trades((1, 101.0, -1)))
    board.take_quotes(quotes((1, 100.5, 101.5), (1, 100.75, 101.25)))
    pepe, btc = board.lines
    assert (pepe.symbol, pepe.last, pepe.side, pepe.trades, pepe.decimals) == ("PEPEUSDT", 8.42e-06, -1, 1, 8)
    assert (btc.symbol, btc.last, btc.side, btc.trades, btc.decimals) == ("BTCUSDT", 101.0, -1, 3, 2)
    assert (btc.bid, btc.ask) == (100.75, 101.25)
    assert btc.direction == -1, "101.25 was shown before"
    assert btc.change == pytest.approx(-24.69, abs=0.01), "since the first price that was shown"


def test_no_records_change_nothing() -> None:
    board = Board()
    board.take_trades(trades())
    board.take_quotes(quotes())
    assert board.lines == []


def test_paths_have_a_point_every_half_second_however_often_one_looks() -> None:
    board = Board()
    for step in range(41):
        board.take_trades(trades((1, 100.0 + step, 1)))
        board.sample(50.0 + step * PATH_STEP / 4)
    (line,) = board.lines
    assert list(line.path) == [100.0 + step for step in range(0, 41, 4)]
    assert line.trades_per_second == 8.0


def test_a_path_lies_between_its_lowest_and_its_highest_point() -> None:
    assert (path([]), path([5.0, 5.0]), path([1.0, 2.0, 8.0])) == ("", "▄▄", "▁▂█")


def _given(names: list[str], _: object) -> list[str]:
    return names


def scene(symbols: int = 12, commands: int = 6) -> Scene:
    board = Board()
    for number in range(symbols):
        names = ["", f"SYM{number}USDT"]
        array = trades((1, 61_837.63, 1)).array
        board.take_trades(Records(array, "c", "trade", partial(_given, names)))
    for step in range(80):
        board.sample(step * PATH_STEP)
    figures = Figures(
        1, 1, 1_234_567, 12_345.6, 800_000, 51_200_000, 0, 0, 0, 0, 0, None, None, 12, [], [], []
    )  # fmt: skip
    rings = [RingFigures(kind, 131_072, 65_536, 0, 65_536, 0) for kind in ("trade", "quote")]
    typed = [f"export TICKRING_INSTANCE=demo-{'1' * 90}", *(f"tickring command {n}" for n in range(commands - 1))]
    market = "a simulated Binance, 200 symbols, 5,000 events/s"
    return Scene(7.2, 10.0, market, "ready", figures, board.lines, rings, 0.04, 10_000, 1_234_000, 0, typed)


def as_a_shell_takes_it(text: str) -> str:
    """Join lines that end with a backslash, and make one space of several."""
    joined = "\n".join(line.rstrip() for line in text.splitlines()).replace("\\\n", "")
    return "\n".join(" ".join(line.split()) for line in joined.splitlines())


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_a_folded_command_is_the_same_command(width: int) -> None:
    command = f"export TICKRING_INSTANCE=demo-1 PATH=/home/{'x' * 70}/bin:$PATH B=2"
    lines = folded(command, width)
    assert all(len(line) <= width for line in lines)
    assert as_a_shell_takes_it("\n".join(lines)) == command


@pytest.mark.parametrize("height", [24, 30, 50])
@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_the_picture_fits_the_terminal_and_cuts_neither_figures_nor_commands(width: int, height: int) -> None:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    shown = scene()
    with console.capture() as captured:
        console.print(frame(shown, width, height))
    lines = captured.get().splitlines()
    assert len(lines) <= height
    assert all(cell_len(line) <= width for line in lines)
    text = captured.get()
    assert "…" not in text
    total, frames = ("1,234,567", "1,234,000") if width > 80 else ("1.23M", "1.23M")
    for words in ("12,346", total, frames, "<0.8ms", "<51ms", "61,837.63", "50%", "00:07 / 00:10"):
        assert words in text, words
    assert shown.commands[0] in as_a_shell_takes_it(text)
    assert "tickring command 0" in text
    assert ("more" in text) == (height == 24)


def test_a_low_terminal_still_gets_a_picture() -> None:
    console = Console(file=io.StringIO(), width=60, height=8)
    console.print(frame(scene(), 60, 8))


def test_the_beginning_says_what_is_there_and_what_is_made() -> None:
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as captured:
        console.print(starting(["a simulated Binance"], "the supervisor"))
    assert [line.strip() for line in captured.get().splitlines()][2:] == ["✓ a simulated Binance", "… the supervisor"]
