"""One JSON line per event on stderr: who, when, what. Never one per message of a venue."""

from __future__ import annotations

import sys

import orjson
import structlog


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
