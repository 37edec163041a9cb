"""Choose the completions that a table shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any


def worst_first(rows: Sequence[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """Return at most `most` rows, those with the largest |score - MOS|, added as `error` where the MOS is known.

    Each picture has one row, its worst answer. Unreadable answers (error null) come first but take at most half of the
    places, so that a run that fails often still shows its worst scores. Free places go to further answers.
    """
    judged = [
        row
        if row.get("mos") is None
        else {**row, "error": None if row.get("score") is None else abs(row["score"] - row["mos"])}
        for row in rows
    ]
    readable = [index for index, row in enumerate(judged) if row.get("score") is not None]
    readable.sort(key=lambda index: judged[index].get("error", 0), reverse=True)
    unreadable = [index for index, row in enumerate(judged) if row.get("score") is None]
    chosen: list[int] = []
    pictures = set()  # by file, because two sets may share ids
    for candidates, limit in ((unreadable, most // 2), (readable, most)):
        for index in candidates:
            picture = (judged[index].get("image"), judged[index]["id"])
            if len(chosen) < limit and picture not in pictures:
                chosen.append(index)
                pictures.add(picture)
    chosen += [index for index in readable + unreadable if index not in chosen][: most - len(chosen)]
    return [judged[index] for index in sorted(chosen, key=(unreadable + readable).index)]


def completions_table(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return `rows` as a W&B table, with a thumbnail of each row's file `image` where Pillow can read it."""
    import wandb
    from PIL import Image

    columns = [key for key in dict.fromkeys(key for row in rows for key in row) if key != "image"]
    table = wandb.Table(columns=["picture", *columns])
    for row in rows:
        picture = None
        if "image" in row:
            # Plain Pillow reads almost everything that training reads; for example a raw file has no picture here.
            with suppress(OSError), Image.open(row["image"]) as image:
                image.thumbnail((256, 256))
                picture = wandb.Image(image.convert("RGB"))
        table.add_data(picture, *(row.get(key) for key in columns))
    return table
