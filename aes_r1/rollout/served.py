"""Draw completions with vLLM servers, by a function with the signature of `sampler.sample_completions`.

A request contains the prompt's token ids and the picture as the model sees it (model.shown_picture), so the server's
own tokenizer and image processor have no effect. Each answer is checked for the number of completions, the prompt's
token ids, the version of the weights and banned tokens. Log-probabilities are returned with the tokens.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from aes_r1.model.backbone import Backbone
from aes_r1.model.likelihood import completion_likelihood, completion_table
from aes_r1.model.prompt_batch import PromptBatch
from aes_r1.model.shown_picture import shown_picture
from aes_r1.rollout.failures import Unusable
from aes_r1.rollout.sampler import Rollout, Sampler
from aes_r1.rollout.vllm_client import Servers, Weights
from aes_r1.runs.files import read_json, replacing_folder, write_json
from aes_r1.settings import InputError, RolloutSettings, place

MAX_CONCURRENCY = 64  # concurrent requests of one process, each for all completions of a picture
BAN = -100.0  # added to a banned token's logit, which makes its probability negligible: e^-100 of what it was
HELD = "held.json"  # file in the weights' folder that tells the other processes which weights servers must hold
FINAL_ONLY = 2  # of vLLM's RequestOutputKind; without it some versions lose some of a request's completions
LARGEST_GAP = {torch.float32: 1e-3}  # nats, mean over tokens; equal weights differ only by rounding
LARGEST_GAP_IN_HALF = 0.05
CAUSES = (
    "likely causes: another model or dtype is served than is trained, the served folder has another processor, "
    "the server was started by other arguments than those of python -m aes_r1.serve, its version of vLLM keeps old "
    "weights or caches over an update, or sampling is changed there"
)


@contextlib.contextmanager
def served_policy(settings: RolloutSettings, *, name: str, rank: int, size: int) -> Iterator[ServedPolicy | None]:
    """Yield the policy on the servers of `settings` and close it after the block; None where they name no servers."""
    if settings.name != "vllm":
        yield None
        return
    with contextlib.closing(ServedPolicy(settings, name=name, rank=rank, size=size)) as served:
        yield served


class ServedPolicy:
    """Hold a policy on vLLM servers: `push` gives them weights, and `sample_completions` draws with the latest ones.

    Several processes share the servers; rank 0 writes weights into a folder that every server can read.
    """

    def __init__(self, settings: RolloutSettings, *, name: str, rank: int = 0, size: int = 1) -> None:
        """Create the policy; `name` makes this run's folder of weights differ from those of other runs."""
        self.servers = Servers(settings.url, patience=settings.patience)
        self.settings, self.rank, self.size = settings, rank, size
        digest = hashlib.blake2b(str(Path(name).absolute()).encode(), digest_size=6).hexdigest()
        self.folder = _weights_folder(settings.weights) / f"aes_r1_{digest}"
        self.weights = Weights()
        self._start = secrets.token_hex(4)  # makes the names of weights unique to this start of the run
        self._pushes = 0
        self._base_of: Backbone | None = None
        self._pool = ThreadPoolExecutor(MAX_CONCURRENCY)

    # -- weights -------------------------------------------------------------------------------------------------------
    def push(self, backbone: Backbone, *, wait: Callable[[], None] = lambda: None) -> None:
        """Make the servers draw with the current weights of `backbone`, and no others. Collective.

        wait() is a barrier: it returns when every process has called it. The weights must be whole on rank 0. A server
        that cannot be reached gets them once it is back. InputError if a server rejects them.
        """
        wait()  # until all processes arrive, some process may still draw with the previous weights
        if self.rank == 0:
            self._pushes += 1
            self.weights = self._write(backbone, f"{self._start}-{self._pushes}")
            self.servers.hold(self.weights)
        wait()
        if self.rank != 0:
            try:
                held = read_json(self.folder / HELD)
            except InputError as error:
                raise InputError(
                    f"rollout.weights: {error}; every machine of the run and its servers must see this folder"
                ) from error
            self.weights = Weights(
                held["version"], self.folder / held["version"], held["adapter"], self.folder / str(held["adapter"])
            )

    def _write(self, backbone: Backbone, version: str) -> Weights:
        """Write the weights, or the base weights once and then only the adapter; remove the previous ones."""
        if self._pushes == 1:  # left by an earlier start of the run
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = self.folder.lstat()  # in a shared folder, anybody may have created this name
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise InputError(f"rollout.weights: {self.folder} is a link or another user's; give a folder of your own")
        base = self.weights
        if not hasattr(backbone.model, "merge_and_unload"):
            weights = Weights(version, _saved(backbone, self.folder / version))
            self._base_of = None
        else:
            if self._base_of is not backbone:
                base = Weights(version, _saved(backbone, self.folder / version))
                self._base_of = backbone
            name = f"adapter-{version}"
            with replacing_folder(self.folder / name) as draft:
                backbone.model.save_pretrained(draft)
            weights = Weights(base.version, base.folder, name, self.folder / name)
        in_use = {weights.folder, weights.adapter_folder}
        for old in self.folder.iterdir():
            if old.is_dir() and old not in in_use:
                shutil.rmtree(old)
        write_json(self.folder / HELD, {"version": weights.version, "adapter": weights.adapter})
        return weights

    def close(self) -> None:
        """Remove the folder of weights; the servers keep the weights that they have loaded."""
        self.servers.close()
        self._pool.shutdown(cancel_futures=True)
        if self.rank == 0:
            shutil.rmtree(self.folder, ignore_errors=True)

    # -- completions ---------------------------------------------------------------------------------------------------
    def sample_completions(
        self,
        backbone: Backbone,
        prompts: PromptBatch,
        *,
        num_samples: int,
        max_new_tokens: int,
        temperature: float,
        noise: Tensor | None,
    ) -> Rollout:
        """Draw like `sampler.sample_completions`; the same noise gives other tokens, from the same distribution.

        A prompt's seed is a hash of its noise, so its completions depend on the noise's key alone. With noise None
        (greedy), log-probabilities are those at temperature 1. The weights of `backbone` are not used. ServersGone if
        no server answers, InputError if one refuses the request or answers another one.
        """
        sampling = {
            "n": num_samples,
            "temperature": 0.0 if noise is None else temperature,
            "top_p": 1.0,
            "max_tokens": max_new_tokens,
            "logprobs": 0,
            "stop_token_ids": [backbone.end_token],
            "detokenize": False,
            "logit_bias": {str(token): BAN for token in backbone.banned.nonzero()[:, 0].tolist()},
            "output_kind": FINAL_ONLY,
        }
        keys = None if noise is None else noise.cpu().numpy().reshape(len(prompts), -1)
        futures = [
            self._pool.submit(self._ask, backbone, sampling, *prompt, None if keys is None else keys[index], index)
            for index, prompt in enumerate(_unpadded(prompts))
        ]
        choices = [choice for future in futures for choice in future.result()]
        return _rollout(backbone, choices, prompts.input_ids.device)

    def _ask(
        self,
        backbone: Backbone,
        sampling: dict[str, Any],
        tokens: list[int],
        pixels: np.ndarray,
        grid: np.ndarray,
        key: np.ndarray | None,
        index: int,
    ) -> list[dict[str, Any]]:
        """Ask for the completions of one prompt; return the answer's "choices" in the order of their index."""
        if key is not None:
            # Completion k of a request draws with seed + k; hashing keeps the seeds of two requests far apart.
            digest = hashlib.blake2b(np.ascontiguousarray(key).tobytes(), digest_size=6).digest()
            sampling = {**sampling, "seed": int.from_bytes(digest, "little")}
        picture = io.BytesIO()
        shown_picture(backbone.image_processor, pixels, grid).save(picture, "PNG")
        url = "data:image/png;base64," + base64.b64encode(picture.getvalue()).decode()
        request = {
            "token_ids": _one_placeholder(tokens, backbone.image_token),
            "content_parts": [{"type": "image_url", "url": url}],
            "return_token_ids": True,
            "sampling_params": sampling,
        }
        answer = self.servers.ask(
            request,
            self.weights,
            first=self.rank + self.size * index,
            check=lambda answer: check_answer(answer, backbone, tokens, sampling["n"], sampling["max_tokens"]),
        )
        return sorted(answer["choices"], key=lambda choice: choice["index"])

    def as_served(self, model: str) -> Sampler:
        """Return the sampler for servers that were started with the weights in the folder `model`.

        InputError if a server was started with another folder, or does not answer within a tenth of the patience.
        """
        for server in self.servers.servers:
            served = server.started_with(patience=self.settings.patience / 10)
            if served != model and Path(served).absolute() != Path(model).absolute():
                raise InputError(
                    f"--url={server.url}: serves {served}, not {model}; python -m aes_r1.serve --model {model}"
                )
        self.weights = Weights()
        return self.sample_completions

    # -- verification --------------------------------------------------------------------------------------------------
    def sampler_of(
        self, backbone: Backbone, question: str, *, max_new_tokens: int, wait: Callable[[], None] = lambda: None
    ) -> Sampler:
        """Push the weights of `backbone`, verify one answer about a test picture, and return the sampler. Collective.

        wait is that of `push`. The weights must be whole.
        """
        self.push(backbone, wait=wait)
        prompt = backbone.collate([backbone.encode(probe_picture(), question)])
        self.handshake(backbone, prompt, max_new_tokens=max_new_tokens)
        return self.sample_completions

    @torch.no_grad()
    def handshake(self, backbone: Backbone, prompts: PromptBatch, *, max_new_tokens: int) -> float:
        """Score the greedy answer to the first prompt in this process; return the mean difference in nats per token.

        InputError if it is larger than rollout.max_mismatch: the servers then do not compute what this process
        computes. The weights of this process must be gathered.
        """
        prompt = prompts.select(torch.tensor([0]))
        drawn = self.sample_completions(
            backbone, prompt, num_samples=1, max_new_tokens=max_new_tokens, temperature=1.0, noise=None
        )
        device, mask, row = backbone.device, drawn.mask.cpu(), torch.zeros(1, dtype=torch.long)
        logps, _ = completion_likelihood(backbone, prompt.to(device), drawn.tokens.to(device), mask, row)
        gap = float((logps.cpu() - drawn.logps.cpu())[mask].abs().mean())
        require_match(gap, largest_gap(self.settings, backbone.model.dtype), "the first answer")
        return gap


