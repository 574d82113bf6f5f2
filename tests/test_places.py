"""Where the supervisor keeps things, and what it refuses to use."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ringbuf.errors import ParameterError, RingNotFound, UnsafePath
from supervisor import places
from supervisor.places import LARGEST_LOG, control_socket, log_file, open_log, state_directory


def test_the_state_directory_is_made_private_with_its_parts(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKRING_INSTANCE", "other")
    directory = state_directory()
    assert directory == Path(os.environ["TICKRING_STATE_DIR"]) / "other"
    assert sorted(entry.name for entry in directory.iterdir()) == ["dead_letters", "logs", "results"]
    for part in (directory, *directory.iterdir()):
        assert stat.S_IMODE(part.stat().st_mode) == 0o700
    assert state_directory() == directory


@pytest.mark.parametrize("instance", ["../x", "a/b", ".", "-x", "x" * 64])
def test_an_instance_name_never_leaves_the_directory(
    runtime: Path, monkeypatch: pytest.MonkeyPatch, instance: str
) -> None:
    monkeypatch.setenv("TICKRING_INSTANCE", instance)
    with pytest.raises(ParameterError, match="cannot name a instance"):
        state_directory()


def test_the_xdg_directory_is_used_if_it_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TICKRING_STATE_DIR", raising=False)
    monkeypatch.delenv("TICKRING_INSTANCE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert state_directory() == tmp_path / "xdg" / "tickring" / "default"
    for value in ("", "relative/path"):
        monkeypatch.setenv("XDG_STATE_HOME", value)
        assert state_directory() == tmp_path / "home" / ".local" / "state" / "tickring" / "default"


def test_a_relative_state_directory_is_meant_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKRING_STATE_DIR", "state")
    monkeypatch.delenv("TICKRING_INSTANCE", raising=False)
    monkeypatch.chdir(tmp_path)
    assert state_directory() == tmp_path / "state" / "default"


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_a_state_directory_that_others_can_write_is_refused(runtime: Path, mode: int) -> None:
    state_directory().chmod(mode)
    with pytest.raises(UnsafePath, match="written by others"):
        state_directory()


def test_a_state_directory_that_cannot_be_made_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TICKRING_STATE_DIR", str(tmp_path / "file"))
    with pytest.raises(UnsafePath, match="set TICKRING_STATE_DIR"):
        state_directory()


def test_the_control_socket_stands_beside_the_connections(runtime: Path) -> None:
    with pytest.raises(RingNotFound):
        control_socket()
    assert control_socket(create=True) == runtime / "default" / "control.sock"


def test_a_path_too_long_for_a_socket_is_told(runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "LONGEST_SOCKET_PATH", len(str(runtime / "default" / "control.sock")))
    control_socket(create=True)
    monkeypatch.setattr(places, "LONGEST_SOCKET_PATH", len(str(runtime / "default" / "control.sock")) - 1)
    with pytest.raises(UnsafePath, match="set TICKRING_RUNTIME_DIR"):
        control_socket()


def test_a_log_is_appended_to_and_put_aside_once_when_it_is_large(runtime: Path) -> None:
    path = log_file("supervisor")
    for text in (b"first ", b"second"):
        descriptor = open_log(path)
        os.write(descriptor, text)
        os.close(descriptor)
    assert path.read_bytes() == b"first second"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    os.truncate(path, LARGEST_LOG)
    for _ in range(2):
        os.close(open_log(path))
    assert path.stat().st_size == 0
    assert path.with_name("supervisor.log.1").stat().st_size == LARGEST_LOG
