"""Make a study's claims, its table and its figure again from committed results, without its run folders.

python -m experiments.rewrite NAME [RESULTS]

RESULTS: where result.json lies, and answers.csv.gz if there is one, and where table.md and the figure are written, or
experiments/NAME/results.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.figures import save
from experiments.study import HERE, Study, claimed, drawn
from experiments.tables import table


def rewritten(study: Study, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result with its claims judged from the values by condition and seed that it holds."""
    return {**result, "claims": claimed(study, result["rows"], result.get("failed", {}))}


def page(module: Any, result: Mapping[str, Any]) -> str:
    """Return table.md: what every study has, and the section that only this one has, if it has one."""
    return table(result) + (module.section(result) if hasattr(module, "section") else "")


def figure(module: Any, result: Mapping[str, Any], folder: Path) -> Any:
    """Return the study's own figure if it has one, or that of every study."""
    return module.draw(result) if hasattr(module, "draw") else drawn(module.STUDY, result, folder)


def rewrite(module: Any, result: Mapping[str, Any], folder: Path) -> None:
    """Judge the claims of `result` again; write it, its table and its figure to `folder`."""
    result = rewritten(module.STUDY, result)
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "table.md").write_text(page(module, result))
    save(figure(module, result, folder), folder)


def main(arguments: list[str]) -> None:
    name, *rest = arguments
    module = importlib.import_module(f"experiments.{name}.analyse")
    folder = Path(rest[0]) if rest else HERE / name / "results"
    rewrite(module, json.loads((folder / "result.json").read_text()), folder)


if __name__ == "__main__":
    main(sys.argv[1:])
