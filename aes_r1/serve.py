"""Serve a model with vLLM, for rollouts and scoring: `python -m aes_r1.serve --model DIR`.

Prints "ready: URL" on stdout when the server answers, and restarts the server if it dies. It listens on the loopback
interface only, because whoever reaches it can replace its weights. vLLM's output goes to stderr. Arguments after -- are
passed to `vllm serve` unchanged.
"""

from __future__ import annotations

from aes_r1.wrong_input import require_conf

if __name__ == "__main__":
    require_conf()  # before the imports, which read it

import argparse
import contextlib
import json
import math
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import torch
from PIL import Image

from aes_r1.arguments import OneLineParser, run_argparse
from aes_r1.inference.asking import ModelProfile, find_model
from aes_r1.model import backbone as backbones
from aes_r1.rollout.forced_prefix import ANSWER_TOKENS
from aes_r1.rollout.vllm_client import SERVED, is_healthy
from aes_r1.runs.process_group import ProcessGroup
from aes_r1.runs.stopping import StopRequest, stop_requests
from aes_r1.settings import InputError, require

PACKAGE = Path(__file__).resolve().parent
POLL_S = 0.5  # between two checks of the server
UNHEALTHY_S = 20.0  # a ready server that is not healthy for so long is restarted
TRIES = 3  # consecutive starts that may fail before the server is ready
ADAPTER_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # the ranks that vLLM accepts


def run(options: argparse.Namespace) -> int:
    """Serve until told to stop, and return the exit code."""
    require(0 < options.port < 65536, "--port", options.port, "must be a port")
    command, environment = launch(options)
    with stop_requests() as stop:
        return keep_serving(command, environment, f"http://127.0.0.1:{options.port}", stop)


def launch(options: argparse.Namespace) -> tuple[list[str], dict[str, str]]:
    """Return the command that serves the model of the command line, and its environment."""
    vllm = find_vllm(options.environment)
    folder, profile = find_model(options.model, "--model")
    command = [str(vllm), "serve", *arguments_of(options, folder, profile)]
    return command, environment_of(os.environ, offline=Path(folder).is_dir(), cpu=not torch.cuda.is_available())


def find_vllm(environment: str | None) -> Path:
    """Return the program vllm of `environment`; if that is None, of this environment or of the one from `make vllm`."""
    default_folders = [Path(sys.executable).parent, PACKAGE.parent / ".venv-vllm" / "bin"]
    for folder in default_folders if environment is None else [Path(environment) / "bin"]:
        if (folder / "vllm").exists():
            return folder / "vllm"
    where = "here" if environment is None else f"in --environment={environment}"
    raise InputError(
        f"vLLM is not installed {where}; pip install -e '.[vllm]' where there are GPUs, `make vllm` for tests on a "
        "CPU, or name an environment that has it with --environment DIR"
    )


def arguments_of(options: argparse.Namespace, folder: str, profile: ModelProfile) -> list[str]:
    """Return the arguments of `vllm serve`."""
    cpu = not torch.cuda.is_available()
    backbone = backbones.check_model(folder, question=profile.question, max_pixels=profile.max_pixels, key="--model")
    side = math.isqrt(profile.max_pixels)
    prompt = len(backbone.encode(Image.new("RGB", (side, side)), profile.question).input_ids)
    longest = prompt + (options.max_new_tokens or profile.max_new_tokens) + ANSWER_TOKENS
    positions = backbone.core.config.get_text_config().max_position_embeddings
    fits = options.max_new_tokens is None or longest <= positions
    require(
        fits, "--max-new-tokens", options.max_new_tokens, f"the model has {positions} places, {prompt} for a prompt"
    )
    # Pictures of other shapes may take a few tokens more than a square. vLLM refuses more places than the model has.
    longest = min(128 * math.ceil((longest + 64) / 128), positions)
    limits = {"image": 1, "video": 0} if backbone.core.config.model_type.startswith("qwen") else {"image": 1}
    arguments = {
        "--host": "127.0.0.1",
        "--port": options.port,
        "--served-model-name": SERVED,
        "--dtype": options.dtype or profile.dtype_on(torch.device("cpu" if cpu else "cuda")),
        "--tensor-parallel-size": options.tensor_parallel,
        "--max-model-len": longest,
        "--seed": 0,
        "--generation-config": "vllm",  # the request alone decides on sampling, not the model's folder
        "--logprobs-mode": "processed_logprobs",  # those of the sampling distribution
        "--limit-mm-per-prompt": json.dumps(limits),
        "--worker-extension-cls": "aes_r1.rollout.vllm_worker.Worker",
        "--weight-transfer-config": json.dumps({"backend": "folder"}),
    }
    switches = ["--enable-scale-out", "--disable-uvicorn-access-log", "--no-enable-log-requests"]
    if cpu:
        arguments |= {
            "--block-size": 32,  # with the default of 128 tokens short prompts would not be cached
            "--max-num-seqs": 128,
            "--max-num-batched-tokens": max(4096, longest),
            "--kv-cache-memory-bytes": "128M",
        }
        # vLLM's CPU engine crashes if a request has a seed and chunked prefill is on.
        switches += ["--enforce-eager", "--no-enable-chunked-prefill", "--skip-mm-profiling"]
    if options.lora_rank:
        require(options.lora_rank <= ADAPTER_RANKS[-1], "--lora-rank", options.lora_rank, "must be at most 512")
        arguments["--max-lora-rank"] = next(rank for rank in ADAPTER_RANKS if rank >= options.lora_rank)
        arguments["--max-loras"] = 1
        arguments["--max-cpu-loras"] = 2  # the new adapter is loaded before the old one is removed
        switches.append("--enable-lora")
    pairs = [part for name, value in arguments.items() for part in (name, str(value))]
    return [folder, *pairs, *switches, *options.vllm]


