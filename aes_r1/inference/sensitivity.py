"""Ask again about pictures after edits that make them worse, under the protocols and settings of the evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from aes_r1.data.edits import edited_sample
from aes_r1.data.sample import Sample
from aes_r1.data.splits import stratified_draw
from aes_r1.inference.predictions import Predictor, Sets
from aes_r1.runs.files import write_rows
from aes_r1.runs.folder import RunFolder


def ask_about_edits(
    run: RunFolder, stage: str, sets: Sets, predictor: Predictor, *, edits: Sequence[str], pictures: int, seed: int
) -> None:
    """Ask about up to `pictures` drawn pictures of each entry of `sets` after each of `edits`.

    Writes run.examined_file("sensitivity", STAGE, SET), a row for each protocol of `predictor`, picture and edit:
    {"protocol", "id", "edit", "original": score|null, "edited": score|null}, where original is the score that `stage`
    gave to the picture as it is. An existing file is kept. A request to stop takes effect once the file is written; a
    kill loses the rows of the current set.
    """
    for samples in sets.values():
        drawn: dict[str, list[Sample]] = {}
        for sample in stratified_draw(samples, pictures, seed):
            drawn.setdefault(sample.dataset_split, []).append(sample)
        for name, originals in drawn.items():
            path = run.examined_file("sensitivity", stage, name)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_rows(path, _rows(run, stage, name, originals, predictor, edits, seed))


def _rows(
    run: RunFolder,
    stage: str,
    name: str,
    originals: Sequence[Sample],
    predictor: Predictor,
    edits: Sequence[str],
    seed: int,
) -> Iterator[dict[str, Any]]:
    ids = {sample.id for sample in originals}
    scores_of_stage = {
        (row["protocol"], row["id"]): row["score"]
        for row in run.predictions(stage)
        if row["id"] in ids and f"{row['dataset']}/{row['split']}" == name
    }
    edited = [edited_sample(original, edit, seed=seed) for original in originals for edit in edits]
    twins = {twin.id: twin for twin in edited}
    for row in predictor(twins.values()):
        protocol, twin = row["protocol"], twins[row["id"]]
        scores = {"original": scores_of_stage[protocol, twin.original], "edited": row["score"]}
        yield {"protocol": protocol, "id": twin.original, "edit": twin.edit, **scores}
