"""A figure: what was measured, in how many runs, against which target or which peer."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.measuring import Measured


@dataclass(frozen=True, slots=True)
class Options:
    """How a benchmark is to run."""

    #: Seconds instead of minutes: shows that it works, its figures mean little.
    quick: bool
    #: The folder of real captures.
    captures: Path


class Figure(msgspec.Struct, frozen=True):
    """One row of a table."""

    name: str
    unit: str
    #: One value per run; by CPU time where it is a time or a rate.
    values: list[float]
    higher_is_better: bool
    #: The same by wall time; empty where there is none.
    wall: list[float] = []
    target: float | None = None
    #: The name of our figure that this one, of a peer, is to be held against.
    peer_of: str = ""

    @property
    def best(self) -> float:
        """The best run's value."""
        return max(self.values) if self.higher_is_better else min(self.values)

    @property
    def median(self) -> float:
        """The median run's value; this is what is judged."""
        return statistics.median(self.values)

    @property
    def median_wall(self) -> float | None:
        """The median by wall time."""
        return statistics.median(self.wall) if self.wall else None

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the target; None without a target."""
        if self.target is None:
            return None
        return self.median >= self.target if self.higher_is_better else self.median <= self.target


class Report(msgspec.Struct, frozen=True):
    """What one benchmark found."""

    benchmark: str
    title: str
    figures: list[Figure]
    #: What one must know to read the figures.
    notes: list[str]

    def ahead(self, peer: Figure) -> float | None:
        """How many times better than this peer our figure of the same run is; None if it is no peer."""
        for ours in self.figures:
            if ours.name == peer.peer_of:
                ratio = ours.median / peer.median
                return ratio if ours.higher_is_better else 1 / ratio
        return None


def rate(name: str, measured: Measured, *, target: float | None = None, peer_of: str = "") -> Figure:
    """Give a figure in million records a second."""
    values, wall = ([1e-6 / seconds for seconds in times] for times in (measured.cpu, measured.wall))
    return Figure(name, "M records/s", values, higher_is_better=True, wall=wall, target=target, peer_of=peer_of)


def cost(
    name: str, unit: str, measured: Measured, *, scale: float = 1e9, target: float | None = None, peer_of: str = ""
) -> Figure:
    """Give a figure in time per unit of work; `scale` is what makes the unit of a second (1e9 for ns)."""
    values, wall = ([seconds * scale for seconds in times] for times in (measured.cpu, measured.wall))
    return Figure(name, unit, values, higher_is_better=False, wall=wall, target=target, peer_of=peer_of)
