"""The four points where a ring needs its loads and stores to stay in order.

    writer                              reader
    ------                              ------
    intent := tail + n                  t := tail
    (1) after_intent                    (3) after_tail
    copy n records into their slots     copy the records below t
    (2) before_tail                     (4) before_validation
    tail := tail + n                    i := intent; drop what is below i - capacity

Without (1) a slot may change before `intent` says so: a reader validates a torn record. Without (2) `tail` may show
records that are not there yet. Without (3) the copy may be older than the `tail` it relies on. Without (4) the
validating load may be older than the copy. Leaving out any one of them delivers torn or stale records; DESIGN and its
evidence have the exhaustive model.

On x86-64 all four are empty. Its processors keep stores in order and loads in order (only a store may pass a *later
load*, which none of the four points is about), and each access here is an opaque C call of the interpreter, which no
compiler reorders. Other processors (arm64) need a real fence; until a compiled part ships one they are refused rather
than trusted.
"""

from __future__ import annotations

import platform

from ringbuf.errors import UnsupportedProcessor

#: Names that `platform.machine()` gives for x86-64.
_STRONGLY_ORDERED = frozenset({"x86_64", "amd64"})


def require_ordered_processor(machine: str | None = None) -> None:
    """Refuse to run where the four points would need a fence that is not there.

    Args:
        machine: the processor's name; this machine's if left out.

    Raises:
        UnsupportedProcessor: the processor is not x86-64.
    """
    machine = platform.machine() if machine is None else machine
    if machine.lower() not in _STRONGLY_ORDERED:
        raise UnsupportedProcessor(
            f"rings are not offered on {machine or 'an unknown processor'} yet: its memory ordering needs fences that "
            "only the compiled part will bring. Run tickring on x86-64."
        )


def after_intent() -> None:
    """(1) Store-store: `intent` is visible before any slot it covers changes."""


def before_tail() -> None:
    """(2) Store-store: the records are visible before `tail` covers them."""


def after_tail() -> None:
    """(3) Load-load: the records are read after `tail`."""


def before_validation() -> None:
    """(4) Load-load: `intent` is read again after the records."""
