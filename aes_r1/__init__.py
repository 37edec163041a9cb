"""Aes-R1: teach vision-language models to critique and score photographs (arXiv 2509.21871)."""

import os
import sys

__version__ = "0.1.0"
NO_CURRENT_FOLDER = "the current folder was deleted; change to another one (cd) and start the command again"

# An OpenMP thread that waits for its next work sleeps; by default it would spin and keep its core from other programs.
# Where another program used one of two cores, scoring two pictures took 55 s spinning and 8 s sleeping; on idle cores
# both took 9 s. OpenMP reads this variable when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# In a deleted folder, a library that `python -m aes_r1.COMMAND` imports would end the process with an error of its own,
# so it is refused here. sys.argv[0] is still "-m": Python sets the module's file only after importing its package.
if sys.argv[:1] == ["-m"]:
    try:
        os.getcwd()
    except FileNotFoundError:
        print(f"aes_r1: {NO_CURRENT_FOLDER}", file=sys.stderr)
        sys.exit(2)
