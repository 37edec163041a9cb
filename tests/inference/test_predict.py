"""Protocols on real models: what a score depends on, and what is recorded."""

from __future__ import annotations

import random

import pytest
import torch
from PIL import Image

from aes_r1.data.sample import Sample
from aes_r1.inference import predict as predict_module
from aes_r1.inference.asking import AskingConfig
from aes_r1.inference.baselines import LEVEL_OPENING, LEVEL_PROMPT, LEVEL_VALUES, LEVEL_WORDS, level_expectation
from aes_r1.inference.predict import NO_CRITIQUE, origin_of, predict
from aes_r1.model import tiny
from aes_r1.prompts import out_of_range, parse_score
from aes_r1.rollout.forced_prefix import with_prefix
from aes_r1.settings import InputError
from tests.conftest import picture
from tests.planted import QUESTION


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> list[Sample]:
    """Pictures of ten sizes, so that a batch is padded and grids differ."""
    folder = tmp_path_factory.mktemp("mixed")
    samples = []
    for place in range(20):
        width, height = 60 + 17 * (place % 10), 150 - 9 * (place % 7)
        picture(width, height, seed=place).save(folder / f"{place}.png")
        samples.append(Sample(str(place), str(folder / f"{place}.png"), place / 20, "made", "test"))
    return samples


def asked(backbone, samples, protocols=("sample", "greedy", "mean"), **changes) -> dict:
    asking = AskingConfig(QUESTION, n_samples=3, max_new_tokens=24)
    how = {"protocols": list(protocols), "batch_size": 8, "seed": 0, **changes}
    return {(row["id"], row["protocol"]): row for row in predict(backbone, samples, asking, **how)}


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 3, 20])
def test_a_text_depends_on_neither_batch_nor_order(planted, mixed, batch_size):
    shuffled = random.Random(batch_size).sample(mixed, len(mixed))
    for backbone in (planted.hollow,):
        alone = asked(backbone, mixed, batch_size=1, batch_invariant=True)
        together = asked(backbone, shuffled, batch_size=batch_size)
        assert {key: (row["text"], row["scores"]) for key, row in together.items()} == {
            key: (row["text"], row["scores"]) for key, row in alone.items()
        }
        assert len({row["text"] for row in alone.values()}) > 5  # the texts differ, so confusing them would show


@pytest.mark.slow
def test_one_at_a_time_gives_the_same_bits_in_any_company(planted, mixed):
    """Level expectations are floats, so a difference in the last bit would show."""
    whole = asked(planted.used, mixed, ["label_tokens"], batch_size=20, batch_invariant=True)
    part = asked(planted.used, mixed[::-3], ["label_tokens"], batch_size=4, batch_invariant=True)
    assert all(part[key]["score"] == whole[key]["score"] for key in part)
    batched = asked(planted.used, mixed, ["label_tokens"], batch_size=20)
    for key, row in batched.items():
        assert row["score"] == pytest.approx(whole[key]["score"], abs=1e-5)


@pytest.mark.slow
def test_mean_starts_with_sample_and_rows_hold_what_is_known(backbone, mixed):
    known = [Sample(**{**vars(one), "mos_std": 0.1, "attributes": {"origin": "ai"}}) for one in mixed[:3]]
    found = asked(backbone, known)
    for one in known:
        mean, sample = found[one.id, "mean"], found[one.id, "sample"]
        assert len(mean["scores"]) == 3
        assert mean["text"] == sample["text"]
        assert (mean["mos_std"], mean["origin"], mean["split"]) == (0.1, "ai", "test")


@pytest.mark.slow
def test_direct_has_no_critique(planted):
    found = asked(planted.hollow, planted.samples, ["direct"])
    assert all(row["text"].startswith(NO_CRITIQUE) and not row["critique"] for row in found.values())
    answered = [row for row in found.values() if row["score"] is not None]
    assert all(row["score"] == parse_score(row["text"]) for row in answered)


@pytest.mark.slow
def test_a_score_read_back_is_that_of_the_words(planted):
    """A policy that reads its words gives the number that it gave; one that looks at the picture sees a gray square."""
    agreeing = {}
    for name in ("used", "hollow"):
        found = asked(getattr(planted, name), planted.samples, ["greedy", "read_back"])
        pairs = [(found[one.id, "greedy"], found[one.id, "read_back"]) for one in planted.samples]
        assert all(first["critique"] == second["critique"] for first, second in pairs)
        assert all(second["score"] == parse_score(second["text"]) for _, second in pairs)
        agreeing[name] = sum(abs((first["score"] or 0) - (second["score"] or 0)) < 0.05 for first, second in pairs)
    assert agreeing["used"] > agreeing["hollow"] + 3


