"""One model asked about its sets, and everything measured from the answers: training runs and the evaluate command
share this.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from aes_r1.data.sample import Sample
from aes_r1.evaluation.critique import chosen_critiques, critique_measures, rows_by_protocol
from aes_r1.evaluation.evaluate import predict
from aes_r1.evaluation.grounding import grounding
from aes_r1.evaluation.information import likelihoods, nats
from aes_r1.evaluation.interventions import intervene, measured, paired_rows
from aes_r1.evaluation.metrics import summarise
from aes_r1.evaluation.paper import paper_numbers
from aes_r1.evaluation.predictions import Rows, merge, read, record
from aes_r1.model.backbone import Backbone

Sets = Mapping[str, Callable[[], Iterable[Sample]]]  # NAME-SPLIT: its pictures, from the first, every time it is called


def record_stage(
    folder: Path,
    stage: str,
    sets: Sets,
    rows_of: Callable[[str], Rows],
    *,
    rows_per_picture: int,
    rank: int = 0,
    size: int = 1,
    wait: Callable[[], None] = lambda: None,
) -> int:
    """Put the rows of `stage` on every set into FOLDER/predictions.jsonl, going on after a kill; returns their number.

    Process `rank` of `size` asks about every size-th picture; `wait` is a barrier of them. rows_of(name) makes rows.
    The parts stay in FOLDER/parts/STAGE until the caller has noted that the stage is done.
    """
    parts = folder / "parts" / stage
    for name, samples in sets.items():
        record(
            _part(parts, name, rank, size),
            islice(samples(), rank, None, size),
            rows_of(name),
            rows_per_picture=rows_per_picture,
        )
    wait()
    if rank != 0:
        return 0
    written = [[_part(parts, name, other, size) for other in range(size)] for name in sets]
    return merge(folder / "predictions.jsonl", stage, written, rows_per_picture=rows_per_picture)


def _part(parts: Path, name: str, rank: int, size: int) -> Path:
    return parts / f"{name}.{rank}-of-{size}.jsonl"


def asking(backbone: Backbone, progress: Callable[[int], None] = lambda done: None, **how: Any) -> Rows:
    """`predict` of one model as a function of samples; `how` are its keywords."""

    def rows_of(samples: Iterable[Sample]) -> Iterator[dict[str, Any]]:
        return predict(backbone, samples, progress=progress, **how)

    return rows_of


def exchange_critiques(
    folder: Path, stage: str, backbone: Backbone, *, question: str, pictures: int, batch_size: int, seed: int
) -> None:
    """Exchange up to `pictures` critiques of `stage` per set and protocol, and score them beside other pictures.

    FOLDER/interventions/STAGE/DATASET-SPLIT.jsonl and FOLDER/information/STAGE/DATASET-SPLIT.jsonl; a file that is
    there is kept. Protocols: those of critique.GROUNDED, and else the first that writes critiques.
    """

    def mine() -> Iterator[dict[str, Any]]:
        return (row for row in read(folder / "predictions.jsonl") if row["stage"] == stage)

    first = chosen_critiques(mine(), most=pictures, seed=seed)
    chosen = {(name, rows[0]["protocol"]): rows for (_, name), rows in first.items()}
    followed = rows_by_protocol(mine(), readable=True, most=pictures, seed=seed)
    chosen |= {(name, protocol): rows for (_, name, protocol), rows in followed.items()}

    def exchanged(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        return intervene(backbone, paired_rows(rows, seed=seed), question=question, batch_size=batch_size)

    def informed(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        table = likelihoods(backbone, rows, question=question, batch_size=max(1, batch_size // 4), seed=seed)
        for row, (words, score) in zip(rows, nats(table).tolist() if len(rows) > 1 else [], strict=False):
            yield {"id": row["id"], "words_nats": words, "score_nats": score}

    for name in dict.fromkeys(name for name, _ in chosen):
        for kind, measured_rows in (("interventions", exchanged), ("information", informed)):
            path = _examined(folder, kind, stage, name)
            if path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_suffix(".partial")
            with beside.open("w", encoding="utf-8") as file:
                for (place, protocol), rows in chosen.items():
                    for row in measured_rows(rows) if place == name else ():
                        file.write(json.dumps({"protocol": protocol, **row}) + "\n")
            beside.replace(path)


def _examined(folder: Path, kind: str, stage: str, name: str) -> Path:
    return folder / kind / stage / f"{name.replace('/', '-')}.jsonl"


def _of_protocol(rows: Iterable[dict[str, Any]], protocol: str) -> list[dict[str, Any]]:
    """The rows of `protocol`, and those that name none."""
    return [row for row in rows if row.get("protocol", protocol) == protocol]


def measure(
    folder: Path,
    sets: Sets,
    *,
    manifests: Mapping[str, str],
    n_bootstrap: int,
    seed: int,
    seen: Collection[str] | None,
    all_pairs: bool = False,
) -> dict[str, Any]:
    """evaluation.json of FOLDER (docs/evaluation.md), from its predictions and interventions, each read once or twice.

    sets: where true factors of made scenes are looked up; manifests: {DATASET/SPLIT: sha256}; seen: sets trained on.
    """
    path = folder / "predictions.jsonl"
    summary = summarise(
        read(path), n_bootstrap=n_bootstrap, seed=seed, manifests=manifests, seen=seen, all_pairs=all_pairs
    )
    chosen = chosen_critiques(read(path), seed=seed)
    followed = rows_by_protocol(read(path), readable=False, seed=seed)
    wanted = {(name, row["id"]) for (_, name), rows in chosen.items() for row in rows}
    wanted |= {(name, row["id"]) for (_, name, _), rows in followed.items() for row in rows}
    factors = _factors(sets, wanted)
    critiques: dict[str, Any] = {}
    for (stage, name), rows in chosen.items():
        found = critique_measures(rows, factors=factors.get(name), n_bootstrap=n_bootstrap, seed=seed)
        written = read(_examined(folder, "interventions", stage, name))
        if exchanged := _of_protocol(written, rows[0]["protocol"]):
            found["interventions"] = measured(exchanged, n_bootstrap=n_bootstrap, seed=seed)
        critiques.setdefault(stage, {})[name] = found
    summary["critiques"] = critiques
    for (stage, name, protocol), rows in followed.items():
        cell = summary["stages"].get(stage, {}).get(name, {}).get(protocol)
        if cell is None or not any(row["critique"] for row in rows):
            continue
        exchanged, informed = (
            [row for row in read(_examined(folder, kind, stage, name)) if row.get("protocol") == protocol]
            for kind in ("interventions", "information")
        )
        cell["critiques"] = grounding(
            rows,
            factors=factors.get(name),
            informed=informed,
            exchanged=measured(exchanged, n_bootstrap=n_bootstrap, seed=seed) if exchanged else None,
            n_bootstrap=n_bootstrap,
            seed=seed,
        )
    names = {name.rsplit("/", 1)[0] for by_set in summary["stages"].values() for name in by_set}
    return summary | ({"paper": theirs} if (theirs := paper_numbers(names)) else {})


def _factors(sets: Sets, wanted: Collection[tuple[str, str]]) -> dict[str, dict[str, dict[str, float]]]:
    """{DATASET/SPLIT: {id: factors}} of the wanted made scenes."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for samples in sets.values() if wanted else ():
        for one in samples():
            name, factors = f"{one.dataset}/{one.split}", one.attributes.get("factors")
            if factors is None:
                break  # a set has them of every picture or of none
            if (name, one.id) in wanted:
                found.setdefault(name, {})[one.id] = factors
    return found
