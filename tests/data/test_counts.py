from __future__ import annotations

import json

import pytest
from hydra import compose, initialize_config_dir

from aes_r1 import plan, recipe
from aes_r1.data.counts import counted
from aes_r1.settings import CONF, InputError, PlanSettings, build_settings
from tests.data.test_mix import RATIO, sets


def planned(data, **changes):
    values = {"data": data, "plan": {"pictures": 7, "critiques": 8, "test_pictures": 9}, **changes}
    result = counted(build_settings(PlanSettings, values)).plan
    return result.pictures, result.critiques, result.test_pictures


def mixed(root, **changes):
    return {"name": "aes_15k", "root": str(root), "mix": RATIO, "size": 75, **changes}


def test_without_a_root_the_plan_s_own_numbers_stand():
    assert planned({"name": "aes_15k", "mix": RATIO}) == (7, 8, 9)
    assert planned({"name": "scenes"}) == (7, 8, 9)


@pytest.mark.slow
def test_counts_come_from_the_data(tmp_path):
    """Of 560 training rows the mix takes 75; the expert is asked about at most 3,000; 70 test pictures."""
    assert planned(mixed(sets(tmp_path))) == (75, 75, 70)
    cut = {"cold_start": {"pictures": 40}, "evaluation": {"limit": 30}}
    assert planned(mixed(tmp_path), **cut) == (75, 40, 30)
    roots = {name: str(tmp_path / name) for name in RATIO}
    assert planned({**mixed(tmp_path), "root": None, "roots": roots}) == (75, 75, 70)


@pytest.mark.slow
def test_further_sets_and_given_critiques(tmp_path):
    rows = [{"id": str(n), "image": f"{n}.jpg", "mos": 0.5, "critique": "Plain."} for n in range(11)]
    (tmp_path / "aescot.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"cold_start": {"data": str(tmp_path / "aescot.jsonl")}}
    also = [{"name": "scenes_shifted"}, {"name": "tad66k", "root": str(sets(tmp_path) / "tad66k")}]
    assert planned(mixed(tmp_path), evaluation={"also": also}, **given) == (75, 11, 70 + 300 + 30)
    nowhere = {"also": [{"name": "para"}]}
    assert planned(mixed(tmp_path), evaluation=nowhere, **given) == (75, 11, 9)
    for without in ({"cold_start": {"epochs": 0}}, *({"trainer": {"init_from": start}} for start in ("base", "/tmp"))):
        assert planned(mixed(tmp_path), **without) == (75, 8, 70)
    assert planned(mixed(tmp_path), trainer={"init_from": "base", "name": "sft"}) == (75, 75, 70)


def test_data_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cold_start\.data|aescot\.jsonl: cannot be read"):
        planned(mixed(sets(tmp_path)), cold_start={"data": str(tmp_path / "aescot.jsonl")})
    with pytest.raises(InputError, match="no such file or folder"):
        planned(mixed("/nowhere"))


@pytest.mark.slow
def test_the_plan_counts_the_paper_s_run_from_its_data(tmp_path, capsys, monkeypatch):
    """Ten epochs over 75 of the 560 training pictures, 64 a step: 12 steps, not the 2,344 of an assumed 15,000."""
    monkeypatch.setenv("COLUMNS", "200")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        given = ["+experiment=paper", f"data.root={sets(tmp_path)}", "data.size=75", "trainer.images_per_step=64"]
        plan.run(recipe.to_settings(compose("plan", overrides=given), PlanSettings))
    output = " ".join(capsys.readouterr().out.split())
    assert "12 steps of RAPO" in output
    assert "75 pictures, 75 critiques, 70 test pictures" in output
