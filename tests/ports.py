"""Ports of the loopback for servers and launchers that have to be told theirs before they start."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

_HELD: list[FileLock] = []


def free_port() -> int:
    """A port that nothing listens at, kept from every other test until this process ends.

    It lies below the ones that the kernel chooses by itself, so that no other program's connection takes it between
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
