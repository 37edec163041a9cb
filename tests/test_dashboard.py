"""The dashboard: the static page, and the workspace as a W&B server receives it."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from aes_r1.report.studies import SECTIONS, read_studies
from aes_r1.report.studies_page import static_page
from tests import processes
from tests.experiments.runs import write_study

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


@pytest.fixture
def runs(tmp_path) -> Path:
    return write_study(tmp_path / "runs")


def dashboard(*arguments: str, command: tuple[str, ...] = ("-m", "aes_r1.dashboard"), **environment: str):
    return processes.run(
        [sys.executable, *command, *arguments],
        env={name: value for name, value in os.environ.items() if name != "WANDB_API_KEY"} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


@pytest.mark.slow
def test_without_an_account_a_page_is_written(runs, tmp_path):
    page = tmp_path / "pages" / "dashboard.html"
    for out in (page, page.parent):  # a name without an ending is a folder
        page.unlink(missing_ok=True)
        done = dashboard(f"runs={runs}", f"out={out}", f"analyses={EXPERIMENTS}")
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"dashboard: {page}\n"
        assert page.read_text() == static_page(read_studies(runs), EXPERIMENTS)


@pytest.mark.parametrize("out", ["new", "v1.2", "there.dir", "there.html"])
@pytest.mark.slow
def test_a_folder_is_a_folder_whatever_its_name(runs, tmp_path, out):
    if out.startswith("there"):
        (tmp_path / out).mkdir()
    done = dashboard(f"runs={runs}", f"out={tmp_path / out}", f"analyses={EXPERIMENTS}")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / out).iterdir()] == ["dashboard.html"]


@pytest.mark.slow
def test_a_file_that_is_no_json_is_named(runs, tmp_path):
    cut = runs / "reward_ablation" / "rank1" / "settings.json"
    cut.write_text(cut.read_text()[:100])
    done = dashboard(f"runs={runs}", f"out={tmp_path}/page.html")
    assert done.returncode == 2
    assert done.stderr.startswith(f"aes_r1: {cut}: no JSON object (")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_without_the_extra_its_name_is_said(runs):
    absent = "import sys; sys.modules['wandb_workspaces'] = None; from aes_r1.dashboard import main; main()"
    done = dashboard(f"runs={runs}", "entity=team", command=("-c", absent))
    assert done.returncode == 2
    assert done.stderr.startswith("aes_r1: entity=team: ")
    assert done.stderr.endswith("; pip install -e '.[dashboards]'\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_without_a_login_the_way_out_is_said(runs, tmp_path):
    pytest.importorskip("wandb_workspaces")
    done = dashboard(f"runs={runs}", "entity=team", HOME=str(tmp_path), WANDB_BASE_URL="http://127.0.0.1:9")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("aes_r1: entity=team: No API key configured")
    assert done.stderr.endswith("; wandb login, or leave entity out for a page\n")
    assert "Traceback" not in done.stderr


class Server(BaseHTTPRequestHandler):
    """As much of W&B's GraphQL as saving and loading views and reports of "team" takes; keeps what it was sent."""

    views: dict[str, dict]  # by id

    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"] or 0))
        body = json.loads(content) if content.startswith(b"{") else {}  # the client posts telemetry too
        self.answer({"data": self.data(body.get("query", ""), body.get("variables") or {})})

    def data(self, query: str, given: dict) -> dict:
        project = {
            "id": "UDox", "internalId": "UDox", "name": "aes-r1", "entityName": "team", "isBenchmark": False,
            "createdAt": "2026-01-01T00:00:00", "user": None,
        }  # fmt: skip
        if "upsertView" in query:
            key = given.get("id") or base64.b64encode(f"View:{len(self.views)}".encode()).decode()
            saved = self.views.setdefault(key, {"saves": 0, "type": given["type"]})
            saved |= {"id": key, "project": project, **given, "saves": saved["saves"] + 1}
            saved["id"] = key
            return {"upsertView": {"view": saved, "inserted": saved["saves"] == 1}}
        if "allViews" in query:
            found = [one for one in self.views.values() if one["name"] == given["viewName"]]
            return {"project": {"allViews": {"edges": [{"node": one} for one in found]}}}
        if "reportId" in query:
            return {"view": self.views.get(given["reportId"])}
        viewer = {"id": "u", "entity": "team", "username": "me", "flags": "{}", "teams": {"edges": []}}
        projects = {"edges": [{"node": project}], "pageInfo": {"endCursor": None, "hasNextPage": False}}
        return {"viewer": viewer, "serverInfo": None, "project": project, "models": projects}

    def do_GET(self):
        self.answer({})

    def answer(self, body: dict):
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


