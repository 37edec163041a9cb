"""Pictures as a user names them, and URLs of a real server that misbehaves in every way."""

import io
import os
import socket
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from aes_r1.data.sample import PictureError
from aes_r1.scoring.inputs import LastingError, UrlLimits, find_pictures, read_picture, skipped_line


@pytest.fixture
def folder(tmp_path):
    for name in ("b.jpg", "a.PNG", "deep/er/c.webp", "notes.txt", ".hidden.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_a_glob_over_folders_that_are_linked_in_a_circle_yields_each_file_once(folder):
    (folder / "deep" / "up").symlink_to(folder)
    (folder / "same.jpg").symlink_to("b.jpg")
    found = list(find_pictures([f"{folder}/**/*.*"]))
    assert found == sorted(f"{folder}/{name}" for name in ("a.PNG", "b.jpg", "deep/er/c.webp", "notes.txt", "same.jpg"))
    assert list(find_pictures([f"{folder}/deep/up/*.jpg"])) == [
        f"{folder}/deep/up/{name}.jpg" for name in ("b", "same")
    ]


@pytest.mark.parametrize("url", ["http://\u2603/a.jpg", "http://127.0.0.1:1/\u00e9.jpg"])
def test_a_letter_that_no_url_may_hold_is_said_with_the_way_out(url):
    with pytest.raises(LastingError, match="holds a letter that no URL may hold; write it as %XX"):
        read_picture(url, UrlLimits(1000, 2.0))


def test_folders_files_and_globs_in_their_order(folder):
    def below(found):
        return [one.removeprefix(f"{folder}/") for one in found]

    assert below(find_pictures([str(folder)])) == ["a.PNG", "b.jpg", "deep/er/c.webp"]
    assert below(find_pictures([f"{folder}/**/*.webp", f"{folder}/notes.txt"])) == ["deep/er/c.webp", "notes.txt"]
    assert below(find_pictures([f"{folder}/gone.jpg"])) == ["gone.jpg"]  # named when it is opened
    (folder / "[1].jpg").touch()
    assert below(find_pictures([f"{folder}/[1].jpg"])) == ["[1].jpg"]


def test_what_a_folder_holds_besides_is_counted_by_suffix(tmp_path):
    """A phone's folder: no file is skipped without a message."""
    names = (
        "a.heic",
        "b.HEIC",
        "c.jfif",
        "d.dng",
        "e.mpo",
        "f.jpg",
        "clip.MOV",
        "IMG.AAE",
        "x.aae",
        "README",
        ".g.jpg",
    )
    hidden = (".thumbnails/j.jpg", ".git/k.png", "deep/.Trash/l.jpg", "deep/.Trash/deeper/m.jpg")
    for name in (*names, ".DS_Store", "deep/h.nef", "deep/i.avif", *hidden):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    (tmp_path / "album").symlink_to(tmp_path / "deep")
    skipped = Counter()
    found = [one.removeprefix(f"{tmp_path}/") for one in find_pictures([str(tmp_path)], skipped=skipped)]
    assert found == ["a.heic", "b.HEIC", "c.jfif", "d.dng", "e.mpo", "f.jpg", "deep/i.avif"]
    kinds = {".aae": 2, ".mov": 1, "without a suffix": 1, ".nef": 1}
    assert skipped == {**kinds, "hidden picture": 1, "hidden folder": 3, "linked folder": 1}
    assert skipped_line(skipped).startswith("3 hidden folders, 2 .aae, 1 ")
    (below,) = find_pictures([f"{tmp_path}/.thumbnails"])
    assert below == f"{tmp_path}/.thumbnails/j.jpg", "a hidden folder that is named itself is meant"


def test_a_fifo_in_a_folder_is_named_and_does_not_wait(tmp_path):
    os.mkfifo(tmp_path / "x.jpg")
    (found,) = find_pictures([str(tmp_path)])
    with pytest.raises(PictureError, match="save the picture to a file first"):
        read_picture(found)


@pytest.mark.parametrize("what", ["hidden folder", "linked folder", "hidden picture"])
def test_what_was_passed_over_has_its_plural(what):
    assert skipped_line(Counter({what: 1, ".txt": 1})) == f"1 {what}, 1 .txt"
    assert (
        skipped_line(Counter({".txt": 12, what: 2, "without a suffix": 2})) == f"12 .txt, 2 {what}s, 2 without a suffix"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_cannot_be_read_is_named(folder):
    (folder / "deep").chmod(0)
    found = list(find_pictures([str(folder)]))
    (folder / "deep").chmod(0o755)
    assert [one.reason for one in found if isinstance(one, PictureError)] == [
        "a folder that cannot be read (Permission denied)"
    ]


def test_a_file_address_is_a_path(folder):
    (folder / "a b.jpg").touch()
    assert list(find_pictures([f"file://{folder}/a%20b.jpg"])) == [f"{folder}/a b.jpg"]
    assert list(find_pictures(["//[half an address]"])) != []  # no traceback of urlsplit


def test_what_names_nothing_is_said(folder):
    (folder / "words").mkdir()
    (folder / "words" / "a.txt").touch()
    found = list(find_pictures([f"{folder}/empty", f"{folder}/words", f"{folder}/*.gif", "https://example.org/a.jpg"]))
    assert [one.reason for one in found] == [
        "no picture in this folder",
        "no picture in this folder; it holds 1 .txt",
        "no file matches",
        "URLs are not fetched unless --urls is given",
    ]
    with pytest.raises(PictureError, match="--urls"):
        read_picture("https://example.org/a.jpg")


class Server(BaseHTTPRequestHandler):
    """/good is a picture; the others are what their names say."""

    def do_GET(self):
        body = io.BytesIO()
        Image.new("RGB", (40, 30), "red").save(body, "PNG")
        if self.path == "/good":
            self.answer(body.getvalue())
        elif self.path == "/text":
            self.answer(b"hello")
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            while self.put(b"x" * 65536):
                pass
        elif self.path == "/trickle":
            self.send_response(200)
            self.end_headers()
            while self.put(b"x"):
                time.sleep(0.05)
        elif self.path == "/trickling-header":
            self.put(b"HTTP/1.0 200 OK\r\n")
            while self.put(b"X: y\r\n"):
                time.sleep(0.05)
        elif self.path.startswith("/on-and-on/"):
            time.sleep(0.1)
            self.send_response(302)
            self.send_header("Location", f"{self.path}x")
            self.end_headers()
        elif self.path == "/silent":
            time.sleep(60)
        elif self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", {"/to/good": "/good", "/to/file": "file:///etc/passwd"}[self.path])
            self.end_headers()
        else:
            self.send_error(503 if self.path == "/busy" else 404)

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def put(self, body):
        try:
            self.wfile.write(body)
            self.wfile.flush()
        except OSError:
            return False
        return True

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("scheme", ["ftp", "FTP", "gopher", "file"])
@pytest.mark.slow
def test_a_redirect_to_another_protocol_is_refused_unasked(status, scheme):
    """The server that it names gets no connection, also after a redirect that is followed."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(0.2)
        target = f"{scheme}://127.0.0.1:{other.getsockname()[1]}/a.jpg"

        class Redirects(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.send_header("Location", "/again" if self.path == "/" else target)
                self.end_headers()

            def log_message(self, *_):
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Redirects) as redirects:
            threading.Thread(target=redirects.serve_forever, daemon=True).start()
            with pytest.raises(PictureError, match=r"redirect to ftp; only http|not allowed") as error:
                read_picture(f"http://127.0.0.1:{redirects.server_port}/", UrlLimits(seconds=30))
            redirects.shutdown()
        assert "only http" in error.value.reason or scheme not in ("ftp", "FTP")
        with pytest.raises(TimeoutError):
            other.accept()


@pytest.mark.slow
def test_a_url_is_read_within_its_limits(server):
    limits, hasty = UrlLimits(max_bytes=1_000_000, seconds=60), UrlLimits(max_bytes=1_000_000, seconds=0.6)
    assert read_picture(f"{server}/good", limits).size == (40, 30)
    assert read_picture(f"{server}/to/good", limits).size == (40, 30)
    for path, within, reason in [
        ("text", limits, "not a picture"),
        ("endless", limits, "more than 1,000,000 bytes"),
        ("trickle", hasty, r"longer than 0\.6 s"),
        ("silent", hasty, r"longer than 0\.6 s"),
        ("trickling-header", hasty, r"longer than 0\.6 s"),
        ("on-and-on/", hasty, r"longer than 0\.6 s"),
        ("gone", limits, "Not Found"),
        ("busy", limits, "Service Unavailable"),
        ("to/file", limits, "not allowed"),
    ]:
        began = time.monotonic()
        with pytest.raises(PictureError, match=reason) as error:
            read_picture(f"{server}/{path}", within)
        if within is hasty:
            assert time.monotonic() - began < 3
        assert error.value.path == f"{server}/{path}"
        assert isinstance(error.value, LastingError) == (path in ("text", "gone", "to/file")), path
    with pytest.raises(PictureError, match="refused") as refused:
        read_picture("http://127.0.0.1:9/a.jpg", limits)
    assert not isinstance(refused.value, LastingError), "the server may be back"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://127.0.0.1/a.jpg", "only http"),
        ("data:,a", "only http"),
        ("http://[half", "IPv6"),
        ("http://h:x/", "port"),
    ],
)
def test_an_address_that_can_never_be_fetched_is_told_apart(url, reason):
    with pytest.raises(LastingError, match=reason):
        read_picture(url, UrlLimits(seconds=60))
