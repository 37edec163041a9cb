"""Keep what the README files say of the runs from the shipped base.

python -m experiments.main_job.shipped RAPO GROUNDED ANSWER

The arguments are run folders of one seed and cold start: RAPO, grounded, and credit on the answer alone. Writes
results/shipped.json. Without arguments it prints the table of the project's README from that file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aes_r1.evaluation.metrics import paired_bootstrap
from aes_r1.runs.cells import format_cell
from aes_r1.runs.files import write_json
from aes_r1.runs.folder import RunFolder
from experiments.reading import Run
from experiments.tables import short

RESULT = Path(__file__).parent / "results" / "shipped.json"
PROTOCOLS = ("sample", "greedy", "mean")
CRITIQUES = ("words_srcc", "information_nats", "score_information_nats", "distinct")
SETS = ("scenes/test", "scenes_shifted/test")
COLUMNS = ("cold_start", "rapo", "grounded")
ROWS = {  # of the project's README
    "score, one sample": "sample",
    "score, mean of 4": "mean",
    "score, greedy": "greedy",
    "words of greedy critiques": "words_srcc",
    "different greedy critiques": "distinct",
}


def collected(rapo: Run, grounded: Run, answer: Run) -> dict[str, Any]:
    """Return SRCC by protocol and what critiques say, by model and set, and paired differences to RAPO."""
    runs = {"cold_start": rapo, "rapo": rapo, "grounded": grounded, "answer": answer}
    models = {
        name: {dataset: _cells(run.evaluation["stages"]["cold_start" if name == "cold_start" else "rapo"][dataset])
               for dataset in SETS}
        for name, run in runs.items()
    }  # fmt: skip
    pairs = [((rapo, "rapo"), (rapo, "cold_start")), ((grounded, "rapo"), (rapo, "rapo")),
             ((answer, "rapo"), (rapo, "rapo"))]  # fmt: skip
    names = (("rapo", "cold_start"), ("grounded", "rapo"), ("answer", "rapo"))
    differences = [
        {
            "set": dataset,
            "protocol": protocol,
            "after": after,
            "before": before,
            **_difference(*pair, dataset, protocol),
        }
        for (after, before), pair in zip(names, pairs, strict=True)
        for dataset in SETS
        for protocol in PROTOCOLS
    ]
    return {
        "commits": {name: run.origin["commits"] for name, run in runs.items()},
        "base": rapo.origin["base"],
        "models": models,
        "differences": differences,
    }


def _cells(cells: Mapping[str, Any]) -> dict[str, Any]:
    critiques = cells["greedy"]["critiques"]
    return {**{name: cells[name]["srcc"] for name in PROTOCOLS}, **{name: critiques[name] for name in CRITIQUES}}


def _difference(after: tuple[Run, str], before: tuple[Run, str], dataset: str, protocol: str) -> dict[str, Any]:
    """Return the paired difference of SRCC of two (run, stage)."""
    second, first = (run.answers(stage, dataset, protocol) for run, stage in (after, before))
    scores = ([first[key][0] for key in second], [value for value, _ in second.values()])
    comparison = paired_bootstrap(*scores, [mos for _, mos in second.values()], seed=after[0].seed)["srcc"]
    return {name: comparison[name] for name in ("difference", "low", "high")}


def table(result: Mapping[str, Any]) -> list[str]:
    """Return the rows of the table in the project's README: both sets beside each other."""
    lines = []
    for name, key in ROWS.items():
        cells = [told(result["models"][model][dataset][key], key) for dataset in SETS for model in COLUMNS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def told(value: Mapping[str, Any], key: str) -> str:
    """Format .711 [.67, .75], nats 6.9 [6.5, 7.2], and a count as it is."""
    if key == "distinct":
        return f"{value['value']:.0f}"
    digits, end_digits = (1, 1) if key.endswith("nats") else (3, 2)
    return format_cell(value, digits=digits, end_digits=end_digits, write=short)


def main(arguments: Sequence[str]) -> None:
    if arguments:
        runs = [Run(folder, folder.settings, folder.evaluation) for folder in map(RunFolder, map(Path, arguments))]
        write_json(RESULT, collected(*runs))
    print("\n".join(table(json.loads(RESULT.read_text()))))


if __name__ == "__main__":
    main(sys.argv[1:])
