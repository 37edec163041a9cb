"""Render the templates of the pages, and format numbers and names in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from aes_r1.report.charts import signed
from aes_r1.runs.cells import Interval, format_cell

HERE = Path(__file__).parent
STAGE_NAMES = {"base": "Base model", "cold_start": "Cold start", "rapo": "RAPO"}
STAGE_COLORS = {"base": "base", "cold_start": "cold", "rapo": "rapo"}


def number(value: float | None, digits: int = 3) -> str:
    """Format a number with `digits` decimals; None is a dash."""
    return "–" if value is None else f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def percent(value: float | None) -> str:
    """Format a share as a percentage; None is a dash."""
    return "–" if value is None else f"{100 * value:.1f}%"


def stage_name(stage: str) -> str:
    """Return the name of a stage on the pages."""
    return STAGE_NAMES.get(stage, stage)


def model_name(stage: str, last_stage: str | None) -> str:
    """Return the name of the model that stands for a run whose last stage is `last_stage` (None: not known)."""
    return stage_name(stage) + ("" if last_stage in (None, stage) else ", not the run’s final model")


def stage_color(stage: str) -> str:
    """Return the page variable that a stage is drawn in."""
    return STAGE_COLORS.get(stage, "rapo")


def short_protocol(protocol: str) -> str:
    """Return the name of a protocol inside a table."""
    return "one sample" if protocol == "sample" else protocol


def made_from(cell: Mapping[str, Any]) -> str:
    """Describe what a baseline was made from: the pictures that it was fitted on, or the people who were compared."""
    if cell["how"] == "fitted":
        return f"fitted on {cell['fitted_n']} of {cell['fitted_on']}" if "fitted_on" in cell else "fitted"
    if cell["how"] == "other_group":
        return f"{cell['group']} against the opinions" if "group" in cell else "another group against the opinions"
    agreements = [
        f"{name.upper()} {format_cell(cell[name])}" for name in ("srcc", "plcc") if cell[name]["value"] is not None
    ]
    of_halves = f"; half of the raters against the other half: {', '.join(agreements)}" if agreements else ""
    return f"{_by_halves(cell)}{of_halves}"


def reached(cell: Mapping[str, Any], metric: str) -> Interval:
    """Return a baseline's interval in `metric`, {"value", "low", "high"}: all None where it is not known.

    Where halves of the raters were compared, it is the agreement expected of two groups of full size.
    """
    return cell.get("whole_group", cell).get(metric, {"value": None, "low": None, "high": None})


def two_groups(people: Mapping[str, Any]) -> str:
    """Describe `people`, the cell of the baseline of that name: which raters it compares, and on how many pictures."""
    if people["how"] == "other_group":
        return f"{made_from(people)}, {people['n']} pictures"
    return f"{_by_halves(people)}, {people['n']} pictures"


def _by_halves(people: Mapping[str, Any]) -> str:
    source = {"halves": "halves of them", "spread": "their standard deviation"}[people["how"]]
    return f"two groups of as many raters, by {source}"


def in_sentence(name: str) -> str:
    """Return a name as it reads inside a sentence: RAPO stays, Greedy becomes greedy."""
    return name if name.isupper() else name[0].lower() + name[1:]


def templates(*folders: Path) -> Environment:
    """Load the templates of `folders`, then the report's. Values are escaped; a missing value is an error."""
    environment = Environment(
        loader=FileSystemLoader([*folders, HERE / "templates", HERE]),  # the last holds the style sheets
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (number, percent, signed, stage_name, stage_color, short_protocol, made_from, reached, in_sentence)
    environment.filters |= {function.__name__: function for function in filters}
    return environment


_PAGES = templates()


def render(template: str, **values: Any) -> str:
    """Render templates/`template` with these values."""
    return _PAGES.get_template(template).render(values)
