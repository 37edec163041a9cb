"""Answers of a real HTTP server that a distillation must survive, and those that must end it at once."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_reading import VERDICT, WHOLE

from aes_r1 import distill
from aes_r1.aescot import pixels_expert
from aes_r1.aescot.build import build_aescot
from aes_r1.aescot.chat import GIVEN_UP, UNREADABLE_IN_A_ROW, ChatModel
from aes_r1.aescot.failures import AccessRefused, ServerGone
from aes_r1.aescot.journal import Journal
from aes_r1.aescot.provider import litellm_library
from aes_r1.aescot.question import tokens_in
from aes_r1.data.sample import Sample
from aes_r1.prompts import judge_prompt
from aes_r1.runs.files import read_rows
from aes_r1.settings import DataSettings, DistillSettings, ExpertSettings, InputError, JudgeSettings
from tests.conftest import picture

Sent = tuple[int, str, str]  # status, content type, body


def completion(content: Any, finish: str = "stop", **message: Any) -> Sent:
    said = {"role": "assistant", "content": content, **message}
    choices = [{"index": 0, "message": said, "finish_reason": finish}]
    usage = {"prompt_tokens": 600, "completion_tokens": 200, "total_tokens": 800}
    answer = {"id": "c", "object": "chat.completion", "created": 0, "model": "fake", "choices": choices}
    return 200, "application/json", json.dumps({**answer, "usage": usage})


def error(status: int, message: str, **values: str) -> Sent:
    return status, "application/json", json.dumps({"error": {"message": message, **values}})


def page(status: int) -> Sent:
    return status, "text/html", "<!DOCTYPE html><html><body>Sign in to the network</body></html>"


class Server:
    """Answers a call by `answer(prompt, how often this prompt came)`; `asked` counts the prompts."""

    def __init__(self, answer: Callable[[str, int], Sent]) -> None:
        self.asked = asked = Counter[str]()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                parts = body["messages"][-1]["content"]
                prompt = parts if isinstance(parts, str) else "".join(part.get("text", "") for part in parts)
                asked[prompt] += 1
                status, kind, said = answer(prompt, asked[prompt])
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(said.encode())))
                self.end_headers()
                self.wfile.write(said.encode())

            def log_message(self, format: str, *args: object) -> None:
                """Log nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def close(self) -> None:
        self._http.shutdown()


@pytest.fixture
def serve(monkeypatch) -> Iterator[Callable[[Callable[[str, int], Sent]], Server]]:
    litellm = litellm_library()
    monkeypatch.setattr(litellm.utils, "INITIAL_RETRY_DELAY", 0.0)
    monkeypatch.setattr(litellm.utils, "JITTER", 0.0)
    started = []

    def start(answer: Callable[[str, int], Sent]) -> Server:
        started.append(Server(answer))
        return started[-1]

    yield start
    for server in started:
        server.close()


def pictures(folder: Path, count: int) -> list[Sample]:
    """Pictures whose scores, and so whose prompts, all differ."""
    samples = []
    for index in range(count):
        path = folder / f"{index}.png"
        picture(56, 56, seed=index).save(path)
        samples.append(Sample(str(index), str(path), (index + 0.5) / count, "folder", "train"))
    return samples


def build(samples: list[Sample], out: Path, url: str, *, judge: bool = False, **values: Any) -> dict[str, Any]:
    """The report of a distillation whose critiques pass every filter but that of leaks."""
    common = {"name": "openai", "model": "fake", "api_base": url, "retries": 1, **values}
    build_aescot(
        samples,
        expert=ExpertSettings(**{**common, "min_words": 5, "max_words": 400}),
        judge=JudgeSettings(**common) if judge else JudgeSettings(name="none"),
        seed=0,
        out=out,
    )
    return json.loads((out / "distill_report.json").read_text())


CALL = {"id": "1", "type": "function", "function": {"name": "critique", "arguments": WHOLE}}


