"""Train a model, from cold start and RAPO to evaluation and report: `python -m aes_r1.train +experiment=rapo`."""

from typing import Any

from aes_r1.runs.stopping import leave_when_told
from aes_r1.wrong_input import require_conf


def main() -> None:
    """Run the command with the arguments of the command line; does not return."""
    leave_when_told()  # before the imports, which take a second
    require_conf()
    from aes_r1 import command

    command.run("aes_r1.train", _run)


def _run(settings: Any) -> None:
    from aes_r1.pipeline.run import run  # takes seconds, for which neither a wrong key nor a sweep has to wait

    run(settings)


if __name__ == "__main__":
    main()
