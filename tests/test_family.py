"""The lock that tells a supervisor whether a predecessor's children are still there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from processes.supervisor_running import kill

from feeds.messages import Info
from supervisor.child_process import ChildProcess
from supervisor.family import Family

pytestmark = pytest.mark.usefixtures("everywhere")


def test_alone_it_is_gathered_at_once(tmp_path: Path) -> None:
    family = Family(tmp_path)
    assert asyncio.run(family.gather(0.1))
    family.close()
    family.close()


def test_a_successor_waits_for_the_last_child_of_a_killed_predecessor(tmp_path: Path) -> None:
    async def main() -> None:
        first = Family(tmp_path)
        assert await first.gather(0.1)
        child: ChildProcess[Info] = await ChildProcess.start(
            "processes.supervisor_child", "stubborn", Info, tmp_path / "log", (first.descriptor,)
        )
        await child.pipe.receive()
        first.close()  # as the kernel does for a killed one
        second = Family(tmp_path)
        assert not await second.gather(0.1)
        waiting = asyncio.create_task(second.gather(20.0))
        await asyncio.sleep(0)
        assert not waiting.done()
        await asyncio.to_thread(kill, child.pid)
        assert await waiting
        await child.stop()
        second.close()

    asyncio.run(main())


def test_children_started_before_the_lock_was_had_belong_to_it(tmp_path: Path) -> None:
    async def main() -> None:
        first = Family(tmp_path)
        child: ChildProcess[Info] = await ChildProcess.start(
            "processes.supervisor_child", "obedient", Info, tmp_path / "log", (first.descriptor,)
        )
        await child.pipe.receive()
        assert await first.gather(0.1)
        first.close()
        second = Family(tmp_path)
        assert not await second.gather(0.1)
        await child.stop()
        assert await second.gather(20.0)
        second.close()

    asyncio.run(main())
