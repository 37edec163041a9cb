"""The reward server as a generator's trainer meets it: a real process, real pictures, the client of the guide."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import signal
import socket
import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from PIL import Image
from starlette.requests import Request

from aes_r1.app.guard import HOSTS
from aes_r1.data.sample import PictureError
from aes_r1.reward_server import routes
from aes_r1.reward_server.__main__ import arguments, bind, hosts
from aes_r1.reward_server.batches import Batches, Closed, Full
from aes_r1.reward_server.routes import MAX_BODY, MAX_PARTS, largest_body
from aes_r1.scoring.critic import Critic, verdict
from aes_r1.scoring.rows import verdict_row
from aes_r1.scoring.uploads import MAX_BYTES
from aes_r1.settings import InputError
from tests import processes

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(talking_run, tmp_path_factory):
    """(URL, process) of a server that takes 4 pictures in a request."""
    command = [sys.executable, "-m", "aes_r1.reward_server", "--model", str(talking_run), "--port", "0"]
    process = processes.Popen(
        [*command, "--pictures", "4"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    said = process.stdout.readline()
    assert said.startswith("ready: http://127.0.0.1:"), said
    yield said.split()[1], process
    process.kill()


@pytest.fixture(scope="module")
def client(server):
    with httpx.Client(base_url=server[0], timeout=300) as client:
        yield client


def sent(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


@pytest.mark.slow
def test_a_picture_has_the_score_and_the_reasons_of_the_score_command(client, talking_run):
    """Three requests at once, of which one has three pictures: each gets its own, as if it were alone."""
    paths = sorted((talking_run / "pictures").glob("*.png"))[2:9:2]
    critic = Critic.load(talking_run)
    expected = [critic.score(path) for path in paths]

    async def at_once() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=client.base_url, timeout=300) as several:
            bodies = [{"images": [sent(one) for one in some]} for some in ([paths[0]], paths[1:], paths[:1])]
            return await asyncio.gather(*(several.post("/score", json=body) for body in bodies))

    first, rest, again = [answer.json() for answer in asyncio.run(at_once())]
    assert first["scores"] == again["scores"] == [expected[0].score]
    assert rest["scores"] == [one.score for one in expected[1:]]
    assert len(set(rest["scores"])) > 1
    for path, one, row in zip(paths[1:], expected[1:], rest["verdicts"], strict=True):
        assert {"path": str(path), **row} == verdict_row(str(path), one)


def test_the_client_of_the_guide_gets_rewards(server, talking_run):
    text = (ROOT / "docs" / "scoring.md").read_text()
    (code,) = re.findall(r"```python\n(import base64.*?)```", text, re.DOTALL)
    assert len(code.strip().splitlines()) <= 9
    names: dict = {}
    exec(code, names)
    buffer = io.BytesIO()
    Image.open(talking_run / "pictures" / "09.png").save(buffer, "PNG")
    (score,) = names["rewards"]([buffer.getvalue()], url=f"{server[0]}/score")
    assert score == Critic.load(talking_run).score(talking_run / "pictures" / "09.png").score


def test_flow_factory_gets_rewards_where_it_asks(client, talking_run):
    """The body is what its RemoteRewardClient sends."""
    picture = sent(talking_run / "pictures" / "03.png")
    body = {"prompt": ["a house"], "image": [picture], "video": None, "condition_images": None, "kwargs": None}
    (reward,) = client.post("/compute", json=body).json()["rewards"]
    assert [reward] == client.post("/score", json={"images": [f"data:image/png;base64,{picture}"]}).json()["scores"]


@pytest.mark.slow
def test_what_is_wrong_with_a_request_is_one_line(client, talking_run):
    picture, text = sent(talking_run / "pictures" / "03.png"), base64.b64encode(b"hello").decode()
    json_kind = {"content-type": "application/json"}
    for answer, status, why in (
        (client.post("/score", json={"images": [picture, text]}), 422, "images[1]: not a picture"),
        (client.post("/score", json={"images": ["/etc/passwd"]}), 422, "images[0]: is not whole base64"),
        (client.post("/compute", json={"image": [text]}), 422, "image[0]: not a picture"),
        (client.post("/score", json={"images": [picture] * 5}), 413, "5 pictures, at most 4 in a request"),
        (client.post("/score", json={"images": []}), 400, "a list of one picture or more"),
        (client.post("/score", json={"images": [{"path": "/etc/passwd"}]}), 400, "a list of one picture or more"),
        (client.post("/score", json=[picture]), 400, "a list of one picture or more"),
        (client.post("/score", content=b"[" * 90_000, headers=json_kind), 400, "no JSON"),
        (client.post("/score", content=b"\xff", headers=json_kind), 400, "no JSON"),
        (client.post("/score", content=b"[" * 200_000, headers=json_kind), 413, "200,000 lists, objects and items"),
        (client.post("/score", content=b"\x80\x04}\x94."), 415, "send JSON as application/json, with"),  # a pickle
        (client.post("/score", content=b"{}", headers={"content-type": "text/plain"}), 415, "with pictures as base64"),
        (client.post("/score", content=iter([b"{}"]), headers=json_kind), 411, "Content-Length"),
        (client.post("/score", json={}, headers={"origin": "http://evil.example"}), 403, "'http://evil.example'"),
        (client.get("/score"), 404, "GET /score: nothing is here"),
        (client.get("/docs"), 404, "nothing is here"),
        (client.options("/score"), 404, "nothing is here"),
    ):
        assert (answer.status_code, why in answer.json()["error"]) == (status, True), answer.text
        assert answer.text.count("\n") == 1
        assert "access-control-allow-origin" not in answer.headers
    refused = client.get("/health", headers={"host": "evil.example"})
    assert (refused.status_code, "host 'evil.example'" in refused.json()["error"]) == (400, True)
    assert client.get("/health", headers={"host": "localhost"}).status_code == 200


def test_a_body_over_the_limit_is_refused_unread(server):
    address = server[0].removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1])), timeout=60) as one:
        most = largest_body(4)
        one.sendall(f"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Length: {most + 1}\r\n\r\n".encode())
        assert b"413" in one.recv(4096).splitlines()[0]


def test_a_body_with_two_lengths_is_refused_unread(server):
    """The parser would believe Transfer-Encoding, whose body has no limit."""
    address = server[0].removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1])), timeout=60) as one:
        lengths = "Content-Length: 2\r\nTransfer-Encoding: chunked"
        one.sendall(f"POST /score HTTP/1.1\r\nHost: localhost\r\n{lengths}\r\n\r\n5\r\n".encode())
        assert b"411" in one.recv(4096).splitlines()[0]


def test_a_body_is_as_large_as_its_pictures_may_be():
    assert (4 * MAX_BYTES * 4 // 3, largest_body(64)) < (largest_body(4), MAX_BODY + 1)
    assert largest_body(4) < 4 * MAX_BYTES * 4 // 3 + 2_000_000
    assert largest_body(64) == largest_body(1000) == MAX_BODY


BODIES = {
    "lists": b'{"images":["a"],"x":[' + b"[]," * 500_000 + b"[]]}",
    "objects": b'{"images":["a"],"x":[' + b"{}," * 500_000 + b"{}]}",
    "keys": b'{"images":["a"]' + b"".join(b',"%d":0' % key for key in range(200_000)) + b"}",
    "numbers": b'{"images":["a"],"x":[' + b"1.5," * 500_000 + b"1]}",
    "texts": b'{"images":["a"],"x":[' + b'"aa",' * 500_000 + b'"a"]}',
    "pictures": b'{"images":[' + b'"aa",' * 500_000 + b'"a"]}',
    "depth": b"[" * 1_500_000,
}


@pytest.mark.parametrize("kind", BODIES)
def test_a_body_of_many_parts_takes_no_room(kind):
    """json.loads would take up to 25 times the body's size."""
    tracemalloc.start()
    with pytest.raises(routes._RequestRefused, match="lists, objects and items, at most 100,000") as refused:
        routes._parsed(BODIES[kind])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused.value.status == 413
    assert peak < len(BODIES[kind]) / 10


