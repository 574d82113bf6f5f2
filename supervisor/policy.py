r"""When a provider process is started, and when it is started again: a table, no clock, no process.

::

    state \ event    start        ready     died, passing     died, permanent    time is up    stop
    ----------------+------------+---------+-----------------+------------------+-------------+-------------
    stopped         | starting   |         |                 |                  |             | stopped
    starting        |            | ready   | backoff         | failed           |             | stopping
    ready           |            | ready   | backoff         | failed           |             | stopping
    backoff         | starting   |         |                 |                  | starting    | stopped
    stopping        |            |         | stopped         | stopped          |             | stopping
    failed          | starting   |         |                 |                  |             | stopped

An empty field is an event that comes too late or too early to mean anything; the state stays. Entering `starting`
spawns; entering `stopping` stops the child; `backoff` has a time at which it is up, drawn with full jitter (see
`feeds.backoff`). The count of failures in a row begins anew after a minute spent ready.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from feeds.backoff import Backoff
from feeds.child import EXIT_CONFIGURATION

#: A process that was ready this long, in seconds, has recovered (DESIGN).
HEALTHY_AFTER: Final = 60.0


class ProviderState(StrEnum):
    """Where a provider process stands."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    BACKOFF = "backoff"
    STOPPING = "stopping"
    FAILED = "failed"


class Event(StrEnum):
    """What can happen to it."""

    START = "start"
    READY = "ready"
    DIED = "died"
    GAVE_UP = "gave up"
    TIME_UP = "time up"
    STOP = "stop"


_S, _E = ProviderState, Event
_TABLE: Final[dict[tuple[ProviderState, Event], ProviderState]] = {
    (_S.STOPPED, _E.START): _S.STARTING,
    (_S.STARTING, _E.READY): _S.READY,
    (_S.STARTING, _E.DIED): _S.BACKOFF,
    (_S.STARTING, _E.GAVE_UP): _S.FAILED,
    (_S.STARTING, _E.STOP): _S.STOPPING,
    (_S.READY, _E.DIED): _S.BACKOFF,
    (_S.READY, _E.GAVE_UP): _S.FAILED,
    (_S.READY, _E.STOP): _S.STOPPING,
    (_S.BACKOFF, _E.START): _S.STARTING,
    (_S.BACKOFF, _E.TIME_UP): _S.STARTING,
    (_S.BACKOFF, _E.STOP): _S.STOPPED,
    (_S.STOPPING, _E.DIED): _S.STOPPED,
    (_S.STOPPING, _E.GAVE_UP): _S.STOPPED,
    (_S.FAILED, _E.START): _S.STARTING,
    (_S.FAILED, _E.STOP): _S.STOPPED,
}


def death(exit_code: int) -> Event:
    """Tell what an exit code means: only a wrong configuration is not tried again."""
    return Event.GAVE_UP if exit_code == EXIT_CONFIGURATION else Event.DIED


@dataclass(frozen=True)
class Policy:
    """One provider process's place in the table. Immutable; times are monotonic seconds."""

    backoff: Backoff = field(default_factory=Backoff)
    state: ProviderState = ProviderState.STOPPED
    since: float = 0.0
    #: Deaths in a row without a healthy run between.
    failures: int = 0
    #: Deaths altogether that were followed by another start.
    restarts: int = 0
    #: In backoff: when the next attempt is due.
    due: float = 0.0

    def after(self, event: Event, now: float) -> Policy:
        """Give the policy after an event."""
        state = _TABLE.get((self.state, event))
        if state is None:
            return self
        if state is not ProviderState.BACKOFF:
            restarted = self.state is ProviderState.BACKOFF and state is ProviderState.STARTING
            restarts = self.restarts + restarted
            failures = 0 if state is ProviderState.STOPPED else self.failures
            return replace(self, state=state, since=now, restarts=restarts, failures=failures)
        healthy = self.state is ProviderState.READY and now - self.since >= HEALTHY_AFTER
        failures = 0 if healthy else self.failures
        return replace(
            self, state=state, since=now, failures=failures + 1, due=now + self.backoff.delay(failures)
        )  # fmt: skip
