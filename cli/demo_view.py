"""The demo's picture: a scene in, something for rich to draw out. Pure; it fits what it is told to fit.

From top to bottom: what this is, the figures that matter to who runs feeds, the market as the rings hold it, the rings,
and what to type in another terminal. What does not fit goes: first symbols, then columns, then commands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from cli import formats
from cli.demo_board import PATH_POINTS, Line
from cli.gauge import Figures

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cli.demo_stage import RingFigures

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
#: From these widths on there are more columns.
_MEDIUM: Final = 96
_WIDE: Final = 116
_BAR: Final = 16
_UP, _DOWN, _ACCENT = "green", "red", "cyan"


@dataclass(frozen=True)
class Scene:
    """All that is shown."""

    #: Seconds since everything ran, and how many there are to be; None for "until Ctrl-C".
    elapsed: float
    seconds: float | None
    #: What the market offers.
    market: str
    state: str
    figures: Figures
    lines: list[Line]
    rings: list[RingFigures]
    #: Of the provider process, as a share of one core; None while it is not known.
    provider_cpu: float | None
    rows: int
    frames: int
    listener_lost: int
    #: What to type in another terminal, the first line being what sets the environment.
    commands: list[str]


def frame(scene: Scene, width: int, height: int) -> RenderableType:
    """Draw the scene in `width` columns and `height` rows."""
    head: list[RenderableType] = [_title(scene, width), Text(), _gauges(scene, width), Text()]
    rings = _rings(scene.rings)
    # Title, two rows of gauges, two empty; the market's header; rings between two empty rows; the commands' heading.
    left = height - 5 - 1 - 3 - 1
    commands = _fitting(scene.commands, width, left - min(len(scene.lines), 8))
    shown = max(1, left - len(commands))
    return Group(*head, _market(scene.lines, shown, width), Text(), rings, Text(), *_commands(commands))


def _title(scene: Scene, width: int) -> RenderableType:
    bar = Table.grid(expand=True)
    bar.add_column(no_wrap=True, overflow="ellipsis")
    bar.add_column(justify="right", no_wrap=True)
    time = formats.clock(scene.elapsed)
    if scene.seconds is not None:
        time += f" / {formats.clock(scene.seconds)}"
    market = scene.market if width >= _MEDIUM else scene.market.partition(",")[0]
    left = Text.assemble((" tickring demo ", f"bold reverse {_ACCENT}"), "  ", market)
    bar.add_row(left, Text.assemble((time, "bold"), ("   Ctrl-C ends it", "dim")))
    return bar


def _gauges(scene: Scene, width: int) -> RenderableType:
    figures = scene.figures
    medium = width >= _MEDIUM
    count = formats.count if medium else formats.short
    good = scene.state == "ready" and not figures.stale
    lost = f" -{count(scene.listener_lost)}" if scene.listener_lost else ""
    state = Text.assemble(("● ", _UP if good else _DOWN), scene.state if good or scene.state != "ready" else "stale")
    values: list[tuple[str, RenderableType]] = [
        ("crypto_binance" if medium else "connection", state),
        ("records/s", Text(formats.rate(figures.records_per_second), f"bold {_ACCENT}")),
        ("records", count(figures.records)),
        ("lag p50", formats.lag(figures.lag_p50)),
        ("lag p99", formats.lag(figures.lag_p99)),
        ("gaps", Text(formats.count(figures.gaps), f"bold {_DOWN}" if figures.gaps else f"bold {_UP}")),
        *([("provider CPU", _cpu(scene.provider_cpu))] if medium else []),
        ("snapshot rows" if medium else "rows kept", formats.count(scene.rows)),
        ("to listener", Text.assemble(count(scene.frames), (lost, _DOWN))),
    ]
    grid = Table.grid(expand=True, padding=(0, 1, 0, 0))
    for _ in values:
        grid.add_column(no_wrap=True)
    grid.add_row(*(Text(label, "dim") for label, _ in values))
    grid.add_row(*(value for _, value in values))
    return grid


def _cpu(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%} of a core"


def _market(lines: list[Line], shown: int, width: int) -> RenderableType:
    """Give the table of prices: the first lines, and how many there are beside them."""
    hidden = max(0, len(lines) - shown)
    visible = lines[: shown - 1] if hidden else lines
    medium, wide = width >= _MEDIUM, width >= _WIDE
    table = Table(box=None, expand=True, header_style="dim", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("symbol", no_wrap=True)
    headers = ["last", "", "bp"] + (["size"] if medium else []) + ["bid", "ask"]
    headers += (["spread bp"] if wide else []) + ["trades/s"]
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    points = PATH_POINTS if wide else 24 if medium else 12
    table.add_column("path", justify="left", no_wrap=True, ratio=1)
    for line in visible:
        table.add_row(*_row(line, points, medium=medium, wide=wide))
    if hidden:
        table.add_row(Text(f"+ {len(lines) - len(visible)} more", "dim"))
    return table


def _row(line: Line, points: int, *, medium: bool, wide: bool) -> list[Text]:
    style = _direction(line.direction)
    change = line.change
    cells = [
        Text(line.symbol, "bold"),
        Text(_price(line.last, line), f"bold {style}"),
        Text({1: "▲", -1: "▼"}.get(line.direction, " "), style),
        Text("-" if change is None else f"{change:+.1f}", _direction(_sign(change))),
    ]
    if medium:
        cells.append(Text("-" if line.size is None else formats.plain(line.size), _direction(line.side)))
    cells += [Text(_price(line.bid, line)), Text(_price(line.ask, line))]
    if wide:
        cells.append(Text(_spread(line), "dim"))
    cells.append(Text(formats.rate(line.trades_per_second)))
    return [*cells, Text(f" {path(list(line.path)[-points:])}", _direction(_sign(change)))]


def _direction(sign: int) -> str:
    return {1: _UP, -1: _DOWN}.get(sign, "")


def _sign(change: float | None) -> int:
    return 0 if change is None else (change > 0) - (change < 0)


def _price(price: float | None, line: Line) -> str:
    return "-" if price is None else f"{price:,.{line.decimals}f}"


def _spread(line: Line) -> str:
    if line.bid is None or line.ask is None or line.bid <= 0:
        return "-"
    return f"{(line.ask - line.bid) / line.bid * 1e4:.2f}"


def path(points: list[float]) -> str:
    """Draw numbers as a row of blocks between their lowest and their highest."""
    if not points:
        return ""
    low, high = min(points), max(points)
    if high == low:
        return _BLOCKS[3] * len(points)
    return "".join(_BLOCKS[round((point - low) / (high - low) * (len(_BLOCKS) - 1))] for point in points)


def _rings(rings: list[RingFigures]) -> Text:
    """Draw how full the rings are; a full one overwrites its oldest records for ever."""
    text = Text(no_wrap=True, overflow="ellipsis")
    for ring in rings:
        share = min(1.0, ring.tail / ring.capacity)
        filled = round(share * _BAR)
        text.append(f"{ring.kind} ring ", "dim")
        text.append("━" * filled, _ACCENT)
        text.append("━" * (_BAR - filled), "grey30")
        text.append(f" {share:4.0%}   ")
    text.append(f"of {formats.count(rings[0].capacity)}" if rings else "", "dim")
    lost = sum(ring.lost for ring in rings)
    text.append(f"   reader lost {formats.count(lost)}" if lost else "", _DOWN)
    return text


def _fitting(commands: list[str], width: int, rows: int) -> list[str]:
    """Give the lines of the first commands, as many as have room; the first one, the environment, always."""
    found = folded(commands[0], width) if commands else []
    for command in commands[1:]:
        lines = folded(command, width)
        if len(found) + len(lines) > rows:
            break
        found += lines
    return found


def folded(command: str, width: int) -> list[str]:
    """Break a command into lines that a shell takes together when they are copied: between words, else within one."""
    lines, line = [], " "
    for word in command.split(" "):
        if len(line) + 1 + len(word) + 2 > width and line.strip():
            lines.append(f"{line} \\")
            line = "   "
        line = f"{line} {word}"
        while len(line) + 2 > width:  # within a word the next line must begin at once
            lines.append(f"{line[: width - 1]}\\")
            line = line[width - 1 :]
    return [*lines, line]


def _commands(lines: list[str]) -> list[RenderableType]:
    heading = Text("Now in another terminal:", "bold")
    return [heading, *(Text(line, "dim" if line.startswith("  export") else _ACCENT, no_wrap=True) for line in lines)]


def starting(done: list[str], doing: str) -> RenderableType:
    """Draw the beginning: what is there, and what is being made."""
    lines = [Text(" tickring demo ", f"bold reverse {_ACCENT}"), Text()]
    lines += [Text.assemble(("  ✓ ", _UP), step) for step in done]
    lines += [Text.assemble(("  … ", _ACCENT), doing)] if doing else []
    return Group(*lines)
