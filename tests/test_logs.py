"""Logs are JSON lines on standard error, and cost no process an import that they do not need."""

from __future__ import annotations

import json
import subprocess
import sys

SOURCE = """
import sys
from feeds import logs
logs.configure("provider", "crypto")
log = logs.get_logger()
log.info("topic is stale", topic="btcusdt@trade")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("request failed")
print("rich" in sys.modules)
import rich
print(rich.__name__)
"""


def test_a_line_says_who_when_and_what_and_rich_can_still_be_imported_afterwards() -> None:
    done = subprocess.run([sys.executable, "-c", SOURCE], capture_output=True, text=True, check=True, timeout=30)
    first, second = map(json.loads, done.stderr.splitlines())
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "event": "topic is stale",
        "topic": "btcusdt@trade",
        "level": "info",
        "process": "provider",
        "connection": "crypto",
    }
    assert "ZeroDivisionError" in second["exception"]
    assert done.stdout.split() == ["False", "rich"]
