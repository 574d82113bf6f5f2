"""Symbols for the simulated market: real names, and prices, ticks and lots near those of Binance, from a seed.

Prices and sizes are integers in units of 1e-8, the precision of crypto venues' text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ringbuf.errors import ParameterError

#: Units of a price or size per 1.
SCALE: Final = 10**8

#: What an order or a price's depth is usually worth, in dollars.
_USUAL_VALUE: Final = 500.0
# Base assets with price, tick and lot near Binance's of August 2024; the rest get a price from the seed.
_MAJORS: Final = (
    ("BTC", 61_837.63, 0.01, 0.00001), ("ETH", 2_683.41, 0.01, 0.0001), ("SOL", 159.42, 0.01, 0.001),
    ("BNB", 517.3, 0.1, 0.001), ("XRP", 0.6119, 0.0001, 1.0), ("DOGE", 0.10541, 0.00001, 1.0),
    ("ADA", 0.3431, 0.0001, 0.1), ("TRX", 0.1283, 0.0001, 0.1), ("AVAX", 22.18, 0.01, 0.01),
    ("LINK", 10.47, 0.01, 0.01), ("PEPE", 0.00000842, 0.00000001, 1.0), ("SHIB", 0.00001421, 0.00000001, 1.0),
)  # fmt: skip
_OTHERS: Final = """
    DOT LTC BCH UNI NEAR ICP APT FIL ETC ATOM XLM HBAR ARB OP SUI INJ IMX VET GRT RNDR MKR AAVE ALGO EGLD QNT FLOW
    SAND MANA AXS THETA XTZ EOS SNX NEO CRV LDO RUNE KAVA MINA CHZ GALA ENJ ZEC DASH COMP YFI SUSHI BAT ZIL ONE CELO
    ROSE KSM WAVES QTUM ICX ONT IOST RVN ZRX OMG ANKR STORJ SKL BAND KNC LRC MASK DYDX GMX SSV BLUR FLOKI BONK WIF
    JUP PYTH TIA SEI STRK WLD FET OCEAN AR STX CFX HOT JASMY WOO APE
""".split()  # noqa: SIM905 - ninety quoted names are harder to read
_QUOTES: Final = (("USDT", 1.0), ("USDC", 1.0), ("FDUSD", 1.0), ("BTC", 61_837.63), ("ETH", 2_683.41), ("TRY", 0.0298))

#: How many symbols a market may have: every pair of the names above, less those of an asset with itself.
MOST_SYMBOLS: Final = (len(_MAJORS) + len(_OTHERS)) * len(_QUOTES) - 2


@dataclass(frozen=True, slots=True)
class Instrument:
    """A symbol with its start price, tick, lot and usual size in units of 1e-8."""

    base: str
    quote: str
    price: int
    tick: int
    lot: int
    size: int


def instruments(count: int, seed: int) -> tuple[Instrument, ...]:
    """Name `count` symbols, the best known first, and give each a price, tick and lot.

    Raises:
        ParameterError: Fewer than one or more than `MOST_SYMBOLS`.
    """
    if not 1 <= count <= MOST_SYMBOLS:
        raise ParameterError(f"the simulated market has 1 to {MOST_SYMBOLS} symbols, not {count}")
    random = np.random.default_rng([seed, 1])
    # Log-uniform from 0.005 to 50: where most listed coins trade.
    prices = np.exp(random.uniform(np.log(0.005), np.log(50.0), len(_OTHERS)))
    assets = [
        *_MAJORS,
        *((name, float(price), *_steps(float(price))) for name, price in zip(_OTHERS, prices, strict=True)),
    ]
    pairs = [
        _instrument(base, quote, price, worth, (tick, lot) if worth == 1.0 else _steps(price / worth))
        for quote, worth in _QUOTES
        for base, price, tick, lot in assets
        if base != quote
    ]
    return tuple(pairs[:count])


def _steps(price: float) -> tuple[float, float]:
    """Tick and lot for a price: about five digits of price, and a lot worth about a hundredth of a unit of it."""
    digits = int(np.floor(np.log10(price)))
    return max(1e-8, 10.0 ** (digits - 4)), min(1.0, max(1e-5, 10.0 ** (-digits - 2)))


def _instrument(base: str, quote: str, price: float, worth: float, steps: tuple[float, float]) -> Instrument:
    tick, lot = round(steps[0] * SCALE), round(steps[1] * SCALE)
    start = max(1, round(price / worth * SCALE / tick)) * tick
    return Instrument(base, quote, start, tick, lot, size=max(lot, round(_USUAL_VALUE / price * SCALE)))
