"""A service process kept running: told the same after every death, before anything else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from processes.supervisor_running import kill, until

from feeds.backoff import Backoff
from ringbuf.errors import DeadlinePassed, ResultsFileError, SupervisorError
from supervisor import service
from supervisor.child_process import ChildProcess
from supervisor.messages import Commit, Done, Notice, ToRecorder
from supervisor.service import Service, Standing

#: No pause worth speaking of.
AT_ONCE = Backoff(base=0.0, cap=0.0, floor=0.01)


@pytest.fixture(autouse=True)
def diary(tmp_path: Path, everywhere: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SERVICE_DIARY", str(tmp_path / "diary"))
    return tmp_path / "diary"


def told(diary: Path) -> list[list[str]]:
    """What each process was told, in order: one list of names a process."""
    lives: dict[str, list[str]] = {}
    for entry in diary.read_text().splitlines():
        pid, name = entry.split()
        lives.setdefault(pid, []).append(name)
    return list(lives.values())


def asking(name: str) -> Callable[[int], ToRecorder]:
    return lambda number: Commit(number, name)


class Bench:
    """A service with a list of what stands, and what it said."""

    def __init__(self, log: Path, *names: str) -> None:
        self.names = list(names)
        self.answers: list[tuple[str, Done]] = []
        self.notices: list[Notice] = []
        self.service: Service[ToRecorder] = Service(
            "processes.supervisor_service", "service", log, self._standing, self.notices.append, backoff=AT_ONCE
        )

    def _standing(self) -> list[Standing[ToRecorder]]:
        return [
            Standing(asking(name), lambda done, name=name: self.answers.append((name, done)))  # type: ignore[misc]
            for name in self.names
        ]

    async def ask(self, name: str) -> Done:
        return await self.service.request(asking(name))

    async def another_process(self, pid: int | None) -> int:
        await until(lambda: self.service.pid not in (None, pid), "another process")
        assert self.service.pid is not None
        return self.service.pid


@asynccontextmanager
async def bench(log: Path, *names: str) -> AsyncIterator[Bench]:
    found = Bench(log, *names)
    try:
        yield found
    finally:
        await found.service.stop()


def test_the_first_request_starts_it_and_later_ones_find_it(diary: Path) -> None:
    async def main() -> None:
        async with bench(diary.with_name("log")) as found:
            assert found.service.pid is None
            await found.ask("a")
            pid = found.service.pid
            await asyncio.gather(*(found.ask(f"b{number}") for number in range(50)))
            assert found.service.pid == pid
            assert found.notices[0] == Notice("a", "heard of a")

    asyncio.run(main())
    assert told(diary) == [["a", *(f"b{number}" for number in range(50))]]


def test_a_problem_is_raised_and_the_service_goes_on(diary: Path) -> None:
    async def main() -> None:
        async with bench(diary.with_name("log")) as found:
            with pytest.raises(ResultsFileError, match="no such thing"):
                await found.ask("refused")
            await found.ask("a")

    asyncio.run(main())
    assert len(told(diary)) == 1


def test_a_killed_service_is_told_what_stands_before_anything_else(diary: Path) -> None:
    async def main() -> None:
        async with bench(diary.with_name("log"), "one", "two") as found:
            await found.ask("a")
            pid = found.service.pid
            found.answers.clear()
            await asyncio.to_thread(kill, pid)
            await found.ask("b")  # at a moment when nobody has noticed yet
            assert found.service.pid != pid
            assert [name for name, _ in found.answers] == ["one", "two"]

    asyncio.run(main())
    assert told(diary) == [["one", "two", "a"], ["one", "two", "b"]]


def test_a_request_under_way_when_it_dies_is_answered_by_the_next_process(diary: Path) -> None:
    async def main() -> None:
        async with bench(diary.with_name("log"), "one") as found:
            assert await asyncio.gather(found.ask("fatal"), found.ask("a"))

    asyncio.run(main())
    first, second = told(diary)
    assert first == ["one", "fatal"]
    assert second == ["one", "fatal", "a"]


def test_what_a_new_process_refuses_is_told_to_its_owner_and_the_rest_is_told_all_the_same(diary: Path) -> None:
    async def main() -> None:
        async with bench(diary.with_name("log"), "refused", "one") as found:
            await found.ask("a")
            assert [(name, done.problem is None) for name, done in found.answers] == [("refused", False), ("one", True)]

    asyncio.run(main())


def test_one_that_does_not_answer_is_told_in_time(diary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "ANSWER_WITHIN", 0.5)

    async def main() -> None:
        async with bench(diary.with_name("log")) as found:
            with pytest.raises(DeadlinePassed, match="See its log"):
                await found.ask("silent")
            await found.ask("a")

    asyncio.run(main())


def test_one_that_cannot_be_started_is_told_at_once_and_tried_again(diary: Path) -> None:
    log = diary.with_name("logs") / "log"

    async def main() -> None:
        async with bench(log) as found:
            with pytest.raises(SupervisorError, match=r"cannot be started.*No such file"):
                await found.ask("a")
            await asyncio.to_thread(log.parent.mkdir)
            await found.another_process(None)
            await found.ask("b")

    asyncio.run(main())


def test_a_restart_that_fails_is_tried_again(diary: Path) -> None:
    log = diary.with_name("logs") / "log"
    log.parent.mkdir()

    async def main() -> None:
        async with bench(log, "one") as found:
            await found.ask("a")
            pid = found.service.pid
            await asyncio.to_thread(log.parent.rename, diary.with_name("away"))
            await asyncio.to_thread(kill, pid)
            with pytest.raises(SupervisorError, match="cannot be started"):
                await found.ask("b")
            await asyncio.to_thread(diary.with_name("away").rename, log.parent)
            await found.another_process(pid)
            await found.ask("c")

    asyncio.run(main())
    assert told(diary)[-1] == ["one", "c"]


def test_one_that_breaks_the_protocol_is_ended_and_replaced(diary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``babbling`` is deaf as well: its end needs SIGTERM."""
    defaults = ChildProcess.stop.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "drain_within", 0.1)

    async def main() -> None:
        found = Service[ToRecorder](
            "processes.supervisor_child", "babbling", diary.with_name("log"), list, lambda _: None, backoff=AT_ONCE
        )
        waiting = asyncio.create_task(found.request(asking("a")))
        pids: set[int] = set()

        def seen() -> int:
            if found.pid is not None:
                pids.add(found.pid)
            return len(pids)

        await until(lambda: seen() >= 3, "three processes in turn")
        await found.stop()
        with pytest.raises(SupervisorError, match="has ended"):
            await waiting

    asyncio.run(main())


@pytest.mark.parametrize("rounds", [0, 1, 5])
def test_a_stop_while_it_starts_ends_it_and_tells_who_waits(diary: Path, rounds: int) -> None:
    async def main() -> None:
        found = Bench(diary.with_name("log"))
        waiting = asyncio.create_task(found.ask("a"))
        for _ in range(rounds):
            await asyncio.sleep(0)
        await found.service.stop()
        with pytest.raises(SupervisorError, match=r"going down|has ended"):
            await waiting
        with pytest.raises(SupervisorError, match="going down"):
            await found.ask("b")
        assert found.service.pid is None

    asyncio.run(main())


def test_stopping_what_never_ran_is_harmless(diary: Path) -> None:
    async def main() -> None:
        found = Bench(diary.with_name("log"))
        await found.service.stop()
        await found.service.stop()

    asyncio.run(main())
