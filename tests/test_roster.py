"""The list of connections on disk: whole, private, and never half written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec
import pytest

from ringbuf.errors import SupervisorError
from supervisor.roster import Settings, load, save


def settings(name: str = "c", **changed: object) -> Settings:
    return msgspec.structs.replace(
        Settings(
            name=name, provider="binance", parameters={"feed": "trade", "stale_after": 2.5}, symbols=["BTCUSDT"],
            auth_token="t0ken", results_file="/tmp/r.db", made_results_file=True, save_results=False,  # noqa: S106, S108
            table_name="records", limit=None, sleep_time=0.25, broadcast_host="127.0.0.1", broadcast_port=6666,
            broadcasting=True, running=False, session=True,
        ),
        **changed,
    )  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "connections.json"


def test_every_field_comes_back(path: Path) -> None:
    listed = [settings(), settings("d", auth_token=None, limit=7)]
    save(path, listed)
    assert load(path) == listed


def test_no_file_is_an_empty_list(path: Path) -> None:
    assert load(path) == []


def test_the_file_is_the_users_alone_whatever_the_mask_and_whatever_was_there(path: Path) -> None:
    path.touch(mode=0o666)
    path.with_name("connections.json.new").touch(mode=0o666)  # a crash left it
    mask = os.umask(0)
    try:
        save(path, [settings()])
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_list_of_an_older_tickring_without_sessions_is_read(path: Path) -> None:
    save(path, [settings()])
    path.write_text(path.read_text().replace('"session": true', '"unknown": 1'))
    (found,) = load(path)
    assert found.session is False


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read"),
        (b"{", "cannot be read"),
        (b'{"version":1,"connections":[{"name":"c"}]}', "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b'{"version":2,"connections":[]}', "version 2"),
    ],
)
def test_a_list_that_cannot_be_read_is_told_and_left_alone(path: Path, content: bytes, words: str) -> None:
    path.write_bytes(content)
    with pytest.raises(SupervisorError, match=words):
        load(path)
    assert path.read_bytes() == content


def test_a_directory_in_its_place_is_told(path: Path) -> None:
    path.mkdir()
    with pytest.raises(SupervisorError, match="cannot be read"):
        load(path)
    with pytest.raises(SupervisorError, match="will not survive"):
        save(path, [])
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_list_that_cannot_be_written_leaves_the_old_one(path: Path) -> None:
    save(path, [settings("old")])
    path.with_name("connections.json.new").mkdir()
    with pytest.raises(SupervisorError, match="will not survive"):
        save(path, [settings("new")])
    assert [it.name for it in load(path)] == ["old"]
