"""What the cold start teaches inside <think>, on the shipped model's own tokenizer."""

from __future__ import annotations

import copy
import json

import pytest
import torch

from aes_r1.aescot.scenes_expert import expert_corpus
from aes_r1.data.records import read_records
from aes_r1.model import backbone as backbones
from aes_r1.model import tiny
from aes_r1.prompts import FILLER, FILLER_PROMPT, SCORE_FIRST_PROMPT, answer, parse_score, untaught
from aes_r1.settings import InputError
from aes_r1.trainer.sft import encode_example
from aes_r1.trainer.taught import filler_writer, require_teachable, require_words, taught_records


@pytest.fixture(scope="module")
def shipped():
    return backbones.load(tiny.shipped(), dtype="float32", max_pixels=9216)


@pytest.mark.slow
def test_filler_is_as_long_as_every_critique_and_says_nothing(shipped):
    for critique in [*expert_corpus()[:50], "A", "Light.", "schön · grün, 日の光"]:
        filler = filler_writer(shipped)(critique)
        assert filler == FILLER * filler.count(FILLER)
        lengths = {len(shipped.encode_answer(answer(words, 0.63))) for words in (critique, filler)}
        shortest = len(shipped.encode_answer(answer(FILLER, 0.63)))
        assert len(lengths) == 1 or max(lengths) == shortest, critique


def test_records_as_each_prompt_asks_for_them(shipped):
    records = [{"id": "a", "mos": 0.5, "critique": "Light and shadow: dull light."}]
    for prompt in ("critique", "score_first"):
        assert taught_records(records, prompt, shipped) == records
    assert taught_records(records, "score_only", shipped) == [{**records[0], "critique": ""}]
    (filled,) = taught_records(records, "filler", shipped)
    assert filled == {**records[0], "critique": filler_writer(shipped)(records[0]["critique"])}
    assert records[0]["critique"] == "Light and shadow: dull light.", "the given records stay as they are"


def test_a_special_token_of_the_models_own_is_refused_by_its_line(shipped, tmp_path):
    """No list of known tokens can hold those of the next model."""
    token = "⟦picture⟧"
    path = tmp_path / "aescot.jsonl"
    critiques = ["Soft light.", "Soft light.", f"Dull {token} light.", "Dull light."]
    rows = [{"id": f"{index}", "image": "/p.png", "mos": 0.5, "critique": one} for index, one in enumerate(critiques)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    records = read_records(path)
    require_teachable(records, shipped, path)
    own = copy.copy(shipped)
    own.tokenizer = copy.deepcopy(shipped.tokenizer)
    own.tokenizer.add_special_tokens({"additional_special_tokens": [token]})
    with pytest.raises(InputError) as caught:
        require_teachable(records[1:], own, path)
    assert f"{path}:3: the critique holds {token}, a special token of the model's tokenizer" in str(caught.value)
    assert set(shipped.tokenizer.all_special_tokens) <= set(shipped.special_tokens())
    assert all(untaught(f"Soft {known} light") for known in shipped.special_tokens())


@pytest.mark.parametrize("critique", ["", " \n", "...", "0.63", "N/A", "nan", "None.", "<null>", "[unknown]", "TODO"])
def test_a_critique_without_words_is_refused_where_words_are_taught(critique, tmp_path):
    path = tmp_path / "aescot.jsonl"
    rows = [
        {"id": f"{place}", "image": "/p.png", "mos": 0.5, "critique": one}
        for place, one in enumerate(("schön", "光", critique))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for prompt in ("critique", "score_first"):
        with pytest.raises(
            InputError, match=r"aescot\.jsonl:3: the critique .* has no words; write them, take the row"
        ):
            require_words(read_records(path), prompt, path)
        require_words(read_records(path)[:2], prompt, path)
    for prompt in ("score_only", "filler"):
        require_words(read_records(path), prompt, path)


@pytest.mark.parametrize(
    ("question", "text"),
    [
        (SCORE_FIRST_PROMPT, "<answer>0.37</answer><think>dull light.</think>"),
        (FILLER_PROMPT, "<think>dull light.</think><answer>0.37</answer>"),
    ],
)
def test_what_is_learned_has_the_order_of_the_question(shipped, picture_folder, question, text):
    record = {"image": str(picture_folder / "00.png"), "critique": "dull light.", "mos": 0.37}
    prompt, target = encode_example((record, False), backbone=shipped, question=question)
    assert shipped.decode(torch.tensor(target[:-1])) == text
    assert target[-1] == shipped.end_token
    assert shipped.tokenizer.decode(prompt.input_ids).count(question) == 1
    assert parse_score(text, "score_first" if question == SCORE_FIRST_PROMPT else "critique_first") == 0.37
