"""What the supervisor and a provider process say to each other, as it stands on the wire."""

from __future__ import annotations

import msgspec
import pytest

from feeds.messages import (
    Answer,
    Drain,
    Failed,
    FromProvider,
    Info,
    Problem,
    Ready,
    Start,
    Subscribe,
    TopicAnswer,
    ToProvider,
    Unsubscribe,
)
from ringbuf.errors import SubscriptionRefused, TickringError, WriterActive

ANSWER = TopicAnswer("BTCUSDT", "btcusdt@trade", "refused", "unknown")

ON_THE_WIRE: list[tuple[msgspec.Struct, bytes]] = [
    (
        Start("crypto", "binance", {"symbol": "btcusdt"}),
        b'{"event":"start","name":"crypto","provider":"binance","parameters":{"symbol":"btcusdt"},"dead_letters":""}',
    ),
    (Subscribe(7, "btcusdt,ethusdt"), b'{"event":"subscribe","id":7,"symbol":"btcusdt,ethusdt"}'),
    (Unsubscribe(8, "btcusdt"), b'{"event":"unsubscribe","id":8,"symbol":"btcusdt"}'),
    (Drain(), b'{"event":"drain"}'),
    (
        Ready([ANSWER]),
        b'{"event":"ready","answers":[{"symbol":"BTCUSDT","topic":"btcusdt@trade","state":"refused","reason":"unknown"}]}',
    ),
    (
        Failed(Problem("WriterActive", "words"), permanent=True),
        b'{"event":"failed","problem":{"type":"WriterActive","message":"words"},"permanent":true}',
    ),
    (Answer(7, []), b'{"event":"answer","id":7,"answers":[],"problem":null}'),
    (Info("a line"), b'{"event":"info","text":"a line"}'),
]


@pytest.mark.parametrize(("message", "wire"), ON_THE_WIRE)
def test_every_message_is_the_documented_json_and_comes_back_as_itself(message: msgspec.Struct, wire: bytes) -> None:
    assert msgspec.json.encode(message) == wire
    expected = ToProvider if isinstance(message, Start | Subscribe | Unsubscribe | Drain) else FromProvider
    assert msgspec.json.decode(wire, type=expected) == message


@pytest.mark.parametrize("error", [WriterActive("held"), SubscriptionRefused("no"), TickringError("?")])
def test_an_error_crosses_processes_with_its_class_and_words(error: TickringError) -> None:
    again = Problem.of(error).error()
    assert type(again) is type(error)
    assert str(again) == str(error)


def test_an_error_that_nobody_knows_here_is_still_one_of_ours() -> None:
    again = Problem("ErrorOfALaterVersion", "words").error()
    assert type(again) is TickringError
    assert str(again) == "words"
