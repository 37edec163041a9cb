"""Compute a study's claims and its table again from a committed result.json, without its run folders.

python -m experiments.rewrite NAME [RESULTS]

RESULTS: where result.json lies and table.md is written, or experiments/NAME/results.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.study import HERE, Study, claimed
from experiments.tables import table


def rewritten(study: Study, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result with its claims judged from the values by condition and seed that it holds."""
    return {**result, "claims": claimed(study, result["rows"], result.get("failed", {}))}


def page(module: Any, result: Mapping[str, Any]) -> str:
    """Return table.md: what every study has, and the section that only this one has, if it has one."""
    return table(result) + (module.section(result) if hasattr(module, "section") else "")


def main(arguments: list[str]) -> None:
    name, *rest = arguments
    module = importlib.import_module(f"experiments.{name}.analyse")
    folder = Path(rest[0]) if rest else HERE / name / "results"
    result = rewritten(module.STUDY, json.loads((folder / "result.json").read_text()))
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "table.md").write_text(page(module, result))


if __name__ == "__main__":
    main(sys.argv[1:])
