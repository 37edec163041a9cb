"""Values of another kind in a run's files: one line that names file and key, and nothing is made of them."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aes_r1.runs.folder import RunFolder
from aes_r1.settings import InputError
from tests.report.kinds_of_values import mutations, places_in, replaced, views, write_runs

SMALL = (
    "resumed.json",
    *(f"stages/{name}.json" for name in ("data", "cold_start", "rapo", "origin")),
    "best/validation.json",
    *(f"{name}.jsonl" for name in ("metrics", "completions", "predictions", "entropy")),
)
TRIED = {"settings.json": 25, "evaluation.json": 40}  # mutations of a file; of others 10
EACH = ("dashboard", "runs", "facts", "across")  # the views that are quick
READERS: dict[str, Callable[[RunFolder], Any]] = {
    "evaluation.json": lambda run: run.evaluation,
    "resumed.json": lambda run: run.resumed,
    "best/validation.json": lambda run: run.best_validation,
    "metrics.jsonl": lambda run: run.metrics(),
    "completions.jsonl": lambda run: run.last_completions() + run.completions(),
    "predictions.jsonl": lambda run: list(run.predictions()),
    "entropy.jsonl": lambda run: run.entropy,
    **{f"stages/{one}.json": (lambda run, one=one: run.stage_values(one)) for one in ("data", "rapo", "cold_start")},
}


@pytest.fixture
def run_of_all(run, tmp_path) -> RunFolder:
    return write_runs(tmp_path / "all", json.loads((run / "evaluation.json").read_text()))


def ended_with(view: Callable[[], Any], what: str = "") -> str:
    """The line that ends a view; none where it is made."""
    try:
        view()
    except InputError as error:
        return str(error)
    except Exception as error:
        error.add_note(what)
        raise
    return ""


@pytest.mark.slow
def test_a_value_of_another_kind_is_named_or_does_no_harm(run_of_all, tmp_path, capsys):
    """A seeded sample of keys, values and commands; InputError is the one exception."""
    refused = 0
    for name in ("settings.json", "evaluation.json", *SMALL):
        file = run_of_all.path / name
        whole = file.read_text()
        slow = itertools.cycle([("report",), ("comparison", "export best"), ("starts", "export")])
        for what, content in itertools.islice(mutations(file, 17), TRIED.get(name, 10)):
            file.write_text(content)
            made = views(run_of_all, tmp_path / "out")
            for view in (*EACH, *next(slow)):
                said = ended_with(made[view], f"{name}: {what}, {view}")
                assert "\n" not in said
                assert str(run_of_all.path.parents[1]) in said or not said, (name, what, view)
                refused += bool(said)
        file.write_text(whole)
    assert refused > 100


def kind_of(value: Any) -> str:
    kinds = ((bool, "flag"), (int | float, "number"), (str, "text"), (list, "list"), (dict, "object"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "null")


def value_at(values: Any, path: tuple) -> Any:
    for key in path:
        values = values[key]
    return values


@pytest.mark.parametrize("name", READERS)
@pytest.mark.slow
def test_every_number_and_text_is_refused_as_anything_else(name, run_of_all):
    file = run_of_all.path / name
    lines = file.read_text().splitlines(keepends=True) if file.suffix == ".jsonl" else [file.read_text()]
    whole = json.loads(lines[-1])
    numbers = [path for path in places_in(whole) if kind_of(value_at(whole, path)) == "number"]
    texts = [path for path in places_in(whole) if kind_of(value_at(whole, path)) == "text"]
    skip = ("manifests", "starts", "by_kind", "asked")  # what they hold is shown as it is, or checked as a whole
    wrong = [(path, other) for path in numbers for other in ("0.5", True, [], {"a": 1}, float("nan"), float("inf"))]
    wrong += [(path, other) for path in texts for other in (3, True, [1], {"a": 1})]
    wrong = [(path, other) for path, other in wrong if path[0] not in skip]
    step = max(1, len(wrong) // 400)
    for path, other in wrong[::step]:
        if path[-1] in ("from", "to") or (path[-1] == "coverage" and isinstance(other, dict)):
            continue  # of several kinds
        file.write_text("".join([*lines[:-1], json.dumps(replaced(whole, path, other)) + "\n"]))
        said = ended_with(lambda: READERS[name](run_of_all))
        line = f", line {len(lines)}" if file.suffix == ".jsonl" else ""
        key = next(one for one in reversed(path) if isinstance(one, str))
        assert said.startswith(f"{file}{line}: "), (path, other)
        assert re.search(rf"{re.escape(key)}=.* is not .*put a whole copy back", said), (path, other)


@pytest.mark.parametrize(
    ("key", "other"), [("n", -3), ("n", 2.5), ("n", None), ("resamples", -1), ("srcc", 0.5), ("srcc", None)]
)
@pytest.mark.slow
def test_a_count_is_whole_and_not_negative_and_a_measure_is_an_object(key, other, run_of_all):
    whole = json.loads(run_of_all.evaluation_file.read_text())
    paths = [path for path in places_in(whole) if path[-1] == key and path[0] != "manifests"]
    assert paths
    for path in paths[:20]:
        run_of_all.evaluation_file.write_text(json.dumps(replaced(whole, path, other)))
        with pytest.raises(InputError, match=rf"{key}=\S+ is not an? (whole number|object)"):
            _ = run_of_all.evaluation


@pytest.mark.slow
def test_names_of_stages_and_sets_are_no_keys(run_of_all):
    """A model of an evaluation may be called as a measure is."""
    whole = json.loads(run_of_all.evaluation_file.read_text())
    cells = whole["stages"]["rapo"]
    for name in ("n", "value", "p", "low", "set", "curve"):
        run_of_all.evaluation_file.write_text(json.dumps({**whole, "stages": {name: cells}}))
        assert list(run_of_all.evaluation["stages"]) == [name]


@pytest.mark.parametrize(
    ("key", "other", "says"),
    [
        ("evaluation.temperature", "0.5", 'evaluation.temperature="0.5" is not a number or null'),
        ("evaluation.temperature", -1, "temperature=-1: must be a positive number"),
        ("evaluation.n_samples", 2.5, "evaluation.n_samples=2.5 is not a whole number"),
        ("trainer.max_new_tokens", [], r"trainer.max_new_tokens=\[\] is not a whole number"),
        ("seed", {}, "seed={} is not a whole number"),
        ("run_name", 3, "run_name=3 is not a text"),
    ],
)
@pytest.mark.slow
def test_settings_that_a_model_is_asked_by_are_of_their_kind(key, other, says, run_of_all, tmp_path):
    whole = json.loads(run_of_all.settings_file.read_text())
    run_of_all.settings_file.write_text(json.dumps(replaced(whole, tuple(key.split(".")), other)))
    with pytest.raises(InputError, match=f"^{re.escape(str(run_of_all.settings_file))}: {says}.*put a whole copy back"):
        views(run_of_all, tmp_path / "out")["facts"]()


def test_a_checkpoint_whose_progress_has_other_values_counts_as_damaged(tmp_path):
    from aes_r1.trainer.checkpoint import _damage, progress_of

    class Engine:
        rank, size = 0, 1

    folder = tmp_path / "step_3"
    folder.mkdir()
    whole = {"step": 3, "processes": 1, "skipped_in_a_row": 0, "best": {"step": 2, "score": 0.5}, "files": {}}
    file = Path(folder / "progress.json")
    file.write_text(json.dumps(whole))
    assert _damage(folder, Engine()) == []
    wrong = [(path, other) for path in places_in(whole) for other in ("3", -1, 2.5, True, [], {"a": 1})]
    for path, other in [*wrong, (("step",), 4)]:
        if path == ("best",) and other == {"a": 1}:
            continue
        file.write_text(json.dumps(replaced(whole, path, other)))
        score = path[-1] == "score" and not isinstance(other, str | bool | list | dict)
        assert bool(_damage(folder, Engine())) is not score, (path, other)
    assert progress_of(tmp_path) == whole | {"step": 4}
