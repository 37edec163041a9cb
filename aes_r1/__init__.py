"""Aes-R1: teach vision-language models to critique and score photographs (arXiv 2509.21871)."""

import os

__version__ = "0.1.0"

# A thread that waits for the next operation sleeps; by default it would spin and keep the core from whatever else runs.
# Where another program used one of two cores, scoring two pictures took 55 s spinning and 8 s sleeping; on idle cores
# both took 9 s. OpenMP reads this variable when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
