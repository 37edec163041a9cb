"""Define the addresses of the reward server: pictures in, scores and reasons out, as JSON.

    GET  /health     whether it answers, how it asks, and how many pictures wait
    POST /score      {"images": [base64, ..]} -> {"scores": [..], "verdicts": [{"score", "low", "critique", ..}, ..]}
    POST /compute    {"image": [base64, ..]} -> {"rewards": [..]}, as the remote rewards of Flow-Factory ask

What is wrong with a request is one line of JSON, {"error": why}, with a status of 4xx; 503 says to try again later.
Requests are data alone: the pickled ones of flow_grpo and verl-omni are refused, because a pickle is a program.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from aes_r1.app.guard import Guard
from aes_r1.data.sample import PictureError
from aes_r1.reward_server.batches import Batches, Closed, Full
from aes_r1.scoring.rows import verdict_row
from aes_r1.scoring.uploads import MAX_BYTES
from aes_r1.scoring.verdict import Verdict
from aes_r1.settings import printable

ROUTES = {"GET": re.compile("/health"), "POST": re.compile("/(score|compute)")}
MAX_BODY = 400_000_000  # bytes of a request at most; 64 PNG of 1024 x 1024 pixels have about 200 million as base64
BESIDE = 1_000_000  # bytes that a request may hold beside its pictures, such as prompts
# Lists, objects and items in a body at most, by their marks [ { and , which base64 does not have. A body full of them
# takes 25 to 40 times its bytes when it is parsed.
MAX_PARTS = 100_000
MOST_HELD = 1_600_000_000  # bytes of all requests that are being answered
BODY_S = 60.0  # seconds in which the body of a request must arrive
POLL_S = 1.0  # seconds between two checks whether the client is still connected
_DATA_URI = re.compile(r"data:image/[\w.+-]{1,40};base64,")


class _RequestRefused(Exception):
    """Raised for a request that is not answered; says why, and the way out."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def build_server(
    batches: Batches,
    *,
    model: str,
    max_pictures: int,
    unanswered: float | None,
    hosts: Sequence[str] | None,
    ended: Callable[[BaseException | None], None],
) -> Starlette:
    """Build the server.

    model: its name in /health; max_pictures: in a request; unanswered: the number sent for a picture without a score;
    hosts: the names by which the server may be asked, None for all; ended: called once, when scoring ends, with the
    error that ended it or None.
    """
    answers = _Answers(batches, max_pictures, unanswered)
    profile = batches.critic.profile
    asked = {"samples": batches.critic.samples, "temperature": profile.temperature, "warning": profile.warning()}

    async def health(_: Request) -> Response:
        return _json({"status": "ok", "model": printable(model), **asked, "waiting": batches.waiting})

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(batches.run())
        task.add_done_callback(lambda done: ended(None if done.cancelled() else done.exception()))
        yield
        task.cancel()
        await asyncio.wait([task])

    return Starlette(
        routes=[
            Route("/health", health, methods=["GET"]),
            Route("/score", answers.score, methods=["POST"]),
            Route("/compute", answers.compute, methods=["POST"]),
        ],
        middleware=[
            # DNS rebinding: a foreign page may resolve its own host name to this machine; the Host header shows it.
            *([Middleware(HostNames, hosts=hosts)] if hosts is not None else []),
            Middleware(Guard, max_body=largest_body(max_pictures), routes=ROUTES, hint=", with pictures as base64"),
        ],
        lifespan=lifespan,
    )


