"""The studies' page: a study's analysis, which analyse.py writes as Markdown, with the paper's values beside ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

from aes_r1.report.html import row, table


def analysis_section(text: str) -> str:
    """Everything up to the first table and the footnotes in sight, the rest behind a fold."""
    blocks = [block.strip() for block in re.split(r"\n\s*\n", text.strip())]
    tables = [place for place, block in enumerate(blocks) if block.startswith("|")]
    opening = tables[0] + 1 if tables else len(blocks)
    footnotes = [block for block in blocks[opening:] if block.startswith(r"\*")]
    rest = [block for block in blocks[opening:] if block not in footnotes]
    shown = "".join(_html([*blocks[:opening], *footnotes]))
    folded = f"<details><summary>The whole analysis</summary>{''.join(_html(rest))}</details>" if rest else ""
    return f"<h3>Analysis</h3>{shown}{folded}"


def _html(blocks: list[str]) -> Iterator[str]:
    """What a table.md is made of: headings, tables and paragraphs."""
    for block in blocks:
        if block.startswith("#"):
            yield f"<h4>{_words(block.lstrip('# '))}</h4>"
        elif block.startswith("|"):
            head, _, *lines = (_cells(line) for line in block.split("\n"))
            yield table(head, [row([escape(cell) for cell in cells]) for cells in lines])
        else:
            yield f'<p class="note">{_words(block)}</p>'


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _words(text: str) -> str:
    return escape(text.replace(r"\*", "*"))
