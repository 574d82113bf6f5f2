"""What the supervisor and a provider process say to each other.

::

    supervisor                                   provider
      Start ------------------------------------->  once, first
                                   <-------------  Ready | Failed     the venue has accepted, or what went wrong
      Subscribe, Unsubscribe --------------------->  at any time after
                                   <-------------  Answer             per symbol, with what the venue said
                                   <-------------  Info               a line for people
      Drain -------------------------------------->  publish what is there, close with 1000, end

On the wire each is a JSON object with the message's name under ``event``, as the toolkit's document has it:
``{"event":"subscribe","id":7,"symbol":"btcusdt,ethusdt"}``.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from ringbuf.errors import TickringError, by_name


class Problem(msgspec.Struct, frozen=True):
    """An error on its way to another process."""

    type: str
    message: str

    @classmethod
    def of(cls, error: TickringError) -> Problem:
        """Describe an error."""
        return cls(type(error).__name__, str(error))

    def error(self) -> TickringError:
        """Make the error again."""
        return by_name(self.type)(self.message)


class TopicAnswer(msgspec.Struct, frozen=True):
    """What became of one topic that was asked for: its state, and the venue's words where it gave some."""

    symbol: str
    topic: str
    state: str
    reason: str = ""


class Start(msgspec.Struct, frozen=True, tag_field="event", tag="start"):
    """Begin: which provider, under which name, with which validated parameters."""

    name: str
    provider: str
    parameters: dict[str, Any]
    #: Where frames that do not decode are kept; empty for nowhere.
    dead_letters: str = ""


class Subscribe(msgspec.Struct, frozen=True, tag_field="event", tag="subscribe"):
    """Add symbols, comma-separated."""

    id: int
    symbol: str


class Unsubscribe(msgspec.Struct, frozen=True, tag_field="event", tag="unsubscribe"):
    """Remove symbols, comma-separated."""

    id: int
    symbol: str


class Drain(msgspec.Struct, frozen=True, tag_field="event", tag="drain"):
    """Publish what has been received, say good-bye to the venue, and end."""


ToProvider: TypeAlias = Start | Subscribe | Unsubscribe | Drain


class Ready(msgspec.Struct, frozen=True, tag_field="event", tag="ready"):
    """The venue has accepted the first subscriptions."""

    answers: list[TopicAnswer]


class Failed(msgspec.Struct, frozen=True, tag_field="event", tag="failed"):
    """The first connection did not come about. `permanent` says that trying again cannot help."""

    problem: Problem
    permanent: bool


class Answer(msgspec.Struct, frozen=True, tag_field="event", tag="answer"):
    """What became of a Subscribe or Unsubscribe: per topic, or one problem for the whole request."""

    id: int
    answers: list[TopicAnswer]
    problem: Problem | None = None


class Info(msgspec.Struct, frozen=True, tag_field="event", tag="info"):
    """A line for the people who made the connection."""

    text: str


FromProvider: TypeAlias = Ready | Failed | Answer | Info
