"""The hot path: a batch of frames becomes records in rings, and everything else becomes counted.

    frames --> decoder --> staging --> publish --> rings
                  |                                  |
                  +--> control, rejects              +--> housekeeping: liveness, holes, lag

Synchronous and without a loop of its own: the session feeds it from the socket's callback. Nothing that a frame holds
can end the feed: a frame that does not decode is counted, sampled to the log and kept among the dead letters.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from feeds.clock import Clock
from feeds.contract import Declaration, Topic
from feeds.dead_letter import DeadLetters
from feeds.decoding import Control, Decoder, Rejected
from feeds.housekeeping import RECORDS, Hole, KindHousekeeping
from feeds.logs import get_logger
from feeds.publisher import Publisher
from feeds.records import DATA_KINDS, EventCode, Kind
from feeds.sampling import Sampler
from ringbuf.connection import ConnectionWriter
from ringbuf.counters import Counter, TopicState, read_counters
from ringbuf.symbols import Namespace

_log = get_logger()


class Intake:
    """What one connection does with frames. For one thread."""

    def __init__(
        self,
        declaration: Declaration,
        decoder: Decoder,
        connection: ConnectionWriter,
        clock: Clock,
        dead_letters: Path | None = None,
    ) -> None:
        """Make the rings' publisher, and settle what a predecessor left.

        Args:
            declaration: the venue's.
            decoder: this connection's own.
            connection: what is written.
            clock: for the time of findings.
            dead_letters: where frames that do not decode are kept, or None.

        Raises:
            SharedMemoryFull: rings are continued, and there is no room for the event that says so.
        """
        self._connection = connection
        self._decoder = decoder
        self._clock = clock
        self._dead_letters = DeadLetters(dead_letters)
        self.publisher = Publisher(connection)
        self._exchange = connection.symbols.intern(declaration.exchange, Namespace.EXCHANGE)
        self._housekeeping = {kind: KindHousekeeping(kind, declaration.numbering.get(kind)) for kind in Kind}
        self._looked = self.publisher.next_seq
        self._data = [self.publisher.sink[kind] for kind in DATA_KINDS]
        self._natives: dict[tuple[Kind, int], str] = {}
        #: The native topics whose frames are expected.
        self._routed: set[str] = set()
        #: How many records of a topic there were before this process.
        self._before: dict[str, int] = {}
        self._sampler = Sampler()
        self._take_over()

    def _take_over(self) -> None:
        """Nobody wants a predecessor's topics until they are asked for again; readers learn that its rings go on."""
        now = self._clock.now()
        counters = self._connection.counters
        counters.set(Counter.CONNECTED_SINCE, 0)
        for topic in read_counters(self._connection.directory).topics:
            self._before[topic.native] = topic.records
            if topic.state is not TopicState.REMOVED:
                counters.topic(topic.native, TopicState.REMOVED, now)
        for kind, ring in list(self.publisher.rings.items()):
            if ring.replaced:
                _log.warning("a ring could not be continued", kind=kind, reason=ring.replaced)
            elif kind != Kind.EVENT:
                self.publisher.event(EventCode.WRITER_REPLACED, now, value=ring.voided, at=(Kind(kind), ring.tail))
        self.publisher.publish()

    def route(self, topic: Topic) -> None:
        """Be ready for a topic's frames. Raises SymbolError or SharedMemoryFull if its name cannot be stored."""
        symbol = self._connection.symbols.intern(topic.symbol)
        if topic.native not in self._routed:
            # Records of the time before may have been looked at after `unroute`.
            self._housekeeping[topic.channel.kind].forget(self._key(topic, symbol))
            self._routed.add(topic.native)
        self._decoder.route(topic.native, symbol, self._exchange)
        self._natives[topic.channel.kind, self._key(topic, symbol)] = topic.native

    def unroute(self, topic: Topic) -> None:
        """Expect no more frames of a topic; what it misses until it is routed again is no loss."""
        self._routed.discard(topic.native)
        symbol = self._connection.symbols.intern(topic.symbol)
        self._decoder.unroute(topic.native)
        self._housekeeping[topic.channel.kind].forget(self._key(topic, symbol))

    @staticmethod
    def _key(topic: Topic, symbol: int) -> int:
        return 2 * symbol + topic.channel.aggregate  # see `housekeeping`

    def receive(self, frames: list[bytes], received_ns: int) -> list[Control]:
        """Publish what frames hold, and give what the session must act on.

        Raises:
            SharedMemoryFull: a kind's first ring cannot be made.
        """
        counters = self._connection.counters
        counters.add(Counter.FRAMES, len(frames))
        counters.add(Counter.BYTES, sum(map(len, frames)))
        counters.set(Counter.LAST_FRAME, received_ns)
        for_session: list[Control] = []
        start = 0
        while start < len(frames):
            start, control = self._decode(frames, start, received_ns)
            self.publisher.publish()
            for item in control:
                if isinstance(item, Rejected):
                    self.reject(frames[item.index], item.reason, received_ns)
                else:
                    for_session.append(item)
        counters.add(Counter.CONTROL, len(for_session))
        return for_session

    def _decode(self, frames: list[bytes], start: int, received_ns: int) -> tuple[int, list[Control]]:
        try:
            done, control = self._decoder.decode(frames, start, received_ns, self.publisher.sink)
        # A decoder that raises has a fault of its own; that must cost the one frame that shows it, not the feed.
        except Exception as error:  # noqa: BLE001
            self._unstage()
            return self._decode_singly(frames, start, received_ns, error)
        if done <= start and not any(staging.count for staging in self.publisher.sink.stagings.values()):
            return start + 1, [Rejected(start, "the decoder does not get past it")]
        return done, control

    def _decode_singly(
        self, frames: list[bytes], start: int, received_ns: int, error: Exception
    ) -> tuple[int, list[Control]]:
        """Decode one frame by itself after a batch with it made the decoder raise."""
        try:
            done, control = self._decoder.decode(frames[: start + 1], start, received_ns, self.publisher.sink)
        except Exception as again:  # noqa: BLE001 - as above
            self._unstage()
            return start + 1, [Rejected(start, f"the decoder failed: {again!r}")]
        if self._sampler.takes("decoder failed on a batch", received_ns):
            _log.error("decoder failed on a batch", error=repr(error))
        return done, control

    def _unstage(self) -> None:
        """Drop what a decoder staged before it raised: those frames are decoded again."""
        for staging in self._data:
            staging.count = 0

    def reject(self, frame: bytes, reason: str, received_ns: int) -> None:
        """Count a frame that could not be used, and keep what helps to find out why."""
        self._connection.counters.add(Counter.REJECTED)
        self._dead_letters.keep(frame, reason, received_ns)
        if self._sampler.takes(reason, received_ns):
            _log.warning("frame rejected", reason=reason, size=len(frame), frame=frame[:200].decode(errors="replace"))
            self.publisher.event(EventCode.DECODE_ERROR, received_ns, value=len(frame), text=reason)
            self.publisher.publish()

    def housekeeping_due(self) -> bool:
        """Whether so much has been published that looking should not wait for its interval."""
        looked = self._looked  # events are not looked at
        return any(s.base_seq - looked[s.kind] >= RECORDS for s in self._data)

    def housekeep(self, on_data: Callable[[str], None]) -> None:
        """Look at what was published since the last time. `on_data` gets every native topic that had data."""
        self._connection.counters.set(Counter.HEARTBEAT, self._clock.monotonic_ns())
        for kind, ring in list(self.publisher.rings.items()):
            if kind != Kind.EVENT and ring.tail > self._looked[Kind(kind)]:
                self._look(Kind(kind), on_data)
        self.publisher.publish()

    def _look(self, kind: Kind, on_data: Callable[[str], None]) -> None:
        ring, housekeeping, counters = self.publisher.rings[kind], self._housekeeping[kind], self._connection.counters
        records = ring.recent(self._looked[kind])
        holes = housekeeping.look(records)
        counters.set(Counter.LAST_RECORD, int(records["received"][-1].view("i8")))
        del records  # a view of the ring; it must be gone before the ring can close
        self._looked[kind] = ring.tail
        ring.heartbeat(self._clock.monotonic_ns())
        if len(housekeeping.lags):
            counters.add_lags(housekeeping.lags)
        for key in housekeeping.seen:
            native = self._natives.get((kind, key))
            if native is not None:
                records_so_far = self._before.get(native, 0) + int(housekeeping.counts[key])
                counters.topic_data(native, int(housekeeping.last_received[key]), records_so_far)
                on_data(native)
        for hole in holes:
            self._tell(kind, hole)

    def _tell(self, kind: Kind, hole: Hole) -> None:
        """Make a hole an event and a count."""
        counters = self._connection.counters
        native = self._natives.get((kind, hole.key), "")
        if hole.missing > 0:
            code = EventCode.GAP
            counters.add(Counter.GAPS)
            counters.add(Counter.MISSED, hole.missing)
        else:
            code = EventCode.OUT_OF_ORDER
            counters.add(Counter.OUT_OF_ORDER)
        self.publisher.event(
            code, self._clock.now(), symbol=hole.key // 2, value=hole.missing, at=(kind, hole.seq), text=native
        )