def test_without_a_critique_no_score_is_read_back(backbone, mixed, monkeypatch):
    """The number that was given beside the picture is not one of the words, whatever the text without words is."""
    texts = [
        "<think></think><answer>0.40</answer>",
        "<think> \n</think><answer>0.40</answer>",
        "<answer>0.40</answer>",
        "0.40",
        "",
        "<think>dull light</think><answer>0.40</answer>",
    ]
    monkeypatch.setattr(predict_module, "_texts", lambda *_: [[text] for text in texts])
    found = asked(backbone, mixed[: len(texts)], ["greedy", "read_back"])
    read = [found[one.id, "read_back"] for one in mixed[: len(texts)]]
    assert [(row["score"], row["scores"], row["critique"], row["out_of_range"]) for row in read[:-1]] == [
        (None, [None], None, 0)
    ] * 5
    assert read[-1]["text"].startswith("<think>dull light</think><answer>")
    assert found["0", "greedy"]["score"] == 0.4


@pytest.mark.slow
def test_level_expectation_equals_softmax_of_logits():
    """Where every level word is one token: against a plain forward pass of transformers."""
    words = " ".join(LEVEL_WORDS)
    tokenizer = tiny.build_tokenizer([f"{LEVEL_PROMPT} {LEVEL_OPENING} {words}"] * 60)
    ids = [tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in LEVEL_WORDS]
    assert all(len(one) == 1 for one in ids)
    backbone = tiny.build_tiny_model(tokenizer, max_pixels=9216, seed=1)
    prompts = [backbone.encode(picture(*size), LEVEL_PROMPT) for size in ((192, 192), (96, 200))]
    for prompt, expected in zip(prompts, level_expectation(backbone, prompts), strict=True):
        batch = backbone.collate([with_prefix(backbone, prompt, LEVEL_OPENING)])
        with torch.no_grad():
            logits = backbone.model(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask.long(),
                pixel_values=batch.pixel_values,
                image_grid_thw=batch.image_grid_thw,
                mm_token_type_ids=(batch.input_ids == backbone.image_token).int(),
            ).logits[0, -1, [one[0] for one in ids]]
        assert expected == pytest.approx(float(logits.softmax(0) @ torch.tensor(LEVEL_VALUES)), abs=1e-5)


def test_level_words_of_several_tokens_still_give_a_share(backbone):
    prompt = backbone.encode(picture(192, 192), LEVEL_PROMPT)
    alone, *_ = level_expectation(backbone, [prompt])
    assert 0 < alone < 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("1.2", True), ("-0.1", True), ("85", True), ("+7.5", True), ("0.5", False), ("85/100", False), ("nan", False)],
)
def test_out_of_range_is_a_number_outside_the_scale(answer, expected):
    text = f"<think>a picture</think><answer>{answer}</answer>"
    assert out_of_range(text) is expected
    assert not out_of_range(answer)  # without tags it is no answer of any kind


@pytest.mark.parametrize(
    ("dataset", "attributes", "expected"),
    [
        ("avt_ai", {"source": "own"}, "photograph"),
        ("avt_ai", {"source": "dall-e"}, "ai"),
        ("folder", {"origin": "ai"}, "ai"),
        ("folder", {"source": "own"}, None),
        ("agiqa3k", {}, "ai"),
    ],
)
def test_who_made_a_picture(dataset, attributes, expected):
    assert origin_of(Sample("1", "1.jpg", 0.5, dataset, "test", attributes=attributes)) == expected


def test_a_picture_that_vanished_is_named(backbone, tmp_path):
    Image.new("RGB", (60, 60)).save(tmp_path / "there.png")
    samples = [Sample(name, str(tmp_path / f"{name}.png"), 0.5, "made", "test") for name in ("there", "gone")]
    with pytest.raises(InputError, match=r"gone\.png"):
        asked(backbone, samples)


def test_pictures_are_read_as_they_are_needed(backbone, mixed):
    taken = []

    def endless():
        for place in range(10_000_000):
            taken.append(place)
            yield mixed[place % 3]

    rows = predict(
        backbone, endless(), AskingConfig(max_new_tokens=4), protocols=["label_tokens"], batch_size=2, seed=0,
    )  # fmt: skip
    assert [next(rows)["id"] for _ in range(4)] == ["0", "1", "2", "0"]
    assert len(taken) < 20


def test_it_ends_after_a_whole_batch_when_told_to_stop(backbone, mixed):
    """The running batch is finished and no further one starts; a stop before the first batch reads nothing."""
    asking, told = AskingConfig(max_new_tokens=4), []
    rows = predict(
        backbone, mixed, asking, protocols=["label_tokens"], batch_size=3, seed=0, should_stop=lambda: bool(told)
    )
    found = [next(rows)["id"]]
    told.append(True)
    found += [row["id"] for row in rows]
    assert found == ["0", "1", "2"]
    never = (pytest.fail("a picture was read") for _ in range(1))
    assert (
        list(predict(backbone, never, asking, protocols=["greedy"], batch_size=3, seed=0, should_stop=lambda: True))
        == []
    )
