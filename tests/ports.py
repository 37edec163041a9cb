"""Loopback ports for servers and launchers that must know their port before they start."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

_HELD: list[FileLock] = []


def free_port() -> int:
    """Return a port on which nothing listens, reserved for this process until it ends.

    It is below the ports that the kernel assigns, so that no other program's connection takes it between
    here and the start of its server.
    """
    folder = Path(tempfile.gettempdir()) / "aes_r1_test_ports"
    folder.mkdir(exist_ok=True)
    for port in range(20_000, 30_000):
        lock = FileLock(folder / str(port))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                lock.release()
                continue
        _HELD.append(lock)
        return port
    raise RuntimeError("no port is free")
