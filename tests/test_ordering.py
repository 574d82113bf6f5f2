"""The four ordering points: a model of the protocol that tries every interleaving, and the processors that are refused.

The model is the ring of `writer` and `reader` with 2 slots, each record being two words, so that a record can be torn.
Every state that writer, reader, processor and (in some tests) death can reach is visited; a record that is delivered
with words of two records, or of none, ends the search. Three kinds of processor:

    SC     every store is seen at once
    TSO    stores wait in a queue and leave it in order: x86-64
    weak   stores leave the queue in any order, and loads are done in any order, except across a fence: arm64
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import permutations

import pytest

from ringbuf import ordering
from ringbuf.errors import UnsupportedProcessor

CAPACITY = 2
RECORDS = 6
INTENT, TAIL, FIRST_SLOT = 0, 1, 2
#: How many stores the modelled processor keeps back: more than one publish has.
QUEUE = 8

ALL = frozenset({"after_intent", "before_tail", "after_tail", "before_validation"})
VOID = -1

Store = tuple[int, int]
#: Marks in the queue of stores: nothing passes it.
FENCE: Store = (-1, 0)
Memory = tuple[int, ...]
Program = tuple[Store, ...]


def halves(seq: int) -> tuple[int, int]:
    """The addresses of a record's two words."""
    first = FIRST_SLOT + 2 * (seq % CAPACITY)
    return first, first + 1


def publishing(first: int, fences: frozenset[str]) -> Program:
    """The writer's stores from record `first` on; a record's words hold its seq + 1, 0 is a slot never written."""
    stores: list[Store] = []
    for seq in range(first, RECORDS):
        stores.append((INTENT, seq + 1))
        stores += [FENCE] * ("after_intent" in fences)
        stores += [(address, seq + 1) for address in halves(seq)]
        stores += [FENCE] * ("before_tail" in fences)
        stores.append((TAIL, seq + 1))
    return tuple(stores)


def voiding(memory: Memory) -> Program:
    """A successor as `RingWriter` is one: the stretch that may be torn becomes void, `intent` stays."""
    voids = [(address, VOID) for seq in range(memory[TAIL], memory[INTENT]) for address in halves(seq)]
    return (*voids, (TAIL, memory[INTENT]), *publishing(memory[INTENT], ALL))


def lowering(memory: Memory) -> Program:
    """A naive successor: it goes on at `tail` as if nothing had been begun."""
    return ((INTENT, memory[TAIL]), *publishing(memory[TAIL], ALL))


@dataclass(frozen=True)
class Machine:
    """One state of everything."""

    memory: Memory = (0,) * (FIRST_SLOT + 2 * CAPACITY)
    queue: Program = ()
    program: Program = ()
    deaths: int = 0
    cursor: int = 0
    #: The loads that the reader still has to do, in this order, and what the others gave.
    loads: tuple[str, ...] = ()
    loaded: tuple[tuple[str, int], ...] = field(default=())


class Torn(Exception):
    """The reader delivered a record that was never published like that."""


def load_orders(fences: frozenset[str], *, weak: bool) -> list[tuple[str, ...]]:
    """The orders in which a processor may do the four loads of a read."""
    written = ("tail", "first", "second", "intent")
    if not weak:
        return [written]
    before = {("tail", "first"), ("tail", "second")} if "after_tail" in fences else set()
    if "before_validation" in fences:
        before |= {("first", "intent"), ("second", "intent")}
    return [order for order in permutations(written) if all(order.index(a) < order.index(b) for a, b in before)]


def write_steps(machine: Machine, processor: str) -> Iterator[Machine]:
    """What the writer and its processor may do next."""
    if machine.program and len(machine.queue) < QUEUE:
        yield replace(machine, program=machine.program[1:], queue=(*machine.queue, machine.program[0]))
    passed: set[int] = set()
    for position, (address, value) in enumerate(machine.queue):
        if (address, value) == FENCE:
            if position == 0:
                yield replace(machine, queue=machine.queue[1:])
            return
        if address not in passed:
            memory = (*machine.memory[:address], value, *machine.memory[address + 1 :])
            rest = (*machine.queue[:position], *machine.queue[position + 1 :])
            yield replace(machine, memory=memory, queue=rest)
        passed.add(address)
        if processor != "weak":
            return


