"""Control messages over real sockets, in every portion that a stream may come in."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec
import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.messages import Drain, Info, Start, Subscribe, ToProvider
from feeds.pipe import LARGEST, ControlPipe, Splitter, pack
from ringbuf.errors import ControlError


def splitter() -> Splitter[ToProvider]:
    return Splitter(ToProvider)


# libuv makes one pipe for the whole process with its first loop; it must not count as left open by a test.
uvloop.new_event_loop().close()


# ---- framing --------------------------------------------------------------------------------------------------------


def test_a_message_is_its_length_and_its_json() -> None:
    assert pack(Drain()) == b'\x11\x00\x00\x00{"event":"drain"}'


@given(
    messages=st.lists(st.builds(Subscribe, id=st.integers(0, 2**31), symbol=st.text(max_size=30)), max_size=8),
    cuts=st.lists(st.integers(1, 40), min_size=1, max_size=20),
)
@settings(deadline=None)
def test_messages_survive_any_portions(messages: list[Subscribe], cuts: list[int]) -> None:
    stream = b"".join(map(pack, messages))
    cutting = splitter()
    found: list[ToProvider] = []
    at = turn = 0
    while at < len(stream):
        size = cuts[turn % len(cuts)]
        found += cutting.feed(stream[at : at + size])
        at, turn = at + size, turn + 1
    assert found == messages


def test_the_largest_message_passes_and_a_larger_one_is_refused_at_both_ends() -> None:
    overhead = len(pack(Info(""))) - 4
    fits = Info("x" * (LARGEST - overhead))
    assert Splitter(Info).feed(pack(fits)) == [fits]
    with pytest.raises(ControlError, match=f"over the limit of {LARGEST}"):
        pack(Info("x" * (LARGEST - overhead + 1)))
    with pytest.raises(ControlError, match="announces 16777217 bytes"):
        splitter().feed(struct.pack("<I", LARGEST + 1))


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"null", b"\xff\xfe", b'{"event":"unknown"}', b'{"event":"subscribe","id":"x","symbol":""}',
     b'{"event":"subscribe","id":1,"symbol":"\xff"}', b'{"event":"drain"',
     b'{"event":"start","name":"x","provider":"y","parameters":' + b'{"a":' * 100_000],
)  # fmt: skip
def test_a_body_that_is_no_message_is_one_clear_error(body: bytes) -> None:
    with pytest.raises(ControlError, match="cannot be understood"):
        splitter().feed(struct.pack("<I", len(body)) + body)


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes_are_messages_a_wait_or_one_error(data: bytes) -> None:
    with suppress(ControlError):
        splitter().feed(data)


def test_keys_of_a_later_version_are_ignored() -> None:
    body = json.dumps({"event": "subscribe", "id": 1, "symbol": "x", "later": {"a": 1}}).encode()
    assert splitter().feed(struct.pack("<I", len(body)) + body) == [Subscribe(1, "x")]


def test_a_start_keeps_its_parameters_whatever_they_are() -> None:
    start = Start("n", "p", {"a": [1, {"b": None}], "c": 1.5}, "letters")
    assert splitter().feed(pack(start)) == [start]


# ---- over a socket pair ---------------------------------------------------------------------------------------------

Test = Callable[[ControlPipe[Info], ControlPipe[Info]], Awaitable[None]]


def with_pipes(test: Test, runner: Callable[..., object]) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        first, second = await ControlPipe.open(ours, Info), await ControlPipe.open(theirs, Info)
        try:
            async with asyncio.timeout(20):
                await test(first, second)
        finally:
            first.close()
            second.close()
            await asyncio.sleep(0.01)  # the transports' own last callbacks

    runner(main())


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Callable[..., object]:
    run: Callable[..., object] = request.param
    return run


def test_messages_arrive_in_order_both_ways_and_the_end_is_told_to_every_caller(runner: Callable[..., object]) -> None:
    async def test(first: ControlPipe[Info], second: ControlPipe[Info]) -> None:
        for i in range(100):
            first.send(Info(str(i)))
            second.send(Info(str(-i)))
        assert [await second.receive() for _ in range(100)] == [Info(str(i)) for i in range(100)]
        assert [await first.receive() for _ in range(100)] == [Info(str(-i)) for i in range(100)]
        first.send(Info("last"))
        first.close()
        assert await second.receive() == Info("last")
        assert [await second.receive(), await second.receive()] == [None, None]
        assert second.failure is None
        second.send(Info("into the void"))

    with_pipes(test, runner)


def test_a_message_of_megabytes_arrives_whole(runner: Callable[..., object]) -> None:
    async def test(first: ControlPipe[Info], second: ControlPipe[Info]) -> None:
        large = Info("x" * (LARGEST - 100))
        first.send(large)
        first.send(Info("small"))
        assert await second.receive() == large
        assert await second.receive() == Info("small")

    with_pipes(test, runner)


def test_garbage_ends_the_channel_with_its_reason_after_what_was_good(runner: Callable[..., object]) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            pipe = await ControlPipe.open(ours, Info)
            theirs.sendall(pack(Info("good")))
            async with asyncio.timeout(20):
                assert await pipe.receive() == Info("good")
                theirs.sendall(struct.pack("<I", 7) + b"garbage")
                assert await pipe.receive() is None
            assert "cannot be understood" in str(pipe.failure)
            assert pipe.closed

    runner(main())


def test_good_messages_that_come_together_with_garbage_are_not_lost(runner: Callable[..., object]) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            pipe = await ControlPipe.open(ours, Info)
            theirs.sendall(pack(Info("good")) + struct.pack("<I", 7) + b"garbage")
            async with asyncio.timeout(20):
                assert await pipe.receive() == Info("good")
                assert await pipe.receive() is None
            assert "cannot be understood" in str(pipe.failure)

    runner(main())


def test_a_peer_that_does_not_read_is_cut_off_and_blocks_nobody(runner: Callable[..., object]) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            pipe = await ControlPipe.open(ours, Info)
            for _ in range(40):  # a MiB each: more than the kernel and the bound hold
                pipe.send(Info("x" * 2**20))
            async with asyncio.timeout(20):
                assert await pipe.receive() is None
            assert "it hangs" in str(pipe.failure)

    runner(main())


def test_nothing_but_structs_is_sent() -> None:
    with pytest.raises(TypeError):
        pack(object())  # type: ignore[arg-type]
    assert isinstance(Drain(), msgspec.Struct)
