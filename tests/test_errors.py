"""The tree that is drawn in ringbuf.errors is the tree that there is."""

from __future__ import annotations

import re

import pytest

from ringbuf import errors
from ringbuf.errors import RingNotFound, TickringError, by_name

_BRANCH = re.compile(r"^ {4}([│├└─ ]*)(\w+) +exit (\d+)", re.MULTILINE)


def drawn() -> list[tuple[int, str, int]]:
    """Depth, name and exit code of every line of the drawing."""
    lines = _BRANCH.findall(errors.__doc__ or "")
    return [(len(branch) // 4, name, int(code)) for branch, name, code in lines]


def tree(kind: type[TickringError], depth: int = 0) -> list[tuple[int, str, int]]:
    """The same of the classes themselves, in the order in which they are defined."""
    below = [
        line
        for child in kind.__subclasses__()
        if child.__module__ == errors.__name__
        for line in tree(child, depth + 1)
    ]
    return [(depth, kind.__name__, kind.exit_code), *below]


def test_the_drawn_tree_is_the_real_one() -> None:
    assert drawn() == tree(TickringError)
    assert len(drawn()) > 25


@pytest.mark.parametrize("name", [name for _, name, _ in drawn()])
def test_an_error_is_found_again_by_its_name(name: str) -> None:
    found = by_name(name)
    assert found.__name__ == name
    assert found is getattr(errors, name)


def test_an_unknown_name_gives_the_base() -> None:
    assert by_name("KeyError") is TickringError
    assert by_name("") is TickringError


def test_every_error_is_documented_and_says_what_it_was_told() -> None:
    for _, name, _ in drawn():
        assert by_name(name).__doc__
    assert str(RingNotFound("no ring")) == "no ring"
