"""Choose the completions that a table shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any


def worst_first(rows: Sequence[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """Return the up to `most` rows with the largest error |score - MOS|, which is added as `error` where MOS is known.

    Each picture has one row, its worst answer. Unreadable answers (error null) come first but take at most half of the
    places, so that a run that fails often still shows its worst scores. Free places go to further answers.
    """
    known = [
        {**row, "error": None if row.get("score") is None else abs(row["score"] - row["mos"])} if "mos" in row else row
        for row in rows
    ]
    readable = [place for place, row in enumerate(known) if row.get("score") is not None]
    readable.sort(key=lambda place: known[place].get("error", 0), reverse=True)
    unreadable = [place for place, row in enumerate(known) if row.get("score") is None]
    shown: list[int] = []
    pictures = set()  # by file, because two sets may share ids
    for places, limit in ((unreadable, most // 2), (readable, most)):
        for place in places:
            picture = (known[place].get("image"), known[place]["id"])
            if len(shown) < limit and picture not in pictures:
                shown.append(place)
                pictures.add(picture)
    shown += [place for place in readable + unreadable if place not in shown][: most - len(shown)]
    return [known[place] for place in sorted(shown, key=(unreadable + readable).index)]


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
