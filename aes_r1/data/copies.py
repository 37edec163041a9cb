"""Find pictures that occur twice: equal bytes, similar perceptual hashes across data sets, or takes of one scene."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

# Of 64 bits. When 120 photographs were shifted by 2%, turned by 1 degree or brightened by a quarter, the hashes of 97
# to 100% changed in at most this many bits; those of the nearest of the 7,140 pairs of photographs differ in 16.
SAME_SCENE_BITS = 12
BANDS = 4  # of 16 bits each. Two hashes that differ in fewer bits than there are bands have one band in common.


def exact_duplicates(digests: Sequence[str]) -> list[list[int]]:
    """Return groups of two or more indices with the same digest."""
    indices: dict[str, list[int]] = defaultdict(list)
    for index, digest in enumerate(digests):
        indices[digest].append(index)
    return [group for group in indices.values() if len(group) > 1]


def near_duplicates(hashes: Sequence[str], sets: Sequence[str]) -> list[list[int]]:
    """Return groups of indices in more than one of `sets` whose hashes differ in fewer than BANDS of 64 bits.

    Pictures are joined into one group through others that are near to both. A hash that many pictures of one set share,
    such as that of blank pictures, shows no duplicate and is left out.
    """
    words = np.array([int(text, 16) for text in hashes], dtype=np.uint64)
    dataset = np.array(sets)
    distinctive = np.flatnonzero(~np.isin(words, _common(words, dataset)))
    pairs: list[tuple[int, int]] = []
    for band in range(BANDS):
        keys = (words >> np.uint64(16 * band)) & np.uint64(0xFFFF)
        for group in _groups(keys, distinctive):
            pairs += _near_pairs(group, words, dataset)
    return [group for group in _members(pairs, len(words)) if len(group) > 1]


def _members(pairs: Sequence[tuple[int, int]], count: int) -> list[list[int]]:
    """Return the groups of `count` indices that chains of `pairs` join, in order of their first."""
    ends = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    near = coo_array((np.ones(len(pairs)), (ends[0], ends[1])), shape=(count, count))
    members: dict[int, list[int]] = defaultdict(list)
    for index, component in enumerate(connected_components(near, directed=False)[1].tolist() if count else []):
        members[component].append(index)
    return list(members.values())


def takes_of_one_scene(hashes: Sequence[str], *, within: int = SAME_SCENE_BITS) -> list[list[int]]:
    """Group all indices: two are in one group if their hashes differ in at most `within` of 64 bits.

    So are two that a chain of such pairs joins, as in a burst in which the camera turns. Groups are in order of their
    first.
    """
    words = np.array([int(text, 16) for text in hashes], dtype=np.uint64)
    groups, left = [], np.arange(len(words))
    while len(left):
        group: list[int] = []
        reached, left = [int(left[0])], left[1:]
        while reached:
            group.append(reached.pop())
            near = np.bitwise_count(words[left] ^ words[group[-1]]) <= within
            reached += left[near].tolist()
            left = left[~near]
        groups.append(sorted(group))
    return groups


def _common(words: np.ndarray, dataset: np.ndarray, limit: int = 5) -> np.ndarray:
    """Return the hashes that more than `limit` pictures of one set share."""
    counted = [np.unique(words[dataset == name], return_counts=True) for name in np.unique(dataset)]
    return np.concatenate([values[counts > limit] for values, counts in counted]) if counted else words


def _groups(keys: np.ndarray, indices: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the groups of two or more of `indices` that share a key."""
    order = indices[np.argsort(keys[indices], kind="stable")]
    edges = [0, *(np.flatnonzero(np.diff(keys[order])) + 1).tolist(), len(order)]
    return (order[start:stop] for start, stop in pairwise(edges) if stop - start > 1)


def _near_pairs(group: np.ndarray, words: np.ndarray, dataset: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield the pairs of a group that belong to different sets and whose hashes are near."""
    for number, index in enumerate(group[:-1]):
        rest = group[number + 1 :]
        rest = rest[dataset[rest] != dataset[index]]
        near = np.bitwise_count(words[rest] ^ words[index]) < BANDS
        yield from ((int(index), int(other)) for other in rest[near])
