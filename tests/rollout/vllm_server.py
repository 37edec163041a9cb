"""A stand-in for a vLLM server: the routes that the project uses, answered by the project's own sampler.

What it is given goes through its own processor and tokenizer, so a prompt or picture that was sent wrongly is answered
wrongly. `misbehave` makes the coming answers faulty.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import threading
import time
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from aes_r1.model import families
from aes_r1.model.backbone import Backbone
from aes_r1.model.prompt_batch import EncodedPrompt
from aes_r1.rollout.sampler import keyed_uniform_noise, sample_completions

Answer = tuple[int, Any]


class FakeServer:
    """One server at a port of its own, with the weights of `backbone` until it is given others."""

    def __init__(self, backbone: Backbone, *, root: str = "", port: int = 0) -> None:
        self.root = root
        self.backbone, self._first = backbone, {n: p.detach().clone() for n, p in backbone.core.named_parameters()}
        self.asked: list[dict[str, Any]] = []  # bodies of the requests for completions
        self.routes: list[str] = []
        self.faults: deque[str] = deque()
        self._one = threading.Lock()
        self.port = port
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # -- life ----------------------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Answer from now on, with the weights that the server was first started with."""
        self.version, self.adapters = "default", {}
        self._set(self._first)
        fake, life = self, object()
        self._life = life

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(None)

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}"))

            def _answer(self, body: dict | None) -> None:
                route = self.path.split("?")[0]
                if fake._life is not life:  # killed while the connection was kept
                    self.close_connection = True
                    return
                fake.routes.append(route)
                if route == "/update_weights" and fake.faults and fake.faults[0] == "hangs up":
                    fake.faults.popleft()
                    self.close_connection = True
                    return
                if route.startswith("/inference") and fake.faults and fake.faults[0] == "slow":
                    fake.faults.popleft()
                    time.sleep(1.5)
                with fake._one:
                    status, content = fake.answer(route, body)
                text = json.dumps(content).encode()
                if status == -1:  # cut: half of what was promised
                    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text)
                    self.wfile.write(head + text[: len(text) // 2])
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                with contextlib.suppress(BrokenPipeError):  # the client waits no longer
                    self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def kill(self) -> None:
        """Refuse every connection, and answer nothing over those that there are."""
        self._life = None
        self._http.shutdown()
        self._http.server_close()

    def misbehave(self, *faults: str) -> None:
        """Answer the coming requests for completions each with one of `faults`; "hangs up" is for one of weights."""
        self.faults.extend(faults)

    # -- answers -------------------------------------------------------------------------------------------------------
    def answer(self, route: str, body: dict | None) -> Answer:
        if route == "/inference/v1/generate":
            return self._generate(body or {})
        plain: dict[str, Callable[[], Answer]] = {
            "/health": lambda: (200, None),
            "/weight_info": lambda: (200, {"weight_version": self.version}),
            "/v1/models": lambda: (
                200,
                {"data": [{"id": name, "root": self.root} for name in ("policy", *self.adapters)]},
            ),
            "/update_weights": lambda: self._update(Path((body or {})["update_info"]["path"])),
            "/finish_weight_update": lambda: self._finish((body or {})["weight_version"]),
            "/v1/load_lora_adapter": lambda: self._load((body or {})["lora_name"], (body or {})["lora_path"]),
            "/v1/unload_lora_adapter": lambda: self._unload((body or {})["lora_name"]),
        }
        return plain.get(route, lambda: (200, {"message": "done"}))()

    def _update(self, folder: Path) -> Answer:
        weights = load_file(folder / "model.safetensors")
        if weights.keys() != self._first.keys():
            return 500, {"error": f"{sorted(self._first.keys() - weights.keys())} are missing"}
        if "deaf" not in self.faults:
            self._set(weights)
        return 200, {"message": "Weights updated"}

    def _finish(self, version: str) -> Answer:
        self.version = version
        return 200, None

    def _load(self, name: str, folder: str) -> Answer:
        self.adapters[name] = load_file(Path(folder) / "adapter_model.safetensors")
        return 200, None

    def _unload(self, name: str) -> Answer:
        del self.adapters[name]
        return 200, None

    @torch.no_grad()
    def _set(self, weights: dict[str, torch.Tensor]) -> None:
        for name, parameter in self.backbone.core.named_parameters():
            parameter.copy_(weights[name])

    def _generate(self, body: dict[str, Any]) -> Answer:
        fault = self.faults.popleft() if self.faults and self.faults[0] != "deaf" else ""
        if fault in ("500", "503"):
            return int(fault), {"error": "EngineCore encountered an issue"}
        if body["model"] not in ("policy", *self.adapters):
            return 404, {"error": f"The model {body['model']} does not exist."}
        self.asked.append(body)
        content = self._completions(body)
        choices = content["choices"]
        if fault == "too few":
            choices.pop()
        elif fault == "aborted":
            choices[0] |= {"finish_reason": "abort", "token_ids": choices[0]["token_ids"][:2]}
        elif fault == "own limit":
            logps = choices[0]["logprobs"]["content"][:2]
            choices[0] |= {"finish_reason": "length", "token_ids": choices[0]["token_ids"][:2]}
            choices[0]["logprobs"] = {"content": logps}
        elif fault == "other version":
            choices[-1]["weight_versions"] = [{"version": "7", "start": 0, "end": 1}]
        elif fault == "no log-probabilities":
            choices[0]["logprobs"] = None
        elif fault == "grown prompt":
            content["prompt_token_ids"] = [*content["prompt_token_ids"], 5]
        elif fault == "banned":
            token = self.backbone.image_token
            choices[0]["token_ids"][0] = choices[0]["logprobs"]["content"][0]["token_id"] = token
        return -1 if fault == "cut" else 200, content

    @torch.no_grad()
    def _completions(self, body: dict[str, Any]) -> dict[str, Any]:
        backbone, sampling = self.backbone, body["sampling_params"]
        ((part,),) = [body["content_parts"]]
        data = base64.b64decode(part["url"].removeprefix("data:image/png;base64,"))
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        pixels, grid, count = families.prepare(backbone.core.config, backbone.image_processor, picture)
        given = body["token_ids"]
        index = given.index(backbone.image_token)
        ids = [*given[:index], *[backbone.image_token] * count, *given[index + 1 :]]
        drawn, longest = sampling["n"], sampling["max_tokens"]
        banned = {int(token) for token in sampling["logit_bias"]}
        if banned != set(backbone.banned.nonzero()[:, 0].tolist()):
            raise ValueError("special tokens are not banned")
        noise = None
        if sampling["temperature"] > 0:
            noise = keyed_uniform_noise([("fake", sampling["seed"] + k) for k in range(drawn)], longest)
        prompt = EncodedPrompt(np.array(ids), pixels, grid[None])
        rollout = sample_completions(
            backbone,
            backbone.collate([prompt]),
            num_samples=drawn,
            max_new_tokens=longest,
            temperature=sampling["temperature"] or 1.0,
            noise=noise,
        )
        choices = [
            {
                "index": k,
                "finish_reason": "length" if rollout.truncated[k] else "stop",
                "token_ids": (tokens := rollout.tokens[k][rollout.mask[k]].tolist()),
                "logprobs": {
                    "content": [
                        {"token_id": token, "logprob": logp}
                        for token, logp in zip(tokens, rollout.logps[k][rollout.mask[k]].tolist(), strict=True)
                    ]
                },
                "weight_versions": [{"version": self.version, "start": 0, "end": len(tokens)}],
            }
            for k in range(drawn)
        ]
        return {"prompt_token_ids": ids, "choices": choices[::-1]}
