"""The README, the docs and the examples do what they say: their code is run, their links are followed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import wait_until

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def venue(runtime: Path) -> Iterator[str]:
    """The venue that the README starts in another terminal; gives its port."""
    command = [sys.executable, "-P", "-m", "feeds.simulator", "--port", "0", "--until-eof"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield str(json.loads(process.stdout.readline())["port"])
        finally:
            process.terminate()


def run(source: str, *arguments: str) -> str:
    """Run a program in a process of its own, as a user would, and give what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", source, *arguments], capture_output=True, text=True, timeout=50, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def session_has_ended() -> bool:
    """Whether the supervisor that a program started has ended with it."""
    return not (Path(os.environ["TICKRING_RUNTIME_DIR"]) / "default" / "control.sock").exists()


def test_the_readme_s_first_minute_runs_as_it_stands(venue: str) -> None:
    (source,) = blocks(ROOT / "README.md", "python")
    printed = run(source.replace("7777", venue))
    assert "trade records of crypto>" in printed
    assert "topic='solusdt@trade', state='acknowledged'" in printed
    assert "[5 rows x 17 columns]" in printed
    wait_until(session_has_ended, "the supervisor ended with the program that started it")


def test_the_page_on_reading_runs_as_it_stands_beside_a_connection(venue: str) -> None:
    (source,) = blocks(ROOT / "docs" / "reading.md", "python")
    connect = f"""
import tickring
tickring.create_connection("binance", symbol="btcusdt", url="ws://127.0.0.1:{venue}/stream")
"""
    assert "BTCUSDT" in run(connect + source)
    wait_until(session_has_ended, "the supervisor ended with the program that started it")


@pytest.mark.parametrize(("example", "call"), [("rolling_vwap", "main('ex', 3)"), ("best_quotes", "main('ex')")])
def test_the_examples_run_beside_a_connection(venue: str, example: str, call: str) -> None:
    source = f"""
import sys
import tickring
tickring.create_connection(
    "binance", "ex", symbol="btcusdt,ethusdt", feed="trade,quote", url="ws://127.0.0.1:{venue}/stream"
)
sys.path.insert(0, "examples")
from {example} import main
{call}
"""
    assert "BTCUSDT" in run(source)
    wait_until(session_has_ended, "the supervisor ended with the program that started it")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_every_command_that_a_page_shows_exists() -> None:
    shown = {
        command for page in PAGES for command in re.findall(r"(?:^|`)tickring ([a-z]+)", page.read_text(), re.MULTILINE)
    }
    help_text = run("import sys; sys.argv = ['tickring', '--help']; from cli.main import run; run()")
    assert shown
    for command in shown:
        assert re.search(rf"^│ {command}\b", help_text, re.MULTILINE), command
