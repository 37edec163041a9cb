"""The page as its users meet it: a real server, a real headless Chromium, and requests that no page would send."""

import base64
import csv
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx
import pytest
from PIL import Image

from aes_r1.app.cards import NEWEST
from aes_r1.app.page import forget, serve_page
from aes_r1.app.visits import Visits
from aes_r1.data.sample import PictureError
from aes_r1.inference.asking import ModelProfile
from aes_r1.scoring.critic import Critic, verdict
from aes_r1.scoring.uploads import FORMATS, MAX_BYTES, read_upload
from tests.ports import free_port

pytest.importorskip("gradio", reason="the extra app is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WAIT_MS = 120_000  # time limit of the browser; on an idle machine everything takes under a second
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def address(talking_run, tmp_path_factory):
    port = free_port()
    log = tmp_path_factory.mktemp("app") / "log"
    command = [sys.executable, "-m", "aes_r1.app", "--model", str(talking_run), "--port", str(port)]
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        deadline = time.monotonic() + 300
        while "http://" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
        process.terminate()


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: install chromium to test the page in a browser")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


def visit(browser, address, **options):
    """Return (page, every address that it requested, every error) of a new visitor."""
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(WAIT_MS)
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("response", lambda answer: errors.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    page.goto(address)
    page.wait_for_selector("#zone input", state="attached")
    return page, asked, errors


def drop(page, *paths):
    page.set_input_files("#zone input", [str(path) for path in paths])


def wait_for_cards(page, count):
    page.wait_for_function(
        f"document.querySelectorAll('#results .card').length == {count}"
        " && !document.querySelector('#results .waiting')",
    )


@pytest.mark.slow
def test_upload_wait_read_the_score(browser, address, talking_run, tmp_path):
    page, asked, errors = visit(browser, address)
    (tmp_path / "text.jpg").write_text("hello")
    paths = [talking_run / "pictures" / name for name in ("02.png", "09.png")]
    drop(page, *paths, tmp_path / "text.jpg")
    wait_for_cards(page, 3)
    critic = Critic.load(talking_run)
    for path in paths:
        card = page.locator("#results .card", has_text=path.name)
        expected = critic.score(path)
        assert card.locator(".score b").inner_text() == f"{expected.score:.2f}"
        assert "holds the mean opinion of 9 in 10 pictures like those of folder/test" in card.inner_text()
        assert card.locator(".answer").count() == 4
        assert card.locator("dd").count() == 5
        link = card.locator("a.save")
        assert link.get_attribute("download") == f"{path.stem}.json"
        saved = json.loads(unquote(link.get_attribute("href").split(",", 1)[1]))
        assert (saved["score"], saved["critique"]) == (expected.score, expected.critique)
        assert card.locator("img").evaluate("image => image.naturalWidth") == 60
    assert "not a picture that can be read" in page.locator("#results .card", has_text="text.jpg").inner_text()

    page.get_by_role("tab", name="Compare").click()
    page.wait_for_selector("#duel .finding")
    assert re.search(r"0\d\.png is ahead in \d+% of pairs", page.locator("#duel .finding").inner_text())
    assert page.locator("#duel .side").count() == 2
    # Only this server was contacted, and no request named a file's path.
    assert {urlsplit(url).hostname for url in asked if not url.startswith("data:")} == {"127.0.0.1"}
    assert not [url for url in asked if "file=" in url or "/upload" in url]
    assert errors == []
    # Nor does the browser keep photographs or results when the tab is closed, as Gradio's history of runs would.
    kept = page.evaluate("async () => (await indexedDB.databases()).map(one => one.name)")
    assert (kept, page.evaluate("Object.keys(localStorage)")) == ([], [])
    page.context.close()


@pytest.mark.slow
def test_results_stay_over_a_reload_are_sorted_and_saved_together(browser, address, talking_run):
    page, _, errors = visit(browser, address, viewport={"width": 1280, "height": 900})

    def width():
        return page.locator(".drop").bounding_box()["width"]

    empty = width()
    assert empty > 1000
    paths = [talking_run / "pictures" / name for name in ("09.png", "02.png", "11.png")]
    drop(page, *paths)
    wait_for_cards(page, 3)
    assert width() == empty
    spoken = page.locator("#spoken")
    assert (spoken.get_attribute("role"), spoken.get_attribute("aria-live")) == ("status", "polite")
    assert re.fullmatch(r"\d\d\.png: score 0\.\d\d", spoken.text_content())

    page.reload()
    wait_for_cards(page, 3)
    page.get_by_label("Order").click()
    page.get_by_role("option", name="Lowest score first").click()
    sorted_now = "(s => s.length == 3 && s[0] <= s[1] && s[1] <= s[2])"
    scores = "[...document.querySelectorAll('#results .score b')].map(score => Number(score.dataset.score))"
    page.wait_for_function(f"{sorted_now}({scores})")
    with page.expect_download() as saved:
        page.get_by_role("link", name="Download all as CSV").click()
    rows = list(csv.DictReader(saved.value.path().open(encoding="utf-8")))
    assert sorted(row["path"] for row in rows) == sorted(path.name for path in paths)
    critic = Critic.load(talking_run)
    for path, row in zip(sorted(paths), sorted(rows, key=lambda row: row["path"]), strict=True):
        assert float(row["score"]) == pytest.approx(critic.score(path).score, abs=1e-4)
    page.get_by_role("tab", name="Compare").click()
    page.wait_for_selector("#duel .finding")
    assert width() == empty
    assert errors == []
    page.context.close()

    other, _, _ = visit(browser, address)  # another tab, another visit
    other.reload()
    other.wait_for_selector("#zone input", state="attached")
    assert other.locator("#results .card").count() == 0
    other.context.close()


@pytest.mark.slow
def test_the_thirteenth_file_is_refused_aloud(browser, address, tmp_path):
    page, _, _ = visit(browser, address)
    files = [tmp_path / f"{number:02d}.jpg" for number in range(15)]
    for file in files:
        file.write_text("hello")
    drop(page, *files)
    refusal = page.locator("#refusal")
    assert refusal.get_attribute("role") == "alert"
    message = "Only 12 at a time. Not taken: 12.jpg, 13.jpg, 14.jpg."
    assert refusal.inner_text() == message
    wait_for_cards(page, 12)
    assert refusal.inner_text() == message  # until the next drop
    drop(page, files[0])
    wait_for_cards(page, 13)
    assert not refusal.is_visible()
    page.context.close()


@pytest.mark.slow
def test_two_users_at_once_see_their_own(browser, address, talking_run):
    users = [visit(browser, address)[0] for _ in range(2)]
    names = [("00.png", "01.png"), ("10.png", "11.png")]
    for page, dropped in zip(users, names, strict=True):
        drop(page, *(talking_run / "pictures" / name for name in dropped))
    for page, dropped in zip(users, names, strict=True):
        wait_for_cards(page, 2)
        assert sorted(page.locator("#results .card .name").all_inner_texts()) == sorted(dropped)
    scores = [[float(text) for text in page.locator("#results .score b").all_inner_texts()] for page in users]
    assert max(scores[0]) < min(scores[1])
    for page in users:
        page.context.close()


@pytest.mark.slow
def test_a_phone_in_the_dark(browser, address, talking_run):
    page, _, _ = visit(browser, address, color_scheme="dark", viewport={"width": 390, "height": 844})
    drop(page, talking_run / "pictures" / "08.png")
    wait_for_cards(page, 1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    light = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert max(light[:3]) < 60
    page.context.close()


@pytest.mark.slow
def test_the_server_takes_and_gives_no_file_by_its_path(address, talking_run):
    with httpx.Client(base_url=address, timeout=120) as client:
        for path in (
            "/gradio_api/file=/etc/passwd", "/file=/etc/passwd", f"/gradio_api/file={talking_run}/settings.json",
            "/gradio_api/proxy=http://127.0.0.1:9/", "/static/../../../etc/passwd",
            "/gradio_api/stream/a/b/c/playlist.m3u8",
            "/gradio_api/custom_component/a/b/c/d", "/monitoring", "/docs", "/openapi.json", "/gradio_api/runs",
        ):  # fmt: skip
            answer = client.get(path)
            assert answer.status_code == 404, path
            assert b"root:" not in answer.content
        for path in (
            "/gradio_api/upload",
            "/gradio_api/run/judge",
            "/gradio_api/api/judge",
            "/gradio_api/component_server",
        ):
            assert client.post(path, json={"data": []}).status_code == 404, path
        assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
        policy = client.get("/").headers["content-security-policy"]
        assert "connect-src 'self'" in policy
        too_large = b"x" * (MAX_BYTES * 2)
        assert client.post("/gradio_api/queue/join", content=too_large).status_code == 413
        # A path where the picture should be, or where a component's value should be, is refused unread.
        config = client.get("/config").json()
        place = next(one["id"] for one in config["dependencies"] if any(t[1] == "upload" for t in one["targets"]))
        secret = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}, "orig_name": "passwd"}
        for data, event in (([None], {"name": "/etc/passwd", "data": secret}), ([secret], {"name": "a", "data": None})):
            asked = {"data": data, "fn_index": place, "session_hash": "s", "event_data": event, "trigger_id": None}
            assert client.post("/gradio_api/queue/join", json=asked).status_code == 200
            with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": "s"}) as stream:
                output = "".join(stream.iter_text())
            assert "root:" not in output
            assert "larger than" in output or '"success":false' in output.replace(" ", "")


@pytest.mark.slow
def test_only_this_machine_is_listened_to(address):
    port = urlsplit(address).port
    others = {entry[4][0] for entry in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    others = {other for other in others if not other.startswith("127.")}
    if not others:
        pytest.skip("this machine has no address but the loopback")
    for other in others:
        with socket.socket() as outside:
            outside.settimeout(3)
            assert outside.connect_ex((other, port)) != 0


@pytest.mark.slow
def test_a_taken_port_is_one_line(address, talking_run):
    command = [sys.executable, "-m", "aes_r1.app", "--model", str(talking_run), "--port", str(urlsplit(address).port)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if line.startswith("aes_r1: --port=")]


def test_an_upload_is_a_photograph_within_its_limits(tmp_path):
    def sent(body):
        return base64.b64encode(body).decode()

    for data, reason in (
        (None, "is no text"),
        ({"path": "/etc/passwd"}, "is no text"),
        ("A" * (MAX_BYTES * 4 // 3 + 8), "larger than 15 MB"),
        ("not base64!", "is not whole base64"),
        ("größe", "is not whole base64"),
        (sent(b"hello"), "not a picture"),
        (sent(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"), "PostScript"),
        (sent(Path(__file__).read_bytes()), "not a picture"),
    ):
        with pytest.raises(PictureError, match=reason) as error:
            read_upload("a.jpg", data)
        assert error.value.path == "a.jpg"


def test_the_guide_names_the_formats_of_an_upload():
    guide = " ".join((Path(__file__).parents[2] / "docs" / "scoring.md").read_text().split())
    named = re.search(r"60 megapixels; ([^)]*) by content\)", guide)[1].replace(" with the extra photos", "")
    assert [name.upper() for name in re.split(", | or ", named)] == list(FORMATS)


class Mute:
    """A critic that looks at a picture and says nothing that can be read."""

    samples = 1
    profile = ModelProfile(temperature=1.0)

    def score(self, picture):
        return verdict(["no answer"], half_width=None)


@pytest.fixture
def served(monkeypatch):
    """A page in this process: (it, its visits, a function that drops a photograph and returns the page's events)."""
    made, port = [], free_port()
    monkeypatch.setattr("aes_r1.app.page._FORGET_S", 0.1)
    monkeypatch.setattr("aes_r1.app.page.Visits", lambda: made.append(Visits()) or made[0])
    blocks = serve_page(Mute(), port=port, block=False)

    def dropped(name, visit, session):
        picture = io.BytesIO()
        Image.effect_noise((320, 240), 80).save(picture, "PNG")
        event = {"name": name, "data": base64.b64encode(picture.getvalue()).decode(), "visit": visit}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            dependencies = client.get("/config").json()["dependencies"]
            place = next(one["id"] for one in dependencies if any(t[1] == "upload" for t in one["targets"]))
            asked = {"data": [None, NEWEST], "fn_index": place, "session_hash": session, "event_data": event}
            body, kind = json.dumps({**asked, "trigger_id": None}), {"Content-Type": "application/json"}
            assert client.post("/gradio_api/queue/join", content=body, headers=kind).status_code == 200
            with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
                return "".join(stream.iter_text())

    yield blocks, made[0], dropped
    blocks.close()


@pytest.mark.slow
def test_no_page_of_another_site_has_anything_scored(served, monkeypatch):
    """Not even one of another server of this machine, to which Gradio would answer."""
    blocks, scored, picture = served[0], [], io.BytesIO()
    monkeypatch.setattr(Mute, "score", lambda _, picture: scored.append(picture))
    Image.new("RGB", (64, 64)).save(picture, "PNG")
    event = {"name": "a", "data": base64.b64encode(picture.getvalue()).decode(), "visit": "v" * 36}
    body = json.dumps({"data": [None, NEWEST], "fn_index": 0, "session_hash": "abc", "event_data": event})
    simple = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None)
    with httpx.Client(base_url=blocks.local_url, timeout=60) as client:
        assert client.get("/config", headers={"Host": "attacker.example"}).status_code == 400

        def posted(path, origin, kind):
            headers = {"Origin": origin, "Content-Type": kind}
            given = {name: value for name, value in headers.items() if value is not None}
            return client.post(f"/gradio_api/{path}", content=body, headers=given).status_code

        for origin in ("http://attacker.example", "http://localhost:3000", "null"):
            assert client.get("/config", headers={"Origin": origin}).status_code == 403
            for path in ("queue/join", "cancel", "reset"):
                assert {posted(path, origin, kind) for kind in ("application/json", *simple)} == {403}
        assert {posted("queue/join", None, kind) for kind in simple} == {415}
        assert posted("queue/join", blocks.local_url.rstrip("/"), "application/json") == 200
        deadline = time.monotonic() + 60
        while not scored and time.monotonic() < deadline:
            time.sleep(0.05)
    assert len(scored) == 1, "the page's own alone"


@pytest.mark.slow
def test_what_is_over_is_forgotten(served):
    blocks, visits, dropped = served
    dropped("old.jpg", "a" * 36, "old")
    kept = blocks.app.state_holder
    forget(blocks, visits)
    assert len(visits) == 1
    assert "old.jpg" in repr(kept.session_data["old"].config_values), "the cards"
    kept.time_last_used["old"] -= timedelta(seconds=visits.seconds)
    dropped("new.jpg", "b" * 36, "new")
    visits.now = lambda: time.monotonic() + visits.seconds
    forget(blocks, visits)
    assert len(visits) == 0
    assert list(kept.session_data) == list(kept.time_last_used) == ["new"]
    assert "old.jpg" not in repr(kept.session_data["new"].config_values)


@pytest.mark.slow
def test_a_page_forgets_without_a_visitor(served):
    _, visits, dropped = served
    dropped("a.jpg", "a" * 36, "one")
    assert len(visits) == 1
    visits.now = lambda: time.monotonic() + visits.seconds
    deadline = time.monotonic() + 60
    while len(visits):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("name", ["\ud800.jpg", "a/b\udcff.jpg"])
@pytest.mark.slow
def test_a_name_of_half_a_character_is_judged(served, name):
    events = served[2](name, "a" * 36, "one")
    assert "?.jpg: no answer that can be read" in events
    assert '"success":false' not in events.replace(" ", "")
