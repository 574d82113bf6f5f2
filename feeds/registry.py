"""Which providers there are. A provider's module is imported when it is asked for, not before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import ValidationError

from feeds.contract import Parameters, Provider
from ringbuf.errors import ParameterError, UnknownProvider


def _binance() -> Provider[Any]:
    from feeds.binance import Binance

    return Binance()


_PROVIDERS: Final[dict[str, Callable[[], Provider[Any]]]] = {"binance": _binance}


def provider_names() -> list[str]:
    """The names of all providers, sorted."""
    return sorted(_PROVIDERS)


def provider(name: str) -> Provider[Any]:
    """Give a provider.

    Raises:
        UnknownProvider: there is none of that name; the message lists those there are.
    """
    make = _PROVIDERS.get(name)
    if make is None:
        raise UnknownProvider(f"there is no provider {name!r}: choose from {', '.join(provider_names())}.")
    return make()


def parse_parameters(found: Provider[Any], values: Mapping[str, Any]) -> Parameters:
    """Check a user's parameters for a provider, and its symbols by the venue's rules.

    Raises:
        ParameterError: everything that is wrong with them, in one message.
    """
    try:
        parameters: Parameters = found.parameters.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_describe(detail["loc"], detail["msg"]) for detail in error.errors())
        raise ParameterError(f"{found.declaration.name} cannot use these parameters: {problems}.") from error
    found.topics(parameters, split_symbols(parameters.symbol))
    return parameters


def _describe(place: tuple[int | str, ...], message: str) -> str:
    name = ".".join(str(part) for part in place)
    if message == "Extra inputs are not permitted":
        return f"it knows no parameter {name!r}"
    return f"{name}: {message.removeprefix('Value error, ')}"


def split_symbols(symbols: str) -> list[str]:
    """Give the symbols of a comma-separated list, in order and once each.

    Raises:
        ParameterError: there is none.
    """
    found = list(dict.fromkeys(symbol.strip() for symbol in symbols.split(",") if symbol.strip()))
    if not found:
        raise ParameterError("no symbol given: name one or more, separated by commas.")
    return found