def probe_picture() -> Image.Image:
    """Return a picture whose patches, colors and directions all differ, so that no two can be confused."""
    rows, columns = np.mgrid[0:150, 0:190]
    levels = np.stack([rows * 1.7, columns * 1.3, (rows * columns) % 251], axis=2)
    return Image.fromarray(levels.astype(np.uint8))


def largest_gap(settings: RolloutSettings, dtype: torch.dtype) -> float:
    """Return the largest mean difference of log-probabilities, in nats, at which servers and trainer count as equal."""
    default = LARGEST_GAP.get(dtype, LARGEST_GAP_IN_HALF)
    return default if settings.max_mismatch is None else settings.max_mismatch


def require_match(gap: float, bound: float, where: str) -> None:
    """Raise InputError with the likely causes if `gap` is above `bound` or NaN."""
    if not gap <= bound:
        raise InputError(
            f"rollout.max_mismatch={bound:g}: log-probabilities of {where} differ by {gap:.2g} nats a token between "
            f"vLLM and the trainer; {CAUSES}"
        )


def check_answer(answer: Any, backbone: Backbone, prompt: list[int], count: int, longest: int) -> None:
    """Raise Unusable unless `answer` has `count` complete completions.

    InputError if it answers another prompt, if the server's own limit cut a completion before `longest` tokens, or if a
    completion has a banned token.
    """
    try:
        if answer["prompt_token_ids"] != prompt:
            raise InputError(
                f"rollout.url: the server's prompt differs: {len(answer['prompt_token_ids'])} tokens, ours has "
                f"{len(prompt)}; serve the folder that is trained, with its processor and tokenizer"
            )
        choices = answer["choices"]
        indices = sorted(choice["index"] for choice in choices)
        if indices != list(range(count)):
            raise Unusable(f"{len(choices)} of {count} completions came back")
        for choice in choices:
            tokens, logps = choice["token_ids"], choice["logprobs"]["content"]
            complete = 0 < len(tokens) <= longest and [token["token_id"] for token in logps] == tokens
            ended = choice["finish_reason"] == ("stop" if tokens[-1] == backbone.end_token else "length")
            if not complete or not ended:
                raise Unusable(f"a completion came back in part ({choice['finish_reason']}, {len(tokens)} tokens)")
            if choice["finish_reason"] == "length" and len(tokens) < longest:
                raise InputError(
                    f"rollout.url: the server has room for {len(tokens)} tokens after this prompt, but {longest} were "
                    f"asked for; start it with `aes-r1 serve --max-new-tokens {longest}`, or ask for fewer"
                )
            if bool(backbone.banned[tokens].any()):
                raise InputError("rollout.url: the server drew a token that it was told not to; is it another program?")
    except (KeyError, TypeError, IndexError) as error:
        raise Unusable(f"an answer without {error}") from error


