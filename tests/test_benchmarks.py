"""Every benchmark runs in its quick form and tells its figures; how large they are is no test's business."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest
from rich.console import Console
from waiting import wait_until

from benchmarks.__main__ import NAMES, Outcome
from benchmarks.figures import Figure, Report, cost, rate
from benchmarks.footprint import _parts_of
from benchmarks.measuring import Measured, cpu_seconds
from benchmarks.printing import print_report

ROOT = Path(__file__).resolve().parents[1]

#: A figure that every benchmark has, and how many with a target.
EXPECTED = {
    "decode": ("best bid/ask, batches of 256", 2),
    "path": ("records, by the provider's CPU", 1),
    "ring": ("publish one record of 128 bytes", 4),
    "readers": ("feed, 10 readers", 2),
    "footprint": ("exec to ready", 5),
}


def command(captures: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks", "--quick", "--captures", str(captures), *arguments]


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.mark.stress
@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_runs_and_leaves_nothing(name: str, captures: Path, runtime: Path) -> None:
    done = subprocess.run(
        command(captures, name, "--json"),
        cwd=ROOT,
        capture_output=True,
        check=False,
        timeout=55,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr.decode()
    outcome = msgspec.json.decode(done.stdout, type=Outcome)
    (report,) = outcome.reports
    figure, targets = EXPECTED[name]
    assert outcome.quick
    assert outcome.machine.cores >= 1
    assert report.benchmark == name
    assert figure in [found.name for found in report.figures]
    assert sum(found.target is not None for found in report.figures) == targets
    assert all(value > 0 for found in report.figures for value in (*found.values, *found.wall))
    assert list(runtime.iterdir()) == []


@pytest.mark.fault
def test_interrupted_it_ends_its_processes_and_removes_its_rings(captures: Path, runtime: Path) -> None:
    running = subprocess.Popen(
        command(captures, "path"), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    with running:
        me = psutil.Process(running.pid)
        # The benchmark itself, simulator, provider and reader.
        wait_until(lambda: len(me.children(recursive=True)) >= 4, "the processes of the path", 30)
        children = me.children(recursive=True)
        os.killpg(running.pid, signal.SIGINT)  # as the terminal does
        assert running.wait(30) == 130
    assert not [child for child in children if alive(child)]
    assert list(runtime.iterdir()) == []


def test_an_unknown_benchmark_is_refused_with_the_names_there_are(captures: Path) -> None:
    done = subprocess.run(
        command(captures, "speed"), cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 2
    assert "there is no benchmark 'speed': choose from decode, path" in done.stderr


def test_figures_are_judged_on_the_median_by_cpu_time() -> None:
    measured = Measured()
    for cpu, wall in ((1.0, 2.0), (2.0, 2.0), (8.0, 9.0)):
        measured.add(cpu * 1e-6, wall * 1e-6, 1)
    fast = rate("fast", measured, target=0.5)
    assert (fast.best, fast.median, fast.median_wall, fast.met) == pytest.approx((1.0, 0.5, 0.5, True))
    slow = cost("slow", "µs", measured, scale=1e6, target=1.9)
    assert (slow.best, slow.median, slow.median_wall, slow.met) == pytest.approx((1.0, 2.0, 2.0, False))


def test_a_peer_is_held_against_our_figure_of_the_same_run() -> None:
    ours = Figure("ours", "ns", [2.0], higher_is_better=False)
    peer = Figure("peer", "ns", [5.0], higher_is_better=False, peer_of="ours")
    report = Report("ring", "a title", [ours, peer], ["a [note]"])
    assert report.ahead(peer) == pytest.approx(2.5)
    assert report.ahead(ours) is None
    console = Console(width=120, record=True, quiet=False, file=Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
    with console.file:
        print_report(console, report)
        text = console.export_text()
    assert "2.5 x" in text
    assert "a [note]" in text


def test_the_cpu_clock_of_another_process_is_the_one_that_it_sees_itself() -> None:
    before, by_clock = time.process_time(), cpu_seconds(os.getpid())
    after = time.process_time()
    assert before <= by_clock <= after


def test_an_import_counts_to_the_part_that_drew_it_in() -> None:
    report = """import time: self [us] | cumulative | imported package
import time:       100 |        100 |       re
import time:       200 |        300 |     numpy._core
import time:      1000 |       1300 |   numpy
import time:       500 |        500 |   json
import time:      2000 |       3800 | feeds.worker
"""
    parts = _parts_of(report)
    assert parts["numpy"] == pytest.approx(1.3)
    assert parts["own modules and the rest"] == pytest.approx(2.5)
