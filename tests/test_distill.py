"""The distill command as users run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from aes_r1.data.manifest import write_manifest
from aes_r1.data.scene_sets import make_scenes
from tests import processes
from tests.tracking.test_tracker import by_kind, offline_records, values


@pytest.fixture(scope="module")
def distill(tmp_path_factory):
    """Runs the command on 80 made scenes, data=manifest."""
    store = tmp_path_factory.mktemp("store")
    made = make_scenes("scenes", store=store, counts={"train": 80, "validation": 0, "test": 0}, workers=1)
    write_manifest(made, store / "scenes.jsonl")

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        keyless = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
        settings = {**keyless, "AES_R1_STORE": str(store), "OMP_NUM_THREADS": "1", **environment}
        data = ["data=manifest", f"data.root={store / 'scenes.jsonl'}"]
        command = [sys.executable, "-m", "aes_r1.distill", *data, *arguments]
        return processes.run(command, env=settings, capture_output=True, text=True, timeout=300, check=False)

    return run


@pytest.mark.slow
def test_scenes_are_distilled_offline_and_the_audit_page_is_read_back(distill, tmp_path):
    out = tmp_path / "out"
    done = distill("expert=scenes", "judge=scenes", f"out={out}", "audit_items=20", "tracker=offline")
    assert done.returncode == 0, done.stderr
    assert str(out / "aescot.jsonl") in done.stdout
    names = {path.name for path in out.iterdir()}
    assert names >= {"aescot.jsonl", "rejected.jsonl", "plants.jsonl", "distill_report.json", "audit.html"}
    report = json.loads((out / "distill_report.json").read_text())
    count = report["pictures"]["given"]
    assert report["kept"] + report["rejected"] == count > 60
    records = offline_records(out)
    assert by_kind(records, "run")[0].job_type == "distill"
    summary = {key: value for item in by_kind(records, "summary") for key, value in values(item.update).items()}
    assert (summary["distill/kept"], summary["distill/kept_rate"]) == (report["kept"], report["kept"] / count)

    marks = [{"id": str(i), "filter": "leak", "flagged": i % 2 == 0, "agree": i % 5 > 0} for i in range(20)]
    (tmp_path / "marks.json").write_text(json.dumps({"marks": marks}))
    read = distill(f"audit={tmp_path / 'marks.json'}", f"out={tmp_path / 'other'}")
    assert read.returncode == 0, read.stderr
    assert "0.800" in read.stdout

    quotas = distill("quotas={bad: 5, good: 5}", f"out={tmp_path / 'quotas'}")
    assert quotas.returncode == 0, quotas.stderr
    kept = [json.loads(line)["level"] for line in (tmp_path / "quotas" / "aescot.jsonl").read_text().splitlines()]
    assert sorted(kept) == ["bad"] * 5 + ["good"] * 5

    again = distill("quotas={bad: 5, good: 6}", f"out={tmp_path / 'quotas'}")
    assert again.returncode == 2
    assert "other quotas" in again.stderr

    planned = distill(
        "expert=openai", "expert.model=gpt-4.1", "judge=none", "dry_run=true", f"out={tmp_path / 'dry'}",
    )  # fmt: skip
    assert planned.returncode == 0, planned.stderr
    assert f"{count} calls of gpt-4.1" in planned.stdout
    assert "USD" in planned.stdout
    assert planned.stdout.splitlines()[-1].startswith("dry run: nothing was asked or bought"), "and no key was needed"
    assert not (tmp_path / "dry").exists()

    keyless = distill("expert=openai", "expert.model=gpt-4.1", "judge=none", f"out={tmp_path / 'dry'}")
    assert keyless.returncode == 2
    assert "OPENAI_API_KEY" in keyless.stderr


@pytest.mark.slow
def test_help_fits_on_a_screen_and_names_every_choice(distill):
    done = distill("--help")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 110
    for word in ("expert=", "judge=", "quotas", "max_usd", "dry_run", "audit=", "rejected.jsonl", "api_base"):
        assert word in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("expert.modle=x", "expert.modle"),
        ("expert=nobody", "nobody"),
        ("expert.leak_rate=1.5", "expert.leak_rate"),
        ("expert.min_words=many", "expert.min_words"),
        ("judge.tolerance=0", "judge.tolerance=0"),
        ("audit=nowhere.json", "nowhere.json"),
    ],
)
def test_wrong_input_is_named_in_a_line_and_exits_2(distill, tmp_path, argument, said):
    done = distill(argument, f"out={tmp_path / 'out'}")
    assert done.returncode == 2, done.stderr
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
