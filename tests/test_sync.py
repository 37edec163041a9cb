"""`make sync`: what a W&B server receives from an offline run, and the message where nothing can be sent."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from aes_r1.settings import Settings, TrackerSettings
from tests.experiments.runs import write_run

ROOT = Path(__file__).parents[1]


class Server(BaseHTTPRequestHandler):
    """As much of W&B as receiving a run takes: the run, its stream of rows, its files; keeps what it was sent."""

    runs: list[dict]
    streamed: list[dict]

    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            content = gzip.decompress(content)
        if self.path == "/graphql":
            asked = json.loads(content)
            self.answer({"data": self.data(asked["query"], asked.get("variables") or {})})
        else:
            if self.path.endswith("/file_stream"):
                self.streamed.append(json.loads(content))
            self.answer({})

    def do_PUT(self):
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.answer({})

    def data(self, query: str, variables: dict) -> dict:
        if "upsertBucket" in query:
            self.runs.append(variables)
            project = {"id": "p", "name": "aes-r1", "entity": {"id": "e", "name": "team"}}
            run = {"id": "r", "name": variables["name"], "displayName": "run", "description": "", "config": "{}",
                   "sweepName": None, "historyLineCount": 0, "project": project}  # fmt: skip
            return {"upsertBucket": {"bucket": run, "inserted": True}}
        if "createRunFiles" in query:
            here = f"http://127.0.0.1:{self.server.server_address[1]}/upload"
            files = [{"name": name, "uploadUrl": f"{here}/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
        return {"serverInfo": {"features": []}, "viewer": {"id": "u", "entity": "team", "username": "me"}}

    def answer(self, data: dict):
        said = json.dumps(data).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_):
        pass


@pytest.fixture
def runs(tmp_path) -> Path:
    tracker = TrackerSettings(name="offline", group="reward_ablation")
    write_run(tmp_path / "runs" / "reward_ablation" / "one", replace(Settings(), tracker=tracker), noise={"rapo": 0.1})
    return tmp_path / "runs"


def sync(runs: Path, home: Path, **environment: str) -> subprocess.CompletedProcess:
    known = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return subprocess.run(
        ["make", "sync", f"RUNS={runs}", f"VENV={sys.prefix}"],
        cwd=ROOT,
        env={**known, "HOME": str(home), "NETRC": str(home / "netrc"), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_without_an_account_it_ends_and_says_how_to_log_in(runs, tmp_path):
    done = sync(runs, tmp_path)
    assert done.returncode != 0
    assert "wandb login" in done.stderr


def test_without_an_offline_run_it_says_so(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        done = sync(folder, tmp_path)
        assert done.returncode != 0
        assert f"no offline W&B run below {folder}" in done.stdout


@pytest.mark.slow
def test_a_server_receives_the_run_with_its_group_config_and_every_step(runs, tmp_path):
    Server.runs, Server.streamed = [], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    done = sync(runs, tmp_path, WANDB_BASE_URL=address, WANDB_API_KEY="0" * 40)
    server.shutdown()
    assert done.returncode == 0, done.stderr
    sent = Server.runs[0]
    assert (sent["project"], sent["groupName"]) == ("aes-r1", "reward_ablation")
    assert sent["name"] == (runs / "reward_ablation" / "one" / "wandb" / "run_id").read_text().strip()
    config = json.loads(Server.runs[-1]["config"])
    assert config["reward"]["value"]["error"]["sigma"] == 0.1
    lines = [
        json.loads(line)
        for one in Server.streamed
        for line in one.get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
    ]
    curve = [(line["rapo/step"], line["reward/total"]) for line in lines if "reward/total" in line]
    assert curve == [(1, 1.1), (2, 1.2), (3, 1.3)]
