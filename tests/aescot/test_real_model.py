"""One distillation with a real vision-language model behind the OpenAI protocol; its words are noise."""

from __future__ import annotations

import base64
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
import torch
from PIL import Image

from aes_r1.aescot.build import build_aescot
from aes_r1.aescot.scenes_expert import expert_corpus
from aes_r1.data.sample import Sample
from aes_r1.model.tiny import build_tiny_model, build_tokenizer
from aes_r1.rollout.sampler import keyed_uniform_noise, sample_completions
from aes_r1.settings import ExpertSettings, JudgeSettings


@pytest.fixture(scope="module")
def served():
    """URL of a server that answers with an untrained tiny Qwen2.5-VL, and the picture sizes that it was sent."""
    backbone = build_tiny_model(build_tokenizer(expert_corpus()[:200]), max_pixels=84 * 84, seed=0)
    sizes: list[tuple[int, int]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            parts = {part["type"]: part for part in body["messages"][0]["content"]}
            url = parts["image_url"]["image_url"]["url"]
            picture = Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1])))
            sizes.append(picture.size)
            prompts = backbone.collate([backbone.encode(picture.convert("RGB"), parts["text"]["text"])])
            length = min(24, body["max_tokens"])
            noise = keyed_uniform_noise([(len(sizes),)], length)
            drawn = sample_completions(
                backbone, prompts, num_samples=1, max_new_tokens=length, temperature=1.0, noise=noise
            )
            message = {"role": "assistant", "content": backbone.decode(drawn.tokens[0][drawn.mask[0]])}
            prompt_tokens, made = prompts.input_ids.shape[1], int(drawn.mask.sum())
            usage = {"prompt_tokens": prompt_tokens, "completion_tokens": made, "total_tokens": prompt_tokens + made}
            choices = [{"index": 0, "message": message, "finish_reason": "length"}]
            answer = {"id": "t", "object": "chat.completion", "created": 0, "model": "tiny"}
            data = json.dumps({**answer, "choices": choices, "usage": usage}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1", sizes
    server.shutdown()
    thread.join()


@pytest.mark.slow
def test_a_real_model_is_asked_about_pictures_and_its_answers_are_kept_with_reasons(served, tmp_path):
    url, sizes = served
    torch.set_num_threads(1)
    samples = []
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (300, 420, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        samples.append(Sample(str(number), str(tmp_path / f"{number}.png"), 0.5, "folder", "train"))
    expert = ExpertSettings(
        name="openai", model="tiny", api_base=url, max_concurrency=1, timeout_s=60, max_words=400, retries=0
    )
    build_aescot(
        samples, expert=expert, judge=JudgeSettings(name="none"), seed=0, out=tmp_path / "out", max_pixels=140 * 140
    )
    rejected = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rejected] == ["0", "1", "2"]
    assert all(row["reasons"] == ["invalid_json"] and row["answer"] for row in rejected)
    assert set(sizes) == {(140, 112)}  # the training resolution: at most 140 x 140, sides in multiples of 28
    calls = json.loads((tmp_path / "out" / "distill_report.json").read_text())["calls"]["expert"]
    assert calls["calls"] == 3
    assert calls["prompt_tokens"] > 300
    assert calls["usd"] is None
