"""Find pictures that occur twice: byte for byte, by perceptual hash across data sets, or as takes of one scene."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

# Of 64 bits. Of 120 photographs that were moved by 2%, turned by 1 degree or made brighter by a quarter, 97 to 100%
# differ from the first take in at most so many; the two nearest of 7,140 pairs of different photographs differ in 16.
ALIKE = 12
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


def alike(hashes: Sequence[str], *, within: int = ALIKE) -> list[list[int]]:
    """Group all indices: two are in one group if their hashes differ in at most `within` of 64 bits, or a chain of such
    pairs leads from one to the other, as in a burst in which the camera turns. Groups are in order of their first.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    words = np.array([int(text, 16) for text in hashes], dtype=np.uint64)
    pairs = [
        (place, place + 1 + other)
        for place, word in enumerate(words)
        for other in np.flatnonzero(np.bitwise_count(words[place + 1 :] ^ word) <= within).tolist()
    ]
    first, second = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(pairs)), (first, second)), shape=(len(words), len(words)))
    labels = connected_components(graph, directed=False)[1] if len(words) else []
    groups: dict[int, list[int]] = defaultdict(list)
    for place, label in enumerate(labels):
        groups[int(label)].append(place)
    return list(groups.values())


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
