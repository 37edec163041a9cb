"""Serve a local web page for a trained model: `python -m aes_r1.app --model DIR`."""

from __future__ import annotations

from aes_r1.wrong_input import require_conf

if __name__ == "__main__":
    require_conf()  # before the imports, which read it

import argparse
import socket
from importlib.util import find_spec

from aes_r1.arguments import OneLineParser, run_argparse
from aes_r1.scoring.critic import Critic
from aes_r1.settings import InputError, require


def run(options: argparse.Namespace) -> int:
    """Serve the page until it is stopped; return the exit code."""
    require(0 < options.port < 65536, "--port", options.port, "must be in 1..65535")
    if find_spec("gradio") is None:
        raise InputError("the app needs Gradio; pip install -e '.[app]'")
    check_port(options.port)  # before the model is loaded, which is slow
    from aes_r1.app.page import serve_page

    serve_page(Critic.load(options.model, samples=options.samples, seed=options.seed), port=options.port)
    return 0


def check_port(port: int) -> None:
    """Raise InputError when something else listens on 127.0.0.1:`port`."""
    with socket.socket() as probe:
        # The server sets this too, so that a port that was just closed counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(f"--port={port}: cannot be listened on; give another") from error


def arguments() -> OneLineParser:
    """Build the parser of the command line."""
    parser = OneLineParser(
        prog="aes-r1 app",
        description=(__doc__ or "").split(":")[0] + ", on this machine only.",
        examples="aes-r1 app --model RUN\naes-r1 app --model RUN --port 7861",
    )
    add = parser.add_argument
    add("--model", required=True, metavar="DIR", help="a run's folder, a model folder, an exported folder or hub name")
    add("--port", type=int, default=7860, help="port on 127.0.0.1 (default: 7860)")
    add("--samples", type=int, metavar="N", help="completions per picture; 1: the likeliest (default: as evaluated)")
    add("--seed", type=int, default=0, help="seed of the sampling (default: 0)")
    return parser


def main() -> None:
    """Run the command with the arguments of the command line; does not return."""
    run_argparse(arguments(), run)


if __name__ == "__main__":
    main()
