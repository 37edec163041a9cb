"""The console command: `aes-r1 train ..` runs the same code as `python -m aes_r1.train ..`.

`aes-r1 completion > FILE` writes the words that bash and zsh complete (aes_r1/completion.py).
"""

from __future__ import annotations

import runpy
import sys
from typing import NoReturn

from aes_r1.runs.stopping import leave_when_interrupted
from aes_r1.wrong_input import require_conf

COMMANDS = {
    "train": "run cold start, RAPO, evaluation and report",
    "score": "give score, interval and critique of photographs",
    "app": "do the same on a local web page",
    "reward-server": "do the same over HTTP, as a reward for generators' training",
    "evaluate": "measure models on data sets",
    "runs": "list runs, and remove what false starts left",
    "report": "write the page of a run, or of several compared",
    "dashboard": "show all studies on one page",
    "check-model": "say what a model's folder supports",
    "export": "write a Hugging Face folder with a model card",
    "plan": "estimate memory, hours and dollars before a run",
    "prepare": "check a data set on disk",
    "distill": "make reasoning data (AesCoT)",
    "serve": "start a vLLM server",
    "completion": "print what bash and zsh complete",
}


def main() -> None:
    """Run the command that the first argument names; does not return."""
    leave_when_interrupted()
    names = sys.argv[1:2]
    if not names or names[0] in ("-h", "--help", "help"):
        print(usage())
        sys.exit(0 if names else 2)
    if names[0] not in COMMANDS:
        fail(names[0])
    require_conf()
    from aes_r1.starting import require_current_folder

    require_current_folder()  # before the imports of libraries, one of which would end the process by itself
    module = f"aes_r1.{names[0].replace('-', '_')}"
    sys.argv = [module, *sys.argv[2:]]
    runpy.run_module(module, run_name="__main__")
    sys.exit(0)


def usage() -> str:
    """Return the list of commands."""
    width = max(map(len, COMMANDS))
    lines = (f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items())
    return "\n".join(["usage: aes-r1 COMMAND ...", "", *lines, "", "aes-r1 COMMAND --help explains one."])


def fail(name: str) -> NoReturn:
    """End with one line that names the nearest command."""
    from aes_r1.config_names import nearest

    print(f"aes_r1: {name}: no such command{nearest(name, COMMANDS)}; aes-r1 --help lists them", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
