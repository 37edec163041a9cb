"""Measure seconds, processor seconds and peak memory of one phase, on a CPU or a CUDA device."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path

import torch

CUDA = torch.cuda.is_available()


def now() -> float:
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter()


def processor_seconds() -> float:
    return time.process_time()


def reset_peak() -> None:
    """Reset the peak to the memory in use, after returning free heap pages to the system so that they do not count."""
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    else:
        hand_back()
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak of the resident set


def hand_back() -> None:
    """Return free heap pages to the system, so that a waiting process holds only what it uses."""
    if not CUDA:
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def peak_gb() -> float:
    """Return the peak since reset_peak in 10^9 bytes: device memory, or the process's resident set (Linux)."""
    if CUDA:
        return torch.cuda.max_memory_allocated() / 1e9
    return _status("VmHWM")


def resident_gb() -> float:
    return torch.cuda.memory_allocated() / 1e9 if CUDA else _status("VmRSS")


def _status(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e9
    raise RuntimeError(f"/proc/self/status has no {field}")