def largest_body(max_pictures: int) -> int:
    """Return how many bytes a request of at most `max_pictures` pictures may have."""
    return min(MAX_BODY, max_pictures * (MAX_BYTES * 4 // 3 + 100) + BESIDE)


class _Answers:
    """Answer requests that hold pictures. held: bytes of the requests that are being answered."""

    def __init__(self, batches: Batches, max_pictures: int, unanswered: float | None) -> None:
        self.batches, self.max_pictures, self.unanswered = batches, max_pictures, unanswered
        self.held = 0

    async def score(self, request: Request) -> Response:
        """Answer POST /score."""
        return await self._answer(
            request, "images", lambda scores, verdicts: {"scores": scores, "verdicts": _rows(verdicts)}
        )

    async def compute(self, request: Request) -> Response:
        """Answer POST /compute."""
        return await self._answer(request, "image", lambda scores, _: {"rewards": scores})

    async def _answer(
        self, request: Request, key: str, answer: Callable[[list[float | None], list[Verdict]], dict]
    ) -> Response:
        """Score the pictures under `key`; `answer` writes the JSON of scores and verdicts."""
        length = int(request.headers["content-length"])  # the guard has checked it
        try:
            if self.held + length > MOST_HELD:
                raise _RequestRefused(503, "too many pictures at once; try again later")
            self.held += length
            try:
                pictures = await _pictures(request, key, self.max_pictures)
                verdicts = await _verdicts(request, self.batches, pictures, key)
            finally:
                self.held -= length
        except _RequestRefused as refused:
            return _json({"error": str(refused)}, refused.status)
        scores = [self.unanswered if verdict.score is None else verdict.score for verdict in verdicts]
        return _json(answer(scores, verdicts))


async def _pictures(request: Request, key: str, max_pictures: int) -> list[str]:
    """Return the base64 texts of a request's pictures."""
    try:
        async with asyncio.timeout(BODY_S):
            body = b"".join([chunk async for chunk in request.stream()])  # unlike body(), keeps no second copy
    except ClientDisconnect as error:
        raise _RequestRefused(400, "the body did not arrive whole; send it again") from error
    except TimeoutError as error:
        raise _RequestRefused(408, f"the body took over {BODY_S:g} seconds; send fewer pictures at a time") from error
    try:
        given = await asyncio.to_thread(_parsed, body)
    except (ValueError, RecursionError) as error:
        raise _RequestRefused(400, f'the body is no JSON; send {{"{key}": [base64, ..]}}') from error
    pictures = given.get(key) if isinstance(given, dict) else None
    if not isinstance(pictures, list) or not pictures or not all(isinstance(picture, str) for picture in pictures):
        raise _RequestRefused(400, f'send {{"{key}": [base64, ..]}}, a list of one picture or more')
    if len(pictures) > max_pictures:
        raise _RequestRefused(
            413, f"{key}: {len(pictures)} pictures, at most {max_pictures} in a request; send them in parts"
        )
    starts = [_DATA_URI.match(picture) for picture in pictures]
    return [text if start is None else text[start.end() :] for text, start in zip(pictures, starts, strict=True)]


def _parsed(body: bytes) -> Any:
    """Return the JSON value in `body`; one with more than MAX_PARTS is refused before it is parsed and takes memory."""
    parts = sum(body.count(mark) for mark in (b"[", b"{", b","))
    if parts > MAX_PARTS:
        raise _RequestRefused(
            413, f"the body has {parts:,} lists, objects and items, at most {MAX_PARTS:,}; send pictures"
        )
    return json.loads(body, object_pairs_hook=_unique_keys)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of `pairs`; refuse one with a repeated key, because all but one of its values would be lost."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _RequestRefused(400, "a key stands twice in an object of the body; send every key once")
    return values


async def _verdicts(request: Request, batches: Batches, pictures: Sequence[str], key: str) -> list[Verdict]:
    """Wait for the verdicts of a request's pictures as long as the client does, then cancel what is not scored yet."""
    names = [f"{key}[{index}]" for index in range(len(pictures))]
    try:
        futures = batches.add(pictures, names)
    except Full as error:
        raise _RequestRefused(503, "too many pictures wait already; try again later") from error
    except Closed as error:
        raise _RequestRefused(503, "the server is ending") from error
    gathered = asyncio.gather(*futures)
    gathered.add_done_callback(lambda done: done.cancelled() or done.exception())  # the client may be gone
    try:
        while not gathered.done():
            await asyncio.wait([gathered], timeout=POLL_S)
            if not gathered.done() and await request.is_disconnected():
                raise _RequestRefused(400, "nobody waits any more")  # reaches nobody
        return gathered.result()
    except PictureError as error:
        raise _RequestRefused(422, str(error)) from error
    except Closed as error:
        raise _RequestRefused(503, "the server is ending") from error
    finally:
        for future in futures:
            future.cancel()


def _rows(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Return what `aes_r1.score` writes of each picture, without a path."""
    rows = [verdict_row("", verdict) for verdict in verdicts]
    return [{name: value for name, value in row.items() if name != "path"} for row in rows]


class HostNames:
    """ASGI middleware: 400 for a request that names another host than `hosts`, in one line of JSON."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse one request, or pass it on."""
        asked = dict(scope.get("headers", ())).get(b"host", b"").decode("latin-1").lower()
        if scope["type"] == "http" and re.sub(r":\d+$", "", asked) not in self.hosts:
            why = f"host {asked[:80]!r}: ask {self.hosts[0]}, or start the server with --host"
            await _json({"error": why}, 400)(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _json(values: dict[str, Any], status: int = 200) -> Response:
    headers = {"retry-after": "1"} if status == 503 else {}
    body = json.dumps(values, ensure_ascii=False) + "\n"
    return Response(body, status, headers, media_type="application/json")
