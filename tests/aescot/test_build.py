import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from aes_r1.aescot.build import build_aescot
from aes_r1.aescot.failures import NoAnswer
from aes_r1.aescot.judge import JudgeVerdict, ScenesJudge
from aes_r1.aescot.scenes_expert import expert_corpus
from aes_r1.data.records import read_records
from aes_r1.data.sample import PictureError, Sample
from aes_r1.prompts import DIMENSIONS, level_of
from aes_r1.runs.files import read_rows
from aes_r1.settings import ExpertSettings, InputError, JudgeSettings

FIELDS = {"id", "image", "dataset", "mos", "level", "critique", "dimensions", "judgement", "expert", "prompt_sha256"}


def scenes(count, seed=0):
    rng = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        factors = {name: float(rng.random()) for name in DIMENSIONS}
        place, side = (str(rng.choice(["left", "right"])) for _ in range(2))
        facts = {"light": side, "place": place, "hues": "blue", "subject": "tree", "cues": ["moon"]}
        mos = float(np.clip(np.mean(list(factors.values())) * 2 - 0.5, 0, 1))
        attributes = {"factors": factors, "facts": facts}
        samples.append(Sample(f"s{number}", f"/p/{number}.png", mos, "scenes", "train", attributes=attributes))
    return samples


def build(samples, out, *, judge="scenes", seed=0, quotas=None, **expert):
    return build_aescot(
        samples,
        expert=ExpertSettings(**expert),
        judge=JudgeSettings(name=judge),
        seed=seed,
        out=out,
        quotas=quotas,
    )


@pytest.mark.slow
def test_every_picture_stands_in_exactly_one_file_with_the_records_fields(tmp_path):
    samples = scenes(400)
    path = build(samples, tmp_path)
    kept, rejected = read_rows(path), read_rows(tmp_path / "rejected.jsonl")
    assert path == tmp_path / "aescot.jsonl"
    assert sorted(row["id"] for row in [*kept, *rejected]) == sorted(sample.id for sample in samples)
    assert all(set(row) == FIELDS for row in kept)
    assert all(set(row) >= FIELDS | {"reasons"} and row["reasons"] for row in rejected)
    assert all(row["level"] == level_of(row["mos"]) for row in kept)
    assert all(row["critique"].endswith(row["judgement"]) for row in kept)
    assert len(read_records(path)) == len(kept)


@pytest.mark.slow
def test_the_filters_catch_what_was_planted(tmp_path):
    build(scenes(1200), tmp_path, leak_rate=0.25, align_rate=0.25, fact_rate=0.25)
    plants = json.loads((tmp_path / "distill_report.json").read_text())["plants"]
    assert min(plants[name]["planted"] for name in plants) > 200
    assert plants["leak"]["precision"] >= 0.98
    assert plants["leak"]["recall"] >= 0.95
    for name in ("align", "fact"):
        assert plants[name]["precision"] >= 0.95
        assert plants[name]["recall"] >= 0.90


@pytest.mark.slow
def test_without_a_judge_only_leaks_are_caught(tmp_path):
    build(scenes(400), tmp_path, judge="none", leak_rate=0.1, align_rate=0.1, fact_rate=0.1)
    assert {reason for row in read_rows(tmp_path / "rejected.jsonl") for reason in row["reasons"]} == {"leak"}


@pytest.mark.slow
def test_the_same_seed_writes_the_same_bytes_in_any_order_of_pictures(tmp_path):
    samples = scenes(100)
    first = build(samples, tmp_path / "a").read_bytes()
    assert build(samples, tmp_path / "b").read_bytes() == first
    assert build(samples, tmp_path / "c", seed=1).read_bytes() != first
    shuffled = build(samples[::-1], tmp_path / "d").read_text().splitlines()
    assert sorted(shuffled) == sorted(first.decode().splitlines())


def test_the_same_folder_may_be_written_again_and_another_distillation_is_refused(tmp_path):
    samples = scenes(30)
    first = build(samples, tmp_path).read_bytes()
    assert build(samples, tmp_path, min_words=21).read_bytes() == first
    with pytest.raises(InputError, match="other seed"):
        build(samples, tmp_path, seed=5)
    with pytest.raises(InputError, match="other pictures"):
        build(scenes(31), tmp_path)


@pytest.mark.slow
def test_quotas_are_met_exactly_or_the_shortfall_is_said(tmp_path):
    path = build(scenes(900), tmp_path, quotas={"bad": 40, "fair": 30, "good": 5000}, leak_rate=0.2)
    kept = [row["level"] for row in read_rows(path)]
    assert (kept.count("bad"), kept.count("fair")) == (40, 30)
    report = json.loads((tmp_path / "distill_report.json").read_text())
    assert report["shortfalls"] == {"good": {"wanted": 5000, "kept": kept.count("good")}}


@pytest.mark.slow
def test_near_copies_are_rejected_with_what_they_copy(tmp_path):
    attributes = {"factors": dict.fromkeys(DIMENSIONS, 0.5), "facts": {}}
    alike = [Sample(f"s{i}", "/p.png", 0.5, "scenes", "train", attributes=attributes) for i in range(80)]
    kept = read_rows(build(alike, tmp_path, leak_rate=0, align_rate=0, fact_rate=0, near_copy=1.0))
    assert 1 < len(kept) == len({row["critique"] for row in kept}) < 80
    for row in read_rows(tmp_path / "rejected.jsonl"):
        assert row["reasons"] == ["near_copy"]
        original = row["details"]["near_copy"].split()[-1]
        assert row["critique"] == next(one["critique"] for one in kept if one["id"] == original)


