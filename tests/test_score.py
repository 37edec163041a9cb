"""The score command as users run it: formats, exit codes, completeness."""

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter

import pytest

from aes_r1 import score
from aes_r1.model import backbone as backbones
from aes_r1.score import summary
from aes_r1.scoring.rows import sorted_rows
from tests import processes
from tests.rollout.vllm_server import FakeServer


@pytest.fixture
def photos(talking_run, tmp_path):
    for name in ("03.png", "09.png"):
        shutil.copy(talking_run / "pictures" / name, tmp_path / name)
    (tmp_path / "text.jpg").write_text("hello")
    return tmp_path


def run(monkeypatch, capsys, *arguments):
    """(exit code, stdout, stderr) of the command in this process."""
    monkeypatch.setattr(sys, "argv", ["score", *map(str, arguments)])
    with pytest.raises(SystemExit) as leaving:
        score.main()
    output = capsys.readouterr()
    return leaving.value.code, output.out, output.err


@pytest.mark.slow
def test_jsonl_has_a_row_for_every_picture_and_the_rest_on_stderr(photos, talking_run, monkeypatch, capsys):
    asked = (photos, photos / "gone.jpg", "--model", talking_run, "--format", "jsonl")
    code, out, err = run(monkeypatch, capsys, *asked)
    assert code == 1
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["path"] for row in rows] == [str(photos / "03.png"), str(photos / "09.png")]
    assert list(rows[0])[:5] == ["path", "score", "low", "high", "critique"]
    assert rows[0]["score"] < rows[1]["score"]
    for row in rows:
        assert 0 <= row["low"] <= row["score"] <= row["high"] <= 1
        assert len(row["dimensions"]) == 5
        assert len(row["scores"]) == 4
        distance = None if row["words"] is None else 1 - abs(row["words"] - row["score"])
        assert row["agreement"] == (distance and pytest.approx(distance, abs=1e-3))
        assert row["contradiction"] is None or row["contradiction"].endswith(f"number says {row['score']:.2f}")
    assert any(row["words"] is not None for row in rows)
    assert "never a photograph" in err.splitlines()[0], "the model of this test learned in no run of photographs"
    lines = [line for line in err.splitlines() if line.startswith("aes_r1: ")]
    assert [line.split(": ")[1] for line in lines] == [str(photos / "text.jpg"), str(photos / "gone.jpg")]
    assert run(monkeypatch, capsys, *asked)[1] == out  # the same command, the same answer


@pytest.mark.slow
def test_all_readable_is_exit_code_0_in_csv_and_table(photos, talking_run, monkeypatch, capsys):
    name = photos / "03.png"
    code, out, _ = run(monkeypatch, capsys, name, "--model", talking_run, "--format", "csv")
    header, row = csv.reader(io.StringIO(out))
    assert code == 0
    assert header[:5] == ["path", "score", "low", "high", "critique"]
    assert header[10:] == ["words", "agreement", "contradiction", "judgement", "interval", "scores"]
    assert len(row) == len(header) == 16
    assert row[header.index("exposure")] == "plain tones."
    answers = [float(score) for score in row[header.index("scores")].split()]
    assert sum(answers) / len(answers) == pytest.approx(float(row[1]), abs=1e-4)
    assert row[header.index("interval")] == "conformal"
    verdict = score.Critic.load(talking_run).score(name)
    assert verdict.judgement
    assert row[header.index("judgement")] == verdict.judgement
    code, table, _ = run(monkeypatch, capsys, name, "--model", talking_run)
    assert code == 0
    assert f"{float(row[1]):.2f}" in table
    assert "light and shadow: plain light." in table
    assert verdict.judgement in table
    assert "holds the mean opinion of 9 in 10 pictures like those of folder/test" in table


def test_an_unanswered_picture_is_a_row_without_a_score(photos, talking_run, monkeypatch, capsys):
    settings = json.loads((talking_run / "settings.json").read_text())
    settings["trainer"]["max_new_tokens"] = 3  # too few for an answer
    shutil.copytree(talking_run / "model", photos / "run" / "model")
    (photos / "run" / "settings.json").write_text(json.dumps(settings))
    arguments = (photos / "03.png", "--model", photos / "run", "--format")
    code, out, _ = run(monkeypatch, capsys, *arguments, "jsonl")
    row = json.loads(out)
    assert (code, row["score"], row["low"], row["critique"]) == (0, None, None, None)
    assert run(monkeypatch, capsys, *arguments, "csv")[1].splitlines()[1] == f"{photos / '03.png'},{',' * 14}- - - -"
    assert "no readable answer" in run(monkeypatch, capsys, *arguments, "table")[1]


