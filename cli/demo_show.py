"""How the demo is shown: as a live picture on a terminal, as a line a second elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.live import Live

from cli import formats
from cli.demo_view import Scene, frame, starting


class Show(Protocol):
    """Where the demo shows itself."""

    def starting(self, done: list[str], doing: str) -> None:
        """Show what is there already, and what is being made."""

    def scene(self, scene: Scene) -> None:
        """Show how things stand."""


class _Picture:
    """The alternate screen: what was in the terminal before is there again afterwards."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def starting(self, done: list[str], doing: str) -> None:
        self._live.update(starting(done, doing), refresh=True)

    def scene(self, scene: Scene) -> None:
        size = self._live.console.size
        self._live.update(frame(scene, size.width, size.height), refresh=True)


class _Lines:
    """Plain lines: one a step, then what to type elsewhere, then one a second."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told = 0
        self._due = 0.0

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def starting(self, done: list[str], doing: str) -> None:
        steps = [*done, doing] if doing else done
        for step in steps[self._told :]:
            self._print(f"starting {step}")
        self._told = len(steps)

    def scene(self, scene: Scene) -> None:
        if self._due == 0.0:
            self._print("\n  ".join(["running. In another terminal:", *scene.commands]))
        if scene.elapsed < self._due:
            return
        self._due = max(self._due + 1.0, scene.elapsed)
        figures = scene.figures
        self._print(
            f"{formats.clock(scene.elapsed)}  {scene.state}  {formats.rate(figures.records_per_second)} records/s  "
            f"{formats.count(figures.records)} records  lag {formats.lag(figures.lag_p50)}/"
            f"{formats.lag(figures.lag_p99)}  gaps {figures.gaps}  listener {formats.count(scene.frames)}"
        )


@contextmanager
def open_show(console: Console) -> Iterator[Show]:
    """Give what fits the console."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        yield _Picture(live)
