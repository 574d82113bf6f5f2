"""The provider contract: what one venue is, as data first and code second.

A provider is a `Declaration` (channels, limits, deadlines, numbering, parameters) and a few pure functions. It opens no
socket, keeps no time and holds no state of a connection; everything of that kind is the session's, once for all venues.

    parameters --topics()--> topics --url()--> where to connect
                                   --subscribe()/unsubscribe()--> messages to send
    frames     --decoder()--> records and control
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, Protocol, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from feeds.decoding import Decoder
from feeds.records import Kind


class Verified(StrEnum):
    """How far a provider has been seen to work."""

    LIVE = "live"
    CAPTURES = "captures"
    DOCUMENTS = "documents"


@dataclass(frozen=True)
class Channel:
    """One of a venue's streams."""

    #: What users call it: the value of `feed`.
    feed: str
    #: What its records are.
    kind: Kind
    #: Seconds without data after which a topic of it is stale, unless the user sets `stale_after`.
    silence: float
    #: Whether its trades are sums of fills: two channels of one kind are told apart by this.
    aggregate: bool = False


@dataclass(frozen=True)
class Numbering:
    """How a kind's records are numbered by the venue, per topic."""

    #: The record field that has the number; 0 there means "not numbered".
    field: str
    #: Whether the next number is always one more (a hole is loss), or only larger (a smaller one is disorder).
    consecutive: bool


@dataclass(frozen=True)
class Limits:
    """What a venue allows; going beyond gets a client cut off or banned."""

    topics_per_connection: int
    topics_per_request: int
    #: Messages that may be sent to the venue in one second, pongs included.
    messages_per_second: float


@dataclass(frozen=True)
class Deadlines:
    """How long the venue may take, in seconds."""

    #: Connecting, with TLS and the upgrade.
    connect: float = 10.0  # the transport document's WS_CONNECTION_OPEN_TIMEOUT
    #: From a request to its acknowledgement.
    acknowledge: float = 10.0  # as for connecting


class Parameters(BaseModel):
    """What every provider's users can set; providers add their own fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    symbol: str = Field(min_length=1, description="Symbols, comma-separated, e.g. btcusdt,ethusdt.")
    url: str | None = Field(
        default=None, pattern=r"^wss?://\S+$", description="Connect here instead of the venue: a simulator, a proxy."
    )
    stale_after: float | None = Field(
        default=None, gt=0, le=86_400, description="Seconds without data after which a topic is stale."
    )

    @field_validator("url")
    @classmethod
    def _usable_url(cls, value: str | None) -> str | None:
        if value is not None:
            parts = urlsplit(value)  # raises ValueError for brackets that do not close, `port` for one that is none
            if not parts.hostname or parts.port == 0:
                raise ValueError("it names no host and port to connect to")
            if parts.username is not None or parts.fragment:
                raise ValueError("a websocket's URL has neither user nor fragment")
        return value

    def secrets(self) -> set[str]:
        """The names of the fields that must never be shown, optional ones too."""
        return {name for name, info in type(self).model_fields.items() if _is_secret(info.annotation)}


def _is_secret(annotation: object) -> bool:
    return annotation is SecretStr or any(_is_secret(part) for part in get_args(annotation))


@dataclass(frozen=True)
class Topic:
    """One thing subscribed."""

    #: The venue's spelling of the whole topic; what the connection is asked for.
    native: str
    #: The venue's spelling of the symbol, as records carry it.
    symbol: str
    channel: Channel


@dataclass(frozen=True)
class Declaration:
    """What a venue is."""

    name: str
    title: str
    #: The value of `exchange` in its records.
    exchange: str
    channels: tuple[Channel, ...]
    limits: Limits
    numbering: dict[Kind, Numbering]
    #: An example symbol for help and errors.
    example: str
    verified: Verified
    deadlines: Deadlines = field(default_factory=Deadlines)

    @property
    def feeds(self) -> tuple[str, ...]:
        """What can be asked for as `feed`."""
        return tuple(channel.feed for channel in self.channels)


P = TypeVar("P", bound=Parameters)


class Provider(Protocol, Generic[P]):
    """One venue. Stateless; one instance serves all connections."""

    declaration: Declaration
    parameters: type[P]

    def topics(self, parameters: P, symbols: Sequence[str]) -> list[Topic]:
        """Give the topics that symbols mean under these parameters, without duplicates.

        Raises:
            ParameterError: a symbol the venue's rules do not allow; the message names it.
        """

    def url(self, parameters: P, desired: Sequence[Topic]) -> str:
        """Give where to connect for these topics (canonically sorted). A change means a new connection."""

    def subscribe(self, topics: Sequence[Topic], request: int) -> bytes:
        """Give the message that subscribes to topics; the venue's answer will name `request`."""

    def unsubscribe(self, topics: Sequence[Topic], request: int) -> bytes:
        """Give the message that unsubscribes from topics."""

    def decoder(self) -> Decoder:
        """Give a new decoder for one connection."""
