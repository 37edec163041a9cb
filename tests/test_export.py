"""An exported folder, used as its readers will: by the hub's card reader and by transformers alone."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from aes_r1.evaluation.critic import Critic
from aes_r1.evaluation.model_card import TEN_LINES
from aes_r1.export import export, main
from aes_r1.prompts import parse_critique, parse_score
from aes_r1.settings import InputError

DOCS = Path(__file__).parents[1] / "docs" / "scoring.md"


def python_blocks(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def exported(talking_run, tmp_path_factory):
    return export(talking_run, tmp_path_factory.mktemp("exported") / "OUT")


def test_the_card_says_what_was_measured(exported, talking_run):
    card = ModelCard.load(exported / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "image-text-to-text")
    cell = json.loads((talking_run / "evaluation.json").read_text())["stages"]["rapo"]["folder/test"]["sample"]
    measured = {(one.metric_type, one.metric_name.split(" (")[1][:6]): one for one in card.data.eval_results}
    srcc = measured["srcc", "sample"]
    assert srcc.metric_value == round(cell["srcc"]["value"], 4)
    assert srcc.dataset_name == "folder/test"
    text = card.text
    for title in ("Use", "Data", "Recipe", "Measured", "Limits"):
        assert f"\n## {title}\n" in text
    assert f"{cell['srcc']['value']:.3f} [{cell['srcc']['low']:.3f}, {cell['srcc']['high']:.3f}]" in text
    for expected in ("ab" * 32, "| `reward.error.sigma` | 0.1 |", "0.125 (mean)", "not measured in this run"):
        assert expected in text


def test_made_pictures_and_measured_critiques_are_limits(talking_run, tmp_path):
    shutil.copytree(talking_run, tmp_path / "run")
    evaluation = json.loads((talking_run / "evaluation.json").read_text())
    follow = {"value": 0.21, "low": 0.1, "high": 0.3}
    evaluation["critiques"] = {"rapo": {"folder/test": {"interventions": {"swapped_critique": {"follow": follow}}}}}
    (tmp_path / "run" / "evaluation.json").write_text(json.dumps(evaluation))
    text = (export(tmp_path / "run", tmp_path / "OUT") / "README.md").read_text()
    assert "0.21 of the way" in text
    assert "simulated raters" in text  # the settings of the fixture name scenes
    assert "not measured in this run" not in text


def test_the_card_and_the_docs_show_the_same_lines():
    (block,) = python_blocks(DOCS.read_text())
    assert block == TEN_LINES.format(folder="OUT")
    assert len([line for line in block.splitlines() if line and not line.startswith(("from ", "import "))]) == 10


@pytest.mark.slow
def test_plain_transformers_gives_the_greedy_answer(exported, talking_run, tmp_path):
    shutil.copytree(exported, tmp_path / "OUT")
    shutil.copy(talking_run / "pictures" / "10.png", tmp_path / "photo.jpg")  # a .png named .jpg is a picture too
    (block,) = python_blocks(DOCS.read_text())
    script = f"{block}\nimport sys\nassert 'aes_r1' not in sys.modules\n"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    ours = Critic.load(exported, samples=1).score(talking_run / "pictures" / "10.png")
    assert ours.score is not None
    assert (parse_score(done.stdout), parse_critique(done.stdout)) == (ours.score, ours.critique)


def test_an_exported_folder_scores_as_the_run_does(exported, talking_run):
    path = talking_run / "pictures" / "05.png"
    assert Critic.load(exported).score(path) == Critic.load(talking_run).score(path)


def test_wrong_folders_are_one_line(exported, talking_run, tmp_path, monkeypatch, capsys):
    with pytest.raises(InputError, match="not empty"):
        export(talking_run, exported)
    monkeypatch.setattr(sys, "argv", ["export", str(tmp_path), str(tmp_path / "OUT")])
    with pytest.raises(SystemExit) as leaving:
        main()
    assert leaving.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "OUT").exists()
