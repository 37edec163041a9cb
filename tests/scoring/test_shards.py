"""Shards on a real Ray cluster of this machine: two workers, resumed after a kill, the same rows as without Ray."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from aes_r1.scoring.critic import Critic
from aes_r1.scoring.rows import row_of
from aes_r1.scoring.shards import score_shards
from aes_r1.settings import InputError
from tests import processes

pytestmark = pytest.mark.slow
pytest.importorskip("ray", reason="the extra ray is not installed")


def test_two_workers_write_what_one_process_would_and_a_killed_run_goes_on(talking_run, tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for copy in range(12):
        shutil.copy(sorted((talking_run / "pictures").glob("*.png"))[copy], photos / f"{copy:02d}.png")
    (photos / "07.png").write_text("hello")
    command = [sys.executable, "-m", "aes_r1.score", str(photos), "gone.jpg", "--model", str(talking_run)]
    command += ["--shards", str(out), "--shard-size", "2", "--workers", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    with processes.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 500
        while not list(out.glob("part-*[0-9].jsonl")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate()
    assert process.returncode == 75, said
    assert said.decode().splitlines()[-1].startswith("aes_r1: stopped; what is done is kept")
    early = {path: path.stat().st_mtime_ns for path in out.glob("part-*.jsonl")}
    assert early

    done = processes.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert all(path.stat().st_mtime_ns == written for path, written in early.items())
    lines = [line for line in done.stderr.splitlines() if line.startswith("aes_r1: ")]
    assert lines == [
        f"aes_r1: {photos / '07.png'}: not a picture that can be read; export it as JPEG or PNG",
        "aes_r1: gone.jpg: No such file or directory",
    ]
    parts = sorted(out.glob("part-*[0-9].jsonl"))
    assert len(parts) == 7
    rows = [json.loads(line) for path in parts for line in path.read_text().splitlines()]
    critic = Critic.load(talking_run)
    plain = [row_of(str(path), critic.score(path)) for path in sorted(photos.glob("*.png")) if path.name != "07.png"]
    assert rows == plain

    assert f"scored: {len(plain)} pictures" in done.stderr

    # Complete: nothing is started; another list, model or sampling is refused.
    arguments = {"model": str(talking_run), "samples": None, "seed": 0, "limits": None, "shard_size": 2, "workers": 2}
    names = [*(str(path) for path in sorted(photos.glob("*.png"))), "gone.jpg"]
    counts, unreadable = score_shards(names, out, **arguments)
    assert (counts["pictures"], counts["unanswered"], len(unreadable)) == (len(plain), 0, 2)
    for changes, word in (({"seed": 1}, "critic"), ({"shard_size": 3}, "shard_size")):
        with pytest.raises(InputError, match=word):
            score_shards(names, out, **{**arguments, **changes})
    with pytest.raises(InputError, match="list"):
        score_shards(names[1:], out, **arguments)
