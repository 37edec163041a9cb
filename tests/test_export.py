"""An exported folder is read by the hub's card reader and by plain transformers."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from aes_r1.data.manifest import list_hashes, write_manifest
from aes_r1.data.sample import Sample, open_picture
from aes_r1.export import compare_with_vllm, export, main
from aes_r1.inference.asking import PROFILE_FILE, find_model
from aes_r1.model import backbone as backbones
from aes_r1.prompts import parse_critique, parse_score
from aes_r1.report.model_card import TEN_LINES
from aes_r1.runs.files import write_json
from aes_r1.runs.folder import RunFolder
from aes_r1.scoring.critic import Critic
from aes_r1.settings import InputError
from tests.full_disk import files_of_at_most

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
    for expected in ("ab" * 32, "| `reward.error.sigma` | 0.1 |", "0.125 (mean)", "not measured of this model"):
        assert expected in text


def test_the_card_has_the_digest_of_every_list_of_the_run_and_what_the_cold_start_did(talking_run, tmp_path):
    shutil.copytree(talking_run, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    lists = {
        split: [Sample(f"{split}{one}", f"{one}.png", one / 9, "folder", split) for one in range(9)]
        for split in ("train", "validation", "test")
    }
    for split, samples in lists.items():
        write_manifest(samples, run.manifest(f"folder-{split}"))
    run.finish_stage("data", {f"folder/{split}": len(samples) for split, samples in lists.items()})
    done = {"model": "lost", "records": 42, "epochs": 61, "steps": 80, "min_steps": 80}
    run.finish_stage("cold_start", done)
    write_json(run.evaluation_file, {**run.evaluation, "manifests": list_hashes(lists["test"])})
    card = (export(run.path, tmp_path / "OUT") / "README.md").read_text()
    for split, samples in lists.items():
        assert f"| folder/{split} | 9 | `{list_hashes(samples)[f'folder/{split}']}` |" in card
    assert "The cold start took 80 steps: 61 passes over 42 critiques." in card
    assert "| `cold_start.min_steps` | 80 |" in card


def test_sub_scores_are_in_the_card_and_asked_for_by_the_exported_model(talking_run, tmp_path):
    shutil.copytree(talking_run, tmp_path / "run")
    settings, evaluation = (
        json.loads((talking_run / f"{name}.json").read_text()) for name in ("settings", "evaluation")
    )
    settings["model"]["sub_scores"] = ["light_and_shadow"]
    cell = evaluation["stages"]["rapo"]["folder/test"]["sample"]
    cell["sub_scores"] = {"light_and_shadow": {**cell, "n": 7, "srcc": {"value": 0.31, "low": 0.2, "high": 0.4}}}
    (tmp_path / "run" / "settings.json").write_text(json.dumps(settings))
    (tmp_path / "run" / "evaluation.json").write_text(json.dumps(evaluation))
    folder = export(tmp_path / "run", tmp_path / "OUT")
    text = (folder / "README.md").read_text()
    assert "`<think>critique</think><answer>0.63; light and shadow 0.50</answer>`" in text
    assert "| folder/test | sample | light and shadow | 7 | 0.310 [0.200, 0.400] |" in text
    assert find_model(folder)[1].sub_scores == ("light_and_shadow",)
    assert "light and shadow X" in (folder / "prompt.txt").read_text()


def test_made_pictures_and_measured_critiques_are_limits(talking_run, tmp_path):
    shutil.copytree(talking_run, tmp_path / "run")
    evaluation = json.loads((talking_run / "evaluation.json").read_text())
    follow = {"value": 0.21, "low": 0.1, "high": 0.3}
    evaluation["critiques"] = {"rapo": {"folder/test": {"interventions": {"swapped_critique": {"follow": follow}}}}}
    collapsed = {"n": 60, "distinct": {"value": 1, "low": None, "high": None}, "words_srcc": None}
    evaluation["stages"]["rapo"]["folder/test"]["sample"]["critiques"] = collapsed
    edited = {"dimension": "color", "n": 60, "higher": {"value": 0.625, "low": 0.47, "high": 0.76}}
    edited["mean_difference"] = {"value": 0.031, "low": -0.01, "high": 0.07}
    evaluation["stages"]["rapo"]["folder/test"]["sample"]["sensitivity"] = {"desaturate": edited}
    (tmp_path / "run" / "evaluation.json").write_text(json.dumps(evaluation))
    text = (export(tmp_path / "run", tmp_path / "OUT") / "README.md").read_text()
    assert "0.21 of the way" in text
    row = "| folder/test | sample | desaturate | color | 60 | 0.625 [0.470, 0.760] | 0.031 [−0.010, 0.070] |"
    assert f"\n{row}\n" in text
    assert "Sub-scores" not in text
    assert "critiques of folder/test (sample): 1 of 60; SRCC of their words with the opinions: –." in text
    assert "simulated raters" in text  # the settings of the fixture name scenes
    assert "not measured of this model" not in text


def test_a_base_model_that_the_run_read_from_a_folder_is_no_hub_name_in_the_card(talking_run, tmp_path):
    shutil.copytree(talking_run, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    write_json(run.settings_file, {**run.settings, "model": {**run.settings["model"], "path": "runs/abc"}})
    for base, told in (("5f" * 32, None), ("runs/abc@0123", "runs/abc")):
        run.finish_stage("origin", {"commits": [], "base": base})
        card = ModelCard.load(export(run.path, tmp_path / base[:4] / "OUT") / "README.md")
        assert card.data.base_model == told


def test_the_card_and_the_docs_show_the_same_lines():
    (block,) = [one for one in python_blocks(DOCS.read_text()) if "from transformers import" in one]
    assert block == TEN_LINES.format(folder="OUT")
    assert len([line for line in block.splitlines() if line and not line.startswith(("from ", "import "))]) == 10


@pytest.fixture(scope="module")
def run_of_steps(talking_run, tmp_path_factory) -> Path:
    """The talking run as RAPO leaves one: its last step is the 6th, the best the 4th, and the 2nd was saved, too.

    The models of the three differ: those before the last have bfloat16 weights, the 2nd step's somewhat larger ones.
    """
    run = tmp_path_factory.mktemp("steps") / "run"
    shutil.copytree(talking_run, run)
    trained = backbones.load(run / "model", dtype="float32", max_pixels=9216)
    trained.save_half(run / "best" / "model")
    (run / "best" / "validation.json").write_text('{"step": 4, "srcc": 0.75}')
    with torch.no_grad():
        for parameter in trained.model.get_output_embeddings().parameters():
            parameter.mul_(1.03)
    trained.save_half(run / "checkpoints" / "step_2" / "model")
    (run / "stages").mkdir()
    (run / "stages" / "rapo.json").write_text('{"steps": 6}')
    return run


@pytest.mark.slow
@pytest.mark.parametrize("step", ["last", "best", "2"])
def test_plain_transformers_gives_the_greedy_answer(run_of_steps, step, tmp_path):
    export(run_of_steps, tmp_path / "OUT", step=step)
    photo = run_of_steps / "pictures" / "10.png"
    shutil.copy(photo, tmp_path / "photo.jpg")  # a .png named .jpg is a picture too
    (block,) = [one for one in python_blocks(DOCS.read_text()) if "from transformers import" in one]
    script = f"{block}\nimport sys\nassert 'aes_r1' not in sys.modules\nprint(model.dtype, file=sys.stderr)\n"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == ("torch.float32" if step == "last" else "torch.bfloat16")
    critic = Critic.load(tmp_path / "OUT", samples=1)
    ((said,),) = critic.answers([open_picture(photo)])
    assert parse_score(said) is not None
    assert (parse_score(done.stdout), parse_critique(done.stdout)) == (parse_score(said), parse_critique(said))


def test_every_step_that_a_run_keeps_is_exported_by_its_name(run_of_steps, tmp_path):
    def weights(folder: Path) -> bytes:
        return (folder / "model.safetensors").read_bytes()

    wanted = {
        "last": run_of_steps / "model",
        "6": run_of_steps / "model",  # the last step's weights, in their full precision
        "best": run_of_steps / "best" / "model",
        "4": run_of_steps / "best" / "model",
        "2": run_of_steps / "checkpoints" / "step_2" / "model",
    }
    for step, source in wanted.items():
        out = export(run_of_steps, tmp_path / step, step=step)
        assert weights(out) == weights(source)
        facts = json.loads((out / "aes_r1.json").read_text())
        assert facts["max_new_tokens"] == 64
        card = (out / "README.md").read_text()
        assert "transformers 5" in card
        # The card reports measurements only for the model that was measured.
        measured = step in ("last", "6")
        assert (out / "evaluation.json").exists() == measured == bool(facts["half_widths"])
        assert ("not evaluated" in card or "is of the weights after its last step" in card) != measured
        assert (ModelCard.load(out / "README.md").data.eval_results is not None) == measured
    assert "after step 4 of RAPO, the best by validation (mean SRCC 0.7500" in (tmp_path / "best/README.md").read_text()
    assert "after step 2 of RAPO" in (tmp_path / "2" / "README.md").read_text()
    assert Critic.load(run_of_steps / "best").profile == Critic.load(tmp_path / "best").profile  # exported or not


def test_a_step_that_is_not_there_is_one_line_that_lists_the_others(run_of_steps, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["export", str(run_of_steps), str(tmp_path / "OUT"), "--step", "3"])
    with pytest.raises(SystemExit) as leaving:
        main()
    said = capsys.readouterr().err
    assert leaving.value.code == 2
    assert said.endswith(f"--step=3: {run_of_steps} has no such model; there are: best, last, 2, 4, 6\n")
    assert said.count("\n") == 1


def test_an_exported_folder_scores_as_the_run_does(exported, talking_run):
    path = talking_run / "pictures" / "05.png"
    assert Critic.load(exported).score(path) == Critic.load(talking_run).score(path)


def test_the_current_folder_can_be_given(run_of_steps, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    before = Path().stat().st_ino
    assert export(run_of_steps, Path()) == tmp_path / "here"
    assert (tmp_path / "here" / "README.md").exists()
    assert (tmp_path / "here").stat().st_ino == before, "the shell would stand in a deleted folder"
    assert Path("README.md").exists()


def test_where_there_is_no_room_nothing_is_left(talking_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["export", str(talking_run), str(tmp_path / "OUT")])
    with files_of_at_most(10_000), pytest.raises(SystemExit) as leaving:
        main()
    assert leaving.value.code == 2
    assert re.fullmatch(r"aes_r1: .*: File too large; give another place or make room\n", capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_wrong_folders_are_one_line(exported, talking_run, tmp_path, monkeypatch, capsys):
    with pytest.raises(InputError, match="not empty"):
        export(talking_run, exported)
    monkeypatch.setattr(sys, "argv", ["export", str(tmp_path), str(tmp_path / "OUT")])
    with pytest.raises(SystemExit) as leaving:
        main()
    assert leaving.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "OUT").exists()


@pytest.mark.parametrize("content", ['{"unknown": 1}', '{"max_pixels": "many"}', "[]"])
def test_the_comparison_with_vllm_reads_the_facts_as_every_command_does(content, tmp_path):
    (tmp_path / PROFILE_FILE).write_text(content)
    with pytest.raises(
        InputError, match=r"aes_r1\.json: .*; (export the run again|write it again, or move it elsewhere)$"
    ):
        compare_with_vllm(tmp_path)
