"""One JSON line per event on stderr: who, when, what. Never one per message of a venue."""

from __future__ import annotations

import sys

import orjson

# structlog's console for developers imports rich where it finds it: 50 ms and 3 MB of every process, for lines that are
# JSON here. Hidden for the moment of the import, it is not found; who has it already, keeps it.
_hidden = "rich" not in sys.modules
if _hidden:
    sys.modules["rich"] = None  # type: ignore[assignment]  # None is Python's own sign for "cannot be imported"
import structlog  # noqa: E402

if _hidden:
    del sys.modules["rich"]

get_logger = structlog.get_logger


def configure(process: str, connection: str = "") -> None:
    """Set up logging for this process; `process` and `connection` stand in every line."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process, **({"connection": connection} if connection else {}))
