"""Print what bash and zsh complete after `aes-r1`: `aes-r1 completion > FILE`, and `source FILE` in ~/.bashrc.

The words are written once, because asking Python at every press of the tab key would take seconds.
"""

from __future__ import annotations

from aes_r1.wrong_input import require_conf

if __name__ == "__main__":
    require_conf()  # before the imports, which read it

import argparse
import importlib
from pathlib import Path

from aes_r1 import config_names
from aes_r1.__main__ import COMMANDS
from aes_r1.arguments import OneLineParser, run_argparse
from aes_r1.config_names import groups, keys
from aes_r1.settings import (
    CONF,
    DashboardSettings,
    DistillSettings,
    EvaluateSettings,
    PlanSettings,
    PrepareSettings,
    Settings,
)

COMPOSED = {
    "train": Settings,
    "plan": PlanSettings,
    "evaluate": EvaluateSettings,
    "distill": DistillSettings,
    "prepare": PrepareSettings,
    "dashboard": DashboardSettings,
}
PARSED = {
    "score": "aes_r1.score",
    "app": "aes_r1.app.__main__",
    "reward-server": "aes_r1.reward_server.__main__",
    "runs": "aes_r1.runs.__main__",
    "report": "aes_r1.report.__main__",
    "check-model": "aes_r1.check_model",
    "export": "aes_r1.export",
    "serve": "aes_r1.serve",
}

# Bash splits words at =, so the part before the last = is cut from what is offered. If no word fits, files are offered.
_FUNCTION = """\
_aes_r1() {
    local word="${COMP_LINE:0:COMP_POINT}" words="COMMANDS"
    word="${word##* }"
    if [ "$COMP_CWORD" -gt 1 ]; then
        case "${COMP_WORDS[1]}" in
CASES
            *) words="" ;;
        esac
    fi
    local cut="${word%"${word##*=}"}"
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    COMPREPLY=("${COMPREPLY[@]#"$cut"}")
    if [ "${#COMPREPLY[@]}" -eq 0 ]; then
        COMPREPLY=($(compgen -f -- "${word##*=}"))
        compopt -o filenames 2>/dev/null
    elif [[ "${COMPREPLY[0]}" == *= ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
if [ -n "${ZSH_VERSION:-}" ]; then autoload -U +X compinit bashcompinit && compinit && bashcompinit; fi
complete -F _aes_r1 aes-r1
"""


def words(name: str) -> list[str]:
    """Return what may follow `aes-r1 NAME`: keys and choices of a Hydra command, else the options; [] without any."""
    if name in COMPOSED:
        all_keys = keys(COMPOSED[name])
        choices = [
            f"{group}={option}"
            for group in groups(CONF)
            if (name in _RECIPES if group.startswith("+") else group in all_keys)
            for option in config_names.choices(CONF / group.lstrip("+"))
        ]
        options = ["--help", "--multirun", "--cfg", "job", "--package", *_LAUNCHERS]
        leaf_keys = [key for key in all_keys if not any(other.startswith(f"{key}.") for other in all_keys)]
        return sorted([*options, *choices, *(f"{key}=" for key in leaf_keys)])
    if name in PARSED:
        return sorted(importlib.import_module(PARSED[name]).arguments()._option_string_actions)
    return []


_RECIPES = ("train", "plan")  # the commands to which +experiment=, +debug= and +sweeps= can be added
_LAUNCHERS = [f"hydra/launcher={name}" for name in ("joblib", "submitit_slurm", "submitit_local", "ray")]


def run(_options: argparse.Namespace) -> int:
    """Print the shell function; return the exit code."""
    cases = [f'            {name}) words="{" ".join(words(name))}" ;;' for name in COMMANDS]
    print(_FUNCTION.replace("COMMANDS", " ".join(COMMANDS)).replace("CASES", "\n".join(cases)), end="")
    return 0


def arguments() -> OneLineParser:
    """Build the parser of the command line."""
    path = Path("~/.aes-r1-completion")
    return OneLineParser(
        prog="aes-r1 completion",
        description="Print what bash and zsh complete after aes-r1.",
        examples=f"aes-r1 completion > {path} && echo 'source {path}' >> ~/.bashrc\nzsh: the same with ~/.zshrc",
    )


def main() -> None:
    """Run the command with the arguments of the command line; does not return."""
    run_argparse(arguments(), run)


if __name__ == "__main__":
    main()
