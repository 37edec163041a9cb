"""The card of an exported model says what its run did and what was measured of this model, and nothing else."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import torch

from aes_r1.data.sample import Sample
from aes_r1.evaluation.summary import summarise
from aes_r1.export import export
from aes_r1.inference.asking import ModelProfile, asking_of, conformal_half_widths, find_model, saw_scenes_alone
from aes_r1.inference.predict import predict
from aes_r1.model import backbone as backbones
from aes_r1.model.families import FAMILIES
from aes_r1.report.model_card import Made, model_card
from aes_r1.settings import Settings, as_dict, build_settings
from tests.conftest import picture
from tests.model.siblings import save_sibling


def settings_of(**values: Any) -> dict[str, Any]:
    return as_dict(build_settings(Settings, {"run_name": "made", **values}))


def profile_of(settings: dict[str, Any]) -> ModelProfile:
    return ModelProfile(**vars(asking_of(settings)), scenes_alone=saw_scenes_alone(settings))


def card_of(settings: dict[str, Any], evaluation: Any = None, **changes: Any) -> str:
    given = {"made": Made({"train": 12}), "family": "qwen2_5_vl", **changes}
    return model_card(settings, evaluation or {}, profile=profile_of(settings), folder="OUT", **given)


def evaluated(*stages: str) -> Any:
    """An evaluation of `stages`, each of which is more often wrong than the next."""
    rows = [
        {
            **{"stage": stage, "protocol": "mean", "id": str(place), "dataset": "folder", "split": "test"},
            **{"image": f"{place}.png", "mos": place / 12, "score": (place * (7 - 2 * number) % 12) / 12},
            **{"scores": [0.5], "critique": "dull light", "out_of_range": 0, "origin": None, "mos_std": None},
        }
        for number, stage in enumerate(stages)
        for place in range(12)
    ]
    evaluation = summarise(rows, n_bootstrap=20)
    for number, stage in enumerate(stages):
        evaluation["stages"][stage]["folder/test"]["mean"]["conformal"] = {"level": 0.9, "half_width": 0.1 + number}
    follow = {"swapped_critique": {"follow": {"value": 0.21, "low": 0.1, "high": 0.3}}}
    evaluation["critiques"] = {stage: {"folder/test": {"interventions": follow}} for stage in stages}
    return evaluation


TRAINED = {
    "rapo": {"trainer": {"name": "rapo"}},
    "cold_start": {"trainer": {"name": "sft"}},
}


@pytest.mark.parametrize("stage", TRAINED)
def test_what_was_measured_of_other_models_is_not_told_of_this_one(stage):
    settings = settings_of(**TRAINED[stage])
    earlier = ("base", "cold_start")[: 1 + (stage == "rapo")]
    others, own = evaluated(*earlier), evaluated(*earlier, stage)
    assert conformal_half_widths(others, stage) == ({}, None)
    assert conformal_half_widths(own, stage) == ({"mean": 0.1 + len(earlier)}, "folder/test")
    card = card_of(settings, others)
    assert "model-index" not in card
    assert "This model was not evaluated; the run evaluated earlier models alone." in card
    for told in ("bootstrap", "off by", "of the way", "half-width", "Different critiques"):
        assert told not in card
    card = card_of(settings, own)
    srcc = own["stages"][stage]["folder/test"]["mean"]["srcc"]["value"]
    assert f"value: {round(srcc, 4)}\n" in card
    assert "bootstrap" in card
    assert "0.21 of the way" in card
    assert "This model was not evaluated.\n" in card_of(settings)


@pytest.mark.parametrize(
    ("given", "done", "row", "said"),
    [
        (None, (42, 61, 80, 80), "80", "80 steps: 61 passes over 42 critiques"),
        (20, (42, 15, 20, 20), "20", "20 steps: 15 passes over 42 critiques"),
        (None, (3000, 1, 94, 0), None, "94 steps: 1 pass over 3000 critiques"),
    ],
)
def test_the_card_says_what_the_cold_start_did(given, done, row, said):
    """Its settings alone (one epoch, 3000 pictures) do not: few critiques are passed over until min_steps are taken."""
    stage = dict(zip(("records", "epochs", "steps", "min_steps"), done, strict=True))
    settings = settings_of(cold_start={"min_steps": given})
    card = card_of(settings, made=Made({"train": 60}, {}, stage))
    assert f"| `cold_start.epochs` | {settings['cold_start']['epochs']} |" in card
    assert re.findall(r"\| `cold_start.min_steps` \| (.*) \|", card) == ([] if row is None else [row])
    assert f"The cold start took {said}.\n" in card
    assert "The cold start took" not in card_of(settings)


def test_every_list_has_its_digest_or_none_has_a_column():
    names = ("folder/train", "folder/validation", "folder/test")
    counts, digests = dict.fromkeys(names, 4), {name: f"{place}" * 64 for place, name in enumerate(names)}
    card = card_of(settings_of(), made=Made(counts, digests))
    for name in names:
        assert f"| {name} | 4 | `{digests[name]}` |\n" in card
    assert "SHA-256" not in card_of(settings_of(), made=Made(counts))
    drawn = {"manifests": {"folder/test": "ab" * 32}}  # of a part of the list, as evaluation.limit draws one
    assert card_of(settings_of(), drawn, made=Made(counts, digests)) == card
    some = card_of(settings_of(), drawn, made=Made(counts))
    assert "| folder/train | 4 | not known |\n" in some
    for one in (card, some, card_of(settings_of(), made=Made(counts))):
        assert not re.search(r"\| *\|", one), "a cell is empty"


FOLDER = {"data": {"name": "folder", "root": "photos"}}


@pytest.mark.parametrize(
    ("values", "made", "critiques"),
    [
        ({}, "(cold start on critiques, then relative-absolute policy optimisation,", "written by expert=scenes"),
        ({"trainer": {"name": "sft"}}, "(cold start on critiques, [arXiv", "written by expert=scenes"),
        ({"trainer": {"init_from": "base"}}, "(relative-absolute policy optimisation, no cold start", None),
        ({"cold_start": {"epochs": 0}}, "(relative-absolute policy optimisation, no cold start", None),
        ({"trainer": {"name": "sft"}, "cold_start": {"epochs": 0}}, "the base model of a run of Aes-R1", None),
        ({"cold_start": {"data": "x/said.jsonl"}}, "(cold start on critiques, then", "the file said.jsonl"),
        ({"data": {"name": "aescot", "root": "x/aescot.jsonl"}}, "(cold start", "the file aescot.jsonl"),
    ],
)
def test_the_card_names_the_stages_that_the_run_had(values, made, critiques):
    card = card_of(settings_of(**values))
    assert made in card
    models = build_settings(Settings, values).models
    assert ("policy optimisation" in card) == ("rapo" in models)
    assert ("cold start on critiques" in card) == ("cold_start" in models)
    assert ("Critiques of the cold start" in card) == (critiques is not None)
    assert critiques is None or f"Critiques of the cold start: {critiques}.\n" in card


@pytest.mark.parametrize(
    ("values", "scenes", "raters", "small", "license"),
    [
        ({}, True, None, True, "apache-2.0"),
        (FOLDER, False, "`folder`", True, "apache-2.0"),
        ({**FOLDER, "trainer": {"init_from": "base"}, "cold_start": {"epochs": 0}}, False, "`folder`", True,
         "apache-2.0"),
        ({"model": {"path": "org/real"}}, False, None, False, "other"),
        ({**FOLDER, "model": {"path": "org/real"}}, False, "`folder`", False, "other"),
        ({"data": {"name": "aes_15k", "root": "x", "mix": {"ava": 0.5, "para": 0.5}}}, False, "`ava`, `para`", True,
         "apache-2.0"),
        ({**FOLDER, "trainer": {"name": "sft"}, "cold_start": {"epochs": 0}}, False, None, True, "apache-2.0"),
    ],
)  # fmt: skip
def test_the_card_says_what_the_model_saw(values, scenes, raters, small, license):
    settings = settings_of(**values)
    card = card_of(settings)
    assert ("It has seen no photograph." in card) == saw_scenes_alone(settings) == scenes
    assert ("simulated raters" in card) == (settings["data"]["name"] == "scenes")
    assert ("Scores follow the raters of" in card) == (raters is not None)
    assert raters is None or f"Scores follow the raters of {raters}, their" in card
    assert ("about a million parameters" in card) == small
    assert f"\nlicense: {license}\n" in card


@pytest.mark.parametrize(
    ("path", "base", "shown"),
    [
        ("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct"),
        ("/data/alice/private/qwen-tuned", None, "qwen-tuned"),
        ("~/private/qwen-tuned", None, "qwen-tuned"),
        ("../private/qwen-tuned", None, "qwen-tuned"),
        ("./private/", None, "private"),
        ("qwen-tuned", None, "qwen-tuned"),
        ("/home/u/private/runs/abc/model", None, "abc"),
        ("runs/abc/best/model", None, "abc"),
        ("../private/abc/checkpoints/step_40/model/", None, "abc"),
        ("model", None, "model"),
        ("best/model/", None, "model"),
    ],
)
def test_only_a_hub_name_is_named_as_base_model_and_no_folder_is_told(path, base, shown):
    """Whether the folder is still there or not."""
    card = card_of(settings_of(model={"path": path}, trainer={"init_from": path}))
    header = card.split("---")[1]
    assert f"base_model: {base}" in header if base else "base_model" not in header
    assert f"| `model.path` | {shown} |" in card
    assert f"| `trainer.init_from` | {shown} |" in card
    assert "private/" not in card


def test_a_folder_that_is_there_is_no_hub_name(tmp_path, monkeypatch):
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert "base_model" not in card_of(settings_of(model={"path": "org/name"}))


@pytest.mark.parametrize(
    ("path", "recorded", "base", "shown"),
    [
        ("runs/abc", "5f" * 32, None, "abc"),
        ("private/model", "5f" * 32, None, "private"),
        ("org/name", "org/name@0123abcd", "org/name", "org/name"),
    ],
)
def test_what_the_run_recorded_tells_a_folder_from_a_hub_name(path, recorded, base, shown, tmp_path, monkeypatch):
    """Wherever the card is written: the folder may lie elsewhere by then, and one of a hub name's may lie here."""
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    card = card_of(settings_of(model={"path": path}, trainer={"init_from": path}), base=recorded)
    header = card.split("---")[1]
    assert f"base_model: {base}" in header if base else "base_model" not in header
    assert f"| `model.path` | {shown} |" in card
    assert f"| `trainer.init_from` | {shown} |" in card


