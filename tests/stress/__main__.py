"""`python -m tests.stress pictures --mutations 20000`: try the product with inputs that nobody would write by hand."""

from __future__ import annotations

import sys

from tests.stress import pictures

STRESSES = {"pictures": pictures.main}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in STRESSES:
        sys.exit(f"python -m tests.stress: name one of {', '.join(STRESSES)}")
    sys.exit(STRESSES[sys.argv[1]](sys.argv[2:]))
