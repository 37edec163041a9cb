"""A real vLLM (make vllm; make test ARGS="-m vllm"): what it draws, its weights, its deaths, and a run that it serves.

Servers start in half a minute on idle cores and take 1.7 GB each, so the tests share one and start a second for two of
them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from aes_r1 import serve
from aes_r1.model import backbone as backbones
from aes_r1.model import tiny
from aes_r1.prompts import RATING_PROMPT
from aes_r1.rollout.sampler import keyed_uniform_noise, sample_completions
from aes_r1.rollout.vllm_client import is_healthy
from aes_r1.settings import InputError, LoraSettings
from tests.conftest import picture
from tests.pipeline.test_served_run import command as command_of_a_run
from tests.pipeline.test_served_run import labelled
from tests.pipeline.test_served_run import steps as rows
from tests.ports import free_port
from tests.rollout.test_served import K, gap, moved, policy_at, same

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(3600)]
ROUNDING = 5e-5  # nats, for the largest of all tokens, in float32
LONGEST = 48
START_S = 1500.0


class Served:
    """`aes_r1.serve` as a process of its own."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.port = free_port()
        self.log = folder / f"serve_{self.port}.log"
        command = [sys.executable, "-m", "aes_r1.serve", "--model", str(model), "--port", str(self.port)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--lora-rank", "8"], stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        self.readies: list[float] = []
        threading.Thread(target=self._read, daemon=True).start()
        self.wait(1)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _read(self) -> None:
        for line in self.process.stdout:
            assert line == f"ready: {self.url}\n"
            self.readies.append(time.monotonic())

    def wait(self, starts: int) -> None:
        """Until the server has been ready for the `starts`-th time."""
        until = time.monotonic() + START_S
        while len(self.readies) < starts:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < until, self.log.read_text()[-3000:]
            time.sleep(0.1)

    def pids(self) -> dict[str, int]:
        """Processes of vLLM by name: api (the one that listens), VLLM::EngineCore, VLLM::Worker."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                said = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                parents = ancestors(int(path.name))
                if self.process.pid in parents and "vllm serve" in said:
                    found["api"] = int(path.name)
                elif said.startswith("VLLM::") and self.process.pid in parents:
                    found[said.split()[0]] = int(path.name)
        return found

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=120)


def ancestors(pid: int) -> list[int]:
    found = []
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(pid)
    return found


@pytest.fixture(scope="module")
def model(talking_run) -> Path:
    try:
        serve.find_vllm(None)
    except InputError as error:
        pytest.skip(str(error))
    return talking_run / "model"


@pytest.fixture(scope="module")
def server(model, tmp_path_factory) -> Iterator[Served]:
    made = Served(model, tmp_path_factory.mktemp("served"))
    yield made
    made.close()


@pytest.fixture
def talker(model):
    backbone = backbones.load(model, dtype="float32", max_pixels=9216)
    backbone.model.eval()
    return backbone


@pytest.fixture
def asked(talker):
    sizes = ((192, 192), (224, 160), (96, 200))
    return talker.collate([talker.encode(picture(*size, seed=i), RATING_PROMPT) for i, size in enumerate(sizes)])


def drawn(policy, backbone, prompts, *, temperature=1.0, start=0):
    keys = [("test", start, image, k) for image in range(len(prompts)) for k in range(K)]
    return policy.sample_completions(
        backbone,
        prompts,
        num_samples=K,
        max_new_tokens=LONGEST,
        temperature=temperature,
        noise=keyed_uniform_noise(keys, LONGEST),
    )


def test_it_draws_what_the_trainer_would(server, talker, asked, tmp_path):
    policy = policy_at(tmp_path, server.url, patience=300.0)
    policy.push(talker)
    greedy = {"num_samples": 1, "max_new_tokens": LONGEST, "temperature": 1.0, "noise": None}
    there, here = policy.sample_completions(talker, asked, **greedy), sample_completions(talker, asked, **greedy)
    assert same(there, here)
    assert float((there.logps - here.logps).abs().max()) < ROUNDING
    for temperature in (1.0, 0.6):
        found = drawn(policy, talker, asked, temperature=temperature)
        assert gap(found, talker, asked, temperature) < ROUNDING
        assert not bool(talker.banned[found.tokens[found.mask]].any())
    alone = drawn(policy, talker, asked.select(torch.tensor([0])))
    assert torch.equal(alone.tokens, drawn(policy, talker, asked).tokens[:K, : alone.tokens.shape[1]])
    policy.close()


def test_it_takes_weights_again_and_again_and_refuses_what_does_not_fit(server, talker, asked, tmp_path, monkeypatch):
    policy = policy_at(tmp_path, server.url, patience=600.0)
    for seed in range(3):
        policy.push(moved(talker, seed))
        assert gap(drawn(policy, talker, asked), talker, asked) < ROUNDING
    whole = list(talker.core.named_parameters())
    half = [(name, weight) for name, weight in whole if "layers.1.mlp.up_proj" not in name]  # of a layer merged there
    starts = len(server.readies)
    with monkeypatch.context() as patched:
        patched.setattr(talker.core, "named_parameters", lambda: iter(half))
        with pytest.raises(InputError, match=r"does not take the run's weights .* lacks 1 of .*gate_up_proj"):
            policy.push(talker)
    server.wait(starts + 1)  # with whole weights
    policy.push(moved(talker, 3))
    assert gap(drawn(policy, talker, asked), talker, asked) < ROUNDING
    policy.close()


def test_it_draws_with_one_adapter_after_another(server, talker, asked, tmp_path):
    policy = policy_at(tmp_path, server.url, patience=300.0)
    adapted = backbones.add_adapter(talker, LoraSettings(rank=8), seed=1)
    adapted.model.eval()
    before = None
    for seed in range(2):
        policy.push(moved(adapted, seed))
        found = drawn(policy, adapted, asked)
        assert gap(found, adapted, asked) < ROUNDING
        assert before is None or not same(found, before)
        before = found
    policy.close()


def test_one_of_two_servers_dies_and_returns(server, model, talker, asked, tmp_path):
    second = Served(model, tmp_path)
    policy = policy_at(tmp_path, server.url, second.url, patience=600.0)
    policy.push(moved(talker))
    expected = drawn(policy, talker, asked)
    old = second.pids()
    assert len(old) == 3
    os.kill(old["api"], signal.SIGKILL)
    assert same(drawn(policy, talker, asked), expected)
    second.wait(2)
    assert not any(Path(f"/proc/{pid}").exists() for pid in old.values()), "processes of the dead server live on"
    time.sleep(6)  # longer than a server that failed is left alone
    assert same(drawn(policy, talker, asked), expected)
    assert gap(expected, talker, asked) < ROUNDING
    now = second.pids()
    os.kill(second.process.pid, signal.SIGKILL)
    until = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in now.values()) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in now.values()), "processes outlive the command"
    policy.close()


def test_scores_and_an_exported_folder_agree_with_it(model, talking_run, tmp_path):
    def said(*arguments):
        command = [sys.executable, "-m", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    exported = said("aes_r1.export", talking_run, tmp_path / "OUT", "--check-vllm").splitlines()
    assert exported[0] == str(tmp_path / "OUT")
    assert float(exported[1].split(" by ")[1].split(" nats")[0]) < ROUNDING
    other = Served(tmp_path / "OUT", tmp_path)
    asked = ("aes_r1.score", talking_run / "pictures", "--model", tmp_path / "OUT", "--format", "jsonl")
    assert said(*asked, "--samples", 1, "--url", other.url) == said(*asked, "--samples", 1)
    other.close()


STEPS = 24


def test_a_run_loses_nothing_to_three_deaths_of_its_server(server, model, tmp_path):
    """24 steps; the processes of the server are killed in three of them, each time another one."""
    out = tmp_path / "run"
    data = labelled(tmp_path / "data")
    command = command_of_a_run(
        model, data, out, server.url, f"trainer.max_steps={STEPS}", "rollout.patience=1500", "trainer.save_every=1"
    )
    with (tmp_path / "log").open("w") as log:
        run = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
    starts = len(server.readies)
    for deaths, victim in enumerate(("api", "VLLM::Worker", "VLLM::EngineCore"), 1):
        while len(rows(out)) < 6 * deaths:
            assert run.poll() is None, (tmp_path / "log").read_text()[-3000:]
            time.sleep(0.1)
        os.kill(server.pids()[victim], signal.SIGKILL)
        server.wait(starts + deaths)
    assert run.wait(timeout=START_S) == 0, (tmp_path / "log").read_text()[-3000:]
    found = rows(out)
    assert [row["step"] for row in found] == list(range(1, STEPS + 1))
    assert max(row["rollout/mismatch_mean"] for row in found) < 5e-6
    assert max(row["rollout/mismatch_max"] for row in found) < 1e-4  # thousands of tokens, the least likely ones too
    assert is_healthy(server.url)


SEEDS = (0, 1, 2)


def test_a_policy_learns_from_it_as_from_the_local_sampler(model, tmp_path):
    """The main job's recipe, 60 steps, sampled SRCC on its test pictures; about 15 minutes on two idle cores."""
    found: dict[str, list[float]] = {"local": [], "vllm": []}
    server = Served(tiny.shipped(), tmp_path)
    for seed in SEEDS:
        found["local"].append(learned(tmp_path, f"local_{seed}", seed))
        how = ("rollout=vllm", f"rollout.url=[{server.url}]", "rollout.patience=1500")
        found["vllm"].append(learned(tmp_path, f"vllm_{seed}", seed, *how))
    server.close()
    local, served = (torch.tensor(values, dtype=torch.float64) for values in found.values())
    gap = abs(float(served.mean() - local.mean()))
    error = float((served.var() / len(SEEDS) + local.var() / len(SEEDS)).sqrt())
    print(found)
    assert min(local.min(), served.min()) > 0.5
    assert gap < max(0.03, 4.6 * error)  # Student's t of 4 degrees of freedom at 99%


def learned(folder: Path, name: str, seed: int, *how: str) -> float:
    command = [
        *(sys.executable, "-m", "aes_r1.train", "+experiment=rapo", f"seed={seed}", "trainer.max_steps=60", *how),
        *("trainer.eval_every=60", "evaluation.stages=[rapo]", "evaluation.protocols=[sample]", "tracker=none"),
        *("evaluation.interventions=0", "data.unseen=[]", f"store={folder / 'store'}", f"out={folder / name}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    stages = json.loads((folder / name / "evaluation.json").read_text())["stages"]
    return stages["rapo"]["scenes/test"]["sample"]["srcc"]["value"]
