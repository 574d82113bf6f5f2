"""Run the benchmarks: ``python -m benchmarks [decode path ring readers footprint] [--quick] [--json]``.

Each runs in a process of its own, so that none inherits another's memory, caches or pinned core. Exit code 0 when all
ran, whatever they found: a missed target is a finding, not a failure.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console

from benchmarks.figures import Options, Report
from benchmarks.machine import Machine, this_machine
from benchmarks.printing import print_machine, print_report

NAMES: Final = ("decode", "path", "ring", "readers", "footprint")

_ROOT: Final = Path(__file__).resolve().parents[1]
#: Seconds that the longest benchmark may take on a slow machine.
_LONGEST: Final = 180.0
#: Seconds that a benchmark that was interrupted has to end its children.
_LEAVES_WITHIN: Final = 10.0
#: Columns of a table in a file.
_WIDTH: Final = 120


class Outcome(msgspec.Struct, frozen=True):
    """What ``--json`` prints."""

    machine: Machine
    quick: bool
    reports: list[Report]


def main() -> int:
    """Run what the command line asks for."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM cleans up as Ctrl-C does
    parser = _parser()
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in NAMES]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}: choose from {', '.join(NAMES)}")
    options = Options(arguments.quick, arguments.captures)
    try:
        if arguments.alone:
            return _alone(arguments.alone, options)
        return _all(arguments.names or list(NAMES), options, as_json=arguments.json)
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure what tickring claims.")
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all if none is named")
    add("--quick", action="store_true", help="a few seconds: shows that all runs, its figures mean little")
    add("--json", action="store_true", help="one JSON object instead of tables")
    add("--captures", type=Path, default=_ROOT.parent / "shared" / "captures", help="the folder of real captures")
    add("--alone", choices=NAMES, help=argparse.SUPPRESS)
    return parser


def _alone(name: str, options: Options) -> int:
    """Be the process of one benchmark: print its report as JSON."""
    report: Report = importlib.import_module(f"benchmarks.{name}").run(options)
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    return 0


def _all(names: list[str], options: Options, *, as_json: bool) -> int:
    console, machine = _console(quiet=as_json), this_machine()
    print_machine(console, machine)
    reports, failed = [], False
    with _private_directory() as directory:
        for name in dict.fromkeys(names):
            with console.status(f"{name} …"):
                report = _isolated(name, options, directory)
            if report is None:
                failed = True
                continue
            reports.append(report)
            print_report(console, report)
    if as_json:
        sys.stdout.write(msgspec.json.encode(Outcome(machine, options.quick, reports)).decode() + "\n")
    return 1 if failed else 0


def _console(*, quiet: bool) -> Console:
    """A terminal, or a file with room for the tables."""
    console = Console(quiet=quiet)
    return console if console.is_terminal else Console(quiet=quiet, width=_WIDTH)


def _isolated(name: str, options: Options, directory: Path) -> Report | None:
    """Run one benchmark as a process; None if it failed, its own words are on stderr then."""
    command = [sys.executable, "-P", "-m", "benchmarks", "--alone", name, "--captures", str(options.captures)]
    if options.quick:
        command.append("--quick")
    environment = {
        **os.environ,
        "OPENBLAS_NUM_THREADS": "1",  # nothing here is linear algebra; its threads cost start-up time
        "PYTHONPATH": str(_ROOT),
        "TICKRING_RUNTIME_DIR": str(directory),
    }
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        output, _ = process.communicate(timeout=_LONGEST)
    except BaseException:
        process.terminate()  # it ends its children and itself; from a terminal it has been told already
        try:
            process.wait(_LEAVES_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise
    return msgspec.json.decode(output, type=Report) if process.returncode == 0 else None


@contextmanager
def _private_directory() -> Iterator[Path]:
    """Give a directory in shared memory for all rings, and remove it with them."""
    shared = Path(os.environ.get("TICKRING_RUNTIME_DIR") or "/dev/shm")  # noqa: S108 - rings belong in shared memory
    directory = Path(tempfile.mkdtemp(prefix=f"benchmarks-{os.getpid()}-", dir=shared if shared.is_dir() else None))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
