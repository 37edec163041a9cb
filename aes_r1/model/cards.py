"""What a GPU can do at most, by its name: the peak that utilisation is measured against."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """tflops: dense 16-bit matrix products, 10^12 operations a second; gb_s: memory bandwidth, 10^9 bytes a second."""

    tflops: float
    gb_s: float


# As NVIDIA's data sheets give them, without sparsity. The longest name that a device's name contains counts.
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
    """The card's name in CARDS, empty when it is not there."""
    return max((name for name in CARDS if name in device), key=len, default="")


def card_of(device: str, tflops: float | None = None, gb_s: float | None = None) -> Card | None:
    """The card of that name; given numbers go before the table's. None when either is in neither place."""
    known = CARDS.get(name_of(device))
    if known is not None:
        tflops, gb_s = tflops or known.tflops, gb_s or known.gb_s
    return Card(tflops, gb_s) if tflops and gb_s else None
