"""One connection's snapshots on a clock that only moves when told: pace, troubles, healing."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from processes.recorder_parts import BEGIN, Market, gaps, number, recorded, request

from feeds.records import Kind
from ringbuf.errors import ParameterError, ResultsFileError
from ringbuf.records import Loss
from supervisor.messages import Done, Notice
from supervisor.recording import LONGEST_LOOK, SHORTEST_LOOK, OpenFiles, Recording, next_look


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


class Harness:
    """Recordings on a clock that only moves when told."""

    def __init__(self) -> None:
        self.now = 100.0
        self.told: list[str] = []
        self.files = OpenFiles()

    def tell(self, message: Done | Notice) -> None:
        assert isinstance(message, Notice)
        self.told.append(message.text)

    def record(self, path: Path, connection: str = "crypto", **wanted: object) -> Recording:
        asked = request(path, connection, **{"sleep_time": 0.25, **wanted})  # type: ignore[arg-type]  # a test's options
        return Recording(asked, self.files, self.tell, lambda: self.now, lambda: BEGIN)

    def run(self, recording: Recording, seconds: float) -> int:
        """Step as often as asked for, and give how often that was."""
        end, steps = self.now + seconds, 0
        while self.now <= end:
            self.now += max(recording.step(), 1e-6)
            steps += 1
        return steps


@pytest.fixture
def harness() -> Harness:
    return Harness()


def test_rings_are_looked_at_twice_in_the_time_of_a_quarter_within_bounds() -> None:
    assert next_look(quarters=1.0, elapsed=0.04) == 0.02
    assert next_look(quarters=0.0, elapsed=0.04) == LONGEST_LOOK
    assert next_look(quarters=0.001, elapsed=0.04) == LONGEST_LOOK
    assert next_look(quarters=100.0, elapsed=0.04) == SHORTEST_LOOK


def test_a_commit_comes_every_sleep_time_and_not_before(harness: Harness, path: Path, market: Market) -> None:
    recording = harness.record(path)
    recording.step()
    for _ in range(4):
        market.publish(Kind.TRADE, 5)
        before = recorded(path)
        harness.run(recording, 0.19)
        assert recorded(path) == before
        harness.run(recording, 0.05)
        assert recorded(path) == market.order
        harness.now += 0.25 - (harness.now - 100.0) % 0.25 + 0.001  # the next interval begins
        recording.step()
    recording.end(delete=False)


def test_a_fast_ring_is_read_between_commits_so_that_nothing_is_lost(
    harness: Harness, path: Path, market: Market
) -> None:
    """Ten rings full of records within one interval."""
    recording = harness.record(path, limit=10)
    harness.run(recording, 0.01)
    while len(market.order) < 10 * 2**12:
        market.publish(Kind.TRADE, 300)
        harness.run(recording, 0.006)
    harness.run(recording, 0.3)
    assert number(path, "lost") == 0
    assert recorded(path) == market.order[-10:]
    assert number(path, "pruned") == len(market.order) - 10
    recording.end(delete=False)


def test_an_idle_connection_is_looked_at_at_most_every_50_ms(harness: Harness, path: Path, market: Market) -> None:
    recording = harness.record(path)
    assert harness.run(recording, 10.0) <= 10.0 / LONGEST_LOOK * 1.25 + 2
    recording.end(delete=False)


def test_a_full_batch_is_committed_at_once(harness: Harness, path: Path, large_market: Market) -> None:
    recording = harness.record(path, sleep_time=3600.0)
    recording.step()
    large_market.publish(Kind.TRADE, 100_000)
    harness.run(recording, 1.0)
    assert len(recorded(path)) >= 3 * 2**15
    recording.end(delete=False)
    assert recorded(path) == large_market.order


@pytest.mark.parametrize("sleep_time", [0.0, -1.0, float("nan")])
def test_a_sleep_time_that_is_none_is_refused(harness: Harness, path: Path, sleep_time: float) -> None:
    with pytest.raises(ParameterError, match="sleep_time"):
        harness.record(path, sleep_time=sleep_time)
    assert not path.exists()


def test_a_tiny_sleep_time_does_not_spin(harness: Harness, path: Path, market: Market) -> None:
    recording = harness.record(path, sleep_time=1e-9)
    assert harness.run(recording, 1.0) <= 1.0 / SHORTEST_LOOK + 2
    recording.end(delete=False)


@pytest.mark.fault
def test_a_full_disk_is_told_once_and_what_the_ring_holds_is_recorded_later(
    harness: Harness, path: Path, market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = harness.record(path)
    market.publish(Kind.TRADE, 10)
    harness.run(recording, 0.3)
    with sized(path, 1):
        market.publish(Kind.TRADE, 2000)
        harness.run(recording, 20.0)
        market.publish(Kind.TRADE, 500)
        harness.run(recording, 20.0)
        assert len(harness.told) == 1
        assert str(path) in harness.told[0]
        assert "It is tried again" in harness.told[0]
    harness.run(recording, 6.0)
    assert recorded(path) == market.order
    assert gaps(path) == []
    assert len(harness.told) == 2
    assert "again" in harness.told[1]
    recording.end(delete=False)


@pytest.mark.fault
def test_what_the_ring_overwrote_while_the_disk_was_full_is_counted(
    harness: Harness, path: Path, market: Market
) -> None:
    recording = harness.record(path)
    market.publish(Kind.TRADE, 10)
    harness.run(recording, 0.3)
    with sized(path, 1):
        for _ in range(10):
            market.publish(Kind.TRADE, 1000)
            harness.run(recording, 6.0)
    harness.run(recording, 6.0)
    ((kind, first, count, reason),) = gaps(path)
    assert (kind, first, reason) == ("trade", 10, Loss.OVERWRITTEN)
    assert [seq for _, seq in recorded(path)] == [*range(10), *range(10 + count, 10_010)]
    recording.end(delete=False)


@contextmanager
def sized(path: Path, bytes_more: int) -> Iterator[None]:
    """Let this process write no file beyond what the results file's WAL has now: the nearest to a full disk."""
    size = max(entry.stat().st_size for entry in path.parent.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + bytes_more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.fault
def test_a_file_that_another_program_locks_is_told_and_recorded_into_afterwards(
    harness: Harness, path: Path, market: Market
) -> None:
    recording = harness.record(path)
    harness.run(recording, 0.3)
    with closing(sqlite3.connect(path, isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        market.publish(Kind.TRADE, 10)
        harness.run(recording, 0.6)
        assert "Another program writes it" in harness.told[0]
    harness.run(recording, 6.0)
    assert recorded(path) == market.order
    assert len(harness.told) == 2
    recording.end(delete=False)


@pytest.mark.fault
def test_a_file_that_was_removed_is_told_and_made_anew(harness: Harness, path: Path, market: Market) -> None:
    recording = harness.record(path)
    market.publish(Kind.TRADE, 10)
    harness.run(recording, 0.3)
    path.unlink()
    market.publish(Kind.TRADE, 10)
    harness.run(recording, 6.0)
    assert "removed or replaced" in harness.told[0]
    assert len(harness.told) == 2
    assert recorded(path) == market.order
    recording.end(delete=False)


@pytest.mark.fault
def test_one_recordings_trouble_is_no_others(harness: Harness, tmp_path: Path, market: Market) -> None:
    other = Market("stocks")
    first, second = harness.record(tmp_path / "a.db"), harness.record(tmp_path / "b.db", "stocks")
    harness.run(first, 0.3)
    (tmp_path / "a.db").unlink()
    (tmp_path / "a.db").mkdir()
    for published in (market, other):
        published.publish(Kind.TRADE, 5)
    harness.run(first, 1.0)
    harness.run(second, 1.0)
    assert recorded(tmp_path / "b.db") == other.order
    assert [text.partition(":")[0] for text in harness.told] == ["crypto"] * len(harness.told)
    for recording in (first, second):
        recording.end(delete=False) if recording is second else expect_refusal(recording)
    other.close()


def expect_refusal(recording: Recording) -> None:
    with pytest.raises(ResultsFileError):
        recording.end(delete=False)


def test_a_damaged_ring_is_told_once_and_the_others_go_on(harness: Harness, path: Path, market: Market) -> None:
    market.publish(Kind.TRADE, 5)
    (market.writer.directory / "quote.ring").write_bytes(b"x" * 5000)
    (market.writer.directory / "quote.ring").chmod(0o600)
    recording = harness.record(path)
    harness.run(recording, 2.0)
    assert recorded(path) == market.order
    (told,) = harness.told
    assert "quote.ring" in told
    recording.end(delete=False)


def test_an_unforeseen_fault_is_told_and_the_recording_goes_on(
    harness: Harness, path: Path, market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = harness.record(path)
    market.publish(Kind.TRADE, 5)
    with monkeypatch.context() as patch:
        patch.setattr("supervisor.snapshots.merged", lambda *_: 1 / 0)
        harness.run(recording, 2.0)
    assert "ZeroDivisionError" in harness.told[0]
    harness.run(recording, 6.0)
    assert recorded(path) == market.order
    recording.end(delete=False)
