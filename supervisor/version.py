"""Which tickring this is."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version


@cache
def version() -> str:
    """The installed distribution's version; "0" in a checkout that was never installed."""
    try:
        return installed_version("tickring")
    except PackageNotFoundError:
        return "0"


#: The same, for the front door.
__version__ = version()
