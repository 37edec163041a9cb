"""Shards on a real Ray cluster of this machine: two workers, resumed after a kill, the same rows as without Ray."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from PIL import Image

from aes_r1.data.sample import PictureError
from aes_r1.runs.files import read_rows, write_rows
from aes_r1.runs.ray_cluster import RayFailed, lost_workers
from aes_r1.scoring import shards
from aes_r1.scoring.critic import Critic, verdict
from aes_r1.scoring.inputs import LastingError, UrlLimits
from aes_r1.scoring.rows import verdict_row
from aes_r1.scoring.shards import score_shards
from aes_r1.settings import InputError
from tests import processes
from tests.processes import wait_for

ray = pytest.importorskip("ray", reason="the extra ray is not installed")


@pytest.mark.slow
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
        f"aes_r1: {photos}/07\\u2028.png: not a picture that can be read; export it as JPEG or PNG",
        "aes_r1: gone.jpg: No such file or directory",
    ]
    parts = sorted(out.glob("part-*[0-9].jsonl"))
    assert len(parts) == 7
    rows = [row for path in parts for row in read_rows(path)]
    critic = Critic.load(talking_run)
    plain = [
        verdict_row(str(path), critic.score(path)) for path in sorted(photos.glob("*.png")) if "07" not in path.name
    ]
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


@pytest.mark.slow
def test_a_shard_that_cannot_be_written_ends_the_command_in_one_line(talking_run, tmp_path):
    """A folder stands where the worker writes a file of the second shard, as a full or revoked disk would."""
    out, photos, said = tmp_path / "out", tmp_path / "photos", tmp_path / "said"
    shutil.copytree(talking_run / "pictures", photos)
    sorted(photos.glob("*.png"))[5].write_text("hello")
    taken = out / "part-00001.unreadable.jsonl"
    command = [sys.executable, "-m", "aes_r1.score", str(photos), "--model", str(talking_run)]
    command += ["--shards", str(out), "--shard-size", "4", "--workers", "1"]
    with said.open("w") as log:
        process = processes.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=log, stderr=log)
    wait_for(process, (out / "plan.json").exists, said=said)
    time.sleep(0.5)  # what is done is listed at once; a worker begins after Ray has started, which takes seconds
    taken.mkdir()
    assert process.wait(300) == 2, said.read_text()
    assert "Traceback" not in said.read_text()
    lines = [line for line in said.read_text().splitlines() if line.startswith("aes_r1: ")]
    assert lines[-1] == f"aes_r1: {taken}: Is a directory; give the name of a file"
    assert (out / "part-00000.jsonl").exists(), "what is done is kept"


def test_a_lost_worker_is_one_line_and_an_error_of_the_code_is_not():
    said = r"^Ray lost a worker: .*; what is done is kept, start the command again$"
    with pytest.raises(RayFailed, match=said), lost_workers(ray):
        raise ray.exceptions.WorkerCrashedError
    with pytest.raises(ray.exceptions.RayTaskError), lost_workers(ray):
        raise ray.exceptions.RayTaskError("submit", "Traceback ..", TypeError("a fault of the code"))


@pytest.fixture
def scored_here(tmp_path, monkeypatch):
    """Return score_shards whose workers are in this process, with a made critic; `scored` lists what it scored."""
    scored = []

    def read(name, limits):
        scored.append(name)
        if "/gone" in name:
            raise LastingError(name, "Not Found")
        if name.startswith("http") and limits.seconds < 60:
            raise PictureError(name, f"took longer than {limits.seconds:g} s")
        return Image.new("RGB", (64, 64)) if name.startswith("http") else read_picture(name, limits)

    def run(_, missing, out, *rest):
        worker = shards.ShardScorer.__new__(shards.ShardScorer)
        worker.out, worker.limits = out, rest[3]
        answer = verdict(["<think>x</think><answer>0.5</answer>"], half_width=None)
        worker.critic = SimpleNamespace(row=lambda name, _: verdict_row(name, answer))
        for shard in missing:
            before = len(scored)
            done = worker({key: [value] for key, value in shard.items()})
            assert done["fault"] == [""]
            assert done["pictures"] == [shard["left"]] == [len(scored) - before], "what the progress line counts"

    read_picture = shards.read_picture
    monkeypatch.setattr(shards, "read_picture", read)
    monkeypatch.setattr(shards, "_run", run)
    monkeypatch.setattr(shards, "_Cluster", lambda *_: nullcontext())
    monkeypatch.setattr(shards, "identity_of", lambda *_, **__: "critic")

    def score(names, seconds=20.0):
        scored.clear()
        limits, how = UrlLimits(seconds=seconds), {"model": "m", "samples": None, "seed": 0}
        counts, unreadable = score_shards(names, tmp_path / "out", limits=limits, shard_size=2, workers=1, **how)
        return counts["pictures"], [error.reason for error in unreadable]

    return SimpleNamespace(score=score, scored=scored, out=tmp_path / "out")


def test_a_file_that_can_be_read_later_is_counted_once(scored_here, tmp_path):
    """It was being copied when the shard was first scored, and a kill came before the part was written."""
    names = [str(tmp_path / name) for name in ("a.png", "b.png")]
    Image.new("RGB", (64, 64)).save(names[1])
    assert scored_here.score(names) == (1, ["No such file or directory"])
    assert scored_here.score(names) == (1, ["No such file or directory"])
    assert scored_here.scored == [], "a shard that has its part is not scored again"
    (scored_here.out / "part-00000.jsonl").unlink()
    Image.new("RGB", (64, 64)).save(names[0])
    assert scored_here.score(names) == (2, [])
    assert [path.name for path in sorted(scored_here.out.iterdir())] == ["part-00000.jsonl", "plan.json"]


def test_a_download_that_failed_is_tried_again(scored_here, tmp_path):
    """With the limits of the new start; what was scored stays, in its place, and other shards are not opened."""
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    names = ["http://h/0.jpg", str(tmp_path / "a.png"), "gone.png", str(tmp_path / "a.png")]
    assert scored_here.score(names) == (2, ["took longer than 20 s", "No such file or directory"])
    other = (scored_here.out / "part-00001.jsonl").stat().st_mtime_ns
    assert scored_here.score(names, 30.0) == (2, ["took longer than 30 s", "No such file or directory"])
    assert scored_here.scored == ["http://h/0.jpg"]
    assert scored_here.score(names, 600.0) == (3, ["No such file or directory"])
    assert scored_here.scored == ["http://h/0.jpg"]
    rows = read_rows(scored_here.out / "part-00000.jsonl")
    assert [row["path"] for row in rows] == names[:2]
    assert (scored_here.out / "part-00001.jsonl").stat().st_mtime_ns == other
    assert scored_here.score(names, 600.0) == (3, ["No such file or directory"])
    assert scored_here.scored == []


def test_new_pictures_come_before_downloads_that_failed(scored_here):
    """The first shards are done but for a slow server each; a start that was stopped left the last ones."""
    names = ["http://h/0.jpg", "gone.png", "http://h/1.jpg", "a.png", "b.png", "c.png"]
    assert scored_here.score(names)[0] == 0
    (scored_here.out / "part-00002.jsonl").unlink()
    scored_here.score(names)
    assert scored_here.scored == ["b.png", "c.png", "http://h/0.jpg", "http://h/1.jpg"]


def test_a_link_that_leads_nowhere_is_not_followed_again(scored_here, monkeypatch):
    """Beside a slow one its shard is opened again, and it alone starts nothing."""
    names = ["http://h/gone.jpg", "http://h/0.jpg", "http://h/gone.jpg", "http://h/gone/1.jpg"]
    reasons = ["Not Found", "took longer than 20 s", "Not Found", "Not Found"]
    assert scored_here.score(names) == (0, reasons)
    assert scored_here.score(names) == (0, reasons)
    assert scored_here.scored == ["http://h/0.jpg"]
    assert scored_here.score(names, 600.0) == (1, ["Not Found"] * 3)
    monkeypatch.setattr(shards, "_run", lambda *_: pytest.fail("Ray was started"))
    assert scored_here.score(names, 600.0) == (1, ["Not Found"] * 3)


@pytest.mark.parametrize("at", ["part-00000.jsonl", "part-00000.unreadable.jsonl"])
@pytest.mark.parametrize("again", [False, True], ids=["first", "again"])
def test_a_kill_between_the_two_files_loses_and_doubles_nothing(at, again, scored_here, monkeypatch):
    """The process ends in front of the write of `at`; the same command then counts every picture once."""
    names = ["http://h/0.jpg", "gone.png"]

    class KilledHere(BaseException):
        """The end of the process."""

    def write(path, rows):
        if path.name == at:
            raise KilledHere
        return write_rows(path, rows)

    if again:
        assert scored_here.score(names) == (0, ["took longer than 20 s", "No such file or directory"])
    monkeypatch.setattr(shards, "write_rows", write)
    with pytest.raises(KilledHere):
        scored_here.score(names, 600.0)
    monkeypatch.setattr(shards, "write_rows", write_rows)
    assert scored_here.score(names, 600.0) == (1, ["No such file or directory"])


@pytest.mark.parametrize("name", ["part-00000.jsonl", "part-00007.unreadable.jsonl"])
def test_a_folder_of_shards_of_which_no_plan_says_what_they_are_is_refused(name, scored_here):
    scored_here.out.mkdir()
    write_rows(scored_here.out / name, [{"path": "other.jpg", "score": 0.9}])
    with pytest.raises(InputError, match=rf"out holds {name} and no plan\.json .*; give another --shards folder$"):
        scored_here.score(["gone.png"])
    assert [path.name for path in scored_here.out.iterdir()] == [name]
