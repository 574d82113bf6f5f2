"""What the shell starts: the app, and what becomes of everything that can go wrong.

==========================  ===========================================================
a `TickringError`           one line ``error: ...`` on stderr, and the error's exit code
an `OSError`                the same, with exit code 1
wrong usage                 typer's words on stderr, 2
Ctrl-C                      130
standard output was closed  nothing, 0: who read it has had enough (`output`)
anything else               a traceback: a fault of ours
==========================  ===========================================================

`supervisor` and `ringbuf` are import names that other distributions have too. Where one of those stands before ours,
that is said at once, instead of an error about a missing module much later.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NoReturn

INTERRUPTED: Final = 130

#: One module of each package that nobody else's package of that name has.
_OURS: Final = {"ringbuf": "layout.py", "feeds": "contract.py", "supervisor": "control.py"}


def run() -> NoReturn:
    """Run the command line of this process and end it with the right exit code."""
    try:
        clash = find_clash()
        if clash:
            _fail(clash, 1)
        from cli.app import app

        app(prog_name="tickring")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        from ringbuf.errors import TickringError

        if isinstance(error, TickringError):
            _fail(str(error), error.exit_code)
        if isinstance(error, OSError):
            _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 1)
        raise
    sys.exit(0)


def find_clash() -> str:
    """Tell which of our packages is hidden by another distribution's, and what to do; empty if none is.

    Looks without importing: that takes a millisecond, the packages themselves a hundred.
    """
    for package, module in _OURS.items():
        found = find_spec(package)
        places = list(found.submodule_search_locations or ()) if found is not None else []
        if not any((Path(place) / module).is_file() for place in places):
            origin = (found.origin or ", ".join(places)) if found is not None else "it is missing"
            return (
                f"the Python package {package!r} that is found here is not tickring's ({origin}): "
                "install tickring in a virtual environment of its own."
            )
    return ""


def _fail(words: str, code: int) -> NoReturn:
    sys.stderr.write(f"error: {words}\n")
    sys.exit(code)
