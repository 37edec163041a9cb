import numpy as np
import pytest

from aes_r1.aescot.near_copy import NearCopies

WORDS = [f"word{number}" for number in range(400)]


def text(rng, length=120):
    return [WORDS[int(place)] for place in rng.integers(len(WORDS), size=length)]


def jaccard(first, second):
    shingles = [{tuple(words[i : i + 5]) for i in range(len(words) - 4)} for words in (first, second)]
    return len(shingles[0] & shingles[1]) / len(shingles[0] | shingles[1])


def test_the_estimate_is_near_the_jaccard_similarity():
    rng = np.random.default_rng(0)
    for cut in (5, 10, 20):
        first = text(rng)
        second = first[cut:] + text(rng, cut)
        copies = NearCopies(0.01)
        copies.add("first", " ".join(first))
        result = copies.find(" ".join(second))
        assert result is not None
        assert result[0] == "first"
        assert result[1] == pytest.approx(jaccard(first, second), abs=0.12)


@pytest.mark.slow
def test_copies_are_found_among_many_and_strangers_are_not():
    rng = np.random.default_rng(1)
    copies, texts = NearCopies(0.7), [text(rng) for _ in range(300)]
    for number, words in enumerate(texts):
        assert copies.find(" ".join(words)) is None
        copies.add(str(number), " ".join(words))
    for number in range(0, 300, 30):
        changed = [*texts[number]]
        changed[10] = "elsewhere"
        assert copies.find(" ".join(changed).upper() + "!")[0] == str(number)


def test_without_a_threshold_nothing_is_checked_and_short_texts_are_no_trouble():
    copies = NearCopies(None)
    copies.add("a", "same")
    assert copies.find("same") is None
    short = NearCopies(0.9)
    short.add("a", "two words")
    assert short.find("two words") == ("a", 1.0)
    assert short.find("") is None
