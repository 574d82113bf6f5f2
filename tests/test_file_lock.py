"""One writer per results file: in this process, in another, after kill -9, and while its file is taken away."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ringbuf.errors import ResultsFileError
from supervisor.file_lock import FileLock
from supervisor.snapshot_file import SnapshotFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


def test_a_second_writer_in_this_process_is_kept_out_until_the_first_leaves(path: Path) -> None:
    file = SnapshotFile(path)
    with pytest.raises(ResultsFileError, match="still open"):
        SnapshotFile(path)
    file.close()
    SnapshotFile(path).close()


HOLD = """
import sys
from pathlib import Path
from supervisor.snapshot_file import SnapshotFile
file = SnapshotFile(Path(sys.argv[1]))
sys.stdout.write("open\\n"); sys.stdout.flush(); sys.stdin.read()
"""


@pytest.mark.fault
def test_a_second_writer_process_is_kept_out_and_the_lock_falls_with_kill_9(path: Path) -> None:
    root = str(Path(__file__).resolve().parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        env={**os.environ, "PYTHONPATH": root},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(ResultsFileError, match="another recorder writes"):
            SnapshotFile(path)
        holder.kill()
    assert path.with_name(f"{path.name}-writer").exists()
    SnapshotFile(path).close()
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_anew(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sidecar = path.with_name(f"{path.name}-writer")
    real, calls = fcntl.lockf, 0

    def removed_before(descriptor: int, how: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            sidecar.unlink()  # its last holder left between our open and our lock
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "lockf", removed_before)
    lock = FileLock(path)
    assert calls == 2
    assert sidecar.exists()
    lock.release()
    assert not sidecar.exists()
