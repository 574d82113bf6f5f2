"""Where rings lie, and the paths that are refused."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from ringbuf.directory import (
    check_name,
    connection_directory,
    create_file,
    instance_directory,
    instance_name,
    open_file,
    reserve,
    runtime_root,
)
from ringbuf.errors import ParameterError, RingNotFound, SharedMemoryFull, UnsafePath

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may give a file to someone else")


@pytest.mark.parametrize("name", ["a", "crypto_binance", "BTC-USD.v2", "1", "x" * 63])
def test_a_name_of_letters_digits_and_three_signs_is_taken_as_it_is(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "-a", "_a", "a b", "a\n", "a\0", "börse", "x" * 64])
def test_a_name_that_could_leave_its_directory_or_confuse_is_refused(name: str) -> None:
    with pytest.raises(ParameterError, match="cannot name a kind"):
        check_name(name, "kind")


def test_a_connections_directory_is_made_private_below_runtime_and_instance(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKRING_RUNTIME_DIR", str(runtime / "new"))
    monkeypatch.setenv("TICKRING_INSTANCE", "research")
    directory = connection_directory("venue", create=True)
    assert directory == runtime / "new" / "research" / "venue"
    for path in (directory, directory.parent, directory.parent.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert connection_directory("venue") == directory
    assert connection_directory("venue", create=True) == directory


def test_without_being_told_the_runtime_directory_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TICKRING_RUNTIME_DIR", raising=False)
    monkeypatch.delenv("TICKRING_INSTANCE", raising=False)
    assert runtime_root().name == f"tickring-{os.getuid()}"
    assert instance_name() == "default"


def test_a_bad_instance_name_is_refused(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKRING_INSTANCE", "../elsewhere")
    with pytest.raises(ParameterError, match="instance"):
        instance_directory(create=True)


def test_a_directory_that_is_not_there_is_not_found_and_not_made(runtime: Path) -> None:
    with pytest.raises(RingNotFound, match="nothing has been started"):
        connection_directory("venue")
    assert list(runtime.iterdir()) == []


def test_a_runtime_directory_below_nothing_is_refused(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKRING_RUNTIME_DIR", str(runtime / "missing" / "deep"))
    with pytest.raises(UnsafePath, match="correct TICKRING_RUNTIME_DIR"):
        connection_directory("venue", create=True)


def test_a_runtime_directory_below_a_file_is_refused(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (runtime / "file").touch()
    monkeypatch.setenv("TICKRING_RUNTIME_DIR", str(runtime / "file" / "deep"))
    for create in (True, False):
        with pytest.raises(UnsafePath, match="correct TICKRING_RUNTIME_DIR"):
            connection_directory("venue", create=create)


@pytest.mark.fault
@pytest.mark.parametrize("level", ["default", "default/venue"])
@pytest.mark.parametrize("trap", ["link", "file", "open to the group", "open to all"])
def test_a_directory_that_may_be_a_trap_is_refused(runtime: Path, level: str, trap: str) -> None:
    path = runtime / level
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if trap == "link":
        (runtime / "elsewhere").mkdir(mode=0o700)
        path.symlink_to(runtime / "elsewhere")
    elif trap == "file":
        path.touch()
    else:
        path.mkdir()
        path.chmod(0o770 if trap == "open to the group" else 0o702)
    for create in (False, True):
        with pytest.raises(UnsafePath, match=str(path)):
            connection_directory("venue", create=create)


@pytest.mark.fault
@needs_root
def test_what_belongs_to_someone_else_is_refused(runtime: Path) -> None:
    directory = connection_directory("venue", create=True)
    file = directory / "trade.ring"
    file.touch(mode=0o600)
    os.chown(file, 12345, 12345)
    with pytest.raises(UnsafePath, match="belongs to user 12345, not to you"):
        open_file(file)
    os.chown(directory, 12345, 12345)
    with pytest.raises(UnsafePath, match="belongs to user 12345, not to you"):
        connection_directory("venue")


@pytest.mark.fault
@pytest.mark.parametrize("trap", ["link", "directory", "pipe", "socket", "open to all"])
@pytest.mark.parametrize("write", [False, True])
def test_a_file_that_may_be_a_trap_is_refused_at_once(runtime: Path, trap: str, write: bool) -> None:
    path = runtime / "trade.ring"
    (runtime / "real").touch(mode=0o600)
    if trap == "link":
        path.symlink_to(runtime / "real")
    elif trap == "directory":
        path.mkdir()
    elif trap == "pipe":
        os.mkfifo(path, 0o600)  # opened without care, it would hold us until someone opened its other end
    elif trap == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    else:
        path.touch()
        path.chmod(0o606)
    with pytest.raises(UnsafePath, match=str(path)):
        open_file(path, write=write)
    with pytest.raises(UnsafePath, match=str(path)):
        open_file(path, write=True, create=True)


def test_a_file_is_made_private_and_a_missing_one_is_not_found(runtime: Path) -> None:
    with pytest.raises(RingNotFound, match="does not exist"):
        open_file(runtime / "file")
    os.close(open_file(runtime / "file", write=True, create=True))
    assert stat.S_IMODE((runtime / "file").stat().st_mode) == 0o600


def test_a_built_file_has_its_size_and_head_and_nothing_else_stays(runtime: Path) -> None:
    (runtime / ".table.abandoned").touch()
    create_file(runtime / "table", 10_000, b"HEAD")
    assert (runtime / "table").read_bytes() == b"HEAD" + bytes(9_996)
    assert (runtime / "table").stat().st_blocks * 512 >= 10_000
    assert [path.name for path in runtime.iterdir()] == ["table"]


@pytest.mark.fault
def test_a_file_that_finds_no_room_leaves_nothing_behind(runtime: Path) -> None:
    with pytest.raises(SharedMemoryFull, match=r"table needs .* MiB, but only .* MiB are free"):
        create_file(runtime / "table", 2**55, b"HEAD")
    assert list(runtime.iterdir()) == []


def test_reserving_keeps_what_is_there(runtime: Path) -> None:
    create_file(runtime / "table", 100, b"HEAD")
    descriptor = open_file(runtime / "table", write=True)
    reserve(descriptor, 5_000, runtime / "table")
    os.close(descriptor)
    assert (runtime / "table").read_bytes() == b"HEAD" + bytes(4_996)
