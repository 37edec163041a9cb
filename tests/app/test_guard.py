"""Which requests the page's server answers at all."""

import asyncio

import pytest

from aes_r1.app.guard import Guard

JSON = (b"content-type", b"application/json")


def answer(method, path, headers, **options):
    """The status and the body with which a guard of at most 100 bytes answers."""
    sent = []

    async def inner(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    asyncio.run(Guard(inner, max_body=100, **options)(scope, None, send))
    return sent[0]["status"], sent[-1].get("body", b"")


def status(method, path, headers):
    """The status alone."""
    return answer(method, path, headers)[0]


def test_a_refused_kind_of_body_is_told_what_to_send():
    headers = [(b"content-length", b"10"), (b"content-type", b"text/plain")]
    refusal = b"Content-Type 'text/plain': send JSON as application/json"
    for hint in ("", ", with pictures as base64"):
        code, body = answer("POST", "/gradio_api/cancel", headers, hint=hint)
        assert (code, refusal + hint.encode() + b'"}' in body) == (415, True), body


@pytest.mark.parametrize("path", ["/gradio_api/queue/join", "/gradio_api/cancel", "/gradio_api/reset"])
def test_what_is_posted_is_json(path):
    """Every other kind can be sent by a page of another site; it must ask first whether it may send JSON."""
    length = (b"content-length", b"10")
    for kind in (b"application/json", b"Application/JSON; charset=utf-8", b" application/json "):
        assert status("POST", path, [length, (b"content-type", kind)]) == 200
    simple = (b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=x", b"")
    for kind in (*simple, b"text/plain; application/json", b"text/json", b"application/x+json", b"\xff"):
        assert status("POST", path, [length, (b"content-type", kind)]) == 415
    assert status("POST", path, [length]) == 415
    assert status("OPTIONS", path, []) == 404


@pytest.mark.parametrize("length", [b"101", b"9" * 5000, b"-1", b"ten", b"", b"\xb2"])
def test_a_body_of_an_impossible_length_is_not_read(length):
    assert status("POST", "/gradio_api/cancel", [(b"content-length", length), JSON]) == 413


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_page_of_another_address_is_not_answered(method):
    path = {"GET": "/config", "POST": "/gradio_api/queue/join"}[method]
    own = [(b"content-length", b"10"), JSON, (b"host", b"LocalHost:7860")]
    for origin in (b"http://localhost:7860", b"https://localhost:7860", b"HTTP://localhost:7860"):
        assert status(method, path, [*own, (b"origin", origin)]) == 200
    others = (b"http://localhost", b"http://localhost:3000", b"http://127.0.0.1:7860", b"http://attacker.example")
    for origin in (*others, b"null", b"", b"localhost:7860", b"http://localhost:7860@attacker.example", b"\xff"):
        assert status(method, path, [*own, (b"origin", origin)]) == 403
    assert status(method, path, own) == 200, "a program, which is no page"


def test_a_body_of_unknown_length_is_refused():
    join = "/gradio_api/queue/join"
    assert status("POST", join, [(b"content-length", b"100"), JSON]) == 200
    assert status("POST", join, [(b"content-length", b"101"), JSON]) == 413
    assert status("POST", join, [(b"content-length", b"-1")]) == 413
    assert status("POST", join, [(b"transfer-encoding", b"chunked")]) == 411
    assert status("POST", join, [(b"content-length", b"2"), (b"transfer-encoding", b"chunked")]) == 411
    assert status("GET", "/gradio_api/heartbeat/abc", [(b"transfer-encoding", b"chunked")]) == 411
    assert status("PUT", join, []) == 404
    assert status("GET", "/gradio_api/file=/etc/passwd", []) == 404
    assert status("GET", "/gradio_api/heartbeat/abc", []) == 200