class Refusing(Server):
    def data(self, query: str, given: dict) -> dict:
        return super().data(query, given) if "upsertView" not in query else {"upsertView": None}

    def answer(self, body: dict):
        refused = "upsertView" in body.get("data", {})
        super().answer({"errors": [{"message": "permission denied"}], "data": None} if refused else body)


@pytest.fixture
def served(tmp_path):
    """serve(Handler) -> the environment of a client that is logged in at a server of it."""
    servers = []

    def serve(handler: type[Server]) -> dict[str, str]:
        handler.views = {}
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{servers[-1].server_address[1]}"
        return {"WANDB_BASE_URL": address, "WANDB_API_KEY": "0" * 40, "WANDB_DIR": str(tmp_path), "HOME": str(tmp_path)}

    yield serve
    for server in servers:
        server.shutdown()


@pytest.mark.slow
def test_the_workspace_that_a_server_receives(runs, served):
    pytest.importorskip("wandb_workspaces")
    environment = served(Server)
    arguments = (f"runs={runs}", f"analyses={EXPERIMENTS}", "entity=team", "project=aes-r1")
    done = dashboard(*arguments, **environment)
    assert done.returncode == 0, done.stderr
    workspace = next(one for one in Server.views.values() if one["type"] == "project-view")
    assert (workspace["entityName"], workspace["projectName"]) == ("team", "aes-r1")
    assert workspace["displayName"] == "reward_ablation"
    spec = json.loads(workspace["spec"])["section"]
    sections = {one["name"]: one["panels"] for one in spec["panelBankConfig"]["sections"]}
    assert list(sections) == ["Sweep", *SECTIONS, "Critiques"]
    lines = {
        panel["config"]["chartTitle"]: panel["config"]
        for panels in sections.values()
        for panel in panels
        if panel["viewType"] == "Run History Line Plot"
    }
    assert lines["sft/loss"]["xAxis"] == "sft/step"
    assert lines["eval/scenes/srcc"]["xAxis"] == "rapo/step"
    assert lines["policy/entropy"]["xAxis"] == "rapo/step"
    assert {"reward/binary", "rollout/length_mean", "time/rollout_s"} <= set(lines)
    bars = [panel["config"]["metrics"] for panel in sections["Agreement"] if panel["viewType"] == "Bar Chart"]
    assert ["headline/srcc", "headline/srcc_low", "headline/srcc_high"] in bars
    assert [panel["viewType"] for panel in sections["Critiques"]] == ["Weave"]
    assert "rapo/completions" in json.dumps(sections["Critiques"])
    coordinates = sections["Sweep"][0]["config"]["columns"]
    assert [one["accessor"] for one in coordinates] == ["config:reward.value.name", "summary:headline/srcc"]

    # Seeds are averaged: a group per condition, of the runs that name this study or, as these, nothing but a name.
    (shown,) = spec["runSets"]
    assert shown["grouping"] == [{"section": "config", "name": "reward.value.name"}]
    (chosen,) = shown["filters"]["filters"]
    assert (chosen["key"]["name"], chosen["op"], chosen["value"]) == ("group", "IN", ["run"])
    columns = ["run:displayName", "config:reward.value.name", "config:seed.value"]
    columns += [f"summary:headline/{name}{end}" for name in ("srcc", "plcc") for end in ("", "_low", "_high")]
    assert shown["runFeed"]["columnOrder"] == columns
    assert shown["runFeed"]["columnPinned"] == dict.fromkeys(columns, True)

    report = next(one for one in Server.views.values() if one["type"] == "runs")
    assert "0.6102 / 0.6297" in report["spec"]  # the paper's
    grid = next(one for one in json.loads(report["spec"])["blocks"] if one["type"] == "panel-grid")
    assert grid["metadata"]["runSets"][0]["grouping"] == shown["grouping"]

    # The same command again updates both; what was deleted meanwhile is made anew.
    again = dashboard(*arguments, **environment)
    assert again.returncode == 0, again.stderr
    assert again.stdout == done.stdout
    assert [(one["type"], one["saves"]) for one in Server.views.values()] == [("project-view", 2), ("runs", 2)]
    assert json.loads(Server.views[workspace["id"]]["spec"])["section"]["runSets"][0]["grouping"] == shown["grouping"]
    Server.views.clear()
    anew = dashboard(*arguments, **environment)
    assert anew.returncode == 0, anew.stderr
    assert [(one["type"], one["saves"]) for one in Server.views.values()] == [("project-view", 1), ("runs", 1)]


@pytest.mark.slow
def test_what_the_server_refuses_is_one_line(runs, served):
    pytest.importorskip("wandb_workspaces")
    done = dashboard(f"runs={runs}", "entity=others", **served(Refusing))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "permission denied; wandb login, or leave entity out" in done.stderr.splitlines()[-1]
