"""Aes-R1: teach vision-language models to critique and score photographs (arXiv 2509.21871)."""

import os
import sys

__version__ = "0.1.0"
NO_CURRENT_FOLDER = "the current folder was deleted; change to another one (cd) and start the command again"

# A thread that waits for the next operation sleeps; by default it would spin and keep the core from whatever else runs.
# Where another program used one of two cores, scoring two pictures took 55 s spinning and 8 s sleeping; on idle cores
# both took 9 s. OpenMP reads this variable when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# `python -m aes_r1.COMMAND` in a folder that was deleted: one of the libraries would end the process itself. Python
# replaces -m by the module's file only after it has found it.
if sys.argv[:1] == ["-m"]:
    try:
        os.getcwd()
    except FileNotFoundError:
        print(f"aes_r1: {NO_CURRENT_FOLDER}", file=sys.stderr)
        sys.exit(2)
