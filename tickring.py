"""Live market data for Python, in shared memory.

``import tickring`` is the whole public API; nothing is defined here. See the README for a first minute, and each
function's help for the rest.
"""

from ringbuf.errors import (
    AddressInUse,
    AlreadyRunning,
    CaptureError,
    ConnectionExists,
    ControlError,
    DeadlinePassed,
    NotRunning,
    ParameterError,
    ProviderError,
    ResultsFileError,
    RingCorrupt,
    RingError,
    RingNotFound,
    RingVersionError,
    SharedMemoryFull,
    SubscriptionRefused,
    SupervisorError,
    SymbolError,
    TickringError,
    UnauthorizedError,
    UnknownConnection,
    UnknownProvider,
    UnsafePath,
    UnsupportedProcessor,
    VenueUnreachable,
    WriterActive,
)
from ringbuf.reader import RingReader
from ringbuf.records import Gap, Records
from supervisor.api import (
    attach,
    create_connection,
    get_client_status,
    get_results,
    kill,
    stop_connection,
    subscribe,
    unsubscribe,
)
from supervisor.listen import listen
from supervisor.results import Result, WebSocketConnection, WebSocketConnectionStatus
from supervisor.version import __version__

__all__ = [
    "AddressInUse",
    "AlreadyRunning",
    "CaptureError",
    "ConnectionExists",
    "ControlError",
    "DeadlinePassed",
    "Gap",
    "NotRunning",
    "ParameterError",
    "ProviderError",
    "Records",
    "Result",
    "ResultsFileError",
    "RingCorrupt",
    "RingError",
    "RingNotFound",
    "RingReader",
    "RingVersionError",
    "SharedMemoryFull",
    "SubscriptionRefused",
    "SupervisorError",
    "SymbolError",
    "TickringError",
    "UnauthorizedError",
    "UnknownConnection",
    "UnknownProvider",
    "UnsafePath",
    "UnsupportedProcessor",
    "VenueUnreachable",
    "WebSocketConnection",
    "WebSocketConnectionStatus",
    "WriterActive",
    "__version__",
    "attach",
    "create_connection",
    "get_client_status",
    "get_results",
    "kill",
    "listen",
    "stop_connection",
    "subscribe",
    "unsubscribe",
]
