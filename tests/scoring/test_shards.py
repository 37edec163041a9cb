"""Shards on a real Ray cluster of this machine: two workers, resumed after a kill, the same rows as without Ray."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from aes_r1.runs.files import read_rows
from aes_r1.runs.ray_cluster import RayFailed, lost_workers
from aes_r1.scoring.critic import Critic
from aes_r1.scoring.rows import row_of
from aes_r1.scoring.shards import score_shards
from aes_r1.settings import InputError
from tests import processes

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray", reason="the extra ray is not installed")


def test_two_workers_write_what_one_process_would_and_a_killed_run_goes_on(talking_run, tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for copy in range(12):
        name = {3: "03\u2028\x85.png", 5: "05\udce9.png"}.get(copy, f"{copy:02d}.png")  # line separators, no UTF-8
        shutil.copy(sorted((talking_run / "pictures").glob("*.png"))[copy], photos / name)
    (photos / "07.png").rename(photos / "07\u2028.png")
    (photos / "07\u2028.png").write_text("hello")
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
    assert "never a photograph" in done.stderr.splitlines()[0], "the model of this test saw made scenes alone"
    assert all(path.stat().st_mtime_ns == written for path, written in early.items())
    lines = [line for line in done.stderr.split("\n") if line.startswith("aes_r1: ")]
    assert lines == [
        f"aes_r1: {photos}/07\u2028.png: not a picture that can be read; export it as JPEG or PNG",
        "aes_r1: gone.jpg: No such file or directory",
    ]
    parts = sorted(out.glob("part-*[0-9].jsonl"))
    assert len(parts) == 7
    rows = [row for path in parts for row in read_rows(path)]
    critic = Critic.load(talking_run)
    plain = [row_of(str(path), critic.score(path)) for path in sorted(photos.glob("*.png")) if "07" not in path.name]
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


def test_a_shard_that_cannot_be_written_ends_the_command_in_one_line(talking_run, tmp_path):
    """A folder stands where the worker writes a file of the second shard, as a full or revoked disk would."""
    out, photos = tmp_path / "out", tmp_path / "photos"
    shutil.copytree(talking_run / "pictures", photos)
    sorted(photos.glob("*.png"))[5].write_text("hello")
    taken = out / "part-00001.unreadable.jsonl"
    taken.mkdir(parents=True)
    command = [sys.executable, "-m", "aes_r1.score", str(photos), "--model", str(talking_run)]
    command += ["--shards", str(out), "--shard-size", "4", "--workers", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = processes.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("aes_r1: ")]
    assert lines[-1] == f"aes_r1: {taken}: Is a directory; give the name of a file"
    assert (out / "part-00000.jsonl").exists(), "what is done is kept"


def test_a_lost_worker_is_one_line_and_an_error_of_the_code_is_not():
    said = r"^Ray lost a worker: .*; what is done is kept, start the command again$"
    with pytest.raises(RayFailed, match=said), lost_workers(ray):
        raise ray.exceptions.WorkerCrashedError
    with pytest.raises(ray.exceptions.RayTaskError), lost_workers(ray):
        raise ray.exceptions.RayTaskError("submit", "Traceback ..", TypeError("a fault of the code"))
