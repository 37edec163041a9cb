"""Choose the completions that a table shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any


def worst_first(rows: Sequence[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """Return at most `most` rows, those with the largest |score - MOS|, added as `error` where the MOS is known.

    An edited twin is left out: it has no MOS, and its file holds the picture before the edit. Each picture first gets
    one row, its worst answer; places that stay free go to further answers. Unreadable answers (error null) come first
    but take at most half of the places, so that a run that fails often still shows its worst scores.
    """
    judged = [
        row
        if row.get("mos") is None
        else {**row, "error": None if row.get("score") is None else abs(row["score"] - row["mos"])}
        for row in rows
        if "edit" not in row
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
    """Return `rows` as a W&B table, with thumbnails of the file `image` and, for pairs, of the file `second`.

    A file that Pillow cannot read has no thumbnail.
    """
    import wandb

    keys = list(dict.fromkeys(key for row in rows for key in row))
    pictures = {"picture": "image", **({"second picture": "second"} if "second" in keys else {})}
    columns = [key for key in keys if key not in pictures.values()]
    table = wandb.Table(columns=[*pictures, *columns])
    for row in rows:
        thumbnails = [_thumbnail(row.get(key)) for key in pictures.values()]
        table.add_data(*thumbnails, *(row.get(key) for key in columns))
    return table


def _thumbnail(path: str | None) -> Any:
    """Return the picture in the file as a W&B image; None where Pillow cannot read it.

    Pillow alone reads almost everything that training reads, but no camera's raw files, for example.
    """
    import wandb
    from PIL import Image

    if path is not None:
        with suppress(OSError), Image.open(path) as image:
            image.thumbnail((256, 256))
            return wandb.Image(image.convert("RGB"))
    return None
