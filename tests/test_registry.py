"""Which providers there are, and what their users may say."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import SecretStr

from feeds.contract import Parameters
from feeds.registry import parse_parameters, provider, provider_names, split_symbols
from ringbuf.errors import ParameterError, UnknownProvider

BINANCE = provider("binance")


def refusal(**values: object) -> str:
    with pytest.raises(ParameterError) as caught:
        parse_parameters(BINANCE, values)
    return str(caught.value)


def test_every_name_gives_its_provider() -> None:
    assert provider_names() == sorted(provider_names())
    assert "binance" in provider_names()
    for name in provider_names():
        assert provider(name).declaration.name == name


def test_an_unknown_provider_is_told_which_there_are() -> None:
    with pytest.raises(UnknownProvider, match=r"there is no provider 'binanc': choose from .*binance"):
        provider("binanc")


def test_a_providers_module_is_not_imported_before_it_is_asked_for() -> None:
    code = "import sys, feeds.registry; assert 'feeds.binance' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_parameters_come_back_typed_with_their_defaults() -> None:
    parameters = parse_parameters(BINANCE, {"symbol": "btcusdt, ETH-USDT", "feed": "quote ,trade,quote"})
    assert parameters.model_dump() == {
        "symbol": "btcusdt, ETH-USDT", "url": None, "stale_after": None, "asset_type": "crypto", "feed": "quote,trade",
        "environment": "production",
    }  # fmt: skip


def test_everything_that_is_wrong_is_said_at_once() -> None:
    said = refusal(symbol="btcusdt", feed="tick", depth=5, stale_after=-1, environment="moon")
    assert said.startswith("binance cannot use these parameters: ")
    for part in (
        "feed: 'tick' is no feed of binance",
        "it knows no parameter 'depth'",
        "stale_after: ",
        "environment: ",
    ):
        assert part in said, part


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({}, "symbol: Field required"),
        ({"symbol": ""}, "symbol: "),
        ({"symbol": " , "}, "no symbol given"),
        ({"symbol": "btcusdt,b@d"}, "'b@d' cannot be a Binance symbol"),
        ({"symbol": 5}, "symbol: "),
        ({"symbol": "btcusdt", "feed": " ,"}, "no feed given: choose from trade, aggregate_trade, quote"),
        ({"symbol": "btcusdt", "stale_after": 0}, "stale_after: "),
        ({"symbol": "btcusdt", "stale_after": 86_401}, "stale_after: "),
        ({"symbol": "btcusdt", "stale_after": float("nan")}, "stale_after: "),
        ({"symbol": "btcusdt", "asset_type": "equity"}, "asset_type: "),
    ],
)
def test_what_cannot_be_used_is_named(values: dict[str, object], part: str) -> None:
    assert part in refusal(**values)


@pytest.mark.parametrize(
    "url",
    [
        "http://venue/?token=GEHEIM", "ws://", "wss://?token=GEHEIM", "ws://venue:99999/?token=GEHEIM",
        "ws://venue:port/?token=GEHEIM", "ws://[::1/?token=GEHEIM", "ws://user:GEHEIM@venue/", "ws://venue/#GEHEIM",
        "ws://venue/ GEHEIM", "ws://venue:0/?token=GEHEIM",
    ],
)  # fmt: skip
def test_a_url_that_leads_nowhere_is_refused_at_once_and_not_repeated(url: str) -> None:
    said = refusal(symbol="btcusdt", url=url)
    assert "url: " in said
    assert "GEHEIM" not in said


@pytest.mark.parametrize("url", ["ws://127.0.0.1:9/stream", "wss://[::1]:443/x?token=y", "wss://venue.example"])
def test_a_url_of_the_users_own_is_taken(url: str) -> None:
    parameters = parse_parameters(BINANCE, {"symbol": "btcusdt", "url": url})
    assert parameters.url == url


def test_symbols_are_split_trimmed_and_kept_in_order_once_each() -> None:
    assert split_symbols(" b, a ,b,, c ") == ["b", "a", "c"]
    with pytest.raises(ParameterError, match="no symbol given"):
        split_symbols(", ,")


def test_secret_parameters_are_known_even_when_they_are_optional() -> None:
    class WithKeys(Parameters):
        key: SecretStr
        secret: SecretStr | None = None
        more: tuple[SecretStr, ...] = ()
        plain: str | None = None

    keys = WithKeys.model_validate({"symbol": "x", "key": "GEHEIM", "secret": "GEHEIM", "more": ["GEHEIM"]})
    assert keys.secrets() == {"key", "secret", "more"}
    assert "GEHEIM" not in f"{keys!r} {keys} {keys.model_dump_json()}"
    assert parse_parameters(BINANCE, {"symbol": "btcusdt"}).secrets() == set()
