import json
import re

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import cohen_kappa_score

from aes_r1.aescot.audit import agreement, cohens_kappa, write_audit
from aes_r1.aescot.build import build_aescot
from aes_r1.data.sample import Sample
from aes_r1.prompts import DIMENSIONS
from aes_r1.settings import ExpertSettings, InputError, JudgeSettings


@pytest.fixture
def distilled(tmp_path):
    rng = np.random.default_rng(0)
    Image.new("RGB", (600, 400), (200, 40, 90)).save(tmp_path / "a.png")
    samples = []
    for number in range(60):
        factors = {name: float(rng.random()) for name in DIMENSIONS}
        attributes = {"factors": factors, "facts": {"light": "left"}}
        mos = float(np.mean(list(factors.values())))
        samples.append(Sample(f"s{number}", str(tmp_path / "a.png"), mos, "scenes", "train", attributes=attributes))
    expert = ExpertSettings(leak_rate=0.15, align_rate=0.15, fact_rate=0.15)
    build_aescot(samples, expert=expert, judge=JudgeSettings(name="scenes"), seed=0, out=tmp_path / "out")
    return tmp_path / "out"


def items(page):
    return json.loads(re.search(r'type="application/json">(.*?)</script>', page.read_text(), re.DOTALL)[1])


def test_the_page_holds_a_seeded_sample_of_kept_and_rejected(distilled):
    page = write_audit(distilled, items=20, seed=0, judged=True)
    data = items(page)
    assert len(data["items"]) == 20
    assert sum(item["decision"] == "kept" for item in data["items"]) == 10
    reasons = {name for item in data["items"] for name, flag in item["flags"].items() if flag}
    assert reasons == {"leak", "align", "fact"}
    again = write_audit(distilled, items=20, seed=0, judged=True)
    assert items(again) == data
    assert items(write_audit(distilled, items=20, seed=1, judged=True)) != data


def test_the_page_needs_nothing_else(distilled):
    text = write_audit(distilled, items=10, seed=0, judged=True).read_text()
    assert not re.search(r'(?:src|href)="(?!#)[^"]', text)
    assert "http" not in text
    assert "data:image/jpeg;base64," in text


def test_a_filter_that_was_not_run_has_no_decision(distilled):
    for item in items(write_audit(distilled, items=40, seed=0, judged=True))["items"]:
        flags = item["flags"]
        if flags["leak"]:
            assert flags["align"] is None
        if flags["leak"] or flags["align"]:
            assert flags["fact"] is None
    unjudged = items(write_audit(distilled, items=40, seed=0, judged=False))["items"]
    assert {item["flags"]["align"] for item in unjudged} == {None}


def test_kappa_is_cohens():
    rng = np.random.default_rng(0)
    first = rng.random(80) < 0.4
    second = first ^ (rng.random(80) < 0.2)
    assert cohens_kappa(first, second) == pytest.approx(cohen_kappa_score(first, second))
    assert cohens_kappa(np.ones(5, bool), np.ones(5, bool)) is None


def write_marks(tmp_path, marks):
    path = tmp_path / "marks.json"
    path.write_text(json.dumps({"distillation": "x", "marks": marks}))
    return path


def test_agreement_per_filter_with_intervals(tmp_path):
    rows = [("leak", True, True)] * 20 + [("leak", False, True)] * 20 + [("leak", True, False)] * 4
    rows += [("leak", False, False)] * 1 + [("fact", False, True)] * 5
    marks = [{"id": "a", "filter": name, "flagged": flagged, "agree": agree} for name, flagged, agree in rows]
    found = agreement(write_marks(tmp_path, marks))
    leak = found["leak"]
    assert (leak["n"], leak["flagged"], leak["wrongly_rejected"], leak["missed"]) == (45, 24, 4, 1)
    assert leak["agreement"]["value"] == pytest.approx(40 / 45)
    assert leak["kappa"]["low"] < leak["kappa"]["value"] < leak["kappa"]["high"]
    flagged = [row["flagged"] for row in marks[:45]]
    person = [row["flagged"] == row["agree"] for row in marks[:45]]
    assert leak["kappa"]["value"] == pytest.approx(cohen_kappa_score(flagged, person))
    assert found["fact"]["kappa"] is None
    assert "align" not in found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not json", "not the JSON"),
        ('{"a": 1}', "not the JSON"),
        ('{"marks": []}', "no marks"),
        ('{"marks": [{"filter": "leak"}]}', "mark 0"),
    ],
)
def test_wrong_marks_are_named(tmp_path, text, said):
    path = tmp_path / "marks.json"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        agreement(path)
