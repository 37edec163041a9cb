"""Files of a run that were damaged, or are another program's: one line that names file and line, never a traceback."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aes_r1.report.comparison_page import write_comparison
from aes_r1.report.run_page import write_report
from aes_r1.report.studies import read_studies
from aes_r1.report.studies_page import static_page
from aes_r1.runs.__main__ import print_runs
from aes_r1.runs.files import append_rows
from aes_r1.settings import InputError
from tests.experiments.runs import write_study


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = write_study(tmp_path_factory.mktemp("study") / "runs")
    for run in (folder / "reward_ablation").iterdir():
        rows = [
            {"stage": "rapo", "step": step, "id": f"{number:03d}", "image": "a.png", "k": k, "text": "no", "score": 0.5}
            for step in (1, 2)
            for number in range(2)
            for k in range(2)
        ]
        append_rows(run / "completions.jsonl", [{**row, "advantage": 0.1, "truncated": False} for row in rows])
    return folder


def views(runs: Path, run: Path) -> dict[str, Callable[[], Any]]:
    return {
        "report": lambda: write_report(run),
        "comparison": lambda: write_comparison([run, run.with_name("rank1")], runs / "comparison.html"),
        "dashboard": lambda: static_page(read_studies(runs), runs),
        "runs": lambda: print_runs(runs),
    }


def ended_by(runs: Path, file: Path, contents: Iterable[str], place: str = "") -> set[str]:
    """The views that some of the contents of `file` end, with a line that names it and `place`; others are made."""
    whole, ended = file.read_text(), {}
    try:
        for content in contents:
            file.write_text(content)
            for name, view in views(runs, file.parent).items():
                try:
                    view()
                except InputError as error:
                    ended[name, content] = str(error)
    finally:
        file.write_text(whole)
    for said in ended.values():
        assert "\n" not in said
        if f"{file.name} is missing" not in said:  # it measures nothing at all
            assert said.startswith(f"{file}{place}: ")
            assert said.endswith("put a whole copy back, or move it elsewhere")
    return {name for name, _ in ended}


def keys_in(value: Any, before: tuple = ()) -> Iterator[tuple]:
    """The path of every key, of lists that of their first item."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, inner in items:
        if isinstance(value, dict):
            yield (*before, key)
        yield from keys_in(inner, (*before, key))


def without(values: dict, path: tuple) -> dict:
    values = inner = copy.deepcopy(values)
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return values


def replaced(values: dict, path: tuple, other: Any) -> dict:
    values = inner = copy.deepcopy(values)
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = other
    return values


@pytest.mark.parametrize("content", ["{}", '{"editor.fontSize": 12}', '{"data": 3}', '{"trainer": {}}'])
@pytest.mark.slow
def test_settings_that_are_no_run_s_are_named(content, runs):
    assert "dashboard" in ended_by(runs, runs / "reward_ablation" / "rank0" / "settings.json", [content])


@pytest.mark.parametrize("name", ["settings.json", "evaluation.json"])
@pytest.mark.slow
def test_a_file_that_lacks_any_of_its_keys_is_named_or_does_without(name, runs):
    file = runs / "reward_ablation" / "rank0" / name
    whole = json.loads(file.read_text())
    paths = [path for path in keys_in(whole) if path[-1] not in ("low", "high", "answered")]
    few = [path for path in paths if path[0] == "stages" and len(path) < 6 and path[3:4] != ("sample",)]
    assert ended_by(runs, file, [json.dumps(without(whole, path)) for path in [*paths[::9], *few]])


@pytest.mark.parametrize("stages", [[], None, 3, "rapo", {"rapo": 3}, {"rapo": []}, {"rapo": {"folder/test": None}}])
def test_an_evaluation_without_an_object_where_one_belongs_is_named(stages, runs):
    file = runs / "reward_ablation" / "rank0" / "evaluation.json"
    whole = json.loads(file.read_text())
    assert "dashboard" in ended_by(runs, file, [json.dumps({**whole, "stages": stages})])


@pytest.mark.parametrize("other", [None, 3, [], {}])
@pytest.mark.slow
def test_a_measurement_of_another_kind_is_named(other, runs):
    """Sets, protocols and cells: a value of another kind in the place of each."""
    file = runs / "reward_ablation" / "rank0" / "evaluation.json"
    whole = json.loads(file.read_text())
    paths = [path for path in keys_in(whole) if path[0] == "stages" and len(path) <= 4]
    assert {len(path) for path in paths} == {1, 2, 3, 4}
    contents = [json.dumps(replaced(whole, path, other)) for path in paths]
    for content in contents if other != {} else contents[1:]:  # without any stage, nothing was measured
        ended = ended_by(runs, file, [content])
        assert "dashboard" in ended if other != {} else ended  # which needs no cell but those that it shows


@pytest.mark.parametrize("name", ["predictions.jsonl", "metrics.jsonl", "completions.jsonl"])
@pytest.mark.slow
def test_a_row_that_lacks_any_of_its_keys_is_named_with_its_line(name, runs):
    file = runs / "reward_ablation" / "rank0" / name
    lines = file.read_text().splitlines(keepends=True)
    third = json.loads(lines[2])
    rows = [*(without(third, (key,)) for key in third), {}]
    contents = ["".join([*lines[:2], json.dumps(row) + "\n", *lines[3:]]) for row in rows]
    assert "report" in ended_by(runs, file, contents, ", line 3")
