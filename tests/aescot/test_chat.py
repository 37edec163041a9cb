"""What a call sends, and how it respects its limits; the server tests cover whole distillations."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from PIL import Image

from aes_r1.aescot.chat import ChatModel, _litellm, affordable_price, data_url, key_of, price_of, without_keys
from aes_r1.aescot.failures import NoAnswer
from aes_r1.aescot.journal import Journal
from aes_r1.data.sample import Sample, grid_size
from aes_r1.settings import ExpertSettings, InputError, JudgeSettings


def openai(**values):
    return ExpertSettings(**{"name": "openai", "model": "gpt-4.1", **values})


@pytest.mark.parametrize("size", [(1600, 900), (300, 420), (64, 2000)])
@pytest.mark.parametrize("max_pixels", [262144, 84 * 84])
@pytest.mark.slow
def test_a_picture_goes_out_at_the_size_that_training_sees(tmp_path, size, max_pixels):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    url, sent = data_url(str(tmp_path / "a.png"), max_pixels)
    assert url.startswith("data:image/jpeg;base64,")
    assert Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1]))).size == sent
    processor = Qwen2VLImageProcessorPil(size={"shortest_edge": 28 * 28, "longest_edge": max_pixels})
    grid = processor(Image.open(tmp_path / "a.png"), return_tensors="np")["image_grid_thw"][0]
    assert (14 * grid[2], 14 * grid[1]) == sent == grid_size(*size, max_pixels=max_pixels, factor=28)


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
    litellm = _litellm()
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


@pytest.mark.slow
def test_prices_come_from_the_settings_or_the_list_and_a_ceiling_needs_one():
    assert price_of(openai()).completion > price_of(openai()).prompt > 0
    assert price_of(openai(input_usd_per_million=2.0, output_usd_per_million=8.0)).of(10**6, 10**6) == pytest.approx(10)
    assert price_of(openai(api_base="http://127.0.0.1:1/v1")) is None  # the price of a private server is unknown
    with pytest.raises(InputError, match=r"expert.input_usd_per_million and expert.output_usd_per_million"):
        affordable_price(openai(model="nobody/knows", max_usd=1.0))
    with pytest.raises(InputError, match="both prices"):
        openai(input_usd_per_million=2.0)


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


def test_keys_come_from_the_environment_and_are_named_never_shown(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(InputError, match="OPENAI_API_KEY"):
        key_of(openai())
    with pytest.raises(InputError, match="MINE: this environment variable is not set"):
        key_of(openai(api_key_env="MINE"))
    monkeypatch.setenv("MINE", "sk-0123456789")
    settings = openai(api_key_env="MINE")
    assert key_of(settings) == "sk-0123456789"
    assert without_keys("bad key sk-0123456789", settings) == "bad key $MINE"
    for wrong in ({"api_key_env": "sk-0123456789"}, {"api_base": "https://me:sk-0123456789@host/v1"}):
        with pytest.raises(InputError) as raised:
            JudgeSettings(name="openai", model="m", **wrong)
        assert "sk-0123456789" not in str(raised.value)