def read_steps(machine: Machine, orders: list[tuple[str, ...]], *, validate: bool) -> Iterator[Machine]:
    """What the reader may do next: a load, and after the last one its verdict."""
    if not machine.loads:
        for order in orders:
            yield replace(machine, loads=order, loaded=())
        return
    first, second = halves(machine.cursor)
    address = {"tail": TAIL, "intent": INTENT, "first": first, "second": second}[machine.loads[0]]
    loaded = (*machine.loaded, (machine.loads[0], machine.memory[address]))
    if len(machine.loads) > 1:
        yield replace(machine, loads=machine.loads[1:], loaded=tuple(sorted(loaded)))
    else:
        yield replace(machine, cursor=verdict(machine.cursor, dict(loaded), validate=validate), loads=(), loaded=())


def verdict(cursor: int, got: dict[str, int], *, validate: bool) -> int:
    """Judge a finished read as `RingReader` does, and give the cursor after it."""
    if got["tail"] <= cursor:
        return cursor
    low = got["intent"] - CAPACITY
    if validate and cursor < low:
        return min(low, got["tail"])
    if (got["first"], got["second"]) not in {(cursor + 1, cursor + 1), (VOID, VOID)}:
        raise Torn
    return cursor + 1


def explore(
    processor: str,
    fences: frozenset[str],
    successor: Callable[[Memory], Program] | None = None,
    deaths: int = 0,
    *,
    validate: bool = True,
) -> int:
    """Visit every state there is, and give their number. Raises Torn."""
    orders = load_orders(fences, weak=processor == "weak")
    pending = [Machine(program=publishing(0, fences))]
    seen = set(pending)
    while pending:
        machine = pending.pop()
        steps = [*write_steps(machine, processor), *read_steps(machine, orders, validate=validate)]
        if processor == "SC":
            # A store is seen at once: the state in between, where it waits, is none.
            steps = [step for step in steps if not step.queue] + [
                landed for step in steps if step.queue for landed in write_steps(step, processor) if not landed.queue
            ]
        if successor is not None and machine.deaths < deaths and not machine.queue:
            steps.append(replace(machine, program=successor(machine.memory), deaths=machine.deaths + 1))
        for step in steps:
            if step not in seen:
                seen.add(step)
                pending.append(step)
    assert any(machine.cursor == RECORDS for machine in seen)
    return len(seen)


@pytest.mark.parametrize("processor", ["SC", "TSO"])
def test_in_order_processors_need_none_of_the_four_points(processor: str) -> None:
    assert explore(processor, frozenset()) > 300


def test_a_weak_processor_with_all_four_points_never_delivers_a_torn_record() -> None:
    assert explore("weak", ALL) > 3000


@pytest.mark.parametrize("missing", sorted(ALL))
def test_a_weak_processor_needs_each_of_the_four_points(missing: str) -> None:
    with pytest.raises(Torn):
        explore("weak", ALL - {missing})


def test_a_successor_that_voids_never_makes_a_reader_take_a_torn_record_however_often_writers_die() -> None:
    assert explore("SC", ALL, voiding, deaths=2) > 1000


def test_a_successor_that_lowers_intent_does() -> None:
    with pytest.raises(Torn):
        explore("SC", ALL, lowering, deaths=1)


def test_a_reader_that_does_not_validate_takes_torn_records_on_any_processor() -> None:
    with pytest.raises(Torn):
        explore("SC", ALL, validate=False)


def test_the_points_are_there_and_cost_nothing_on_x86_64() -> None:
    for point in ALL:
        assert getattr(ordering, point)() is None


@pytest.mark.parametrize("machine", ["x86_64", "AMD64"])
def test_x86_64_is_taken(machine: str) -> None:
    ordering.require_ordered_processor(machine)


@pytest.mark.parametrize("machine", ["aarch64", "arm64", "riscv64", "ppc64le", ""])
def test_another_processor_is_refused_in_words(machine: str) -> None:
    with pytest.raises(UnsupportedProcessor, match=f"not offered on {machine or 'an unknown processor'}") as caught:
        ordering.require_ordered_processor(machine)
    assert "x86-64" in str(caught.value)
