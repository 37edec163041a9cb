"""Parse the arguments of a command without Hydra, and run it; a wrong command line ends in one line, exit code 2."""

from __future__ import annotations

import argparse
import itertools
import shlex
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from aes_r1 import config_names, ending
from aes_r1.settings import printable
from aes_r1.starting import prepare_process


class OneLineParser(argparse.ArgumentParser):
    """The parser of commands without Hydra: an error in the command line is one line with exit code 2.

    examples: commands, one a line, which --help prints below the arguments.
    """

    def __init__(self, *, examples: str = "", **options: Any) -> None:
        lines = "".join(f"\n  {line}" for line in examples.splitlines())
        options.setdefault("epilog", f"examples:{lines}" if examples else None)
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, remember what was typed for error messages, and print which options were repeated."""
        self._typed = list(sys.argv[1:] if args is None else args)
        parsed = super().parse_known_args(args, namespace)
        self._require_names(parsed[0])
        for line in self._repeated():
            print(f"note: {printable(line)}", file=sys.stderr)
        return parsed

    def _require_names(self, parsed: argparse.Namespace) -> None:
        """End with one line where a positional argument is empty, as from an unset variable of the shell.

        As a path it would mean the current folder.
        """
        for action in self._actions:
            given = None if action.option_strings else getattr(parsed, action.dest, None)
            values = given if isinstance(given, list) else [given]
            if any(isinstance(value, str) and not value.strip() for value in values):
                named = action.metavar or action.dest
                self.error(f"{named}: an empty name was given; give a name, or . for the current folder")

    def _repeated(self) -> list[str]:
        """Return a line for every option that was given several values, of which argparse takes the last one."""
        given: dict[str, list[str]] = {}
        for argument, following in itertools.zip_longest(self._typed, self._typed[1:], fillvalue=""):
            if argument == "--":
                break
            typed, equals, value = argument.partition("=")
            spelled = [typed] if typed in self._option_string_actions else []
            if typed.startswith("--") and not spelled:  # argparse takes a beginning that only one option has
                spelled = [option for option in self._option_string_actions if option.startswith(typed)]
            action = self._option_string_actions[spelled[0]] if spelled else None
            if action is None or action.nargs is not None or isinstance(action, argparse._AppendAction):
                continue
            given.setdefault(action.option_strings[-1], []).append(value if equals else following)
        return [
            f"{option} is given {len(values)} times, {', '.join(values)}; the last one counts, {values[-1]}"
            for option, values in given.items()
            if len(set(values)) > 1
        ]

    def error(self, message: str) -> NoReturn:
        """Print in one line what is wrong with the command line, and exit with code 2."""
        unknown = message.removeprefix("unrecognized arguments: ").split(" ")[0]
        near = config_names.nearest(unknown, self._option_string_actions) if unknown.startswith("-") else ""
        if "arguments are required" in message:
            message += "".join(f"; {fault}" for fault in self._misspelled())
        ending.exit_with(2, f"{message}{near}; {self.prog} --help lists the arguments")

    def _takes_a_value(self, argument: str) -> bool:
        action = self._option_string_actions.get(argument)
        return action is not None and action.nargs != 0

    def _misspelled(self) -> list[str]:
        """Return a line for each misspelled option, which is likely to be the required one that argparse misses."""
        options, faults = self._option_string_actions, []
        before = ""
        for argument in self._typed:
            name, equals, value = argument.partition("=")
            if argument.startswith("--") and not any(option.startswith(name) for option in options):
                faults.append(f"{name}: no such option{config_names.nearest(name, options)}")
            elif equals and f"--{name}" in options and not self._takes_a_value(before):
                faults.append(f"{argument}: an option has dashes; give {shlex.quote(f'--{name}')} {shlex.quote(value)}")
            before = argument
        return faults


def run_argparse(parser: OneLineParser, task: Callable[[argparse.Namespace], int]) -> NoReturn:
    """Run `task` on the parsed command line and exit with the code that it returns; an error ends it in one line."""
    try:
        _run_argparse(parser, task)
    except KeyboardInterrupt:  # a second one, while the first was handled
        ending.exit_with(*ending.interrupted())


def _run_argparse(parser: OneLineParser, task: Callable[[argparse.Namespace], int]) -> NoReturn:
    prepare_process()
    options = parser.parse_args()
    try:
        sys.exit(task(options))
    except BrokenPipeError:
        sys.exit(ending.quiet_end())
    except (Exception, KeyboardInterrupt) as error:
        ending.ignore_interrupts()
        end = ending.of_error(error)
        if end is None:
            raise
        ending.exit_with(*end)