@pytest.mark.parametrize(
    ("sent", "mended"),
    [
        (completion("", reasoning_content=f"The light first. {WHOLE}"), {"reasoning": 1}),
        (completion(None, "length", reasoning=WHOLE), {"reasoning": 1}),
        (completion(None, "tool_calls", tool_calls=[CALL]), {"tool_call": 1}),
        (completion(f"<think>Draft: {{}}</think>{WHOLE}"), {}),
        (completion(f'{{"critique": {WHOLE}}}'), {"wrapped": 1}),
        (completion(WHOLE.replace("color", "Colour")), {"keys": 1}),
    ],
)
@pytest.mark.slow
def test_an_answer_is_found_wherever_a_server_puts_it(sent, mended, serve, tmp_path):
    report = build(pictures(tmp_path, 1), tmp_path / "out", serve(lambda prompt, times: sent).url)
    assert report["kept"] == 1
    assert report["mended"] == {"expert": mended}


@pytest.mark.parametrize(("finish", "kept"), [("length", 0), ("stop", 1)])
@pytest.mark.slow
def test_a_judge_that_ran_out_of_tokens_in_its_reasoning_decided_nothing(finish, kept, serve, tmp_path):
    def answer(prompt: str, times: int) -> Sent:
        if "private information" in prompt:
            return completion(WHOLE)
        return completion(None, finish, reasoning=f"Perhaps {VERDICT}")

    samples = [Sample("0", pictures(tmp_path, 1)[0].image, 0.5, "folder", "train")]
    report = build(samples, tmp_path / "out", serve(answer).url, judge=True)
    assert report["kept"] == kept
    assert report["rejected_by_reason"] == ({} if kept else {"no_verdict": 1})


POISON = [
    ('{"light_and_shadow": ' + "[" * 3000 + "]" * 3000 + "}", "invalid_json"),
    (WHOLE[:-1] + ', "score": ' + "9" * 5000 + "}", None),
    (WHOLE.replace("Soft", "\\ud83d"), "unusable"),
    (WHOLE.replace("Soft", "\\u0000"), "unusable"),
    (WHOLE.replace("Soft", "<|im_end|>"), "unusable"),
    ("\ud83d", "invalid_json"),
    ("", "empty"),
    ("[]", "invalid_json"),
    (WHOLE[:90], "invalid_json"),
    ("I'm sorry, but I can't assist with that.", "refusal"),
]


@pytest.mark.slow
def test_no_reply_stops_a_distillation_and_a_later_start_buys_nothing(serve, tmp_path):
    """Every reply of a model is kept and marked, and later starts can read the journal."""
    prompts: list[str] = []
    lock = threading.Lock()

    def answer(prompt: str, times: int) -> Sent:
        with lock:
            if prompt not in prompts:
                prompts.append(prompt)
        return completion(POISON[prompts.index(prompt)][0])

    server, samples, out = serve(answer), pictures(tmp_path, len(POISON)), tmp_path / "out"
    report = build(samples, out, server.url, max_concurrency=1)
    assert [row["id"] for row in read_rows(out / "aescot.jsonl")] == ["1"]
    assert [row["reasons"] for row in read_rows(out / "rejected.jsonl")] == [[reason] for _, reason in POISON if reason]
    # An unreadable reply is asked for again, here once; a refusal counts as a reply.
    assert list(server.asked.values()) == [1 if reason in (None, "refusal") else 2 for _, reason in POISON]
    assert report["mended"]["expert"] == {"unreadable": 8}
    decided = [(out / name).read_bytes() for name in ("aescot.jsonl", "rejected.jsonl")]
    total = server.asked.total()
    again = build(samples, out, server.url, max_concurrency=1)
    assert server.asked.total() == total
    assert [(out / name).read_bytes() for name in ("aescot.jsonl", "rejected.jsonl")] == decided
    assert again["mended"] == report["mended"]


