"""What a results file holds for one table: names, gaps, views."""

from __future__ import annotations

import pytest

from feeds.records import Kind
from ringbuf.errors import ParameterError
from ringbuf.records import Loss
from supervisor.gathered import Miss
from supervisor.results_schema import check_table_name, gap_text, view_statement


def test_a_gap_reads_so() -> None:
    miss = Miss(Kind.TRADE, "5f" * 16, 8, 16, Loss.OVERWRITTEN)
    assert gap_text(miss, 1731387093083000000).decode() == (
        '{"date":"2024-11-12T04:51:33.083000+00:00","type":"gap","kind":"trade","first":8,"count":16,'
        f'"reason":"overwritten","ring_id":"{"5f" * 16}"}}'
    )


@pytest.mark.parametrize(
    "name", ["", "1st", 'x"; DROP TABLE y', "a b", "é", "sqlite_x", "SQLite_x", "tickring_tables", "x" * 64]
)
def test_what_cannot_name_a_table(name: str) -> None:
    with pytest.raises(ParameterError):
        check_table_name(name)


def test_a_name_that_can_be_a_tables_comes_back() -> None:
    assert check_table_name("Records_2") == "Records_2"


def test_a_view_reads_so() -> None:
    assert view_statement("records", Kind.PRICE) == (
        'CREATE VIEW "records_price" AS SELECT id, '
        "json_extract(message, '$.date') AS \"date\", json_extract(message, '$.symbol') AS \"symbol\", "
        "json_extract(message, '$.exchange') AS \"exchange\", json_extract(message, '$.price') AS \"price\", "
        "json_extract(message, '$.published') AS \"published\", json_extract(message, '$.received') AS \"received\", "
        "json_extract(message, '$.flags') AS \"flags\", json_extract(message, '$.seq') AS \"seq\" "
        "FROM \"records\" WHERE json_extract(message, '$.type') = 'price'"
    )
