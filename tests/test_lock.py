"""One writer per connection; the other process of the exclusion is in test_ring_faults.py."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from processes.running import go, line, running

from ringbuf.directory import connection_directory
from ringbuf.errors import UnsafePath, WriterActive
from ringbuf.lock import WriterLock


@pytest.fixture
def directory(runtime: Path) -> Path:
    return connection_directory("venue", create=True)


def test_a_lock_is_held_until_it_is_released(directory: Path) -> None:
    with WriterLock(directory) as lock:
        with pytest.raises(WriterActive, match="this process already writes venue"):
            WriterLock(directory)
        lock.release()
        lock.release()
        with WriterLock(directory):
            # The first lock's end must not release the second one.
            lock.release()
            with pytest.raises(WriterActive):
                WriterLock(directory)


def test_another_spelling_of_the_path_is_the_same_lock_and_the_refusal_does_not_free_it(directory: Path) -> None:
    with WriterLock(directory):
        with pytest.raises(WriterActive):
            WriterLock(directory.parent / ".." / directory.parent.name / directory.name)
        # POSIX locks go with the first descriptor that is closed; another process shows whether ours is still there.
        with running("ring_writer", "venue", "trade", 8, 64, "hold") as process:
            assert process.wait() == 1


def test_a_lock_in_a_directory_made_anew_is_another_lock(directory: Path) -> None:
    with WriterLock(directory):
        shutil.rmtree(directory)
        directory.mkdir(mode=0o700)
        WriterLock(directory).release()


def test_a_refused_process_leaves_the_holder_its_lock(directory: Path) -> None:
    with running("ring_writer", "venue", "trade", 8, 64, "hold") as process:
        assert line(process) == "ready 0"
        for _ in range(2):
            with pytest.raises(WriterActive, match="another process writes venue"):
                WriterLock(directory)
        go(process)
        assert process.wait() == 0
    WriterLock(directory).release()


def test_a_lock_file_that_is_a_link_is_refused(directory: Path) -> None:
    (directory / "real").touch()
    (directory / "writer.lock").symlink_to(directory / "real")
    with pytest.raises(UnsafePath, match="is a link"):
        WriterLock(directory)