def test_pixels_speaks_of_pictures_and_names_those_it_cannot_open(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 60, 3)).astype(np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    samples = [Sample(name, str(tmp_path / f"{name}.png"), 0.8, "folder", "train") for name in ("a", "b")]
    build(samples, tmp_path / "out", judge="none", name="pixels")
    assert [row["id"] for row in read_rows(tmp_path / "out" / "aescot.jsonl")] == ["a"]
    (rejected,) = read_rows(tmp_path / "out" / "rejected.jsonl")
    assert (rejected["id"], rejected["reasons"], rejected["critique"]) == ("b", ["picture"], None)


def test_an_expert_that_lacks_what_it_speaks_of_says_so(tmp_path):
    photograph = Sample("a", "a.png", 0.5, "ava", "train")
    with pytest.raises(InputError, match="expert=pixels"):
        build([photograph], tmp_path / "a")
    with pytest.raises(InputError, match="no score"):
        build([Sample("a", "a.png", None, "ava", "train", attributes={"factors": {}})], tmp_path / "b")


def test_an_unwritable_folder_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="out="):
        build(scenes(2), tmp_path / "file" / "out")


@pytest.mark.slow
def test_the_corpus_covers_every_word_of_the_offline_experts(tmp_path):
    corpus = {word for text in expert_corpus() for word in text.split()}
    spoken = {word for row in read_rows(build(scenes(200), tmp_path)) for word in row["critique"].split()}
    assert spoken <= corpus


FORM = ["leak", "length", "language", "missing_dimension", "refusal"]
FINE = JudgeVerdict("fair", None, ())


def failing(error):
    def say(sample):
        raise error(sample.image, "gone") if error is PictureError else error("time-out")

    return say


@pytest.mark.parametrize(
    ("align", "fact", "reasons", "passed"),
    [
        (lambda _: None, None, ["no_verdict"], FORM),
        (failing(NoAnswer), None, ["no_answer"], FORM),
        (failing(PictureError), None, ["picture"], FORM),
        (lambda _: JudgeVerdict("bad", None, ()), None, ["align"], FORM),
        (lambda _: FINE, lambda _: None, ["no_verdict"], [*FORM, "align"]),
        (lambda _: FINE, failing(NoAnswer), ["no_answer"], [*FORM, "align"]),
        (lambda _: FINE, failing(PictureError), ["picture"], [*FORM, "align"]),
        (lambda _: FINE, lambda _: JudgeVerdict("fair", None, ("a dog",)), ["fact"], [*FORM, "align"]),
        (lambda _: FINE, lambda _: FINE, [], [*FORM, "align", "fact"]),
    ],
)
@pytest.mark.parametrize("near_copy", [None, 1.0])
def test_a_filter_that_did_not_run_examined_nothing(align, fact, reasons, passed, near_copy, tmp_path, monkeypatch):
    class Saying:
        async def align(self, sample, reply):
            return align(sample)

        async def fact(self, sample, reply):
            return fact(sample)

    monkeypatch.setattr("aes_r1.aescot.build.ScenesJudge", Saying)
    sample = scenes(1)[0]
    build([replace(sample, mos=0.5)], tmp_path, leak_rate=0, align_rate=0, fact_rate=0, near_copy=near_copy)
    for row in read_rows(tmp_path / "rejected.jsonl"):
        assert (row["reasons"], row["passed"]) == (reasons, passed)
    filters = json.loads((tmp_path / "distill_report.json").read_text())["filters"]
    passed = [*passed, *(["near_copy"] if near_copy and not reasons else [])]
    assert {name for name, row in filters.items() if row["examined"]} == {*passed, *(set(reasons) & set(filters))}
    assert {name for name, row in filters.items() if row["rejected"]} == set(reasons) & set(filters)


@pytest.mark.parametrize("judge", ["scenes", "none"])
def test_without_a_judge_its_checks_examined_nothing(judge, tmp_path):
    build(scenes(40), tmp_path, judge=judge)
    filters = json.loads((tmp_path / "distill_report.json").read_text())["filters"]
    assert (filters["align"]["examined"] > 0) == (filters["fact"]["examined"] > 0) == (judge == "scenes")


def test_a_picture_that_the_judge_cannot_be_shown_is_rejected_as_one_that_the_expert_cannot(tmp_path, monkeypatch):
    """It may vanish after its list was made; the critiques of the others are kept."""

    class Looking(ScenesJudge):
        async def fact(self, sample, reply):
            if sample.id == "s1":
                raise PictureError(sample.image, "No such file or directory")
            return await super().fact(sample, reply)

    monkeypatch.setattr("aes_r1.aescot.build.ScenesJudge", Looking)
    path = build(scenes(4), tmp_path, leak_rate=0, align_rate=0, fact_rate=0)
    (rejected,) = read_rows(tmp_path / "rejected.jsonl")
    assert (rejected["id"], rejected["reasons"]) == ("s1", ["picture"])
    assert [row["id"] for row in read_rows(path)] == ["s0", "s2", "s3"]