@pytest.mark.slow
def test_no_path_is_made_from_a_reply(serve, tmp_path):
    """Wherever a reply or its envelope holds a path, the same files are written as without it, and none elsewhere."""
    escape = f"{tmp_path}/gone/../../escaped"
    content = WHOLE.replace("Soft", "../../escaped").removesuffix("}") + f', "id": "{escape}", "file": "../escaped"}}'
    status, kind, body = completion(content, name=escape)
    envelope = json.dumps({**json.loads(body), "id": escape, "model": escape, "system_fingerprint": "../escaped"})
    written = {}
    for name, sent in (("plain", completion(WHOLE)), ("escaping", (status, kind, envelope))):
        folder = tmp_path / name
        folder.mkdir()
        samples = pictures(folder, 2)
        before = set(tmp_path.rglob("*"))
        report = build(samples, folder / "a" / "out", serve(lambda prompt, times, sent=sent: sent).url)
        assert report["kept"] == 2
        made = set(tmp_path.rglob("*")) - before
        assert all(path.is_relative_to(folder / "a") for path in made)
        written[name] = sorted(str(path.relative_to(folder)) for path in made)
    assert "escaped" in (tmp_path / "escaping" / "a" / "out" / "aescot.jsonl").read_text()
    assert written["escaping"] == written["plain"]
    assert not Path(escape).exists()


@pytest.mark.slow
def test_pictures_that_were_moved_are_not_bought_again(serve, tmp_path):
    """Every answer is found again: of the expert, of both checks of the judge, and of a second try."""

    def answer(prompt: str, times: int) -> Sent:
        reply = WHOLE if times > 1 else "no JSON"
        return completion(reply if "private information" in prompt else VERDICT)

    server = serve(answer)
    (tmp_path / "before").mkdir()
    samples = pictures(tmp_path / "before", 3)
    build(samples, tmp_path / "out", server.url, judge=True)
    bought = server.asked.total()
    (tmp_path / "before").rename(tmp_path / "after")
    moved = [replace(sample, image=sample.image.replace("before", "after")) for sample in samples]
    build(moved, tmp_path / "out", server.url, judge=True)
    assert server.asked.total() == bought >= 6
    listed = [row["image"] for name in ("aescot", "rejected") for row in read_rows(tmp_path / "out" / f"{name}.jsonl")]
    assert sorted(listed) == [sample.image for sample in moved]


@pytest.mark.parametrize("quotas", [None, {"bad": 4, "fair": 3, "good": 3}])
@pytest.mark.slow
def test_a_picture_that_cannot_be_read_for_a_moment_buys_nothing_again(quotas, serve, tmp_path, capsys):
    server = serve(lambda prompt, times: completion(WHOLE))
    pictures(tmp_path, 60)
    lines = "".join(f"{n}.png,{(n + 0.5) / 60},train\n" for n in range(60))
    (tmp_path / "labels.csv").write_text("image,mos,split\n" + lines)
    settings = DistillSettings(
        data=DataSettings(name="folder", root=str(tmp_path), workers=0),
        expert=ExpertSettings(name="openai", model="fake", api_base=server.url, retries=0, max_words=400, min_words=5),
        judge=JudgeSettings(name="none"),
        quotas=quotas,
        out=str(tmp_path / "out"),
        store=str(tmp_path / "store"),
    )
    distill.run(settings)
    first, asked = decided_files(tmp_path / "out"), server.asked.total()
    away = Path(read_rows(tmp_path / "out" / "aescot.jsonl")[2]["image"])
    whole = away.read_bytes()
    away.write_bytes(b"")
    distill.run(settings)
    assert f"left out {away}" in capsys.readouterr().err
    assert server.asked.total() == asked + (quotas is not None)  # another one in its place
    assert away.name not in {Path(row["image"]).name for row in read_rows(tmp_path / "out" / "aescot.jsonl")}
    away.write_bytes(whole)
    asked = server.asked.total()
    distill.run(settings)
    assert server.asked.total() == asked
    assert decided_files(tmp_path / "out") == first


@pytest.mark.slow
def test_a_picture_mended_since_an_older_version_left_it_out_is_the_only_one_bought(serve, tmp_path):
    server, samples, out = serve(lambda prompt, times: completion(WHOLE)), pictures(tmp_path, 12), tmp_path / "out"
    build(samples[:5] + samples[6:], out, server.url)
    settings = json.loads((out / "distill.json").read_text())
    del settings["left_out"]
    (out / "distill.json").write_text(json.dumps(settings))
    for _ in range(2):
        report = build(samples, out, server.url)
        assert server.asked.total() == 12
        assert report["pictures"] == {"given": 12, "decided": 12}


