"""Score pictures over HTTP, as a reward for generators' training: `python -m aes_r1.reward_server --model DIR`.

Prints "ready: URL" on stdout when the server answers. routes.py lists its addresses; docs/scoring.md has a client.
"""

from __future__ import annotations

from aes_r1.wrong_input import require_conf

if __name__ == "__main__":
    require_conf()  # before the imports, which read it

import argparse
import errno
import ipaddress
import socket
import sys
import threading
from importlib.util import find_spec

from aes_r1.arguments import OneLineParser, run_argparse
from aes_r1.runs.stopping import stop_requests
from aes_r1.scoring.critic import Critic
from aes_r1.settings import InputError, address_rule, require

POLL_S = 0.2  # seconds between two checks for a stop signal


def run(given: argparse.Namespace) -> int:
    """Serve until told to stop, and return the exit code."""
    require(0 <= given.port < 65536, "--port", given.port, "must be a port, or 0 for a free one")
    for key in ("batch", "pictures", "waiting"):
        require(getattr(given, key) >= 1, f"--{key}", getattr(given, key), "must be at least 1")
    require(given.waiting >= given.pictures, "--waiting", given.waiting, "must be at least --pictures")
    require(given.samples is None or given.samples >= 1, "--samples", given.samples, "must be at least 1")
    if given.unanswered is not None:
        require(0 <= given.unanswered <= 1, "--unanswered", given.unanswered, "must be a score in 0..1")
    for url in given.url:
        address_rule("--url", url, "give the server's address, as --url http://127.0.0.1:8100")
    if find_spec("uvicorn") is None or find_spec("starlette") is None:
        raise InputError("the reward server needs Starlette and Uvicorn; pip install -e '.[server]'")
    listener = bind(given.host, given.port)  # before the model is loaded, which is slow
    how = {"samples": given.samples, "seed": given.seed}
    critic = Critic.at(given.url, given.model, **how) if given.url else Critic.load(given.model, **how)
    if warning := critic.profile.warning():
        print(f"note: {warning}", file=sys.stderr)
    return serve(critic, listener, given)


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to an address of this machine, which does not listen yet; InputError if it cannot be."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError as error:
        raise InputError(f"--host={host}: must be an address of this machine, such as 127.0.0.1 or 0.0.0.0") from error
    listener = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just closed counts as free
    try:
        listener.bind((host, port))
    except OSError as error:
        other = "--host, one of this machine" if error.errno == errno.EADDRNOTAVAIL else "--port"
        raise InputError(
            f"--host={host} --port={port}: cannot be listened on ({error.strerror}); give another {other}"
        ) from error
    return listener


def serve(critic: Critic, listener: socket.socket, given: argparse.Namespace) -> int:
    """Answer at the bound socket `listener` until a stop signal arrives; return the exit code.

    An error that ends the scoring ends the server, and is raised again.
    """
    import uvicorn

    from aes_r1.reward_server.batches import Batches
    from aes_r1.reward_server.routes import build_server

    failed: list[BaseException] = []

    def ended(error: BaseException | None) -> None:
        failed.extend([error] if error is not None else [])
        server.should_exit = True

    app = build_server(
        Batches(critic, batch_size=given.batch, max_queued=given.waiting),
        model=given.model,
        max_pictures=given.pictures,
        unanswered=given.unanswered,
        hosts=hosts(given.host),
        ended=ended,
    )
    config = uvicorn.Config(
        app,
        timeout_keep_alive=600,  # a trainer keeps its connection while it updates, which may take minutes
        timeout_graceful_shutdown=30,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    server = uvicorn.Server(config)
    # Uvicorn handles signals itself only in the main thread.
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    with stop_requests() as stop:
        thread.start()
        ready = False
        while thread.is_alive():
            if server.started and not ready:
                ready = True
                print(f"ready: {_url(listener)}", flush=True)
            if stop:
                server.should_exit = True
            thread.join(POLL_S)
    if failed:
        raise failed[0]
    return 0 if ready else 1


def hosts(host: str) -> list[str] | None:
    """Return the Host headers that are answered by a server that listens at the address `host`; None: any."""
    from aes_r1.app.guard import HOSTS

    address = ipaddress.ip_address(host)
    return [*HOSTS, _in_url(str(address))] if address.is_loopback else None


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{_in_url(host)}:{port}"


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def arguments() -> OneLineParser:
    """Build the parser of the command line."""
    parser = OneLineParser(
        prog="aes-r1 reward-server",
        description=(__doc__ or "").split(":")[0] + ".",
        examples="aes-r1 reward-server --model RUN\naes-r1 reward-server --model RUN --samples 1 --port 8001",
    )
    add = parser.add_argument
    add("--model", required=True, metavar="DIR", help="a run's folder, a model folder, an exported folder or hub name")
    add("--url", action="append", default=[], metavar="URL", help="of a vLLM server of DIR (aes_r1.serve); repeatable")
    add("--host", default="127.0.0.1", metavar="A", help="where to listen, without a password (default: 127.0.0.1)")
    add("--port", type=int, default=8001, metavar="P", help="0: a free one (default: 8001)")
    add("--samples", type=int, metavar="N", help="completions per picture; 1: the likeliest (default: as evaluated)")
    add("--seed", type=int, default=0, help="of the sampling; the same seed gives the same scores (default: 0)")
    add("--batch", type=int, default=8, metavar="N", help="pictures that are scored together (default: 8)")
    add("--pictures", type=int, default=64, metavar="N", help="most pictures in a request (default: 64)")
    add("--waiting", type=int, default=1024, metavar="N", help="most pictures that wait; then 503 (default: 1024)")
    add("--unanswered", type=float, metavar="X", help="score of a picture without a readable answer (default: null)")
    return parser


def main() -> None:
    """Run the command with the arguments of the command line; does not return."""
    run_argparse(arguments(), run)


if __name__ == "__main__":
    main()
