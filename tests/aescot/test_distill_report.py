import math
from collections import Counter

import numpy as np
import pytest

from aes_r1.aescot.diversity import diversity, self_bleu
from aes_r1.aescot.report import Tally, calls_summary


def grams(words, n):
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def plain_self_bleu(texts):
    """BLEU-4 of each text against the others, written out."""
    values = []
    for index, text in enumerate(texts):
        others = [other for number, other in enumerate(texts) if number != index]
        total = 0.0
        for n in range(1, 5):
            own, references = grams(text, n), [grams(other, n) for other in others]
            matched = sum(min(count, max(r[gram] for r in references)) for gram, count in own.items())
            total += math.log(max(matched, 1e-9) / max(1, own.total())) / 4
        closest = min((len(other) for other in others), key=lambda length: abs(length - len(text)))
        values.append(math.exp(total + min(0.0, 1 - closest / max(1, len(text)))))
    return sum(values) / len(values)


def test_self_bleu_equals_the_written_out_one():
    rng = np.random.default_rng(0)
    texts = [[f"w{v}" for v in rng.integers(8, size=int(rng.integers(6, 25)))] for _ in range(12)]
    assert self_bleu(texts) == pytest.approx(plain_self_bleu(texts))


def test_diversity_of_copies_and_of_strangers():
    same, different = ["the cat sat on the mat"] * 5, ["a b c d e f", "g h i j k l", "m n o p q r"]
    assert diversity(same)["self_bleu"] == pytest.approx(1.0)
    assert diversity(different)["self_bleu"] < 1e-3
    assert diversity(different)["distinct_1"] == 1.0
    assert diversity(same)["distinct_2"] == pytest.approx(5 / 25)
    assert diversity([])["self_bleu"] is None


def row(level="fair"):
    return {"level": level, "dataset": "ava", "critique": "a calm picture of a boat"}


def test_a_tally_counts_and_measures_filters_against_plants():
    tally = Tally(seed=0)
    tally.add(row(), [], ["leak", "length", "fact"], None)
    tally.add(row("good"), ["leak"], ["length"], "leak")
    tally.add(row("good"), ["leak", "length"], [], None)
    tally.add(row("bad"), [], ["leak", "length", "fact"], "align")
    summary = tally.summary()
    assert (summary["kept"], summary["rejected"]) == (2, 2)
    assert summary["rejected_by_reason"] == {"leak": 2, "length": 1}
    good = {"rejected": 2, "rejected/leak": 2, "rejected/length": 1}
    assert summary["levels"] == {"bad": {"kept": 1}, "fair": {"kept": 1}, "good": good}
    assert summary["datasets"] == {"ava": {"kept": 2, **good}}
    assert summary["filters"]["leak"] == {"examined": 4, "rejected": 2, "pass_rate": 0.5}
    assert summary["filters"]["fact"] == {"examined": 2, "rejected": 0, "pass_rate": 1.0}  # the judge saw only two
    plants = tally.plants()
    assert (plants["leak"]["precision"], plants["leak"]["recall"]) == (0.5, 1.0)
    assert (plants["align"]["precision"], plants["align"]["recall"]) == (None, 0.0)


def test_calls_are_summed_by_role_and_an_unknown_price_stays_unknown():
    call = {"role": "expert", "prompt_tokens": 10, "completion_tokens": 5, "usd": 0.25, "seconds": 1.5}
    assert calls_summary([call, call]) == {
        "expert": {"calls": 2, "prompt_tokens": 20, "completion_tokens": 10, "usd": 0.5, "seconds": 3.0}
    }
    assert calls_summary([call, {**call, "usd": None}])["expert"]["usd"] is None
