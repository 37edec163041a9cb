"""What a call sends, and how it respects its limits; the server tests cover whole distillations."""

from __future__ import annotations

import asyncio
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from aes_r1.aescot.chat import ChatModel
from aes_r1.aescot.failures import NoAnswer
from aes_r1.aescot.journal import Journal
from aes_r1.aescot.provider import litellm_library
from aes_r1.data.sample import Sample
from aes_r1.settings import ExpertSettings


def openai(**values):
    return ExpertSettings(**{"name": "openai", "model": "gpt-4.1", **values})


@pytest.mark.parametrize(("picture", "key"), [(True, "461e4129d891"), (False, "4becfcefcf23")])
@pytest.mark.slow
def test_the_answers_of_a_journal_whose_keys_held_the_pictures_path_are_found(tmp_path, picture, key):
    settings = openai(api_base="http://127.0.0.1:9/v1", retries=0)  # where nobody answers
    sample = Sample("a", "/photos/a.png", 0.5, "ava", "train")
    row = {"group": "expert", "role": "expert", "text": "Calm.", "refused": False, "usd": 0.0, "prompt_tokens": 1}

    async def ask() -> str:
        with Journal(tmp_path / "calls.jsonl") as journal:
            journal.append(key, row)
            chat = ChatModel(settings, journal)
            answer = await chat.ask("expert", sample, "Hello", picture=picture, max_pixels=784, schema={})
            return answer.text

    assert asyncio.run(ask()) == "Calm."


@pytest.mark.slow
def test_retries_count_as_requests(tmp_path, monkeypatch):
    litellm = litellm_library()
    monkeypatch.setattr(litellm.utils, "INITIAL_RETRY_DELAY", 0.0)
    monkeypatch.setattr(litellm.utils, "JITTER", 0.0)
    seen: list[float] = []

    class Broken(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(time.monotonic())
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(500)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    server = HTTPServer(("127.0.0.1", 0), Broken)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = openai(api_base=f"http://127.0.0.1:{server.server_port}/v1", requests_per_minute=60, retries=2)
    sample = Sample("a", "a.png", 0.5, "ava", "train")

    async def ask() -> None:
        with Journal(tmp_path / "calls.jsonl") as journal:
            chat = ChatModel(settings, journal)
            await chat.ask("expert", sample, "Hello", picture=False, max_pixels=784, schema={})

    started = time.monotonic()
    with pytest.raises(NoAnswer):
        asyncio.run(ask())
    server.shutdown()
    assert len(seen) == 3
    assert seen[-1] - started > 1.9  # one request a second; without waits between tries the last would come at once


@pytest.mark.parametrize(
    ("usd", "price", "spent"),
    [(None, (2.0, 8.0), 18.0), (None, None, 0.0), (3.0, (2.0, 8.0), 3.0), (0.0, (2.0, 8.0), 0.0)],
)
def test_money_spent_before_the_price_was_known_counts_at_the_price_of_now(tmp_path, usd, price, spent):
    call = {"group": "expert", "role": "expert", "prompt_tokens": 5_000_000, "completion_tokens": 1_000_000}
    refused = {**call, "prompt_tokens": 0, "completion_tokens": 0}
    given = {} if price is None else {"input_usd_per_million": price[0], "output_usd_per_million": price[1]}
    with Journal(tmp_path / "calls.jsonl") as journal:
        journal.append("a", {**call, "usd": usd})
        journal.append("b", {**refused, "usd": usd and 0.0})
        journal.append("c", {**call, "group": "judge", "usd": usd})
        chat = ChatModel(openai(model="m", api_base="http://127.0.0.1:9/v1", **given), journal)
    assert chat.budget.spent == pytest.approx(spent)
