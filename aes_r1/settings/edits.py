"""List the edits that make a picture worse (aes_r1/data/edits.py)."""

from __future__ import annotations

from aes_r1.settings.rules import once_rule, one_of, require

# The dimension (prompts.DIMENSIONS) in which each edit makes a picture worse.
HARMED = {
    "crop": "composition",
    "tilt": "composition",
    "overexpose": "exposure",
    "underexpose": "exposure",
    "desaturate": "color",
    "clutter": "composition",
}
EDITS = tuple(HARMED)


def edits_rule(key: str, edits: list[str]) -> None:
    """Raise InputError naming `key` unless `edits` names at least one of EDITS, each once."""
    for edit in edits:
        one_of(key, edit, EDITS)
    require(bool(edits), key, edits, f"must name at least one of {', '.join(EDITS)}")
    once_rule(key, edits)
