"""Where rings lie, and which paths are safe to use.

::

    /dev/shm/tickring-<uid>/              the runtime directory, 0700       ($TICKRING_RUNTIME_DIR replaces it)
        <instance>/                       "default" unless $TICKRING_INSTANCE says otherwise
            <connection>/                 one per connection, 0700
                symbols  counters  <kind>.ring  writer.lock

Every name that came from a person is checked before it becomes part of a path. Every directory and file is opened
without following a link and held against three questions: is it ours, is it what it should be, can nobody else write
it. A path that fails is refused, never repaired: it may be someone's trap.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import sys
import tempfile
from pathlib import Path

from ringbuf.errors import ParameterError, RingNotFound, SharedMemoryFull, UnsafePath

# 63 characters keep a directory name far below every file system's limit and fit the header's field.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


def check_name(name: str, what: str = "connection") -> str:
    """Give back `name` if it can be a directory's name.

    Raises:
        ParameterError: it is empty, too long, or has other characters than letters, digits, ``_``, ``.`` and ``-``.
    """
    if not _NAME.fullmatch(name):
        raise ParameterError(
            f"{name!r} cannot name a {what}: use 1 to 63 letters, digits, '_', '.' or '-', "
            "the first one a letter or a digit."
        )
    return name


def instance_name() -> str:
    """The instance this process works with: $TICKRING_INSTANCE, or "default"."""
    return check_name(os.environ.get("TICKRING_INSTANCE") or "default", "instance")


def runtime_root() -> Path:
    """The user's runtime directory; it need not exist.

    On Linux shared memory's own file system, elsewhere the user's temporary directory.
    """
    chosen = os.environ.get("TICKRING_RUNTIME_DIR")
    if chosen:
        return Path(chosen)
    shared = Path("/dev/shm")  # noqa: S108 - owner, mode and links are checked before any use
    parent = shared if sys.platform == "linux" and shared.is_dir() else Path(tempfile.gettempdir())
    return parent / f"tickring-{os.getuid()}"


def instance_directory(*, create: bool = False) -> Path:
    """The directory of this instance, checked.

    Raises:
        UnsafePath: it, or the runtime directory, is a link, belongs to someone else or is open to others.
        RingNotFound: it does not exist and `create` is false.
    """
    root = runtime_root()
    directory = root / instance_name()
    for path in (root, directory):
        _private_directory(path, create=create)
    return directory


def connection_directory(connection: str, *, create: bool = False) -> Path:
    """The directory of one connection, checked. Raises as `instance_directory` does."""
    directory = instance_directory(create=create) / check_name(connection)
    _private_directory(directory, create=create)
    return directory


def _private_directory(path: Path, *, create: bool) -> None:
    if create:
        try:
            path.mkdir(mode=0o700, parents=False)
        except FileExistsError:
            pass
        except FileNotFoundError as error:
            raise UnsafePath(f"{path.parent} does not exist: create it, or correct TICKRING_RUNTIME_DIR.") from error
        except OSError as error:
            raise _not_opened(path, error) from error
    try:
        found = path.lstat()
    except FileNotFoundError as error:
        raise RingNotFound(f"{path} does not exist: nothing has been started there.") from error
    except OSError as error:
        raise _not_opened(path, error) from error
    if not stat.S_ISDIR(found.st_mode):
        raise UnsafePath(f"{path} is not a directory of its own (a link or a file stands there). Remove it.")
    _check_owner(path, found)


def _check_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid != os.getuid():
        raise UnsafePath(f"{path} belongs to user {found.st_uid}, not to you ({os.getuid()}). It is not used.")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UnsafePath(f"{path} can be written by others (mode {stat.S_IMODE(found.st_mode):04o}). It is not used.")


def _not_opened(path: Path, error: OSError) -> SharedMemoryFull | UnsafePath:
    if error.errno == errno.ENOSPC:
        return SharedMemoryFull(f"{path} cannot be made: {error.strerror}. Give /dev/shm more room.")
    if error.errno == errno.ELOOP:
        return UnsafePath(f"{path} is a link. It is not followed; remove it.")
    return UnsafePath(f"{path} cannot be used: {error.strerror}. Remove it, or correct TICKRING_RUNTIME_DIR.")


def open_file(path: Path, *, write: bool = False, create: bool = False) -> int:
    """Open a plain file of ours and give its descriptor; the caller closes it.

    Raises:
        RingNotFound: there is no such file.
        UnsafePath: it is a link or no plain file, belongs to someone else, or others can write it.
        SharedMemoryFull: it was to be created, and there is no room for one more file.
    """
    # O_NONBLOCK means nothing to a plain file; it keeps a pipe of that name from stopping us until someone writes it.
    flags = (os.O_RDWR if write else os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    if create:
        flags |= os.O_CREAT
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileNotFoundError as error:
        raise RingNotFound(f"{path} does not exist.") from error
    except OSError as error:
        raise _not_opened(path, error) from error
    found = os.fstat(descriptor)
    try:
        if not stat.S_ISREG(found.st_mode):
            raise UnsafePath(f"{path} is not a plain file. Remove it.")
        _check_owner(path, found)
    except UnsafePath:
        os.close(descriptor)
        raise
    return descriptor


def reserve(descriptor: int, size: int, path: Path) -> None:
    """Give the file real memory up to `size` bytes.

    `ftruncate` alone would succeed on a full /dev/shm, and the first touch would kill the process with SIGBUS.

    Raises:
        SharedMemoryFull: there is no room; the message says how much was wanted and how much is free.
    """
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        else:  # macOS
            os.ftruncate(descriptor, size)
    except OSError as error:
        free = os.fstatvfs(descriptor)
        raise SharedMemoryFull(
            f"{path} needs {size / 2**20:.1f} MiB, but only {free.f_bavail * free.f_frsize / 2**20:.1f} MiB are free "
            f"there ({error.strerror}). Give /dev/shm more room (in a container: --shm-size), or ask for a smaller "
            "capacity."
        ) from error


def create_file(path: Path, size: int, head: bytes) -> None:
    """Build a file of `size` bytes that begins with `head`, and only then give it its name: nobody sees half of it.

    What a predecessor left that was killed while it built is removed, so the caller must be the only one who builds
    under this name: the holder of the connection's `WriterLock`.

    Raises:
        SharedMemoryFull: there is no room; nothing is left behind.
    """
    for abandoned in path.parent.glob(f".{path.name}.*"):
        abandoned.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = open_file(temporary, write=True, create=True)
    try:
        reserve(descriptor, size, path)
        os.pwrite(descriptor, head, 0)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
