"""Where text goes: data to standard output, everything else to standard error.

On a terminal there are tables and colours; `NO_COLOR` and anything that is no terminal get plain text, and tables as
wide as their content, because what reads them cuts by itself. When standard output is closed (``| head``), the command
ends quietly with 0: its reader has had what it wanted. The consoles are for the main thread.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

#: Wider than any table of ours: a file or a pipe has no edge.
_NO_EDGE: Final = 4096


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    class _Console(Console):
        def on_broken_pipe(self) -> None:
            self.quiet = True
            if not stderr:
                end_quietly()

    stream = sys.stderr if stderr else sys.stdout
    return _Console(
        stderr=stderr, highlight=False, emoji=False, markup=False, width=None if stream.isatty() else _NO_EDGE
    )


@cache
def out() -> Console:
    """The console for data."""
    return _console(stderr=False)


@cache
def err() -> Console:
    """The console for everything else."""
    return _console(stderr=True)


def end_quietly() -> NoReturn:
    """End the command because nobody reads standard output any more."""
    # What is still buffered must not fail again when the interpreter flushes it at its end.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    raise typer.Exit(0)


def write(text: str) -> None:
    """Write data as it is, at once."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        end_quietly()


def show(table: RenderableType) -> None:
    """Print a table; without the spaces at its lines' ends where no terminal shows them."""
    console = out()
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def write_json(document: Any, *, indent: bool = True) -> None:  # noqa: ANN401 - whatever can be a JSON document
    """Write one JSON document: indented, or as one line."""
    import msgspec

    text = msgspec.json.encode(document)
    write((msgspec.json.format(text, indent=2) if indent else text).decode() + "\n")


def say(text: str) -> None:
    """Tell the person something; never data."""
    err().print(text, soft_wrap=True)


def warn(text: str) -> None:
    """Tell the person of something that is not as wished."""
    err().print(f"warning: {text}", style="yellow", soft_wrap=True)