@pytest.mark.parametrize("first", ["", "no JSON", '{"level": "great"}'])
@pytest.mark.slow
def test_expert_and_judge_are_asked_again_when_nothing_can_be_read(first, serve, tmp_path):
    def answer(prompt: str, times: int) -> Sent:
        good = WHOLE if "private information" in prompt else VERDICT
        return completion(first if times == 1 else good)

    server = serve(answer)
    samples = [Sample("0", pictures(tmp_path, 1)[0].image, 0.5, "folder", "train")]
    report = build(samples, tmp_path / "out", server.url, judge=True)
    assert report["kept"] == 1
    assert sorted(server.asked.values()) == [2, 2, 2]
    assert report["mended"] == {"expert": {"asked again": 1}, "judge": {"asked again": 2}}


@pytest.mark.slow
def test_a_model_that_never_says_anything_readable_is_not_asked_again_for_ever(serve, tmp_path):
    count = UNREADABLE_IN_A_ROW
    server = serve(lambda prompt, times: completion("Lovely!"))
    report = build(pictures(tmp_path, count), tmp_path / "out", server.url, max_concurrency=1)
    assert report["rejected_by_reason"] == {"invalid_json": count}
    assert server.asked.total() < 1.6 * count


@pytest.mark.parametrize("who", ["expert", "judge"])
@pytest.mark.slow
def test_what_was_given_up_is_not_bought_by_a_later_start(who, serve, tmp_path):
    def answer(prompt: str, times: int) -> Sent:
        return completion(WHOLE if who == "judge" and "private information" in prompt else "Lovely!")

    server, samples, out = serve(answer), pictures(tmp_path, 3 * UNREADABLE_IN_A_ROW), tmp_path / "out"
    settings = {"judge": who == "judge", "retries": 6, "max_concurrency": 16}
    first, asked = build(samples, out, server.url, **settings), server.asked.total()
    decided = decided_files(out)
    for _ in range(2):
        again = build(samples, out, server.url, **settings)
        assert server.asked.total() == asked
        assert decided_files(out) == decided
        assert {**again, "wall_seconds": 0} == {**first, "wall_seconds": 0}


@pytest.mark.slow
def test_an_answer_that_ran_out_of_tokens_says_the_cure(serve, tmp_path):
    server = serve(lambda prompt, times: completion(WHOLE[:90], "length"))
    build(pictures(tmp_path, 1), tmp_path / "out", server.url)
    (row,) = read_rows(tmp_path / "out" / "rejected.jsonl")
    assert "expert.max_tokens" in row["details"]["invalid_json"]


ENDS = [
    (error(402, "Insufficient Balance"), "no money left"),
    (error(429, "You exceeded your current quota.", code="insufficient_quota"), "no money left"),
    (error(400, "Your credit balance is too low to access the API"), "no money left"),
    (error(404, "The model `fake` does not exist", code="model_not_found"), "no such model"),
    (error(400, "model not found: fake"), "no such model"),
    (error(401, "Incorrect API key provided"), "right key"),
    (error(403, "You have no access"), "right key"),
    (page(200), "web page"),
    (page(403), "web page"),
]


@pytest.mark.parametrize(("sent", "said"), ENDS)
@pytest.mark.slow
def test_what_every_call_would_hear_ends_the_run_at_once(sent, said, serve, tmp_path):
    """When the first of two calls in flight is answered late, the end of the run does not wait for it."""
    first = threading.Lock()

    def answer(prompt: str, times: int) -> Sent:
        if first.acquire(blocking=False):
            time.sleep(4)
        return sent

    server = serve(answer)
    started = time.monotonic()
    with pytest.raises(AccessRefused, match=said) as raised:
        build(pictures(tmp_path, 12), tmp_path / "out", server.url, max_concurrency=2, retries=6)
    assert time.monotonic() - started < 4
    assert "\n" not in str(raised.value)
    assert server.asked.total() <= 3
    report = json.loads((tmp_path / "out" / "distill_report.json").read_text())
    assert report["stopped"] == str(raised.value)


