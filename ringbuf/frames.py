"""Records as DataFrames. Ids stay small numbers: a categorical column costs nothing, a column of text costs most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ringbuf.errors import ParameterError
from ringbuf.symbols import namespace_of

if TYPE_CHECKING:
    import pandas as pd

    from ringbuf.records import Records

Values: TypeAlias = np.ndarray[tuple[int], np.dtype[Any]]

#: The columns that come first, in this order; `type` is the kind.
_LEADING = ("date", "symbol", "type", "exchange")
_TRAILING = ("published", "received", "flags", "seq")


def column_order(names: tuple[str, ...]) -> list[str]:
    """Give the columns of a frame in reading order: what it is, its values, then how it came here."""
    shown = [name for name in names if not name.startswith("_")]
    own = [name for name in shown if name not in _LEADING and name not in _TRAILING]
    return [*_LEADING, *own, *(name for name in _TRAILING if name in shown)]


def to_pandas(records: Records) -> pd.DataFrame:
    """See `Records.to_pandas`."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ParameterError("to_pandas() needs pandas: pip install 'tickring[pandas]'.") from error

    def column(name: str) -> Values | pd.Categorical[str] | pd.DatetimeIndex:
        if name == "type":
            return pd.Categorical.from_codes(np.zeros(len(records), np.int8), categories=pd.Index([records.kind]))
        values = np.ascontiguousarray(records[name])
        namespace = namespace_of(name)
        if namespace is not None:
            # Id 0 is "no name", which pandas spells as code -1.
            return pd.Categorical.from_codes(
                values.astype(np.int32) - 1, categories=pd.Index(records.names(namespace)[1:])
            )
        if values.dtype.kind == "S":
            return np.char.decode(
                values, "utf-8", "replace"
            )  # replaced: a text may be cut in the middle of a character
        return pd.DatetimeIndex(values).tz_localize("UTC") if values.dtype.kind == "M" else values

    return pd.DataFrame({name: column(name) for name in column_order(records.array.dtype.names or ())}, copy=False)
