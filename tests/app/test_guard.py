"""Which requests the page's server answers at all."""

import asyncio

from aes_r1.app.guard import Guard


def test_a_body_of_unknown_length_is_refused():
    async def answer_to(method, path, headers):
        sent = []

        async def inner(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": method, "path": path, "headers": headers}
        await Guard(inner, max_body=100)(scope, None, send)
        return sent[0]["status"]

    def status(*request):
        return asyncio.run(answer_to(*request))

    join = "/gradio_api/queue/join"
    assert status("POST", join, [(b"content-length", b"100")]) == 200
    assert status("POST", join, [(b"content-length", b"101")]) == 413
    assert status("POST", join, [(b"content-length", b"-1")]) == 413
    assert status("POST", join, [(b"transfer-encoding", b"chunked")]) == 411
    assert status("POST", join, [(b"content-length", b"2"), (b"transfer-encoding", b"chunked")]) == 411
    assert status("GET", "/gradio_api/heartbeat/abc", [(b"transfer-encoding", b"chunked")]) == 411
    assert status("PUT", join, []) == 404
    assert status("GET", "/gradio_api/file=/etc/passwd", []) == 404
    assert status("GET", "/gradio_api/heartbeat/abc", []) == 200