GONE = error(413, "Request Entity Too Large")  # counts as no answer, without another try
PRICE = {"input_usd_per_million": 1.0, "output_usd_per_million": 1.0}
STOPS: dict[str, tuple[Sent, dict[str, Any]]] = {
    "refused": (error(401, "Incorrect API key provided"), {}),
    "gone": (GONE, {}),
    "ceiling": (completion(WHOLE), {**PRICE, "max_usd": 1e-6}),
}


@pytest.fixture
def silent_about(serve, monkeypatch) -> Callable[..., tuple[Server, Callable[[Sent], None]]]:
    """A server that does not answer the prompts of three pictures, until it is told what to say of them."""
    monkeypatch.setattr("aes_r1.aescot.chat.FAILURES_IN_A_ROW", 3)

    def start(judge: bool) -> tuple[Server, Callable[[Sent], None]]:
        said = [GONE]

        def answer(prompt: str, times: int) -> Sent:
            if "private information" not in prompt:
                return completion(VERDICT)
            number = next(n for n in range(30) if f"score of {(n + 0.5) / 30:.2f}" in prompt)
            return said[0] if number in (3, 13, 23) else completion(WHOLE)

        return serve(answer), lambda sent: said.__setitem__(0, sent)

    return start


def decided_files(out: Path) -> list[bytes]:
    return [(out / name).read_bytes() for name in ("aescot.jsonl", "rejected.jsonl")]


def no_drafts(out: Path) -> bool:
    return not [path for path in out.iterdir() if path.name.endswith(".partial")]


@pytest.mark.parametrize("judge", [False, True])
@pytest.mark.parametrize("end", STOPS)
@pytest.mark.slow
def test_a_start_that_is_ended_keeps_every_picture_that_was_decided(end, judge, silent_about, tmp_path):
    server, say = silent_about(judge)
    samples, out = pictures(tmp_path, 30), tmp_path / "out"
    first = build(samples, out, server.url, judge=judge, max_concurrency=1)
    assert first["rejected_by_reason"]["no_answer"] == 3
    before = decided_files(out)
    sent, values = STOPS[end]
    say(sent)
    if end == "ceiling":
        build(samples, out, server.url, judge=judge, max_concurrency=1, **values)
    else:
        with pytest.raises(ServerGone):
            build(samples, out, server.url, judge=judge, max_concurrency=1, **values)
    assert decided_files(out) == before
    assert no_drafts(out)
    report = json.loads((out / "distill_report.json").read_text())
    assert report["stopped"]
    assert {**report, "stopped": None} == first  # it describes the files beside it


@pytest.mark.parametrize("judge", [False, True])
@pytest.mark.parametrize("end", STOPS)
@pytest.mark.slow
def test_what_the_journal_answers_is_decided_when_the_server_is_gone(end, judge, silent_about, tmp_path):
    """As after a kill, which leaves the journal alone."""
    server, say = silent_about(judge)
    samples, out = pictures(tmp_path, 30), tmp_path / "out"
    build(samples, out, server.url, judge=judge, max_concurrency=1)
    kept = (out / "aescot.jsonl").read_bytes()
    answered = [row for row in read_rows(out / "rejected.jsonl") if row["reasons"] != ["no_answer"]]
    (out / "aescot.jsonl").unlink()
    (out / "rejected.jsonl").unlink()
    sent, values = STOPS[end]
    say(sent)
    asked = server.asked.total()
    if end == "ceiling":
        build(samples, out, server.url, judge=judge, max_concurrency=1, **values)
    else:
        with pytest.raises(ServerGone):
            build(samples, out, server.url, judge=judge, max_concurrency=1, **values)
    assert server.asked.total() - asked <= 3
    assert (out / "aescot.jsonl").read_bytes() == kept
    rejected = read_rows(out / "rejected.jsonl")
    assert [row for row in rejected if row["reasons"] != ["no_answer"]] == answered
    assert no_drafts(out)


@pytest.mark.slow
def test_the_files_are_whole_while_another_start_writes_them(serve, tmp_path):
    out, seen = tmp_path / "out", []

    def answer(prompt: str, times: int) -> Sent:
        seen.append([len(read_rows(out / name)) for name in ("aescot.jsonl", "rejected.jsonl")])
        return GONE if times == 1 and "score of 0.05" in prompt else completion(WHOLE)

    server, samples = serve(answer), pictures(tmp_path, 10)
    build(samples, out, server.url, max_concurrency=1)
    first = [len(read_rows(out / name)) for name in ("aescot.jsonl", "rejected.jsonl")]
    assert seen[-1] == [0, 0]
    build(samples, out, server.url, max_concurrency=1)
    assert len(seen) == 11
    assert seen[-1] == first
    assert len(read_rows(out / "rejected.jsonl")) == first[1] - 1


