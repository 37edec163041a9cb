import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy.stats import bootstrap, norm
from sklearn.metrics import cohen_kappa_score

from aes_r1.aescot.audit import cohens_kappa, filter_agreement, write_audit
from aes_r1.aescot.build import build_aescot
from aes_r1.data.sample import Sample
from aes_r1.prompts import DIMENSIONS
from aes_r1.settings import ExpertSettings, InputError, JudgeSettings


@pytest.fixture
def distilled(tmp_path):
    return distilled_scenes(tmp_path, "scenes")


def distilled_scenes(tmp_path, judge):
    rng = np.random.default_rng(0)
    Image.new("RGB", (600, 400), (200, 40, 90)).save(tmp_path / "a.png")
    samples = []
    for number in range(60):
        factors = {name: float(rng.random()) for name in DIMENSIONS}
        attributes = {"factors": factors, "facts": {"light": "left"}}
        mos = float(np.mean(list(factors.values())))
        samples.append(Sample(f"s{number}", str(tmp_path / "a.png"), mos, "scenes", "train", attributes=attributes))
    expert = ExpertSettings(leak_rate=0.15, align_rate=0.15, fact_rate=0.15)
    build_aescot(samples, expert=expert, judge=JudgeSettings(name=judge), seed=0, out=tmp_path / "out")
    return tmp_path / "out"


def items(page):
    return json.loads(re.search(r'type="application/json">(.*?)</script>', page.read_text(), re.DOTALL)[1])


@pytest.mark.slow
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


