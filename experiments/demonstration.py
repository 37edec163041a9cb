"""Print the two points that demonstrate an unfinished study: `python -m experiments.demonstration STUDY`."""

from __future__ import annotations

import sys

POINTS = {
    "ai_generated": "reward=error,rapo",
}

if __name__ == "__main__":
    print(f"{POINTS[sys.argv[1]]} seed=0")
