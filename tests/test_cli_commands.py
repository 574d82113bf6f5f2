"""Every command, as a process, beside a real supervisor, a real venue on loopback and a real connection."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes.cli_session import (
    ROOT,
    WITHIN,
    Ran,
    Session,
    ended,
    environment,
    inside,
    processes_of,
    start,
    tickring,
    together,
)
from waiting import wait_until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    made = Session()
    try:
        yield made
    finally:
        down = made.close()
    assert (down.code, down.err) == (0, "")
    assert not processes_of("TICKRING_RUNTIME_DIR", str(made.runtime))


def lines_of(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


# ---- supervisor and connections --------------------------------------------------------------------------------------


def test_create_says_what_the_venue_answered_per_symbol_and_where_listeners_connect(session: Session) -> None:
    assert session.up.code == session.created.code == 0
    assert session.up.out.startswith("supervisor up, pid ")
    for topic in ("btcusdt@trade", "btcusdt@bookTicker", "ethusdt@trade", "ethusdt@bookTicker"):
        assert any(line.split() == [topic, "acknowledged"] for line in session.created.out.splitlines())
    assert "crypto_binance is ready, pid " in session.created.out
    assert "listeners at ws://127.0.0.1:" in session.created.out
    assert "/crypto_binance\n" in session.created.out


def test_up_beside_a_running_supervisor_is_fine_unless_it_is_to_stay_in_the_foreground(session: Session) -> None:
    again, foreground = together(session.env, ("up", "--json"), ("up", "--foreground"))
    assert (again.code, again.json["already_running"]) == (0, True)
    assert again.json["connections"] == ["crypto_binance"]
    assert foreground.code == 1
    assert foreground.err.startswith("error: a supervisor already runs (pid ")


def test_a_token_comes_from_a_file_or_the_environment_and_never_from_the_arguments(
    session: Session, tmp_path: Path
) -> None:
    file, other = tmp_path / "token", tmp_path / "other"
    file.write_text("s3cret\n")
    other.write_text("wrong")
    made = session.ask(
        "create", "binance", "-s", "bnbusdt", "--name", "guarded", "--url", session.url, "--auth-token-file", str(file),
        "--json",
    )  # fmt: skip
    try:
        assert (made.code, made.json["auth_required"], made.json["answers"][0]["state"]) == (0, True, "acknowledged")
        without, wrong, right = together(
            session.env,
            ("results", "guarded", "--json"),
            ("results", "guarded", "--auth-token-file", str(other)),
            ("results", "guarded", "--json", "--auth-token-file", str(file)),
        )
        assert (without.code, wrong.code, right.code) == (1, 1, 0)
        assert "token is required for guarded" in without.err
        assert "Invalid client authorization token" in wrong.err
        assert isinstance(right.json, list)
    finally:
        killed = tickring({**session.env, "TICKRING_AUTH_TOKEN": "s3cret"}, "kill", "guarded")
    assert (killed.code, killed.out) == (0, "Clients guarded killed.\n")
    assert "s3cret" not in made.out + made.err + without.err + wrong.err


def test_symbols_are_added_and_taken_away_and_a_refused_one_is_exit_1_in_the_venues_words(session: Session) -> None:
    added = session.ask("subscribe", "crypto_binance", "solusdt", "XRP/USDT")
    assert added.code == 0
    assert ["solusdt@trade", "acknowledged"] in [line.split() for line in added.out.splitlines()]
    refused = session.ask("subscribe", "crypto_binance", "nosuchusdt", "--json")
    assert refused.code == 1
    assert {answer["state"] for answer in refused.json["answers"]} == {"refused"}
    assert "unknown stream" in refused.json["answers"][0]["reason"]
    removed = session.ask("unsubscribe", "crypto_binance", "solusdt,xrpusdt", "--json")
    assert (removed.code, removed.json["subscribed_symbols"]) == (0, "BTCUSDT,ETHUSDT")
    assert {answer["state"] for answer in removed.json["answers"]} == {"removed"}


def test_a_connection_stops_and_is_killed_and_all_are_only_killed_when_that_is_meant(session: Session) -> None:
    made = session.ask("create", "binance", "-s", "adausdt", "--name", "brief", "--url", session.url)
    assert made.code == 0, made.err
    stopped = session.ask("stop", "brief")
    assert (stopped.code, stopped.out) == (0, "Disconnected from the provider WebSocket.\n")
    status, check, all_of_them = together(
        session.env, ("status", "brief", "--json"), ("status", "brief", "--check"), ("kill", "all")
    )
    assert status.json["connections"][0]["connection"]["state"] == "stopped"
    assert check.code == 0, "a connection that was stopped is as it was wished"
    assert (all_of_them.code, all_of_them.out) == (2, "")
    assert "--yes" in all_of_them.err
    killed = session.ask("kill", "brief", "--json")
    assert (killed.code, killed.json) == (0, {"killed": ["brief"]})


def test_down_ends_everything_and_up_brings_the_connections_back(session: Session) -> None:
    down = session.run("down")
    assert (down.code, down.out) == (0, "supervisor down\nback with `tickring up`: crypto_binance\n")
    assert len(processes_of("TICKRING_RUNTIME_DIR", str(session.runtime))) == 1, "only the venue is left"
    up = session.run("up")
    assert (up.code, up.out.splitlines()[1]) == (0, "connections: crypto_binance")

    def back() -> bool:
        found = session.ask("status", "--json").json["connections"]
        return bool(found) and found[0]["figures"] is not None and found[0]["figures"]["live"] == 4

    wait_until(back, "all topics live again", 40.0)


# ---- status ----------------------------------------------------------------------------------------------------------


def test_status_tells_states_rates_lag_and_topics_in_a_table_and_in_one_json_document(session: Session) -> None:
    table, detail, document = together(
        session.env, ("status",), ("status", "crypto_binance"), ("status", "--json", "--check")
    )
    assert (table.code, detail.code, document.code) == (0, 0, 0)
    header, row = table.out.splitlines()[2:4]
    assert header.split()[:5] == ["connection", "state", "topics", "records/s", "records"]
    assert row.split()[:3] == ["crypto_binance", "ready", "4/4"]
    assert not any(line.endswith(" ") for line in table.out.splitlines())
    assert any(line.split()[:2] == ["ethusdt@bookTicker", "live"] for line in detail.out.splitlines())
    one = document.json["connections"][0]
    assert one["connection"]["subscribed_symbols"] == "BTCUSDT,ETHUSDT"
    assert one["figures"]["records_per_second"] > 0
    assert one["figures"]["gaps"] == one["figures"]["rejected"] == 0
    assert [topic["state"] for topic in one["figures"]["topics"] if topic["state"] != "refused"] == ["live"] * 4
    assert document.json["supervisor"]["pid"] in {
        process.pid for process in processes_of("TICKRING_RUNTIME_DIR", str(session.runtime))
    }


def test_watching_prints_one_document_a_line_and_ends_with_130_on_ctrl_c(session: Session) -> None:
    watching = session.start("status", "--watch", "--json", "--interval", "0.1")
    assert watching.stdout is not None
    documents = [json.loads(watching.stdout.readline()) for _ in range(3)]
    assert [document["connections"][0]["connection"]["name"] for document in documents] == ["crypto_binance"] * 3
    watching.send_signal(signal.SIGINT)
    assert (ran := ended(watching)).code == 130
    assert ran.err == ""


def test_check_is_exit_4_while_a_topic_is_stale(session: Session) -> None:
    quiet = "celousdt"  # one of the market's quietest: seconds pass between its trades
    made = session.ask(
        "create", "binance", "-s", quiet, "--name", "quiet", "--url", session.url, "--set", "stale_after=0.05"
    )
    assert made.code == 0, made.err
    try:
        runs: list[Ran] = []

        def unhealthy() -> bool:
            runs.append(session.ask("status", "quiet", "--check", "--json"))
            return runs[-1].code != 0

        wait_until(unhealthy, "a stale topic")
        ran = runs[-1]
        assert ran.code == 4
        assert ran.json["connections"][0]["figures"]["stale"] == [f"{quiet}@trade"]
    finally:
        assert session.ask("kill", "quiet").code == 0


# ---- data ------------------------------------------------------------------------------------------------------------


def test_results_come_as_lines_json_json_lines_and_csv_filtered_and_limited(session: Session, tmp_path: Path) -> None:
    wait_until(lambda: len(session.ask("results", "crypto_binance", "--json").json) == 500, "as many rows as are kept")
    file = tmp_path / "out.csv"
    plain, one_symbol, one_kind, written, to_stdout = together(
        session.env,
        ("results", "crypto_binance", "-n", "3"),
        ("results", "crypto_binance", "--json", "--symbol", "ethusdt"),
        ("results", "crypto_binance", "--jsonl", "--type", "trade", "-n", "4"),
        ("results", "crypto_binance", "--csv", str(file)),
        ("results", "crypto_binance", "--csv", "-", "-n", "2", "--type", "quote"),
    )
    assert [ran.code for ran in (plain, one_symbol, one_kind, written, to_stdout)] == [0] * 5
    assert len(plain.out.splitlines()) == 3
    assert {record["symbol"] for record in one_symbol.json} == {"ETHUSDT"}
    assert [record["type"] for record in lines_of(one_kind.out)] == ["trade"] * 4
    assert (written.out, written.err) == ("", f"500 records written to {file}\n")
    assert len(list(csv.DictReader(io.StringIO(file.read_text())))) == 500
    rows = list(csv.DictReader(io.StringIO(to_stdout.out)))
    assert len(rows) == 2
    assert all(float(row["bid_price"]) < float(row["ask_price"]) for row in rows)


def test_attach_reads_the_ring_itself_and_sums_up_what_it_got(session: Session) -> None:
    plain, filtered, events = together(
        session.env,
        ("attach", "crypto_binance", "trade", "-n", "3", "--start", "oldest"),
        ("attach", "crypto_binance", "quote", "-n", "2", "--json", "--symbol", "ethusdt"),
        ("attach", "crypto_binance", "event", "-n", "1", "--start", "oldest", "--json"),
    )
    assert [len(ran.out.splitlines()) for ran in (plain, filtered, events)] == [3, 2, 1]
    assert all(line.split()[2] == "trade" for line in plain.out.splitlines())
    assert plain.err.startswith("received 3, lost 0, from seq ")
    assert {record["symbol"] for record in lines_of(filtered.out)} == {"ETHUSDT"}
    assert lines_of(events.out)[0]["code"] == "connected"


@pytest.mark.parametrize("command", ["attach", "listen"])
def test_ctrl_c_ends_only_the_one_who_reads(session: Session, command: str) -> None:
    arguments = ("crypto_binance", "trade", "--json") if command == "attach" else (session.address,)
    reading = session.start(command, *arguments)
    assert reading.stdout is not None
    assert "symbol" in json.loads(reading.stdout.readline())
    reading.send_signal(signal.SIGINT)
    ran = ended(reading)
    assert ran.code == 130
    assert "Traceback" not in ran.err
    assert ("received " in ran.err) == (command == "attach")
    assert session.ask("status", "--check").code == 0


@pytest.mark.parametrize("command", ["attach", "listen", "results"])
def test_a_closed_pipe_ends_a_command_quietly(session: Session, command: str) -> None:
    arguments = {"listen": (session.address,), "attach": ("crypto_binance", "quote")}
    reading = session.start(command, *arguments.get(command, ("crypto_binance", "--jsonl")))
    assert reading.stdout is not None
    reading.stdout.readline()
    reading.stdout.close()  # as head does when it has seen enough
    assert reading.stderr is not None
    words = reading.stderr.read()
    assert reading.wait(WITHIN) == 0
    assert "rror" not in words
    reading.stderr.close()


def test_listen_prints_what_is_broadcast_and_nothing_else_on_standard_output(session: Session) -> None:
    address = session.address
    ran, missing = together(session.env, ("listen", address, "-n", "3"), ("listen", f"{address}/nobody"))
    assert (ran.code, len(lines_of(ran.out))) == (0, 3)
    assert ran.err == f"Listening for messages from {address}\n"
    assert missing.code == 3
    assert "No connection of that name" in missing.err


# ---- what goes wrong -------------------------------------------------------------------------------------------------

_WRONG: list[tuple[tuple[str, ...], int, str]] = [
    (("create", "nobody", "-s", "btcusdt"), 2, "there is no provider 'nobody'"),
    (("create", "binance", "-s", "btcusdt", "--name", "crypto_binance"), 1, "already connected"),
    (("create", "binance", "-s", "btcusdt", "--feed", "candles"), 2, "'candles' is no feed of binance"),
    (("create", "binance", "-s", "b!", "--name", "x"), 2, "cannot be a Binance symbol"),
    (("create", "binance", "-s", "btcusdt", "--set", "zip=1"), 2, "it knows no parameter 'zip'"),
    (("create", "binance", "-s", "btcusdt", "--set", "zip"), 2, "--set takes KEY=VALUE"),
    (("create", "binance", "-s", "btcusdt", "--limit", "few"), 2, "--limit is a number of rows"),
    (("create", "binance", "-s", "btcusdt", "--url", "ws://127.0.0.1:9/"), 1, "127.0.0.1:9"),
    (("create", "binance", "-s", "btcusdt", "--auth-token-file", "/nowhere"), 2, "token file /nowhere cannot be read"),
    (("status", "nobody"), 3, "Client nobody not connected"),
    (("subscribe", "nobody", "btcusdt"), 3, "Client nobody not connected"),
    (("unsubscribe", "crypto_binance", "ltcusdt"), 2, "is not subscribed to LTCUSDT"),
    (("kill", "nobody"), 3, "Client nobody not connected"),
    (("results", "crypto_binance", "--type", "tick"), 2, "there is no kind 'tick'"),
    (("results", "crypto_binance", "--csv", "/nowhere/x.csv"), 1, "/nowhere/x.csv cannot be written"),
    (("results", "crypto_binance", "--csv", "-", "--json"), 2, "choose one of --json, --jsonl and"),
    (("attach", "crypto_binance", "tick"), 2, "there is no kind 'tick'"),
    (("attach", "crypto_binance", "candle", "--wait", "0"), 3, "has no candle ring (yet)"),
    (("attach", "crypto_binance", "trade", "--start", "99999999999"), 2, "cannot be read from seq"),
    (("attach", "crypto_binance", "trade", "--start", "yesterday"), 2, "--start is"),
    (("listen", "ws://127.0.0.1:9"), 3, "nothing answers as a broadcaster"),
    (("listen", "smtp://x"), 2, "is no websocket address"),
    (("providers", "nobody"), 2, "there is no provider 'nobody'"),
]


def test_every_error_is_one_clear_line_with_its_exit_code_and_nothing_on_standard_output(session: Session) -> None:
    for arguments, code, words in _WRONG:
        ran = session.ask(*arguments)
        said = f"{arguments}: {ran}"
        assert (ran.code, ran.out) == (code, ""), said
        assert words in ran.err, said
        if "Usage:" not in ran.err:  # typer's own words for wrong usage are several lines
            assert sum(line.startswith("error: ") for line in ran.err.splitlines()) == 1, said
    assert session.ask("status", "--check").code == 0, "everything else goes on"


def test_an_error_of_a_process_is_one_line_and_no_traceback(session: Session) -> None:
    status, speed, capture = together(
        session.env,
        ("status", "nobody"),
        ("simulate", "--speed", "fast"),
        ("simulate", "--capture", "/nowhere.gz"),
    )
    assert (status.code, speed.code, capture.code) == (3, 2, 1)
    assert status.err == "error: Client nobody not connected. Connections: crypto_binance.\n"
    for ran, words in ((speed, "give a factor above 0"), (capture, "there is no capture /nowhere.gz")):
        assert ran.err.startswith("error: ")
        assert words in ran.err
        assert (ran.out, len(ran.err.splitlines())) == ("", 1)


def test_without_a_supervisor_every_command_that_needs_one_says_how_to_start_it(runtime: Path) -> None:
    commands = [("status",), ("down",), ("create", "binance", "-s", "btcusdt"), ("kill", "all"), ("results", "x")]
    for command in commands:
        ran = inside(environment(), *command)
        assert (ran.code, ran.out) == (3, "")
        assert ran.err == "error: no supervisor is running: start one with `tickring up`.\n"
    assert list(runtime.iterdir()) == [], "asking makes nothing"


# ---- providers and simulate ------------------------------------------------------------------------------------------


def test_providers_are_listed_with_their_parameters_and_need_no_supervisor() -> None:
    listed, one = inside(environment(), "providers"), inside(environment(), "providers", "binance")
    document = inside(environment(), "providers", "binance", "--json")
    assert listed.out.splitlines()[1].split()[0] == "binance"
    assert ["feed", "string", "trade"] in [line.split()[:3] for line in one.out.splitlines()]
    assert ["symbol", "string", "needed"] in [line.split()[:3] for line in one.out.splitlines()]
    assert document.json["feeds"] == {"trade": "trade", "aggregate_trade": "trade", "quote": "quote"}
    assert document.json["parameters"]["required"] == ["symbol"]


def test_simulate_says_where_it_listens_and_what_to_try_and_ends_with_ctrl_c() -> None:
    process = start(environment(), "simulate", "--symbols", "2")
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(3)]
    url = said[1].strip()
    assert url.startswith("ws://127.0.0.1:")
    assert said[2] == f"try: tickring create binance --symbol btcusdt --feed trade,quote --url {url}\n"
    process.send_signal(signal.SIGINT)
    ran = ended(process)
    assert (ran.code, ran.err) == (0, "")


# ---- help ------------------------------------------------------------------------------------------------------------


def test_every_command_has_help_with_an_example_that_its_own_parser_takes() -> None:
    from typer.main import get_command

    from cli.app import COMMANDS, app

    group = get_command(app)
    for name, _, _, example in COMMANDS:
        program, command, *arguments = example.split()
        assert (program, command) == ("tickring", name)
        parsed = group.commands[name].make_context(name, arguments)  # type: ignore[attr-defined]  # a group has them
        assert parsed.params
    shown = together(environment(COLUMNS="100"), *((name, "--help") for name, _, _, _ in COMMANDS[:4]), ("--help",))
    for ran, (_, _, _, example) in zip(shown, COMMANDS[:4], strict=False):
        assert (ran.code, ran.err) == (0, "")
        assert f"Example: {example}" in " ".join(ran.out.split())
    assert "130 interrupted" in " ".join(shown[-1].out.split())


def test_help_loads_nothing_heavy() -> None:
    heavy = ["numpy", "pandas", "pydantic", "uvloop", "picows", "websockets", "orjson", "ringbuf", "feeds.records"]
    code = f"import sys, cli.main, cli.app; print([name for name in {heavy} if name in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment(), text=True, capture_output=True, check=True
    )
    assert loaded.stdout.strip() == "[]"


def test_a_package_of_another_distribution_before_ours_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "supervisor").mkdir()
    (tmp_path / "supervisor" / "__init__.py").write_text("")
    ran = tickring(environment(PYTHONPATH=f"{tmp_path}:{ROOT}"), "status")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: the Python package 'supervisor' that is found here is not tickring's (")
    assert str(tmp_path) in ran.err
    assert len(ran.err.splitlines()) == 1
