"""Write event files for TensorBoard: a view of metrics.jsonl and completions.jsonl, written anew at every resume."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aes_r1.settings import InputError
from aes_r1.tracking.glossary import GLOSSARY, on_axis

_MARKDOWN = re.compile(r"[\\`*_{}\[\]()#!|]")  # characters with a meaning in Markdown within a line


class Board:
    """Write the event files of one run into `folder`, in place of earlier ones.

    metrics: the rows of metrics.jsonl so far. InputError where TensorBoard cannot be imported.
    """

    def __init__(self, folder: Path, metrics: Iterable[Mapping[str, Any]]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(
                f"tracker=tensorboard: TensorBoard cannot be loaded ({error}); pip install -e '.[tensorboard]', or "
                "give tracker=offline"
            ) from error
        shutil.rmtree(folder, ignore_errors=True)
        self._writer = SummaryWriter(str(folder))
        lines = [f"| {name} | {line} |" for name, line in GLOSSARY.items()]
        self._writer.add_text("glossary", "\n".join(["| metric | what it is |", "|---|---|", *lines]))
        for row in metrics:
            values = {name: value for name, value in row.items() if name not in ("stage", "step")}
            self.log(row["stage"], row["step"], values)

    def log(self, stage: str, step: int, values: Mapping[str, float | None]) -> None:
        """Write one row at `step` under the names of `on_axis`, as in W&B; values that are not finite are left out."""
        known = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
        for name, value in on_axis(stage, known).items():
            self._writer.add_scalar(name, value, step)

    def completions(self, stage: str, step: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write completions as a table: score, MOS and text."""
        lines = [f"| {row.get('score')} | {row.get('mos')} | {_cell(str(row.get('text')))} |" for row in rows]
        self._writer.add_text(
            f"{stage}/completions", "\n".join(["| score | mos | text |", "|---|---|---|", *lines]), step
        )

    def summary(self, values: Mapping[str, float]) -> None:
        """Write numbers that describe the whole run, at step 0."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, 0)

    def close(self) -> None:
        """Write what is left, and close the files."""
        self._writer.close()


def _cell(text: str) -> str:
    """Return `text` escaped: else it could end its cell, or be read as Markdown or HTML, which could load a picture."""
    return _MARKDOWN.sub(r"\\\g<0>", " ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;")
