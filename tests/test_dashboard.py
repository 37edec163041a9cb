"""The dashboard: the static page, and the workspace as a W&B server receives it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from aes_r1.evaluation.studies import SECTIONS, read_studies
from aes_r1.evaluation.studies_page import static_page
from aes_r1.settings import Settings, TrackerSettings
from tests.experiments.runs import write_run

BASE = Settings(tracker=TrackerSettings(name="none"))


@pytest.fixture
def runs(tmp_path) -> Path:
    for name, width in (("rapo", 0.05), ("rank", 0.3)):
        settings = replace(BASE, reward=replace(BASE.reward, name=name))
        write_run(tmp_path / "runs" / "reward_ablation" / name, settings, noise={"rapo": width})
    return tmp_path / "runs"


def test_without_an_account_a_page_is_written(runs, tmp_path):
    page = tmp_path / "pages" / "dashboard.html"
    done = subprocess.run(
        [sys.executable, "-m", "aes_r1.dashboard", f"runs={runs}", f"out={page}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"dashboard: {page}\n"
    assert page.read_text() == static_page(read_studies(runs))


class Server(BaseHTTPRequestHandler):
    """As much of W&B's GraphQL as saving a view and a report takes; keeps what it was sent."""

    received: list[dict]

    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"] or 0))
        body = json.loads(content) if content.startswith(b"{") else {}  # the client posts telemetry too
        self.received.append(body)
        query = body.get("query", "")
        if "upsertView" in query:
            name = body["variables"].get("name") or "view"
            data = {"upsertView": {"view": {"id": "Vmlldzox", "name": name, "displayName": name}, "inserted": True}}
        elif "upsertModel" in query or "UpsertModel" in query:
            data = {"upsertModel": {"model": {"id": "p", "name": "aes-r1", "entityName": "team"}, "inserted": True}}
        else:
            viewer = {"id": "u", "entity": "team", "username": "me", "flags": "{}", "teams": {"edges": []}}
            project = {
                "id": "UDox", "internalId": "UDox", "name": "aes-r1", "entityName": "team", "isBenchmark": False,
                "createdAt": "2026-01-01T00:00:00", "user": None,
            }  # fmt: skip
            projects = {"edges": [{"node": project}], "pageInfo": {"endCursor": None, "hasNextPage": False}}
            data = {"viewer": viewer, "serverInfo": None, "project": project, "models": projects}
        answer = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.mark.slow
def test_the_workspace_that_a_server_receives(runs, tmp_path):
    pytest.importorskip("wandb_workspaces")
    Server.received = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    done = subprocess.run(
        [sys.executable, "-m", "aes_r1.dashboard", f"runs={runs}", "entity=team", "project=aes-r1"],
        env={
            **os.environ,
            "WANDB_BASE_URL": f"http://127.0.0.1:{server.server_address[1]}",
            "WANDB_API_KEY": "0" * 40,
            "WANDB_DIR": str(tmp_path),
            "HOME": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    server.shutdown()
    assert done.returncode == 0, done.stderr
    views = [one["variables"] for one in Server.received if "upsertView" in one.get("query", "")]
    workspace = next(one for one in views if one["type"] == "project-view")
    assert (workspace["entityName"], workspace["projectName"]) == ("team", "aes-r1")
    assert workspace["displayName"] == "reward_ablation"
    spec = json.loads(workspace["spec"])
    sections = {one["name"]: one for one in spec["section"]["panelBankConfig"]["sections"]}
    assert set(SECTIONS) | {"Sweep", "Critiques"} <= set(sections)
    lines = {
        panel["config"]["chartTitle"]: panel["config"]
        for one in sections.values()
        for panel in one["panels"]
        if panel["viewType"] == "Run History Line Plot"
    }
    assert lines["sft/loss"]["xAxis"] == "sft/step"
    assert lines["eval/scenes/srcc"]["xAxis"] == "rapo/step"
    assert lines["policy/entropy"]["xAxis"] == "rapo/step"
    coordinates = sections["Sweep"]["panels"][0]["config"]["columns"]
    assert [one["accessor"] for one in coordinates] == ["config:reward.value.name", "summary:headline/srcc"]
    assert "reward_ablation" in json.dumps(spec["section"]["runSets"])
    report = next(one for one in views if one["type"] != "project-view")
    assert "reward_ablation" in report["spec"]
