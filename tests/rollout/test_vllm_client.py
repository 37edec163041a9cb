"""What a server may do to the client: hang, answer with anything, and be closed while an answer is awaited."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from aes_r1.rollout.failures import ServersGone, Unusable
from aes_r1.rollout.vllm_client import Servers, Weights


class Odd:
    """A server that answers each route with fixed bytes, and hangs at a route that has none."""

    def __init__(self, **bodies: bytes) -> None:
        self.asked: list[str] = []
        self.free = threading.Event()
        odd = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                route = self.path.split("?")[0].strip("/").replace("/", "_")
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                odd.asked.append(route)
                body = bodies.get(route)
                if body is None:
                    odd.free.wait(60)
                    body = b"{}"
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET  # noqa: N815, the name that http.server calls

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def close(self) -> None:
        self.free.set()
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def serve() -> Iterator:
    made: list[Odd] = []

    def start(**bodies: bytes) -> Odd:
        made.append(Odd(**bodies))
        return made[-1]

    yield start
    for one in made:
        one.close()


def no_check(_: object) -> None:
    pass


@pytest.mark.slow
def test_many_requests_try_a_server_once_that_hangs_at_its_weights(serve, tmp_path):
    server = serve(weight_info=b'{"weight_version": "old"}')
    servers = Servers([server.url], patience=1.0)
    weights = Weights("new", tmp_path / "new")
    began = time.monotonic()

    def hold(_: int) -> str:
        with pytest.raises(Unusable) as caught:
            servers.servers[0].hold(weights, timeout=0.5)
        return str(caught.value)

    with ThreadPoolExecutor(16) as pool:
        said = list(pool.map(hold, range(16)))
    assert time.monotonic() - began < 4, "not 16 times half a second"
    assert server.asked.count("pause") == 1
    assert sum("from another request" in one or "longer than" in one for one in said) == 15
    servers.close()


@pytest.mark.slow
def test_closing_ends_a_request_that_waits_for_its_answer(serve):
    server = serve()
    servers = Servers([server.url], patience=120.0)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(servers.ask, {}, Weights(), first=0, check=no_check)
        while not server.asked:
            time.sleep(0.01)
        began = time.monotonic()
        servers.close()
        with pytest.raises(ServersGone):
            waiting.result(timeout=30)
    assert time.monotonic() - began < 5
    assert not server.free.is_set(), "the server has not answered"


@pytest.mark.parametrize("body", [b"\xff\xfe{}", b"{", b"", b"<html>", b"[]", b"7", b"null", b'{"version": "1"}'])
@pytest.mark.slow
def test_any_body_is_no_usable_answer(body, serve, tmp_path):
    server = serve(weight_info=body, inference_v1_generate=body)
    servers = Servers([server.url], patience=0.3)
    weights = Weights("new", tmp_path / "new")
    servers.hold(weights)  # a server that cannot be used gets its weights once it is back
    with pytest.raises(ServersGone) as caught:
        servers.ask({}, weights, first=0, check=no_check)
    assert "\n" not in str(caught.value)
    servers.close()