class Killed(BaseException):
    """Stands for a kill, after which nothing is tidied up."""


@pytest.mark.parametrize("before", ["replacing.json", "aescot.jsonl", "rejected.jsonl", "distill_report.json"])
@pytest.mark.slow
def test_a_kill_while_files_are_replaced_leaves_every_picture_in_one_of_them(before, serve, tmp_path, monkeypatch):
    """The next start is ended by its server, so that it decides fewer pictures than it found and keeps the files."""
    hears = {"3": GONE, "13": GONE}

    def answer(prompt: str, times: int) -> Sent:
        return next((hears[n] for n in hears if f"score of {(int(n) + 0.5) / 30:.2f}" in prompt), completion(WHOLE))

    server, samples, out = serve(answer), pictures(tmp_path, 30), tmp_path / "out"
    first = build(samples, out, server.url, max_concurrency=1)
    assert first["rejected_by_reason"]["no_answer"] == 2
    del hears["3"]
    rename = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if target == out / before:
            raise Killed
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(Killed):
            build(samples, out, server.url, max_concurrency=1)
    hears["13"] = error(401, "Incorrect API key provided")
    with pytest.raises(ServerGone):
        build(samples, out, server.url, max_concurrency=1)
    rows = [read_rows(out / name) for name in ("aescot.jsonl", "rejected.jsonl")]
    assert sorted(int(row["id"]) for row in [*rows[0], *rows[1]]) == list(range(30))
    report = json.loads((out / "distill_report.json").read_text())
    assert [report["kept"], report["rejected"]] == [len(rows[0]), len(rows[1])]
    assert report["kept"] == first["kept"] + (before != "replacing.json")
    assert no_drafts(out)
    assert not (out / "replacing.json").exists()


OF_A_START = ("wall_seconds", "mended")  # entries of a report that the files of pictures do not say


@pytest.mark.parametrize("lost", [None, ["kept"], ["first_reasons", "shortfalls", "mended"]])
@pytest.mark.parametrize("end", STOPS)
@pytest.mark.slow
def test_a_report_that_was_never_written_is_counted_in_the_files_that_stay(end, lost, silent_about, tmp_path):
    server, say = silent_about(judge=True)
    samples, out = pictures(tmp_path, 30), tmp_path / "out"
    first = build(samples, out, server.url, judge=True, max_concurrency=1)
    path = out / "distill_report.json"
    if lost is None:
        path.unlink()
    else:
        path.write_text(json.dumps({key: value for key, value in first.items() if key not in lost}))
    before = decided_files(out)
    sent, values = STOPS[end]
    say(sent)
    if end == "ceiling":
        build(samples, out, server.url, judge=True, max_concurrency=1, **values)
    else:
        with pytest.raises(ServerGone):
            build(samples, out, server.url, judge=True, max_concurrency=1, **values)
    assert decided_files(out) == before
    report = json.loads(path.read_text())
    assert report["stopped"]
    assert list(report) == list(report | first)
    for key in first.keys() - {"stopped", *OF_A_START}:
        assert report[key] == first[key], key


@pytest.mark.slow
def test_the_command_ends_in_its_summary_where_a_report_was_never_written(silent_about, tmp_path, capsys):
    server, say = silent_about(judge=False)
    pictures(tmp_path, 30)
    lines = "".join(f"{n}.png,{(n + 0.5) / 30},train\n" for n in range(30))
    (tmp_path / "labels.csv").write_text("image,mos,split\n" + lines)
    expert = ExpertSettings(
        **{"name": "openai", "model": "fake", "api_base": server.url, **PRICE}, retries=0, max_words=400, min_words=5
    )
    settings = DistillSettings(
        data=DataSettings(name="folder", root=str(tmp_path), workers=0),
        expert=expert,
        judge=JudgeSettings(name="none"),
        quotas={"good": 30},
        out=str(tmp_path / "out"),
        store=str(tmp_path / "store"),
    )
    distill.run(settings)
    said = capsys.readouterr().out
    (tmp_path / "out" / "distill_report.json").unlink()
    say(completion(WHOLE))
    distill.run(replace(settings, expert=replace(expert, max_usd=1e-6)))
    again = capsys.readouterr().out
    assert "stopped early: price ceiling" in again
    for line in said.splitlines():
        assert line in again or "USD" in line, line


