"""What the API's functions return: a result shaped as the toolkit's document prints it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from feeds.messages import TopicAnswer
from ringbuf.errors import ParameterError
from supervisor.control import ConnectionStatus

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

#: Columns that hold times as RFC 3339 text.
_TIMES = ("date", "published", "received", "close_date")


class SymbolAnswer(BaseModel):
    """What became of one topic that was asked for."""

    model_config = ConfigDict(frozen=True)

    symbol: str
    #: The venue's name of the topic; empty while the provider is not connected.
    topic: str
    #: requested, sent, acknowledged, live, stale, refused or removed.
    state: str
    #: The venue's words, where it gave some.
    reason: str = ""


class WebSocketConnectionStatus(BaseModel):
    """How a connection stands: the toolkit's fields."""

    model_config = ConfigDict(frozen=True)

    name: str
    auth_required: bool
    subscribed_symbols: str = Field(description="Comma-separated.")
    is_running: bool
    provider_pid: int | None
    is_broadcasting: bool
    broadcast_address: str | None
    broadcast_pid: int | None
    results_file: str
    table_name: str
    save_results: bool
    #: After subscribe and unsubscribe: the venue's answer per topic.
    answers: list[SymbolAnswer] | None = None

    @model_serializer(mode="wrap")
    def _as_printed(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = handler(self)
        if self.answers is None:
            dumped.pop("answers", None)
        return dumped

    def __repr__(self) -> str:
        shown = {name: value for name, value in self if name != "answers" or value is not None}
        return f"WebSocketConnectionStatus({', '.join(f'{name}={value}' for name, value in shown.items())})"

    __str__ = __repr__

    @classmethod
    def of(cls, status: ConnectionStatus, answers: list[TopicAnswer] | None = None) -> WebSocketConnectionStatus:
        """Make it from what the supervisor says."""
        fields = {name: getattr(status, name) for name in cls.model_fields if name != "answers"}
        given = (
            None
            if answers is None
            else [SymbolAnswer(**{n: getattr(a, n) for n in SymbolAnswer.model_fields}) for a in answers]
        )
        return cls(**fields, answers=given)


class WebSocketConnection(BaseModel):
    """What create_connection gives."""

    model_config = ConfigDict(frozen=True)

    status: WebSocketConnectionStatus


#: Where the toolkit's document cuts a line, in characters.
_LINE = 83


def _shown(value: object) -> object:
    """Give what stands for a value in print: of a connection, as in the toolkit's document, its status."""
    if isinstance(value, WebSocketConnection):
        value = value.status
    if isinstance(value, list):
        return [_shown(item) for item in value[:_LINE]]  # more would be cut anyway
    return value.model_dump() if isinstance(value, BaseModel) else value


class Result(BaseModel, Generic[T]):
    """The result of every API function.

    `results` is the thing itself; `to_df` and `to_dict` give it in other shapes. Printing shows one line a field, cut
    as the toolkit's document has it.
    """

    id: str = Field(default_factory=lambda: str(uuid.uuid4()))
    results: T
    provider: str | None = None
    warnings: list[str] | None = None
    chart: None = None
    extra: dict[str, Any] = Field(default_factory=dict)

    def __repr__(self) -> str:
        lines = ["OBBject[T]", ""]
        for name in ("id", "results", "provider", "warnings", "chart", "extra"):
            text = f"{name}: {_shown(getattr(self, name))}"
            lines.append(text if len(text) <= _LINE else f"{text[:_LINE]}...")
        return "\n".join(lines)

    __str__ = __repr__

    def _rows(self) -> list[dict[str, Any]]:
        found: object = self.results
        rows: list[object] = found if isinstance(found, list) else [found]
        dumped = [row.model_dump() if isinstance(row, BaseModel) else row for row in rows]
        return [row for row in dumped if isinstance(row, dict)]

    def to_dict(self, orient: Literal["records", "list"] = "list") -> Any:  # noqa: ANN401 - as pandas has it
        """Give plain dicts: one a row ("records"), or one of columns ("list")."""
        rows = self._rows()
        if orient == "records":
            return rows
        if orient != "list":
            raise ParameterError(f"orient must be 'records' or 'list', not {orient!r}.")
        names = list(dict.fromkeys(name for row in rows for name in row))
        return {name: [row.get(name) for row in rows] for name in names}

    def to_df(self) -> pd.DataFrame:
        """Give a DataFrame; times become ``datetime64[ns, UTC]``.

        Raises:
            ParameterError: pandas is not installed, or the result is a text.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ParameterError("to_df() needs pandas: pip install 'tickring[pandas]'.") from error
        if isinstance(self.results, str):
            raise ParameterError("this result is a text, not a table.")
        frame = pd.DataFrame(self._rows())
        for name in _TIMES:
            if name in frame:
                frame[name] = pd.to_datetime(frame[name], utc=True, format="ISO8601").astype("datetime64[ns, UTC]")
        return frame

    to_dataframe = to_df