def environment_of(inherited: Mapping[str, str], *, offline: bool, cpu: bool) -> dict[str, str]:
    """Return the environment of vLLM's processes. offline: the model is a folder, so the hub is not contacted."""
    environment = {
        **inherited,
        "VLLM_SERVER_DEV_MODE": "1",  # enables the routes that replace weights
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_NO_USAGE_STATS": "1",
        "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), *filter(None, [inherited.get("PYTHONPATH")])]),
    }
    if offline:
        environment["HF_HUB_OFFLINE"] = "1"
    if cpu:
        environment |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "CUDA_VISIBLE_DEVICES": ""}
    return environment


@contextlib.contextmanager
def serving(model: str) -> Iterator[str]:
    """Yield the URL of a server of `model` at a free port; it stops with the block. InputError if it does not start."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = arguments().parse_args(["--model", model, "--port", str(port)])
    with ProcessGroup(*launch(options)) as group:
        while not is_healthy(url := f"http://127.0.0.1:{port}"):
            if group.poll() is not None:
                raise InputError(
                    f"{model}: vLLM ended before it was ready; the cause stands above, among its own lines"
                )
            time.sleep(POLL_S)
        yield url


def keep_serving(command: Sequence[str], environment: Mapping[str, str], url: str, stop: StopRequest) -> int:
    """Run the server until `stop` and restart it if it dies; InputError if it dies TRIES times before it is ready."""
    failed = 0
    while not stop and failed < TRIES:
        if is_taken(url):
            raise InputError(f"--port={urlsplit(url).port}: something else listens there; end it or give another port")
        with ProcessGroup(command, environment) as group:
            ready = False
            ended: int | str | None = None
            since = time.monotonic()  # when the server was last healthy
            while not stop and ended is None:
                if is_healthy(url):
                    since = time.monotonic()
                    if not ready:
                        print(f"ready: {url}", flush=True)
                    ready, failed = True, 0
                time.sleep(POLL_S)
                ended = group.poll()
                if ready and time.monotonic() - since > UNHEALTHY_S:
                    ended = "it does not answer"
        if not stop:
            failed += not ready
            again = "; starting it again" if failed < TRIES else ""
            print(f"aes_r1: the server ended ({ended}){again}", file=sys.stderr)
    if not stop:
        raise InputError(f"vLLM ended {TRIES} times before it was ready; the cause stands above, among its own lines")
    return 0


def is_taken(url: str) -> bool:
    """Return whether something listens at the host and port of `url`."""
    address = urlsplit(url)
    with socket.socket() as probe:
        probe.settimeout(POLL_S)
        return probe.connect_ex((address.hostname or "127.0.0.1", address.port or 80)) == 0


def arguments() -> OneLineParser:
    """Return the parser of the command line."""
    parser = OneLineParser(
        prog="aes-r1 serve",
        description=(__doc__ or "").split(":")[0] + ".",
        examples="aes-r1 serve --model RUN\naes-r1 serve --model RUN --tensor-parallel 2 --port 8101",
    )
    add = parser.add_argument
    add("--model", required=True, metavar="DIR", help="a run's folder, a model folder, an exported folder or hub name")
    add("--port", type=int, default=8100, metavar="P", help="port on 127.0.0.1 (default: 8100)")
    add("--tensor-parallel", type=int, default=1, metavar="N", help="GPUs that share the model (default: 1)")
    add("--dtype", choices=("float32", "bfloat16", "float16"), help="default: as the model was trained")
    add("--max-new-tokens", type=int, metavar="N", help="longest answer (default: as the model is asked)")
    add(
        "--lora-rank",
        type=int,
        default=0,
        metavar="R",
        help="for a run with an adapter: its model.lora.rank or more (default: no adapter)",
    )
    add("--environment", metavar="DIR", help="Python environment with vLLM (default: this one, then .venv-vllm)")
    add("vllm", nargs="*", metavar="ARGUMENT", help="after --: handed to `vllm serve`")
    return parser


def main() -> None:
    """Run the command of the command line; does not return."""
    run_argparse(arguments(), run)


if __name__ == "__main__":
    main()
