"""Commands that cannot finish are refused in one line with exit code 2, before they do any work."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from aes_r1 import train
from aes_r1.data.loader import load_samples
from aes_r1.data.manifest import write_manifest
from aes_r1.pipeline import preflight
from aes_r1.pipeline.run import run
from aes_r1.runs.claim import run_lock
from aes_r1.runs.folder import RunFolder
from aes_r1.settings import InputError
from tests.model.folders import BROKEN
from tests.ports import free_port
from tests.recipes import composed
from tests.test_command import train as started

LAUNCH = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("SLURM_NTASKS", "SLURM_STEP_NUM_TASKS", "SLURM_JOB_ID", "SLURM_STEP_ID"),
)
TOGETHER = {"WORLD_SIZE": "3", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29999"}


@pytest.fixture
def refusal(tmp_path, monkeypatch, capsys):
    """Return the one line with which `python -m aes_r1.train ARGUMENTS` is refused; check that it did no work.

    Whatever is wrong, it is said within ten seconds; the imports before them belong to the test of a real process.
    """

    def refused(*arguments: str, **environment: str) -> str:
        for name in LAUNCH:
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        out, store = tmp_path / "run", tmp_path / "store"
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["aes_r1.train", f"out={out}", f"store={store}", *arguments])
        began = time.process_time()  # processor time, which other work on the machine does not affect
        with pytest.raises(SystemExit) as left:
            train.main()
        assert time.process_time() - began < 10
        assert left.value.code == 2
        assert not store.exists()
        [line] = capsys.readouterr().err.splitlines()
        assert not out.exists()
        return line

    return refused


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["trainer.init_from=/nonexistent"], "trainer.init_from=/nonexistent: no such folder"),
        (["model.path=/nonexistent"], "model.path=/nonexistent: no such folder"),
        (["cold_start.data=/nonexistent.jsonl"], "cold_start.data=/nonexistent.jsonl: no such file"),
        (["data=folder", "data.root=/nonexistent"], "data.root=/nonexistent: no such file or folder"),
        (["data=ava"], "data=ava needs data.root=DIR"),
        (["data=aes_15k", "data.root=/nonexistent"], "data.root=/nonexistent/"),
        (["evaluation.also=[para]"], "data=para needs data.root=DIR"),
        (["reward.custom=/nonexistent.py:mine"], "reward.custom=/nonexistent.py:mine: no file /nonexistent.py"),
        (["data=manifest", "data.root=/nonexistent.jsonl"], "data.root=/nonexistent.jsonl: no such file"),
        (["expert=openai", "expert.model=m", "expert.api_key_env=NOT_SET", "judge=none"], "NOT_SET: this environment"),
    ],
)
@pytest.mark.slow
def test_what_is_not_there(arguments, says, refusal):
    assert says in refusal(*arguments)


@pytest.mark.slow
def test_a_reward_of_one_s_own_that_was_changed_after_the_run_began(tmp_path, refusal):
    (tmp_path / "mine.py").write_text("def high(scores, texts, samples): return scores.nan_to_num()")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "custom_reward.py").write_text("def high(scores, texts, samples): return 1 - scores")
    mine = f"reward.custom={tmp_path}/mine.py:high"
    with pytest.raises(InputError, match=r"mine\.py was changed after this run began"):
        preflight.check_run(composed(mine, f"out={tmp_path}/begun"))
    preflight.check_run(composed(mine, f"out={tmp_path}/begun", "trainer.resume=never"))
    preflight.check_run(composed(mine, f"out={tmp_path}/anew"))
    for stage in ("data", "cold_start", "rapo", "evaluation", "report"):
        RunFolder(tmp_path / "begun").finish_stage(stage, {})
    with pytest.raises(InputError, match=r"mine\.py was changed after this run began"):
        preflight.check_run(composed(mine, f"out={tmp_path}/begun"))


@pytest.mark.slow
def test_more_minibatches_than_completions(tmp_path):
    sizes = ("trainer.images_per_step=4", "trainer.num_samples=2")
    with pytest.raises(InputError, match=r"trainer\.minibatches=9: a process has 8 completions in a step"):
        preflight.check_run(composed(*sizes, "trainer.minibatches=9", f"out={tmp_path}/run"))


@pytest.mark.slow
def test_an_expert_of_ratings_without_ratings(root, refusal):
    said = refusal("data=folder", f"data.root={root}", "expert=attributes", "judge=none")
    assert "expert=attributes: data=folder has no ratings of single dimensions; give data.attributes=" in said


PARTS = ("trainer.credit=parts",)


@pytest.mark.parametrize(
    ("rewards", "says"),
    [
        (
            ["reward.faithfulness.weight=1"],
            "reward.faithfulness.weight=1: data=folder has no ratings of single dimensions",
        ),
        (
            ["reward.faithfulness.weight=0", "trainer.credit=all", "model.answer_from=words"],
            "model.answer_from=words: the",
        ),
        (
            ["trainer.curriculum=true", "reward.faithfulness.weight=0", "trainer.credit=all"],
            "trainer.curriculum=true: data=folder has no standard deviations of opinions; give mos_std",
        ),
        (
            ["reward=distribution", "reward.faithfulness.weight=1", "trainer.num_samples=3"],
            "reward.distribution.weight=1: data=folder knows only the means of its raters; give mos_std or count_1",
        ),
        (
            ["reward.read_back.weight=1"],
            "the start has never scored words without a picture; give cold_start.blank",
        ),
    ],
)
@pytest.mark.slow
def test_rewards_of_critiques_that_lack_what_they_need(rewards, says, root, refusal):
    chosen = dict(one.split("=", 1) for one in [*PARTS, *rewards])  # a key given twice would be a second line
    given = ["data=folder", f"data.root={root}", "expert=pixels", "judge=none", *map("=".join, chosen.items())]
    assert says in refusal(*given)


@pytest.mark.slow
def test_sub_scores_that_nobody_rated(root, refusal):
    lines = (root / "labels.csv").read_text().splitlines()
    (root / "labels.csv").write_text("\n".join([f"{lines[0]},hue", *(f"{line},7" for line in lines[1:])]))
    given = ["data=folder", f"data.root={root}", "expert=pixels", "judge=none"]
    assert "model.sub_scores=color: data=folder has no ratings of it; give data.attributes={composition: COLUMN" in (
        refusal(*given, "model.sub_scores=[color]")
    )
    given += ["data.attributes={color: [hue, 1, 10]}"]
    assert "model.sub_scores=exposure: data=folder has no ratings of it" in (
        refusal(*given, "model.sub_scores=[color,exposure]")
    )
    preflight.check_run(composed(*given, "model.sub_scores=[color]", "out=none"))
    preflight.check_run(composed("model.sub_scores=[color,exposure]", "out=none"))  # scenes know their factors


@pytest.mark.slow
def test_rewards_of_critiques_that_have_what_they_need(root):
    preflight.check_run(composed(*PARTS, "reward.faithfulness.weight=1", "out=none"))  # scenes know their factors
    preflight.check_run(composed(*PARTS, "reward.read_back.weight=1", "cold_start.blank_pictures=0.25", "out=none"))
    lines = (root / "labels.csv").read_text().splitlines()
    (root / "labels.csv").write_text("\n".join([f"{lines[0]},hue", *(f"{line},7" for line in lines[1:])]))
    given = ["data=folder", f"data.root={root}", "expert=pixels", "judge=none", "data.attributes={color: [hue, 1, 10]}"]
    preflight.check_run(composed(*PARTS, *given, "reward.faithfulness.weight=1", "out=none"))


@pytest.mark.parametrize(
    ("environment", "arguments", "says"),
    [
        ({"SLURM_NTASKS": "4"}, [], "SLURM_NTASKS=4: srun starts 4 processes that do not know of each other"),
        ({"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}, [], "srun starts 4 processes"),
        ({"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "2"}, [], "give srun --ntasks-per-node=1 torchrun"),
        ({"WORLD_SIZE": "4", "RANK": "1"}, [], "WORLD_SIZE=4: LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set"),
        ({"RANK": "1"}, [], "RANK=1, WORLD_SIZE=1: no such process; unset both, or launch by torchrun"),
        ({**TOGETHER, "RANK": "3"}, ["engine=zero2"], "RANK=3, WORLD_SIZE=3: no such process"),
        ({"WORLD_SIZE": "0"}, [], "WORLD_SIZE=0: no such process"),
        ({"WORLD_SIZE": "four"}, [], "WORLD_SIZE=four: a launcher sets a number there"),
        ({"WORLD_SIZE": "1" * 5000}, [], f"WORLD_SIZE={'1' * 40}: a launcher sets a number there"),
        ({"WORLD_SIZE": "-2"}, [], "WORLD_SIZE=-2: a launcher sets a number there"),
        ({"RANK": "0.5"}, [], "RANK=0.5: a launcher sets a number there"),
        ({**TOGETHER, "MASTER_PORT": "http"}, ["engine=zero2"], "MASTER_PORT=http: a launcher sets a number there"),
        ({"LOCAL_RANK": "all"}, [], "LOCAL_RANK=all: a launcher sets a number there"),
        ({"SLURM_NTASKS": "2(x4)"}, [], "SLURM_NTASKS=2(x4): a launcher sets a number there"),
        (TOGETHER, [], "engine=single: 3 processes were launched; give engine=zero2"),
        (TOGETHER, ["engine=zero2"], "cold_start.batch_size=32: must be divisible by the 3 processes"),
        (
            TOGETHER,
            ["engine=zero2", "cold_start.batch_size=33", "trainer.images_per_step=32"],
            "trainer.images_per_step=32: must be divisible by the 3 processes",
        ),
        (
            TOGETHER,
            ["engine=zero2", "cold_start.batch_size=33", "trainer.images_per_step=33", "trainer.edited_pairs=4"],
            "trainer.edited_pairs=4: must be divisible by the 3 processes",
        ),
    ],
)
@pytest.mark.slow
def test_launches_that_the_engine_cannot_serve(environment, arguments, says, refusal):
    assert says in refusal(*arguments, **environment)


@pytest.mark.slow
def test_an_engine_without_deepspeed(monkeypatch, refusal):
    monkeypatch.setitem(sys.modules, "deepspeed", None)  # as if it were not installed
    assert "engine=zero3: DeepSpeed cannot be loaded" in refusal("engine=zero3")


@pytest.mark.parametrize("key", ["model.path", "trainer.init_from"])
@pytest.mark.parametrize("fault", ["weights cut", "template for text", "another shape", "no tokenizer", "awq"])
@pytest.mark.slow
def test_models_that_are_not_whole(key, fault, base, tmp_path, refusal):
    folder = tmp_path / "broken"
    shutil.copytree(base, folder)
    spoil, _ = BROKEN[fault]
    spoil(folder)
    line = refusal(f"{key}={folder}")
    assert line.startswith(f"aes_r1: {key}={folder}: ")


@pytest.mark.slow
def test_an_adapter_that_finds_no_place(base, refusal):
    line = refusal(f"model.path={base}", "model.lora.rank=2", "+model.lora.target_modules=[query]")
    assert "model.lora.target_modules=['query']: the language model has none of them" in line


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("no json", "not a JSON object"),
        (json.dumps({"id": "a", "image": "a.png", "mos": 7, "critique": "x"}), "mos=7 is not a number in"),
        (json.dumps({"id": "a", "image": "gone.png", "mos": 0.5, "critique": "x"}), "none of its pictures is there"),
        (
            json.dumps({"id": "a", "image": __file__, "mos": 0.5, "critique": " "}),
            "jsonl:1: the critique ' ' has no words",
        ),
    ],
)
@pytest.mark.slow
def test_critiques_that_cannot_be_learned(row, says, tmp_path, refusal):
    path = tmp_path / "aescot.jsonl"
    path.write_text(row + "\n")
    assert says in refusal(f"cold_start.data={path}")
    preflight.check_run(composed(f"cold_start.data={path}", "trainer.init_from=base"))  # which needs no cold start


@pytest.mark.slow
def test_labels_that_cannot_be_read(root, refusal):
    (root / "labels.csv").write_text("picture,opinion\n01.png,0.5\n")
    assert "labels.csv" in refusal("data=folder", f"data.root={root}")


@pytest.mark.slow
def test_a_stage_that_is_done_is_not_asked_about(tmp_path, monkeypatch):
    """A run whose cold start was made by two processes goes on by three, and by a list of pictures that it has."""
    for name, value in TOGETHER.items():
        monkeypatch.setenv(name, value)
    wanted = ("engine=zero2", f"out={tmp_path}", "trainer.images_per_step=33", "data=folder", "data.root=/nonexistent")
    with pytest.raises(InputError, match="batch_size"):
        preflight.check_run(composed(*wanted))
    (tmp_path / "stages").mkdir()
    for stage in ("cold_start", "data"):
        (tmp_path / "stages" / f"{stage}.json").write_text("{}")
    preflight.check_run(composed(*wanted))
    with pytest.raises(InputError, match="batch_size"):
        preflight.check_run(composed(*wanted, "trainer.resume=never"))


OPENAI = ("expert=openai", "expert.model=m", "expert.api_key_env=NOT_SET", "judge=none")
JUDGED = ("reward.judge.weight=1", "reward.judge.model=m", "reward.judge.api_key_env=NOT_SET", "trainer.credit=all")


@pytest.mark.parametrize(
    ("needs", "stages"),
    [
        (OPENAI, ("cold_start",)),
        (("judge=openai", "judge.model=m", "judge.api_key_env=NOT_SET"), ("cold_start",)),
        (("cold_start.data=/nonexistent.jsonl",), ("cold_start",)),
        (("data=folder", "expert=attributes", "judge=none"), ("cold_start",)),
        (JUDGED, ("rapo",)),
        (("reward.custom=/nonexistent.py:mine",), ("rapo",)),
        (("trainer.init_from=/nonexistent",), ("rapo",)),
        (("data=folder", "trainer.curriculum=true"), ("rapo",)),
        (("data=folder", "reward.faithfulness.weight=1", *PARTS), ("rapo",)),
        (("data=folder", "reward=distribution", "trainer.num_samples=3"), ("rapo",)),
        (("reward.read_back.weight=1", *PARTS), ("rapo",)),
        (("model.answer_from=words",), ("rapo", "cold_start")),
        (("data=folder", "model.sub_scores=[color]", "cold_start.epochs=0"), ("rapo",)),
        (("data=folder", "model.sub_scores=[color]"), ("rapo", "cold_start")),
        (("model.path=/nonexistent",), ("rapo", "cold_start", "predictions_base")),
        (("model.path=/nonexistent",), ("rapo", "cold_start", "evaluation")),
    ],
)
@pytest.mark.slow
def test_what_only_finished_stages_needed_is_not_asked_for(needs, stages, base, root, tmp_path, monkeypatch):
    """Keys, labels, models and files of a run that goes on; one that begins anew needs all of them again."""
    for name in LAUNCH:
        monkeypatch.delenv(name, raising=False)
    out = tmp_path / "run"
    of_set = [f"data.root={root}", "expert=pixels", "judge=none"] if "data=folder" in needs else []
    asked = composed(*of_set, *needs, f"out={out}", f"store={tmp_path / 'store'}")
    (out / "stages").mkdir(parents=True)
    (out / "stages" / "data.json").write_text("{}")
    for stage in stages:
        with pytest.raises(InputError):
            preflight.check_run(asked)
        (out / "stages" / f"{stage}.json").write_text(json.dumps({"model": str(base)}))
    preflight.check_run(asked)
    with pytest.raises(InputError):
        preflight.check_run(composed(*of_set, *needs, f"out={out}", f"store={tmp_path}/store", "trainer.resume=never"))


@pytest.mark.slow
def test_a_cold_start_that_the_store_no_longer_holds_is_to_come(tmp_path):
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "cold_start.json").write_text(json.dumps({"model": str(tmp_path / "gone")}))
    with pytest.raises(InputError, match="NOT_SET"):
        preflight.check_run(composed(*OPENAI, f"out={tmp_path}"))


@pytest.mark.slow
def test_the_training_pictures_are_listed_once(root, tmp_path, monkeypatch):
    """However many checks ask for them; a run that goes on reads its own list, though its labels are gone."""
    lines = (root / "labels.csv").read_text().splitlines()
    (root / "labels.csv").write_text("\n".join([f"{lines[0]},hue,mos_std", *(f"{line},7,0.1" for line in lines[1:])]))
    out = tmp_path / "run"
    asked = composed(
        *("data=folder", f"data.root={root}", "data.attributes={color: [hue, 1, 10]}", "model.sub_scores=[color]"),
        *("expert=attributes", "judge=none", "reward=distribution", "reward.faithfulness.weight=1", *PARTS),
        *("trainer.curriculum=true", "trainer.num_samples=3", f"out={out}", f"store={tmp_path / 'store'}"),
    )
    listed = []

    def load(data, split, **how):
        listed.append(split)
        return load_samples(data, split, **how)

    monkeypatch.setattr(preflight, "load_samples", load)
    preflight.check_run(asked)
    assert sorted(listed) == ["test", "train", "validation"]
    write_manifest(load_samples(asked.data, "train", seed=0, store=tmp_path), RunFolder(out).manifest("folder-train"))
    (out / "stages").mkdir()
    (out / "stages" / "data.json").write_text("{}")
    (root / "labels.csv").unlink()
    preflight.check_run(asked)
    assert len(listed) == 3


@pytest.mark.slow
def test_a_run_without_rapo_is_not_asked_about_its_completions():
    """The completions of a step are fewer than the processes of a large cold start."""
    preflight._divisible(composed("trainer.name=sft", "cold_start.batch_size=256"), 256)
    with pytest.raises(InputError, match=r"trainer\.images_per_step=\d+: must be divisible by the 256 processes"):
        preflight._divisible(composed("cold_start.batch_size=256"), 256)


@pytest.mark.slow
def test_a_run_waits_for_a_server_before_its_cold_start_and_no_longer_than_its_patience(tmp_path, monkeypatch, caplog):
    for name in LAUNCH:
        monkeypatch.delenv(name, raising=False)
    url = f"http://127.0.0.1:{free_port()}"
    wanted = (f"out={tmp_path}", "data=folder", "data.root=/nonexistent", "rollout=vllm", f"rollout.url=[{url}/]")
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "data.json").write_text("{}")
    with pytest.raises(InputError, match=rf"rollout\.url={url}/: no server answers .*patience=0\.5 .*: aes-r1 serve"):
        preflight.check_run(composed(*wanted, "rollout.patience=0.5"))
    preflight.check_run(composed(*wanted, "trainer.name=sft"))  # no RAPO is to come
    caplog.clear()

    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    def start():
        while said not in caplog.text:
            time.sleep(0.01)
        servers.append(HTTPServer(("127.0.0.1", int(url.rpartition(":")[2])), Healthy))
        servers[0].serve_forever(poll_interval=0.01)

    servers: list[HTTPServer] = []
    said = "no server answers yet; the run waits for one up to rollout.patience=60 seconds"
    threading.Thread(target=start, daemon=True).start()
    preflight.check_run(composed(*wanted, "rollout.patience=60"))
    assert said in caplog.text
    servers[0].shutdown()
    servers[0].server_close()
    (tmp_path / "stages" / "rapo.json").write_text("{}")
    preflight.check_run(composed(*wanted, "rollout.patience=0.5"))


@pytest.mark.slow
def test_a_real_process_says_so_within_twenty_seconds(tmp_path):
    before, began = os.times(), time.monotonic()
    done = started("trainer.init_from=/nonexistent", f"out={tmp_path / 'run'}", f"store={tmp_path / 'store'}")
    after = os.times()  # processor time, which other work on the machine does not affect
    assert after.children_user + after.children_system - before.children_user - before.children_system < 20
    assert time.monotonic() - began < 120  # it waits for nothing, and a busy machine is at most a few times slower
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "aes_r1: trainer.init_from=/nonexistent: no such folder; give a model folder or hub name (OWNER/NAME)"
    ]
    assert not (tmp_path / "store").exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_second_start_that_is_refused_leaves_a_run_that_is_worked_on_alone(tmp_path):
    out = tmp_path / "run"
    with run_lock(out, 0):
        with pytest.raises(InputError, match="another process works on this run"):
            run(composed("trainer.init_from=/nonexistent", f"out={out}"))
        assert [path.name for path in out.iterdir()] == [".lock"]
    with pytest.raises(InputError, match="no such folder"):
        run(composed("trainer.init_from=/nonexistent", f"out={out}"))
    assert (out / "failure.txt").read_text().startswith("rank 0: InputError: trainer.init_from=/nonexistent")
