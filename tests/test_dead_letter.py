"""Frames that could not be used, kept in real files."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from feeds.dead_letter import LARGEST_FILE, DeadLetters

HOUR = 3_600_000_000_000


def letters_in(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "binance.jsonl"


def test_a_letter_has_the_frame_as_text_its_size_the_reason_and_the_time(path: Path) -> None:
    DeadLetters(path).keep('{"x":"é"'.encode() + b"\xff\x00", "truncated", 17)
    assert letters_in(path) == [{"received": 17, "reason": "truncated", "frame": '{"x":"é"\\xff\x00', "size": 11}]


def test_nobody_else_can_read_them(path: Path) -> None:
    DeadLetters(path).keep(b"{", "truncated", 0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_file_is_made_before_the_first_letter_nor_without_a_path(path: Path) -> None:
    DeadLetters(path)
    DeadLetters(None).keep(b"{", "truncated", 0)
    assert list(path.parent.iterdir()) == []


def test_a_giant_frame_is_cut_and_its_size_told(path: Path) -> None:
    DeadLetters(path).keep(b"x" * 10**6, "too large", 0)
    (letter,) = letters_in(path)
    assert letter["frame"] == "x" * 4096
    assert letter["size"] == 10**6


def test_a_night_of_garbage_leaves_two_files_of_a_mebibyte(path: Path) -> None:
    letters = DeadLetters(path)
    for i in range(1000):
        letters.keep(b"x" * 4096, f"reason {i % 7} of a night", i)
    files = sorted(path.parent.iterdir())
    assert files == [path, path.with_name("binance.jsonl.1")]
    assert all(file.stat().st_size <= LARGEST_FILE for file in files)
    assert all(letters_in(file) for file in files)  # whole lines only


def test_of_one_reason_a_thousand_an_hour_are_kept(path: Path) -> None:
    letters = DeadLetters(path)
    for i in range(1500):
        letters.keep(b"{", "truncated", i)
    assert len(letters_in(path)) == 1000
    letters.keep(b"{", "another", 1500)
    letters.keep(b"{", "truncated", HOUR)
    assert [letter["received"] for letter in letters_in(path)[-2:]] == [1500, HOUR]


def test_reasons_without_end_do_not_fill_the_table(path: Path) -> None:
    letters = DeadLetters(path)
    for i in range(1200):
        letters.keep(b"", f"unknown {i}", 0)
    assert len(letters_in(path)) == 1000


def test_an_unwritable_place_loses_letters_only_and_is_tried_again_in_the_next_hour(path: Path) -> None:
    directory = path.parent / "later"
    letters = DeadLetters(directory / path.name)
    letters.keep(b"{", "truncated", 0)
    directory.mkdir()
    letters.keep(b"{", "truncated", 1)
    assert list(directory.iterdir()) == []  # not tried for every frame
    letters.keep(b"{", "truncated", HOUR)
    assert len(letters_in(directory / path.name)) == 1


def test_a_link_in_its_place_is_not_followed(path: Path) -> None:
    victim = path.with_name("victim")
    victim.write_text("mine")
    path.symlink_to(victim)
    DeadLetters(path).keep(b"{", "truncated", 0)
    assert victim.read_text() == "mine"