@pytest.mark.slow
def test_a_picture_that_an_older_version_left_in_both_files_counts_once(silent_about, tmp_path):
    server, say = silent_about(judge=False)
    samples, out = pictures(tmp_path, 30), tmp_path / "out"
    build(samples, out, server.url, max_concurrency=1)
    kept, rejected = decided_files(out)
    twice = [row for row in kept.splitlines() if json.loads(row)["id"] in ("5", "6", "7")]
    (out / "rejected.jsonl").write_bytes(rejected + b"\n".join([*twice, b""]))
    say(error(401, "Incorrect API key provided"))
    (out / "aescot.jsonl").write_bytes(b"\n".join(kept.splitlines()[:-3]) + b"\n")
    with pytest.raises(ServerGone):
        build(samples, out, server.url, max_concurrency=1)
    ids = [row["id"] for name in ("aescot", "rejected") for row in read_rows(out / f"{name}.jsonl")]
    assert len(ids) == len(set(ids)) == 27


@pytest.mark.parametrize("known", [["gone"], ["39"], [str(n) for n in range(40)]])
@pytest.mark.slow
def test_a_stopped_start_examines_only_pictures_with_answers_and_buys_none(known, serve, tmp_path, monkeypatch):
    """The answers are to questions that are asked no more, and calls that are cheaper than the last one still fit."""
    measured = []
    monkeypatch.setattr(
        "aes_r1.aescot.expert.measure_pixels",
        lambda opened, then=pixels_expert.measure_pixels: measured.append(1) or then(opened),
    )
    status, kind, said = completion(VERDICT)
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    server = serve(lambda prompt, times: (status, kind, json.dumps({**json.loads(said), "usage": usage})))
    out = tmp_path / "out"
    with Journal(journal_path := tmp_path / "calls.jsonl") as journal:
        for name in known:
            subject = {"group": "judge", "role": "align", "dataset": "folder", "id": name, "model": "fake"}
            journal.append(f"key of {name}", {**subject, **GIVEN_UP})
    out.mkdir()
    journal_path.rename(out / "calls.jsonl")
    samples = [replace(sample, mos=0.5) for sample in pictures(tmp_path, 40)]
    align = tokens_in(judge_prompt("align", "word " * 80))
    build_aescot(
        samples,
        expert=ExpertSettings(name="pixels", max_concurrency=1, min_words=5, near_copy=None),
        judge=JudgeSettings(
            **{"name": "openai", "model": "fake", "api_base": server.url, **PRICE, "max_concurrency": 1},
            max_tokens=100,
            max_usd=(100 + 1.25 * align) * 1e-6,
        ),
        seed=0,
        out=out,
    )
    report = json.loads((out / "distill_report.json").read_text())
    assert report["stopped"].startswith("price ceiling")
    assert 1 <= server.asked.total() <= 5
    assert len(measured) <= 5 + len(set(known) & {sample.id for sample in samples})


@pytest.mark.parametrize("sent", [page(502), page(500), error(429, "slow down"), error(503, "model is loading")])
def test_what_passes_is_tried_again(sent, serve, tmp_path):
    server = serve(lambda prompt, times: sent if times == 1 else completion(WHOLE))
    assert build(pictures(tmp_path, 2), tmp_path / "out", server.url)["kept"] == 2