@pytest.mark.slow
def test_an_interval_from_scenes_is_not_shown_for_photographs(photos, talking_run, monkeypatch, capsys):
    """The same model, evaluated on scenes: no number, and the table says why."""
    shutil.copytree(talking_run, photos / "run")
    evaluation = json.loads((talking_run / "evaluation.json").read_text())
    ((stage, sets),) = evaluation["stages"].items()
    evaluation["stages"] = {stage: {"scenes/test": next(iter(sets.values()))}}
    (photos / "run" / "evaluation.json").write_text(json.dumps(evaluation))
    asked = (photos / "03.png", "--model", photos / "run")
    row = json.loads(run(monkeypatch, capsys, *asked, "--format", "jsonl")[1])
    assert (row["low"], row["high"], row["interval"]) == (None, None, "not_calibrated")
    assert row["score"] is not None
    _, table, _ = run(monkeypatch, capsys, *asked)
    assert "not calibrated for photographs" in table
    assert "high" not in table.splitlines()[1]


@pytest.mark.slow
def test_rows_are_sorted_on_request(photos, talking_run, monkeypatch, capsys):
    names = [talking_run / "pictures" / name for name in ("03.png", "09.png", "06.png")]

    def paths(*how):
        _, out, _ = run(monkeypatch, capsys, *names, "--model", talking_run, "--format", "jsonl", *how)
        return [json.loads(line) for line in out.splitlines()]

    given = paths()
    assert [row["path"] for row in given] == [str(name) for name in names]
    best = paths("--sort", "score")
    assert [row["score"] for row in best] == sorted((row["score"] for row in given), reverse=True)
    assert paths("--sort", "score", "--reverse") == best[::-1]
    assert [row["path"] for row in paths("--sort", "path")] == sorted(str(name) for name in names)


@pytest.mark.parametrize("how", ["", "--sort path", "--best-of", "--format jsonl"])
def test_an_interruption_leaves_what_was_scored(how, talking_run, monkeypatch, capsys):
    """Ctrl-C comes while the second of four pictures is scored, which is still finished."""
    judge, begun = score.Critic.score, []

    def interrupted(critic, picture):
        begun.append(picture)
        if len(begun) == 2:
            signal.raise_signal(signal.SIGINT)
        return judge(critic, picture)

    monkeypatch.setattr(score.Critic, "score", interrupted)
    names = [talking_run / "pictures" / f"{number:02d}.png" for number in (3, 9, 6, 5)]
    code, out, err = run(monkeypatch, capsys, *names, "--model", talking_run, "--samples", 1, *how.split())
    assert code == 1
    assert [name.name for name in names if name.name in "".join(out.split())] == ["03.png", "09.png"]
    assert err.splitlines()[-1] == "aes_r1: interrupted; 2 of 4 scored"
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_scheduler_s_signal_leaves_what_was_scored_too(number, talking_run):
    names = [str(path) for path in sorted((talking_run / "pictures").glob("*.png"))] * 20
    command = [sys.executable, "-m", "aes_r1.score", *names, "--model", str(talking_run), "--format", "jsonl"]
    with processes.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as scoring:
        first = scoring.stdout.readline()
        scoring.send_signal(number)
        rest, said = scoring.communicate(timeout=300)
    rows = [json.loads(line) for line in (first + rest).splitlines()]
    assert scoring.returncode == 1
    assert said.splitlines()[-1] == f"aes_r1: interrupted; {len(rows)} of {len(names)} scored"
    assert [row["path"] for row in rows] == names[: len(rows)]
    assert "Traceback" not in said


def test_what_has_no_number_is_sorted_last():
    rows = [{"path": "a", "agreement": None}, {"path": "b", "agreement": 0.9}, {"path": "c", "agreement": 0.2}]
    assert [row["path"] for row in sorted_rows(rows, "agreement")] == ["c", "b", "a"]
    assert [row["path"] for row in sorted_rows(rows, "agreement", reverse=True)] == ["b", "c", "a"]


