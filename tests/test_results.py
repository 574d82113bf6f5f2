"""Results as the toolkit's document prints and shapes them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from feeds.messages import TopicAnswer
from ringbuf.errors import ParameterError
from supervisor.control import ConnectionStatus
from supervisor.results import Result, WebSocketConnection, WebSocketConnectionStatus

#: The status that the toolkit's document prints.
PRINTED = {
    "name": "crypto_tiingo",
    "auth_required": False,
    "subscribed_symbols": "*",
    "is_running": True,
    "provider_pid": 5810,
    "is_broadcasting": True,
    "broadcast_address": "ws://127.0.0.1:6666",
    "broadcast_pid": 5813,
    "results_file": "/var/folders/kc/j2lm7bkd5dsfqqnvz259gm6c0000gn/T/tmpwb4jslbg",
    "table_name": "records",
    "save_results": False,
}


def told() -> ConnectionStatus:
    """The same as the supervisor says it."""
    return ConnectionStatus(
        **PRINTED, provider="tiingo", limit=1000, state="ready", since=0, restarts=0, last_error=""  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.fixture
def status() -> WebSocketConnectionStatus:
    return WebSocketConnectionStatus.of(told())


def test_a_connection_prints_as_the_document_has_it(status: WebSocketConnectionStatus) -> None:
    arguments = {"provider_choices": {"provider": "tiingo"}, "standard_params": {"name": None}}
    result = Result[WebSocketConnection](
        id="06732d37-fe11-744c-8000-072414ba1cdd",
        results=WebSocketConnection(status=status),
        provider="tiingo",
        extra={"metadata": {"arguments": arguments}},
    )
    assert repr(result) == str(result) == (
        "OBBject[T]\n"
        "\n"
        "id: 06732d37-fe11-744c-8000-072414ba1cdd\n"
        "results: {'name': 'crypto_tiingo', 'auth_required': False, 'subscribed_symbols': '*...\n"
        "provider: tiingo\n"
        "warnings: None\n"
        "chart: None\n"
        "extra: {'metadata': {'arguments': {'provider_choices': {'provider': 'tiingo'}, 'sta..."
    )  # fmt: skip
    assert result.results.model_dump() == {"status": PRINTED}
    assert list(result.results.model_dump()["status"]) == list(PRINTED)


def test_a_status_prints_as_the_document_has_it(status: WebSocketConnectionStatus) -> None:
    assert repr(status) == str(status) == (
        "WebSocketConnectionStatus(name=crypto_tiingo, auth_required=False, subscribed_symbols=*, is_running=True, "
        "provider_pid=5810, is_broadcasting=True, broadcast_address=ws://127.0.0.1:6666, broadcast_pid=5813, "
        "results_file=/var/folders/kc/j2lm7bkd5dsfqqnvz259gm6c0000gn/T/tmpwb4jslbg, table_name=records, "
        "save_results=False)"
    )  # fmt: skip
    assert status.model_dump() == PRINTED
    assert list(status.model_dump()) == list(PRINTED)


def test_answers_are_there_where_they_were_given_and_nowhere_else() -> None:
    answers = [TopicAnswer("BTCUSDT", "btcusdt@trade", "refused", "no such stream")]
    status = WebSocketConnectionStatus.of(told(), answers)
    assert status.model_dump()["answers"] == [
        {"symbol": "BTCUSDT", "topic": "btcusdt@trade", "state": "refused", "reason": "no such stream"}
    ]
    assert "answers=[SymbolAnswer(symbol='BTCUSDT'" in repr(status)
    assert WebSocketConnectionStatus.of(told(), []).model_dump()["answers"] == []


def test_a_text_prints_as_the_document_has_it() -> None:
    result = Result[str](
        id="i", results="Clients fx_polygon killed.",
        extra={"metadata": {"arguments": {"provider_choices": {}, "standard_params": {"name": "fx_polygon"}}}},
    )  # fmt: skip
    assert repr(result).splitlines()[3:] == [
        "results: Clients fx_polygon killed.", "provider: None", "warnings: None", "chart: None",
        "extra: {'metadata': {'arguments': {'provider_choices': {}, 'standard_params': {'nam...",
    ]  # fmt: skip
    with pytest.raises(ParameterError, match="a text"):
        result.to_df()


def test_a_result_has_the_documents_fields_and_an_id_of_its_own() -> None:
    first, second = Result[str](results="a"), Result[str](results="a")
    assert list(first.model_dump()) == ["id", "results", "provider", "warnings", "chart", "extra"]
    assert first.id != second.id


def test_a_long_list_is_printed_without_being_read_through(status: WebSocketConnectionStatus) -> None:
    result = Result[list[WebSocketConnectionStatus]](results=[status] * 100_000)
    assert repr(result).splitlines()[3].startswith("results: [{'name': 'crypto_tiingo', 'auth_required'")
    assert len(repr(result)) < 400


def test_rows_are_dicts_or_columns(status: WebSocketConnectionStatus) -> None:
    result = Result[list[WebSocketConnectionStatus]](results=[status, status])
    assert result.to_dict("records") == [PRINTED, PRINTED]
    assert result.to_dict() == {key: [value, value] for key, value in PRINTED.items()}
    assert Result[WebSocketConnectionStatus](results=status).to_dict("records") == [PRINTED]
    with pytest.raises(ParameterError, match="'records' or 'list'"):
        result.to_dict("index")  # type: ignore[arg-type]


def test_records_become_a_table_with_times_in_utc_and_plain_columns() -> None:
    records: list[dict[str, object]] = [
        {"date": "2024-11-12T04:51:33.083000+00:00", "symbol": "btcusdt", "type": "trade", "last_price": 1.5},
        {"date": "2024-11-12T04:51:33.083000001+00:00", "received": "2024-11-12T05:51:33+01:00", "symbol": "ethusdt"},
    ]
    frame = Result[list[dict[str, object]]](results=records).to_df()
    assert list(frame.columns) == ["date", "symbol", "type", "last_price", "received"]
    assert [str(kind) for kind in (frame["date"].dtype, frame["received"].dtype)] == ["datetime64[ns, UTC]"] * 2
    assert frame["date"].tolist() == [
        pd.Timestamp("2024-11-12T04:51:33.083Z"),
        pd.Timestamp("2024-11-12T04:51:33.083000001Z"),
    ]
    assert frame["received"][1] == pd.Timestamp("2024-11-12T04:51:33Z")
    assert frame["received"].isna().tolist() == [True, False]
    assert not any(isinstance(kind, pd.CategoricalDtype) for kind in frame.dtypes)
    assert frame["symbol"].tolist() == ["btcusdt", "ethusdt"]


def test_no_records_become_an_empty_table() -> None:
    assert Result[list[dict[str, object]]](results=[]).to_df().empty


def test_a_result_is_saved_and_read_again_whole(tmp_path: Path, status: WebSocketConnectionStatus) -> None:
    result = Result[WebSocketConnectionStatus](results=status, warnings=["w"])
    again = Result[WebSocketConnectionStatus].model_validate_json(result.model_dump_json())
    assert again == result
