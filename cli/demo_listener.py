"""The demo's listener: a thread that takes what the broadcaster sends, and checks that nothing is missing."""

from __future__ import annotations

import threading

import orjson

from ringbuf.errors import TickringError
from supervisor.listen import messages


class Listener:
    """Counts the messages of an address, and per kind what lies between the first sequence number and the last."""

    def __init__(self, url: str) -> None:
        """Connect in the background."""
        self.url = url
        self.frames = 0
        #: Why it ended, if not in good order.
        self.problem = ""
        self._first: dict[str, int] = {}
        self._last: dict[str, int] = {}
        self._thread = threading.Thread(target=self._listen, name="tickring-demo-listener", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        try:
            for message in messages(self.url):
                record = orjson.loads(message)
                kind, seq = record.get("type"), record.get("seq")
                if isinstance(seq, int):
                    self._first.setdefault(kind, seq)
                    self._last[kind] = seq
                    self.frames += 1
        except TickringError as error:
            self.problem = str(error)

    @property
    def ended(self) -> bool:
        """Whether the address sends no more."""
        return not self._thread.is_alive()

    @property
    def lost(self) -> int:
        """Records between the first and the last one that did not come."""
        spans = [last - self._first[kind] + 1 for kind, last in list(self._last.items())]
        return max(0, sum(spans) - self.frames)

    def reached(self, tails: dict[str, int]) -> bool:
        """Whether it has got the last record of every ring."""
        return all(self._last.get(kind, -1) >= tail - 1 for kind, tail in tails.items())

    def join(self, seconds: float) -> None:
        """Wait for the end."""
        self._thread.join(seconds)