@pytest.mark.slow
def test_the_last_lines_say_what_was_scored_and_what_not(photos, talking_run, monkeypatch, capsys):
    (photos / "notes.txt").write_text("hello")
    for number in range(2):
        (photos / f"{number}.txt").write_text("hello")
    _, _, err = run(monkeypatch, capsys, photos, photos / "gone.jpg", "--model", talking_run, "--format", "jsonl")
    scored, failed, passed = err.splitlines()[-3:]
    assert re.fullmatch(r"scored: 2 pictures in \d+ s", scored)
    reasons = "not a picture that can be read (1), No such file or directory (1)"
    assert failed == f"not scored: 2, listed above: {reasons}"
    assert passed == "passed over: 3 .txt"
    silent = list(summary({"pictures": 7, "unanswered": 2}, [], Counter(), 3.2))
    assert silent == ["scored: 7 pictures in 3 s, 2 of them without an answer that can be read"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model", "gone"), "required: PICTURE"),
        (("a.jpg", "--model", "m", "--reverse"), "--sort"),
        (("a.jpg", "--model", "m", "--sort", "beauty"), "beauty"),
        (("a.jpg", "--model", "m", "--shards", "out", "--sort", "score"), "--sort=score"),
        (("a.jpg", "--model", "m", "--format", "xml"), "xml"),
        (("a.jpg", "--model", "m", "--samples", "0"), "--samples=0"),
        ((__file__, "--model", "m", "--url", "localhost:8100"), "--url=localhost:8100: give the server's address"),
        ((__file__, "--model", "m", "--url", ""), "--url: give the server's address, as --url http://127"),
        ((__file__, "--model", "m", "--shards", ""), "--shards=: must name a folder"),
        (("a.jpg", "--model", "m", "--shards", "out", "--format", "csv"), "--format=csv"),
        (("a.jpg", "--model", "m", "--shards", "out", "--workers", "0"), "--workers=0"),
        *(
            (("http://a/b", "--model", "m", "--urls", f"--url-{what}", value), f"--url-{what}={value}")
            for what in ("mb", "seconds")
            for value in ("inf", "nan", "0.0", "-1.0")
        ),
    ],
)
def test_wrong_input_is_one_line(arguments, said, monkeypatch, capsys):
    code, out, err = run(monkeypatch, capsys, *arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert said in err


LISTED = "the names of a list are given as arguments: xargs -d '\\n' aes-r1 score --model DIR < list.txt"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["gone.jpg"], "gone.jpg: No such file or directory"),
        (["03.PNG"], "03.PNG: No such file or directory; 03.png is there"),
        (["03"], "03: No such file or directory; 03.png is there"),
        (["-"], f"-: No such file or directory; {LISTED}"),
        (["names.txt"], f"names.txt: not a picture that can be read; export it as JPEG or PNG; {LISTED}"),
        (["gone.csv"], f"gone.csv: No such file or directory; {LISTED}"),
        (
            ["03.png,09.png"],
            "03.png,09.png: No such file or directory; give them as 2 arguments, with blanks between them",
        ),
        (
            ["03.png 09.png"],
            "03.png 09.png: No such file or directory; give them as 2 arguments, with blanks between them",
        ),
        (["hrabour.png"], "hrabour.png: No such file or directory; harbour.png is there"),
        (["04.png"], "04.png: No such file or directory"),  # another number is another picture
        (
            ["h\u0430rbour.png"],
            "h\u0430rbour.png: No such file or directory; harbour.png is there "
            "(it only looks the same: U+0430 stands in one of the two names)",
        ),
        (
            ["harbour\u200b.png"],
            "harbour\\u200b.png: No such file or directory; harbour.png is there "
            "(it only looks the same: U+200B stands in one of the two names)",
        ),
        (["'03.png'"], "'03.png': No such file or directory; 03.png is there"),
        (["empty\\..\\03.png"], "empty\\..\\03.png: No such file or directory; empty/../03.png is there"),
        (["$PWD_OF_TEST/03.jpg"], "$PWD_OF_TEST/03.jpg: No such file or directory; ./03.png is there"),
        (
            ["s3://b/03.png"],
            "s3://b/03.png: No such file or directory; it is not on this machine; save it here and name the file",
        ),
        (["empty"], "empty: no picture in this folder"),
        (["*.gif"], "*.gif: no file matches"),
        (
            ["gone.jpg", "text.jpg"],
            "none of 2 pictures can be read; the first: gone.jpg: No such file or directory",
        ),
        (["https://127.0.0.1/a.jpg"], "https://127.0.0.1/a.jpg: URLs are not fetched unless --urls is given"),
    ],
)
@pytest.mark.parametrize("how", [(), ("--best-of",), ("--shards", "out")], ids=" ".join)
def test_where_nothing_can_be_read_no_model_is_loaded(how, names, said, photos, monkeypatch, capsys):
    """The model is not there either, and the fault of the pictures is the one that is named."""
    pytest.importorskip("ray") if how == ("--shards", "out") else None
    (photos / "empty").mkdir()
    shutil.copy(photos / "03.png", photos / "harbour.png")
    (photos / "names.txt").write_text("03.png\n09.png\n")
    monkeypatch.chdir(photos)
    monkeypatch.setenv("PWD_OF_TEST", ".")
    assert run(monkeypatch, capsys, *names, "--model", "/gone", *how) == (2, "", f"aes_r1: {said}\n")
    assert run(monkeypatch, capsys, *names, "03.png", "--model", "/gone", *how)[2].startswith("aes_r1: --model=/gone")


