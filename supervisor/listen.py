"""The client of a broadcaster: print, or iterate over, what an address sends.

It connects once. When the server ends the stream it ends, and never connects again by itself: a client that comes back
silently would hide that records were missed.

What ends it, and how that is told:

======================================  ===================================================
no server, or none that speaks         `NotRunning`
no websocket address                   `ParameterError`
HTTP 404                               `UnknownConnection`
HTTP 401 or 403, or a refused token    `UnauthorizedError`
any other status                       `SupervisorError`
the server closes in good order        `messages` ends, `listen` says so and returns
the server breaks off                  `messages` raises `NotRunning`, `listen` says so and returns
any other close code, as "too slow"    `messages` raises `SupervisorError`, `listen` says so and returns
Ctrl-C                                 `listen` says so and returns; nothing else ends
======================================  ===================================================

A token given as an argument travels in an Authorization header and is never printed; neither is one in the URL.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, urlsplit, urlunsplit

from ringbuf.errors import NotRunning, ParameterError, SupervisorError, UnauthorizedError, UnknownConnection
from supervisor.frames import CloseCode

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

_SCHEMES: Final = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}

#: A closing handshake's patience in seconds: the server answers at once or not at all (the library's own is 10).
_CLOSE_TIMEOUT: Final = 1.0


def listen(
    url: str,
    auth_token: str | None = None,
    *,
    write: Callable[[str], object] | None = None,
    **connect_kwargs: object,
) -> None:
    """Write every message of an address as a line, until the server ends the stream or Ctrl-C.

    Args:
        url: ``ws://127.0.0.1:6666``, ``http://...``, or just ``127.0.0.1:6666``; a path picks the connection.
        auth_token: what the connection's listeners must present.
        write: gets each line with its newline; standard output if left out.
        connect_kwargs: for `websockets.sync.client.connect`.

    Raises:
        NotRunning, ParameterError, UnknownConnection, UnauthorizedError, SupervisorError: see the module.

    Example:
        >>> tickring.listen("ws://127.0.0.1:6666/crypto_binance")
    """
    write = write or sys.stdout.write
    shown = public_address(url)
    try:
        with _connected(url, auth_token, connect_kwargs) as connection:
            write(f"Listening for messages from {shown}\n")
            try:
                for message in _receive(connection, shown):
                    write(f"{message}\n")
                write("Disconnected from server.\n")
            except SupervisorError as error:
                write(f"{error}\n")
    except KeyboardInterrupt:
        write(f"Stopped listening to {shown}\n")


def messages(url: str, auth_token: str | None = None, **connect_kwargs: object) -> Iterator[str]:
    """Give every message of an address, until the server ends the stream. Arguments and errors as `listen`.

    Connects when the first message is asked for; closing the generator closes the connection.

    Raises:
        NotRunning: the server broke off.
        SupervisorError: it closed the connection with an error, such as finding this client too slow.
    """
    with _connected(url, auth_token, connect_kwargs) as connection:
        yield from _receive(connection, public_address(url))


def address(url: str) -> SplitResult:
    """Read an address as people write it.

    Raises:
        ParameterError: it is none.
    """
    parts = urlsplit(url if "://" in url else f"ws://{url}")
    try:
        usable = parts.scheme in _SCHEMES and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or any(character.isspace() for character in url):
        raise ParameterError(f"{_without_secrets(parts)!r} is no websocket address: try ws://127.0.0.1:6666.")
    return parts._replace(scheme=_SCHEMES[parts.scheme], fragment="", path=parts.path or "/")


def public_address(url: str) -> str:
    """Give an address as it may be shown: without credentials and query. Raises as `address`."""
    return _without_secrets(address(url)).removesuffix("/")


def _without_secrets(parts: SplitResult) -> str:
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@contextmanager
def _connected(url: str, auth_token: str | None, connect_kwargs: dict[str, object]) -> Iterator[ClientConnection]:
    # Here because the library is slow to import, and the package's front door imports this module.
    from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI
    from websockets.sync.client import connect

    parts, shown = address(url), public_address(url)
    options = _options(parts, auth_token, connect_kwargs)
    with ExitStack() as opened:
        try:
            connection: ClientConnection = opened.enter_context(connect(urlunsplit(parts), **options))
        except InvalidURI as error:
            raise ParameterError(f"{shown!r} is no websocket address: try ws://127.0.0.1:6666.") from error
        except InvalidStatus as error:
            raise _refused(error.response.status_code, bytes(error.response.body or b""), shown) from error
        except TypeError as error:
            raise ParameterError(f"an option for the connection to {shown} is not known: {error}.") from error
        except (OSError, EOFError, InvalidHandshake) as error:
            raise NotRunning(
                f"nothing answers as a broadcaster at {shown} ({_cause(error)}). "
                "`tickring status` shows what is broadcast."
            ) from error
        yield connection


def _options(parts: SplitResult, auth_token: str | None, given: dict[str, object]) -> dict[str, Any]:
    options: dict[str, Any] = {"compression": None, "close_timeout": _CLOSE_TIMEOUT, **given}
    if _is_loopback(parts.hostname or ""):
        options.setdefault("proxy", None)  # no proxy can reach this machine's loopback interface for us
    if auth_token is not None:
        if not auth_token.isascii() or not auth_token.isprintable():
            raise ParameterError("the token cannot be sent in a header: it has characters beyond printable ASCII.")
        headers = options.get("additional_headers") or {}
        items = headers.items() if hasattr(headers, "items") else headers
        options["additional_headers"] = [*items, ("Authorization", f"Bearer {auth_token}")]
    return options


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _cause(error: Exception) -> str:
    return str(error) or type(error).__name__


def _refused(status: int, body: bytes, shown: str) -> SupervisorError | UnauthorizedError:
    words = f"{shown} answered with HTTP status {status}: {body.decode(errors='replace')[:200].strip()}"
    if status == 404:
        return UnknownConnection(words)
    return UnauthorizedError(words) if status in (401, 403) else SupervisorError(words)


def _receive(connection: ClientConnection, shown: str) -> Iterator[str]:
    """Give messages until the end. The message that explains a refusal becomes the refusal's error."""
    from websockets.exceptions import ConnectionClosed

    last_words = ""
    try:
        while True:
            message = connection.recv()
            text = message if isinstance(message, str) else message.decode(errors="replace")
            if last_words:
                yield last_words
            last_words = text if text.startswith('{"type":"error"') else ""
            if not last_words:
                yield text
    except ConnectionClosed as error:
        code = error.rcvd.code if error.rcvd is not None else None
        ending = _ending(code, error.rcvd.reason if error.rcvd is not None else "", shown)
        if last_words and not isinstance(ending, UnauthorizedError):
            yield last_words
        if ending is not None:
            raise ending from error


def _ending(code: int | None, reason: str, shown: str) -> SupervisorError | UnauthorizedError | None:
    if code in (CloseCode.NORMAL, CloseCode.GOING_AWAY):
        return None
    if code is None:
        return NotRunning(f"The process hosting {shown} was terminated.")
    if code == CloseCode.POLICY:
        return UnauthorizedError(f"{shown} refused to be listened to: {reason}. Give the connection's auth_token.")
    if code == CloseCode.SLOW:
        return SupervisorError(f"{shown} closed the connection, because messages were not taken fast enough.")
    return SupervisorError(f"{shown} closed the connection with code {code} {reason}".rstrip() + ".")
