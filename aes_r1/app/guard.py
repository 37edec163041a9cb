"""Restrict a server to the addresses that it needs.

The page sends pictures inside the event that asks about them and gets them back inside HTML, so the server accepts and
returns no file by its path: Gradio's upload, file, proxy, stream and component addresses are closed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

HOSTS = ["127.0.0.1", "localhost"]
MAX_DIGITS = 15  # of a body's length; Python reads no more than 4,300
PAGE = {  # the addresses that the page needs, by method
    "GET": re.compile(
        r"/(config/?|theme\.css|manifest\.json|favicon\.ico|robots\.txt|pwa_icon(/\d+)?|(assets|static|svelte)/.+)?"
        r"|/gradio_api/(info/?|app_id/?|startup-events|queue/data|heartbeat/[\w-]+)"
    ),
    "POST": re.compile(r"/gradio_api/(queue/join|cancel|reset)/?"),
    "HEAD": re.compile("/"),
}
_HEADERS = [
    # The page loads nothing from, and sends nothing to, any other host, whatever Gradio would do.
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; "
        b"form-action 'none'; base-uri 'self'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Guard:
    """ASGI middleware that refuses a request with a status and one line of JSON, {"error": why}.

    404: an address that is not in `routes`. 403: a browser sends it for a page of another origin; Gradio alone would
    answer the pages of every other server on this machine. 413: a body over `max_body` bytes. 411: a body without
    Content-Length. 415: a POST that is not JSON, which a page can send without naming its origin; `hint` is added to
    its message.
    """

    def __init__(
        self,
        app: Callable[..., Awaitable[None]],
        max_body: int,
        routes: Mapping[str, re.Pattern[str]] = PAGE,
        hint: str = "",
    ) -> None:
        self.app, self.max_body, self.routes, self.hint = app, max_body, routes, hint

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Refuse one request, or pass it on to the server."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        allowed = self.routes.get(scope["method"])
        if allowed is None or not allowed.fullmatch(scope["path"]):
            await _refuse(send, 404, f"{scope['method']} {scope['path'][:80]}: nothing is here")
            return
        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        if origin is not None and origin.lower().partition(b"://")[2] != headers.get(b"host", b"").lower():
            await _refuse(send, 403, f"origin {origin[:80].decode('latin-1')!r}: only this server's own pages may ask")
            return
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > MAX_DIGITS or int(length) > self.max_body:
            await _refuse(send, 413, f"the body may have {self.max_body:,} bytes; send less at a time")
            return
        # A body without a stated length could grow without bound. Where Transfer-Encoding is given as well, the
        # server's parser of HTTP ignores the length.
        if b"transfer-encoding" in headers or (scope["method"] == "POST" and b"content-length" not in headers):
            await _refuse(send, 411, "the body has no Content-Length; send it whole")
            return
        kind = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
        if scope["method"] == "POST" and kind != "application/json":
            await _refuse(send, 415, f"Content-Type {kind[:40]!r}: send JSON as application/json{self.hint}")
            return
        await self.app(scope, receive, _with_headers(send))


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *_HEADERS]
        await send(message)

    return send_with_headers


async def _refuse(send: Send, status: int, why: str) -> None:
    body = json.dumps({"error": why}).encode() + b"\n"
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
