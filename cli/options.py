"""What several commands take, and how it is read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, TypeAlias

import typer


def _connections(incomplete: str) -> list[str]:
    """Complete a connection's name: what has a directory in this instance."""
    from ringbuf.directory import instance_directory
    from ringbuf.errors import TickringError

    try:
        found = sorted(entry.name for entry in instance_directory().iterdir() if entry.is_dir())
    except (TickringError, OSError):
        return []
    return [name for name in found if name.startswith(incomplete) and not name.startswith(".")]


Name: TypeAlias = Annotated[str, typer.Argument(help="The connection's name.", autocompletion=_connections)]
Names: TypeAlias = Annotated[
    list[str], typer.Argument(help="Connections' names, or 'all'.", metavar="NAME...", autocompletion=_connections)
]
OneOrAll: TypeAlias = Annotated[
    str, typer.Argument(help="The connection's name; all if left out.", autocompletion=_connections)
]
Symbols: TypeAlias = Annotated[list[str], typer.Argument(help="Symbols, by commas or spaces.", metavar="SYMBOLS...")]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TokenFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--auth-token-file", help="The connection's token is in this file; else in TICKRING_AUTH_TOKEN.", metavar="FILE"
    ),
]


def read_token(file: Path | None) -> str | None:
    """Give the token: from the file, else from the environment, else none.

    There is no option for the token itself: everyone on the machine can see a command's arguments.

    Raises:
        ParameterError: the file cannot be read, or is empty.
    """
    from ringbuf.errors import ParameterError

    if file is None:
        return os.environ.get("TICKRING_AUTH_TOKEN") or None
    try:
        token = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ParameterError(f"the token file {file} cannot be read: {reason}.") from error
    if not token:
        raise ParameterError(f"the token file {file} is empty.")
    return token


def joined(symbols: list[str]) -> str:
    """Give symbols as the API takes them: comma-separated."""
    return ",".join(symbols)
