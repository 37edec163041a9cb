"""Find near copies of earlier critiques by MinHash (Broder, 1997) with banded look-up."""

from __future__ import annotations

import re
import zlib

import numpy as np

SHINGLE = 5  # words
HASHES = 128
BANDS = 32  # of HASHES / BANDS rows each: pairs above a similarity of about .4 become candidates
_WORD = re.compile(r"[\w']+")


class NearCopies:
    """Remember critiques by their MinHash signatures, which estimate the Jaccard similarity of word shingles.

    threshold: the similarity from which on a critique counts as a near copy; None finds none.
    """

    def __init__(self, threshold: float | None) -> None:
        rng = np.random.default_rng(0)
        self._threshold = threshold
        self._scale = rng.integers(0, 1 << 63, HASHES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        self._shift = rng.integers(0, 1 << 63, HASHES, dtype=np.uint64)
        self._ids: list[str] = []
        self._signatures: list[np.ndarray] = []
        self._bands: dict[tuple[int, bytes], list[int]] = {}

    def find(self, critique: str) -> tuple[str, float] | None:
        """Return id and estimated similarity of an earlier critique that reaches the threshold, else None."""
        if self._threshold is None:
            return None
        signature = self._signature(critique)
        candidates = {index for key in _band_keys(signature) for index in self._bands.get(key, ())}
        for index in sorted(candidates):
            similarity = float((self._signatures[index] == signature).mean())
            if similarity >= self._threshold:
                return self._ids[index], similarity
        return None

    def add(self, identity: str, critique: str) -> None:
        """Remember `critique` under `identity` for later comparisons."""
        if self._threshold is None:
            return
        signature = self._signature(critique)
        for key in _band_keys(signature):
            self._bands.setdefault(key, []).append(len(self._ids))
        self._ids.append(identity)
        self._signatures.append(signature)

    def _signature(self, critique: str) -> np.ndarray:
        words = _WORD.findall(critique.lower())
        count = max(1, len(words) - SHINGLE + 1)
        shingles = {zlib.crc32(" ".join(words[i : i + SHINGLE]).encode()) for i in range(count)}
        values = np.fromiter(shingles, dtype=np.uint64, count=len(shingles))
        hashed = (values[:, None] * self._scale + self._shift) >> np.uint64(32)  # multiply-shift, modulo 2**64
        return hashed.min(axis=0)


def _band_keys(signature: np.ndarray) -> list[tuple[int, bytes]]:
    return [(band, rows.tobytes()) for band, rows in enumerate(np.split(signature, BANDS))]