@pytest.mark.slow
def test_hostile_words_end_no_script(distilled):
    hostile = "</script><script>alert(1)</script><!-- \"'&<img src=x onerror=alert(2)>\u2028"
    plain = write_audit(distilled, items=20, seed=0, judged=True).read_text()
    path = distilled / "aescot.jsonl"
    rows = [{**json.loads(line), "judgement": hostile, "dataset": hostile} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = write_audit(distilled, items=20, seed=0, judged=True)
    assert sum(["Judgement", hostile] in item["said"] for item in items(page)["items"]) == 10  # those that were kept
    for tag in ("<script", "</script", "<img", "<!--"):
        assert page.read_text().count(tag) == plain.count(tag)


@pytest.mark.slow
def test_a_filter_that_was_not_run_has_no_decision(distilled, tmp_path):
    for item in items(write_audit(distilled, items=40, seed=0, judged=True))["items"]:
        flags = item["flags"]
        if flags["leak"]:
            assert flags["align"] is None
        if flags["leak"] or flags["align"]:
            assert flags["fact"] is None
        assert set(flags) >= {"leak", "align", "fact"}
        assert all(flags[name] for name in set(flags) - {"leak", "align", "fact"})
        assert item["decision"] != "kept" or (not any(flags.values()) and None not in flags.values())
    (tmp_path / "unjudged").mkdir()
    out = distilled_scenes(tmp_path / "unjudged", "none")
    unjudged = items(write_audit(out, items=40, seed=0, judged=False))["items"]
    assert {item["flags"][name] for item in unjudged for name in ("align", "fact")} == {None}
    assert {item["flags"]["leak"] for item in unjudged} == {True, False}


@pytest.mark.slow
def test_the_page_says_why_a_filter_was_not_run(tmp_path, distilled):
    """There was no judge, an earlier filter rejected, or there was nothing to decide on."""
    (tmp_path / "unjudged").mkdir()
    out = distilled_scenes(tmp_path / "unjudged", "none")
    page = write_audit(out, items=40, seed=0, judged=False)
    assert "an earlier" not in page.read_text()
    assert any(item["decision"] == "kept" for item in items(page)["items"])
    for item in items(page)["items"]:
        assert item["not_run"] == dict.fromkeys(("align", "fact"), "there was no judge")
    rejected = {
        json.dumps(item["not_run"]) for item in items(write_audit(distilled, items=40, seed=0, judged=True))["items"]
    }
    earlier = "an earlier filter had already rejected"
    assert rejected == {json.dumps(dict.fromkeys(names, earlier)) for names in ((), ("fact",), ("align", "fact"))}
    rows = [json.loads(line) for line in (distilled / "rejected.jsonl").read_text().splitlines()]
    for reasons, passed, said in (
        (["no_verdict"], ["leak"], dict.fromkeys(("align", "fact"), "the judge’s answer could not be read")),
        (["no_verdict"], ["leak", "align"], {"fact": "the judge’s answer could not be read"}),
        (["invalid_json"], [], dict.fromkeys(("leak", "align", "fact"), "the reply could not be read")),
        (["no_answer"], [], dict.fromkeys(("leak", "align", "fact"), "no answer came")),
    ):
        row = {**rows[0], "reasons": reasons, "details": dict.fromkeys(reasons, ""), "passed": passed}
        (distilled / "rejected.jsonl").write_text(json.dumps(row) + "\n")
        shown = items(write_audit(distilled, items=40, seed=0, judged=True))["items"]
        assert [item["not_run"] for item in shown if item["decision"] != "kept"] == [said]


def test_other_filters_are_asked_about_where_they_reject(tmp_path):
    attributes = {"factors": dict.fromkeys(DIMENSIONS, 0.5), "facts": {}}
    alike = [Sample(f"s{i}", "/p.png", 0.5, "scenes", "train", attributes=attributes) for i in range(60)]
    rates = dict.fromkeys(("leak_rate", "align_rate", "fact_rate"), 0.0)
    expert = ExpertSettings(near_copy=0.9, **rates)
    build_aescot(alike, expert=expert, judge=JudgeSettings(name="scenes"), seed=0, out=tmp_path)
    copies = [item for item in items(write_audit(tmp_path, items=10, seed=0, judged=True))["items"]
              if item["decision"] == "rejected: near_copy"]  # fmt: skip
    assert copies
    for item in copies:
        assert item["flags"] == {"leak": False, "align": False, "fact": False, "near_copy": True}
        title, critique = item["said"][-1]
        assert title == "Earlier critique"
        assert critique.startswith("Light and shadow")


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_person_marks_by_keys_in_a_browser_and_the_export_is_read_back(distilled, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    page_file = write_audit(distilled, items=12, seed=0, judged=True)
    shown = items(page_file)["items"]
    asked = [(item, name, flag) for item in shown for name, flag in item["flags"].items() if flag is not None]
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]  # fmt: skip
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page()
        page.set_default_timeout(120_000)
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(page_file.as_uri())
        page.wait_for_function("document.querySelector('#card img').naturalWidth > 0")
        page.keyboard.press("a")  # the mark is undone at once
        page.keyboard.press("u")
        for number in range(len(asked)):  # the keys lead through every decision, in order
            page.keyboard.press("d" if number % 4 == 1 else "a")
        assert page.locator("#place").inner_text() == f"picture 12 of 12 · {len(asked)} of {len(asked)} marks"
        page.reload()  # marks outlive a reload
        assert f"{len(asked)} of {len(asked)} marks" in page.locator("#place").inner_text()
        with page.expect_download() as download:
            page.click("#export")
        download.value.save_as(tmp_path / "marks.json")
        browser.close()
    assert errors == []
    marks = json.loads((tmp_path / "marks.json").read_text())["marks"]
    expected = [(item["id"], name, flag, number % 4 != 1) for number, (item, name, flag) in enumerate(asked)]
    assert [(mark["id"], mark["filter"], mark["flagged"], mark["agree"]) for mark in marks] == expected
    result = filter_agreement(tmp_path / "marks.json")
    assert sum(row["n"] for row in result.values()) == len(asked)
    assert sum(row["wrongly_rejected"] + row["missed"] for row in result.values()) == len(asked[1::4])


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


@pytest.mark.slow
def test_agreement_per_filter_with_intervals(tmp_path):
    rows = [("leak", True, True)] * 20 + [("leak", False, True)] * 20 + [("leak", True, False)] * 4
    rows += [("leak", False, False)] * 1 + [("fact", False, True)] * 5
    marks = [{"id": "a", "filter": name, "flagged": flagged, "agree": agree} for name, flagged, agree in rows]
    result = filter_agreement(write_marks(tmp_path, marks))
    leak = result["leak"]
    assert (leak["n"], leak["flagged"], leak["wrongly_rejected"], leak["missed"]) == (45, 24, 4, 1)
    assert leak["agreement"]["value"] == pytest.approx(40 / 45)
    share, z = 40 / 45, norm.ppf(0.975)  # Wilson's interval, written out
    middle, half = share + z**2 / 90, z * np.sqrt(share * (1 - share) / 45 + z**2 / (4 * 45**2))
    wilson = [(middle - half) / (1 + z**2 / 45), (middle + half) / (1 + z**2 / 45)]
    assert [leak["agreement"]["low"], leak["agreement"]["high"]] == pytest.approx(wilson)
    flagged = [row["flagged"] for row in marks[:45]]
    person = [row["flagged"] == row["agree"] for row in marks[:45]]
    assert leak["kappa"]["value"] == pytest.approx(cohen_kappa_score(flagged, person))
    drawn = bootstrap(
        (flagged, person), cohen_kappa_score, paired=True, vectorized=False, n_resamples=800, method="percentile", rng=1
    ).confidence_interval
    assert [leak["kappa"]["low"], leak["kappa"]["high"]] == pytest.approx(list(drawn), abs=0.04)
    assert result["fact"]["kappa"] is None
    assert (
        0.5 < result["fact"]["agreement"]["low"] < result["fact"]["agreement"]["high"] == 1.0
    )  # five agreements of five prove little
    assert "align" not in result


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not json", "not the JSON"),
        (f'{{"marks": [{{"filter": "leak", "flagged": true, "agree": true, "n": {"9" * 5000}}}]}}', "not the JSON"),
        ("[" * 200_000, "not the JSON"),
        ('{"marks":' * 200_000, "not the JSON"),
        ('{"a": 1}', "not the JSON"),
        ("[1]", "not the JSON"),
        ('{"marks": []}', "no marks"),
        ('{"marks": 5}', "not the JSON that audit.html exports"),
        ('{"marks": null}', "not the JSON that audit.html exports"),
        ('{"marks": {}}', "not the JSON that audit.html exports"),
        ('{"marks": "leak"}', "not the JSON that audit.html exports"),
        (
            '{"marks": [{"filter": "nope", "flagged": true, "agree": true}]}',
            "filter='nope' is none of leak, align, fact",
        ),
        ('{"marks": [{"filter": "leak"}]}', "mark 0"),
    ],
)
def test_wrong_marks_are_named(tmp_path, text, said):
    path = tmp_path / "marks.json"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        filter_agreement(path)


def test_a_byte_order_mark_before_the_marks_is_passed_over(tmp_path):
    text = '{"marks": [{"filter": "leak", "flagged": true, "agree": true}]}'
    (tmp_path / "marks.json").write_text(text, encoding="utf-8-sig")
    assert filter_agreement(tmp_path / "marks.json")["leak"]["n"] == 1