@pytest.mark.parametrize("weights", [None, "These are the weights after step 400 of RAPO."])
def test_what_was_not_measured_is_said_of_these_weights_and_not_of_the_run(weights):
    card = card_of(settings_of(), weights=weights)
    assert "bears on the score was not measured of this model." in card
    assert "in this run" not in card.split("## Limits")[1]


def test_a_relation_to_opinions_that_was_measured_is_not_called_unknown():
    assert "has no known relation" in card_of(settings_of())
    assert "has no known relation" not in card_of(settings_of(), evaluated("rapo"))


@pytest.mark.parametrize(
    ("model", "example", "says"),
    [
        ({}, "<think>critique</think><answer>0.63</answer>", "was not measured of this model"),
        ({"prompt": "score_first"}, "<answer>0.63</answer><think>critique</think>", "written after the score"),
        ({"prompt": "score_only"}, "<think></think><answer>0.63</answer>", None),
        ({"prompt": "filler"}, "<think> and and and</think><answer>0.63</answer>", None),
        ({"answer_from": "words"}, "<think>critique</think><answer>0.63</answer>", "drawn from the critique alone"),
    ],
)
def test_the_card_describes_the_answers_that_the_run_taught(model, example, says):
    card = card_of(settings_of(model=model))
    assert f"`{example}`" in card
    assert ("critiques" in card.split("`<")[0]) == ("critique" in example)
    told = [
        line for line in ("was not measured of this model", "written after", "drawn from the critique") if line in card
    ]
    assert len(told) == (says is not None)
    assert says is None or says in card


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.slow
def test_the_code_of_every_familys_card_runs_and_answers_as_the_package_does(family, tmp_path, monkeypatch, capsys):
    """A family whose inputs the ten lines do not know is asked through the package alone."""
    settings = settings_of(model={"max_pixels": 9216}, trainer={"max_new_tokens": 6})
    run = tmp_path / "run"
    trained = backbones.load(save_sibling(family, tmp_path / "base"), dtype="float32", max_pixels=9216)
    with torch.no_grad():  # random weights would write special tokens, which the package never draws
        trained.model.get_output_embeddings().weight[trained.banned] = 0
    trained.save(run / "model")
    (run / "settings.json").write_text(json.dumps(settings))
    folder = export(run, tmp_path / "OUT")
    card = (folder / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert "python -m aes_r1.score photo.jpg --model OUT" in card
    assert bool(blocks) == family.startswith("qwen")
    assert "```python" not in card_of(settings_of(model={"answer_from": "words"}), family=family)
    picture(120, 90).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        backbone = backbones.load(folder, dtype="float32", max_pixels=9216)
        photo = Sample("photo", "photo.jpg", None, "made", "test")
        greedy = {"protocols": ["greedy"], "batch_size": 1, "seed": 0}
        (answered,) = predict(backbone, [photo], find_model(folder)[1], **greedy)
        capsys.readouterr()
        exec(block, {})
        assert capsys.readouterr().out.strip() == answered["text"].strip()
