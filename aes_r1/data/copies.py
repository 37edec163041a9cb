"""Find pictures that occur twice: byte for byte inside a list, or by perceptual hash across data sets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

BANDS = 4  # 16 bits each: two hashes that differ in fewer bits than there are bands share a whole band


def exact_duplicates(digests: Sequence[str]) -> list[list[int]]:
    """Return groups of two or more indices with the same digest."""
    places: dict[str, list[int]] = defaultdict(list)
    for index, digest in enumerate(digests):
        places[digest].append(index)
    return [group for group in places.values() if len(group) > 1]


def near_duplicates(hashes: Sequence[str], sets: Sequence[str]) -> list[list[int]]:
    """Return groups of indices in more than one of `sets` whose hashes differ in fewer than BANDS of 64 bits.

    A hash that many pictures of one set share (say blank pictures) tells nothing and is left out.
    """
    words = np.array([int(text, 16) for text in hashes], dtype=np.uint64)
    dataset = np.array(sets)
    parent = np.arange(len(words))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = int(parent[place])
        return place

    telling = ~np.isin(words, _common(words, dataset))
    for band in range(BANDS):
        keys = (words >> np.uint64(16 * band)) & np.uint64(0xFFFF)
        for group in _groups(keys, np.flatnonzero(telling)):
            for first, second in _near_pairs(group, words, dataset):
                parent[root(first)] = root(second)
    members: dict[int, list[int]] = defaultdict(list)
    for place in range(len(words)):
        members[root(place)].append(place)
    return [group for group in members.values() if len(group) > 1]


def _common(words: np.ndarray, dataset: np.ndarray, most: int = 5) -> np.ndarray:
    """Return the hashes that more than `most` pictures of one set share."""
    found = [np.unique(words[dataset == name], return_counts=True) for name in np.unique(dataset)]
    return np.concatenate([values[counts > most] for values, counts in found]) if found else words


def _groups(keys: np.ndarray, places: np.ndarray) -> Iterator[np.ndarray]:
    """Group those of `places` that share a key, two or more each."""
    order = places[np.argsort(keys[places], kind="stable")]
    edges = [0, *(np.flatnonzero(np.diff(keys[order])) + 1).tolist(), len(order)]
    return (order[start:stop] for start, stop in pairwise(edges) if stop - start > 1)


def _near_pairs(group: np.ndarray, words: np.ndarray, dataset: np.ndarray) -> Iterator[tuple[int, int]]:
    """Return pairs of a group that belong to different sets and whose hashes are near."""
    for number, index in enumerate(group[:-1]):
        rest = group[number + 1 :]
        rest = rest[dataset[rest] != dataset[index]]
        near = np.bitwise_count(words[rest] ^ words[index]) < BANDS
        yield from ((int(index), int(other)) for other in rest[near])