@pytest.mark.slow
def test_any_file_name_survives_and_a_closed_pipe_is_no_traceback(talking_run, tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9 \xff.png"
    shutil.copy(talking_run / "pictures" / "03.png", name)
    command = [sys.executable, "-m", "aes_r1.score", name, "--model", str(talking_run), "--format"]
    done = processes.run([*command, "csv"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"caf\xe9 \xff.png" in done.stdout
    command.append("jsonl")
    done = processes.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert os.fsencode(json.loads(done.stdout.decode())["path"]) == name
    with processes.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


def test_five_lines_of_python(photos, talking_run, monkeypatch, capsys):
    from aes_r1.score import Critic

    critic = Critic.load(talking_run)
    verdict = critic.score(photos / "03.png")
    row = json.loads(run(monkeypatch, capsys, photos / "03.png", "--model", talking_run, "--format", "jsonl")[1])
    assert (round(verdict.score, 4), verdict.critique) == (row["score"], row["critique"])


@pytest.fixture
def server(talking_run):
    policy = backbones.load(talking_run / "model", dtype="float32", max_pixels=9216)
    fake = FakeServer(policy, root=str(talking_run / "model"))
    yield fake
    fake.kill()


@pytest.mark.slow
def test_a_server_gives_the_verdicts_of_the_local_model(photos, talking_run, server, monkeypatch, capsys):
    """The most likely answers are the same; no weight is loaded for them here."""
    asked = (photos, "--model", talking_run, "--samples", 1, "--format", "jsonl")
    _, expected, _ = run(monkeypatch, capsys, *asked)
    monkeypatch.setattr(score.Critic, "load", None)
    code, out, err = run(monkeypatch, capsys, *asked, "--url", server.url)
    assert (code, out) == (1, expected)
    assert len(server.asked) == 2
    assert "text.jpg" in err


@pytest.mark.slow
def test_outputs_of_a_server_are_drawn_by_picture_and_seed(photos, talking_run, server, monkeypatch, capsys):
    asked = ("--model", talking_run, "--samples", 3, "--format", "jsonl", "--url", server.url)
    _, both, _ = run(monkeypatch, capsys, photos / "03.png", photos / "09.png", *asked)
    _, second, _ = run(monkeypatch, capsys, photos / "09.png", *asked)
    assert both.splitlines()[1] == second.strip()
    assert len(json.loads(second)["scores"]) == 3


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda server: setattr(server, "root", "/another/model"), "serves /another/model, not "),
        (lambda server: setattr(server, "version", "run-7"), "was given weights run-7 by a training run"),
        (lambda server: server.kill(), "no server of ours answers"),
    ],
)
def test_a_server_of_another_model_is_refused(photos, talking_run, server, monkeypatch, capsys, prepare, said):
    prepare(server)
    code, _, err = run(monkeypatch, capsys, photos / "03.png", "--model", talking_run, "--url", server.url)
    assert code == 2
    assert said in err.splitlines()[-1]
    server.kill()
    server.start()
