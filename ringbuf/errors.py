"""Every error that tickring raises on purpose: one tree, at the bottom of the house.

It stands in ``ringbuf`` because everything above may raise from it, and because an error that crosses a process
boundary (control socket, pipe, exit code) must be found again by name on the other side.

    TickringError                exit 1   catch this to catch everything below
    ├── RingError                exit 1   something about a ring or a connection's directory
    │   ├── RingNotFound         exit 3   no ring of that connection and kind (yet)
    │   ├── RingCorrupt          exit 4   truncated, foreign, or a header field that contradicts the file
    │   ├── RingVersionError     exit 4   written by another layout version
    │   ├── WriterActive         exit 1   a second writer for one connection
    │   ├── SharedMemoryFull     exit 1   the ring could not be reserved
    │   ├── UnsafePath           exit 1   a link, another owner, or a mode that lets others write
    │   ├── SymbolError          exit 1   a symbol the table cannot hold
    │   └── UnsupportedProcessor exit 1   no proven memory ordering for this processor
    ├── ParameterError           exit 2   a name, symbol, feed or option that cannot be used
    │   └── UnknownProvider      exit 2
    ├── ProviderError            exit 1   the venue's side
    │   ├── VenueUnreachable     exit 1   no connection, or none that accepted us
    │   ├── SubscriptionRefused  exit 1   the venue said no, in its own words
    │   └── UnauthorizedError    exit 1   bad or missing credentials, or a wrong token
    ├── CaptureError             exit 1   a capture file that is missing, damaged or of no known format
    ├── ResultsFileError         exit 1   a results file that is no SQLite database, or not writable
    ├── AddressInUse             exit 1   no port could be bound
    └── SupervisorError          exit 1   the processes
        ├── NotRunning           exit 3   no supervisor answers
        ├── AlreadyRunning       exit 1   a second supervisor for one instance
        ├── UnknownConnection    exit 3   no connection of that name
        ├── ConnectionExists     exit 1   the name is taken
        ├── ControlError         exit 1   a control message that breaks the protocol
        └── DeadlinePassed       exit 5   no answer in time

The exit codes are those of the command line: 0 done, 1 failed, 2 usage, 3 not running or not found, 4 unhealthy,
5 timed out, 130 interrupted.
"""

from __future__ import annotations

from typing import ClassVar


class TickringError(Exception):
    """Base of all. ``str(error)`` says what happened, to what, and what to do."""

    #: What the command line exits with.
    exit_code: ClassVar[int] = 1


class RingError(TickringError):
    """Something about a ring or a connection's directory."""


class RingNotFound(RingError):
    """No ring of that connection and kind exists (yet)."""

    exit_code = 3


class RingCorrupt(RingError):
    """A ring file is truncated, foreign, or contradicts itself; the message names the field."""

    exit_code = 4


class RingVersionError(RingError):
    """A ring file was written by another version of the layout."""

    exit_code = 4


class WriterActive(RingError):
    """Another live process (or this one) already writes this connection's rings."""


class SharedMemoryFull(RingError):
    """The memory for a ring could not be reserved."""


class UnsafePath(RingError):
    """A path is a link, belongs to someone else, or lets others write."""


class SymbolError(RingError):
    """A symbol or exchange name that the symbol table cannot hold."""


class UnsupportedProcessor(RingError):
    """This processor's memory ordering is not provided for; reading would not be safe."""


class ParameterError(TickringError):
    """A name, symbol, feed or option that cannot be used; nothing was changed."""

    exit_code = 2


class UnknownProvider(ParameterError):
    """No provider of that name."""


class ProviderError(TickringError):
    """The venue's side of a connection."""


class VenueUnreachable(ProviderError):
    """The venue could not be reached, or closed before it accepted us."""


class SubscriptionRefused(ProviderError):
    """The venue refused every symbol asked for; the message has its words."""


class UnauthorizedError(ProviderError):
    """Credentials or a token are missing or wrong."""


class CaptureError(TickringError):
    """A capture file is missing, damaged, or of no known format."""


class ResultsFileError(TickringError):
    """A results file is no SQLite database of ours to continue, or cannot be written."""


class AddressInUse(TickringError):
    """No port could be bound on the wanted address."""


class SupervisorError(TickringError):
    """The supervisor or one of its processes."""


class NotRunning(SupervisorError):
    """No supervisor answers for this instance."""

    exit_code = 3


class AlreadyRunning(SupervisorError):
    """A supervisor already runs for this instance."""


class UnknownConnection(SupervisorError):
    """No connection of that name."""

    exit_code = 3


class ConnectionExists(SupervisorError):
    """The name is taken by another connection."""


class ControlError(SupervisorError):
    """A control message breaks the protocol."""


class DeadlinePassed(SupervisorError):
    """No answer came in time."""

    exit_code = 5


def by_name(name: str) -> type[TickringError]:
    """Find the class of an error that crossed a process boundary; an unknown name gives the base class."""
    pending: list[type[TickringError]] = [TickringError]
    while pending:
        candidate = pending.pop()
        if candidate.__name__ == name:
            return candidate
        pending.extend(candidate.__subclasses__())
    return TickringError
