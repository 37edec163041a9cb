"""`python -m tests.stress kills --minutes 60`: disturb the commands at random moments; exit code 1 after a fault.

`--table docs/reliability.md` writes what all calls so far found between the marks of that page.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests.stress.table import write_table


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.stress kills", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--home", type=Path, default=Path(tempfile.gettempdir(), "aes_r1_stress"), help="kept between calls"
    )
    parser.add_argument("--only", nargs="*", default=[], help="names of commands")
    parser.add_argument("--table", type=Path, help="the page whose table is written anew")
    given = parser.parse_args(arguments)
    _leave_root_powers()
    faults = 0
    if given.minutes > 0:
        from tests.stress.kills import run

        faults = run(given.home, given.minutes, seed=given.seed, only=given.only)
    if given.table is not None:
        write_table(given.home / "trials.jsonl", given.table)
    return 1 if faults else 0


def _leave_root_powers() -> None:
    """Start again without root's right to write where nobody may: a folder that is revoked must be so for root too."""
    if os.geteuid() == 0 and "AES_R1_STRESS" not in os.environ:
        os.environ["AES_R1_STRESS"] = "1"
        rights = "-dac_override,-dac_read_search"
        os.execvp(
            "setpriv",
            [
                "setpriv",
                f"--bounding-set={rights}",
                f"--inh-caps={rights}",
                sys.executable,
                "-m",
                "tests.stress",
                *sys.argv[1:],
            ],
        )
