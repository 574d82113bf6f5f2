"""A child of the supervisor that is as stubborn as its title says, and tells its pid and title when it runs.

``obedient`` ends when told to drain or when the pipe ends; ``deaf`` only by SIGTERM; ``stubborn`` by nothing but
SIGKILL; ``babbling`` sends what is no message, and is deaf. None lives longer than 40 s.
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys

from feeds.messages import Info
from feeds.pipe import pack


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--title")
    arguments = parser.parse_args()
    pipe = socket.socket(fileno=arguments.control_fd)
    title = arguments.title
    signal.alarm(40)  # below the tests' own limit: whatever a test does not end, ends by itself
    if title == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pipe.sendall(b"\x05\0\0\0what?" if title == "babbling" else pack(Info(title)))
    if title == "obedient":
        pipe.recv(1000)  # a message or the end: it does not matter which
        return 0
    while True:
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())
