"""List the peak throughput of GPUs by name, against which utilisation is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """Hold the peak throughput of one GPU.

    tflops: dense 16-bit matrix products in 10^12 operations per second; gb_s: memory bandwidth in 10^9 bytes per
    second.
    """

    tflops: float
    gb_s: float


# From NVIDIA's data sheets, without sparsity. Where a device's name contains several of these, the longest applies.
CARDS = {
    "A100-SXM4-40GB": Card(312, 1555),
    "A100-PCIE-40GB": Card(312, 1555),
    "A100 80GB PCIe": Card(312, 1935),
    "A100-SXM4-80GB": Card(312, 2039),
    "L40S": Card(362, 864),
    "H100 PCIe": Card(756, 2000),
    "H100 NVL": Card(835, 3900),
    "H100 80GB HBM3": Card(989, 3350),
    "H200": Card(989, 4800),
    "B200": Card(2250, 8000),
}


def name_of(device: str) -> str:
    """Return the card's name in CARDS, or an empty string if the device is not listed."""
    return max((name for name in CARDS if name in device), key=len, default="")


def card_of(device: str, tflops: float | None = None, gb_s: float | None = None) -> Card | None:
    """Return the card of that name; `tflops` and `gb_s` override the table. None if one of them is not known."""
    card = CARDS.get(name_of(device))
    if card is not None:
        tflops, gb_s = tflops or card.tflops, gb_s or card.gb_s
    return Card(tflops, gb_s) if tflops and gb_s else None