@pytest.mark.parametrize(
    "sent",
    [
        error(413, "Request Entity Too Large"),
        error(422, "max_tokens is too large"),
        (422, "application/json", '{"detail": [{"loc": ["body", "max_tokens"], "msg": "too large"}]}'),
        (422, "text/plain", "no"),
        (200, "application/json", "7"),
        (200, "application/json", ""),
        (200, "application/json", '{"choices": null}'),
        completion([{"type": "text", "text": WHOLE}]),
        completion({"light": "x"}),
    ],
)
@pytest.mark.slow
def test_an_answer_without_a_text_is_no_answer_and_in_one_line(sent, serve, tmp_path):
    report = build(pictures(tmp_path, 2), tmp_path / "out", serve(lambda prompt, times: sent).url, retries=0)
    assert report["rejected_by_reason"] == {"no_answer": 2}
    assert "Traceback" not in report["first_reasons"]["no_answer"]
    assert "\n" not in report["first_reasons"]["no_answer"]


@pytest.mark.parametrize("count", [-600, 0, None, "600", 6.5])
def test_a_number_that_counts_no_tokens_is_estimated(count, tmp_path):
    usage = SimpleNamespace(prompt_tokens=count, completion_tokens=count)
    message = SimpleNamespace(content=WHOLE, tool_calls=None, function_call=None)
    response = SimpleNamespace(choices=[SimpleNamespace(message=message, finish_reason="stop")], usage=usage)
    settings = ExpertSettings(name="openai", model="fake", api_base="http://127.0.0.1:1/v1", **PRICE)
    with Journal(tmp_path / "calls.jsonl") as journal:
        row = ChatModel(settings, journal)._row_of_response(
            "expert", Sample("0", "0.png", 0.5, "x", "train"), response, 0.0, 700
        )
    assert (row["prompt_tokens"], row["completion_tokens"]) == (700, tokens_in(WHOLE))
    assert row["usd"] > 0


@pytest.mark.slow
def test_nothing_kept_is_exit_code_1_with_the_reason(serve, tmp_path, capsys):
    server = serve(lambda prompt, times: completion("Lovely!"))
    pictures(tmp_path, 3)
    (tmp_path / "labels.csv").write_text("image,mos,split\n" + "".join(f"{n}.png,0.5,train\n" for n in range(3)))
    settings = DistillSettings(
        data=DataSettings(name="folder", root=str(tmp_path), workers=0),
        expert=ExpertSettings(name="openai", model="fake", api_base=server.url, retries=0),
        judge=JudgeSettings(name="none"),
        out=str(tmp_path / "out"),
        store=str(tmp_path / "store"),
    )
    with pytest.raises(SystemExit) as left:
        distill.run(settings)
    assert left.value.code == 1
    assert capsys.readouterr().err.splitlines()[-1] == "aes_r1: kept 0, rejected 2: invalid_json 2 (Lovely!)"
    # The third picture is the one that was held out for validation.


@pytest.mark.slow
def test_a_server_of_this_machine_is_not_asked_through_a_proxy(serve, tmp_path, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # no server listens there
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "example.org")
    server = serve(lambda prompt, times: completion(WHOLE))
    assert build(pictures(tmp_path, 1), tmp_path / "out", server.url, retries=0)["kept"] == 1


@pytest.mark.slow
def test_certificates_that_are_not_there_are_named(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    server = serve(lambda prompt, times: completion(WHOLE))
    with pytest.raises(InputError, match=r"SSL_CERT_FILE=/nowhere/ca\.pem"):
        build(pictures(tmp_path, 1), tmp_path / "out", server.url)


@pytest.mark.parametrize("api_base", ["127.0.0.1:8000/v1", "localhost:8000", "/v1", "http://"])
def test_an_address_without_a_scheme_is_refused_with_the_form_that_is_wanted(api_base):
    with pytest.raises(InputError, match="must be a URL"):
        ExpertSettings(name="openai", model="fake", api_base=api_base)


@pytest.mark.slow
def test_a_damaged_journal_names_its_line(serve, tmp_path):
    server, samples = serve(lambda prompt, times: completion(WHOLE)), pictures(tmp_path, 2)
    build(samples, tmp_path / "out", server.url, max_concurrency=1)
    journal = tmp_path / "out" / "calls.jsonl"
    first, second = journal.read_text().splitlines()
    journal.write_text(f"{first}\n{second[:40]}\n")
    with pytest.raises(InputError, match=r"calls.jsonl:2: .* delete the line"):
        build(samples, tmp_path / "out", server.url)
