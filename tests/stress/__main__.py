"""Test the commands with random inputs and random interruptions.

python -m tests.stress pictures --mutations 20000
python -m tests.stress kills --minutes 60
"""

from __future__ import annotations

import sys

from tests.stress import disturb, pictures

STRESSES = {"pictures": pictures.main, "kills": disturb.main}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in STRESSES:
        sys.exit(f"python -m tests.stress: name one of {', '.join(STRESSES)}")
    sys.exit(STRESSES[sys.argv[1]](sys.argv[2:]))
