"""Join two results of one study: runs of another machine, or runs whose folders are gone.

python -m experiments.join NAME MORE                MORE: the OUT of `python -m experiments.NAME.analyse RUNS OUT`

The conditions and replicates of MORE are added to experiments/NAME/results, whose claims, table and figure are made
again. Where both hold one replicate of a condition, its values must be equal; `origins` counts it twice.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from aes_r1.settings import InputError
from experiments.answers import read_answers, write_cells
from experiments.endpoints import join_seeds
from experiments.reading import METRICS, over_seeds
from experiments.rewrite import rewrite
from experiments.study import HERE, Study, missing_points, run_analysis

Row = Mapping[str, Any]


def joined(study: Study, first: Row, second: Row) -> dict[str, Any]:
    """Return the result of the runs of both, without the fields that only this study has.

    InputError where both hold one replicate of one condition with different values.
    """
    rows = join_rows(first["rows"], second["rows"], ("set", "protocol", "condition"), _row)
    answered = [row for row in rows if row["protocol"] == study.protocol and row["set"] == rows[0]["set"]]
    runs = {row["condition"]: {int(seed) for seed in row["srcc"]["seeds"]} for row in answered}
    seeds = sorted({*first["seeds"], *second["seeds"]})
    return {
        "study": first["study"],
        "seeds": seeds,
        "origins": {
            key: dict(Counter(first["origins"][key]) + Counter(second["origins"][key])) for key in ("commits", "base")
        },
        "one_list": first["one_list"] and second["one_list"],
        "people": {**first.get("people", {}), **second.get("people", {})},
        "protocol": first["protocol"],
        "missing": missing_points(study, seeds, runs),
        "unfinished": [*first["unfinished"], *second["unfinished"]],
        "failed": {**first.get("failed", {}), **second.get("failed", {})},
        "rows": in_order(rows, study),
        "differences": join_rows(
            first["differences"], second["differences"], ("set", "protocol", "condition", "than"), _difference
        ),
        "claims": first["claims"],
        "paper": first["paper"],
    }


def join_rows(
    first: Iterable[Row], second: Iterable[Row], keys: tuple[str, ...], join: Callable[[Row, Row], Row]
) -> list[Row]:
    """Return the rows of both; of two with the same values of `keys`, their `join`."""
    rows = {tuple(row[key] for key in keys): row for row in first}
    for row in second:
        name = tuple(row[key] for key in keys)
        rows[name] = join(rows[name], row) if name in rows else row
    return list(rows.values())


def in_order(rows: list[Row], study: Study) -> list[Row]:
    """Return the rows by set and protocol as they come first, and in these by the study's order of conditions."""
    groups = list(dict.fromkeys((row["set"], row["protocol"]) for row in rows))
    return sorted(
        rows, key=lambda row: (groups.index((row["set"], row["protocol"])), study.order.index(row["condition"]))
    )


def _row(first: Row, second: Row) -> Row:
    rates = [row["parse_failure_rate"] for row in (first, second) for _ in row["srcc"]["seeds"]]
    return {
        **first,
        "n": max(first["n"], second["n"]),
        "parse_failure_rate": sum(rates) / len(rates),
        **{metric: _metric(first, second, metric, "value") for metric in METRICS},
    }


def _difference(first: Row, second: Row) -> Row:
    return {**first, **{metric: _metric(first, second, metric, "difference") for metric in METRICS}}


def _metric(first: Row, second: Row, metric: str, value: str) -> dict[str, Any]:
    what = f"{metric} of {first['condition']} ({first['set']}, {first['protocol']})"
    seeds = join_seeds(first[metric]["seeds"], second[metric]["seeds"], what)
    return {**over_seeds(cell[value] for cell in seeds.values()), "seeds": seeds}


def join(name: str, results: Path, more: Path) -> None:
    """Add the result in `more` to that in `results`, and its answers where both have them."""
    module = importlib.import_module(f"experiments.{name}.analyse")
    answers = [folder / "answers.csv.gz" for folder in (results, more)]
    for file in (more / "result.json", *(answers[1:] if answers[0].is_file() else ())):
        if not file.is_file():
            raise InputError(f"{file}: no such file; python -m experiments.{name}.analyse RUNS {more} writes it")
    first, second = (json.loads((folder / "result.json").read_text()) for folder in (results, more))
    if second["study"] != name:
        raise InputError(f"{more}: is a result of {second['study']}, not of {name}; give one of the same study")
    result = joined(module.STUDY, first, second)
    own_fields = sorted((first.keys() | second.keys()) - result.keys())
    if own_fields and not hasattr(module, "join"):
        raise InputError(
            f"{name} has results of its own ({', '.join(own_fields)}), which are not joined; analyse its runs together"
        )
    if own_fields:
        result |= module.join(first, second)
    if answers[0].is_file():
        write_cells(answers[0], {**read_answers(answers[1]), **read_answers(answers[0])})
    rewrite(module, result, results)


if __name__ == "__main__":
    run_analysis(lambda: join(sys.argv[1], HERE / sys.argv[1] / "results", Path(sys.argv[2])))