def _unpadded(prompts: PromptBatch) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
    """Yield each prompt's token ids without padding, its pixel rows and its grid."""
    ids, pixels = prompts.input_ids.cpu(), prompts.pixel_values.cpu().float().numpy()
    grid = prompts.image_grid_thw.numpy()
    start = 0
    for row, (tokens, rows) in enumerate(zip(prompts.prompt_tokens, prompts.pixel_rows, strict=True)):
        yield ids[row, ids.shape[1] - tokens :].tolist(), pixels[start : start + rows], grid[row]
        start += rows


def _one_placeholder(tokens: list[int], image_token: int) -> list[int]:
    """Return `tokens` with a single placeholder for the picture, which vLLM repeats as often as the picture needs."""
    return [
        token for index, token in enumerate(tokens) if token != image_token or not index or tokens[index - 1] != token
    ]


def _rollout(backbone: Backbone, choices: list[dict[str, Any]], device: torch.device) -> Rollout:
    tokens, mask = completion_table([choice["token_ids"] for choice in choices], backbone.pad_token)
    drawn = [token["logprob"] for choice in choices for token in choice["logprobs"]["content"]]
    logps = torch.zeros(mask.shape, dtype=torch.float32)
    logps[mask] = torch.tensor(drawn, dtype=torch.float32)
    ended = ((tokens == backbone.end_token) & mask).any(dim=1)
    return Rollout(tokens.to(device), mask.to(device), logps.to(device), ~ended.to(device))


@torch.no_grad()
def _saved(backbone: Backbone, folder: Path) -> Path:
    """Write the model's own weights, without an adapter and under their plain names, into `folder`; return it."""
    weights = {
        name.replace(".base_layer.", "."): weight.detach().cpu().contiguous()
        for name, weight in backbone.core.named_parameters()
        if ".lora_" not in name
    }
    with replacing_folder(folder) as draft:
        draft.mkdir(parents=True)
        try:
            save_file(weights, draft / "model.safetensors")
        except SafetensorError as error:  # raised for a full disk, among others
            raise InputError(
                f"rollout.weights: {draft} cannot be written ({error}); make room there, or give another folder"
            ) from error
    return folder


def _weights_folder(folder: str | None) -> Path:
    """Return `folder`; if it is None, one in memory (/dev/shm) where there is that, else the temporary folder."""
    if folder:
        return place(folder, "rollout.weights")
    in_memory = Path("/dev/shm")
    return in_memory if in_memory.is_dir() else Path(tempfile.gettempdir())
