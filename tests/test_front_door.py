"""``import tickring``: all that is public, and nothing of its own."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from processes.supervisor_running import environment

import tickring
from ringbuf import errors


def public() -> set[str]:
    return {name for name in vars(tickring) if not name.startswith("_")}


def tree(base: type[errors.TickringError] = errors.TickringError) -> set[str]:
    return {base.__name__}.union(
        *(tree(child) for child in base.__subclasses__() if child.__module__ == errors.__name__)
    )


def test_what_can_be_imported_is_what_is_announced() -> None:
    assert sorted({*public(), "__version__"}) == tickring.__all__
    assert all(getattr(tickring, name) is not None for name in tickring.__all__)


def test_nothing_is_defined_there() -> None:
    body = ast.parse(Path(tickring.__file__).read_text()).body
    allowed = (ast.Expr, ast.ImportFrom, ast.Assign)
    assert [type(statement).__name__ for statement in body if not isinstance(statement, allowed)] == []
    names = {
        target.id for it in body if isinstance(it, ast.Assign) for target in it.targets if isinstance(target, ast.Name)
    }
    assert names == {"__all__"}


def test_every_error_of_the_tree_is_there() -> None:
    assert tree() <= public()


@pytest.mark.parametrize("name", sorted(public()))
def test_everything_public_says_what_it_is(name: str) -> None:
    assert (getattr(tickring, name).__doc__ or "").strip()


def test_importing_it_starts_nothing_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, threading, tickring;"
        "assert threading.active_count() == 1;"
        "print(*sorted({'pandas', 'polars', 'typer', 'rich', 'uvloop', 'picows'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
    assert done.stderr == ""
