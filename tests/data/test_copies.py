from __future__ import annotations

import numpy as np

from aes_r1.data.copies import exact_duplicates, near_duplicates, takes_of_one_scene


def test_identical_groups():
    assert exact_duplicates(["a", "b", "a", "c", "b", "a"]) == [[0, 2, 5], [1, 4]]
    assert exact_duplicates([]) == []


def word(value: int) -> str:
    return f"{value:016x}"


def test_alike_finds_exactly_the_near_pairs_of_different_sets():
    rng = np.random.default_rng(0)
    words = [int(one) for one in rng.integers(0, 2**63, 300)]
    for index in range(0, 300, 3):  # the next one differs in 0..5 bits
        flips = rng.permutation(63)[: index // 3 % 6]
        words[index + 1] = words[index] ^ sum(1 << int(bit) for bit in flips)
    sets = ["one" if index % 3 == 0 else "two" for index in range(300)]
    result = {tuple(group) for group in near_duplicates([word(one) for one in words], sets)}
    expected = {
        (first, second)
        for first in range(300)
        for second in range(first + 1, 300)
        if sets[first] != sets[second] and (words[first] ^ words[second]).bit_count() < 4
    }
    assert result == expected
    assert len(result) == 68  # 0, 1, 2 and 3 flipped bits


def test_pictures_of_one_set_are_not_compared():
    assert near_duplicates([word(5)] * 3, ["one"] * 3) == []
    assert near_duplicates([word(5)] * 3, ["one", "one", "two"]) == [[0, 1, 2]]


def test_blank_pictures_are_no_copies():
    assert near_duplicates([word(0)] * 12, ["one"] * 6 + ["two"] * 6) == []


def test_nothing_is_no_trouble():
    assert near_duplicates([], []) == []
    assert takes_of_one_scene([]) == []


def test_takes_of_a_scene_are_one_group_also_through_a_chain():
    """0, 12 and 24 bits from the first: the last is near the second alone; 13 bits are too far."""
    hashes = [word(0), word((1 << 13) - 1), word((1 << 40) - (1 << 28)), word(((1 << 24) - 1) << 28)]
    assert takes_of_one_scene(hashes) == [[0, 2, 3], [1]]
    assert takes_of_one_scene(hashes, within=13) == [[0, 1, 2, 3]]
    assert takes_of_one_scene(hashes, within=0) == [[0], [1], [2], [3]]