@pytest.mark.parametrize(
    "body", [b'{"images": ["a"], "images": ["b"]}', b'{"kwargs": [{"a": 1, "a": 1}], "image": []}']
)
def test_a_key_that_stands_twice_is_refused(body):
    """Of two lists of pictures only one would be answered."""
    with pytest.raises(
        routes._RequestRefused, match="a key stands twice in an object of the body; send every key once"
    ) as refused:
        routes._parsed(body)
    assert refused.value.status == 400


def test_pictures_with_prompts_are_parsed():
    """A large request of Flow-Factory: 64 pictures, and prompts with many commas and brackets."""
    body = {"image": ["A" * 100_000] * 64, "prompt": ["a [red, (old)] house, " * 500] * 64, "kwargs": {"a": [{}] * 64}}
    assert routes._parsed(json.dumps(body).encode()) == body
    fewest = b"[" + b"0," * (MAX_PARTS - 1) + b"0]"
    assert len(routes._parsed(fewest)) == MAX_PARTS


def test_health_says_how_the_model_is_asked(client, talking_run):
    health = client.get("/health").json()
    assert (health["status"], health["model"], health["samples"], health["waiting"]) == ("ok", str(talking_run), 4, 0)
    assert "never a photograph" in health["warning"]


def test_only_this_machine_is_listened_to_unless_told(server):
    port = int(server[0].rsplit(":", 1)[1])
    others = {entry[4][0] for entry in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    assert arguments().parse_args(["--model", "m"]).host == "127.0.0.1"
    assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    for other in {other for other in others if not other.startswith("127.")}:
        with socket.socket() as outside:
            outside.settimeout(3)
            assert outside.connect_ex((other, port)) != 0
    with bind("0.0.0.0", 0) as everywhere:
        assert everywhere.getsockname()[0] == "0.0.0.0"


@pytest.mark.parametrize("written", ["::1", "0:0:0:0:0:0:0:1"])
def test_the_host_of_the_printed_address_is_answered(written):
    assert "[::1]" in (hosts(written) or [])
    assert "127.0.0.5" in (hosts("127.0.0.5") or [])
    assert hosts("::") is None


def test_an_address_that_cannot_be_had_is_one_line(server):
    port = int(server[0].rsplit(":", 1)[1])
    taken = rf"--port={port}: cannot be listened on \(Address already in use\); give another --port$"
    with pytest.raises(InputError, match=taken):
        bind("127.0.0.1", port)
    with pytest.raises(InputError, match=r"give another --host, one of this machine$"):
        bind("192.0.2.1", 0)  # an address for examples, which no machine has
    with pytest.raises(InputError, match="--host=everywhere: must be an address"):
        bind("everywhere", 0)


def test_it_ends_when_it_is_told_to(server):
    """The last test with this server."""
    process = server[1]
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 0


class Brightness:
    """A critic whose score is a picture's brightness; `batches` holds how many it was asked about at a time."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def verdicts(self, pictures):
        self.batches.append(len(pictures))
        if any(picture.size == (13, 13) for picture in pictures):
            raise ZeroDivisionError
        levels = [picture.getpixel((0, 0))[0] / 255 for picture in pictures]
        return [verdict([f"<think>w</think><answer>{level:.2f}</answer>"], half_width=None) for level in levels]


def encoded(level: int, side: int = 8) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (level,) * 3).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def together(scenario) -> SimpleNamespace:
    """Run `scenario(batches)` beside Batches.run; what became of both, and the sizes of the batches."""
    critic = Brightness()

    async def both() -> SimpleNamespace:
        batches = Batches(critic, batch_size=3, max_queued=8)
        found = await asyncio.wait_for(scenario(batches), timeout=60)
        return SimpleNamespace(found=found, sizes=critic.batches, batches=batches)

    return asyncio.run(both())


def test_pictures_of_several_requests_share_batches_and_keep_their_places():
    async def scenario(batches):
        first = batches.add([encoded(51), encoded(102)], ["a", "b"])
        second = batches.add([encoded(153), "?", encoded(204)], ["c", "d", "e"])
        third = batches.add([encoded(255)], ["f"])
        third[0].cancel()  # nobody waits for it any more
        running = asyncio.create_task(batches.run())
        found = await asyncio.gather(*first, *second, *third, return_exceptions=True)
        running.cancel()
        return found

    done = together(scenario)
    scores = [getattr(one, "score", one) for one in done.found]
    assert (scores[:3], scores[4]) == ([0.2, 0.4, 0.6], 0.8)
    assert isinstance(scores[3], PictureError)
    assert str(scores[3]).startswith("d: ")
    assert isinstance(scores[5], asyncio.CancelledError)
    assert done.sizes == [3, 1]


def test_a_body_that_stalls_is_given_up(monkeypatch):
    monkeypatch.setattr(routes, "BODY_S", 0.05)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"10")]
    request = Request({"type": "http", "method": "POST", "headers": headers}, asyncio.Event().wait)
    with pytest.raises(routes._RequestRefused, match="the body took over") as refused:
        asyncio.run(routes._pictures(request, "images", 4))
    assert refused.value.status == 408


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8001", "LocalHost:8001", "[::1]:8001", "[::1]"])
def test_the_names_of_this_machine_are_answered(host):
    passed = []

    async def inner(scope, receive, send):
        passed.append(scope["headers"])

    names = routes.HostNames(inner, hosts=[*HOSTS, "[::1]"])
    asyncio.run(names({"type": "http", "headers": [(b"host", host.encode())]}, None, None))
    assert passed


def test_a_request_that_ends_frees_its_texts_at_once():
    async def scenario(batches):
        (answer,) = batches.add([encoded(0)], ["a"])
        (waiting,) = batches._waiting._queue
        assert waiting.data == encoded(0)
        answer.cancel()
        await asyncio.sleep(0)
        return waiting.data

    assert together(scenario).found is None


def test_what_waits_has_a_limit():
    async def scenario(batches):
        batches.add([encoded(0)] * 6, ["a"] * 6)
        with pytest.raises(Full):
            batches.add([encoded(0)] * 3, ["b"] * 3)
        return batches.add([encoded(0)] * 2, ["b"] * 2)

    assert together(scenario).batches.waiting == 8


def test_an_error_of_the_model_ends_the_scoring_and_what_waits_is_told():
    async def scenario(batches):
        coming = batches.add([encoded(0, side=13)] * 5, ["a"] * 5)
        running = asyncio.create_task(batches.run())
        found = await asyncio.gather(*coming, return_exceptions=True)
        with pytest.raises(ZeroDivisionError):
            await running
        with pytest.raises(Closed):
            batches.add([encoded(0)], ["b"])
        return found

    assert [type(one) for one in together(scenario).found] == [Closed] * 5


def test_health_answers_where_the_name_of_the_model_is_no_utf_8():
    critic = SimpleNamespace(samples=1, profile=SimpleNamespace(temperature=0.6, warning=lambda: None))
    server = routes.build_server(
        Batches(critic, batch_size=1, max_queued=1),
        model="caf\udce9",
        max_pictures=1,
        unanswered=None,
        hosts=None,
        ended=lambda _: None,
    )

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(server), base_url="http://test") as client:
            return await client.get("/health")

    answer = asyncio.run(ask())
    assert answer.status_code == 200
    assert answer.json()["model"] == "caf\\udce9"
